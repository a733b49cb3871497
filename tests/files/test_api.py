"""What the names of the package do when all goes well."""

import array
import enum
import gc
import os
import pathlib
import weakref

import pytest

import specmm
from samples import LONG, PAGE

CAPACITY = "4MiB"
CONTENT = LONG


# --- the package


def test_package_says_what_it_is():
    assert PAGE == 4096
    assert specmm.__version__.count(".") == 2
    assert set(specmm.__all__) <= set(dir(specmm))
    for name in specmm.__all__:
        thing = getattr(specmm, name)
        if isinstance(thing, type):
            assert thing.__module__ == "specmm"
            assert thing.__doc__


def test_vm_fault_is_a_flag_with_values_of_linux():
    assert issubclass(specmm.mm.VmFault, enum.IntFlag)
    assert {flag.name: flag.value for flag in specmm.mm.VmFault} == {
        "OOM": 1,
        "SIGBUS": 2,
        "MAJOR": 4,
        "SIGSEGV": 0x40,
        "NOPAGE": 0x100,
        "LOCKED": 0x200,
        "RETRY": 0x400,
        "DONE_COW": 0x1000,
    }


def test_each_abort_has_an_event_of_its_own(cache):
    assert issubclass(specmm.mm.Abort, enum.Enum)
    with specmm.mm.Mm(cache) as mm:
        events = mm.vm_events()
    causes = {name.removeprefix("spf_abort_") for name in events if name.startswith("spf_abort_")}
    assert (
        causes
        == {cause.value for cause in specmm.mm.Abort}
        == {cause.name.lower() for cause in specmm.mm.Abort}
    )


# --- the cache


