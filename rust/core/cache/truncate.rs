//! Removing pages past the end of the file.
//!
//! Owns: how a file's cached pages are cut off. Does not own when (`size_change`, `coherence`). Mirrors `truncate_setsize`,
//! `truncate_inode_pages` and `unmap_mapping_range`: set the size, unmap, then for each page: lock, unmap again if mapped, take
//! out of the cache, unlock, put; then unmap once more, for private copies made meanwhile. A fault that passed its size check
//! before the shrink either holds the page lock (so this waits for it and unmaps the entry it set) or finds that its page has no
//! mapping.
//!
//! The caller holds `invalidate_lock` for writing.

use super::address_space::{AddressSpace, index_of};
use crate::page::{LockedPage, PAGE_SIZE};
use crate::sync::{duty, give_back, guard, in_order, operation};

/// Last page of a range without an end.
const TO_THE_END: u64 = u64::MAX;

/// The cache's part of a shrink (`truncate_setsize`).
pub(super) fn shrink_pages(mapping: &AddressSpace, size: u64) {
    operation!("truncate");
    duty!("truncate.size_first", mapping.i_size_write(size));
    let first = size.div_ceil(PAGE_SIZE as u64);
    // Only an optimisation: it leaves few pages to unmap one by one.
    mapping.unmap(first, TO_THE_END, true);
    // The second sweep is for private copies that faults made after the first.
    in_order!(
        "truncate.unmap_again_last",
        truncate_pages(mapping, first),
        duty!("truncate.unmap_again", mapping.unmap(first, TO_THE_END, true))
    );
}

/// Takes the page in which the file ends at `size` out of the cache: its bytes after that end are zeros, and no longer the file's.
pub(super) fn drop_partial_page(mapping: &AddressSpace, size: u64) {
    if size % PAGE_SIZE as u64 == 0 {
        return;
    }
    let Some(handle) = mapping.find_get_page(index_of(size), &crate::rcu::read()) else { return };
    let lock = handle.page().lock();
    truncate_page(mapping, &lock);
    drop(lock);
}

/// Takes every page from `first` on out of the cache, waiting for each page lock (`truncate_inode_pages`). Returns how many there
/// were.
pub(super) fn truncate_pages(mapping: &AddressSpace, first: u64) -> u64 {
    let (mut dropped, mut from) = (0, first);
    loop {
        let section = crate::rcu::read();
        let found = mapping.pages.next(from, TO_THE_END, None, &section);
        let Some((index, entry)) = found else { return dropped };
        // What is taken out of there is not found again.
        from = index;
        if entry.as_page().is_none() {
            duty!("truncate.shadow", mapping.shared.workingset.forget_shadow(&mapping.pages, index));
            continue;
        }
        // Removed meanwhile: look again, because its shadow is there now.
        let Some(handle) = mapping.find_get_page(index, &section) else { continue };
        let lock;
        // Whoever has the page locked may be waiting for a grace period.
        in_order!("truncate.section_ends_first", drop(section), lock = handle.page().lock());
        truncate_page(mapping, &lock);
        dropped += 1;
    }
}

/// Removes one locked page (`truncate_cleanup_page`, `page_cache_delete`). The caller holds a reference to it from a look-up.
/// That guarantees that the page is still in the cache: other truncations wait for `invalidate_lock`, and the removal of idle
/// pages fails because of the reference.
pub(super) fn truncate_page(mapping: &AddressSpace, lock: &LockedPage<'_>) {
    operation!("truncate");
    let page = lock.page();
    debug_assert!(page.is_at(mapping.id(), page.index()), "somebody else removed {page:?}");
    // A fault may have set an entry after the bulk unmap and before the page was locked here.
    if !guard!("truncate.unmap_locked", page.mapcount() == 0) {
        mapping.unmap(page.index(), page.index(), false);
    }
    debug_assert!(page.mapcount() == 0, "truncated while mapped: {page:?}");
    give_back!("truncate.put", mapping.delete(lock));
    mapping.note_shadows(page.index());
}

