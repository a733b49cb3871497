//! Mappings: `struct vm_area_struct`, and the sorted array that holds them.
//!
//! Owns: which addresses map which part of which open file. The array is copied on every change and replaced behind one RCU
//! pointer; a mapping's own fields change in place, as relaxed atomics, under the mmap lock held for writing. A lock-free reader
//! therefore copies the fields and then checks the sequence, which tells whether the copy may be torn.

use super::mmap_lock::{MmapRead, MmapWrite};
use super::page_table::{Owner, PageTable};
use crate::cache::filemap::Pattern;
use crate::cache::{MappedRange, MmuGather, OpenFile};
use crate::page::{PAGE_SHIFT, PAGE_SIZE};
use crate::rcu::{ArcCell, ReadSection};
use crate::reserve;
use crate::sync::{AtomicU64, LifeCell, Numbers, Ordering, seeded};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A mapping's flags, as in `vm_flags`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VmFlags(u64);

impl VmFlags {
    pub(crate) const NONE: Self = Self(0);
    /// Stores are allowed.
    pub(crate) const WRITE: Self = Self(1);
    /// Stores reach the file.
    pub(crate) const SHARED: Self = Self(1 << 1);
    /// Advice: no readahead.
    pub(crate) const RAND_READ: Self = Self(1 << 2);
    /// Advice: readahead from the fault on.
    pub(crate) const SEQ_READ: Self = Self(1 << 3);
    /// The mapping is ready for private copies (`vma->anon_vma`); set under the mmap lock held for reading.
    pub(crate) const ANON_VMA: Self = Self(1 << 4);

    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    /// The flags that must agree for two neighbours to merge.
    fn merge_key(self) -> Self {
        self.without(Self::ANON_VMA)
    }
    pub(crate) fn pattern(self) -> Pattern {
        if self.has(Self::RAND_READ) {
            Pattern::Random
        } else if self.has(Self::SEQ_READ) {
            Pattern::Sequential
        } else {
            Pattern::Normal
        }
    }
}

/// One mapping. Its end and its flags are written only under the mmap lock held for writing (and `ANON_VMA`, see there).
pub(crate) struct Vma {
    id: u64,
    start: u64,
    end: AtomicU64,
    pgoff: u64,
    flags: AtomicU64,
    file: Arc<OpenFile>,
    tables: Arc<PageTable>,
    life: LifeCell,
}

impl Drop for Vma {
    fn drop(&mut self) {
        self.life.kill();
    }
}

/// A copy of a mapping's fields. Taken without the lock it may be torn: check the sequence before use.
#[derive(Clone, Copy)]
pub(crate) struct VmaCopy<'v> {
    /// First address.
    pub(crate) start: u64,
    /// First address beyond.
    pub(crate) end: u64,
    /// Page index in the file of the first address.
    pub(crate) pgoff: u64,
    pub(crate) flags: VmFlags,
    file: &'v Arc<OpenFile>,
    vma: &'v Vma,
    life: LifeCell,
}

impl<'v> VmaCopy<'v> {
    /// The file, which lives as long as the mapping.
    #[inline]
    pub(crate) fn file(&self) -> &'v Arc<OpenFile> {
        self.life.assert_alive();
        self.file
    }

    /// What the mapping is now.
    #[cfg(any(specmm_loom, specmm_shuttle))]
    pub(super) fn live(&self) -> Self {
        self.vma.copy()
    }

    /// The file's page index at `address`.
    #[inline]
    pub(crate) fn index_at(&self, address: u64) -> u64 {
        // Wrapping: a torn copy may be nonsense until the sequence has been checked.
        (address.wrapping_sub(self.start) >> PAGE_SHIFT).wrapping_add(self.pgoff)
    }

    /// Whether the mapping is ready for private copies now, rather than when the copy was taken.
    pub(crate) fn prepare_anon_vma(&self) {
        self.life.assert_alive();
        self.vma.flags.fetch_or(VmFlags::ANON_VMA.0, Ordering::Relaxed);
    }
}

