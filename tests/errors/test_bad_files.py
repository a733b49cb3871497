"""Files that cannot be opened or read, that are empty, and that shrink under a mapping."""

import errno
import io
import os

import pytest

import specmm
from programs import run
from samples import CONTENT, PAGE, Store

# --- opening


def test_a_missing_file(cache, tmp_path):
    for missing in [tmp_path / "none", tmp_path / "none" / "at all"]:
        with pytest.raises(FileNotFoundError) as raised:
            cache.open(missing)
        assert raised.value.filename == str(missing)
        assert raised.value.errno == errno.ENOENT
    with pytest.raises(ValueError, match="null byte"):
        cache.open("a\0b")


def test_a_directory(cache, tmp_path):
    for mode in ["rb", "r+b"]:
        with pytest.raises(IsADirectoryError) as raised:
            cache.open(tmp_path, mode)
        assert raised.value.filename == str(tmp_path)


def test_a_file_that_exists_is_not_created(cache, path):
    with pytest.raises(FileExistsError, match=r"data\.bin"):
        cache.open(path, "x+b")
    assert path.read_bytes() == CONTENT


def test_a_file_that_may_not_be_read(path):
    # Root may read anything, so a child gives up that right first.
    path.chmod(0)
    code = """
import os, sys, specmm
cache = specmm.PageCache("1MiB")
if os.geteuid() == 0:
    os.chmod(os.path.dirname(sys.argv[1]), 0o755)
    os.setuid(65534)
try:
    cache.open(sys.argv[1])
except PermissionError as error:
    print(error.filename == sys.argv[1])
"""
    assert run(code, path) == "True\n"


def test_an_empty_file(cache, tmp_path):
    path = tmp_path / "empty"
    path.touch()
    with cache.open(path, "r+b") as file, specmm.mm.Mm(cache) as mm:
        assert file.size == 0
        assert file.pread(100, 0) == b""
        assert file.residency() == b""
        assert file.filemap_fault(0, speculative=False).result == specmm.mm.VmFault.SIGBUS
        with pytest.raises(ValueError, match="0"):
            mm.mmap(file)
        address = mm.mmap(file, PAGE)  # longer than the file, as in Linux
        with pytest.raises(specmm.BusError) as raised:
            mm.load(address + 5, 1)
        assert (raised.value.index, raised.value.offset, raised.value.size) == (0, 5, 0)
        file.truncate(1)
        assert mm.load(address, 1) == b"\0"


def test_truncate_needs_a_writable_mode(cache, path):
    with cache.open(path) as file:
        with pytest.raises(OSError, match=r"data\.bin") as raised:
            file.truncate(0)
        assert raised.value.errno == errno.EINVAL
    assert path.read_bytes() == CONTENT


def test_what_does_not_exist_yet_is_refused(cache, path):
    with cache.open(path, "r+b") as file, specmm.mm.Mm(cache) as mm:
        with pytest.raises(io.UnsupportedOperation):
            mm.mmap(file, prot="rw")
        address = mm.mmap(file)
        with pytest.raises(io.UnsupportedOperation):
            mm.mprotect(address, PAGE, "rw")
        with pytest.raises(io.UnsupportedOperation):
            file.advise("hugepage")
    with cache.open_store(Store(lambda offset, n: bytes(n)), 100) as file:
        with pytest.raises(io.UnsupportedOperation):
            file.truncate(10)
        assert file.size == 100


# --- the end of the file


@pytest.mark.parametrize("how", ["truncate", "outside"])
@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("locking", ["speculative", "mmap_lock"])
def test_a_file_that_shrinks_under_a_mapping(cache, path, how, warm, locking):
    with cache.open(path, "r+b") as file, specmm.mm.Mm(cache, locking=locking) as mm:
        address = mm.mmap(file)
        private = mm.mmap(file, prot="rw", shared=False)
        if warm:
            mm.store(private + PAGE, b"mine")
            assert mm.load(address, len(CONTENT)) == CONTENT
        if how == "truncate":
            file.truncate(100)
        else:
            os.truncate(path, 100)
            assert file.revalidate() == 100
        assert mm.load(address, 200) == CONTENT[:100] + bytes(100)
        for attempt in [
            lambda: mm.load(address + PAGE + 3, 1),
            lambda: mm.load(private + PAGE + 3, 1),
            lambda: mm.store(private + PAGE + 3, b"x"),
            lambda: mm.touch(address + 3, 3 * PAGE),
        ]:
            with pytest.raises(specmm.BusError) as raised:
                attempt()
            assert (raised.value.index, raised.value.offset, raised.value.size) == (1, PAGE + 3, 100)
            assert raised.value.__cause__ is None
        assert mm.fault(address + PAGE).result & specmm.mm.VmFault.SIGBUS
        assert file.pread(10, PAGE) == b""


def test_a_file_that_shrinks_unnoticed(cache, path):
    with cache.open(path, ra_pages=0) as file, specmm.mm.Mm(cache) as mm:
        address = mm.mmap(file)
        os.truncate(path, 100)
        with pytest.raises(specmm.BusError, match=str(2 * PAGE)):
            mm.load(address + 2 * PAGE, 1)


def test_accesses_that_no_mapping_allows(cache, path):
    with cache.open(path) as file, specmm.mm.Mm(cache) as mm:
        address = mm.mmap(file, PAGE)
        for attempt, where in [
            (lambda: mm.load(0, 1), 0),
            (lambda: mm.load(address + PAGE, 1), address + PAGE),
            (lambda: mm.load(address + PAGE - 1, 2), address + PAGE),
            (lambda: mm.store(address + 8, b"x"), address + 8),
            (lambda: mm.touch(address, 2 * PAGE), address + PAGE),
            (lambda: mm.load((1 << 46) + 1, 1), (1 << 46) + 1),
        ]:
            with pytest.raises(specmm.SegmentationError, match=f"{where:#x}|{where}"):
                attempt()
