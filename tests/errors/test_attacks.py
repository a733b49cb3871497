# ruff: noqa: E501  # tables of calls and values read better in long lines
"""Calls that nobody would make, and Ctrl-C at any moment: an error that Python knows, and a cache that goes on."""

import os
import time

import pytest

from programs import run

# Draws calls of everything that is public, with arguments of every kind. Each answer is a value or one of the errors that are
# documented; afterwards the caches balance and files read right.
HOSTILE = r"""
import array, ctypes, faulthandler, gc, io, os, pathlib, random, sys, warnings
import numpy as np
import specmm, specmm.numpy
faulthandler.enable()
faulthandler.dump_traceback_later(50, exit=True)
path, seed, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
# Names drawn at random may become files.
os.chdir(os.path.dirname(path))
draw = random.Random(seed)
class Raised(Exception): pass
EXPECTED = (ValueError, TypeError, OSError, MemoryError, BufferError, OverflowError, specmm.SpecmmError, Raised)
# Of Python's own: a view of more dimensions is iterated over.
EXPECTED += (NotImplementedError,)

class Index:
    def __init__(self, value): self.value = value
    def __index__(self):
        if self.value is None: raise Raised("index")
        return self.value
class Path:
    def __init__(self, value): self.value = value
    def __fspath__(self):
        if self.value is None: raise Raised("path")
        return self.value
class Store:
    "Answers anything at all."
    closed = False
    def read_at(self, offset, n):
        kind = draw.randrange(9)
        if kind < 4: return bytes(n)
        if kind == 4: return bytes(max(n - 1, 0))
        if kind == 5: return bytes(n + 1)
        if kind == 6: return draw.choice(values())
        if kind == 7: raise draw.choice([Raised, OSError, ValueError, MemoryError])("store")
        return memoryview(bytearray(2 * n))[::2]
class Liar(bytearray):
    def __len__(self): return 1 << 62
    def __iter__(self): raise Raised("iter")
class Sequence:
    def __getitem__(self, at):
        if at > 3: raise Raised("item")
        return at * 4096
    def __len__(self): return -1

def integers():
    base = draw.choice([0, 1, 7, 8, 4095, 4096, 1 << 16, 1 << 20, 1 << 31, 1 << 32, 1 << 44, 1 << 47, 1 << 62, 1 << 63, 1 << 64, 1 << 200])
    return draw.choice([base, base - 1, base + 1, -base, draw.randrange(300_000)])

def values():
    n = integers()
    return [
        n, n, n, n, draw.randrange(200_000), draw.randrange(200_000), True, False, None, float(min(n, 1 << 60)), float("nan"), float("inf"), -0.5, 2.0,
        str(n), "64MiB", "1KiB", " 3 MiB ", "1e9", "-4KiB", "", "\0", "\udcff", "rb", "r+b", "w", "speculative", "mmap_lock", "random", "willneed",
        "dontneed", b"", b"x" * 9, path, path.encode(), pathlib.Path(path), "/dev/null", "/proc/self/mem", "/", "no/such", Path(path), Path(None), Path(7),
        Index(n), Index(None), np.int64(min(max(n, -(1 << 62)), 1 << 62)), np.uint8(n % 256), np.float32(3), np.array(5), [], [n], [0, 4096], (n, n), range(3), range(n % 1000),
        {n}, {"a": 1}, [None], ["x"], [Index(None)], Sequence(), Liar(b"abc"), object(), type, len, Store(), Store, cache, file, stored, mm, pinned,
        bytearray(n % 70_000), memoryview(bytearray(100)), memoryview(bytes(100)), memoryview(bytearray(100))[::2], memoryview(bytearray(64)).cast("B", [8, 8]),
        array.array("i", [1, 2]), array.array("q", [n % 1000] * 3), array.array("d", [0.5]), np.arange(5), np.arange(6).reshape(2, 3)[:, ::2], np.zeros(0, "u8"),
        np.zeros(3, ">i8"), np.zeros(3, "O"), np.zeros(2, [("a", "O")]), np.zeros(4, "M8[s]"), (ctypes.c_int * 4)(), io.BytesIO(b"abc"), released,
        lambda *_: 1, ..., NotImplemented, 1j, frozenset(), Exception("x"), slice(1, 2),
    ]

def of_kind(kind):
    "An argument as it should be, as a rule, if at an extreme; or anything."
    if draw.random() < 0.15: return draw.choice(values())
    n = integers()
    near = draw.choice([n, n % 300_000, n % 70_000])
    return {
        "n": near, "offset": near, "length": draw.choice([near, None, n % 5000]), "small": draw.choice([n % 70_000, 4096, 1]),
        "addr": draw.choice([address, address + near, address + n % 262_144 // 4096 * 4096, near]),
        "buffer": draw.choice([bytearray(n % 70_000), np.zeros(n % 999, "i4"), array.array("q", range(n % 9)), memoryview(bytearray(64)), draw.choice(values())]),
        "bytes": draw.choice([b"", b"x", bytes(n % 9000)]),
        "offsets": draw.choice([[], [near], [draw.randrange(260_000) for _ in range(n % 400)], np.arange(n % 300) * 800, range(n % 100), [-1], [0, n]]),
        "path": draw.choice([path, path.encode(), pathlib.Path(path), Path(path), path, "/dev/null", "/", "no/such", path + "/x", "\0", "", "x" * 5000, "\udcff"]),
        "mode": draw.choice(["rb", "r", "r+b", "x+b", "", "wb", "rb\0"]),
        "store": draw.choice([Store(), Store(), Store(), Store, object(), None]),
        "advice": draw.choice(["normal", "random", "sequential", "willneed", "dontneed", "hugepage", "", "Random"]),
        "mapped": address if draw.random() < 0.5 else mm.mmap(file), "one": draw.choice([1, 4096, 0]), "prot": draw.choice(["r", "r", "rw", "w", ""]), "bool": draw.choice([True, False, None, 3]),
        "name": draw.choice(["", "a name", "\0", "\udcff", "x" * 9999]), "io": draw.choice(["threads", "inline", "uring"]),
        "seconds": draw.choice([0, 0.01, 1e300, float("nan"), -1, float("inf"), True]),
        "capacity": draw.choice(["64KiB", "1 MiB", 4096, 4095, near, 1 << 45, 1 << 60, "9999999999999GiB", "-1", "4TiB"]),
        "locking": draw.choice(["speculative", "mmap_lock", "none"]), "around": draw.choice([4096, "64KiB", "2MiB", "3KiB", near]),
        "whence": draw.choice([0, 1, 2, 3, -1]), "cache": draw.choice([cache, cache, closed, file]), "file": draw.choice([file, stored, closed_file, cache]),
        "dtype": draw.choice(["u1", "i4", ("i4", (4,)), "M8[s]", [("a", "i8"), ("b", "f4")], "O", "", 7]),
    }[kind]

# Everything that is public, with the kinds of its arguments; those after the bar may be left out, and go by name.
CALLS = {
    "cache": "open path | mode ra_pages:n; open_store store n | name ra_pages:n timeout:seconds; stats; settle; check; reclaim n; drop_caches",
    "file": "pread n offset; preadinto buffer offset; gather offsets small | out:buffer; pin offset length; advise advice | offset length; residency | first:n count:n; "
        "filemap_fault n | speculative:bool; revalidate; truncate n; as_raw; size; name; mode; closed; readahead_state",
    "mm": "mmap file | length offset prot shared:bool; munmap addr small; mprotect mapped one prot; madvise mapped one advice; mprotect addr small prot; madvise addr small advice; load addr small; store addr bytes; fault addr | write:bool; "
        "touch addr n | stride:n write:bool; pagemap addr small; vm_events; locking",
    "raw": "read | ; readinto buffer; readall; seek offset | ; seek offset whence; tell; readable; seekable; name; mode; writable; isatty; flush; closed; truncate n; "
        "write bytes; writelines bytes; fileno",
    "pinned": "release; offset; file; released",
    "specmm": "PageCache capacity | io frame_timeout:seconds; Mm cache | locking fault_around:around; open path | mode ra_pages:n; BusError n n n; configure | capacity",
    "records": "Records file dtype | offset",
}
# No calls: classes and constants; what other names cover; lines of a raw stream, which Python reads byte by byte.
NO_CALLS = set("PAGE_SIZE Abort CacheStats ClosedError FaultOutcome File FilemapFault InvariantError OutOfFramesError Pinned ReadaheadState SegmentationError SpecmmError TouchReport "
    "VmFault __version__ close readline readlines".split())

def table():
    for thing, calls in CALLS.items():
        for text in calls.split(";"):
            needed, _, optional = text.partition("|")
            name, *needed = needed.split()
            yield thing, name, needed, [(each.split(":")[0], each.split(":")[-1]) for each in optional.split()]

TABLE = list(table())

def call():
    thing, name, needed, optional = draw.choice(TABLE)
    target = {"cache": cache, "file": writable if name == "truncate" else draw.choice([file, file, stored, writable]), "mm": mm, "raw": raw, "pinned": pinned, "specmm": specmm, "records": specmm.numpy}[thing]
    if thing == "pinned" and name == "release": target = file.pin(0, 9)
    arguments = [of_kind(kind) for kind in needed]
    if draw.random() < 0.03: arguments = arguments[1:] or [draw.choice(values())]
    named = {key: of_kind(kind) for key, kind in optional if draw.random() < 0.4}
    if draw.random() < 0.02: named["nonsense"] = 1
    try:
        method = getattr(target, name)
        answer = method(*arguments, **named) if callable(method) else repr(method)
        counts["answered"] += 1
        met.add((thing, name))
        if hasattr(answer, "close") and answer is not cache: answer.close()
    except EXPECTED as error:
        counts[type(error).__name__] = counts.get(type(error).__name__, 0) + 1

warnings.simplefilter("ignore")
counts, met = {"answered": 0}, set()
with specmm.PageCache("256KiB", frame_timeout=0.01) as cache:
    file, stored = cache.open(path), cache.open_store(Store(), 1 << 18)
    writable = cache.open(sys.argv[4], "r+b")
    closed_file = cache.open(path)
    closed_file.close()
    with specmm.PageCache("64KiB") as closed: pass
    mm = specmm.mm.Mm(cache)
    address = mm.mmap(file)
    raw, pinned = file.as_raw(), file.pin(4096, 5)
    released = memoryview(bytearray(10)); released.release()
    of = {"cache": cache, "file": file, "mm": mm, "raw": raw, "pinned": pinned}
    known = {(thing, name) for thing, name, *_ in TABLE}
    public = {(thing, name) for thing, target in of.items() for name in dir(target) if not name.startswith("_")} | {("specmm", name) for name in specmm.__all__}
    missing = {(thing, name) for thing, name in public - known if name not in NO_CALLS and not (thing == "cache" and name == "closed")}
    assert not missing, missing
    for _ in range(calls):
        call()
    mm.close()
    pinned.release()
    gc.collect()
    cache.settle()
    cache.check()
    assert file.pread(2, 4095) == b"\0\1"
# Nothing that can be answered never was, and bad arguments are met at each.
never = {(thing, name) for thing, name, *_ in TABLE} - met - {("raw", name) for name in ("truncate", "write", "writelines", "fileno")} - {("specmm", "configure")}
assert calls < 3000 or not never, never
assert counts["answered"] > calls // 5 and counts["ValueError"] > calls // 20 and counts["TypeError"] > calls // 20, counts
print("good")
"""


