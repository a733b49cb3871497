//! Where threads fault: the few operations that a workload needs of an address space, and specmm's implementation.

use crate::PAGE_SIZE;
use crate::cache::{File, PageCache};
use crate::error::Result;
use crate::mm::{Locking, Madvise, Mm, MmOptions, Prot};
use std::path::Path;

/// How a range of the file is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Shared, for loads.
    SharedRead,
    /// Private, for loads and stores.
    PrivateWrite,
}

/// An address space over one file.
pub(super) trait Space: Sync {
    /// A mapping; to be returned with [`Space::unmap`].
    type Mapping: Send + Sync;

    /// Maps `length` bytes of the file from `offset`.
    fn map(&self, offset: u64, length: u64, kind: Kind) -> Result<Self::Mapping>;

    fn unmap(&self, mapping: Self::Mapping) -> Result<()>;

    /// Zaps the entries of a part of a mapping.
    fn zap(&self, mapping: &Self::Mapping, offset: u64, length: u64) -> Result<()>;

    /// Loads the byte at `offset` of a mapping, with `write` stores it back, and returns how many faults that took: 0 if the
    /// space cannot tell.
    fn touch(&self, mapping: &Self::Mapping, offset: u64, write: bool) -> Result<u64>;

    /// The faults of the calling thread so far, for a space whose `touch` cannot tell.
    fn faults_of_this_thread(&self) -> u64 {
        0
    }
}

/// One address space of specmm.
pub(super) struct Specmm {
    pub(super) mm: Mm,
    file: File,
}

pub(super) struct Range {
    address: u64,
    length: u64,
}

impl Specmm {
    pub(super) fn new(cache: &PageCache, path: &Path, locking: Locking) -> Result<Self> {
        let file = cache.open(path)?;
        let mm = Mm::new(cache, MmOptions::default().locking(locking))?;
        Ok(Self { mm, file })
    }

    /// Unmaps what an early end left, and releases the file's pages.
    pub(super) fn close(self) -> Result<()> {
        self.mm.close()?;
        self.file.close()
    }
}

impl Space for Specmm {
    type Mapping = Range;

    fn map(&self, offset: u64, length: u64, kind: Kind) -> Result<Range> {
        let (prot, shared) = match kind {
            Kind::SharedRead => (Prot::Read, true),
            Kind::PrivateWrite => (Prot::ReadWrite, false),
        };
        let address = self.mm.mmap(&self.file, Some(length), offset, prot, shared)?;
        Ok(Range { address, length })
    }

    fn unmap(&self, mapping: Range) -> Result<()> {
        self.mm.munmap(mapping.address, mapping.length)
    }

    fn zap(&self, mapping: &Range, offset: u64, length: u64) -> Result<()> {
        self.mm.madvise(mapping.address + offset, length, Madvise::DontNeed)
    }

    #[inline]
    fn touch(&self, mapping: &Range, offset: u64, write: bool) -> Result<u64> {
        Ok(self.mm.touch(mapping.address + offset, 1, PAGE_SIZE as u64, write)?.faults)
    }
}
