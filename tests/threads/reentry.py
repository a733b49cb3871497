"""A program for test_locks.py: calls of specmm, with other calls of specmm at every place within.

A finalizer runs wherever an object is allocated, on any thread that happens to be there; a signal handler
between any two bytecodes of the main thread. Here both are brought about on purpose: `collector` sets the
garbage collector off at each allocation in turn, `bytecodes` interrupts before each bytecode of the package.
Each case runs in a child of its own; one that hangs is ended by an alarm.

    python tests/threads/reentry.py collector|bytecodes FILE
"""

import contextlib
import gc
import io
import os
import pickle
import signal
import sys
import warnings
from pathlib import Path

import specmm
from specmm import _core, _default, _pickling, _remote

PAGE = specmm.PAGE_SIZE
HANG = 10
"""Seconds after which a child is taken to hang."""
MOST = 16
"""At how many allocations of a call the collector is set off one at a time."""
UNUSED = 77
"""What a child answers whose interruption was never reached."""


class Store:
    def read_at(self, offset, n):
        return bytes(n)


class Broken:
    def read_at(self, offset, n):
        raise OSError(5, "broken")


class World:
    """What the calls work on; what they call from within has the same."""

    def __init__(self, path):
        self.path = path
        self.cache = specmm.PageCache("1MiB")
        self.file = self.cache.open(path)
        self.store = self.cache.open_store(Store(), 1 << 20)
        self.broken = self.cache.open_store(Broken(), 1 << 20)
        self.closed = self.cache.open(path)
        self.closed.close()
        self.pin = self.file.pin(0, 10)
        self.mm = specmm.mm.Mm(self.cache)
        self.at = self.mm.mmap(self.file, 4 * PAGE, prot="rw", shared=False)
        self.raw = self.file.as_raw()
        self.pickle = pickle.dumps(self.file)


def files(world):
    with specmm.PageCache("64KiB") as cache, cache.open(world.path) as file:
        file.pread(100, 0)


def attributes(world):
    file = world.file
    return file.size, file.name, file.mode, file.closed, file.readahead_state, repr(file), file.revalidate()


def gather(world):
    world.file.gather([0, 3 * PAGE], 8)
    world.file.gather([9], 8, out=bytearray(8))


def pins(world):
    with world.file.pin(PAGE, 10) as pin:
        bytes(pin)
    # A view that is to be written to is refused, while it is being made.
    with contextlib.suppress(BufferError, TypeError):
        io.BytesIO(bytes(20)).readinto(world.pin)
    view = memoryview(world.pin)
    with contextlib.suppress(BufferError):
        world.pin.release()
    return view


def stream(world):
    # It is never closed.
    world.cache.open(world.path).as_raw(close=True).read(1)
    world.raw.seek(0)
    return world.raw.read(10), world.raw.readall(), world.raw.readinto(bytearray(5)), world.raw.tell()


def mappings(world):
    with specmm.mm.Mm(world.cache, locking="mmap_lock") as mm:
        at = mm.mmap(world.file, 4 * PAGE)
        mm.load(at, 2 * PAGE)
        mm.fault(at + PAGE)
        mm.mprotect(at, PAGE, "r")
        mm.madvise(at, PAGE, "dontneed")
        mm.madvise(at, 4 * PAGE, "willneed")
        mm.touch(at, 4 * PAGE)
        mm.pagemap(at, 4 * PAGE)
        mm.munmap(at, 2 * PAGE)
        mm.vm_events()


def default(world):
    with contextlib.suppress(specmm.SpecmmError):
        specmm.configure(capacity="2MiB")
    with specmm.open(world.path) as file:
        file.pread(1, 0)
    assert _default.is_default(_default.default_cache())


def remote(world):
    file, _ = _remote.open_object(world.cache, "key", 1, 100, Store(), name="object", ra_pages=0)
    file.pread(1, 0)
    newer, _ = _remote.open_object(world.cache, "key", 2, 100, Store(), name="object", ra_pages=0)
    newer.pread(1, 0)


def named(world):
    cache = _pickling.cache_named("name", 1 << 20, "inline", 1.0)
    assert cache is _pickling.cache_named("name", 1 << 20, "inline", 1.0)


def reports(world):
    return world.file._repr_html_(), world.cache._repr_html_(), world.cache.stats()._repr_html_()


def errors(world):
    for fails in (
        lambda: world.closed.pread(1, 0),
        lambda: world.closed.as_raw(),
        lambda: world.broken.pread(1, 0),
        lambda: world.file.gather([1 << 30], 1),
        lambda: world.file.preadinto(b"", 0),
        lambda: world.file.pin(0, 1 << 20),
        lambda: world.mm.load(world.at + (1 << 40), 1),
        lambda: world.cache.open("/nowhere"),
        lambda: world.cache.open(world.path, "z"),
        lambda: world.cache.open_store(None, 1),
        lambda: pickle.dumps(world.store),
        lambda: specmm.PageCache(-1),
        lambda: specmm.configure(capacity="much"),
        lambda: _core.kernel_residency("/nowhere"),
    ):
        with contextlib.suppress(specmm.SpecmmError, OSError, ValueError, TypeError, pickle.PicklingError):
            fails()


