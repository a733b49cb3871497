"""What a cache takes before it is used, and what happens when the system has no more."""

import os
import random
import resource

import pytest

import memory_limits
import specmm
from programs import python, run

CHILDREN = {"deep": 20_000, "ci": 500}.get(os.environ.get("SPECMM_HYPOTHESIS", "dev"), 60)
GIB = 1 << 30


@pytest.mark.parametrize("capacity", [10**6 * specmm.PAGE_SIZE, 300 * GIB])
def test_a_cache_touches_no_memory_until_it_is_used(capacity):
    specmm.PageCache("1MiB").close()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    with specmm.PageCache(capacity) as cache:
        assert resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before < 64
        # What looks at all pages looks at those that were used.
        cache.check()
        file = cache.open_store(memory_limits.Zeros(), 1 << 30)
        for page in range(100):
            assert file.pread(8, 1000 * page * specmm.PAGE_SIZE) == bytes(8)
        cache.reclaim(50)
        cache.check()
        assert resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before < 6000
        assert cache.stats().capacity_frames == capacity // specmm.PAGE_SIZE


def test_a_cache_that_does_not_fit_is_refused():
    with pytest.raises(
        ValueError, match=r"capacity of 4398046515200 bytes exceeds 1073741824 pages \(4 TiB\)"
    ):
        specmm.PageCache((1 << 42) + specmm.PAGE_SIZE)
    code = """
import resource, specmm
specmm.PageCache("1MiB").close()
page = resource.getpagesize()
def refused(room):
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * page
    resource.setrlimit(resource.RLIMIT_AS, (now + room, resource.RLIM_INFINITY))
    try:
        specmm.PageCache("1GiB")
    except MemoryError as error:
        print(error)
refused(8 << 20)
refused(512 << 20)
refused((1 << 30) + (8 << 20))
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(specmm.PageCache("1GiB").stats().capacity_frames)
"""
    of = "of a cache with a capacity of 262144 pages"
    assert run(code).splitlines() == [
        f"the system has no memory for the descriptors {of}: {262144 * 48} bytes",
        f"the system has no memory for the frames {of}: {GIB} bytes",
        f"the system has no memory for the frames {of}: {GIB} bytes",
        "262144",
    ]


def test_no_call_ends_the_process():
    seed = random.randrange(1 << 30)
    answer = python(memory_limits.__file__, seed, CHILDREN, timeout=None)
    assert answer.returncode == 0, answer.stderr
    lines = [line.split() for line in answer.stdout.splitlines()]
    assert len(lines) == CHILDREN
    wrong = [line for line in lines if int(line[3]) not in (memory_limits.FINE, memory_limits.REFUSED)]
    assert not wrong, f"{wrong}: python {memory_limits.__file__} {wrong[0][0]} 1\n{answer.stderr}"
    assert answer.stderr == ""
    # The limits are neither too wide nor too narrow.
    assert {int(line[3]) for line in lines} == {memory_limits.FINE, memory_limits.REFUSED}
