"""Many reads in one call: offsets and buffers of every kind, errors, the interpreter meanwhile."""

import array
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import specmm
from programs import interrupted
from samples import CONTENT, PAGE, Store

OFFSETS = [0, 9000, PAGE - 1, 9000, 5, len(CONTENT) - 4]
ROWS = b"".join(CONTENT[at : at + 4] for at in OFFSETS)
PATIENCE = 30  # seconds; only a hang takes that long


@pytest.fixture
def file(cache, path):
    with cache.open(path) as file:
        yield file


@pytest.mark.parametrize(
    "offsets",
    [
        OFFSETS,
        tuple(OFFSETS),
        dict.fromkeys(OFFSETS).keys(),
        array.array("q", OFFSETS),
        array.array("I", OFFSETS),
        array.array("h", OFFSETS),
        memoryview(array.array("Q", OFFSETS)),
        *(np.array(OFFSETS, dtype) for dtype in ("i8", "u8", "i4", "u4", "i2", ">i8", object)),
        np.array([[at, 0] for at in OFFSETS])[:, 0],
        np.array(OFFSETS[::-1])[::-1],
    ],
    ids=lambda offsets: f"{type(offsets).__name__} {getattr(offsets, 'dtype', '')}".strip(),
)
def test_offsets_of_every_kind(file, offsets):
    assert file.gather(offsets, 4) == b"".join(CONTENT[at : at + 4] for at in list(offsets))


def test_offsets_that_come_one_by_one(file):
    assert file.gather(iter(OFFSETS), 4) == ROWS
    assert file.gather((np.int16(at) for at in OFFSETS), 4) == ROWS


@pytest.mark.parametrize(
    "out",
    [
        bytearray(24),
        memoryview(bytearray(30))[3:27],
        array.array("i", [0] * 6),
        np.zeros(6, "u4"),
        np.zeros((6, 4), "u1"),
        np.zeros((3, 2, 2), "i2"),
    ],
    ids=lambda out: type(out).__name__,
)
def test_into_any_buffer_which_is_returned(file, out):
    assert file.gather(OFFSETS, 4, out=out) is out
    assert bytes(out) == ROWS


def test_rows_of_records(cache, tmp_path):
    """The job it is for: chosen rows of a file of records."""
    record = np.dtype([("key", "<u8"), ("place", "<f4", (2,)), ("name", "S11")])
    rows = np.zeros(20_000, record)
    rows["key"] = np.arange(len(rows)) ** 2
    rows["place"] = np.arange(2 * len(rows)).reshape(-1, 2) / 7
    rows["name"] = np.char.mod(b"row %d", np.arange(len(rows)))
    path = tmp_path / "rows"
    rows.tofile(path)
    chosen = np.random.default_rng(4).integers(0, len(rows), 3000)
    with cache.open(path) as file:
        out = np.empty(len(chosen), record)
        assert file.gather(chosen * record.itemsize, record.itemsize, out=out) is out
        np.testing.assert_array_equal(out, rows[chosen])
        # The same without a buffer to fill.
        data = file.gather(chosen * record.itemsize, record.itemsize)
        assert type(data) is bytearray
        np.testing.assert_array_equal(np.frombuffer(data, record), rows[chosen])


def test_nothing_to_read(file):
    assert file.gather([], 4) == b""
    assert file.gather(np.array([], "i8"), 4) == b""
    assert file.gather([0, len(CONTENT) + 1], 0) == b""
    assert file.gather([], 4, out=bytearray()) == b""


def test_rows_longer_than_a_slice(tmp_path):
    content = bytes(range(256)) * (3 << 12)  # 3 MiB
    path = tmp_path / "data"
    path.write_bytes(content)
    length = (1 << 20) + 100
    with specmm.PageCache("8MiB") as cache, cache.open(path) as file:
        offsets = [12_345, 0, len(content) - length]
        assert file.gather(offsets, length) == b"".join(content[at : at + length] for at in offsets)
        with pytest.raises(specmm.BusError) as caught:
            file.gather([0, len(content) - length + 1], length)
        assert caught.value.args == (
            (len(content) - length + 1) // PAGE,
            len(content) - length + 1,
            len(content),
        )


