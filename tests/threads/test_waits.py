"""Nothing hangs on a store that sleeps or never answers: no call, no close, no exit, no child."""

import json
import pathlib
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import specmm
import waits
from programs import python, run

SOON = 2.0
"""Seconds within which every wait ends that was ended."""

PAGE = specmm.PAGE_SIZE

ENDED = {"ctrl-c": "KeyboardInterrupt", "timeout": "TimeoutError", "close": "ClosedError"}
CASES = [(kind, way) for kind in waits.STORES for way in waits.WAYS]


def came_of(kind: str, way: str) -> tuple[list[dict[str, object]], float]:
    """What each call came to, and how long the exit took."""
    done = python("-W", "error", waits.__file__, kind, way, timeout=120)
    ended = time.time()
    assert (done.returncode, done.stderr) == (0, ""), f"{kind} and {way}: {done.stderr}"
    *calls, last = map(json.loads, done.stdout.splitlines())
    return calls, ended - last["exit"]


@pytest.fixture(scope="module")
def runs():
    """All programs at a time: they mostly sleep."""
    with ThreadPoolExecutor(len(CASES)) as pool:
        yield dict(zip(CASES, pool.map(lambda case: pool.submit(came_of, *case), CASES), strict=True))


@pytest.mark.parametrize(("kind", "way"), CASES)
def test_every_call_ends(runs, kind, way):
    calls, leaving = runs[kind, way].result()
    assert [call["call"] for call in calls] == [*waits.READS, *waits.OTHERS]
    # Timed beside eleven others, on a machine that may have two processors.
    late = [call for call in calls if max(call["seconds"], call["closing"]) > SOON]
    assert (late, leaving < SOON) == ([], True)
    for call in calls:
        name, came = call["call"], call["came"]
        if kind == "raises":
            # Faults and readahead have no error of their own to raise.
            fine = (
                {"returned"}
                if name in waits.OTHERS or "fault" in name
                else {"ConnectionError", "OSError", "BusError"}
            )
        elif name in waits.READS:
            # The outcome of a fault stands in its result; the late answer may come first.
            fine = {ENDED[way]} | ({"returned"} if name == "fault" or kind == "late" else set())
        else:
            fine = {"returned", ENDED[way]}
        if call["seconds"] >= waits.BEGIN:
            # On a busy machine a call that need not wait may be slow all the same.
            fine |= {ENDED[way]}
        assert came in fine, f"{name} of a store that {kind}, ended by {way}: {came}"
    if kind in ("sleeps", "never"):
        by_name = {call["call"]: call["came"] for call in calls}
        waited = ["truncate", "settle", "check"] if way == "ctrl-c" else ["truncate"]
        assert {by_name[name] for name in waited} == {ENDED[way]}


# --- time-outs


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "1", [], 1e300])
def test_a_timeout_that_makes_no_sense(timeout):
    with specmm.PageCache("1MiB") as cache, pytest.raises((ValueError, TypeError), match="timeout"):
        cache.open_store(waits.Store(None), PAGE, timeout=timeout)


def test_no_timeout_where_the_caller_reads():
    with specmm.PageCache("1MiB", io="inline") as cache:
        with pytest.raises(ValueError, match=r"time-out of 0.5 s"):
            cache.open_store(waits.Store(None), PAGE, timeout=0.5)
        with cache.open_store(waits.Store(0), PAGE, timeout=None) as file:
            assert file.pread(1, 0) == b"\0"


def test_a_timeout_says_what_was_waited_for():
    store = waits.Store(None)
    with (
        specmm.PageCache("1MiB") as cache,
        cache.open_store(store, 8 * PAGE, name="far", timeout=0.1) as file,
    ):
        for _ in range(2):  # the second waits for the read that the first abandoned
            with pytest.raises(TimeoutError, match=f"offset {3 * PAGE} within 0.1 s") as caught:
                file.pread(10, 3 * PAGE + 7)
            assert (caught.value.errno, caught.value.filename) == (110, "far")
        cache.settle()
        cache.check()
        # The page, and the window that it is part of.
        assert cache.stats().reads_abandoned >= 1
        store.woken.set()
        while cache.stats().reads_abandoned:
            time.sleep(0.001)
        assert file.pread(10, 3 * PAGE + 7) == bytes(10)
        cache.check()


def test_stores_are_read_by_workers_alone():
    class Store:
        def read_at(self, offset: int, n: int) -> bytes:
            threads.add(threading.get_ident())
            return bytes(n)

    for io in ("threads", "inline"):
        threads: set[int] = set()
        with specmm.PageCache("1MiB", io=io) as cache:
            file = cache.open_store(Store(), 20 * PAGE, ra_pages=2)
            file.pread(file.size, 0)
            mm, address = waits.mapped(cache, file)
            mm.touch(address, file.size)
        assert (threading.get_ident() in threads) == (io == "inline")


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("io", ["threads", "inline"])
def test_what_is_no_error_is_raised_as_it_is(error, io):
    class Store:
        def read_at(self, offset: int, n: int) -> bytes:
            raise error("out")

    with specmm.PageCache("1MiB", io=io) as cache:
        file = cache.open_store(Store(), waits.SIZE)
        for name, read in waits.READS.items():
            if "fault" not in name:  # what those meet stands in their result
                with pytest.raises(error, match="out"):
                    read(cache, file)


# --- one store does not stop the others


