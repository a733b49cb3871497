//! Making room: which pages go when frames are short, and how a page leaves the cache while others may be looking at it.
//!
//! Owns: removal by freezing the count, the scan of the two lists, direct and background reclaim, the wait for a frame.
//! Mirrors `mm/vmscan.c` (`__remove_mapping`, `shrink_inactive_list`, `shrink_active_list`, `kswapd`),
//! `mark_page_accessed` of `mm/swap.c` and `invalidate_mapping_pages` of `mm/truncate.c`. Does not own the lists (`page::lru`)
//! nor what an evicted page leaves behind (`workingset`).
//!
//! A page that is to go is locked, unmapped everywhere, and after one grace period for the whole batch its count is frozen:
//! a look-up that already has a reference makes that fail, a later one sees zero. Reclaim never waits for a page lock, so it
//! may run under page locks, `invalidate_lock` and the mmap lock of the thread that needs room; not inside a read section.
//!
//! Departures from Linux: a batch is a 64th of the cache (1 to 32 pages), so a small cache is not emptied for one page; a
//! page of the active list that was used since the last look stays on it.

use super::address_space::Lookup;
use super::mmu_gather::MmuGather;
use super::patience::{NAP, should_give_up};
use super::requests::MakesRoom;
use super::stats::Stat;
use super::{AddressSpace, Shared};
use crate::page::{Batch, List, LockedPage, PageHandle, PageRef, Use, usage};
use crate::rcu::ReadSection;
use crate::sync::{context, duty, give_back, guard, pause, seeded};
use crate::xarray::Entry;
use std::sync::Arc;
use std::time::Instant;

/// References on an idle cached page: the cache's own.
const CACHE_ONLY: u32 = 1;

/// A page is looked at no more often in one call: once to clear each mark of use, and once to take it.
const LOOKS: usize = 4;

/// Frames that caches without background reclaim have at most.
const SMALL: usize = 256;

/// How often it asks whether to go on.
const NAPS_BETWEEN_CHECKS: u32 = 50;

impl AddressSpace {
    /// Takes a locked page out of the cache if nobody else holds a reference (`__remove_mapping`), leaving `shadow` in its
    /// slot. Count before slot: a lookup that already has its reference makes this fail, a later one sees zero.
    pub(crate) fn remove_mapping(&self, lock: &LockedPage<'_>, shadow: Entry) -> bool {
        let page = lock.page();
        let mut pages = self.pages.lock();
        if !page.freeze(CACHE_ONLY) {
            return false;
        }
        pages.replace(page.index(), shadow);
        duty!("remove_mapping.clear_mapping", lock.clear_mapping());
        self.shared.workingset.note_node(self.id(), &mut pages, page.index());
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
        self.remove_locked(lock, shadow).is_ok()
    }

    /// Removes a locked page of this file and frees its frame; gives the lock back if somebody uses the page.
    fn remove_locked<'f>(&self, lock: LockedPage<'f>, shadow: Entry) -> Result<(), LockedPage<'f>> {
        let page = lock.page();
        if !self.remove_mapping(&lock, shadow) {
            return Err(lock);
        }
        let reference = page.adopt();
        drop(lock);
        give_back!("evict.put", reference);
        Ok(())
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
        self.shared.trim_shadow_nodes();
        self.shared.count(Stat::Dropped, dropped);
        dropped
    }
}

// --- use

impl Shared {
    /// A read found the page or brought it (`mark_page_accessed`). Reads that go on in the page where the thread's last one
    /// ended are one touch (Linux: `prev_pos` of the open file), so reading a page in small pieces does not make it active.
    #[inline]
    pub(super) fn touch(&self, page: PageRef<'_>) {
        if !is_active(page) {
            self.touch_first_or_second(page);
        }
    }

    #[cold]
    fn touch_first_or_second(&self, page: PageRef<'_>) {
        let last = context::with(|thread| thread.last_touched.replace(page.life()));
        if page.usage().get() & usage::REFERENCED != 0 {
            if last != page.life() {
                page.usage().set(usage::ACTIVE);
            }
        } else {
            page.usage().set(usage::REFERENCED);
            self.end_prefetch(page);
        }
    }

    /// A program used the page through an entry that is gone now (`mark_page_accessed`): the first use makes it referenced, the
    /// next active.
    pub(crate) fn mark_accessed(&self, page: PageRef<'_>) {
        if page.usage().set(usage::REFERENCED) & usage::REFERENCED != 0 {
            page.usage().set(usage::ACTIVE);
        }
        self.end_prefetch(page);
    }

