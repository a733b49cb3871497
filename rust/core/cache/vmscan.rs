//! Making room: which pages go when frames are short.
//!
//! Owns: the scan of the two lists, direct and background reclaim, the wait for a frame. Does not own the lists (`page::lru`),
//! what marks a page as used (`accessed`), how a file lets a page go (`registry`), nor what an evicted page leaves behind
//! (`workingset`). Mirrors `mm/vmscan.c` (`shrink_inactive_list`, `shrink_active_list`, `kswapd`).
//!
//! A page that is to go is locked, unmapped everywhere, and after one grace period for the whole batch its count is frozen:
//! a look-up that already has a reference makes that fail, a later one sees zero. Reclaim never waits for a page lock, so it
//! may run under page locks, `invalidate_lock` and the mmap lock of the thread that needs room; not inside a read section.
//!
//! Departures from Linux: a batch is a 64th of the cache (1 to 32 pages), so a small cache is not emptied for one page; a
//! page of the active list that was used since the last look stays on it.

use super::accessed::end_prefetch;
use super::mmu_gather::MmuGather;
use super::patience::{NAP, should_give_up};
use super::registry::CachedFile;
use super::requests::MakesRoom;
use super::shared::Shared;
use super::stats::Stat;
use crate::page::{Batch, List, LockedPage, PageHandle, PageRef, Use, usage};
use crate::sync::{duty, guard, pause, seeded};
use std::sync::Arc;
use std::time::Instant;

/// A page is looked at no more often in one call: once to clear each mark of use, and once to take it.
const LOOKS: usize = 4;

/// Frames that caches without background reclaim have at most.
const SMALL: usize = 256;

/// How often it asks whether to go on.
const NAPS_BETWEEN_CHECKS: u32 = 50;

/// What reclaim does with a page that it has looked at.
enum Verdict<'f> {
    /// It stays, on this list.
    Keep(List),
    /// It goes if nobody holds it: locked, unmapped, of the mapping with this number in the batch.
    Take(LockedPage<'f>, usize),
}

/// How many pages are freed at a time.
fn batch(shared: &Shared) -> usize {
    (shared.frames.capacity() / 64).clamp(1, Batch::<()>::MOST)
}

/// Free frames below which the background makes room, up to twice as many. Small caches do without.
fn low_watermark(shared: &Shared) -> usize {
    let capacity = shared.frames.capacity();
    if capacity <= SMALL { 0 } else { (capacity / 128).min(1024) }
}

/// A frame, for which others' pages are taken if need be (`alloc_pages`, direct reclaim). Not inside a read section.
pub(crate) fn alloc_page(shared: &Arc<Shared>, purpose: Use) -> Option<PageHandle<'_>> {
    // Whoever makes the cache's garbage grow lets it go too, where nobody reclaims or unmaps.
    crate::rcu::synchronize_if_much();
    loop {
        if let Some(page) = shared.frames.alloc(purpose) {
            if shared.frames.available() < low_watermark(shared) {
                shared.io.submit_reclaim(shared);
            }
            return Some(page);
        }
        // More private copies are not allowed, whatever is free.
        if purpose == Use::Private && shared.frames.is_private_full() {
            return None;
        }
        shared.count(Stat::DirectReclaims, 1);
        if reclaim(shared, batch(shared)) == 0 && shared.frames.available() == 0 {
            return None;
        }
    }
}

/// Waits until a frame can be had, at most the time-out of this cache; false if none could. The caller holds no lock that
/// others need to free one, and takes the frame itself.
pub(crate) fn wait_for_frame(shared: &Shared) -> bool {
    // None: later than the clock can tell.
    let deadline = Instant::now().checked_add(shared.frame_timeout);
    shared.count(Stat::FrameWaits, 1);
    let mut naps = 0_u32;
    loop {
        // References that wait for a grace period keep pages.
        crate::rcu::barrier();
        if shared.frames.available() > 0 || reclaim(shared, 1) > 0 {
            return true;
        }
        naps = naps.wrapping_add(1);
        let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if is_over || (naps % NAPS_BETWEEN_CHECKS == 0 && should_give_up()) {
            return false;
        }
        pause(NAP);
    }
}

/// Takes up to `target` pages out of the cache, those that were not used for longest first (`shrink_node`). Answers how
/// many frames came free.
pub(super) fn reclaim(shared: &Shared, target: usize) -> usize {
    put_deferred(shared);
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
    // Index nodes that held nothing but evicted pages wait for a grace period, and nobody else may let one pass.
    crate::rcu::synchronize_if_much();
    freed
}

