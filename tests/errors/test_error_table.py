"""Each row of docs/errors.md, one test: what happens to a file under a reader, and what the reader gets."""

import errno
import os
import re
import threading

import pytest

import specmm
from samples import ROOT

PAGE = specmm.PAGE_SIZE
TABLE = ROOT / "docs" / "errors.md"
NOBODY = 65534


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"a" * (8 * PAGE))
    return path


@pytest.fixture
def file(cache, data):
    with cache.open(data, ra_pages=0) as file:
        yield file


class Flaky:
    """A store that can be told to fail, and fails every n-th call by itself."""

    def __init__(self, error=None, every=0):
        self.error, self.every, self.calls = error, every, 0

    def read_at(self, offset, n):
        self.calls += 1
        if self.error and (not self.every or self.calls % self.every == 0):
            raise self.error
        return b"".join(bytes([65 + page]) * PAGE for page in range(offset // PAGE, (offset + n) // PAGE))


def test_cut_short(cache, data, file):
    with specmm.mm.Mm(cache) as mm:
        address = mm.mmap(file)
        assert file.pread(3, 0) == b"aaa"
        os.truncate(data, 5000)
        assert len(file.pread(100, 4950)) == 50
        for read in (
            lambda: mm.load(address + 6 * PAGE, 8),
            lambda: file.pin(6 * PAGE, 8),
            lambda: file.gather([6 * PAGE], 8),
        ):
            with pytest.raises(specmm.BusError) as raised:
                read()
            assert (raised.value.index, raised.value.offset, raised.value.size) == (6, 6 * PAGE, 5000)
        assert file.size == 5000
        assert mm.load(address, 3) == file.pread(3, 0) == b"aaa"


def test_rewritten(cache, data, file):
    assert file.pread(1, 0) == b"a"
    data.write_bytes(b"b" * (8 * PAGE))
    assert file.pread(1, 0) == b"a"
    assert file.pread(1, PAGE) == b"b"
    assert file.pread(1, 0) == b"b"
    assert cache.stats().invalidated >= 1
    data.write_bytes(b"c" * (9 * PAGE))
    assert file.revalidate(drop=True) == 9 * PAGE
    assert file.pread(1, PAGE) == b"c"


def test_replaced(cache, data, file):
    assert file.pread(1, 0) == b"a"
    new = data.with_name("new")
    new.write_bytes(b"n" * 100)
    new.rename(data)
    assert file.pread(1, PAGE) == b"a"
    assert file.revalidate() == file.size == 100
    assert file.pread(200, 0) == b"n" * 100
    with cache.open(data) as again:
        assert again.pread(1, 99) == b"n"


def test_deleted(cache, data, file):
    data.unlink()
    assert file.pread(1, 0) == b"a"
    cache.drop_caches()
    assert file.revalidate() == 8 * PAGE
    assert file.pread(1, 7 * PAGE) == b"a"
    with pytest.raises(FileNotFoundError):
        cache.open(data)


def test_permission_lost(cache, data, file):
    # A file on disk that is open stays readable; another open is refused.
    data.chmod(0)
    assert file.pread(1, 0) == b"a"
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            cache.open(data)
    # A server may well take it away.
    share = Flaky()
    remote = cache.open_store(share, 8 * PAGE, name="//server/share", ra_pages=0)
    assert remote.pread(1, 0) == b"A"
    share.error = PermissionError(errno.EACCES, "no longer yours")
    with pytest.raises(PermissionError, match="no longer yours") as raised:
        remote.pread(1, PAGE)
    assert (raised.value.errno, raised.value.filename) == (errno.EACCES, "//server/share")
    with pytest.raises(specmm.BusError) as raised:
        remote.pin(PAGE, 1)
    assert isinstance(raised.value.__cause__, PermissionError)
    assert remote.pread(1, 0) == b"A"
    share.error = None
    assert remote.pread(1, PAGE) == b"B"


def test_a_store_that_fails_every_third_call(cache):
    store = Flaky(ConnectionError("connection reset"), every=3)
    file = cache.open_store(store, 20 * PAGE, name="remote", ra_pages=0)
    failed = 0
    for page in range(20):
        for _ in range(2):
            try:
                assert file.pread(1, page * PAGE) == bytes([65 + page])
                break
            except OSError as error:
                assert isinstance(error.__cause__, ConnectionError)
                failed += 1
    assert failed == store.calls // 3 > 5
    # With readahead most failures are met by a window, whose pages are then read one by one.
    file.close()
    again = cache.open_store(Flaky(ConnectionError("connection reset"), every=3), 20 * PAGE)
    got = b""
    while len(got) < 20:
        try:
            got += again.pread(1, len(got) * PAGE)
        except OSError as error:
            assert isinstance(error.__cause__, ConnectionError)
    assert got == bytes(range(65, 85))
    again.close()


def test_a_store_that_does_not_answer():
    class Silent:
        answer = threading.Event()

        def read_at(self, offset, n):
            assert self.answer.wait(60)
            return b"a" * n

    with specmm.PageCache("1MiB") as cache:
        file = cache.open_store(Silent(), 8 * PAGE, name="silent", timeout=0.05)
        mm = specmm.mm.Mm(cache)
        address = mm.mmap(file)
        for read in (
            lambda: file.pread(10, PAGE),
            lambda: file.gather([PAGE], 10),
            lambda: file.pin(PAGE, 10),
            lambda: mm.load(address + PAGE, 10),
            lambda: file.truncate(PAGE),
        ):
            with pytest.raises(TimeoutError, match=f"offset {PAGE} within 0.05 s") as raised:
                read()
            assert (raised.value.errno, raised.value.filename) == (errno.ETIMEDOUT, "silent")
        assert file.size == 8 * PAGE
        Silent.answer.set()
        while cache.stats().reads_abandoned:
            pass
        assert file.pread(10, PAGE) == b"a" * 10


def test_a_cache_too_small_for_the_pins(data):
    with specmm.PageCache(2 * PAGE, frame_timeout=0.05) as cache, cache.open(data) as file:
        pins = [file.pin(0, 8), file.pin(PAGE, 8)]
        with pytest.raises(specmm.OutOfFramesError, match="2 pinned"):
            file.pread(1, 2 * PAGE)
        with pytest.raises(BufferError, match="2 live pins"):
            file.close()
        with pytest.raises(BufferError, match="2 of its pages are pinned"):
            cache.close()
        pins[0].release()
        assert file.pread(1, 2 * PAGE) == b"a"
        pins[1].release()


def test_every_row_with_a_section_has_a_test():
    rows = re.findall(r"^\| \[([^]]+)\]\(#", TABLE.read_text(), re.MULTILINE)
    named = {"a store that fails now and then": "a store that fails every third call"}
    wanted = {"test_" + named.get(row, row).replace(" ", "_") for row in rows}
    assert len(wanted) == 8
    assert wanted <= set(globals())
