//! Changing the mappings: mmap, munmap, mprotect, madvise.
//!
//! Owns: the order of each change. Mirrors `mm/mmap.c`, `mm/mprotect.c` and `mm/madvise.c`. Every change of the array is made
//! under the mmap lock held for writing, inside an odd sequence. munmap detaches first, then downgrades (the sequence
//! becomes even: a fault that starts now does not find the mapping), then clears the entries under the read lock, frees
//! tables, and waits a grace period before it returns.

use super::mmap_lock::{MmapRead, MmapWrite};
use super::page_table::{Owner, TASK_SIZE};
use super::vma::{VmFlags, Vma};
use super::{Mm, MmInner};
use crate::cache::will_need;
use crate::cache::{File, MmuGather};
use crate::error::{Error, Result};
use crate::page::PAGE_SIZE;
use crate::reserve;
use crate::sync::{duty, in_order, operation, seeded};
use std::str::FromStr;
use std::sync::Arc;

/// With more mappings than this, a replaced array is not left for a later grace period.
const MANY: usize = 1024;

/// The lowest address that mmap hands out (`mmap_min_addr`).
const MMAP_MIN: u64 = if cfg!(any(specmm_loom, specmm_shuttle)) { 0 } else { 0x1_0000 };

/// What a mapping allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prot {
    /// Loads.
    Read,
    /// Loads and stores.
    ReadWrite,
}

impl FromStr for Prot {
    type Err = Error;
    fn from_str(prot: &str) -> Result<Self> {
        match prot {
            "r" => Ok(Self::Read),
            "rw" => Ok(Self::ReadWrite),
            _ => Err(Error::InvalidArgument(format!("prot {prot:?} is not one of r, rw"))),
        }
    }
}

/// What a program says about future accesses to a range (madvise(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Madvise {
    /// Readahead as usual.
    Normal,
    /// No readahead.
    Random,
    /// Readahead from each fault on.
    Sequential,
    /// Drop the entries, private copies included. The page cache keeps its pages.
    DontNeed,
    /// Read what the range maps now (`madvise_willneed`), for each mapping at most as much as
    /// [`Advice::WillNeed`](crate::Advice::WillNeed) reads per call.
    WillNeed,
}

impl FromStr for Madvise {
    type Err = Error;
    fn from_str(advice: &str) -> Result<Self> {
        match advice {
            "normal" => Ok(Self::Normal),
            "random" => Ok(Self::Random),
            "sequential" => Ok(Self::Sequential),
            "dontneed" => Ok(Self::DontNeed),
            "willneed" => Ok(Self::WillNeed),
            _ => Err(Error::InvalidArgument(format!(
                "advice {advice:?} is not one of normal, random, sequential, dontneed, willneed"
            ))),
        }
    }
}

/// A checked, page-aligned range of addresses.
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    end: u64,
}

impl Range {
    fn new(address: u64, length: u64) -> Result<Self> {
        let page = PAGE_SIZE as u64;
        if address % page != 0 {
            return Err(Error::InvalidArgument(format!("address {address:#x} is not page-aligned")));
        }
        if length == 0 {
            return Err(Error::InvalidArgument("length 0: the range is empty".into()));
        }
        length
            .checked_next_multiple_of(page)
            .and_then(|length| address.checked_add(length))
            .filter(|&end| end <= TASK_SIZE)
            .map(|end| Self { start: address, end })
            .ok_or_else(|| {
                Error::InvalidArgument(format!(
                    "{length} bytes at {address:#x} leave the address space of {TASK_SIZE:#x}"
                ))
            })
    }

    fn unmapped_error(self, how: &str) -> Error {
        Error::InvalidArgument(format!("range {:#x}-{:#x} is {how}", self.start, self.end))
    }
}

