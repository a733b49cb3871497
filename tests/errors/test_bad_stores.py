"""Stores that raise, answer wrong, or call back."""

import errno
import gc
import sys

import pytest

import specmm
from samples import CONTENT, PAGE, Store


def test_an_object_that_is_no_store(cache):
    for thing in [object(), 5, "path", Store(None)]:
        with pytest.raises(TypeError, match=type(thing).__name__):
            cache.open_store(thing, 100)
    with pytest.raises(ValueError, match="-1"):
        cache.open_store(Store(bytes), -1)
    with pytest.raises(ValueError, match=str(1 << 50)):
        cache.open_store(Store(bytes), 1 << 50)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda offset, n: b"x" * (n - 1), "4095"),
        (lambda offset, n: b"", "returned 0 bytes"),
        (lambda offset, n: b"x" * (n + 1), "4097"),
        (lambda offset, n: None, "NoneType"),
        (lambda offset, n: "x" * n, "str"),
    ],
)
def test_a_store_that_answers_wrong(cache, answer, said):
    with cache.open_store(Store(answer), 10 * PAGE, name="odd one", ra_pages=0) as file:
        for _ in range(2):
            with pytest.raises(OSError, match=said) as raised:
                file.pread(PAGE, 2 * PAGE)
            assert raised.value.errno == errno.EIO
            assert raised.value.filename == "odd one"
            assert str(2 * PAGE) in str(raised.value)
            assert "4096" in str(raised.value)
        assert file.residency() == bytes(10)


def test_what_a_store_raises_is_the_cause(cache):
    healthy = False
    error = LookupError("no such object")

    def read_at(offset, n):
        if not healthy:
            raise error
        return bytes(n)

    with cache.open_store(Store(read_at), 4 * PAGE, name="remote") as file, specmm.mm.Mm(cache) as mm:
        with pytest.raises(OSError, match="LookupError: no such object") as raised:
            file.pread(10, 0)
        assert raised.value.__cause__ is error
        assert raised.value.filename == "remote"
        with pytest.raises(OSError, match="remote") as again:
            file.pread(10, 0)
        assert again.value is not raised.value
        address = mm.mmap(file)
        with pytest.raises(specmm.BusError, match="no such object") as bus:
            mm.load(address + 5, 1)
        assert (bus.value.index, bus.value.offset, bus.value.size) == (0, 5, 4 * PAGE)
        assert isinstance(bus.value.__cause__, OSError)
        assert bus.value.__cause__.__cause__ is error
        # Nothing is poisoned.
        healthy = True
        assert mm.load(address, 4 * PAGE) == bytes(4 * PAGE)
        assert file.pread(10, 0) == bytes(10)


def test_an_oserror_of_a_store_keeps_its_number(cache):
    def read_at(offset, n):
        raise TimeoutError(errno.ETIMEDOUT, "too slow")

    with cache.open_store(Store(read_at), PAGE) as file, pytest.raises(TimeoutError) as raised:
        file.pread(1, 0)
    assert raised.value.errno == errno.ETIMEDOUT


def test_a_truncate_that_raises_changes_nothing(cache):
    store = Store(lambda offset, n: b"x" * n)

    def truncate(size):
        raise RuntimeError("not today")

    store.truncate = truncate
    with cache.open_store(store, 100) as file:
        with pytest.raises(OSError, match="not today") as raised:
            file.truncate(10)
        assert isinstance(raised.value.__cause__, RuntimeError)
        assert file.size == 100
        assert file.pread(200, 0) == b"x" * 100


@pytest.mark.parametrize(
    "call",
    [
        lambda cache, file, mm: file.pread(1, 0),
        lambda cache, file, mm: file.size,
        lambda cache, file, mm: file.truncate(0),
        lambda cache, file, mm: file.close(),
        lambda cache, file, mm: cache.stats(),
        lambda cache, file, mm: cache.settle(),
        lambda cache, file, mm: cache.close(),
        lambda cache, file, mm: mm.load(0x10000, 1),
        lambda cache, file, mm: mm.munmap(0x10000, PAGE),
        lambda cache, file, mm: specmm.mm.Mm(cache),
    ],
)
def test_a_store_that_calls_its_own_cache(cache, call):
    caught = []

    def read_at(offset, n):
        try:
            call(cache, file, mm)
        except specmm.SpecmmError as error:
            caught.append(error)
            raise
        return bytes(n)

    with cache.open_store(Store(read_at), 4 * PAGE) as file, specmm.mm.Mm(cache) as mm:
        mm.mmap(file)
        with pytest.raises(OSError, match="store") as raised:
            file.pread(1, 0)
        assert raised.value.__cause__ in caught


def test_a_store_may_use_another_cache(cache, path):
    with specmm.PageCache("1MiB") as below, below.open(path) as inner:

        def read_at(offset, n):
            return inner.pread(n, offset)

        with cache.open_store(Store(read_at), len(CONTENT)) as file:
            assert file.pread(len(CONTENT), 0) == CONTENT


def test_failures_leak_no_reference(cache):
    def read_at(offset, n):
        raise error

    error = LookupError("kept")
    with cache.open_store(Store(read_at), PAGE) as file:
        for _ in range(5):
            with pytest.raises(OSError, match="kept"):
                file.pread(1, 0)
        before = sys.getrefcount(error)
        for _ in range(100):
            with pytest.raises(OSError, match="kept"):
                file.pread(1, 0)
            error.__traceback__ = None
        gc.collect()
        assert sys.getrefcount(error) <= before + 2
