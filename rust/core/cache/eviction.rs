//! How an idle page leaves the cache while other threads may be looking it up.
//!
//! Owns: the removal of unused pages, one that reclaim has chosen ([`CachedFile`]) or all in a range. Does not own the choice
//! (`vmscan`) nor the freeze that decides (`AddressSpace::remove_mapping`). Mirrors `invalidate_inode_page` and
//! `invalidate_mapping_pages` of `mm/truncate.c`.
//!
//! Page locks are tried, never waited for.

use super::address_space::{AddressSpace, Lookup};
use super::audit;
use super::mmu_gather::MmuGather;
use super::registry::{CachedFile, Findings};
use super::stats::Stat;
use crate::page::LockedPage;
use crate::rcu::ReadSection;
use crate::sync::{duty, give_back, guard, in_order, operation};
use crate::xarray::Entry;

impl CachedFile for AddressSpace {
    fn id(&self) -> u64 {
        self.id()
    }

    fn referenced(&self, index: u64) -> u32 {
        self.i_mmap.referenced(index)
    }

    fn unmap_page(&self, index: u64, gather: &mut MmuGather<'_>) {
        self.i_mmap.unmap(index, index, false, gather);
    }

    fn remove_locked<'f>(&self, lock: LockedPage<'f>, shadow: Entry) -> Result<(), LockedPage<'f>> {
        remove_locked(self, lock, shadow)
    }

    fn drop_idle_pages(&self) -> u64 {
        invalidate(self, 0, u64::MAX)
    }

    fn forget_shadows(&self, old: &dyn Fn(u64) -> bool) {
        self.shared.workingset.forget_shadows(&self.pages, old);
    }

    fn has_shadows_only(&self, index: u64, number: u32) -> bool {
        self.pages.lock().still_has_values_only(index, number)
    }

    fn forget_node(&self, index: u64, number: u32) {
        self.shared.workingset.forget_node(&self.pages, index, number);
    }

    fn audit(&self, found: &mut Findings) -> crate::Result<()> {
        audit::audit(self, found)
    }
}

/// Takes the page at `index` out of the cache if it is idle (`invalidate_inode_page`). It is looked up as in a fault, because the
/// lock of a frame that was reused meanwhile must not even be tried.
pub(super) fn evict(mapping: &AddressSpace, index: u64, shadow: Entry, section: &ReadSection) -> bool {
    operation!("evict");
    let Lookup::Found(handle) = mapping.find_get_page_once(index, section) else { return false };
    let page = handle.page();
    let Some(lock) = page.try_lock() else { return false };
    // It may have been truncated before it was locked.
    if !guard!("evict.mapping", page.is_at(mapping.id(), index)) {
        return false;
    }
    // The page is locked and in the cache, so the cache keeps its reference and ours is not the last.
    drop(handle);
    remove_locked(mapping, lock, shadow).is_ok()
}

/// Removes a locked page of this file and frees its frame; returns the lock if the page is in use.
fn remove_locked<'f>(
    mapping: &AddressSpace,
    lock: LockedPage<'f>,
    shadow: Entry,
) -> Result<(), LockedPage<'f>> {
    let page = lock.page();
    if !mapping.remove_mapping(&lock, shadow) {
        return Err(lock);
    }
    let reference = page.adopt();
    in_order!("evict.unlock_first", drop(lock), give_back!("evict.put", reference));
    Ok(())
}

/// Drops the clean, unmapped, unlocked pages in `first..=last`. Returns how many were dropped.
pub(super) fn invalidate(mapping: &AddressSpace, first: u64, last: u64) -> u64 {
    operation!("evict");
    // References awaiting a grace period would make idle pages look busy.
    duty!("invalidate.barrier", crate::rcu::barrier());
    let mut dropped = 0;
    let mut next = Some(first);
    loop {
        let section = crate::rcu::read();
        let found = next.and_then(|from| mapping.pages.next(from, last, None, &section));
        let Some((index, _)) = found else { break };
        next = index.checked_add(1);
        dropped += u64::from(evict(mapping, index, Entry::EMPTY, &section));
    }
    let shared = &mapping.shared;
    shared.workingset.trim_nodes(shared.frames.capacity(), &shared.files);
    shared.count(Stat::Dropped, dropped);
    dropped
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::cache::{File, Io, PageCache, StoreOptions};
    use crate::page::{PAGE_SIZE, PageHandle};
    use crate::store::MemoryStore;
    use std::sync::Arc;

    const PAGE: u64 = PAGE_SIZE as u64;

    fn opened(frames: u64, pages: u64) -> (PageCache, File) {
        let cache = PageCache::new(frames * PAGE, Io::Inline).unwrap();
        let store = Arc::new(MemoryStore::new(vec![7; (pages * PAGE) as usize]));
        let file = cache.open_store_with(store, pages * PAGE, StoreOptions::default().ra_pages(0)).unwrap();
        (cache, file)
    }

    fn bring(file: &File, pages: impl IntoIterator<Item = u64>) {
        for page in pages {
            file.pread(&mut [0], page * PAGE).unwrap();
        }
    }

    fn hold(mapping: &AddressSpace, index: u64) -> PageHandle<'_> {
        mapping.find_get_page(index, &crate::rcu::read()).unwrap()
    }

    #[test]
    fn idle_pages_of_a_range_go_and_the_others_stay() {
        let (cache, file) = opened(16, 8);
        bring(&file, 0..8);
        // One has left a shadow.
        assert_eq!(cache.reclaim(1).unwrap(), 1);
        let mapping = Arc::clone(&file.open_file().unwrap().mapping);
        let held = hold(&mapping, 2);
        let lock = hold(&mapping, 4).page().try_lock().unwrap();
        for (first, last, dropped, left) in [
            (9, u64::MAX, 0, [0, 1, 1, 1, 1, 1, 1, 1]),
            (7, 7, 1, [0, 1, 1, 1, 1, 1, 1, 0]),
            (0, 1, 1, [0, 0, 1, 1, 1, 1, 1, 0]),
            (2, 5, 2, [0, 0, 1, 0, 1, 0, 1, 0]),
            (0, u64::MAX, 1, [0, 0, 1, 0, 1, 0, 0, 0]),
        ] {
            let before = cache.stats().dropped;
            assert_eq!(invalidate(&mapping, first, last), dropped, "{first} to {last}");
            assert_eq!(cache.stats().dropped - before, dropped);
            assert_eq!(file.residency(0, None).unwrap(), left, "{first} to {last}");
        }
        drop((held, lock));
        bring(&file, 0..1);
        assert_eq!((cache.drop_caches().unwrap(), cache.stats().frames_in_use), (3, 0));
        cache.check().unwrap();
    }

    #[test]
    fn what_is_dropped_may_leave_nodes_of_shadows_and_only_few_stay() {
        const NODES: u64 = 100;
        let (cache, file) = opened(256, 64 * (NODES + 1));
        bring(&file, (1..=NODES).map(|node| 64 * node));
        bring(&file, (1..=NODES).map(|node| 64 * node + 1));
        assert_eq!(cache.reclaim(NODES as usize).unwrap() as u64, NODES);
        crate::rcu::barrier();
        assert!(cache.stats().xarray_nodes > NODES, "each has a page");
        assert_eq!(cache.drop_caches().unwrap(), NODES);
        crate::rcu::barrier();
        assert!(cache.stats().xarray_nodes <= 64 + 4, "{:?}", cache.stats());
        cache.check().unwrap();
    }
}
