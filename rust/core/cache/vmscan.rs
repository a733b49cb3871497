//! Taking clean pages out of the cache on request.
//!
//! Owns: removal by freezing the count. Mirrors `__remove_mapping` of `mm/vmscan.c` and `invalidate_mapping_pages` of
//! `mm/truncate.c`. Reclaim for room comes with a later release; this is what `drop_caches` and advice "dontneed" use.

use super::AddressSpace;
use super::address_space::HeldPage;
use super::page_cache::Stat;
use crate::page::LockedPage;
use crate::xarray::Entry;

/// References on an idle cached page: the cache's own.
const CACHE_ONLY: u32 = 1;

impl AddressSpace {
    /// Takes a locked page out of the cache if nobody else holds a reference (`__remove_mapping`), leaving `shadow` in its
    /// slot. Count before slot: a lookup that already has its reference makes this fail, a later one sees zero.
    pub(crate) fn remove_mapping(&self, lock: &LockedPage<'_>, shadow: Entry) -> bool {
        let page = lock.page();
        let mut pages = self.pages.lock();
        if !page.freeze(CACHE_ONLY) {
            return false;
        }
        pages.store(page.index(), shadow);
        lock.clear_mapping();
        drop(pages);
        lock.advance_generation();
        page.unfreeze(CACHE_ONLY);
        true
    }

    /// Drops the clean, unmapped, unlocked pages in `first..=last`. Answers how many.
    pub(crate) fn invalidate(&self, first: u64, last: u64) -> u64 {
        // References that wait for a grace period would make idle pages look busy.
        crate::rcu::barrier();
        let mut dropped = 0;
        let mut next = Some(first);
        loop {
            let section = crate::rcu::read();
            let found = next.and_then(|from| self.pages.next(from, last, None, &section));
            let Some((index, entry)) = found else { break };
            next = index.checked_add(1);
            let Some(pfn) = entry.as_page() else { continue };
            let page = self.frames().page(pfn);
            let Some(handle) = page.try_get() else { continue };
            let Some(lock) = page.try_lock() else { continue };
            let held = HeldPage { lock, handle };
            if !page.is_at(self.id(), index) {
                continue;
            }
            // Locked and in the cache, so the cache's reference stays and ours is not the last.
            let HeldPage { lock, handle } = held;
            drop(handle);
            if self.remove_mapping(&lock, Entry::EMPTY) {
                let reference = page.adopt();
                drop(lock);
                drop(reference);
                dropped += 1;
            }
        }
        self.shared.count(Stat::Evictions, dropped);
        dropped
    }
}
