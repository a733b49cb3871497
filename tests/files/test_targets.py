"""What may be read into: any writable memory of plain bytes, and none that holds Python objects."""

import array
import ctypes
import io
import mmap

import fsspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import specmm
import specmm.arrow
import specmm.fsspec
from samples import CONTENT, PAGE, Store
from specmm import _core

# Each kind of numpy's that a buffer can tell of, in both orders of bytes but for the two that have only one.
PLAIN = [np.dtype(code).newbyteorder(order) for code in "?bBhHiIlLqQefdFD" for order in "<>"]
PLAIN += [np.dtype(other) for other in ("g", "G", "S1", "S7", "U3", "V5")]
# Of these a buffer cannot tell.
PLAIN += [np.dtype(order + code) for code in ("M8[ns]", "M8[D]", "m8[s]", "m8") for order in "<>"]
# Some look like codes of objects.
NAMES = ("O", "T{O", "<i", "objects")


def parts(leaf):
    """Arrays and records of it, aligned ones too."""
    arrays = st.tuples(leaf, st.sampled_from([(2,), (1, 3)])).map(np.dtype)
    fields = st.lists(leaf, min_size=1, max_size=len(NAMES))
    records = st.tuples(fields, st.booleans()).map(
        lambda drawn: np.dtype(list(zip(NAMES, drawn[0], strict=False)), align=drawn[1])
    )
    return arrays | records


DTYPES = st.recursive(st.sampled_from([*PLAIN, np.dtype(object)]), parts, max_leaves=6)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("targets") / "data.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(scope="module")
def ways(source):
    """Every way into a caller's memory, from the start of the file on."""
    with specmm.PageCache("1MiB") as cache:
        file = cache.open(source)

        def gather(out):
            assert file.gather([0], _core.check_target(out), out=out) is out

        yield {
            "preadinto": lambda out: file.preadinto(out, 0),
            "gather": gather,
            "as_raw": lambda out: file.as_raw().readinto(out),
            "arrow": lambda out: specmm.arrow.ArrowFile(file).readinto(out),
            "fsspec": lambda out: fsspec.open(f"specmm::file://{source}").open().readinto(out),
        }


@given(DTYPES)
@example(np.dtype([("O", "i4")]))
@example(np.dtype([("a", [("b", "i1", (2,)), ("c", object, (2, 2))])]))
def test_numpys_types_are_filled_as_python_fills_them_unless_they_hold_objects(ways, source, dtype):
    for name, fill in ways.items():
        ours, pythons = np.zeros(3, dtype), np.zeros(3, dtype)
        if dtype.hasobject:
            with pytest.raises(TypeError, match=r"must hold no Python objects: its (format|dtype) is .*O"):
                fill(ours)
            assert str(ours) == str(pythons), name
        else:
            fill(ours)
            with source.open("rb", buffering=0) as file:
                file.readinto(pythons)
            assert ours.tobytes() == pythons.tobytes(), name


# --- whatever else may be read into, and not


class Big(ctypes.BigEndianStructure):
    _fields_ = (("a", ctypes.c_uint16), ("b", ctypes.c_uint64))


class Bits(ctypes.Structure):
    _fields_ = (("a", ctypes.c_int, 3), ("b", ctypes.c_int, 7), ("c", ctypes.c_int64 * 2))


class Either(ctypes.Union):
    _fields_ = (("a", ctypes.c_char * 9), ("b", Big), ("c", ctypes.c_double))


SCALARS = [ctypes.c_char, ctypes.c_bool, ctypes.c_uint32, ctypes.c_double, ctypes.c_void_p, Big, Bits, Either]
CTYPES = st.tuples(st.sampled_from(SCALARS), st.lists(st.integers(0, 3), max_size=2))
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@st.composite
def arrays(draw):
    """What makes an array of numpy's: of any shape, order, step and permission; no dimension included."""
    dtype, shape, order = draw(st.sampled_from(PLAIN)), draw(SHAPES), draw(st.sampled_from("CF"))
    steps = tuple(slice(None, None, draw(st.sampled_from([1, 1, 1, 2, -1]))) for _ in shape)
    writeable = draw(st.integers(0, 4)) > 0

    def make():
        whole = np.zeros(shape, dtype, order=order)[steps] if shape else np.zeros((), dtype)
        whole.flags.writeable = writeable
        return whole

    return make


