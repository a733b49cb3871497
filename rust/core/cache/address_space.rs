//! The pages of one file: `struct address_space` and the part of the inode that the fault path reads.
//!
//! Owns: the index from page number to page, and the size. Does not own the frames (`page`) nor the bytes in them (`fill`).
//! Mirrors `include/linux/fs.h` and the lookup of `mm/filemap.c`.
//!
//! | state | read | written holding |
//! |---|---|---|
//! | `i_size` | Acquire load, anywhere | `invalidate_lock` for writing |
//! | `pages` | read section | page lock of the page concerned, `i_pages` mutex |
//! | creating a page | | `invalidate_lock` for reading, from the size check to the insertion |

use super::i_mmap::Ranges;
use super::mmu_gather::MmuGather;
use super::shared::Shared;
use super::version::Version;
use super::vmscan::alloc_page;
use super::window::Again;
use crate::error::{Error, Result};
use crate::page::{Frames, LockedPage, PAGE_SHIFT, PAGE_SIZE, PageHandle, PageRef, Use};
use crate::rcu::ReadSection;
use crate::store::{ReadBy, Store};
use crate::sync::rwsem::RwSem;
use crate::sync::{AtomicU64, Numbers, duty, guard, in_order, operation, ord, seeded, spin_hint};
use crate::xarray::{Entry, XArray};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

/// References to an idle cached page: only the cache's own.
const CACHE_ONLY: u32 = 1;

/// A locked page and a reference to it. Fields drop in order: the lock before the reference.
#[must_use]
#[derive(Debug)]
pub struct HeldPage<'f> {
    /// The page lock.
    pub lock: LockedPage<'f>,
    /// The reference.
    pub handle: PageHandle<'f>,
}

/// One file's pages.
pub struct AddressSpace {
    id: u64,
    i_size: AtomicU64,
    /// Which version of the file the pages are of.
    pub(super) version: Version,
    pub(super) pages: XArray,
    /// Held for reading while a page is created and for writing while the size changes, so that no page is created from a state
    /// of the store that a truncation has ended (Linux 5.15; file systems' own locks before).
    pub(super) invalidate_lock: RwSem,
    /// Threads waiting for reads of a store that may stall, before they take `invalidate_lock` for writing.
    pub(super) truncaters: AtomicU64,
    /// How much of a failed window is requested again.
    pub(super) again: Again,
    pub(crate) i_mmap: Ranges,
    pub(super) store: Arc<dyn Store>,
    /// Which threads may read the store.
    pub(super) read_by: ReadBy,
    pub(super) name: OsString,
    pub(crate) shared: Arc<Shared>,
}

/// The outcome of an attempt to create a page.
pub(super) enum Created<'f> {
    /// A new page, locked and not up to date.
    New(HeldPage<'f>),
    /// Another thread's page is already there.
    Exists,
    /// No frame is free.
    NoFrame,
    /// No memory for the index.
    NoMemory(Error),
}

impl AddressSpace {
    pub(crate) fn new(store: Arc<dyn Store>, size: u64, name: &OsStr, shared: Arc<Shared>) -> Self {
        static LAST: Numbers = Numbers::new();
        Self {
            version: Version::new(store.look()),
            // Never reused, so a stale page never looks like this file's.
            id: LAST.next(),
            i_size: AtomicU64::new(size),
            pages: XArray::new(Arc::clone(&shared.xarray_nodes)),
            invalidate_lock: RwSem::new(),
            truncaters: AtomicU64::new(0),
            again: Again::default(),
            i_mmap: Ranges::default(),
            // Without workers the caller reads, and waits, whatever the store asks for. (Models have no workers, but must still
            // know such stores.)
            read_by: if shared.io.is_inline() && !cfg!(specmm_loom) {
                ReadBy::Caller
            } else {
                store.read_by()
            },
            store,
            name: name.to_owned(),
            shared,
        }
    }

    /// The identity that pages of this file carry.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The frames that hold this file's pages.
    #[must_use]
    pub fn frames(&self) -> &Frames {
        &self.shared.frames
    }

    /// The file's size in bytes (`i_size_read`).
    #[inline]
    #[must_use]
    pub fn i_size(&self) -> u64 {
        // Pairs with the Release in `i_size_write`: bytes are visible before the size that exposes them.
        self.i_size.load(ord!("i_size.acquire", Acquire))
    }