impl Vma {
    pub(crate) fn new(
        (start, end, pgoff): (u64, u64, u64),
        flags: VmFlags,
        file: Arc<OpenFile>,
        tables: Arc<PageTable>,
    ) -> Arc<Self> {
        static LAST: Numbers = Numbers::new();
        Arc::new(Self {
            id: LAST.next(),
            start,
            end: AtomicU64::new(end),
            pgoff,
            flags: AtomicU64::new(flags.0),
            file,
            tables,
            life: LifeCell::new(),
        })
    }

    // Relaxed: under the lock nothing more is needed, and a reader without it checks the sequence afterwards.

    #[inline]
    pub(crate) fn copy(&self) -> VmaCopy<'_> {
        self.life.assert_alive();
        VmaCopy {
            start: self.start,
            end: self.end.load(Ordering::Relaxed),
            pgoff: self.pgoff,
            flags: VmFlags(self.flags.load(Ordering::Relaxed)),
            file: &self.file,
            vma: self,
            life: self.life,
        }
    }

    fn end(&self) -> u64 {
        self.life.assert_alive();
        self.end.load(Ordering::Relaxed)
    }

    /// Makes the file's truncation visit this mapping.
    pub(crate) fn link(self: Arc<Self>) {
        let file = Arc::clone(&self.file);
        file.mapping.i_mmap.link(self.id, self);
    }

    pub(crate) fn unlink(&self) {
        self.file.mapping.i_mmap.unlink(self.id);
    }

    /// Moves the end (`__vma_adjust`); the mapping stays on its file's list. (If it were taken off meanwhile, truncation would
    /// miss the range and truncate a page while it is mapped.) Truncation, which may be at work on the list, sees either end: see
    /// what a split and a merge do before and after.
    pub(super) fn move_end(self: &Arc<Self>, end: u64, _lock: &MmapWrite<'_>) {
        let change = || self.end.store(end, Ordering::Relaxed);
        seeded!(
            "vma.move_end.seed.off_the_list",
            change(),
            bug = {
                self.unlink();
                change();
                Arc::clone(self).link();
            }
        );
    }

    pub(super) fn set_flags(&self, flags: VmFlags, _lock: &MmapWrite<'_>) {
        // A swap: ANON_VMA is set by read-modify-writes of this word.
        self.flags.swap(flags.0, Ordering::Relaxed);
    }

    /// Where this mapping maps the file's pages `first..=last`.
    fn addresses(&self, first: u64, last: u64) -> Option<(u64, u64)> {
        let vma = self.copy();
        let pages = (vma.end - vma.start) >> PAGE_SHIFT;
        let (from, to) = (first.max(vma.pgoff), last.saturating_add(1).min(vma.pgoff.saturating_add(pages)));
        let address = |index: u64| vma.start + (index - vma.pgoff) * PAGE_SIZE as u64;
        (from < to).then(|| (address(from), address(to)))
    }

    /// A new mapping of the part of this one from `start` to `end`.
    pub(super) fn part(&self, start: u64, end: u64) -> Arc<Self> {
        let copy = self.copy();
        let range = (start, end, copy.index_at(start));
        Self::new(range, copy.flags, Arc::clone(&self.file), Arc::clone(&self.tables))
    }

    /// Whether `next` continues this mapping in address, file and flags.
    pub(super) fn merges_with(&self, next: &Self) -> bool {
        let (this, next_copy) = (self.copy(), next.copy());
        this.end == next_copy.start
            && Arc::ptr_eq(&self.file, &next.file)
            && this.flags.merge_key() == next_copy.flags.merge_key()
            && this.index_at(this.end) == next_copy.pgoff
    }
}

impl MappedRange for Vma {
    fn unmap(&self, first: u64, last: u64, even_cows: bool, gather: &mut MmuGather<'_>) {
        if let Some((from, to)) = self.addresses(first, last) {
            let owner = if even_cows { Owner::Any } else { Owner::File };
            self.tables.zap(from, to, owner, gather);
        }
    }

