"""numpy: arrays filled from a cache, and an array of records larger than the cache need be."""

import math
import reprlib
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import specmm
from specmm.numpy import Records

CAPACITY = "4MiB"

TYPE = np.dtype([("key", "i8"), ("price", "f4"), ("tag", "S5")])  # 17 bytes: rows straddle pages
draw = np.random.default_rng(8)
TABLE = np.empty(20_000, TYPE)
TABLE["key"] = np.arange(len(TABLE))
TABLE["price"] = draw.random(len(TABLE))
TABLE["tag"] = [f"t{n % 1000}".encode() for n in range(len(TABLE))]


@pytest.fixture
def path(tmp_path):
    TABLE.tofile(tmp_path / "records")
    return tmp_path / "records"


def test_bytes_become_an_array(cache, path):
    with cache.open(path) as file:
        rows = np.frombuffer(file.pread(100 * TYPE.itemsize, 50 * TYPE.itemsize), TYPE)
        assert np.array_equal(rows, TABLE[50:150])


def test_an_array_is_filled(cache, path):
    rows = np.empty((10, 30), TYPE)
    with cache.open(path) as file:
        assert file.preadinto(rows, 7 * TYPE.itemsize) == rows.nbytes
    assert np.array_equal(rows.ravel(), TABLE[7:307])


def test_numpys_own_file_format(cache, tmp_path):
    np.save(tmp_path / "a.npy", TABLE)
    np.savez_compressed(tmp_path / "a.npz", table=TABLE, numbers=np.arange(5))
    with cache.open(tmp_path / "a.npy") as file:
        assert np.array_equal(np.load(file.as_raw()), TABLE)
    with cache.open(tmp_path / "a.npz") as file, np.load(file.as_raw()) as arrays:
        assert np.array_equal(arrays["table"], TABLE)
        assert np.array_equal(arrays["numbers"], np.arange(5))


def test_fromfile_would_bypass_the_cache_and_is_refused(cache, path):
    with cache.open(path) as file, pytest.raises(OSError, match="descriptor"):
        np.fromfile(file.as_raw(), TYPE)


@pytest.mark.parametrize(
    "which",
    [
        0,
        -1,
        np.int32(77),
        np.array(5),
        slice(None),
        slice(100, 200),
        slice(200, 100),
        slice(19_990, 30_000),
        slice(None, None, -7),
        [5, 5, -3],
        draw.integers(0, len(TABLE), 3000),
        draw.integers(0, 100, 30).astype("u1"),
        draw.integers(-len(TABLE), 0, (4, 5, 6)),
        np.array([], "i4"),
    ],
    ids=lambda which: f"{type(which).__name__} {str(which)[:20]}".replace("\n", ""),
)
def test_records_are_taken_as_from_an_array(cache, path, which):
    with cache.open(path) as file:
        records = Records(file, TYPE)
        assert len(records) == len(TABLE)
        rows = records[which]
    expected = TABLE[which]
    assert rows.dtype == TYPE
    assert np.shape(rows) == np.shape(expected)
    assert np.array_equal(rows, expected)


def test_records_that_are_arrays(cache, path):
    with cache.open(path) as file:
        vectors = Records(file, ("u1", (17,)))
        expected = np.fromfile(path, "u1").reshape(-1, 17)
        assert vectors[5].shape == (17,)
        assert np.array_equal(vectors[[3, -1]], expected[[3, -1]])
        assert np.array_equal(vectors[10:20], expected[10:20])


def test_records_after_a_header(cache, tmp_path):
    np.save(tmp_path / "a.npy", TABLE)
    header = (tmp_path / "a.npy").stat().st_size - TABLE.nbytes
    with cache.open(tmp_path / "a.npy") as file:
        records = Records(file, TYPE, offset=header)
        assert len(records) == len(TABLE)
        assert np.array_equal(records[-50:], TABLE[-50:])
        assert np.array_equal(records[[1, 2]], TABLE[1:3])
        assert len(Records(file, TYPE, offset=1 << 40)) == 0
        assert len(Records(file, TYPE, offset=header + 1)) == len(TABLE) - 1


def test_records_are_a_sequence(cache, tmp_path):
    TABLE[:100].tofile(tmp_path / "few")
    with cache.open(tmp_path / "few") as file:
        assert [row["key"] for row in Records(file, TYPE)] == list(range(100))


@pytest.mark.parametrize(
    "which", [len(TABLE), -len(TABLE) - 1, [3, len(TABLE)], np.array([[-len(TABLE) - 1]])]
)
def test_a_record_that_is_not_there_is_named(cache, path, which):
    named = str(np.ravel(which)[-1])
    with cache.open(path) as file, pytest.raises(IndexError, match=named):
        Records(file, TYPE)[which]