    /// Publishes a new size (`i_size_write`). The caller holds `invalidate_lock` for writing.
    pub(super) fn i_size_write(&self, size: u64) {
        self.i_size.store(size, ord!("i_size.release", Release));
    }

    /// The file's size, if page `index` lies past its end.
    #[inline]
    pub(crate) fn ends_before(&self, index: u64) -> Option<u64> {
        let size = self.i_size();
        (index >= size.div_ceil(PAGE_SIZE as u64)).then_some(size)
    }

    /// Pages in the file, the last one perhaps partial.
    #[inline]
    #[must_use]
    pub fn pages_in_file(&self) -> u64 {
        self.i_size().div_ceil(PAGE_SIZE as u64)
    }

    /// Finds the page at `index` and takes a reference (`find_get_page`), retrying while writers interfere.
    pub(crate) fn find_get_page(&self, index: u64, section: &ReadSection) -> Option<PageHandle<'_>> {
        loop {
            match self.find_get_page_once(index, section) {
                Lookup::Found(handle) => return Some(handle),
                Lookup::Absent => return None,
                Lookup::Interfered => spin_hint(),
            }
        }
    }

    /// One round of the lookup: find the page, take a reference unless the count is zero, check that it is still there.
    #[inline]
    pub(crate) fn find_get_page_once(&self, index: u64, section: &ReadSection) -> Lookup<'_> {
        let found = self.pages.find(index, section);
        // The shadow of an evicted page must be told from a page before it is used.
        let page = seeded!(
            "filemap.seed.shadow",
            found.entry.as_page(),
            bug = Some(found.entry.as_page().unwrap_or(0))
        );
        let Some(pfn) = page else { return Lookup::Absent };
        let Some(handle) = self.frames().page(pfn).try_get() else { return Lookup::Interfered };
        // Before the reference was taken, the frame may have been freed and reused by another file.
        if guard!("filemap.slot_recheck", found.is_unchanged()) {
            Lookup::Found(handle)
        } else {
            Lookup::Interfered
        }
    }

    /// The page at `index` without a reference: only to inspect it.
    pub(super) fn peek(&self, index: u64, section: &ReadSection) -> Option<PageRef<'_>> {
        self.pages.load(index, section).as_page().map(|pfn| self.frames().page(pfn))
    }

    /// Creates a locked page at `index`, not up to date (`add_to_page_cache_lru`), reclaiming a frame if need be. The caller
    /// holds `invalidate_lock` for reading and has checked the size under it.
    pub(super) fn add_page(&self, index: u64) -> Created<'_> {
        let Some(handle) = alloc_page(&self.shared, Use::File) else { return Created::NoFrame };
        match self.insert(index, handle) {
            Ok(Some(held)) => Created::New(held),
            Ok(None) => Created::Exists,
            Err(error) => Created::NoMemory(error),
        }
    }

    /// Publishes a new page. None if the slot is taken. If there is no memory for the index, returns an error and changes
    /// nothing.
    pub(crate) fn insert<'f>(&'f self, index: u64, handle: PageHandle<'f>) -> Result<Option<HeldPage<'f>>> {
        let page = handle.page();
        // Locked before it can be found: a thread that finds it waits for its bytes.
        let lock = page.try_lock().expect("nobody else knows a fresh page");
        let stored;
        in_order!(
            "insert.identity_first",
            lock.set_identity(self.id, index),
            stored = self.store(index, page)
        );
        let Ok(Some(old)) = stored else {
            duty!("insert.lost.clear_mapping", lock.clear_mapping());
            in_order!("insert.lost.unlock_first", drop(lock), drop(handle));
            return stored.map(|_| None);
        };
        let shared = &self.shared;
        shared.workingset.refault(page, old, &shared.frames, |stat| shared.count(stat, 1));
        Ok(Some(HeldPage { lock, handle }))
    }

    /// Puts a page into its slot, with a reference of the cache's; returns what was there, or None if the slot is taken.
    fn store(&self, index: u64, page: PageRef<'_>) -> Result<Option<Entry>> {
        let mut pages = self.pages.lock();
        if !guard!("insert.slot_free", pages.get(index).as_page().is_none()) {
            return Ok(None);
        }
        let of_the_cache = page.get();
        let old = pages.store(index, Entry::page(page.pfn()))?;
        let _kept_by_the_slot = of_the_cache.into_pfn();
        Ok(Some(old))
    }

    /// Takes a page out of the cache (`page_cache_delete`) and hands the cache's reference to the caller, which puts it. Slot and
    /// mapping change before the generation, and the generation before any later byte.
    pub(super) fn delete<'f>(&'f self, held: &LockedPage<'f>) -> PageHandle<'f> {
        in_order!(
            "delete.generation_last",
            self.erase(held),
            duty!("delete.generation", held.advance_generation())
        );
        held.page().adopt()
    }

    fn erase(&self, held: &LockedPage<'_>) {
        let page = held.page();
        let mut pages = self.pages.lock();
        let old = pages.erase(page.index());
        debug_assert_eq!(old.as_page(), Some(page.pfn()), "the slot holds another page");
        duty!("delete.clear_mapping", held.clear_mapping());
    }

    /// Takes a locked page out of the cache if there is no other reference (`__remove_mapping`), leaving `shadow` in its slot.
    /// The count changes before the slot: a lookup that already holds a reference makes this fail, a later one sees a count of
    /// zero.
    pub(crate) fn remove_mapping(&self, lock: &LockedPage<'_>, shadow: Entry) -> bool {
        let page = lock.page();
        let mut pages = self.pages.lock();
        if !page.freeze(CACHE_ONLY) {
            return false;
        }
        in_order!(
            "remove_mapping.unfreeze_last",
            in_order!(
                "remove_mapping.generation_last",
                {
                    pages.replace(page.index(), shadow);
                    duty!("remove_mapping.clear_mapping", lock.clear_mapping());
                    self.shared.workingset.note_node(self.id(), &mut pages, page.index());
                    drop(pages);
                },
                duty!("remove_mapping.generation", lock.advance_generation())
            ),
            page.unfreeze(CACHE_ONLY)
        );
        true
    }

    /// Called when a page has left `index`: its node may now hold only shadows, and there may be too many such nodes.
    pub(super) fn note_shadows(&self, index: u64) {
        if !cfg!(specmm_loom) {
            let shared = &self.shared;
            shared.workingset.note_node(self.id, &mut self.pages.lock(), index);
            shared.workingset.trim_nodes(shared.frames.capacity(), &shared.files);
        }
    }

    /// Whether a locked page is still the one looked for.
    pub(super) fn is_mine(&self, held: &HeldPage<'_>, index: u64) -> bool {
        guard!("filemap.classic.mapping", held.lock.page().is_at(self.id(), index))
    }

    /// Clears every entry of pages `first..=last` in every address space (`unmap_mapping_range`).
    pub(super) fn unmap(&self, first: u64, last: u64, even_cows: bool) {
        let mut gather = MmuGather::new(self.frames());
        self.i_mmap.unmap(first, last, even_cows, &mut gather);
        gather.finish();
    }
}

