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
"""Bytes of a cache for which no capacity is given."""

DEFAULT_RA_PAGES: Final[int]
"""The largest readahead window of a file for which none is given, in pages."""

def before_fork() -> None:
    """Keeps threads from becoming known to the interpreter during a fork, after waiting for those that do."""

def after_fork_in_parent() -> None:
    """Says that the fork is over, in the parent."""

def close_at_exit(cache: PageCache) -> None:
    """Closes a cache unless this process has only inherited it."""

def stop_warning() -> None:
    """Says that this process exits, or is a child of a fork: its files need not be closed."""

def may_stay_open(file: File) -> File:
    """Says that nobody is expected to close a file, so that there is no warning, and answers it."""

def warn_unclosed(file: File, source: object) -> None:
    """Warns (ResourceWarning) that a file was never closed, if it should have been, by `source`."""

def capacity_of(file: File) -> int:
    """Bytes that the cache of a file holds at most."""

def check_target(buffer: WriteableBuffer) -> int:
    """How many bytes of a file may be read into a buffer. TypeError unless `File.preadinto` fills it."""

def copy_into(buffer: WriteableBuffer, data: ReadableBuffer) -> int:
    """Copies to the beginning of a buffer that `File.preadinto` fills; returns how many bytes fitted.

    TypeError as `check_target`.
    """

def open_regular(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> int:
    """Opens the regular file that a path names to read, and answers the descriptor.

    OSError for anything else, naming what it is; nothing is waited for.
    """

def parse_size(size: int | str) -> int:
    """Number of bytes in a size: an int, or digits and B, KiB, MiB, GiB, TiB, KB, MB, GB or TB.

    ValueError for anything else, TypeError for what is neither an int nor a string.
    """

def resident_in(file: File, parts: int) -> tuple[int, list[int]]:
    """Pages of a file, and in each of at most `parts` equal parts of it how many are resident.

    Takes as long as there are pages in the cache, however long the file is. ValueError for no parts, or more
    than 65,536.
    """

def workloads() -> dict[str, str]:
    """Every workload of `run_faults` with what it does."""

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
    """Faults a file, which is only read, and answers with the figures of every row at every writer rate.

    writer_rates: pairs of mmap and munmap a second, each a number or "max"; at "0" there is no writer.
    locking: of `rows()`. seconds: of warm faulting in each run, split into `rounds`, which are interleaved.
    progress: called about every 50 ms with rounds done, rounds in all, the row and the rate of now.

    ValueError for what cannot work, OSError and BusError for what the file may do; what `progress` or a
    signal handler raises ends the run and is raised here.
    """

def kernel_residency(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes], first: int = 0, count: int | None = None
) -> bytes:
    """One byte a page of a file from page `first` on, as `mincore`: 1 = in the kernel's own page cache.

    count: in pages; None, or more than there are: up to the end of the file. Nothing is read. Of a file that
    the caller neither owns nor may write, the kernel says that every page is there. OSError when the file
    cannot be opened.
    """

class _Store(Protocol):
    """Where the bytes of a file may live. `truncate(size)` and `before_waiting()` are optional.

    Its methods are called from any thread, concurrently, and must not call the cache they serve. `read_at` is
    called by workers of the cache, or with io="inline" by whoever needs a page. It returns exactly n bytes,
    fewer at the store's end only, as any buffer but one of Python objects; anything else is an OSError that
    names both lengths. What it raises is the `__cause__` of an OSError; SystemExit and the like are raised as
    they are. A read that never returns keeps nobody who does not want to wait: Ctrl-C, `timeout` and `close`
    end the wait.

    `before_waiting` is called in whoever uses the `File`, before a call that may wait (a short read that hits
    is none, close is none). What it raises ends that call: for a store that some threads would wait for in
    vain.
    """

    def read_at(self, offset: int, n: int, /) -> ReadableBuffer: ...