    /// A page that is used was not read ahead in vain.
    fn end_prefetch(&self, page: PageRef<'_>) {
        if page.usage().get() & usage::PREFETCHED != 0
            && page.usage().clear(usage::PREFETCHED) & usage::PREFETCHED != 0
        {
            self.count(Stat::ReadaheadUsed, 1);
        }
    }
}

/// Whether a touch of this page changes nothing.
#[inline]
pub(super) fn is_active(page: PageRef<'_>) -> bool {
    const BOTH: u32 = usage::REFERENCED | usage::ACTIVE;
    page.usage().get() & BOTH == BOTH
}

// --- room

impl MakesRoom for Shared {
    /// Makes room up to the high water mark (`balance_pgdat`): what the background does.
    fn balance(&self) {
        while self.frames.available() < 2 * self.low_watermark() {
            let freed = self.reclaim(self.batch());
            self.count(Stat::BackgroundReclaimed, freed as u64);
            if freed == 0 {
                return;
            }
        }
    }
}

/// What reclaim does with a page that it has looked at.
enum Verdict<'f> {
    /// It stays, on this list.
    Keep(List),
    /// It goes if nobody holds it: locked, unmapped, of the mapping with this number in the batch.
    Take(LockedPage<'f>, usize),
}

impl Shared {
    /// How many pages are freed at a time.
    fn batch(&self) -> usize {
        (self.frames.capacity() / 64).clamp(1, Batch::<()>::MOST)
    }

    /// Free frames below which the background makes room, up to twice as many. Small caches do without.
    fn low_watermark(&self) -> usize {
        let capacity = self.frames.capacity();
        if capacity <= SMALL { 0 } else { (capacity / 128).min(1024) }
    }

