"""A child that another thread than the main one forked ends with that thread's function."""

import pytest

from programs import run

CODE = """
import os, sys, threading, time, warnings
import specmm
# Files are left to the end of processes and threads.
warnings.simplefilter("ignore", ResourceWarning)
warnings.simplefilter("ignore", DeprecationWarning)

class Pages:
    def read_at(self, offset, n):
        return bytes(n)

def use():
    "Workers of three caches: the default one, one that is dropped, and one that stays."
    global kept
    with specmm.open(sys.executable) as file:
        file.pread(1 << 20, 0)
    specmm.PageCache("1MiB").open_store(Pages(), 1 << 20).pread(1 << 20, 0)
    kept = specmm.PageCache("1MiB")
    store = kept.open_store(Pages(), 1 << 23)
    for at in range(0, 1 << 22, 4096):
        store.pread(1, at)
    return store

def nothing():
    pass

def end():
    use()
    os._exit(7)

def end_the_thread():
    use()
    sys.exit(3)

def die():
    use()
    os.kill(os.getpid(), 9)

def pause():
    "Workers end and come again; what was asked for is read."
    store = use()
    for _ in range(3):
        time.sleep(0.25)
        store.advise("dontneed")
        assert store.pread(1, 0) == b"\\0"
        store.advise("willneed")
        kept.settle()
        kept.check()

def leave_a_thread():
    "It is not ours to end."
    use()
    threading.Thread(target=lambda: (time.sleep(0.4), use(), os._exit(9))).start()

def fork_in_a_thread():
    use()
    def inner():
        child = os.fork()
        if child == 0:
            use()
        else:
            os._exit(11 if os.waitpid(child, 0)[1] == 0 else 1)
    threading.Thread(target=inner).start()

WORK = {nothing: 0, use: 0, end: 7, end_the_thread: 0, die: -9, pause: 0}
WORK |= {leave_a_thread: 9, fork_in_a_thread: 11}

def fork(work):
    global status
    child = os.fork()
    if child == 0:
        return work()
    until = time.monotonic() + 20
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(child, 9)
            raise AssertionError(f"the child does not end after {work.__name__}")
        time.sleep(0.005)
    status = os.waitstatus_to_exitcode(ended[1])

parents = use() if sys.argv[1] == "used" else None
for work, expected in WORK.items():
    thread = threading.Thread(target=fork, args=(work,))
    thread.start()
    thread.join()
    assert status == expected, (work.__name__, status)
assert parents is None or parents.pread(1, 0) == b"\\0"
print("ended")
"""


@pytest.mark.parametrize("parent", ["used", "unused"])
def test_it_ends_whatever_it_used(parent):
    # What the thread's end says of `sys.exit` is Python's.
    assert run(CODE, parent) == "ended\n"