@final
class PageCache:
    """Pages of many files in a bounded number of frames (`mm/filemap.c`).

    capacity: the bound, in bytes or as a size such as "64MiB"; less than a page or more than 4 TiB is a
    ValueError. Address space for all of it is taken now, memory as it is used: MemoryError for more than the
    system has room for.
    io: "threads" reads ahead and makes room on workers; "inline" does all that in the caller, which is
    deterministic.
    frame_timeout: seconds that a request waits when every frame is pinned or in use, before it raises
    OutOfFramesError.

    A full cache evicts what was not used for longest (`mm/vmscan.c`).

    In a child of fork it is a new, empty cache of the same capacity; the parent's is left alone. It pickles
    as its settings: of all pickles of one cache a process makes one cache, which stays until it is closed.

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

        mode: "rb" to read, "r+b" to resize as well, "w+b" to start empty, "x+b" to create; "b" may be left
        out. ra_pages: largest readahead window, in pages; 0 turns readahead off.

        Two opens of one file in one cache share pages and size; each has readahead of its own. OSError when
        the file cannot be opened, directories included.
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

        name: for messages; any str that `os.fsdecode` may give. TypeError when the object has no `read_at`.
        timeout: seconds that a call waits for a page before it raises TimeoutError, which names the store,
        the offset and the time; None: for ever. The read goes on by itself (`CacheStats.reads_abandoned`).
        ValueError in a cache with io="inline", where the caller reads.
        """

    def stats(self) -> CacheStats:
        """Counters since the cache was made."""

    def settle(self) -> None:
        """Waits until no read is in flight, but those of stores whose timeout is over."""

    def check(self) -> None:
        """Audits the cache against itself while nothing uses it; InvariantError when something is wrong."""

    def reclaim(self, pages: int) -> int:
        """Evicts up to `pages` pages that were not used for longest, mapped or not; returns how many went."""

    def drop_caches(self) -> int:
        """Drops every page that is not mapped or in use (as vm.drop_caches); returns their number."""

    def close(self) -> None:
        """Closes the cache and its files; using them from then on is a ClosedError. Twice is no error.

        Reads in flight are waited for; stores written in Python are given half a second, and what they have
        not read by then is abandoned. Threads that wait for such a store get the ClosedError at once.

        BufferError while a page is pinned: then it stays open.
        """

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""

    def _repr_html_(self) -> str:
        """What a notebook shows: the bound and how full it is, and the counters."""

    def __reduce__(self) -> tuple[Any, ...]: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...

