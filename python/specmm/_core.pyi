"""The extension module. Users find these names in the package itself."""

import os
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, NoReturn, Protocol, Self, SupportsIndex, TypeVar, final, overload

from _typeshed import ReadableBuffer, WriteableBuffer

from specmm._raw import RawFile
from specmm._types import CacheStats, FaultOutcome, FilemapFault, ReadaheadState, TouchReport

_Buffer = TypeVar("_Buffer", bound=WriteableBuffer)

__all__ = [
    "DEFAULT_CAPACITY",
    "DEFAULT_RA_PAGES",
    "PAGE_SIZE",
    "File",
    "Mm",
    "PageCache",
    "Pinned",
    "__version__",
    "after_fork_in_parent",
    "before_fork",
    "capacity_of",
    "check_target",
    "close_at_exit",
    "copy_into",
    "counter_glosses",
    "event_glosses",
    "kernel_residency",
    "may_stay_open",
    "open_regular",
    "parse_size",
    "resident_in",
    "rows",
    "run_faults",
    "stop_warning",
    "warn_unclosed",
    "workloads",
]

__version__: Final[str]

PAGE_SIZE: Final[int]
"""Bytes in a page."""

DEFAULT_CAPACITY: Final[int]
"""Default capacity of a cache, in bytes."""

DEFAULT_RA_PAGES: Final[int]
"""Default of a file's largest readahead window, in pages."""

def before_fork() -> None:
    """Keeps threads from attaching to the interpreter during a fork, after waiting for those that do."""

def after_fork_in_parent() -> None:
    """Tells the module that the fork is over, in the parent."""

def close_at_exit(cache: PageCache) -> None:
    """Closes a cache unless this process has only inherited it."""

def stop_warning() -> None:
    """Tells the module that this process exits or is a forked child: its files need not be closed."""

def may_stay_open(file: File) -> File:
    """Marks a file as one that nobody is expected to close, so that there is no warning, and returns it."""

def warn_unclosed(file: File, source: object) -> None:
    """Warns (ResourceWarning) that a file was never closed, if it should have been, by `source`."""

def capacity_of(file: File) -> int:
    """Capacity of a file's cache, in bytes."""

def check_target(buffer: WriteableBuffer) -> int:
    """Number of bytes that can be read into a buffer. TypeError unless `File.preadinto` accepts it."""

def copy_into(buffer: WriteableBuffer, data: ReadableBuffer) -> int:
    """Copies to the beginning of a buffer that `File.preadinto` accepts; returns how many bytes fitted.

    TypeError as `check_target`.
    """

def open_regular(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> int:
    """Opens the regular file at a path for reading, and returns its descriptor.

    OSError for anything else, naming what it is; it never blocks.
    """

def parse_size(size: int | str) -> int:
    """Number of bytes in a size: an int, or digits and B, KiB, MiB, GiB, TiB, KB, MB, GB or TB.

    ValueError for anything else, TypeError for what is neither an int nor a string.
    """

def resident_in(file: File, parts: int) -> tuple[int, list[int]]:
    """Number of pages of a file, and how many are resident in each of at most `parts` equal parts of it.

    Takes time for the pages in the cache, however long the file is. ValueError for no parts, or more than
    65,536.
    """

def workloads() -> dict[str, str]:
    """Every workload of `run_faults` and what it does."""

def rows() -> list[str]:
    """What `run_faults` can compare: "kernel", then each locking mode."""

def counter_glosses() -> dict[str, dict[str, str]]:
    """Every counter of `CacheStats` with what it counts, by what moves it."""

def event_glosses() -> dict[str, str]:
    """Every event of `Mm.vm_events` with what it counts, abort causes included."""

def run_faults(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    workload: str,
    threads: int,
    writer_rates: list[str],
    locking: list[str],
    seconds: float,
    rounds: int = 5,
    length: int | None = None,
    capacity: int | str | None = None,
    progress: Callable[[int, int, str, str], object] | None = None,
) -> dict[str, Any]:
    """Faults a file, which is only read, and returns the figures of every row at every writer rate.

    writer_rates: pairs of mmap and munmap per second, each a number or "max"; with "0" there is no writer.
    locking: some of `rows()`. seconds: warm faulting in each run, split into `rounds`, which are interleaved.
    progress: called about every 50 ms with rounds done, rounds in all, and the current row and rate.

    ValueError for arguments that cannot work; OSError and BusError for what happens to the file. An exception
    from `progress` or a signal handler ends the run and is raised here.
    """

def kernel_residency(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes], first: int = 0, count: int | None = None
) -> bytes:
    """One byte per page of a file from page `first` on, as `mincore`: 1 = in the kernel's page cache.

    count: in pages; None, or more than there are: up to the end of the file. Nothing is read. For a file that
    the caller neither owns nor may write, the kernel reports every page as cached. OSError if the file cannot
    be opened.
    """