    fn referenced(&self, index: u64) -> u32 {
        self.addresses(index, index).map_or(0, |(from, to)| self.tables.test_and_clear_young(from, to))
    }

    fn audit_tables(&self, seen: &mut BTreeSet<usize>) -> std::result::Result<u64, String> {
        if seen.insert(Arc::as_ptr(&self.tables).addr()) { self.tables.audit() } else { Ok(0) }
    }
}

/// The mappings of one address space, sorted by address, without overlap.
pub(crate) struct Vmas {
    array: ArcCell<VmaArray>,
}

type VmaArray = Vec<Arc<Vma>>;

/// The most mappings that one change adds: it splits two of them.
const MOST_ADDED: usize = 2;

impl Vmas {
    pub(crate) fn new() -> Self {
        Self { array: ArcCell::new(Arc::new(Vec::new())) }
    }

    /// The mappings now.
    pub(crate) fn load<'s>(&'s self, section: &'s ReadSection) -> &'s [Arc<Vma>] {
        self.array.load(section).map_or(&[], |array| array.as_slice())
    }

    /// The first mapping that ends beyond `address` (`find_vma`); it may begin beyond it too.
    #[inline]
    pub(crate) fn find<'s>(&'s self, address: u64, section: &'s ReadSection) -> Option<&'s Vma> {
        let array = self.load(section);
        array.get(array.partition_point(|vma| vma.end() <= address)).map(|vma| &**vma)
    }

    /// The mappings while the mmap lock is held: no section is needed, so the caller may sleep.
    pub(super) fn locked<'l>(&'l self, _lock: &'l MmapRead<'_>) -> &'l [Arc<Vma>] {
        // SAFETY: the array is replaced only under the mmap lock held for writing, and this borrow ends before the lock held
        // for reading is given back.
        #[allow(unsafe_code, reason = "the lock replaces a read section")]
        let array = unsafe { self.array.load_unguarded() };
        array.map_or(&[], |array| array.as_slice())
    }

    /// As [`Vmas::find`], while the mmap lock is held.
    pub(crate) fn find_locked<'l>(&'l self, address: u64, lock: &'l MmapRead<'_>) -> Option<&'l Vma> {
        let array = self.locked(lock);
        array.get(array.partition_point(|vma| vma.end() <= address)).map(|vma| &**vma)
    }

    // Writers read the array under the lock that they hold, or they would undo each other's changes.

    /// All mappings, with references, and room for what one change adds: writers build the next array from them.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(super) fn all(&self, _lock: &MmapWrite<'_>) -> crate::Result<VmaArray> {
        let section = crate::rcu::read();
        let vmas = self.load(&section);
        let mut all = reserve::vec(vmas.len() + MOST_ADDED, "the array of mappings")?;
        all.extend_from_slice(vmas);
        Ok(all)
    }

    /// The array itself.
    pub(super) fn array(&self, _lock: &MmapWrite<'_>) -> Arc<VmaArray> {
        self.array.get().unwrap_or_default()
    }

    /// Publishes the next array; the old one is freed after a grace period, and with it the mappings that only it held.
    pub(super) fn publish(&self, next: VmaArray, _lock: &MmapWrite<'_>) {
        self.replace(next);
    }

    fn replace(&self, next: VmaArray) {
        seeded!("vmas.seed.freed_at_once", bug = self.declare_dead_without(&next));
        self.array.replace(Some(Arc::new(next)));
    }
}

/// Wrong variants, for the mutants.
#[cfg(any(specmm_loom, specmm_shuttle))]
impl Vmas {
    /// As [`Vmas::publish`], after the write lock was released.
    pub(super) fn publish_late(&self, next: VmaArray) {
        self.replace(next);
    }

    /// Mappings that are not in the next array are freed at once.
    fn declare_dead_without(&self, next: &[Arc<Vma>]) {
        let array = self.array.get().unwrap_or_default();
        for vma in array.iter().filter(|vma| !next.iter().any(|kept| Arc::ptr_eq(vma, kept))) {
            vma.life.kill();
        }
    }
}