/// Zeroes the part of the last page past the end, if the page is cached.
pub(super) fn zero_tail(mapping: &AddressSpace, size: u64) {
    let (index, within) = (index_of(size), (size % PAGE_SIZE as u64) as usize);
    if within == 0 {
        return;
    }
    let Some(handle) = mapping.find_get_page(index, &crate::rcu::read()) else { return };
    let page = handle.page();
    let lock = page.lock();
    debug_assert!(page.is_at(mapping.id(), index), "somebody else removed {page:?}");
    // A pinned page's bytes must not change: the next read of the file reads them again, into another frame.
    if !guard!("zero_tail.pinned", mapping.frames().pins(page) == 0) {
        return truncate_page(mapping, &lock);
    }
    in_order!(
        "zero_tail.generation_first",
        duty!("zero_tail.generation", lock.advance_generation()),
        page.bytes().zero_from(within)
    );
    drop(lock);
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use crate::cache::workingset::Workingset;
    use crate::store::MemoryStore;
    use crate::{File, Io, PAGE_SIZE, PageCache, StoreOptions};
    use std::sync::Arc;

    const PAGE: u64 = PAGE_SIZE as u64;
    const FRAMES: usize = 1024;

    fn open(cache: &PageCache, pages: u64) -> File {
        let store = Arc::new(MemoryStore::new(vec![7; (pages * PAGE) as usize]));
        cache.open_store_with(store, pages * PAGE, StoreOptions::default().ra_pages(0)).unwrap()
    }

    fn read(file: &File, index: u64) {
        file.pread(&mut [0], index * PAGE).unwrap();
    }

    #[test]
    fn nodes_that_hold_only_shadows_are_bounded() {
        let most = Workingset::most_nodes(FRAMES) as u64;
        // Evictions leave a shadow alone in its node.
        let cache = PageCache::new(FRAMES as u64 * PAGE, Io::Inline).unwrap();
        let file = open(&cache, 500 * 64);
        for node in 0..500 {
            read(&file, 64 * node);
        }
        assert_eq!(cache.reclaim(500).unwrap(), 500);
        crate::rcu::barrier();
        assert!(cache.stats().xarray_nodes <= most + 16, "{} of {most}", cache.stats().xarray_nodes);
        assert!(cache.stats().xarray_nodes > most / 2, "they are of use");
        cache.check().unwrap();
        // So does a truncation that takes the page beside it.
        let cache = PageCache::new(FRAMES as u64 * PAGE, Io::Inline).unwrap();
        let files: Vec<File> = (0..400).map(|_| open(&cache, 3)).collect();
        // The first page alone would need no node.
        for index in [1, 2] {
            for file in &files {
                read(file, index);
            }
        }
        assert_eq!(cache.reclaim(400).unwrap(), 400);
        assert_eq!(
            (cache.stats().shadows, cache.stats().frames_in_use, cache.stats().xarray_nodes),
            (400, 400, 400)
        );
        for (file, left) in files.iter().zip((0..400).rev()) {
            file.truncate(2 * PAGE).unwrap();
            assert_eq!(cache.stats().frames_in_use, left, "given back when the call returns");
            crate::rcu::barrier();
            let nodes = cache.stats().xarray_nodes - left;
            assert!(nodes <= most, "{nodes} of {most}, {left} left");
        }
        cache.check().unwrap();
        // A file that is dropped takes all of it along, and is known no more.
        let known = cache.shared().files.iter().count();
        drop(files);
        cache.check().unwrap();
        assert_eq!((known, cache.shared().files.iter().count()), (400, 0));
        assert_eq!((cache.stats().shadows, cache.stats().xarray_nodes), (0, 0));
        assert_eq!(cache.shared().files.known(), 0);
    }
}