def upkeep(world):
    world.cache.settle()
    world.cache.reclaim(1)
    world.cache.drop_caches()
    world.cache.check()
    world.file.advise("willneed")
    world.file.advise("dontneed")


CALLS = {
    "files": files,
    "attributes": attributes,
    "hit": lambda world: world.file.pread(10, 0),
    "miss": lambda world: world.file.pread(10, 9 * PAGE),
    "long": lambda world: world.store.pread(1 << 20, 0),
    "preadinto": lambda world: world.file.preadinto(bytearray(2 * PAGE), 0),
    "gather": gather,
    "pins": pins,
    "residency": lambda world: (world.file.residency(), world.file.filemap_fault(0)),
    "stream": stream,
    "mappings": mappings,
    "store": lambda world: world.mm.store(world.at, b"bytes"),
    "stats": lambda world: world.cache.stats(),
    "upkeep": upkeep,
    "default": default,
    "remote": remote,
    "named": named,
    "pickle": lambda world: pickle.loads(pickle.dumps(world.file)).pread(1, 0),
    "unpickle": lambda world: pickle.loads(world.pickle).pread(1, 0),
    "reports": reports,
    "errors": errors,
    "end of files": lambda world: world.cache.open(world.path).pread(1, 0),
    "close": lambda world: (world.pin.release(), world.mm.close(), world.file.close(), world.cache.close()),
}


def quietly(call, world):
    """A call that may fail, when another has closed what it works on; but neither panic nor assert."""
    try:
        call(world)
    except (specmm.SpecmmError, OSError, ValueError, BufferError):
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(3)


class Cycle:
    """Garbage that only the collector frees; `ends` is called then."""

    def __init__(self, ends):
        self.me, self.ends = self, ends

    def __del__(self):
        self.ends()


def collected(call, within, world, threshold):
    """The `threshold`-th allocation from here sets the collector off; none: all of them do."""
    reached = []

    def ends():
        reached.append(1)
        if threshold is None and len(reached) < 1000:
            gc.disable()
            quietly(within, world)
            Cycle(ends)
            gc.enable()
        else:
            quietly(within, world)

    gc.collect()
    gc.disable()
    Cycle(ends)
    gc.set_threshold(threshold or 1)
    gc.enable()
    quietly(call, world)
    gc.disable()
    return bool(reached)


def interrupted(call, within, world):
    """Before every bytecode of the package comes another call, as by a signal handler."""
    package = str(Path(specmm.__file__).parent)
    reached = []

    def trace(frame, event, _argument):
        if not frame.f_code.co_filename.startswith(package):
            return None
        frame.f_trace_opcodes = True
        # Some versions of 3.12 tell of lines only.
        if event in ("opcode", "line"):
            reached.append(1)
            sys.settrace(None)
            quietly(within, world)
            sys.settrace(trace)
        return trace

    sys.settrace(trace)
    quietly(call, world)
    sys.settrace(None)
    return bool(reached)


def child(path, run, *arguments):
    """What became of a child: None if all is well."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(HANG)
        world = World(path)
        reached = run(*arguments[:2], world, *arguments[2:])
        world.cache.settle()
        world.cache.check()
        os._exit(0 if reached else UNUSED)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        died = signal.Signals(os.WTERMSIG(status)).name
        return "hangs" if died == "SIGALRM" else died
    return None if status == 0 else os.WEXITSTATUS(status)


def main(mode, path):
    warnings.simplefilter("ignore", DeprecationWarning)
    # Files that are never closed run code of Python's where they end.
    warnings.simplefilter("always", ResourceWarning)
    warnings.showwarning = lambda *_told, **_named: None
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    bad = reached = 0
    others = list(CALLS.values())
    for number, (name, call) in enumerate(CALLS.items()):
        if mode == "bytecodes":
            cases = [(interrupted, call, others[(number + turn) % len(others)]) for turn in range(0, 24, 3)]
        else:
            cases = [(collected, call, within, None) for within in others[number % 8 :: 8]]
            cases += [(collected, call, others[(number + at) % len(others)], at) for at in range(1, MOST)]
        for run, *arguments in cases:
            outcome = child(path, run, *arguments)
            if outcome == UNUSED:
                # Later allocations there are none.
                if mode == "collector":
                    break
                continue
            reached += 1
            if outcome is not None:
                within = next(other for other in CALLS if CALLS[other] is arguments[1])
                print(f"{name}, {within} within, {arguments[2:]}: {outcome}", flush=True)
                bad += 1
    print(f"{reached} cases")
    return bad


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) > 0)
