//! Taking clean pages out of the cache on request.
//!
//! Owns: removal by freezing the count. Mirrors `__remove_mapping` of `mm/vmscan.c` and `invalidate_mapping_pages` of
//! `mm/truncate.c`. Reclaim for room comes with a later release; this is what `drop_caches` and advice "dontneed" use.

use super::AddressSpace;
use super::address_space::Lookup;
use super::page_cache::Stat;
use crate::page::LockedPage;
use crate::rcu::ReadSection;
use crate::sync::{duty, give_back, guard};
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
        duty!("remove_mapping.clear_mapping", lock.clear_mapping());
        drop(pages);
        duty!("remove_mapping.generation", lock.advance_generation());
        page.unfreeze(CACHE_ONLY);
        true
    }

    /// Takes the page at `index` out of the cache if it is idle (`invalidate_inode_page`). It is looked up as a fault would: the
    /// lock of a frame that was given to somebody else meanwhile must not even be tried.
    pub(super) fn evict(&self, index: u64, shadow: Entry, section: &ReadSection) -> bool {
        let Lookup::Found(handle) = self.find_get_page_once(index, section) else { return false };
        let page = handle.page();
        let Some(lock) = page.try_lock() else { return false };
        // Truncated before we had the lock?
        if !guard!("evict.mapping", page.is_at(self.id(), index)) {
            return false;
        }
        // Locked and in the cache, so the cache's reference stays and ours is not the last.
        drop(handle);
        let evicted = self.remove_mapping(&lock, shadow);
        let reference = evicted.then(|| page.adopt());
        drop(lock);
        give_back!("evict.put", reference);
        evicted
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
            if entry.as_page().is_some() {
                dropped += u64::from(self.evict(index, Entry::EMPTY, &section));
            }
        }
        self.shared.count(Stat::Evictions, dropped);
        dropped
    }
}