@pytest.mark.parametrize(
    ("capacity", "frames"),
    [
        (PAGE, 1),
        (10 * PAGE + 1, 10),
        ("4096", 1),
        ("8192B", 2),
        ("512KiB", 128),
        ("1 MiB", 256),
        ("1MB", 1_000_000 // PAGE),
    ],
)
def test_capacity_is_bytes_or_a_size(capacity, frames):
    with specmm.PageCache(capacity) as cache:
        assert cache.stats().capacity_frames == frames


def test_stats_are_a_frozen_record(cache, path):
    with cache.open(path) as file:
        file.pread(100, 0)
        cache.settle()
        stats = cache.stats()
    assert stats.capacity_frames == 1024
    assert 0 < stats.frames_in_use <= 41
    assert stats.reads > 0
    assert stats.read_bytes > 0
    assert stats.read_errors == 0
    assert "frames_in_use=" in repr(stats)
    with pytest.raises(AttributeError):
        stats.hits = 0


def test_dropped_caches_are_read_again(cache, path):
    with cache.open(path) as file:
        file.pread(len(CONTENT), 0)
        cache.settle()
        assert file.residency() == b"\1" * 41
        assert cache.drop_caches() == 41
        assert file.residency() == bytes(41)
        assert file.pread(len(CONTENT), 0) == CONTENT
    cache.check()


def test_closing_a_cache_closes_its_files(path):
    cache = specmm.PageCache("1MiB")
    file = cache.open(path)
    assert not cache.closed
    cache.close()
    cache.close()
    assert cache.closed
    assert file.closed
    assert "closed" in repr(cache)


def test_a_file_keeps_its_cache_alive(path):
    cache = specmm.PageCache("1MiB")
    alive = weakref.ref(cache)
    file = cache.open(path)
    del cache
    gc.collect()
    assert alive() is not None
    assert file.pread(10, 5) == CONTENT[5:15]
    file.close()
    del file
    gc.collect()
    assert alive() is None


# --- a file


def test_file_says_what_it_is(cache, path):
    with cache.open(path) as file:
        assert file.size == len(CONTENT)
        assert file.name == str(path)
        assert file.mode == "rb"
        assert not file.closed
        assert str(len(CONTENT)) in repr(file)
        assert "data.bin" in repr(file)
    assert file.closed
    assert "closed" in repr(file)
    file.close()


@pytest.mark.parametrize("kind", [str, pathlib.Path, os.fsencode])
def test_any_kind_of_path_opens(cache, path, kind):
    with cache.open(kind(path)) as file:
        assert file.pread(3, 0) == CONTENT[:3]


@pytest.mark.parametrize("offset", [0, PAGE - 1, PAGE, 3 * PAGE + 7, len(CONTENT) - 5, len(CONTENT), 1 << 40])
@pytest.mark.parametrize("n", [0, 1, 5, PAGE, 2 * PAGE + 1, 1 << 40])
def test_pread_is_a_slice_of_the_file(cache, path, n, offset):
    with cache.open(path) as file:
        for _ in range(2):  # cold, then from the cache
            assert file.pread(n, offset) == CONTENT[offset : offset + n]


def test_pread_of_many_slices(tmp_path):
    content = CONTENT * 40
    path = tmp_path / "large"
    path.write_bytes(content)
    with specmm.PageCache("16MiB") as cache, cache.open(path) as file:
        for _ in range(2):
            assert file.pread(len(content), 3) == content[3:]
        cache.settle()
        cache.check()


def test_a_second_read_is_a_hit(cache, path):
    with cache.open(path) as file:
        file.pread(2 * PAGE, 0)
        cache.settle()
        before = cache.stats()
        file.pread(2 * PAGE, 0)
        after = cache.stats()
    assert after.hits > before.hits
    assert after.misses == before.misses
    assert after.reads == before.reads


@pytest.mark.parametrize(
    "buffer",
    [
        bytearray(PAGE + 8),
        memoryview(bytearray(PAGE + 18))[5:-5],
        array.array("d", bytes(PAGE + 8)),
        memoryview(bytearray(PAGE + 8)).cast("B", (8, (PAGE + 8) // 8)),
    ],
    ids=["bytearray", "slice", "doubles", "matrix"],
)
def test_preadinto_fills_any_writable_buffer(cache, path, buffer):
    with cache.open(path) as file:
        for _ in range(2):
            assert file.preadinto(buffer, 11) == PAGE + 8
            assert bytes(memoryview(buffer).cast("B")) == CONTENT[11 : 11 + PAGE + 8]


def test_preadinto_is_short_at_the_end_only(cache, path):
    buffer = bytearray(b"#" * 100)
    with cache.open(path) as file:
        assert file.preadinto(buffer, len(CONTENT) - 40) == 40
        assert buffer == CONTENT[-40:] + b"#" * 60
        assert file.preadinto(buffer, len(CONTENT)) == 0
        assert file.preadinto(bytearray(), 0) == 0


def test_modes_create_and_empty(cache, path, tmp_path):
    new = tmp_path / "new"
    with cache.open(new, "x+b") as file:
        assert (file.size, file.mode) == (0, "x+b")
        file.truncate(10)
        assert file.pread(100, 0) == bytes(10)
    assert new.stat().st_size == 10
    with cache.open(path, "w+") as file:
        assert (file.size, file.mode) == (0, "w+b")
    assert path.stat().st_size == 0
    with cache.open(new, "r") as file:
        assert file.mode == "rb"


def test_truncate_shrinks_and_grows(cache, path):
    with cache.open(path, "r+b") as file:
        assert file.pread(len(CONTENT), 0) == CONTENT
        file.truncate(PAGE + 100)
        assert file.size == PAGE + 100 == path.stat().st_size
        assert file.pread(1 << 20, 0) == CONTENT[: PAGE + 100]
        file.truncate(3 * PAGE)
        assert file.pread(1 << 20, 0) == CONTENT[: PAGE + 100].ljust(3 * PAGE, b"\0")
    assert path.stat().st_size == 3 * PAGE
    cache.check()


def test_two_opens_of_a_file_share_it(cache, path, tmp_path):
    link = tmp_path / "link"
    link.hardlink_to(path)
    with cache.open(path, "r+b") as one, cache.open(link) as two:
        one.pread(10, 0)
        cache.settle()
        assert two.residency() == one.residency()
        assert two.readahead_state.prev_pos == -1
        one.truncate(5)
        assert two.size == 5
        assert two.pread(100, 0) == CONTENT[:5]


def test_a_change_from_outside_is_seen_by_revalidate(cache, path):
    with cache.open(path) as file:
        assert file.pread(10, 0) == CONTENT[:10]
        os.truncate(path, 4)
        assert file.revalidate() == 4
        assert file.size == 4
        assert file.pread(10, 0) == CONTENT[:4]
        with path.open("ab") as append:
            append.write(b"more")
        assert file.revalidate() == 8
        assert file.pread(10, 0) == CONTENT[:4] + b"more"


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("ra_pages", [0, 32])
def test_a_file_that_others_made_shorter_is_read_up_to_its_new_end(cache, path, mapped, ra_pages):
    with cache.open(path, ra_pages=ra_pages) as file, specmm.mm.Mm(cache) as mm:
        addr = mm.mmap(file)
        os.truncate(path, PAGE + 100)
        data = mm.load(addr + PAGE, 100) if mapped else file.pread(200, PAGE)
        assert data == CONTENT[PAGE : PAGE + 100]
        assert file.size == PAGE + 100


def test_advice_and_residency(cache, path):
    with cache.open(path) as file:
        assert file.residency() == bytes(41)
        file.advise("willneed", 2 * PAGE, 3 * PAGE)
        cache.settle()
        assert file.residency()[2:5] == b"\1\1\1"
        assert file.residency(2, 2) == b"\1\1"
        assert len(file.residency(39, 100)) == 2
        assert file.residency(41) == b""
        file.advise("dontneed")
        assert file.residency() == bytes(41)
        file.advise("random")
        file.pread(1, 20 * PAGE)
        cache.settle()
        assert sum(file.residency()) == 1


def test_readahead_state_is_a_record(cache, path):
    with cache.open(path, ra_pages=8) as file:
        assert file.readahead_state == specmm.ReadaheadState(
            start=0, size=0, async_size=0, ra_pages=8, mmap_miss=0, prev_pos=-1
        )
        file.pread(10, 0)
        assert file.readahead_state.prev_pos == 10
        file.advise("sequential")
        assert file.readahead_state.ra_pages == 16


def test_filemap_fault_speaks_for_itself(cache, path):
    fault = specmm.mm.VmFault
    with cache.open(path, ra_pages=0) as file:
        miss = specmm.mm.FilemapFault(fault.RETRY, specmm.mm.Abort.FILE_MISS)
        assert file.filemap_fault(3) == miss
        assert file.filemap_fault(3, speculative=False) == specmm.mm.FilemapFault(
            fault.LOCKED | fault.MAJOR, None
        )
        assert file.filemap_fault(3) == specmm.mm.FilemapFault(fault.LOCKED, None)
        assert file.filemap_fault(41).abort is specmm.mm.Abort.FILE_MISS
        assert file.filemap_fault(41, speculative=False) == specmm.mm.FilemapFault(fault.SIGBUS, None)


def test_each_open_has_the_name_it_was_opened_by(cache, path):
    link = path.with_name("link.bin")
    link.hardlink_to(path)
    with cache.open(path) as one, cache.open(link) as other:
        assert (one.name, other.name) == (str(path), str(link))
        one.pread(1, 0)
        assert other.residency(0, 1) == b"\1"
