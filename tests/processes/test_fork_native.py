"""Forks that Python is not asked about: no hook runs, the pid may be the parent's. Children all the same."""

import platform

import pytest

from programs import run

PAGES = 256
WAYS = {
    "python": "os.fork",
    "libc": "ctypes.PyDLL(None).fork",
    # Past the C library's own hooks too.
    "system call": "lambda: ctypes.PyDLL(None).syscall(57)",
}
if platform.machine() != "x86_64":
    del WAYS["system call"]

# Threads of the parent stand in the middle of whatever they do: hits, misses, grace periods, a read that does
# not end. Where Python is not asked they must not be about to take the interpreter: its own lock would not
# survive that.
CODE = """
import ctypes, os, random, sys, threading, warnings
import specmm
warnings.simplefilter("ignore", DeprecationWarning)
PAGE = 4096
path, way, thread, seed = sys.argv[1], sys.argv[2], sys.argv[3] == "True", int(sys.argv[4])
draw = random.Random(seed)
reading, writing = os.pipe()

class Pages:
    def read_at(self, offset, n):
        return b"".join(bytes([at // PAGE % 256]) * PAGE for at in range(offset, offset + n, PAGE))[:n]

class Stuck(Pages):
    entered, parent = threading.Event(), True
    def read_at(self, offset, n):
        if Stuck.parent:
            Stuck.entered.set()
            os.read(reading, 1)
        return super().read_at(offset, n)

cache = specmm.PageCache("256KiB")
file, stored = cache.open(path), cache.open_store(Pages(), 256 * PAGE)
stuck = cache.open_store(Stuck(), 256 * PAGE)
stop = threading.Event()

def read_what_is_stuck():
    assert stuck.pread(1, 3 * PAGE) == b"\3"

def busy(seed):
    draw = random.Random(seed)
    mm = specmm.mm.Mm(cache)
    while not stop.is_set():
        page = draw.randrange(200)
        assert draw.choice([file, stored]).pread(3, page * PAGE) == bytes([page]) * 3
        address = mm.mmap(file)
        mm.touch(address, 20 * PAGE)
        mm.munmap(address, 20 * PAGE)

def child(depth):
    assert cache.stats().frames_in_use == 0, cache.stats()
    Stuck.parent = False
    for each in (file, stored, stuck):
        for page in (3, 7, 200, 7):
            assert each.pread(2, page * PAGE) == bytes([page]) * 2
    assert cache.stats().reads >= 4
    with specmm.PageCache("64KiB") as own, own.open(path) as mine:
        assert mine.pread(1, 9 * PAGE) == b"\\x09"
        mm = specmm.mm.Mm(own)
        assert mm.load(mm.mmap(mine) + 9 * PAGE, 1) == b"\\x09"
        mm.close()
    # Threads that begin in the child, and one that the parent never had.
    readers = [threading.Thread(target=file.pread, args=(PAGE, page * PAGE)) for page in range(5)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    cache.settle()
    cache.check()
    if depth:
        fork_and_wait(depth - 1)
    cache.close()
    assert file.closed

def sleeps(task):
    try:
        with open(f"/proc/self/task/{task}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "S"
    except (FileNotFoundError, ProcessLookupError):
        return False

def rest():
    # A worker that is only beginning, or just letting go of the interpreter, may hold a lock of theirs.
    looks = 0
    while looks < 5:
        threading.Event().wait(0.005)
        others = set(os.listdir("/proc/self/task")) - {str(threading.get_native_id())}
        looks = looks + 1 if all(map(sleeps, others)) else 0

def fork_and_wait(depth):
    if way != "python":
        rest()
    pid = (FORK)()
    if pid == 0:
        # Its end would be an alarm, not a wait for ever.
        __import__("signal").alarm(50)
        try:
            child(depth)
        except BaseException:
            __import__("traceback").print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def forks():
    for _ in range(5):
        threading.Event().wait(draw.random() * 0.01)
        fork_and_wait(1)

threads = [threading.Thread(target=read_what_is_stuck, daemon=True)]
if way == "python":
    threads += [threading.Thread(target=busy, args=(seed + n,), daemon=True) for n in range(2)]
for each in threads:
    each.start()
assert Stuck.entered.wait(50)
file.pread(5 * PAGE, 0)
if thread:
    forking = threading.Thread(target=forks)
    forking.start()
    forking.join()
else:
    forks()
assert file.pread(2, 5 * PAGE) == b"\\5\\5"
stop.set()
os.write(writing, b"....")
for each in threads:
    each.join()
cache.check()
print("good")
"""


@pytest.mark.parametrize("in_a_thread", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_child_is_known_whoever_forked(data, way, in_a_thread, seed=20261127):
    assert run(CODE.replace("FORK", WAYS[way]), data, way, in_a_thread, seed) == "good\n"


@pytest.mark.parametrize("way", ["python", "libc"])
def test_without_the_kernel_s_help_the_c_library_tells(data, way, monkeypatch):
    monkeypatch.setenv("SPECMM_NO_WIPEONFORK", "1")
    assert run(CODE.replace("FORK", WAYS[way]), data, way, False, 1) == "good\n"


def test_a_child_with_its_parent_s_pid(data):
    """As when the first process of a container forks the first of another."""
    code = """
import ctypes, os, signal, sys
import specmm
path = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWPID = 0x20000000

def first_of_a_namespace(work):
    "Runs `work` in a child that is process 1."
    if libc.unshare(CLONE_NEWPID):
        print("no privilege")
        sys.exit()
    pid = os.fork()
    if pid == 0:
        assert os.getpid() == 1
        signal.signal(signal.SIGALRM, lambda *_: os._exit(3))
        signal.alarm(50)
        work()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def parent():
    class Zeros:
        def read_at(self, offset, n):
            return bytes(n)
    cache = specmm.PageCache("1MiB")
    file, stored = cache.open(path), cache.open_store(Zeros(), 1 << 30)
    file.pread(5000, 0), stored.pread(200_000, 0)
    cache.settle()

    def child():
        assert cache.stats().frames_in_use == 0
        assert file.pread(1, 4096) == b"\\1" and stored.pread(200_000, 0) == bytes(200_000)
        cache.settle()

    first_of_a_namespace(child)

first_of_a_namespace(parent)
print("good")
"""
    assert run(code, data) in ("good\n", "no privilege\n")