@final
class File:
    """A file whose pages are in a cache. `PageCache.open` and `PageCache.open_store` make it.

    Any number of threads may use it at a time. Use it as a context manager, or call `close`: one that goes
    without, while its cache is open, is a ResourceWarning, as of Python's own files. There is none of files
    that came out of a pickle, nor in a child of fork, nor at exit.

    In a child of fork it is the same file, read through the descriptor that was inherited, or through the
    same store, into the child's cache. A file that was opened by its path pickles as path, mode ("r+b" for
    "w+b" and "x+b"), ra_pages, advice and cache, and is opened again where the pickle is loaded. Over a
    store it is a pickle.PicklingError.
    """

    @property
    def size(self) -> int:
        """Size in bytes, as of the last look: others may have changed the file, see `revalidate`."""

    def _look(self) -> int: ...
    @property
    def name(self) -> str | bytes:
        """The path as given, a str or bytes as for Python's `open`, or the name of the store.

        It is the `filename` of every OSError, too.
        """

    @property
    def mode(self) -> str:
        """ "rb", "r+b", "w+b" or "x+b"."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""

    @property
    def readahead_state(self) -> ReadaheadState:
        """Where readahead stands (`struct file_ra_state`)."""

    def close(self) -> None:
        """Closes this file; mappings of it live on. Twice is no error.

        BufferError while pins made through it live: then it stays open.
        """

    def revalidate(self, *, drop: bool = False) -> int:
        """Looks whether others have changed the file, follows, and returns the size.

        A file that was changed (it is shorter, or its modification time or ctime differs) loses its cached
        pages, and mapped accesses past a smaller size raise BusError. One that has grown keeps them, but for
        the last, partial one. A path that names another file by now is opened anew; a file that was deleted
        is read on. All but the path is looked at without being asked: before and after each read of the file,
        and before a read that reaches past the known end.

        `drop=True` drops every cached page, whatever the look says: for changes that leave no trace (one
        within a tick of the clock) or look like growth (a rewrite that made the file longer).

        OSError when the file, or what its path names now, cannot be looked at; ClosedError.
        """

    def pread(self, n: int, offset: int) -> bytes:
        """Reads `n` bytes at `offset`; fewer at the end of the file only.

        All of them are of one version of the file, appended bytes apart. What is in the cache is copied out
        without a lock. OSError when the file cannot be read, with ESTALE when others rewrite it time and
        again while it is read; OutOfFramesError when the cache has no room, MemoryError when the system has
        none.
        """

    def preadinto(self, buffer: WriteableBuffer, offset: int) -> int:
        """Reads into a writable, contiguous buffer of any type and shape; returns the number of bytes read.

        It fills whatever `io.FileIO.readinto` fills, numpy's times included, but for memory of Python
        objects, such as numpy's dtype=object: a TypeError, as for a buffer that is not writable or not
        contiguous. Fewer bytes than fit at the end of the file only. Nobody else should touch the buffer
        meanwhile. Other errors as `pread`.
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

        offsets: integers in a buffer (a numpy array of 4 or 8 byte integers is taken without an object for
        each), a sequence or any other iterable. out: a writable, contiguous buffer of exactly
        len(offsets) * length bytes, such as a numpy array, which is returned; None: a fresh bytearray.

        All rows are of one version of the file. BusError for a range past the end of the file, with the
        offset that was given: each is judged when it is read. ValueError for an offset that is negative or
        beyond 16 TiB, or an `out` of another size. Otherwise errors as `pread`. After an
        error it is not said what `out` holds.
        """

    def pin(self, offset: int, length: int) -> Pinned:
        """Pins `length` bytes at `offset`: a read-only buffer without a copy (`pin_user_pages`).

        The bytes must lie in one page: more is a ValueError that says how many it has from there. It is a
        snapshot: whatever becomes of the file, they do not change while the pin or a view of it lives. Each
        pinned page holds a frame of the cache. BusError past the end of the file or when the page cannot be
        read, OutOfFramesError when the cache has no room, MemoryError when the system has none.
        """

    def truncate(self, size: int) -> None:
        """Makes the file `size` bytes long (`truncate_pagecache`); what a longer file gains reads as zeros.

        Mapped accesses past the new end raise BusError. OSError when the file is open to read only;
        io.UnsupportedOperation when its store has no `truncate`.
        """

    def advise(
        self,
        advice: Literal["normal", "random", "sequential", "willneed", "dontneed"],
        offset: int = 0,
        length: int | None = None,
    ) -> None:
        """Says how the file will be read, or that a range will be needed or not (`posix_fadvise`).

        The first three are for the whole file. "willneed" reads at most 1 MiB a call, or the largest window
        if that is more, and no more than half a cache; ask again for what follows. length None: to the end.
        """

    def residency(self, first: int = 0, count: int | None = None) -> bytes:
        """One byte a page from page `first` on, as `mincore`: 1 = in the cache and up to date.

        count: in pages; None, or more than there are: up to the end of the file.
        """

    def filemap_fault(self, index: int, *, speculative: bool = True) -> FilemapFault:
        """`filemap_fault` alone: looks for the page at `index`, without a page table or an address space.

        Speculatively it answers LOCKED, or RETRY with the cause. Otherwise it reads the page in where needed
        and answers LOCKED, LOCKED | MAJOR or SIGBUS; the page is unlocked before it returns. A failure stands
        in the answer.
        """

    def as_raw(self, *, close: bool = False) -> RawFile:
        """A read-only `io.RawIOBase` over this file, with a position of its own. It keeps this File alive.

        It answers and raises as `io.FileIO` does, but has no `fileno`: a client that reads the descriptor
        would bypass the cache. close: whether closing the stream closes this File, for a client that is given
        nothing but the stream; otherwise the File stays open.
        """

    def __array__(self, dtype: Any = None, *, copy: Any = None) -> NoReturn:
        """Raises TypeError: of a File numpy would make an array of one object."""

    def _repr_html_(self) -> str:
        """What a notebook shows: which parts of the file are in the cache."""

    def __reduce__(self) -> tuple[Any, ...]: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...

@final
class Pinned:
    """Bytes of one page that stay what they are: a read-only buffer (memoryview, numpy.frombuffer).

    `File.pin` makes it. Use it as a context manager, or call `release`, or let it go: views keep it alive.
    After fork its views stay readable in the child, and new ones are refused.
    """

    @property
    def offset(self) -> int:
        """Where the bytes begin in the file."""

    @property
    def file(self) -> File:
        """The file that was pinned."""

    @property
    def released(self) -> bool:
        """Whether `release` was called."""

    def release(self) -> None:
        """Ends the pin; BufferError while views of it live. Twice is no error."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...