@pytest.mark.parametrize("part", range(3))
def test_any_call_with_any_arguments(data, part):
    seed = int(os.environ.get("SPECMM_ATTACK_SEED", time.time_ns() % 1_000_000)) + part
    print("SPECMM_ATTACK_SEED =", seed - part)
    other = data.with_name("other")
    other.write_bytes(bytes(100_000))
    assert run(HOSTILE, data, seed, 4000, other) == "good\n"


# Random calls under Ctrl-C at random moments: each ends with an answer or the interrupt, and nothing is lost with it.
INTERRUPTED = r"""
import faulthandler, os, random, signal, sys, threading, time, warnings
import specmm
# The interrupt may come before a file is closed.
warnings.simplefilter("ignore", ResourceWarning)
faulthandler.enable()
faulthandler.dump_traceback_later(50, exit=True)
path, seed, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
draw = random.Random(seed)

class Store:
    def read_at(self, offset, n):
        time.sleep(0.0005)
        return bytes(n)

def calls():
    page = draw.randrange(60)
    yield lambda: file.pread(8, page * 4096)
    yield lambda: file.pread(200_000, 0)
    yield lambda: file.gather([draw.randrange(250_000) for _ in range(500)], 8)
    yield lambda: file.pin(page * 4096, 9).release()
    yield lambda: (file.advise("dontneed"), file.advise("willneed"))
    yield lambda: stored.pread(9000, page * 4096)
    yield lambda: (stored.advise("dontneed"), stored.pread(30_000, 0))
    yield lambda: mm.touch(address, 200_000)
    yield lambda: mm.madvise(address, 200_000, "dontneed")
    yield lambda: mm.munmap(mm.mmap(stored), 1 << 18)
    yield lambda: cache.reclaim(5)
    yield lambda: (cache.drop_caches(), cache.settle())
    yield lambda: cache.open(path).close()
    yield lambda: writable.truncate(draw.randrange(100_000))
    yield lambda: specmm.PageCache("64KiB").close()

def interrupter():
    jitter = random.Random(seed + 1)
    while not stop.wait(jitter.random() * 0.004):
        os.kill(os.getpid(), signal.SIGINT)

cache = specmm.PageCache("128KiB")
file, stored, writable = cache.open(path), cache.open_store(Store(), 1 << 18), cache.open(sys.argv[4], "r+b")
mm = specmm.mm.Mm(cache)
address = mm.mmap(file)
stop, interrupts, done = threading.Event(), 0, 0
thread = threading.Thread(target=interrupter)
end = time.monotonic() + seconds
begun = False
while time.monotonic() < end:
    try:
        if not begun:
            begun = True
            thread.start()
        for call in draw.sample(list(calls()), 4):
            call()
            done += 1
    except KeyboardInterrupt:
        interrupts += 1
while thread.is_alive():
    try:
        stop.set()
        thread.join()
    except KeyboardInterrupt:
        pass
for _ in range(3):
    try:
        time.sleep(0.01)
    except KeyboardInterrupt:
        pass
mm.close()
cache.settle()
cache.check()
assert file.pread(2, 4095) == b"\0\1" and stored.pread(2, 5) == bytes(2)
cache.close()
assert interrupts > 20 and done > 20, (interrupts, done)
print("good")
"""


def test_ctrl_c_at_any_moment(data):
    seed = int(os.environ.get("SPECMM_ATTACK_SEED", time.time_ns() % 1_000_000))
    print("SPECMM_ATTACK_SEED =", seed)
    other = data.with_name("other")
    other.write_bytes(bytes(100_000))
    assert run(INTERRUPTED, data, seed, 3, other) == "good\n"