/// References that wait for a grace period make pages look busy whose turn it is, and which page goes would depend on when
/// one ended. (Those that another thread is about to put are left to it: reclaim waits for nobody's work.)
fn put_deferred(shared: &Shared) {
    if shared.deferred_puts.get() > 0 {
        crate::rcu::synchronize();
    }
}

/// Moves the oldest active pages to the inactive list, but those that were used since they were last looked at
/// (`shrink_active_list`). Answers how many were looked at.
fn shrink_active(shared: &Shared) -> usize {
    let pages = shared.frames.isolate(List::Active, batch(shared));
    for handle in pages.iter() {
        let page = handle.page();
        if was_used(shared, page) {
            shared.frames.put_back(page, List::Active);
        } else {
            page.usage().clear(usage::ACTIVE);
            shared.frames.put_back(page, List::Inactive);
            shared.count(Stat::Deactivations, 1);
        }
    }
    shared.count(Stat::Scanned, pages.len() as u64);
    pages.len()
}

/// Whether an active page was used since the last look; ends its marks of use.
fn was_used(shared: &Shared, page: PageRef<'_>) -> bool {
    let read = page.usage().clear(usage::REFERENCED) & usage::REFERENCED != 0;
    if page.mapcount() == 0 {
        return read;
    }
    // Somebody who has it locked is using it.
    let Some(lock) = page.try_lock() else { return true };
    let mapping = shared.files.get(page.mapping_id());
    let mapped = mapping.as_ref().is_some_and(|mapping| mapping.referenced(page.index()) > 0);
    drop(lock);
    read || mapped
}

/// Looks at the oldest inactive pages and takes those that were used once at most (`shrink_inactive_list`). Answers how
/// many it looked at, and how many frames came free.
pub(super) fn shrink_inactive(shared: &Shared, most: usize) -> (usize, usize) {
    let pages = shared.frames.isolate(List::Inactive, most);
    // After the locks of their pages: the last user of a file takes the locks of all its pages.
    let mut mappings = Batch::new();
    let mut gather = MmuGather::new(&shared.frames);
    let mut doomed = Batch::new();
    let looked = pages.len();
    for handle in pages {
        match judge(shared, handle.page(), &mut mappings, &mut gather) {
            Verdict::Keep(list) => {
                duty!("vmscan.keep", shared.frames.put_back(handle.page(), list));
            }
            Verdict::Take(lock, mapping) => {
                doomed.push((lock, mapping));
            }
        }
        // A page that goes is locked and in the cache, so ours is not the last reference.
    }
    gather.finish();
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
                duty!("vmscan.busy", shared.frames.put_back(lock.page(), List::Inactive));
            }
        }
    }
    shared.workingset.trim_nodes(shared.frames.capacity(), &shared.files);
    shared.count(Stat::Scanned, looked as u64);
    (looked, freed)
}

/// Decides about one page to which the caller has a reference. `mappings` are the files of the batch so far.
fn judge<'f>(
    shared: &Shared,
    page: PageRef<'f>,
    mappings: &mut Batch<Arc<dyn CachedFile>>,
    gather: &mut MmuGather<'_>,
) -> Verdict<'f> {
    // Not published yet, or taken out: its lock is not ours to try.
    let before = page.mapping_id();
    if !guard!("vmscan.published", before != 0) {
        return Verdict::Keep(List::Inactive);
    }
    let Some(lock) = page.try_lock() else { return Verdict::Keep(List::Inactive) };
    let id = seeded!("vmscan.seed.mapping_before_lock", page.mapping_id(), bug = before);
    let known = mappings.iter().position(|mapping| mapping.id() == id);
    let number = known.or_else(|| Some(mappings.push(shared.files.get(id)?)));
    // Truncated before we had the lock, or its file is going altogether.
    let Some(number) = number else { return Verdict::Keep(List::Inactive) };
    let mapping = &mappings[number];
    let mapped = page.mapcount() > 0;
    let entries = if mapped { mapping.referenced(page.index()) } else { 0 };
    if page.usage().get() & usage::ACTIVE != 0 {
        return promote(shared, page);
    }
    if entries > 0 {
        end_prefetch(shared, page);
        // The first look that finds a use through an entry gives a second chance, the second makes it active.
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
    /// Makes room up to the high water mark (`balance_pgdat`): what the background does.
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