    /// A frame, for which others' pages are taken if need be (`alloc_pages`, direct reclaim). Not inside a read section.
    pub(crate) fn alloc_page(self: &Arc<Self>, purpose: Use) -> Option<PageHandle<'_>> {
        // Whoever makes the cache's garbage grow lets it go too, where nobody reclaims or unmaps.
        crate::rcu::synchronize_if_much();
        loop {
            if let Some(page) = self.frames.alloc(purpose) {
                if self.frames.available() < self.low_watermark() {
                    self.io.submit_reclaim(self);
                }
                return Some(page);
            }
            // More private copies are not allowed, whatever is free.
            if purpose == Use::Private && self.frames.is_private_full() {
                return None;
            }
            self.count(Stat::DirectReclaims, 1);
            if self.reclaim(self.batch()) == 0 && self.frames.available() == 0 {
                return None;
            }
        }
    }

    /// Waits until a frame can be had, at most the time-out of this cache; false if none could. The caller holds no lock that
    /// others need to free one, and takes the frame itself.
    pub(crate) fn wait_for_frame(&self) -> bool {
        // None: later than the clock can tell.
        let deadline = Instant::now().checked_add(self.frame_timeout);
        self.count(Stat::FrameWaits, 1);
        let mut naps = 0_u32;
        loop {
            // References that wait for a grace period keep pages.
            crate::rcu::barrier();
            if self.frames.available() > 0 || self.reclaim(1) > 0 {
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
    pub(crate) fn reclaim(&self, target: usize) -> usize {
        self.put_deferred();
        let frames = self.frames.usage();
        let mut looks = LOOKS * (frames.active + frames.inactive);
        let mut freed = 0;
        while freed < target && looks > 0 {
            let frames = self.frames.usage();
            let aged = if frames.active > frames.inactive { self.shrink_active() } else { 0 };
            let (looked, went) = self.shrink_inactive(self.batch().min(target - freed));
            freed += went;
            if aged + looked == 0 {
                break;
            }
            looks = looks.saturating_sub(aged + looked);
        }
        self.count(Stat::Evictions, freed as u64);
        // Index nodes that held nothing but evicted pages wait for a grace period, and nobody else may let one pass.
        crate::rcu::synchronize_if_much();
        freed
    }

    /// References that wait for a grace period make pages look busy whose turn it is, and which page goes would depend on when
    /// one ended. (Those that another thread is about to put are left to it: reclaim waits for nobody's work.)
    fn put_deferred(&self) {
        if self.deferred_puts.get() > 0 {
            crate::rcu::synchronize();
        }
    }

    /// Moves the oldest active pages to the inactive list, but those that were used since they were last looked at
    /// (`shrink_active_list`). Answers how many were looked at.
    fn shrink_active(&self) -> usize {
        let pages = self.frames.isolate(List::Active, self.batch());
        for handle in pages.iter() {
            let page = handle.page();
            if self.was_used(page) {
                self.frames.put_back(page, List::Active);
            } else {
                page.usage().clear(usage::ACTIVE);
                self.frames.put_back(page, List::Inactive);
                self.count(Stat::Deactivations, 1);
            }
        }
        self.count(Stat::Scanned, pages.len() as u64);
        pages.len()
    }

    /// Whether an active page was used since the last look; ends its marks of use.
    fn was_used(&self, page: PageRef<'_>) -> bool {
        let read = page.usage().clear(usage::REFERENCED) & usage::REFERENCED != 0;
        if page.mapcount() == 0 {
            return read;
        }
        // Somebody who has it locked is using it.
        let Some(lock) = page.try_lock() else { return true };
        let mapping = self.mapping_of(page.mapping_id());
        let mapped = mapping.as_ref().is_some_and(|mapping| mapping.i_mmap.referenced(page.index()) > 0);
        drop(lock);
        read || mapped
    }

    /// Looks at the oldest inactive pages and takes those that were used once at most (`shrink_inactive_list`). Answers how
    /// many it looked at, and how many frames came free.
    pub(super) fn shrink_inactive(&self, most: usize) -> (usize, usize) {
        let pages = self.frames.isolate(List::Inactive, most);
        // After the locks of their pages: the last user of a file takes the locks of all its pages.
        let mut mappings = Batch::new();
        let mut gather = MmuGather::new(&self.frames);
        let mut doomed = Batch::new();
        let looked = pages.len();
        for handle in pages {
            match self.judge(handle.page(), &mut mappings, &mut gather) {
                Verdict::Keep(list) => {
                    duty!("vmscan.keep", self.frames.put_back(handle.page(), list));
                }
                Verdict::Take(lock, mapping) => {
                    doomed.push((lock, mapping));
                }
            }
            // A page that goes is locked and in the cache, so ours is not the last reference.
        }
        gather.finish();
        self.workingset.make_room_for(doomed.len(), self);
        let mut freed = 0;
        for (lock, mapping) in doomed {
            let page = lock.page();
            let wasted = page.usage().get() & usage::PREFETCHED != 0;
            let shadow = self.workingset.eviction(self.frames.capacity());
            match mappings[mapping].remove_locked(lock, shadow) {
                Ok(()) => {
                    freed += 1;
                    self.count(Stat::ReadaheadWasted, u64::from(wasted));
                }
                Err(lock) => {
                    self.workingset.forget(shadow);
                    duty!("vmscan.busy", self.frames.put_back(lock.page(), List::Inactive));
                }
            }
        }
        self.trim_shadow_nodes();
        self.count(Stat::Scanned, looked as u64);
        (looked, freed)
    }

    /// Decides about one page to which the caller has a reference. `mappings` are the files of the batch so far.
    fn judge<'f>(
        &self,
        page: PageRef<'f>,
        mappings: &mut Batch<Arc<AddressSpace>>,
        gather: &mut MmuGather<'_>,
    ) -> Verdict<'f> {
        // Not published yet, or taken out: its lock is not ours to try.
        let before = page.mapping_id();
        if !guard!("vmscan.published", before != 0) {
            return Verdict::Keep(List::Inactive);
        }
        let Some(lock) = page.try_lock() else { return Verdict::Keep(List::Inactive) };
        let id = seeded!("vmscan.seed.mapping_before_lock", before, page.mapping_id());
        let known = mappings.iter().position(|mapping| mapping.id() == id);
        let number = known.or_else(|| Some(mappings.push(self.mapping_of(id)?)));
        // Truncated before we had the lock, or its file is going altogether.
        let Some(number) = number else { return Verdict::Keep(List::Inactive) };
        let mapping = &mappings[number];
        let mapped = page.mapcount() > 0;
        let entries = if mapped { mapping.i_mmap.referenced(page.index()) } else { 0 };
        if page.usage().get() & usage::ACTIVE != 0 {
            return self.promote(page);
        }
        if entries > 0 {
            self.end_prefetch(page);
            // The first look that finds a use through an entry gives a second chance, the second makes it active.
            let before = page.usage().set(usage::REFERENCED);
            return if before & usage::REFERENCED != 0 || entries > 1 {
                self.promote(page)
            } else {
                Verdict::Keep(List::Inactive)
            };
        }
        if mapped {
            mapping.i_mmap.unmap(page.index(), page.index(), false, gather);
        }
        Verdict::Take(lock, number)
    }

    fn promote<'f>(&self, page: PageRef<'_>) -> Verdict<'f> {
        page.usage().clear(usage::REFERENCED);
        page.usage().set(usage::ACTIVE);
        self.workingset.activation();
        self.count(Stat::Activations, 1);
        Verdict::Keep(List::Active)
    }
}
