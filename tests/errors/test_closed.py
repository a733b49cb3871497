"""Use after close."""

import io

import pytest

import specmm
from samples import CONTENT, PAGE, Store


def test_a_closed_file(cache, path):
    file = cache.open(path, "r+b")
    raw = file.as_raw()
    file.close()
    for call in [
        lambda: file.size,
        lambda: file.pread(1, 0),
        lambda: file.preadinto(bytearray(1), 0),
        lambda: file.gather([0], 1),
        lambda: file.truncate(0),
        lambda: file.advise("normal"),
        lambda: file.residency(),
        lambda: file.revalidate(),
        lambda: file.filemap_fault(0),
        lambda: file.__enter__().pread(1, 0),
        lambda: specmm.mm.Mm(cache).mmap(file),
        lambda: raw.read(1),
    ]:
        with pytest.raises(specmm.ClosedError, match=r"data\.bin"):
            call()
    assert (file.name, file.mode, file.closed) == (str(path), "r+b", True)
    assert path.read_bytes() == CONTENT


def test_a_closed_raw_stream(cache, path):
    with cache.open(path) as file:
        raw = file.as_raw()
        for call in [raw.fileno, lambda: raw.write(b"x"), lambda: raw.truncate(0)]:
            with pytest.raises(io.UnsupportedOperation):
                call()
        with pytest.raises(OSError, match="-1"):
            raw.seek(-1)
        with pytest.raises(OSError, match="9"):
            raw.seek(0, 9)
        raw.close()
        for call in [lambda: raw.read(1), raw.readall, raw.tell, lambda: raw.seek(0)]:
            with pytest.raises(ValueError, match="closed"):
                call()


def test_a_closed_cache(path):
    cache = specmm.PageCache("1MiB")
    file = cache.open(path)
    mm = specmm.mm.Mm(cache)
    address = mm.mmap(file)
    mm.load(address, 1)
    cache.close()
    for call in [
        lambda: cache.open(path),
        lambda: cache.open_store(Store(bytes), 10),
        lambda: specmm.mm.Mm(cache),
        lambda: file.pread(1, 0),
        lambda: mm.load(address, 1),
        lambda: mm.mmap(file),
    ]:
        with pytest.raises(specmm.ClosedError):
            call()
    mm.close()
    file.close()


def test_a_closed_address_space(cache, path):
    with cache.open(path) as file:
        mm = specmm.mm.Mm(cache)
        address = mm.mmap(file)
        mm.close()
        for call in [
            lambda: mm.mmap(file),
            lambda: mm.munmap(address, PAGE),
            lambda: mm.mprotect(address, PAGE, "r"),
            lambda: mm.madvise(address, PAGE, "normal"),
            lambda: mm.load(address, 1),
            lambda: mm.store(address, b"x"),
            lambda: mm.fault(address),
            lambda: mm.touch(address, 1),
            lambda: mm.pagemap(address, PAGE),
        ]:
            with pytest.raises(specmm.ClosedError):
                call()