impl Mm {
    /// Maps `length` bytes of `file` from `offset` (both in bytes; `None`: up to the end of the file) and returns the address,
    /// the lowest with enough room. The mapping may exceed the file: accesses beyond its end fail with [`Error::Bus`]. It
    /// outlives the file's handle.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an offset that is not page-aligned, an empty range, or no room; [`Error::Unsupported`]
    /// for a shared writable mapping (it needs write-back, which this release lacks); [`Error::OutOfMemory`],
    /// [`Error::Closed`].
    pub fn mmap(
        &self,
        file: &File,
        length: Option<u64>,
        offset: u64,
        prot: Prot,
        shared: bool,
    ) -> Result<u64> {
        operation!("mmap");
        let inner = &self.inner;
        inner.require_open()?;
        let open = file.open_file()?;
        if !Arc::ptr_eq(file.shared(), &inner.shared) {
            return Err(Error::InvalidArgument(format!(
                "file {:?} belongs to another cache than this address space",
                file.name()
            )));
        }
        let page = PAGE_SIZE as u64;
        if offset % page != 0 {
            return Err(Error::InvalidArgument(format!("offset {offset} is not page-aligned")));
        }
        let size = open.mapping.i_size();
        let length = match length {
            Some(0) => return Err(Error::InvalidArgument("length 0: nothing to map".into())),
            Some(length) => length,
            None if offset >= size => {
                return Err(Error::InvalidArgument(format!(
                    "offset {offset} is at or beyond the end of the file at {size}: nothing to map"
                )));
            }
            None => size - offset,
        };
        let length = Range::new(0, length)?.end;
        if offset.checked_add(length).is_none() {
            return Err(Error::InvalidArgument(format!("offset {offset} plus length {length} overflows")));
        }
        let mut flags = VmFlags::NONE;
        if shared {
            flags = flags.with(VmFlags::SHARED);
        }
        if prot == Prot::ReadWrite {
            if shared {
                return Err(shared_write());
            }
            flags = flags.with(VmFlags::WRITE);
        }
        let lock = inner.lock.write();
        // Again: whoever closes the address space says so before it takes the lock.
        duty!("mmap.open_inside", inner.require_open()?);
        let mut vmas = inner.vmas.all(&lock)?;
        let (at, start) = find_gap(&vmas, length)
            .ok_or_else(|| Error::InvalidArgument(format!("no gap of {length} bytes is left")))?;
        let range = (start, start + length, offset / page);
        let vma = Vma::new(range, flags, open, Arc::clone(&inner.tables));
        let listed = Arc::clone(&vma);
        vmas.insert(at, vma);
        // On its file's list before a fault can set an entry in it: truncation walks that list.
        in_order!("mmap.link_first", listed.link(), {
            merge(&mut vmas, start, start + length, &lock);
            inner.vmas.publish(vmas, &lock);
            drop(lock);
        });
        inner.let_go_of_arrays();
        Ok(start)
    }

    /// Unmaps `length` bytes (rounded up to pages) from `address`. Holes are fine. When it returns no load or store through
    /// the range is still running.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an unaligned or empty range, or one in which nothing is mapped; [`Error::OutOfMemory`],
    /// [`Error::Closed`].
    pub fn munmap(&self, address: u64, length: u64) -> Result<()> {
        operation!("munmap");
        self.inner.require_open()?;
        self.inner.munmap(Range::new(address, length)?)
    }

    /// Changes what a fully mapped range allows. Making it read-only waits until no store to it is still running.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an unaligned or empty range or one with holes; [`Error::Unsupported`] for making a
    /// shared mapping writable; [`Error::Closed`]. Nothing is changed then.
    pub fn mprotect(&self, address: u64, length: u64, prot: Prot) -> Result<()> {
        operation!("mprotect");
        let inner = &self.inner;
        inner.require_open()?;
        let range = Range::new(address, length)?;
        let lock = inner.lock.write();
        let refuse_shared = |flags: VmFlags| {
            if prot == Prot::ReadWrite && flags.has(VmFlags::SHARED) { Err(shared_write()) } else { Ok(()) }
        };
        inner.change_flags(range, &lock, refuse_shared, |flags| match prot {
            Prot::Read => flags.without(VmFlags::WRITE),
            Prot::ReadWrite => flags.with(VmFlags::WRITE),
        })?;
        let mut gather = MmuGather::new(inner.tables.frames());
        let mut protect = || {
            duty!("mprotect.write_protect", inner.tables.write_protect(range.start, range.end, &mut gather));
        };
        // A thread that was told that the range is read-only, which takes the lock, finds no entry that still allows stores.
        in_order!(
            "mprotect.entries_inside",
            if prot == Prot::Read {
                protect();
            },
            drop(lock)
        );
        gather.finish();
        inner.let_go_of_arrays();
        Ok(())
    }

