"""An address space from Python: mappings, faults, loads and stores."""

import pytest

import specmm
from samples import LONG, PAGE

CONTENT = LONG


@pytest.fixture
def cache():
    with specmm.PageCache("4MiB", io="inline") as cache:
        yield cache
        cache.check()


@pytest.fixture
def file(cache, path):
    with cache.open(path, "r+b") as file:
        yield file


def test_load_reads_the_file(mm, file):
    address = mm.mmap(file)
    for _ in range(2):
        assert mm.load(address + 5, 3 * PAGE) == CONTENT[5 : 5 + 3 * PAGE]
    assert mm.load(address, len(CONTENT)) == CONTENT
    assert mm.load(address, 0) == b""
    assert mm.load(address + len(CONTENT), 1) == b"\0"  # the rest of the last page


def test_load_of_many_slices(tmp_path):
    content = CONTENT * 20
    path = tmp_path / "large"
    path.write_bytes(content)
    with specmm.PageCache("8MiB") as cache, cache.open(path) as file, specmm.mm.Mm(cache) as mm:
        assert mm.load(mm.mmap(file), len(content)) == content


def test_offset_and_length_choose_what_is_mapped(mm, file):
    address = mm.mmap(file, PAGE + 1, 2 * PAGE)
    assert mm.load(address, 2 * PAGE) == CONTENT[2 * PAGE : 4 * PAGE]
    with pytest.raises(specmm.SegmentationError):
        mm.load(address + 2 * PAGE, 1)


def test_a_mapping_outlives_its_file(mm, file):
    address = mm.mmap(file)
    file.close()
    assert mm.load(address, 10) == CONTENT[:10]


def test_private_stores_stay_in_the_address_space(mm, file):
    address = mm.mmap(file, prot="rw", shared=False)
    mm.store(address + PAGE - 2, b"abcd")
    mm.store(address, memoryview(b"xy"))
    assert (
        mm.load(address + PAGE - 3, 6)
        == CONTENT[PAGE - 3 : PAGE - 2] + b"abcd" + CONTENT[PAGE + 2 : PAGE + 3]
    )
    assert mm.pagemap(address, 2 * PAGE) == b"\7\7"
    assert file.pread(len(CONTENT), 0) == CONTENT
    mm.madvise(address, PAGE, "dontneed")
    assert mm.load(address, 2) == CONTENT[:2]


def test_protection_can_change(mm, file):
    address = mm.mmap(file, shared=False)
    with pytest.raises(specmm.SegmentationError):
        mm.store(address, b"x")
    mm.mprotect(address, PAGE, "rw")
    mm.store(address, b"x")
    assert mm.load(address, 1) == b"x"
    mm.mprotect(address, PAGE, "r")
    with pytest.raises(specmm.SegmentationError):
        mm.store(address, b"y")
    assert mm.load(address, 1) == b"x"


def test_unmapping_takes_the_middle_out(mm, file):
    address = mm.mmap(file)
    mm.touch(address, 3 * PAGE)
    mm.munmap(address + PAGE, PAGE)
    assert mm.load(address, 1) == CONTENT[:1]
    assert mm.load(address + 2 * PAGE, 1) == CONTENT[2 * PAGE : 2 * PAGE + 1]
    with pytest.raises(specmm.SegmentationError):
        mm.load(address + PAGE, 1)


def test_fault_is_told_step_by_step(cache, file):
    fault = specmm.mm.VmFault
    with specmm.mm.Mm(cache, fault_around=PAGE) as mm:
        address = mm.mmap(file)
        first = mm.fault(address)
        assert first == specmm.mm.FaultOutcome(fault.LOCKED | fault.MAJOR, specmm.mm.Abort.PUD, True)
        again = mm.fault(address)
        assert again == specmm.mm.FaultOutcome(fault(0), None, False)
        beside = mm.fault(address + PAGE)
        assert beside == specmm.mm.FaultOutcome(fault.LOCKED, None, False)
        assert mm.fault(address, write=True).result == fault.SIGSEGV
        assert mm.fault(0).result == fault.SIGSEGV
        assert mm.vm_events()["pgfault"] == 5


def test_touch_sums_up(mm, file):
    address = mm.mmap(file)
    report = mm.touch(address, 41 * PAGE)
    assert report.touches == 41
    assert 0 < report.faults <= 41
    assert 0 < report.major <= report.faults
    again = mm.touch(address, 41 * PAGE, stride=1000)
    assert again == specmm.mm.TouchReport(touches=168, faults=0, major=0, aborts=0)
    assert mm.touch(address, 0) == specmm.mm.TouchReport(0, 0, 0, 0)


def test_touches_of_many_slices_are_counted_once(mm, file):
    address = mm.mmap(file)
    assert mm.touch(address, 10_000, stride=1).touches == 10_000


def test_touch_to_write_makes_private_copies(mm, file, cache):
    address = mm.mmap(file, prot="rw", shared=False)
    assert mm.touch(address, 3 * PAGE, write=True).touches == 3
    assert mm.pagemap(address, 4 * PAGE)[:3] == b"\7\7\7"
    assert cache.stats().private_frames == 3
    assert mm.load(address, 3 * PAGE) == CONTENT[: 3 * PAGE]


def test_events_never_fall(mm, file):
    address = mm.mmap(file)
    before = mm.vm_events()
    mm.touch(address, 10 * PAGE)
    after = mm.vm_events()
    assert before.keys() == after.keys()
    assert all(after[name] >= before[name] for name in before)
    assert after["pgfault"] > before["pgfault"]
    assert after["pgfault"] == after["maj_flt"] + after["min_flt"]


def test_closing_twice_is_no_error(cache, file):
    mm = specmm.mm.Mm(cache)
    mm.touch(mm.mmap(file), PAGE)
    mm.close()
    mm.close()
