//! Reclaim: which pages to evict when frames are short.
//!
//! Owns: the scan of the two lists, direct and background reclaim, the wait for a frame. Does not own the lists (`page::lru`),
//! the marks of use (`accessed`), how a file removes a page (`registry`), nor what an evicted page leaves behind (`workingset`).
//! Mirrors `mm/vmscan.c` (`shrink_inactive_list`, `shrink_active_list`, `kswapd`).
//!
//! A page to be evicted is locked and unmapped everywhere, and after one grace period for the whole batch its count is frozen: a
//! look-up that already holds a reference makes that fail, a later one sees a count of zero. Reclaim never waits for a page lock,
//! so a thread that needs room may run it while it holds page locks, `invalidate_lock` or the mmap lock, but not inside a read
//! section.
//!
//! Departures from Linux: a batch is a 64th of the cache (1 to 32 pages), so a small cache is not emptied for one page; and an
//! active page that was used since the last scan stays active.

use super::accessed::end_prefetch;
use super::mmu_gather::MmuGather;
use super::patience::{NAP, should_give_up};
use super::registry::CachedFile;
use super::requests::MakesRoom;
use super::shared::Shared;
use super::stats::Stat;
use crate::page::{Batch, List, LockedPage, PageHandle, PageRef, Use, usage};
use crate::sync::{Instant, Ordering, duty, guard, in_order, operation, pause, seeded};
use std::sync::Arc;

/// Limit of one call, in scans per page: one to clear each mark of use, and one to take the page.
const LOOKS: usize = 4;

/// Largest capacity, in frames, of a cache without background reclaim.
const SMALL: usize = if cfg!(specmm_loom) { 2 } else { 256 };

/// Number of naps between checks whether to give up.
const NAPS_BETWEEN_CHECKS: u32 = 50;

/// What reclaim does with a page that it has scanned.
enum Verdict<'f> {
    /// It stays, on this list.
    Keep(List),
    /// It is evicted if there is no other reference: locked, unmapped, and of the mapping with this number in the batch.
    Take(LockedPage<'f>, usize),
}

/// Number of pages freed at a time.
fn batch(shared: &Shared) -> usize {
    (shared.frames.capacity() / 64).clamp(1, Batch::<()>::MOST)
}

/// Number of free frames below which background reclaim starts; it stops at twice as many. Small caches have none.
fn low_watermark(shared: &Shared) -> usize {
    let capacity = shared.frames.capacity();
    if capacity <= SMALL { 0 } else { (capacity / 128).clamp(1, 1024) }
}

/// Allocates a frame, evicting pages if necessary (`alloc_pages`, direct reclaim). Must not be called inside a read section.
pub(crate) fn alloc_page(shared: &Arc<Shared>, purpose: Use) -> Option<PageHandle<'_>> {
    // Allocation creates RCU garbage, so it also frees it, in case nothing reclaims or unmaps.
    crate::rcu::synchronize_if_much();
    loop {
        if let Some((page, left)) = shared.frames.alloc_counting(purpose) {
            if left < low_watermark(shared) {
                duty!("alloc.wake", shared.io.submit_reclaim(shared));
            }
            return Some(page);
        }
        // The limit on private copies applies even if frames are free.
        if purpose == Use::Private && shared.frames.is_private_full() {
            return None;
        }
        shared.count(Stat::DirectReclaims, 1);
        let (freed, available);
        // Reclaim may put references that were deferred, and so free frames that it does not count.
        in_order!(
            "alloc.look_last",
            freed = reclaim(shared, batch(shared)),
            available = shared.frames.available(),
        );
        if freed == 0 && available == 0 {
            return None;
        }
    }
}

/// Waits until a frame is free, at most for the cache's time-out; false if none was. The caller holds no lock that others need to
/// free one, and allocates the frame itself.
pub(crate) fn wait_for_frame(shared: &Shared) -> bool {
    operation!("wait for a frame");
    // None: beyond the range of the clock.
    let deadline = Instant::now().checked_add(shared.frame_timeout);
    shared.count(Stat::FrameWaits, 1);
    let mut naps = 0_u32;
    loop {
        let (is_over, has_frame);
        // A frame that was freed before the time was over is found.
        in_order!(
            "wait_for_frame.look_last",
            is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline),
            has_frame = find_frame(shared),
        );
        if has_frame {
            return true;
        }
        naps = naps.wrapping_add(1);
        if is_over || (naps % NAPS_BETWEEN_CHECKS == 0 && should_give_up()) {
            return false;
        }
        pause(NAP);
    }
}