@st.composite
def views(draw):
    """What makes a view of plain memory: any format, shape and step; and arrays of Python's own."""
    code = draw(st.sampled_from("bBchHiIlLqQfd"))
    if draw(st.booleans()):
        return lambda: array.array(code if code != "c" else "u", bytes(32))
    shape = draw(st.sampled_from([(32,), (4, 8), (2, 2, 8), (0,), None]))
    step = draw(st.sampled_from([1, 1, 2, -1]))
    kind = draw(st.sampled_from([bytearray, bytearray, bytes]))

    def make():
        view = memoryview(kind(8 * 32 if shape != (0,) else 0))[::1]
        if shape in (None, (32,)):
            return view.cast(code)[::step]
        return view.cast(code) if shape == (0,) else view[:32].cast("B", shape)

    return make


def a_ctype(drawn):
    kind, counts = drawn
    for count in counts:
        kind *= count
    return kind


BUFFERS = st.one_of(
    arrays(),
    views(),
    CTYPES.map(a_ctype),
    st.integers(0, 40).map(lambda n: lambda: bytearray(n)),
    st.just(lambda: mmap.mmap(-1, 40)),
    st.sampled_from([lambda: None, lambda: "text", lambda: 5, lambda: [1], lambda: memoryview(b"")]),
)


@given(BUFFERS)
@example(lambda: np.zeros((), "M8[s]"))
@example(lambda: np.zeros((2, 2), "M8[s]", order="F"))
@example(lambda: np.zeros(4, "M8[s]")[::2])
def test_any_buffer_is_filled_or_refused_as_by_python(ways, source, make):
    pythons, refused = make(), None
    with source.open("rb", buffering=0) as file:
        try:
            n = file.readinto(pythons)
        except Exception as error:
            refused = error
    for name, fill in ways.items():
        ours = make()
        if refused is None:
            fill(ours)
            assert bytes_of(ours) == bytes_of(pythons), name
            assert len(bytes_of(ours)) == n, name
        else:
            with pytest.raises(type(refused)):
                fill(ours)


def bytes_of(buffer):
    return buffer.tobytes() if isinstance(buffer, np.ndarray) else memoryview(buffer).tobytes()


class Plain(ctypes.Structure):
    _fields_ = (("O", ctypes.c_int), ("a:", ctypes.c_double), ("address", ctypes.c_void_p))


class Holder(ctypes.Structure):
    # The second name makes the third look like a name.
    _fields_ = (("a", ctypes.c_int), ("b:", ctypes.c_int), ("c", ctypes.py_object), ("d:", ctypes.c_int))


@pytest.mark.parametrize(
    "make",
    [
        lambda: bytearray(24),
        lambda: array.array("d", [0, 0, 0]),
        lambda: mmap.mmap(-1, 24),
        lambda: memoryview(bytearray(24)).cast("q"),
        lambda: np.zeros((2, 3), "i4"),
        lambda: np.zeros(24, "i1").reshape(2, 3, 4),
        lambda: np.zeros(0, "f8"),
        lambda: (Plain * 1)(),
        lambda: (ctypes.c_char_p * 3)(),
    ],
)
def test_what_python_fills_is_filled(ways, source, make):
    pythons = make()
    with source.open("rb", buffering=0) as file:
        file.readinto(pythons)
    for name, fill in ways.items():
        ours = make()
        fill(ours)
        assert memoryview(ours).cast("B").tobytes() == memoryview(pythons).cast("B").tobytes(), name


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.zeros((), object),
        lambda: np.zeros(2, [("time", "M8[s]"), ("O", object)]),
        lambda: np.zeros(2, [("time", "M8[s]"), ("O", [("O", object, (2,))])]),
        lambda: np.zeros(0, object),
        lambda: memoryview(np.zeros(3, object)),
        lambda: (ctypes.py_object * 3)(),
        lambda: ctypes.py_object(),
        lambda: Holder(),
        lambda: ((Holder * 2) * 2)(),
    ],
)
def test_memory_of_objects_is_refused_by_its_format(ways, make):
    for fill in ways.values():
        with pytest.raises(TypeError, match=r"must hold no Python objects: its (format|dtype) is .*O"):
            fill(make())