def test_a_store_that_stalls_does_not_stop_others(path):
    stuck = waits.Store(None)
    with specmm.PageCache("4MiB") as cache, ThreadPoolExecutor(24) as pool:
        file = cache.open_store(stuck, 400 * PAGE, ra_pages=8)
        waiting = [pool.submit(file.pread, 1, page * 16 * PAGE) for page in range(24)]
        assert stuck.reached.wait(10)
        start = time.monotonic()
        with cache.open(path) as local, cache.open_store(waits.Store(0), 400 * PAGE) as other:
            assert local.pread(1 << 20, 0) == path.read_bytes()
            assert other.pread(other.size, 0) == bytes(other.size)
        assert time.monotonic() - start < SOON
        stuck.woken.set()
        assert [read.result() for read in waiting] == [b"\0"] * 24
        cache.settle()
        cache.check()


def test_more_stalled_reads_than_workers():
    stuck = waits.Store(None)
    before = threading.active_count()
    with specmm.PageCache("4MiB") as cache:
        file = cache.open_store(stuck, 400 * PAGE, ra_pages=0, timeout=0.5)
        with ThreadPoolExecutor(50) as pool:
            reads = [pool.submit(file.pread, 1, page * PAGE) for page in range(50)]
            kinds = {type(read.exception()) for read in reads}
        assert kinds == {TimeoutError}
        assert cache.stats().reads_abandoned == 30
        assert len(list(pathlib.Path("/proc/self/task").iterdir())) <= before + 50 + 32
        # Nobody waits for those that were not begun: they are not read any more.
        stuck.woken.set()
        cache.settle()
        while cache.stats().reads_abandoned:
            time.sleep(0.001)
        assert file.residency().count(1) == 30
        assert file.pread(file.size, 0) == bytes(file.size)
        cache.check()


# --- the exit

EXITS = {
    "asleep": "time.sleep(3600)",
    "waiting": "threading.Event().wait()",
    "in a socket": "pair = socket.socketpair(); pair[0].recv(1)",
    "looking again and again": "while True: time.sleep(0.0005)",
    "busy": "while True: pass",
}


USES = ("window", "read", "thread", "dropped")


def exit_of(how: str, use: str) -> float:
    """Seconds from the last line of a program to its end; a thread is inside a store and stays there."""
    code = f"""
import socket, sys, threading, time, warnings, specmm
class Store:
    def read_at(self, offset, n):
        reached.set()
        {EXITS[how]}
def read():
    try:
        file.pread(1, 0)
    except (TimeoutError, specmm.ClosedError):
        pass
use, reached = sys.argv[1], threading.Event()
cache = specmm.PageCache("1MiB")
file = cache.open_store(Store(), 1 << 20, timeout=0.1 if use == "read" else None)
if use == "read":
    read()
elif use == "thread":
    threading.Thread(target=read, daemon=True).start()
else:
    file.advise("willneed", 0, 1)
reached.wait()
if use == "dropped":
    warnings.simplefilter("ignore", ResourceWarning)
    del cache, file
print(time.time())
"""
    start = float(run(code, use))
    return time.time() - start


@pytest.fixture(scope="module")
def exits():
    with ThreadPoolExecutor(4) as pool:
        yield {(how, use): pool.submit(exit_of, how, use) for how in EXITS for use in USES}


@pytest.mark.parametrize("how", EXITS)
@pytest.mark.parametrize("use", USES)
def test_the_exit_leaves_a_store_behind(exits, how, use):
    assert exits[how, use].result() < SOON


def test_a_child_of_fork_does_not_wait_for_the_parents_read(path):
    code = """
import os, sys, threading, time, specmm
class Store:
    def read_at(self, offset, n):
        reached.set()
        time.sleep(3600 if os.getpid() == parent else 0)
        return bytes(n)
parent, reached = os.getpid(), threading.Event()
cache = specmm.PageCache("1MiB")
file = cache.open_store(Store(), 1 << 20, timeout=0.2)
local = cache.open(sys.argv[1])
try:
    file.pread(1, 0)
except TimeoutError:
    print("parent", cache.stats().reads_abandoned > 0, flush=True)
child = os.fork()
if child == 0:
    print("child", file.pread(1, 0), len(local.pread(10, 0)), cache.stats().reads_abandoned, flush=True)
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
"""
    start = time.monotonic()
    assert run(code, path) == "parent True\nchild b'\\x00' 10 0\n"
    assert time.monotonic() - start < 2 * SOON


# --- no thread to be had


def test_without_threads_the_caller_reads():
    code = """
import os, resource, sys, threading, specmm
from specmm import _core
class Store:
    def read_at(self, offset, n):
        threads.add(threading.get_ident())
        return bytes(n)
threads = set()
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    threading.Thread(target=int).start()
except RuntimeError:
    pass
else:
    raise SystemExit("a thread was to be had")
cache = specmm.PageCache("1MiB")
file = cache.open(sys.argv[1])
assert file.pread(file.size, 0) == bytes(file.size)
for timeout in (None, 0.5):
    store = cache.open_store(Store(), 50 * specmm.PAGE_SIZE, timeout=timeout)
    assert store.pread(store.size, 0) == bytes(store.size)
    mm = specmm.mm.Mm(cache)
    mm.touch(mm.mmap(store), store.size)
    store.close()
assert threads == {threading.get_ident()}
cache.reclaim(1000)
cache.settle()
cache.check()
try:
    _core.run_faults(
        sys.argv[1], workload="fault_vs_mmap", threads=2, writer_rates=["0"],
        locking=_core.rows(), seconds=0.1,
    )
except OSError as error:
    print("refused", error.errno)
cache.close()
"""
    # Where anybody may read: root has no such limit.
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(100 * PAGE))
        file.flush()
        pathlib.Path(file.name).chmod(0o644)
        assert run(code, file.name) == "refused 11\n"