@pytest.mark.parametrize(
    "which", [1.0, True, np.False_, np.array(True), np.zeros(3), {1}, (0, "key"), [[1, "a"]]]
)
def test_what_is_no_index_is_refused_by_name(cache, path, which):
    named = next((each for each in which if each == "key"), which) if isinstance(which, tuple) else which
    with cache.open(path) as file, pytest.raises(IndexError, match="not by") as raised:
        Records(file, TYPE)[which]
    assert reprlib.repr(named) in str(raised.value)


# --- any index, beside np.memmap

DTYPES = [
    np.dtype(each)
    for each in ("i4", "M8[s]", ("i2", (4,)), (("u1", (2,)), (3,)), [("a", "i2"), ("b", "f4", (2,))])
]
DTYPES.append(np.dtype((DTYPES[-1], (2,))))
RECORDS = 12


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


def truths(shape):
    return st.lists(st.booleans(), min_size=math.prod(shape), max_size=math.prod(shape)).map(
        lambda drawn: np.array(drawn, bool).reshape(shape)
    )


@st.composite
def masks(draw, shape):
    """Of the first dimensions, or of wrong ones."""
    wrong = draw(st.integers(0, 9)) == 0
    dimensions = draw(st.integers(1, len(shape)))
    drawn = draw(truths((3,) if wrong else shape[:dimensions]))
    return drawn.tolist() if draw(st.booleans()) else drawn


def numbers(length):
    """Mostly in range."""
    return st.integers(-length, length - 1) | st.integers(-length - 2, length + 1)


@st.composite
def arrays(draw, length):
    shape = draw(st.sampled_from([(), (1,), (3,), (2, 3), (0,), (3, 1), (1, 0)]))
    drawn = draw(st.lists(numbers(length), min_size=math.prod(shape), max_size=math.prod(shape)))
    dtype = draw(st.sampled_from(["i1", "i4", "i8", ">i8"] + ["u1", "u8"] * all(each >= 0 for each in drawn)))
    made = np.array(drawn, dtype).reshape(shape)
    return made.tolist() if draw(st.booleans()) else made


def parts(shape):
    """An index of the first of these dimensions, or one that numpy takes for no dimension at all."""
    length = max(shape[0], 1)
    bounds = st.none() | st.integers(-length - 2, length + 2)
    slices = st.builds(slice, bounds, bounds, st.none() | st.integers(-3, 3))
    of_one = st.one_of(
        numbers(length),
        slices,
        arrays(length),
        numbers(length).map(Index),
        numbers(length).map(np.int32),
        masks(shape),
    )
    odd = st.sampled_from(
        [None, ..., True, False, np.True_, np.array(False), 1.5, "a", b"a", 1 << 70, ["a"], {}]
    )
    return st.one_of(of_one, of_one, of_one, of_one, odd)


@st.composite
def indices(draw, shape):
    """A single index or a tuple of them, each for its dimension as a rule."""
    if draw(st.integers(0, 2)) == 0:
        fields = st.sampled_from(["a", "b", "c", ["a"], ["b", "a"], ["a", "x"], [], ["a", 1]])
        return draw(parts(shape) | fields)
    drawn, at = [], 0
    for _ in range(draw(st.integers(0, len(shape) + 1))):
        if draw(st.integers(0, 4)) == 0:
            drawn.append(draw(st.sampled_from([None, ...])))
        else:
            drawn.append(draw(parts(shape[min(at, len(shape) - 1) :])))
            at += 1
    return tuple(drawn)


def makes_a_dimension(which):
    """Truth values of no dimension, which make one of the result."""
    return any(
        isinstance(each, bool | np.bool_)
        or (isinstance(each, np.ndarray) and each.dtype == bool and not each.ndim)
        for each in (which if isinstance(which, tuple) else (which,))
    )


def outcome(array, which):
    try:
        return array[which]
    except Exception as error:
        return error


