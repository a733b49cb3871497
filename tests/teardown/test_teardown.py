"""Calls from finalizers while a thread comes to its end: at no moment of its life is one out of place."""

import pytest

from programs import run
from samples import numbered

# What a finalizer may do: everything.
CALLS = {
    "pread": "file.pread(8, draw.randrange(SIZE - 8))",
    "pread of much": "file.pread(SIZE, 0)",
    "preadinto": "file.preadinto(bytearray(5000), draw.randrange(SIZE - 5000))",
    "gather": "file.gather([draw.randrange(SIZE - 8) for _ in range(300)], 8)",
    "a miss": "(file.advise('dontneed'), file.pread(8, draw.randrange(SIZE - 8)))",
    "a store's miss": "(stored.advise('dontneed'), stored.pread(8, draw.randrange(SIZE - 8)))",
    "pin": "bytes(file.pin(4096 * draw.randrange(PAGES), 16))",
    "residency": "file.residency()",
    "advise": "(file.advise('willneed'), file.advise('normal'))",
    "truncate": "(writable.truncate(5000), writable.truncate(9000))",
    "revalidate": "file.revalidate()",
    "filemap_fault": "(file.filemap_fault(3), file.filemap_fault(3, speculative=False))",
    "mm": "use(specmm.mm.Mm(cache))",
    "mm of all": "(shared.touch(address, SIZE), shared.madvise(address, SIZE, 'dontneed'))",
    "open and close": "cache.open(path).close()",
    "a cache of its own": "whole_cache()",
    "stats": "(cache.stats(), repr(cache), repr(file), cache.settle())",
    "reclaim": "(cache.reclaim(3), cache.drop_caches())",
    "the last reference": "last.pop()",
    "a raw stream": "file.as_raw().read(100)",
    "pickle": "pickle.loads(pickle.dumps(file)).pread(1, 0)",
}

CODE = """
import ctypes, os, pickle, random, sys, threading, warnings
import specmm
# Files go with their last references.
warnings.simplefilter("ignore", ResourceWarning)
path, other, ways, seed = *sys.argv[1:3], sys.argv[3].split(","), int(sys.argv[4])
PAGES = 64
SIZE = PAGES * 4096
raised = []
sys.unraisablehook = lambda what: raised.append(what.exc_value)
threading.excepthook = lambda what: raised.append(what.exc_value)

class Pages:
    def read_at(self, offset, n):
        return bytes(n)

cache = specmm.PageCache("128KiB")
file, writable, stored = cache.open(path), cache.open(other, "r+b"), cache.open_store(Pages(), SIZE)
shared = specmm.mm.Mm(cache)
address = shared.mmap(file)
last = [cache.open_store(Pages(), SIZE) for _ in range(1000)]

def use(mm):
    at = mm.mmap(file, prot="rw", shared=False)
    mm.touch(at, SIZE)
    mm.store(at, b"x")
    mm.close()

def whole_cache():
    with specmm.PageCache("64KiB") as own:
        own.open(path).pread(50_000, 0)
        store = own.open_store(Pages(), SIZE)
        store.pread(50_000, 0)

def call(draw):
    CALL

class AtTheEnd:
    def __init__(self, draw):
        self.draw = draw
    def __del__(self):
        for _ in range(3):
            call(self.draw)
        done.append(1)

done = []
local = threading.local()

# Destructors of C code run after everything that Python has for a thread's end: a key of the C library's.
libc = ctypes.PyDLL(None)
key = ctypes.c_uint()
DESTRUCTOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

@DESTRUCTOR
def by_c(left):
    if left > 1:
        assert libc.pthread_setspecific(key, ctypes.c_void_p(left - 1)) == 0
    else:
        call(random.Random(seed))
        done.append(1)

assert libc.pthread_key_create(ctypes.byref(key), by_c) == 0

def thread(way, seed):
    draw = random.Random(seed)
    if way == "local":
        local.value = AtTheEnd(draw)
    elif way == "used before":
        call(draw)
        local.value = AtTheEnd(draw)
    elif way == "used by a store":
        # A worker of the cache's own, which Python did not start.
        class Store:
            def read_at(self, offset, n):
                if not hasattr(local, "value"):
                    local.value = AtTheEnd(random.Random(seed))
                return bytes(n)
        own = specmm.PageCache("64KiB")
        own.open_store(Store(), SIZE).pread(SIZE, 0)
        own.close()
    else:
        used, rounds = way.split(" C ")
        if used:
            call(draw)
        assert libc.pthread_setspecific(key, ctypes.c_void_p(int(rounds))) == 0

for way in ways:
    # Several at once: what one thread's end leaves behind would meet another's beginning.
    threads = [threading.Thread(target=thread, args=(way, seed + n)) for n in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    # Python's join returns before a thread's destructors have run.
    for _ in range(1000):
        if len(done) >= 4:
            break
        threading.Event().wait(0.01)
    assert len(done) >= 4, (way, len(done))
    assert not raised, raised
    done.clear()
    # Grace periods end, and everything balances.
    with specmm.PageCache("64KiB") as own:
        own.open(path).close()
shared.close()
threading.Event().wait(0.05)
cache.settle()
cache.check()
cache.close()
print("good")
"""

WAYS = ["local", "used before", "used by a store"]
WAYS += [f"{used} C {rounds}" for used in ("", "used") for rounds in (1, 2, 3, 4)]


@pytest.fixture
def files(tmp_path):
    paths = tmp_path / "data", tmp_path / "other"
    for path in paths:
        path.write_bytes(numbered(64))
    return paths


@pytest.mark.parametrize("call", CALLS)
def test_a_call_at_the_end_of_a_thread(call, files, seed=20261127):
    assert run(CODE.replace("CALL", CALLS[call]), *files, ",".join(WAYS), seed) == "good\n"
