"""Raw streams beside `io.FileIO`: drawn sequences of calls give the same results and types of errors."""

import gc
import io
import itertools
import operator
import os

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import specmm
import specmm.arrow
from samples import CONTENT, PAGE


class Index:
    """A number that is none of Python's."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value

    def __repr__(self):
        return f"Index({self.value})"


# Sizes between 4 GiB and 8 EiB are left out: FileIO makes room for all of it.
FAR = [1 << 31, 1 << 32, 1 << 63, -(1 << 63), -(1 << 63) - 1, 1 << 200]
NUMBERS = st.one_of(
    st.integers(-20, 40),
    st.integers(0, 3 * PAGE),
    st.sampled_from(
        [PAGE - 1, PAGE, PAGE + 1, 1 << 31, 1 << 32, 1 << 63, -(1 << 63), -(1 << 63) - 1, 1 << 200]
    ),
)
KINDS = [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64, np.array, bool, float, str, Index]


@st.composite
def integers(draw, *, whence=False):
    number = draw(st.integers(-1, 7) if whence else NUMBERS)
    if whence and number in (os.SEEK_DATA, os.SEEK_HOLE):
        number = draw(st.sampled_from([0, 1, 2, 1 << 40]))
    kind = draw(st.sampled_from(KINDS)) if draw(st.integers(0, 3)) == 0 else int
    try:
        return kind(number)
    except OverflowError:
        return number


def is_far(value):
    """Whether it is a position that one file system allows and another does not."""
    try:
        return 1 << 43 < operator.index(value) < 1 << 63
    except TypeError:
        return False


OFFSETS = integers().filter(lambda value: not is_far(value))

MAKES = [bytearray, bytes, np.zeros, lambda n: np.zeros(n)[::2], lambda n: "x" * n, lambda n: None]
BUFFERS = st.tuples(st.sampled_from(MAKES), st.sampled_from([0, 1, 7, 100, PAGE, 2 * PAGE + 1]))
DATA = st.sampled_from([b"", b"x", bytearray(9), "text", 7, None, np.zeros(2)])
SIZES = st.none() | integers()

NO_ARGUMENTS = ["readall", "tell", "seekable", "readable", "writable", "flush", "next", "list", "enter"]
NO_ARGUMENTS += ["closed of", "name of", "close", "exit"]
RAW = st.one_of(
    st.tuples(st.sampled_from(["read", "readline", "readlines", "truncate"]), st.tuples() | st.tuples(SIZES)),
    st.tuples(st.just("seek"), st.tuples(OFFSETS) | st.tuples(OFFSETS, integers(whence=True))),
    st.tuples(st.just("readinto"), BUFFERS.map(lambda drawn: (drawn,))),
    st.tuples(st.just("write"), st.tuples(DATA)),
    st.tuples(st.just("writelines"), st.tuples(st.sampled_from([[], [b"x"], None]))),
    st.tuples(st.sampled_from(NO_ARGUMENTS), st.tuples()),
)
BUFFERED = RAW | st.one_of(
    st.tuples(st.sampled_from(["peek", "read1"]), st.tuples() | st.tuples(integers())),
    st.tuples(st.just("readinto1"), BUFFERS.map(lambda drawn: (drawn,))),
)
TEXT = st.one_of(
    st.tuples(st.sampled_from(["read", "readline"]), st.tuples() | st.tuples(st.integers(-1, 50))),
    st.tuples(st.sampled_from(["tell", "list", "next", "readable", "close", "closed of"]), st.tuples()),
    st.tuples(st.just("seek"), st.sampled_from([(0,), (5,), (0, 1), (0, 2), (-1,), (1, 1), (1 << 42,)])),
)
WRAPPED = {
    "raw": (RAW, lambda raw: raw),
    "buffered": (BUFFERED, lambda raw: io.BufferedReader(raw, 64)),
    "default buffer": (BUFFERED, io.BufferedReader),
    "text": (TEXT, lambda raw: io.TextIOWrapper(io.BufferedReader(raw), encoding="latin-1")),
}
CONTENTS = st.one_of(
    st.binary(max_size=40),
    st.lists(st.binary(max_size=20)).map(b"\n".join),
    st.sampled_from([CONTENT, bytes(PAGE), b"line\n" * 3000]),
)


def outcome(stream, name, arguments):
    """What a call comes to: its result, or the type of its error."""
    try:
        if name in ("readinto", "readinto1"):
            make, n = arguments[0]
            buffer = make(n)
            got = getattr(stream, name)(buffer)
            return got, bytes(memoryview(buffer).cast("B"))
        if name in ("next", "list"):
            return (next if name == "next" else lambda lines: list(itertools.islice(lines, 3)))(stream)
        if name in ("enter", "exit"):
            result = getattr(stream, f"__{name}__")(*[None] * 3 * (name == "exit"))
            return result is stream
        if name.endswith(" of"):
            return getattr(stream, name.removesuffix(" of"))
        return getattr(stream, name)(*arguments)
    except Exception as error:
        return type(error), getattr(error, "errno", None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("raw")


@pytest.mark.hypothesis
@pytest.mark.parametrize("kind", WRAPPED)
def test_a_stream_answers_and_raises_as_pythons_own(shared, folder, kind):
    calls, wrap = WRAPPED[kind]
    path = folder / kind

    @given(CONTENTS, st.lists(calls, max_size=30))
    @example(
        b"x", [("seek", (-22, 2)), ("seek", (-1, 1)), ("seek", (np.uint32(5),)), ("tell", ()), ("read", ())]
    )
    @example(b"x", [("seek", (1 << 42,)), ("read", ()), ("close", ()), ("readinto", ((bytes, 3),))])
    def same(content, program):
        path.write_bytes(content)
        with shared.open(path) as file, path.open("rb", buffering=0) as plain:
            # FileIO takes itself for a pipe when its first seek fails.
            plain.seekable()
            ours, pythons = wrap(file.as_raw()), wrap(plain)
            for number, (name, arguments) in enumerate(program):
                got, expected = outcome(ours, name, arguments), outcome(pythons, name, arguments)
                assert got == expected, (number, program[: number + 1])
                assert type(got) is type(expected)

    same()


def test_every_method_of_pythons_own_is_there(shared, path):
    with shared.open(path) as file, path.open("rb", buffering=0) as plain:
        missing = {name for name in dir(plain) if not name.startswith("_")} - set(dir(file.as_raw()))
        assert missing == {"closefd"}


def test_what_is_set_apart(shared, path):
    """No descriptor, which would go past the cache; no holes; positions where no file reaches."""
    with shared.open(path) as file:
        raw = file.as_raw()
        assert (raw.mode, raw.isatty()) == ("rb", False)
        with pytest.raises(io.UnsupportedOperation, match="descriptor"):
            raw.fileno()
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            with pytest.raises(io.UnsupportedOperation, match="SEEK_DATA"):
                raw.seek(0, whence)
        for far in (1 << 44, (1 << 44) + 1, (1 << 63) - 1):
            assert raw.seek(far) == raw.tell() == far
            assert (raw.read(5), raw.read(), raw.readall(), raw.readinto(bytearray(3))) == (b"", b"", b"", 0)
            assert raw.tell() == far
        with pytest.raises(OSError, match=str(1 << 63)):
            raw.seek(1, os.SEEK_CUR)
        raw.seek(0)
        # FileIO makes room for all of it first.
        assert raw.read(1 << 62) == CONTENT


@pytest.mark.parametrize(
    ("seek", "named"),
    [
        ((-1,), "-1"),
        ((-99, 1), "-99"),
        ((-1 - len(CONTENT), 2), "-1"),
        ((0, 9), "9"),
        ((1 << 63,), str(1 << 63)),
    ],
)
def test_a_bad_seek_names_the_value_and_the_file(shared, path, seek, named):
    with shared.open(path) as file, pytest.raises((OSError, OverflowError), match=named) as raised:
        file.as_raw().seek(*seek)
    assert isinstance(raised.value, OverflowError) or raised.value.filename == str(path)


@pytest.mark.parametrize("make", [lambda file: file.as_raw(), specmm.arrow.ArrowFile])
def test_a_position_is_an_int_whatever_it_was_given_as(shared, tmp_path, make):
    path = tmp_path / "sparse"
    with path.open("wb") as out:
        out.truncate(5 << 30)
        out.seek((4 << 30) - 10)
        out.write(bytes(range(30)))
    with shared.open(path) as file:
        for kind in (np.uint32, np.int64, np.uint64, np.array, Index):
            stream = make(file)
            place = stream.seek(kind((4 << 30) - 10))
            assert type(place) is type(stream.tell()) is int
            got = stream.read(kind(20)), stream.read(kind(2)), stream.tell()
            assert got == (bytes(range(20)), bytes([20, 21]), (4 << 30) + 12)
            assert file.pread(kind(2), kind((4 << 30) - 1)) == bytes([9, 10])
            assert file.gather([kind((4 << 30) - 1)] * 2, kind(2)) == bytes([9, 10] * 2)


def test_closing_the_stream_closes_the_file_that_it_owns(shared, path):
    closes = [False, True, np.False_, np.True_]
    for close, wrap in itertools.product(closes, [lambda raw: raw, io.BufferedReader]):
        file = shared.open(path)
        with wrap(file.as_raw(close=close)) as stream:
            assert stream.read(5) == CONTENT[:5]
        assert (stream.closed, file.closed) == (True, close)
        stream.close()
        file.close()
    with shared.open(path) as file, pytest.raises(TypeError, match="close must be a bool"):
        file.as_raw(close="yes")


def test_an_owner_whose_file_is_pinned_stays_open(shared, path):
    file = shared.open(path)
    raw = file.as_raw(close=True)
    with file.pin(0, 5), pytest.raises(BufferError, match="1 live pins"):
        raw.close()
    assert (raw.closed, raw.read(3)) == (False, CONTENT[:3])
    raw.close()
    assert raw.closed and file.closed


def test_the_file_lives_as_long_as_its_stream(shared, path):
    raw = shared.open(path).as_raw(close=True)
    gc.collect()
    assert raw.readall() == CONTENT
    raw.close()


def test_numpy_makes_no_array_of_a_file(shared, path):
    with shared.open(path) as file:
        for call in (
            np.asarray,
            np.array,
            np.sum,
            lambda file: np.asarray(file, "u1"),
            lambda file: np.array(file, copy=True),
        ):
            with pytest.raises(TypeError, match=r"a File is not an array.*Records"):
                call(file)


WHOLE = [kind for kind in KINDS if kind not in (float, str)]


@given(st.integers(0, 120), st.lists(st.integers(0, 120), min_size=1, max_size=5), st.data())
def test_any_integer_is_a_position(shared, folder, n, offsets, data):
    path = folder / "content"
    path.write_bytes(CONTENT)

    def given_as(number):
        return data.draw(
            st.sampled_from(WHOLE if number < 2 else [kind for kind in WHOLE if kind is not bool])
        )(number)

    with shared.open(path) as file:
        at = offsets[0]
        assert file.pread(given_as(n), given_as(at)) == CONTENT[at : at + n]
        buffer = bytearray(n)
        assert file.preadinto(buffer, given_as(at)) == n
        assert buffer == CONTENT[at : at + n]
        with file.pin(given_as(at), given_as(n + 1)) as pin:
            assert bytes(pin) == CONTENT[at : at + n + 1]
        rows = b"".join(CONTENT[each : each + n] for each in offsets)
        assert file.gather([given_as(each) for each in offsets], given_as(n)) == rows
        dtype = np.dtype(data.draw(st.sampled_from("bBhHiIlLqQO"))).newbyteorder(
            data.draw(st.sampled_from("<>"))
        )
        assert file.gather(np.array(offsets, dtype), given_as(n)) == rows
        assert file.gather(np.array(offsets * 2, dtype)[:: len(offsets)], n) == rows[:n] * 2
        assert len(file.residency(given_as(0), given_as(1))) == 1


@pytest.mark.parametrize("wrong", [1.0, np.float64(1), "1", None, 1j, np.array([1]), np.datetime64(1, "s")])
def test_what_is_no_integer_is_no_position(shared, path, wrong):
    with shared.open(path) as file:
        for call in (
            lambda: file.pread(1, wrong),
            lambda: file.pread(wrong, 0),
            lambda: file.preadinto(bytearray(1), wrong),
            lambda: file.gather([0, wrong], 1),
            lambda: file.pin(wrong, 1),
            lambda: file.as_raw().seek(wrong),
        ):
            with pytest.raises(TypeError):
                call()