/// Whether a frame is free, or can be made so.
fn find_frame(shared: &Shared) -> bool {
    // References awaiting a grace period keep pages in use.
    duty!("wait_for_frame.barrier", crate::rcu::barrier());
    shared.frames.available() > 0 || reclaim(shared, 1) > 0
}

/// Evicts up to `target` pages, least recently used first (`shrink_node`). Returns how many frames were freed.
pub(super) fn reclaim(shared: &Shared, target: usize) -> usize {
    operation!("reclaim");
    duty!("reclaim.put_deferred", put_deferred(shared));
    let frames = shared.frames.usage();
    let mut looks = LOOKS * (frames.active + frames.inactive);
    let mut freed = 0;
    while freed < target && looks > 0 {
        let frames = shared.frames.usage();
        let aged = if frames.active > frames.inactive { shrink_active(shared) } else { 0 };
        let (looked, went) = shrink_inactive(shared, batch(shared).min(target - freed));
        freed += went;
        if aged + looked == 0 {
            break;
        }
        looks = looks.saturating_sub(aged + looked);
    }
    shared.count(Stat::Evictions, freed as u64);
    // Index nodes emptied by evictions await a grace period, and nothing else may ever run one.
    crate::rcu::synchronize_if_much();
    freed
}

/// Puts the reference of an entry that was replaced, through which a program may still be reading.
pub(crate) fn put_after_grace_period(shared: &Arc<Shared>, pfn: u32) {
    let shared = Arc::clone(shared);
    shared.deferred_puts.fetch_add(1, Ordering::Relaxed);
    let put = move || {
        drop(shared.frames.page(pfn).adopt());
        shared.deferred_puts.fetch_sub(1, Ordering::Relaxed);
    };
    seeded!("do_wp_page.seed.put_at_once", crate::rcu::call_rcu(put), bug = put());
}

/// Puts deferred references: otherwise pages whose turn it is would look busy, and which page is evicted would depend on when a
/// grace period ended. (References that another thread is about to put are left to it: reclaim does not wait for other threads'
/// work.)
fn put_deferred(shared: &Shared) {
    if shared.deferred_puts.load(Ordering::Relaxed) > 0 {
        crate::rcu::synchronize();
    }
}

/// Moves the oldest active pages to the inactive list, except those used since their last scan (`shrink_active_list`). Returns
/// how many were scanned.
pub(super) fn shrink_active(shared: &Shared) -> usize {
    operation!("reclaim");
    let pages = shared.frames.isolate(List::Active, batch(shared));
    let looked = pages.len();
    for handle in pages {
        let page = handle.page();
        let list = if was_used(shared, page) {
            List::Active
        } else {
            page.usage().clear(usage::ACTIVE);
            shared.count(Stat::Deactivations, 1);
            List::Inactive
        };
        // The reference keeps the frame from being freed, and so from being on a list when it is.
        in_order!(
            "shrink_active.put_back_first",
            duty!("shrink_active.put_back", shared.frames.put_back(page, list)),
            drop(handle),
        );
    }
    shared.count(Stat::Scanned, looked as u64);
    looked
}

/// Whether an active page was used since its last scan; clears its marks of use.
fn was_used(shared: &Shared, page: PageRef<'_>) -> bool {
    let read = page.usage().clear(usage::REFERENCED) & usage::REFERENCED != 0;
    if page.mapcount() == 0 {
        return read;
    }
    // Another thread has it locked, and so uses it.
    let Some(lock) = page.try_lock() else { return true };
    let mapping = shared.files.get(page.mapping_id());
    let mapped = mapping.as_ref().is_some_and(|mapping| mapping.referenced(page.index()) > 0);
    drop(lock);
    read || mapped
}

