//! Pages that leave because the file ends before them.
//!
//! Owns: how the cache shrinks. Does not own when (`size_change`, `coherence`). Mirrors `truncate_setsize`,
//! `truncate_inode_pages` and `unmap_mapping_range`: size, unmap, then page by page: lock, unmap again if mapped, take out of the
//! cache, unlock, put; then unmap once more for private copies made meanwhile. A fault that passed its size check before the
//! shrink holds the page lock (so we wait for it and unmap what it set) or finds its page without a mapping.
//!
//! The caller holds `invalidate_lock` for writing.

use super::address_space::AddressSpace;
use crate::page::{LockedPage, PAGE_SIZE};
use crate::sync::{duty, give_back, guard};

/// Everything from a page on.
const TO_THE_END: u64 = u64::MAX;

/// The cache's part of a shrink (`truncate_setsize`).
pub(super) fn shrink_pages(mapping: &AddressSpace, size: u64) {
    duty!("truncate.size_first", mapping.i_size_write(size));
    let first = size.div_ceil(PAGE_SIZE as u64);
    // Only so that few pages are left to unmap one by one.
    mapping.unmap(first, TO_THE_END, true);
    truncate_pages(mapping, first);
    // Private copies that faults made between the two sweeps.
    duty!("truncate.unmap_again", mapping.unmap(first, TO_THE_END, true));
}

pub(super) fn drop_partial_page(mapping: &AddressSpace, size: u64) {
    if size % PAGE_SIZE as u64 == 0 {
        return;
    }
    let index = size / PAGE_SIZE as u64;
    mapping.unmap(index, index, false);
    let Some(handle) = mapping.find_get_page(index, &crate::rcu::read()) else { return };
    let lock = handle.page().lock();
    truncate_page(mapping, &lock);
    drop(lock);
}

/// Takes every page from `first` on out of the cache, waiting for their owners (`truncate_inode_pages`).
/// Answers how many there were.
pub(super) fn truncate_pages(mapping: &AddressSpace, first: u64) -> u64 {
    let mut dropped = 0;
    let mut next = Some(first);
    loop {
        let section = crate::rcu::read();
        let found = next.and_then(|from| mapping.pages.next(from, TO_THE_END, None, &section));
        let Some((index, entry)) = found else { return dropped };
        if entry.as_page().is_none() {
            drop(section);
            duty!("truncate.shadow", mapping.shared.workingset.forget_shadow(&mapping.pages, index));
            next = index.checked_add(1);
            continue;
        }
        let handle = mapping.find_get_page(index, &section);
        drop(section);
        // Removed meanwhile: look again, its shadow is there now.
        let Some(handle) = handle else { continue };
        let lock = handle.page().lock();
        truncate_page(mapping, &lock);
        dropped += 1;
        next = index.checked_add(1);
    }
}

/// One locked page (`truncate_cleanup_page`, `page_cache_delete`). The caller has a reference of its own. That the page was
/// found with it is enough to know that it is still there: other truncations wait for `invalidate_lock`, and removal of
/// idle pages fails against the reference.
pub(super) fn truncate_page(mapping: &AddressSpace, lock: &LockedPage<'_>) {
    let page = lock.page();
    debug_assert!(page.is_at(mapping.id(), page.index()), "somebody else removed {page:?}");
    // A fault may have set an entry after the bulk unmap and before we had the lock.
    if !guard!("truncate.unmap_locked", page.mapcount() == 0) {
        mapping.unmap(page.index(), page.index(), false);
    }
    debug_assert!(page.mapcount() == 0, "truncated while mapped: {page:?}");
    give_back!("truncate.put", mapping.delete(lock));
    mapping.note_shadows(page.index());
}

/// Zeroes the last page beyond the end, if it is cached.
pub(super) fn zero_tail(mapping: &AddressSpace, size: u64) {
    let (index, within) = (size / PAGE_SIZE as u64, (size % PAGE_SIZE as u64) as usize);
    if within == 0 {
        return;
    }
    let Some(handle) = mapping.find_get_page(index, &crate::rcu::read()) else { return };
    let page = handle.page();
    let lock = page.lock();
    debug_assert!(page.is_at(mapping.id(), index), "somebody else removed {page:?}");
    // A pinned page's bytes stay as they are: whoever reads the file next reads them anew, into another frame.
    if !guard!("zero_tail.pinned", mapping.frames().pins(page) == 0) {
        return truncate_page(mapping, &lock);
    }
    duty!("zero_tail.generation", lock.advance_generation());
    page.bytes().zero_from(within);
    drop(lock);
}