@final
class Mm:
    """An address space: mappings of files, a page table and a lock (`struct mm_struct`).

    locking: "speculative" tries each fault without the lock first; "mmap_lock" takes it for each fault.
    fault_around: how much a read fault maps around its address: a power of two, in bytes or as a size; 4096
    turns it off.

    It does not survive fork: a child makes its own. There this one raises SpecmmError; `close` does nothing.

    Any number of threads may use it at a time. Addresses are its own: only its methods know them. Use it as a
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
        size. prot, shared: shared and writable at once is refused (io.UnsupportedOperation); what is written
        to a private mapping stays in the address space.
        """

    def munmap(self, addr: int, length: int) -> None:
        """Takes away whatever is mapped in a range; ValueError when nothing is."""

    def mprotect(self, addr: int, length: int, prot: Literal["r", "rw"]) -> None:
        """Sets what a mapped range allows; ValueError when part of it is not mapped."""

    def madvise(
        self,
        addr: int,
        length: int,
        advice: Literal["normal", "random", "sequential", "dontneed", "willneed"],
    ) -> None:
        """Says how a mapped range will be used (`madvise`); ValueError when part of it is not mapped.

        "dontneed" drops the entries and with them private copies. "willneed" reads ahead what each mapping
        of the range shows (`madvise_willneed`), as much of it as `File.advise` would; where part of the range
        is not mapped, the rest is read before the ValueError. What cannot be read is told to who accesses it.
        """

    def load(self, addr: int, n: int) -> bytes:
        """Reads `n` bytes at an address as a program would, faulting where needed.

        BusError past the end of the file or when the page cannot be read, SegmentationError where the mapping
        does not allow it or none is there, OutOfFramesError when the cache has no room, MemoryError when the
        system has none. ValueError for a range that leaves the address space, before anything of it is read.
        """

    def store(self, addr: int, data: ReadableBuffer) -> None:
        """Writes bytes at an address as a program would, faulting where needed; errors as `load`.

        When it fails, the pages before the one that failed are written.
        """

    def fault(self, addr: int, *, write: bool = False) -> FaultOutcome:
        """One fault at an address (`handle_mm_fault`), told step by step: what fails stands in `result`."""

    def touch(self, addr: int, length: int, *, stride: int = 4096, write: bool = False) -> TouchReport:
        """Accesses one byte in each `stride` of a range: many faults in one call. Errors as `load`."""

    def pagemap(self, addr: int, length: int) -> bytes:
        """One byte a page: 0 = no entry, else the sum of 1 = present, 2 = writable, 4 = private copy."""

    def vm_events(self) -> dict[str, int]:
        """Events since the address space was made, named as in /proc/vmstat; all present, none ever falls."""

    @property
    def locking(self) -> str:
        """How faults lock: "mmap_lock" or "speculative"."""

    def close(self) -> None:
        """Unmaps everything; what is asked from then on is a ClosedError. Twice is no error."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...
