"""What calls return: result flags, causes of abort, and records."""

from dataclasses import dataclass
from enum import Enum, IntFlag


class VmFault(IntFlag):
    """vm_fault_t, with Linux's values."""

    OOM = 0x1
    SIGBUS = 0x2
    MAJOR = 0x4
    SIGSEGV = 0x40
    NOPAGE = 0x100
    LOCKED = 0x200
    RETRY = 0x400
    DONE_COW = 0x1000


VM_FAULT_ERROR = VmFault.OOM | VmFault.SIGBUS | VmFault.SIGSEGV


class Abort(Enum):
    """Why a speculative fault gave up; each is counted as `spf_abort_<cause>`."""

    ODD = "odd"
    UNMAPPED = "unmapped"
    NO_SPECULATE = "no_speculate"
    VMA_COPY = "vma_copy"
    ACCESS_ERROR = "access_error"
    PUD = "pud"
    PMD = "pmd"
    ANON_VMA = "anon_vma"
    PTE_MAP_LOCK_SEQ1 = "pte_map_lock_seq1"
    PTE_MAP_LOCK_PMD = "pte_map_lock_pmd"
    PTE_MAP_LOCK_PTL = "pte_map_lock_ptl"
    PTE_MAP_LOCK_SEQ2 = "pte_map_lock_seq2"
    FAULT = "fault"
    PTE_CHANGED = "pte_changed"
    NO_FRAME = "no_frame"
    FILE_MISS = "file_miss"
    FILE_READAHEAD = "file_readahead"
    FILE_LOCKED = "file_locked"
    FILE_MAPPING = "file_mapping"
    FILE_NOT_UPTODATE = "file_not_uptodate"
    FILE_EOF = "file_eof"


EVENTS = (
    "pgfault",
    "pgmajfault",
    "maj_flt",
    "min_flt",
    "spf_attempt",
    "spf_commit",
    "spf_abort",
    *(f"spf_abort_{cause.value}" for cause in Abort),
    "vma_lock_success",
    "vma_lock_abort",
    "vma_lock_retry",
    "vma_lock_miss",
    "mmap_lock_read",
    "mmap_lock_write",
)


@dataclass(frozen=True)
class FilemapFault:
    """The result of `filemap_fault` alone."""

    result: VmFault
    abort: Abort | None


@dataclass(frozen=True)
class FaultOutcome:
    """One whole fault: its last result, what made speculation give up, and whether it counted as major."""

    result: VmFault
    abort: Abort | None
    major: bool


@dataclass(frozen=True)
class TouchReport:
    """How many accesses there were, and the faults among them."""

    touches: int
    faults: int
    major: int
    aborts: int


@dataclass(frozen=True)
class ReadaheadState:
    """struct file_ra_state; `prev_pos` is after the last byte read, and -1 until something has been read."""

    start: int
    size: int
    async_size: int
    ra_pages: int
    mmap_miss: int
    prev_pos: int


@dataclass(frozen=True)
class CacheStats:
    """Counters of a cache. The model never retries or waits, and has no background."""

    capacity_frames: int
    frames_in_use: int
    private_frames: int
    pinned_frames: int
    active_frames: int
    inactive_frames: int
    shadows: int
    page_tables: int
    evictions: int
    dropped: int
    invalidated: int
    refaults: int
    refaults_activated: int
    activations: int
    deactivations: int
    scanned: int
    hits: int
    misses: int
    readahead_pages: int
    reads: int
    read_bytes: int
    read_errors: int
    reads_abandoned: int
