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
from samples import CONTENT

# Each kind of numpy's that a buffer can tell of, in both orders of bytes but for the two that have only one.
PLAIN = [np.dtype(code).newbyteorder(order) for code in "?bBhHiIlLqQefdFD" for order in "<>"]
PLAIN += [np.dtype(other) for other in ("g", "G", "S1", "S7", "U3", "V5")]
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
            assert file.gather([0], memoryview(out).nbytes, out=out) is out

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
            with pytest.raises(TypeError, match=r"must hold no Python objects: its format is '.*O"):
                fill(ours)
            assert str(ours) == str(pythons), name
        else:
            fill(ours)
            with source.open("rb", buffering=0) as file:
                file.readinto(pythons)
            assert ours.tobytes() == pythons.tobytes(), name


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
        with pytest.raises(TypeError, match=r"must hold no Python objects: its format is '.*O"):
            fill(make())


@pytest.mark.parametrize("make", [lambda: bytes(8), lambda: np.zeros(8)[::2], lambda: "text", lambda: None])
def test_what_cannot_be_written_is_refused(ways, make):
    for fill in ways.values():
        with pytest.raises((TypeError, ValueError, BufferError)):
            fill(make())


def test_a_buffered_stream_over_a_file_fills_plain_memory(source):
    with specmm.PageCache("1MiB") as cache, cache.open(source) as file:
        out = np.zeros(100, "i8")
        assert io.BufferedReader(file.as_raw()).readinto(out) == 800
        assert out.tobytes() == CONTENT[:800]