@pytest.mark.parametrize("make", [lambda: bytes(8), lambda: np.zeros(8)[::2], lambda: "text", lambda: None])
def test_what_cannot_be_written_is_refused(ways, make):
    for fill in ways.values():
        with pytest.raises((TypeError, ValueError, BufferError)):
            fill(make())


def test_numpys_strings_of_any_length_are_refused(ways):
    texts = np.array(["a", "b" * 99], np.dtypes.StringDType())
    for fill in ways.values():
        with pytest.raises(TypeError, match=r"must hold no Python objects: its dtype is StringDType"):
            fill(texts)
    assert texts.tolist() == ["a", "b" * 99]


# --- what a store answers with


@given(BUFFERS, st.integers(0, 300))
@example(lambda: np.zeros(3, "M8[s]"), 24)
@example(lambda: np.zeros((), "M8[s]"), 8)
@example(lambda: np.zeros(4, "M8[s]")[::2], 16)
@example(lambda: np.zeros(4, "i4")[::2], 8)
def test_a_store_answers_with_any_buffer_of_bytes(shared, make, size):
    answer = make()
    try:
        data = bytes_of(answer)
    except TypeError:
        data = None
    fits = data is not None and len(data) == size
    with shared.open_store(Store(lambda offset, n: answer), size, name="odd", ra_pages=0) as file:
        if size == 0:
            assert file.pread(9, 0) == b""
        elif fits:
            assert file.pread(size, 0) == data
        elif data is None:
            with pytest.raises(OSError, match=type(answer).__name__) as raised:
                file.pread(size, 0)
            assert isinstance(raised.value.__cause__, TypeError)
        else:
            with pytest.raises(OSError, match=f"read_at\\(0, {size}\\) returned {len(data)} bytes"):
                file.pread(size, 0)


@given(BUFFERS)
@example(lambda: np.zeros(3, "M8[s]"))
def test_any_buffer_of_bytes_is_stored_through_a_mapping(shared, source, make):
    data = make()
    with shared.open(source) as file, specmm.mm.Mm(shared) as mm:
        address = mm.mmap(file, prot="rw", shared=False)
        try:
            expected = bytes_of(data)
        except TypeError:
            with pytest.raises(TypeError):
                mm.store(address + 5, data)
        else:
            mm.store(address + 5, data)
            assert mm.load(address + 5, len(expected)) == expected


@pytest.mark.parametrize("answer", [np.zeros(PAGE // 8, object), np.zeros(PAGE // 16, "M8[s],O")])
def test_a_store_that_answers_with_objects_is_told_so(shared, answer):
    with (
        shared.open_store(Store(lambda offset, n: answer), PAGE) as file,
        pytest.raises(OSError, match="must hold no Python objects") as raised,
    ):
        file.pread(1, 0)
    assert isinstance(raised.value.__cause__, TypeError)


def test_an_answer_that_is_far_too_long_is_not_copied(shared, tmp_path):
    with (tmp_path / "sparse").open("w+b") as sparse:
        sparse.truncate(1 << 40)
        answer = mmap.mmap(sparse.fileno(), 0, access=mmap.ACCESS_READ)
    with (
        answer,
        shared.open_store(Store(lambda offset, n: answer), PAGE) as file,
        pytest.raises(OSError, match=rf"read_at\(0, {PAGE}\) returned {1 << 40} bytes"),
    ):
        file.pread(1, 0)


def test_a_buffered_stream_over_a_file_fills_plain_memory(source):
    with specmm.PageCache("1MiB") as cache, cache.open(source) as file:
        out = np.zeros(100, "i8")
        assert io.BufferedReader(file.as_raw()).readinto(out) == 800
        assert out.tobytes() == CONTENT[:800]
