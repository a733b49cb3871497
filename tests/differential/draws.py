"""What the differential machine draws: small numbers and sizes that make its programs meet."""

from hypothesis import strategies as st

from differential.extremes import CALLS, EXTREMES
from differential.sides import PAGE

LONG = 300 * PAGE + 9  # more than a call does at once, and than most files have
FILES = st.integers(0, 5)
MMS = st.integers(0, 1)
BYTES = st.sampled_from([0, 0, 1, 100, PAGE - 1])
INDEXES = st.one_of(st.integers(0, 10), st.integers(0, 30), st.integers(0, 50))
# Also around the end of the first leaf table, which is page 496 of the address range that mmap hands out.
PAGES = st.one_of(INDEXES, INDEXES, st.integers(470, 530), st.integers(0, 1 << 18))
# Which mapping, which page in it, where in the page, and whether it may lie beyond the file or nowhere.
PLACES = st.tuples(st.integers(0, 7), PAGES, BYTES, st.sampled_from([False] * 5 + [True]))
Place = tuple[int, int, int, bool]
SIZES = st.one_of(
    st.integers(0, 48 * PAGE),
    st.integers(10, 48).map(lambda pages: pages * PAGE),
    st.integers(20 * PAGE, 48 * PAGE),
)
BAD_PAGES = st.frozensets(st.integers(0, 30), max_size=3)
LENGTHS = st.tuples(
    st.one_of(st.integers(1, 12), st.integers(1, 50), st.integers(460, 530)), st.sampled_from([0, 0, 0, 100])
).map(lambda parts: parts[0] * PAGE - parts[1])
# Of a range; 0 stands for all that is mapped in one piece.
SPANS = st.one_of(st.integers(0, 3).map(lambda pages: pages * PAGE), st.just(0), LENGTHS)
KINDS = st.sampled_from([("rw", False)] * 3 + [("r", True), ("r", False)])
AMOUNTS = st.sampled_from([1, 8, PAGE, 3 * PAGE, 5 * PAGE + 9, 20 * PAGE, 0, LONG])
READS = st.lists(
    st.tuples(st.sampled_from(["fault", "fault", "load", "touch"]), PLACES, AMOUNTS), min_size=1, max_size=6
)
WRITES = st.lists(
    st.tuples(st.sampled_from(["fault", "store", "store", "touch"]), PLACES, AMOUNTS), min_size=1, max_size=6
)
# What is called, and which extremes stand in which of its places.
EXTREME_CALLS = st.lists(
    st.tuples(
        st.sampled_from(sorted(CALLS)),
        st.tuples(*[st.one_of(st.none(), st.sampled_from(sorted(EXTREMES)))] * 3),
    ),
    min_size=1,
    max_size=6,
)