class _Store(Protocol):
    """A source of bytes for a file. `truncate(size)` and `before_waiting()` are optional.

    Its methods are called from any thread, concurrently, and must not call the cache they serve. `read_at` is
    called by the cache's workers, or with io="inline" by the thread that needs a page. It returns exactly n
    bytes, or fewer at the store's end only, as any buffer except one of Python objects; anything else is an
    OSError that names both lengths. An exception it raises becomes the `__cause__` of an OSError; SystemExit
    and the like are raised as they are. Nobody has to wait for a read that never returns: Ctrl-C, `timeout`
    and `close` end the wait.

    `before_waiting` is called in the thread that uses the `File`, before each call that may wait (`close` and
    a short read that hits do not). An exception it raises ends that call: for stores that some threads would
    wait for in vain.
    """

    def read_at(self, offset: int, n: int, /) -> ReadableBuffer: ...

@final
class PageCache:
    """A page cache: pages of any number of files under one memory limit (`mm/filemap.c`).

    capacity: the limit, in bytes or as a size such as "64MiB"; less than a page or more than 4 TiB is a
    ValueError. Address space for all of it is reserved at once, memory is taken as it is used: MemoryError if
    the system does not have that much room.
    io: "threads" reads ahead and makes room on worker threads; "inline" does both in the caller, which is
    deterministic.
    frame_timeout: how long a request waits, in seconds, while every frame is pinned or in use, before it
    raises OutOfFramesError.

    A full cache evicts pages that have not been used for a long time (`mm/vmscan.c`).

    In a forked child it is a new, empty cache of the same capacity; the parent's is left alone. It pickles as
    its settings: from all pickles of one cache a process creates one cache, which stays until it is closed.

    Use it as a context manager, or call `close`.
    """

    def __new__(
        cls,
        capacity: int | str = "64MiB",
        *,
        io: Literal["threads", "inline"] = "threads",
        frame_timeout: float = 5.0,
    ) -> Self: ...
    def open(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        mode: str = "rb",
        *,
        ra_pages: int = 32,
    ) -> File:
        """Opens a file.

        mode: "rb" to read, "r+b" to resize as well, "w+b" to start empty, "x+b" to create; the "b" is
        optional. ra_pages: largest readahead window, in pages; 0 turns readahead off.

        If one file is opened twice in one cache, both share pages and size; each has its own readahead.
        OSError if the file cannot be opened or is not a regular file.
        """

    def open_store(
        self,
        store: _Store,
        size: int,
        *,
        name: str = "",
        ra_pages: int = 32,
        timeout: float | None = None,
    ) -> File:
        """Opens an object with `read_at(offset, n) -> bytes` as a file of `size` bytes.

        name: for messages; any str that `os.fsdecode` can return. TypeError if the object has no `read_at`.
        timeout: how long a call waits for a page, in seconds, before it raises TimeoutError, which names the
        store, the offset and the time; None: without limit. The read itself continues in the background
        (`CacheStats.reads_abandoned`). ValueError in a cache with io="inline", where the caller reads.
        """

    def stats(self) -> CacheStats:
        """Counters since the cache was created."""

    def settle(self) -> None:
        """Waits until no read is in flight, except reads of stores that have timed out."""

    def check(self) -> None:
        """Checks the cache's consistency while nothing uses it; InvariantError if something is wrong."""

    def reclaim(self, pages: int) -> int:
        """Evicts up to `pages` of the least recently used pages, mapped or not; returns how many."""

    def drop_caches(self) -> int:
        """Drops every page that is neither mapped nor in use (like vm.drop_caches); returns how many."""

    def close(self) -> None:
        """Closes the cache and its files; using them afterwards raises ClosedError. May be called twice.

        Waits for reads in flight; stores written in Python get half a second, and reads that are not complete
        by then are abandoned. Threads that wait for such a store get ClosedError at once.

        BufferError while a page is pinned: then it stays open.
        """

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""

    def _repr_html_(self) -> str:
        """What a notebook shows: the capacity, how full it is, and the counters."""

    def __reduce__(self) -> tuple[Any, ...]: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...