/// Scans the oldest inactive pages and evicts those used at most once (`shrink_inactive_list`). Returns how many it scanned, and
/// how many frames were freed.
pub(super) fn shrink_inactive(shared: &Shared, most: usize) -> (usize, usize) {
    operation!("reclaim");
    let pages = shared.frames.isolate(List::Inactive, most);
    // Dropped after the locks of their pages, because the last user of a file takes the locks of all its pages.
    let mut mappings = Batch::new();
    let mut gather = MmuGather::new(&shared.frames);
    let mut doomed = Batch::new();
    let looked = pages.len();
    for handle in pages {
        let page = handle.page();
        match judge(shared, page, &mut mappings, &mut gather) {
            Verdict::Keep(list) => in_order!(
                "vmscan.keep.put_back_first",
                duty!("vmscan.keep", shared.frames.put_back(page, list)),
                drop(handle),
            ),
            // The page is locked and in the cache, so ours is not the last reference.
            Verdict::Take(lock, mapping) => {
                doomed.push((lock, mapping));
            }
        }
    }
    gather.finish();
    let mappings = seeded!("vmscan.seed.files_let_go", mappings, bug = found_again(shared, mappings));
    shared.workingset.make_room_for(doomed.len(), shared.frames.capacity(), &shared.files);
    let mut freed = 0;
    for (lock, mapping) in doomed {
        let page = lock.page();
        let wasted = page.usage().get() & usage::PREFETCHED != 0;
        let shadow = shared.workingset.eviction(shared.frames.capacity());
        match mappings[mapping].remove_locked(lock, shadow) {
            Ok(()) => {
                freed += 1;
                shared.count(Stat::ReadaheadWasted, u64::from(wasted));
            }
            Err(lock) => {
                shared.workingset.forget(shadow);
                // The lock keeps the page in the cache, and so its frame from being freed.
                in_order!(
                    "vmscan.busy.put_back_first",
                    duty!("vmscan.busy", shared.frames.put_back(page, List::Inactive)),
                    drop(lock),
                );
            }
        }
    }
    shared.workingset.trim_nodes(shared.frames.capacity(), &shared.files);
    shared.count(Stat::Scanned, looked as u64);
    (looked, freed)
}

/// The same files, let go and looked up again.
#[cfg(any(specmm_loom, specmm_shuttle))]
fn found_again(shared: &Shared, mappings: Batch<Arc<dyn CachedFile>>) -> Batch<Arc<dyn CachedFile>> {
    let ids: Vec<_> = mappings.iter().map(|mapping| mapping.id()).collect();
    drop(mappings);
    ids.into_iter().filter_map(|id| shared.files.get(id)).collect()
}

/// Decides what to do with one page, to which the caller holds a reference. `mappings` are the files of the batch so far.
fn judge<'f>(
    shared: &Shared,
    page: PageRef<'f>,
    mappings: &mut Batch<Arc<dyn CachedFile>>,
    gather: &mut MmuGather<'_>,
) -> Verdict<'f> {
    // Not published yet, or taken out: its lock must not be tried.
    let before = page.mapping_id();
    if !guard!("vmscan.published", before != 0) {
        return Verdict::Keep(List::Inactive);
    }
    let Some(lock) = page.try_lock() else { return Verdict::Keep(List::Inactive) };
    let id = seeded!("vmscan.seed.mapping_before_lock", page.mapping_id(), bug = before);
    let known = mappings.iter().position(|mapping| mapping.id() == id);
    let number = known.or_else(|| Some(mappings.push(shared.files.get(id)?)));
    // It was truncated before it was locked, or its file is being dropped.
    let Some(number) = number else { return Verdict::Keep(List::Inactive) };
    let mapping = &mappings[number];
    let mapped = page.mapcount() > 0;
    let entries = if mapped { mapping.referenced(page.index()) } else { 0 };
    if page.usage().get() & usage::ACTIVE != 0 {
        return promote(shared, page);
    }
    if entries > 0 {
        end_prefetch(shared, page);
        // The first scan that finds a use through an entry gives the page a second chance, the second makes it active.
        let before = page.usage().set(usage::REFERENCED);
        return if before & usage::REFERENCED != 0 || entries > 1 {
            promote(shared, page)
        } else {
            Verdict::Keep(List::Inactive)
        };
    }
    if mapped {
        mapping.unmap_page(page.index(), gather);
    }
    Verdict::Take(lock, number)
}

fn promote<'f>(shared: &Shared, page: PageRef<'_>) -> Verdict<'f> {
    page.usage().clear(usage::REFERENCED);
    page.usage().set(usage::ACTIVE);
    shared.workingset.activation();
    shared.count(Stat::Activations, 1);
    Verdict::Keep(List::Active)
}

impl MakesRoom for Shared {
    /// Background reclaim: evicts pages up to the high watermark (`balance_pgdat`).
    fn balance(&self) {
        while self.frames.available() < 2 * low_watermark(self) {
            let freed = reclaim(self, batch(self));
            self.count(Stat::BackgroundReclaimed, freed as u64);
            if freed == 0 {
                return;
            }
        }
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests;
