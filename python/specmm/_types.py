"""What specmm returns: flags, causes and frozen records, built by the extension module."""

import dataclasses
import enum

from specmm import _report


class VmFault(enum.IntFlag):
    """Result of a fault, with Linux's values (`vm_fault_t`). No bit set: there was nothing to do."""

    OOM = 0x1
    SIGBUS = 0x2
    MAJOR = 0x4
    SIGSEGV = 0x40
    NOPAGE = 0x100
    LOCKED = 0x200
    RETRY = 0x400
    DONE_COW = 0x1000


class Abort(enum.Enum):
    """Why a speculative fault gave up and left the work to the locked path.

    The value is the end of the event's name: `spf_abort_odd` counts ODD.
    """

    ODD = "odd"
    """A writer was inside mmap, munmap, mprotect or madvise."""
    UNMAPPED = "unmapped"
    """Nothing is mapped at the address."""
    NO_SPECULATE = "no_speculate"
    """A write to a shared mapping, which never speculates."""
    VMA_COPY = "vma_copy"
    """A writer came while the mapping was being copied."""
    ACCESS_ERROR = "access_error"
    """The mapping does not allow the access; only the locked path may say so."""
    PUD = "pud"
    """An upper page table is missing; speculation allocates none."""
    PMD = "pmd"
    """The last-level page table is missing; speculation allocates none."""
    ANON_VMA = "anon_vma"
    """The first private copy of a mapping is prepared under the lock."""
    PTE_MAP_LOCK_SEQ1 = "pte_map_lock_seq1"
    """A writer came before the page-table lock was tried."""
    PTE_MAP_LOCK_PMD = "pte_map_lock_pmd"
    """The page table was replaced after the walk."""
    PTE_MAP_LOCK_PTL = "pte_map_lock_ptl"
    """Another thread held the page-table lock."""
    PTE_MAP_LOCK_SEQ2 = "pte_map_lock_seq2"
    """A writer came before the entry could be set."""
    FAULT = "fault"
    """A writer came before the page cache was asked."""
    PTE_CHANGED = "pte_changed"
    """The entry changed while it was being upgraded."""
    NO_FRAME = "no_frame"
    """There was no free frame for a private copy."""
    FILE_MISS = "file_miss"
    """The page is not in the cache."""
    FILE_READAHEAD = "file_readahead"
    """The page carries the marker that starts the next readahead."""
    FILE_LOCKED = "file_locked"
    """Another thread held the page lock."""
    FILE_MAPPING = "file_mapping"
    """The page was truncated or reclaimed meanwhile."""
    FILE_NOT_UPTODATE = "file_not_uptodate"
    """The page has not been read yet, or the read failed."""
    FILE_EOF = "file_eof"
    """Beyond the end of the file; only the locked path may say so."""


@dataclasses.dataclass(frozen=True, slots=True)
class FaultOutcome:
    """One fault, told step by step."""

    result: VmFault
    """Result of the last pass, with MAJOR from any pass."""
    abort: Abort | None
    """Why speculation gave up; None when it committed or was not tried."""
    major: bool
    """Whether it counts in `maj_flt`."""


@dataclasses.dataclass(frozen=True, slots=True)
class FilemapFault:
    """What `filemap_fault` alone returned."""

    result: VmFault
    abort: Abort | None


@dataclasses.dataclass(frozen=True, slots=True)
class ReadaheadState:
    """Readahead of one open file (`struct file_ra_state`), in pages except for `prev_pos`."""

    start: int
    """First page of the current window."""
    size: int
    """Pages in the current window."""
    async_size: int
    """Pages at the end of the window; reaching the first of them starts the next window."""
    ra_pages: int
    """Size of the largest window."""
    mmap_miss: int
    """Faults that missed minus faults that hit; above 100, read-around stops."""
    prev_pos: int
    """Offset after the last byte read, not counting hits; -1 before the first read."""


@dataclasses.dataclass(frozen=True, slots=True)
class TouchReport:
    """Result of many touches."""

    touches: int
    """Accesses made."""
    faults: int
    """How many of them faulted."""
    major: int
    """Faults that counted as major."""
    aborts: int
    """Faults whose speculation gave up."""


@dataclasses.dataclass(frozen=True, slots=True)
class CacheStats:
    """Counters of a cache since it was made, and gauges of what it holds now."""

    capacity_frames: int
    """The bound, in frames of one page."""
    frames_in_use: int
    """Frames that hold a page of a file or a private copy."""
    private_frames: int
    """Of these, private copies that stores to a mapping made."""
    pinned_frames: int
    """Of these, pages that are pinned and cannot be evicted."""
    active_frames: int
    """Of these, pages on the active list: used more than once."""
    inactive_frames: int
    """Of these, pages on the inactive list: evicted first."""
    shadows: int
    """Evicted pages that are remembered, to see whether they come back; never more than frames."""
    xarray_nodes: int
    """Nodes of the index from page number to page, of 576 bytes each."""
    page_tables: int
    """Page tables of all address spaces, of 4 KiB each, but for the root that each address space has."""
    bytes_in_flight: int
    """Bytes of the buffers into which windows are being read."""
    hits: int
    """Pages that a read found in the cache."""
    misses: int
    """Pages that a read had to bring in or wait for."""
    retries: int
    """Lock-free copies that met a change and started over."""
    readahead_pages: int
    """Pages that readahead brought in."""
    readahead_used: int
    """Of these, pages that were used since; use through a mapping is noticed by reclaim or munmap."""
    readahead_wasted: int
    """Of these, pages that were evicted before anybody used them."""
    evictions: int
    """Pages evicted to make room."""
    evictions_background: int
    """Of these, pages that were evicted in the background."""
    refaults: int
    """Evicted pages that were soon read again: the bound is too low for them (`workingset_refault_file`)."""
    refaults_activated: int
    """Of these, pages that came back soon enough to be active at once (`workingset_activate_file`)."""
    activations: int
    """Pages that reclaim found used again and made active (`pgactivate`)."""
    deactivations: int
    """Active pages that reclaim found unused and made inactive (`pgdeactivate`)."""
    scanned: int
    """Pages that reclaim looked at (`pgscan`)."""
    direct_reclaims: int
    """Times that a request had to make room itself (`allocstall`)."""
    frame_waits: int
    """Times that a request had to wait because nothing could be evicted."""
    dropped: int
    """Pages dropped on request: `drop_caches`, advice dontneed."""
    invalidated: int
    """Pages dropped because somebody else changed their file."""
    reads: int
    """Reads of files and stores."""
    read_bytes: int
    """Bytes that these reads returned."""
    read_errors: int
    """Of these reads, the ones that failed."""
    reads_abandoned: int
    """Reads that nobody waits for any more and that have not returned: each keeps a thread and its frames."""
    io_seconds: float
    """Time spent in reads, summed over threads."""

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return _report.stats_html(self)
