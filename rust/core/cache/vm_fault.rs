//! The result of a fault, `vm_fault_t`, and the reasons why a speculative attempt aborts.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// The result bits of a fault, with Linux's values.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct VmFault(u32);

impl VmFault {
    /// No bit set: the entry was already present, or is now.
    pub const NONE: Self = Self(0);
    /// There was no frame.
    pub const OOM: Self = Self(0x1);
    /// Past the end of the file, or the page cannot be read.
    pub const SIGBUS: Self = Self(0x2);
    /// The page was not in the cache.
    pub const MAJOR: Self = Self(0x4);
    /// No mapping allows the access.
    pub const SIGSEGV: Self = Self(0x40);
    /// The entry was set by the callee or by a concurrent fault on the same page; the caller keeps no page.
    pub const NOPAGE: Self = Self(0x100);
    /// The page was returned locked.
    pub const LOCKED: Self = Self(0x200);
    /// Classic: the lock was dropped, try again. Speculative: aborted, nothing was changed.
    pub const RETRY: Self = Self(0x400);
    /// A private copy was made.
    pub const DONE_COW: Self = Self(0x1000);
    /// All bits with which a fault fails.
    pub const ERROR: Self = Self(Self::OOM.0 | Self::SIGBUS.0 | Self::SIGSEGV.0);

    /// The bits as a number.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether any bit of `other` is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for VmFault {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for VmFault {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for VmFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(VmFault, &str); 8] = [
            (VmFault::OOM, "OOM"),
            (VmFault::SIGBUS, "SIGBUS"),
            (VmFault::MAJOR, "MAJOR"),
            (VmFault::SIGSEGV, "SIGSEGV"),
            (VmFault::NOPAGE, "NOPAGE"),
            (VmFault::LOCKED, "LOCKED"),
            (VmFault::RETRY, "RETRY"),
            (VmFault::DONE_COW, "DONE_COW"),
        ];
        let names: Vec<_> = NAMES.iter().filter(|(bit, _)| self.has(*bit)).map(|(_, name)| *name).collect();
        write!(f, "VmFault({})", if names.is_empty() { "0".into() } else { names.join("|") })
    }
}

// One row per reason: the variant, its name, its counter, its meaning. A test compares `specmm._types.Abort` with it.
macro_rules! aborts {
    ($($variant:ident $name:literal $event:literal $doc:literal,)*) => {
        /// Why a speculative attempt aborted. The classic path then serves the fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Abort {
            $(#[doc = $doc] $variant,)*
        }

        impl Abort {
            /// All reasons, in the order in which an attempt can meet them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in upper case, as in `SPF_ABORT_…` of the series.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The counter's name.
            #[must_use]
            pub const fn event(self) -> &'static str {
                match self { $(Self::$variant => $event),* }
            }

            /// Its meaning, in one sentence.
            #[must_use]
            pub const fn gloss(self) -> &'static str {
                match self { $(Self::$variant => $doc),* }
            }
        }
    };
}

aborts! {
    Odd "ODD" "spf_abort_odd" "A writer was inside mmap, munmap, mprotect or madvise.",
    Unmapped "UNMAPPED" "spf_abort_unmapped" "Nothing is mapped at the address.",
    NoSpeculate "NO_SPECULATE" "spf_abort_no_speculate" "A write to a shared mapping, which never speculates.",
    VmaCopy "VMA_COPY" "spf_abort_vma_copy" "A writer came while the mapping was being copied.",
    AccessError "ACCESS_ERROR" "spf_abort_access_error" "The mapping does not allow the access; only the locked path may say so.",
    Pud "PUD" "spf_abort_pud" "An upper page table is missing; speculation allocates none.",
    Pmd "PMD" "spf_abort_pmd" "The last-level page table is missing; speculation allocates none.",
    AnonVma "ANON_VMA" "spf_abort_anon_vma" "The first private copy of a mapping is prepared under the lock.",
    PteMapLockSeq1 "PTE_MAP_LOCK_SEQ1" "spf_abort_pte_map_lock_seq1" "A writer came before the page-table lock was tried.",
    PteMapLockPmd "PTE_MAP_LOCK_PMD" "spf_abort_pte_map_lock_pmd" "The page table was replaced after the walk.",
    PteMapLockPtl "PTE_MAP_LOCK_PTL" "spf_abort_pte_map_lock_ptl" "Another thread held the page-table lock.",
    PteMapLockSeq2 "PTE_MAP_LOCK_SEQ2" "spf_abort_pte_map_lock_seq2" "A writer came before the entry could be set.",
    Fault "FAULT" "spf_abort_fault" "A writer came before the page cache was asked.",
    PteChanged "PTE_CHANGED" "spf_abort_pte_changed" "The entry changed while it was being upgraded.",
    NoFrame "NO_FRAME" "spf_abort_no_frame" "There was no free frame for a private copy.",
    FileMiss "FILE_MISS" "spf_abort_file_miss" "The page is not in the cache.",
    FileReadahead "FILE_READAHEAD" "spf_abort_file_readahead" "The page carries the marker that starts the next readahead.",
    FileLocked "FILE_LOCKED" "spf_abort_file_locked" "Another thread held the page lock.",
    FileMapping "FILE_MAPPING" "spf_abort_file_mapping" "The page was truncated or reclaimed meanwhile.",
    FileNotUptodate "FILE_NOT_UPTODATE" "spf_abort_file_not_uptodate" "The page has not been read yet, or the read failed.",
    FileEof "FILE_EOF" "spf_abort_file_eof" "Beyond the end of the file; only the locked path may say so.",
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