/// The result of one round of the lookup.
pub(crate) enum Lookup<'s> {
    /// The page, with a reference.
    Found(PageHandle<'s>),
    /// Nothing there, or the shadow of an evicted page.
    Absent,
    /// The page was being removed or replaced.
    Interfered,
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        operation!("close a file");
        // The last user is gone, and I/O in flight counts as a user: so every page is unmapped, and locked at most by a reclaim
        // that will soon find that its file is going. The count of the last `Arc` orders this after everything earlier users did,
        // but the model checker does not see that count.
        #[cfg(specmm_loom)]
        drop(self.pages.lock());
        let mut from = 0;
        loop {
            let found = self.pages.next(from, u64::MAX, None, &crate::rcu::read());
            let Some((index, entry)) = found else { break };
            // What is taken out of there is not found again.
            from = index;
            if let Some(pfn) = entry.as_page() {
                let lock = self.frames().page(pfn).lock();
                let reference = self.delete(&lock);
                in_order!("drop.unlock_first", drop(lock), drop(reference));
            } else {
                self.shared.workingset.forget_shadow(&self.pages, index);
            }
        }
        self.shared.files.remove(self.id);
    }
}

impl std::fmt::Debug for AddressSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddressSpace")
            .field("name", &self.name)
            .field("i_size", &self.i_size())
            .finish_non_exhaustive()
    }
}

/// The page index of byte `offset`.
#[inline]
pub(crate) fn index_of(offset: u64) -> u64 {
    offset >> PAGE_SHIFT
}