    /// Says how a fully mapped range will be accessed; see [`Madvise`]. Nobody waits for what [`Madvise::WillNeed`] reads, so
    /// read errors are reported to whoever accesses the page.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an unaligned or empty range, or one with holes: then nothing is changed, though
    /// [`Madvise::WillNeed`] has read what is mapped; [`Error::Closed`].
    pub fn madvise(&self, address: u64, length: u64, advice: Madvise) -> Result<()> {
        operation!("madvise");
        let inner = &self.inner;
        inner.require_open()?;
        let range = Range::new(address, length)?;
        let pattern = match advice {
            Madvise::Normal => VmFlags::NONE,
            Madvise::Random => VmFlags::RAND_READ,
            Madvise::Sequential => VmFlags::SEQ_READ,
            Madvise::DontNeed => return inner.zap(range),
            Madvise::WillNeed => return inner.will_need(range),
        };
        let both = VmFlags::RAND_READ.with(VmFlags::SEQ_READ);
        let lock = inner.lock.write();
        inner.change_flags(range, &lock, |_| Ok(()), |flags| flags.without(both).with(pattern))?;
        drop(lock);
        inner.let_go_of_arrays();
        Ok(())
    }
}

fn shared_write() -> Error {
    Error::Unsupported(
        "a writable shared mapping needs write-back, which this release lacks: map it private".into(),
    )
}

impl MmInner {
    /// Replaced arrays of mappings wait for a grace period: large ones not for long, or they would pile up.
    fn let_go_of_arrays(&self) {
        if self.vmas.load(&crate::rcu::read()).len() > MANY {
            crate::rcu::synchronize();
        } else {
            crate::rcu::synchronize_if_much();
        }
    }

    fn munmap(&self, range: Range) -> Result<()> {
        let lock = self.lock.write();
        let mut vmas = self.vmas.all(&lock)?;
        let (first, last) = overlapping(&vmas, range);
        if first == last {
            return Err(self.unmapped(range.unmapped_error("not mapped")));
        }
        let mut detached = reserve::vec(last - first, "the mappings that go")?;
        split(&mut vmas, range.start, &lock);
        split(&mut vmas, range.end, &lock);
        let (first, last) = overlapping(&vmas, range);
        detached.extend(vmas.drain(first..last));
        self.detach(lock, Arc::new(detached), vmas);
        Ok(())
    }

    /// Removes mappings and everything they held, leaving `rest`.
    fn detach(&self, lock: MmapWrite<'_>, detached: Arc<Vec<Arc<Vma>>>, rest: Vec<Arc<Vma>>) {
        // Detached before the sequence becomes even: a snapshot from before fails, and a later fault does not find them.
        let lock = seeded!(
            "munmap.seed.detach_late",
            {
                self.vmas.publish(rest, &lock);
                lock.downgrade()
            },
            bug = {
                let lock = lock.downgrade();
                self.vmas.publish_late(rest);
                lock
            }
        );
        self.unmap_detached(&detached, &lock).finish_after(lock);
        drop(detached);
        // The mappings' files are dropped before this returns.
        duty!("munmap.barrier", crate::rcu::barrier());
    }

