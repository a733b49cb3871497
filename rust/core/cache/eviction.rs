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
        let Some((index, entry)) = found else { break };
        next = index.checked_add(1);
        if entry.as_page().is_some() {
            dropped += u64::from(evict(mapping, index, Entry::EMPTY, &section));
        }
    }
    let shared = &mapping.shared;
    shared.workingset.trim_nodes(shared.frames.capacity(), &shared.files);
    shared.count(Stat::Dropped, dropped);
    dropped
}