@pytest.mark.hypothesis
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [RECORDS, 1, 0])
def test_any_index_means_what_it_means_to_a_memmap(tmp_path, dtype, count):
    path = tmp_path / "records"
    content = np.random.default_rng(5).integers(0, 256, 3 + count * dtype.itemsize + 1, "u1")
    content.tofile(path)
    answered = refused = 0

    @given(indices((count, *np.empty(0, dtype).shape[1:])))
    def same(which):
        nonlocal answered, refused
        expected, got = outcome(mapped, which), outcome(records, which)
        if isinstance(expected, Exception):
            # Of two mistakes either may be named.
            no_step = isinstance(which, tuple) and any(
                isinstance(each, slice) and each.step == 0 for each in which
            )
            also = ValueError if no_step else IndexError
            assert isinstance(got, (IndexError, type(expected), also)), (which, expected, got)
            refused += 1
            return
        if makes_a_dimension(which):
            assert isinstance(got, IndexError), (which, got)
            return
        # numpy does not judge what is chosen from beside a choice of nothing.
        if np.size(expected) == 0 and isinstance(got, IndexError) and "out of range" in str(got):
            return
        assert not isinstance(got, Exception), (which, got)
        assert isinstance(got, np.ndarray) == isinstance(expected, np.ndarray), which
        assert (np.shape(got), got.dtype) == (np.shape(expected), expected.dtype), which
        assert got.tobytes() == np.ndarray.tobytes(np.asarray(expected)), which
        answered += 1

    with specmm.PageCache("64KiB") as cache, cache.open(path) as file:
        # A file of nothing cannot be mapped.
        mapped = np.memmap(path, dtype, "r", 3, shape=count) if count else np.empty(0, dtype)
        records = Records(file, dtype, offset=np.uint8(3))
        assert len(records) == len(mapped) == count
        same()
    assert answered > 10 and refused > 10


@pytest.mark.parametrize("which", [..., None, "key", ["key", "tag"], (..., None), (None, ...), np.asarray])
def test_more_than_the_cache_holds_becomes_no_array_unasked(path, which):
    with specmm.PageCache("64KiB") as cache, cache.open(path) as file:
        records = Records(file, TYPE)
        call = which if which is np.asarray else lambda records: records[which]
        with pytest.raises(ValueError, match=rf"{TABLE.nbytes} bytes.*{64 << 10} bytes.*records\[:\]"):
            call(records)
        assert np.array_equal(call(records[:]), call(TABLE))
    with specmm.PageCache("1MiB") as cache, cache.open(path) as file:
        assert np.array_equal(call(Records(file, TYPE)), call(TABLE))


def test_records_go_into_numpys_functions(cache, path):
    with cache.open(path) as file:
        prices = Records(file, ("i1", (17,)))
        assert np.sum(prices) == np.sum(np.fromfile(path, "i1").astype("i8"))
        assert np.asarray(prices, "i8").dtype == "i8"
        with pytest.raises(ValueError, match="copy"):
            np.array(prices, copy=False)


def test_a_mask_of_another_length_is_named(cache, path):
    with cache.open(path) as file, pytest.raises(IndexError, match=r"\(2,\).*\(20000,\)"):
        Records(file, TYPE)[[True, False]]


@pytest.mark.parametrize("dtype", ["O", "S0", [("a", "O")]])
def test_types_without_a_size_are_refused(cache, path, dtype):
    with cache.open(path) as file, pytest.raises(TypeError, match="fixed size"):
        Records(file, dtype)


def test_a_file_that_gets_shorter_is_an_error_not_a_signal(cache, path, monkeypatch):
    with cache.open(path, "r+b") as file:
        records = Records(file, TYPE)
        assert records[[19_000]]["key"] == 19_000
        file.truncate(10_000 * TYPE.itemsize)
        assert len(records) == 10_000
        with pytest.raises(IndexError, match="19000"):
            records[[19_000]]
        # Between the look at the size and the read.
        monkeypatch.setattr(Records, "__len__", lambda _: len(TABLE))
        with pytest.raises(specmm.BusError, match=str(19_000 * TYPE.itemsize)):
            records[[19_000]]


def test_threads_fill_arrays_of_their_own(cache, path):
    wrong = []

    def read(seed):
        which = np.random.default_rng(seed).integers(0, len(TABLE), 2000)
        if not np.array_equal(records[which], TABLE[which]):
            wrong.append(seed)

    with cache.open(path) as file:
        records = Records(file, TYPE)
        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_cache_smaller_than_the_file(path):
    with specmm.PageCache("64KiB") as cache, cache.open(path) as file:
        assert path.stat().st_size > 4 * 65536
        records = Records(file, TYPE)
        which = np.random.default_rng(1).integers(0, len(TABLE), 5000)
        assert np.array_equal(records[which], TABLE[which])
        assert np.array_equal(records[:], TABLE)
        assert np.array_equal(records[::-3], TABLE[::-3])
        assert cache.stats().evictions > 0


def test_nothing_of_an_array_is_kept(cache, path):
    rows = np.empty(10, TYPE)
    with cache.open(path) as file:
        before = sys.getrefcount(rows)
        file.preadinto(rows, 0)
        file.gather(np.arange(10) * TYPE.itemsize, TYPE.itemsize, out=rows)
        assert sys.getrefcount(rows) == before