    /// Clears the entries of mappings that no fault finds any more, then removes them from their files' lists: truncation finds a
    /// mapping on the list as long as it may have entries.
    fn unmap_detached(&self, detached: &[Arc<Vma>], _lock: &MmapRead<'_>) -> MmuGather<'_> {
        let mut gather = MmuGather::new(self.tables.frames());
        for vma in detached {
            let copy = vma.copy();
            in_order!(
                "munmap.seed.unlink_first",
                self.tables.zap(copy.start, copy.end, Owner::Any, &mut gather),
                vma.unlink()
            );
        }
        gather
    }

    fn zap(&self, range: Range) -> Result<()> {
        let lock = self.lock.read();
        if !is_covered(self.vmas.locked(&lock), range) {
            return Err(self.unmapped(range.unmapped_error("not wholly mapped")));
        }
        let mut gather = MmuGather::new(self.tables.frames());
        self.tables.zap(range.start, range.end, Owner::Any, &mut gather);
        gather.finish_after(lock);
        Ok(())
    }

    /// Reads ahead for each mapping of a range, holes or not (`madvise_willneed`). The lock is not held meanwhile, so what is
    /// mapped may change between one and the next.
    fn will_need(&self, range: Range) -> Result<()> {
        let (mut at, mut covered) = (range.start, true);
        while at < range.end {
            let lock = self.lock.read();
            let vma = self.vmas.find_locked(at, &lock).map(Vma::copy).filter(|vma| vma.start < range.end);
            let Some(vma) = vma else {
                covered = false;
                break;
            };
            covered &= vma.start <= at;
            let (from, to) = (at.max(vma.start), range.end.min(vma.end));
            let (first, last) = (vma.index_at(from), vma.index_at(to - 1));
            // The file outlives the mapping while it is read.
            let file = Arc::clone(vma.file());
            drop(lock);
            will_need(&file, first, last);
            at = to;
        }
        if covered { Ok(()) } else { Err(self.unmapped(range.unmapped_error("not wholly mapped"))) }
    }

    fn change_flags(
        &self,
        range: Range,
        lock: &MmapWrite<'_>,
        check: impl Fn(VmFlags) -> Result<()>,
        change: impl Fn(VmFlags) -> VmFlags,
    ) -> Result<()> {
        let mut vmas = self.vmas.all(lock)?;
        if !is_covered(&vmas, range) {
            return Err(self.unmapped(range.unmapped_error("not wholly mapped")));
        }
        let (first, last) = overlapping(&vmas, range);
        for vma in &vmas[first..last] {
            check(vma.copy().flags)?;
        }
        split(&mut vmas, range.start, lock);
        split(&mut vmas, range.end, lock);
        let (first, last) = overlapping(&vmas, range);
        for vma in &vmas[first..last] {
            vma.set_flags(change(vma.copy().flags), lock);
        }
        merge(&mut vmas, range.start, range.end, lock);
        self.vmas.publish(vmas, lock);
        Ok(())
    }

    /// Unmaps everything, at the end.
    pub(super) fn unmap_all(&self) {
        operation!("close an address space");
        let lock = self.lock.write();
        let all = self.vmas.array(&lock);
        self.detach(lock, all, Vec::new());
    }
}

/// Where a mapping of `length` bytes goes: its index in the array and its address.
fn find_gap(vmas: &[Arc<Vma>], length: u64) -> Option<(usize, u64)> {
    let mut start = MMAP_MIN;
    for (at, vma) in vmas.iter().enumerate() {
        let vma = vma.copy();
        if vma.start - start >= length {
            return Some((at, start));
        }
        start = vma.end;
    }
    (TASK_SIZE - start >= length).then_some((vmas.len(), start))
}

/// The mappings that intersect a range, as positions `first..last`.
fn overlapping(vmas: &[Arc<Vma>], range: Range) -> (usize, usize) {
    let first = vmas.partition_point(|vma| vma.copy().end <= range.start);
    let last = vmas.partition_point(|vma| vma.copy().start < range.end);
    (first, last.max(first))
}

fn is_covered(vmas: &[Arc<Vma>], range: Range) -> bool {
    let (first, last) = overlapping(vmas, range);
    let mut at = range.start;
    for vma in &vmas[first..last] {
        let vma = vma.copy();
        if vma.start > at {
            return false;
        }
        at = vma.end;
    }
    at >= range.end
}

/// Splits the mapping that contains `address` in two (`__split_vma`). The new part is on the file's list before the old one
/// shrinks, so truncation visits every address throughout.
fn split(vmas: &mut Vec<Arc<Vma>>, address: u64, lock: &MmapWrite<'_>) {
    let at = vmas.partition_point(|vma| vma.copy().end <= address);
    let Some(vma) = vmas.get(at).cloned() else { return };
    let copy = vma.copy();
    if copy.start >= address {
        return;
    }
    let upper = vma.part(address, copy.end);
    let shrink = || vma.move_end(address, lock);
    in_order!("split.seed.shrinks_first", Arc::clone(&upper).link(), shrink());
    vmas.insert(at + 1, upper);
}

/// Merges adjacent mappings that continue each other, in and next to a range (`vma_merge`).
fn merge(vmas: &mut Vec<Arc<Vma>>, start: u64, end: u64, lock: &MmapWrite<'_>) {
    let page = PAGE_SIZE as u64;
    let around = Range { start: start.saturating_sub(page), end: end.saturating_add(page) };
    // Those that come in from beyond the range do not continue one another.
    let (mut at, last) = overlapping(vmas, around);
    while at + 1 < last.min(vmas.len()) {
        if !vmas[at].merges_with(&vmas[at + 1]) {
            at += 1;
            continue;
        }
        let next = vmas.remove(at + 1);
        let (this, absorbed) = (vmas[at].copy(), next.copy());
        vmas[at].set_flags(this.flags.with(absorbed.flags), lock);
        // Better on the list twice than not at all.
        in_order!("merge.seed.unlinks_first", vmas[at].move_end(absorbed.end, lock), next.unlink());
    }
}