@final
class File:
    """A file read through a cache, from `PageCache.open` or `PageCache.open_store`.

    Any number of threads may use it at the same time. Use it as a context manager, or call `close`: dropping
    it unclosed while its cache is open is a ResourceWarning, as for Python's own files, but not for files
    that came out of a pickle, in a forked child, or at exit.

    In a forked child it is the same file, read through the inherited descriptor or the same store into the
    child's cache. A file opened by path pickles as path, mode ("r+b" for "w+b" and "x+b"), ra_pages, advice
    and cache settings, and is opened again where the pickle is loaded. A file over a store raises
    pickle.PicklingError.
    """

    @property
    def size(self) -> int:
        """Size in bytes, as of the last check: others may have changed the file since, see `revalidate`."""

    def _look(self) -> int: ...
    @property
    def name(self) -> str | bytes:
        """The path as given, a str or bytes as with Python's `open`, or the name of the store.

        It is also the `filename` of every OSError.
        """

    @property
    def mode(self) -> str:
        """ "rb", "r+b", "w+b" or "x+b"."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""

    @property
    def readahead_state(self) -> ReadaheadState:
        """Current state of readahead (`struct file_ra_state`)."""

    def close(self) -> None:
        """Closes this file; mappings of it stay valid. May be called twice.

        BufferError while pins made through it live: then it stays open.
        """

    def revalidate(self, *, drop: bool = False) -> int:
        """Checks whether others have changed the file, follows the change, and returns the size.

        If the file was changed (it is shorter, or its modification time or ctime differs), its cached pages
        are dropped, and mapped accesses past a smaller size raise BusError. If it has grown, they are kept,
        except the last, partial one. If the path names another file by now, that file is opened; if the file
        was deleted, reads continue in it. The same check, but for the path, happens without this call before
        and after each read of the file, and before a read that reaches past the known end.

        drop=True drops every cached page, whatever the check finds: for changes that leave no trace (within
        one tick of the clock) or look like an append (a rewrite that made the file longer).

        OSError if the file, or what its path names now, cannot be checked; ClosedError.
        """

    def pread(self, n: int, offset: int) -> bytes:
        """Reads `n` bytes at `offset`; fewer only at the end of the file.

        All of them come from one version of the file; appending does not count as a new version. Cached bytes
        are copied out without taking a lock. OSError if the file cannot be read, with ESTALE if others keep
        rewriting it during the read; OutOfFramesError if the cache has no room, MemoryError if the system has
        none.
        """

    def preadinto(self, buffer: WriteableBuffer, offset: int) -> int:
        """Reads into a writable, contiguous buffer of any type and shape; returns the number of bytes read.

        It accepts whatever `io.FileIO.readinto` accepts, numpy's times included, except memory that holds
        Python objects, such as numpy's dtype=object: that is a TypeError, as is a buffer that is not writable
        or not contiguous. It reads fewer bytes than fit only at the end of the file. Nobody else should touch
        the buffer meanwhile. Other errors as `pread`.
        """

    @overload
    def gather(self, offsets: Iterable[SupportsIndex] | ReadableBuffer, length: int) -> bytearray: ...
    @overload
    def gather(
        self, offsets: Iterable[SupportsIndex] | ReadableBuffer, length: int, *, out: None
    ) -> bytearray: ...
    @overload
    def gather(
        self, offsets: Iterable[SupportsIndex] | ReadableBuffer, length: int, *, out: _Buffer
    ) -> _Buffer:
        """Many reads in one call: `length` bytes at each offset, in order, one after the other.

        offsets: integers in a buffer (a numpy array of 4 or 8 byte integers needs no object for each), a
        sequence or any other iterable. out: a writable, contiguous buffer of exactly len(offsets) * length
        bytes, such as a numpy array, which is returned; None: a new bytearray.

        All rows come from one version of the file. BusError for a range past the end of the file, with the
        given offset: each is checked when it is read. ValueError for an offset that is negative or beyond
        16 TiB, or an `out` of another size. Other errors as `pread`. After an error the contents of `out` are
        unspecified.
        """

    def pin(self, offset: int, length: int) -> Pinned:
        """Pins `length` bytes at `offset`: a read-only buffer without a copy (`pin_user_pages`).

        The bytes must lie in one page; ValueError otherwise, which says how many the page has from there. A
        pin is a snapshot: whatever happens to the file, the bytes do not change while the pin or a view of it
        lives. Each pinned page keeps a frame of the cache. BusError past the end of the file or if the page
        cannot be read, OutOfFramesError if the cache has no room, MemoryError if the system has none.
        """

    def truncate(self, size: int) -> None:
        """Makes the file `size` bytes long (`truncate_pagecache`); a longer file is extended with zeros.

        Mapped accesses past the new end raise BusError. OSError if the file is open for reading only;
        io.UnsupportedOperation if its store has no `truncate`.
        """

    def advise(
        self,
        advice: Literal["normal", "random", "sequential", "willneed", "dontneed"],
        offset: int = 0,
        length: int | None = None,
    ) -> None:
        """Says how the file will be read, or that a range will be needed or not (`posix_fadvise`).

        The first three apply to the whole file. "willneed" reads at most 1 MiB per call, or the largest
        window if that is more, and no more than half a cache; call it again for what follows. length None: to
        the end.
        """

    def residency(self, first: int = 0, count: int | None = None) -> bytes:
        """One byte per page from page `first` on, as `mincore`: 1 = in the cache and up to date.

        count: in pages; None, or more than there are: up to the end of the file.
        """

    def filemap_fault(self, index: int, *, speculative: bool = True) -> FilemapFault:
        """`filemap_fault` alone: looks for the page at `index`, without a page table or an address space.

        Speculatively it returns LOCKED, or RETRY with the cause. Otherwise it reads the page if needed and
        returns LOCKED, LOCKED | MAJOR or SIGBUS; the page is unlocked before this call returns. Failures are
        returned, not raised.
        """

    def as_raw(self, *, close: bool = False) -> RawFile:
        """A read-only `io.RawIOBase` over this file, with its own position. It keeps this File alive.

        It returns and raises what `io.FileIO` does, but has no `fileno`: a client that reads from the
        descriptor would bypass the cache. close: whether closing the stream closes this File, for a client
        that gets only the stream; otherwise the File stays open.
        """

    def __array__(self, dtype: Any = None, *, copy: Any = None) -> NoReturn:
        """Raises TypeError: numpy would turn a File into an array of one object."""

    def _repr_html_(self) -> str:
        """What a notebook shows: which parts of the file are in the cache."""

    def __reduce__(self) -> tuple[Any, ...]: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...

@final
class Pinned:
    """Bytes of one page that do not change: a read-only buffer (memoryview, numpy.frombuffer).

    `File.pin` makes it. Use it as a context manager, call `release`, or drop it: views keep it alive. After a
    fork, existing views stay readable in the child, and new ones are refused.
    """

    @property
    def offset(self) -> int:
        """Offset of the bytes in the file."""

    @property
    def file(self) -> File:
        """The file that was pinned."""

    @property
    def released(self) -> bool:
        """Whether `release` was called."""

    def release(self) -> None:
        """Ends the pin; BufferError while views of it live. May be called twice."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...