@pytest.mark.parametrize("rows", [1, 5000])
def test_past_the_end(file, rows):
    size = len(CONTENT)
    for offset in (size - 3, size, size + 10_000):
        with pytest.raises(specmm.BusError, match=rf"offset {offset} .* past the end .* {size}") as caught:
            file.gather([0] * rows + [offset, 0], 4)
        assert (caught.value.index, caught.value.offset, caught.value.size) == (offset // PAGE, offset, size)
    # More than memory has room for is judged before room is made.
    with pytest.raises(specmm.BusError):
        file.gather([0] * rows, 1 << 45)


@pytest.mark.parametrize(
    ("offsets", "error", "text"),
    [
        ([0, -1], ValueError, r"offsets\[1\].*-1"),
        (np.array([3, -7, 5]), ValueError, r"offsets\[1\].*-7"),
        (np.array([-7], "i4"), ValueError, r"offsets\[0\].*-7"),
        ([(1 << 44) + 1], ValueError, rf"offsets\[0\].*{(1 << 44) + 1}"),
        (np.array([0, 1 << 63], "u8"), ValueError, rf"offsets\[1\].*{1 << 63}"),
        ([1 << 80], ValueError, rf"offsets\[0\].*{1 << 80}"),
        ([0, 1.5], TypeError, r"offsets\[1\].*float: 1\.5"),
        (np.array([0.0]), TypeError, r"offsets\[0\].*float"),
        (["0"], TypeError, r"offsets\[0\].*str: '0'"),
        ([None], TypeError, r"offsets\[0\].*None"),
        (7, TypeError, "offsets.*int"),
        (None, TypeError, "offsets.*NoneType"),
        (np.zeros((2, 2), "i8"), ValueError, "offsets.*one dimension.*2"),
        (np.array(0), TypeError, "offsets.*ndarray is neither"),
    ],
    ids=str,
)
def test_bad_offsets_are_named(file, offsets, error, text):
    with pytest.raises(error, match=text):
        file.gather(offsets, 4)
    assert file.residency() == bytes(3), "nothing is read for bad arguments"


@pytest.mark.parametrize(
    ("length", "out", "error", "text"),
    [
        (-1, None, ValueError, "length.*-1"),
        ("4", None, TypeError, "length.*str"),
        (4, bytearray(7), ValueError, re.escape("2 * 4 = 8 bytes: it has 7")),
        (4, np.zeros(3, "i4"), ValueError, re.escape("2 * 4 = 8 bytes: it has 12")),
        (4, bytes(8), TypeError, "writable.*bytes"),
        (4, np.zeros((2, 8), "u1")[:, ::2], TypeError, "contiguous.*ndarray"),
        (4, [0] * 8, TypeError, "list"),
    ],
)
def test_bad_lengths_and_buffers_are_named(file, length, out, error, text):
    with pytest.raises(error, match=text):
        file.gather([0, 4], length, out=out)
    assert file.residency() == bytes(3)


def test_what_a_store_raises_is_the_cause(cache):
    def read_at(offset, n):
        if offset >= 2 * PAGE:
            raise RuntimeError("no such rows")
        return bytes([1]) * n

    with cache.open_store(Store(read_at), 4 * PAGE, name="rows", ra_pages=0) as file:
        with pytest.raises(OSError, match="no such rows") as caught:
            file.gather([0, PAGE, 2 * PAGE, 3 * PAGE], 4)
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert file.residency() == b"\1\1\0\0"


def test_a_store_must_not_gather_from_its_own_cache(cache):
    def read_at(offset, n):
        return bytes(file.gather([0], n))

    with (
        cache.open_store(Store(read_at), PAGE) as file,
        pytest.raises(OSError, match="must not call the cache"),
    ):
        file.gather([0], 4)


def test_the_interpreter_is_free_while_rows_are_read(cache):
    """The store waits for what another thread does: with the interpreter held nobody would end."""
    go = threading.Event()

    def read_at(offset, n):
        assert go.wait(PATIENCE), "the other thread never ran"
        return bytes([offset // PAGE]) * n

    with ThreadPoolExecutor() as pool, cache.open_store(Store(read_at), 8 * PAGE, ra_pages=0) as file:
        gathering = pool.submit(file.gather, [3 * PAGE, PAGE], 1)
        assert not gathering.done()
        go.set()
        assert gathering.result(PATIENCE) == b"\3\1"


def test_threads_gather_from_one_file(cache, path):
    with cache.open(path) as file, ThreadPoolExecutor(4) as pool:
        offsets = np.random.default_rng(0).integers(0, len(CONTENT) - 8, (8, 4000))
        expected = [b"".join(CONTENT[at : at + 8] for at in each.tolist()) for each in offsets]
        assert list(pool.map(lambda each: file.gather(each, 8), offsets)) == expected


def test_a_file_that_shrinks_meanwhile_is_an_error_and_not_a_crash(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 1024)
    offsets = np.random.default_rng(1).integers(0, (256 << 10) - 16, 20_000)
    with specmm.PageCache("1MiB") as cache, cache.open(path, "r+b") as file, ThreadPoolExecutor(1) as pool:
        for _ in range(20):
            gathering = pool.submit(file.gather, offsets, 16)
            file.truncate(128 << 10)
            try:
                gathering.result(PATIENCE)
            except specmm.BusError as error:
                assert error.offset + 16 > error.size == 128 << 10
            file.truncate(256 << 10)


def test_ctrl_c_ends_a_long_gather():
    code = """
import time, specmm
class Slow:
    def read_at(self, offset, n):
        time.sleep(0.001)
        return bytes(n)
cache = specmm.PageCache("256MiB")
file = cache.open_store(Slow(), 200 << 20, ra_pages=0)
try:
    print("ready", flush=True)
    file.gather(range(0, file.size, 4096), 8)  # a minute
except KeyboardInterrupt:
    print("interrupted")
assert file.gather([0, 4096], 1) == bytes(2)
cache.settle()
cache.check()
"""
    interrupted(code)