@final
class Mm:
    """An address space: mappings of files, a page table and a lock (`struct mm_struct`).

    locking: "speculative" tries each fault without the lock first; "mmap_lock" takes it for each fault.
    fault_around: how much a read fault maps around its address, a power of two, in bytes or as a size; 4096
    turns it off.

    It does not survive a fork: a child creates its own. There, this one raises SpecmmError; `close` does
    nothing.

    Any number of threads may use it at the same time. Its addresses are for its own methods only. Use it as a
    context manager, or call `close`.
    """

    def __new__(
        cls,
        cache: PageCache,
        *,
        locking: Literal["speculative", "mmap_lock"] = "speculative",
        fault_around: int | str = "64KiB",
    ) -> Self: ...
    def mmap(
        self,
        f: File,
        length: int | None = None,
        offset: int = 0,
        *,
        prot: Literal["r", "rw"] = "r",
        shared: bool = True,
    ) -> int:
        """Maps `length` bytes of a file from `offset` and returns the address.

        length: rounded up to pages, may exceed the file; None: up to its end. offset: a multiple of the page
        size. prot, shared: a mapping that is both shared and writable is refused (io.UnsupportedOperation);
        what is written to a private mapping stays in the address space.
        """

    def munmap(self, addr: int, length: int) -> None:
        """Unmaps whatever is mapped in a range; ValueError if nothing is."""

    def mprotect(self, addr: int, length: int, prot: Literal["r", "rw"]) -> None:
        """Sets what accesses a mapped range allows; ValueError if part of it is not mapped."""

    def madvise(
        self,
        addr: int,
        length: int,
        advice: Literal["normal", "random", "sequential", "dontneed", "willneed"],
    ) -> None:
        """Says how a mapped range will be used (`madvise`); ValueError if part of it is not mapped.

        "dontneed" drops the entries, and private copies with them. "willneed" reads ahead for each mapping in
        the range (`madvise_willneed`), as much as `File.advise` would; if part of the range is not mapped,
        the rest is read before the ValueError. Read errors are raised when the page is accessed.
        """

    def load(self, addr: int, n: int) -> bytes:
        """Reads `n` bytes at an address as a program would, faulting where needed.

        BusError past the end of the file or if the page cannot be read, SegmentationError if there is no
        mapping or it does not allow the access, OutOfFramesError if the cache has no room, MemoryError if the
        system has none. ValueError for a range that leaves the address space, before any of it is read.
        """

    def store(self, addr: int, data: ReadableBuffer) -> None:
        """Writes bytes at an address as a program would, faulting where needed; errors as `load`.

        If it fails, the pages before the failing one have been written.
        """

    def fault(self, addr: int, *, write: bool = False) -> FaultOutcome:
        """One fault at an address (`handle_mm_fault`), step by step: failures are in `result`, not raised."""

    def touch(self, addr: int, length: int, *, stride: int = 4096, write: bool = False) -> TouchReport:
        """Accesses one byte in each `stride` of a range: many faults in one call. Errors as `load`."""

    def pagemap(self, addr: int, length: int) -> bytes:
        """One byte per page: 0 = no entry, else the sum of 1 = present, 2 = writable, 4 = private copy."""

    def vm_events(self) -> dict[str, int]:
        """Events since the address space was created, named as in /proc/vmstat; none ever decreases."""

    @property
    def locking(self) -> str:
        """How faults lock: "mmap_lock" or "speculative"."""

    def close(self) -> None:
        """Unmaps everything; using it afterwards raises ClosedError. May be called twice."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...
