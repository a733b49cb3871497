//! The frames of one cache: a fixed number, preallocated. They are its memory limit.

use super::batch::Batch;
use super::bytes::{PageBytes, WORDS};
use super::lock::LOCK_BITS;
use super::lru::{List, Lru};
use super::memory::Zeroed;
use super::{Page, PageFlags, PageHandle, PageRef, buddy::Buddy, usage};
use crate::error::{Error, Result};
use crate::sync::wait::WaitTable;
use crate::sync::{AtomicU64, Mutex, Numbers, Ordering, duty, guard, seeded};

/// What a frame is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A page of a file.
    File,
    /// A private copy of one; at most half of all frames.
    Private,
}

/// The arena, its descriptors, the free lists and the page lock's wait queues.
#[derive(Debug)]
pub struct Frames {
    pages: Zeroed<Page>,
    /// The arena.
    words: Zeroed<[AtomicU64; WORDS]>,
    pub(super) waits: WaitTable,
    zone: Mutex<Zone>,
    /// Tells caches apart.
    pub(super) number: u64,
}

/// Where each frame is: free, on one of reclaim's lists, pinned, or in use (`struct zone`).
#[derive(Debug)]
struct Zone {
    buddy: Buddy,
    lru: Lru,
    /// How often each frame is pinned.
    pins: Zeroed<u32>,
    /// How many frames are pinned.
    pinned: u32,
    /// The cache is closed: no frame is pinned any more.
    refuses_pins: bool,
    private: u32,
}

/// What the frames are used for, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameUsage {
    /// Frames that are not free.
    pub in_use: usize,
    /// Private copies of pages of files.
    pub private: usize,
    /// Pinned: neither list has them.
    pub pinned: usize,
    /// Pages on the active list.
    pub active: usize,
    /// Pages on the inactive list.
    pub inactive: usize,
}

impl Frames {
    /// `count` frames, none of them touched.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no frames or more than 2^30; [`Error::OutOfMemory`] for more than the system has memory
    /// for.
    pub fn new(count: usize) -> Result<Self> {
        if count == 0 || count > 1 << 30 {
            return Err(Error::InvalidArgument(format!(
                "capacity of {count} pages is not between 1 and {}",
                1 << 30
            )));
        }
        Self::allocate(count).map_err(|error| match error {
            Error::OutOfMemory { what, bytes } => {
                let what = format!("{what} of a cache with a capacity of {count} pages").into();
                Error::OutOfMemory { what, bytes }
            }
            error => error,
        })
    }

    fn allocate(count: usize) -> Result<Self> {
        static LAST: Numbers = Numbers::new();
        let zone = Zone {
            buddy: Buddy::new(count as u32)?,
            lru: Lru::new(count)?,
            pins: Zeroed::new(count, "the counts of pins")?,
            pinned: 0,
            refuses_pins: false,
            private: 0,
        };
        Ok(Self {
            number: LAST.next(),
            pages: Zeroed::new(count, "the descriptors")?,
            words: Zeroed::new(count, "the frames")?,
            waits: WaitTable::new(LOCK_BITS)?,
            zone: Mutex::new(zone),
        })
    }

    /// All frames, free or not.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.pages.len()
    }

    /// What the frames are used for.
    #[must_use]
    pub fn usage(&self) -> FrameUsage {
        let zone = self.zone.lock();
        FrameUsage {
            in_use: self.capacity() - zone.buddy.available() as usize,
            private: zone.private as usize,
            pinned: zone.pinned as usize,
            active: zone.lru.length(List::Active) as usize,
            inactive: zone.lru.length(List::Inactive) as usize,
        }
    }

    /// Number of free frames.
    pub(crate) fn available(&self) -> usize {
        self.zone.lock().buddy.available() as usize
    }

    /// Limit on private copies.
    #[must_use]
    pub fn private_limit(&self) -> usize {
        self.capacity() / 2
    }

    /// Whether private copies have reached their limit.
    pub(crate) fn is_private_full(&self) -> bool {
        self.usage().private >= self.private_limit()
    }

    /// The descriptor of frame `pfn`.
    ///
    /// # Panics
    /// When there is no such frame.
    #[inline]
    #[must_use]
    pub fn page(&self, pfn: u32) -> PageRef<'_> {
        PageRef { frames: self, page: &self.pages[pfn as usize] }
    }

    #[inline]
    pub(super) fn pfn_of(&self, page: &Page) -> u32 {
        let offset = std::ptr::from_ref(page).addr() - self.pages.as_ptr().addr();
        (offset / size_of::<Page>()) as u32
    }

    #[inline]
    pub(super) fn bytes_of(&self, pfn: u32) -> PageBytes<'_> {
        PageBytes::new(&self.words[pfn as usize])
    }

    /// The bytes of a pinned page.
    ///
    /// # Safety
    /// Nobody writes to the frame while the result lives.
    #[cfg(not(any(specmm_loom, specmm_shuttle)))]
    #[allow(unsafe_code, reason = "the promise is the pin's")]
    pub(crate) unsafe fn pinned_bytes(&self, pfn: u32) -> &[u8] {
        let words = &self.words[pfn as usize];
        // SAFETY: initialised memory of that length that outlives the borrow; by the caller's promise it is only loaded from.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
    }

    /// A frame with one reference, or `None` when none is free (or, for [`Use::Private`], the limit is reached).
    #[must_use]
    pub fn alloc(&self, purpose: Use) -> Option<PageHandle<'_>> {
        self.alloc_counting(purpose).map(|(page, _)| page)
    }

    /// As [`Frames::alloc`], with the number of frames that are left free.
    pub(crate) fn alloc_counting(&self, purpose: Use) -> Option<(PageHandle<'_>, usize)> {
        let mut zone = self.zone.lock();
        let pfn = self.take(&mut zone, purpose)?;
        let left = zone.buddy.available() as usize;
        drop(zone);
        Some((self.hand_out(pfn, 0, purpose), left))
    }

    /// As [`Frames::alloc`], but gives up where it would wait for another thread.
    #[must_use]
    pub fn try_alloc(&self, purpose: Use) -> Option<PageHandle<'_>> {
        let pfn = self.take(&mut *self.zone.try_lock()?, purpose)?;
        Some(self.hand_out(pfn, 0, purpose))
    }

    /// A compound page of `2^order` frames, or `None` when no run is free: the caller falls back to order 0.
    #[must_use]
    #[allow(dead_code, reason = "huge pages will be such")]
    pub fn alloc_compound(&self, order: u32) -> Option<PageHandle<'_>> {
        if order > super::buddy::MAX_ORDER {
            return None;
        }
        let mut zone = self.zone.lock();
        let pfn = zone.buddy.alloc(order)?;
        drop(zone);
        Some(self.hand_out(pfn, order, Use::File))
    }

    fn take(&self, zone: &mut Zone, purpose: Use) -> Option<u32> {
        if purpose == Use::Private && zone.private as usize >= self.private_limit() {
            return None;
        }
        let pfn = zone.buddy.alloc(0)?;
        match purpose {
            // Listed at once, which saves taking the mutex again: until the page is published, reclaim skips it.
            Use::File => zone.lru.push(List::Inactive, pfn),
            Use::Private => zone.private += 1,
        }
        Some(pfn)
    }

    fn hand_out(&self, pfn: u32, order: u32, purpose: Use) -> PageHandle<'_> {
        let page = self.page(pfn);
        page.tie(order);
        page.usage().put(((page.usage().get() >> usage::LIFE_SHIFT) + 1) << usage::LIFE_SHIFT);
        if purpose == Use::Private {
            page.page.flags.fetch_or(PageFlags::PRIVATE, Ordering::Relaxed);
        }
        page.init_count(1);
        page.adopt()
    }

    /// Frees a frame whose count is zero.
    pub(super) fn free(&self, page: PageRef<'_>) {
        // `free_pages_prepare`: whoever mapped, cached or locked the page has undone it before giving up a reference.
        debug_assert_eq!(page.mapcount(), 0, "freeing a mapped page");
        debug_assert!(!page.is_cached(), "freeing a cached page: {page:?}");
        // Forgotten first: once it is on a free list, the frame is its next owner's.
        seeded!(
            "free.forgotten_first",
            self.list_free(page, page.forget()),
            bug = {
                self.list_free(page, (page.flags(), page.order()));
                page.forget();
            }
        );
    }

    /// Puts a frame that had these flags, or several, on the free lists.
    fn list_free(&self, page: PageRef<'_>, (flags, order): (PageFlags, u32)) {
        let mut zone = self.zone.lock();
        debug_assert!(zone.pins[page.pfn() as usize] == 0, "freeing a pinned page");
        duty!("free.unlink", {
            zone.lru.unlink(page.pfn());
        });
        zone.private -= u32::from(flags.has(PageFlags::PRIVATE));
        zone.buddy.free(page.pfn(), order);
    }

    /// Takes up to `most` pages off the old end of a list, each with a reference (`isolate_lru_pages`).
    pub(crate) fn isolate(&self, list: List, most: usize) -> Batch<PageHandle<'_>> {
        let mut zone = self.zone.lock();
        // A count of zero: its last owner is waiting for the mutex to free it.
        let taken: Batch<_> =
            zone.lru.oldest_first(list).filter_map(|pfn| self.page(pfn).try_get()).take(most).collect();
        for page in taken.iter() {
            zone.lru.unlink(page.page().pfn());
        }
        taken
    }

    /// Puts a page that was isolated back, at the new end. The caller has a reference, or the page's lock while it is in the
    /// cache.
    pub(crate) fn put_back(&self, page: PageRef<'_>, list: List) {
        let mut zone = self.zone.lock();
        // If somebody pinned it meanwhile, they put it back, or have already: then another may have taken it off again, and so
        // on.
        if guard!("put_back.pinned", zone.pins[page.pfn() as usize] == 0)
            && guard!("put_back.once", zone.lru.list_of(page.pfn()).is_none())
        {
            zone.lru.push(list, page.pfn());
        }
    }

    /// Moves a page to the new end of a list, unless it is on none.
    pub(crate) fn move_to(&self, page: PageRef<'_>, list: List) {
        let mut zone = self.zone.lock();
        if zone.lru.unlink(page.pfn()).is_some() {
            zone.lru.push(list, page.pfn());
        }
    }

    /// Pins a page of a file; the caller keeps its reference until it unpins. Reclaim does not see the page meanwhile. False: pins
    /// are refused.
    #[must_use]
    pub(crate) fn pin(&self, page: PageRef<'_>) -> bool {
        let mut zone = self.zone.lock();
        if !guard!("pin.accepted", !zone.refuses_pins) {
            return false;
        }
        let pins = &mut zone.pins[page.pfn() as usize];
        *pins += 1;
        zone.pinned += u32::from(*pins == 1);
        duty!("pin.unlink", {
            zone.lru.unlink(page.pfn());
        });
        true
    }

    /// Refuses pins from now on, unless there are some: the number of pinned frames.
    pub(crate) fn refuse_pins(&self) -> std::result::Result<(), u32> {
        let mut zone = self.zone.lock();
        if !guard!("refuse_pins.none", zone.pinned == 0) {
            return Err(zone.pinned);
        }
        zone.refuses_pins = true;
        Ok(())
    }

    /// Ends one pin. The caller still has its reference.
    pub(crate) fn unpin(&self, page: PageRef<'_>) {
        let mut zone = self.zone.lock();
        let pins = &mut zone.pins[page.pfn() as usize];
        *pins = pins.checked_sub(1).expect("the page is pinned");
        if guard!("unpin.last", *pins == 0) {
            zone.pinned -= 1;
            // A pinned page is on no list. Reclaim may still hold it from before, and finds it here when it is done.
            zone.lru.push(List::Inactive, page.pfn());
        }
    }

    /// How often a page is pinned, so that its bytes must not change. Pins are made under the page lock.
    pub(crate) fn pins(&self, page: PageRef<'_>) -> u32 {
        self.zone.lock().pins[page.pfn() as usize]
    }

    /// The descriptors that may have been used. The others are not even read, because that would allocate memory for them.
    fn touched(&self) -> &[Page] {
        let touched = self.zone.lock().buddy.touched();
        &self.pages[..touched as usize]
    }

    /// Pages that are locked now, which are usually being read.
    pub(crate) fn count_locked(&self) -> usize {
        self.touched()
            .iter()
            .filter(|page| PageFlags(page.flags.load(Ordering::Relaxed)).has(PageFlags::LOCKED))
            .count()
    }

    /// Checks at rest: no page is locked or waited for, no free page has references, no used one lacks them. The pages
    /// `being_read` may be locked.
    ///
    /// # Errors
    /// [`Error::Invariant`] naming the page.
    pub fn audit(&self, being_read: &[u32]) -> Result<()> {
        let wrong = |page: PageRef<'_>, what: &str| Err(Error::Invariant(format!("{what}: {page:?}")));
        if !self.waits.is_idle() {
            return Err(Error::Invariant("somebody sleeps in a page wait queue".into()));
        }
        let (mut used, mut single) = (0, 0);
        for page in self.touched() {
            let page = PageRef { frames: self, page };
            if page.flags().has(PageFlags::LOCKED) && !being_read.contains(&page.pfn()) {
                return wrong(page, "locked at quiescence");
            }
            if page.refcount() > 0 {
                used += 1 << page.order();
                single += usize::from(page.order() == 0);
            } else if page.mapcount() > 0 || page.is_cached() {
                return wrong(page, "free, but mapped or cached");
            }
        }
        let FrameUsage { in_use, private, pinned, active, inactive } = self.usage();
        if in_use != used {
            return Err(Error::Invariant(format!("{in_use} frames are taken but {used} have references")));
        }
        if single != private + pinned + active + inactive {
            return Err(Error::Invariant(format!(
                "{single} frames are taken, but {private} private, {pinned} pinned, {active} active, {inactive} inactive"
            )));
        }
        Ok(())
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::super::buddy::MAX_ORDER;
    use super::*;

    #[test]
    fn the_last_reference_frees_the_frame() {
        let frames = Frames::new(2).unwrap();
        let first = frames.alloc(Use::File).unwrap();
        let second = first.page().try_get().unwrap();
        assert_eq!(first.page().refcount(), 2);
        drop(first);
        assert_eq!(frames.usage().in_use, 1);
        let page = second.page();
        drop(second);
        assert_eq!(frames.usage().in_use, 0);
        assert!(page.try_get().is_none(), "a free page gives no reference");
        frames.audit(&[]).unwrap();
    }

    #[test]
    fn private_copies_take_at_most_half() {
        let frames = Frames::new(4).unwrap();
        let copies: Vec<_> = std::iter::from_fn(|| frames.alloc(Use::Private)).collect();
        assert_eq!(copies.len(), 2);
        assert_eq!(frames.usage().in_use, 2, "what was refused took no frame");
        assert!(frames.alloc(Use::File).is_some());
        drop(copies);
        assert_eq!(frames.usage().private, 0);
    }

    #[test]
    fn tails_of_a_compound_page_name_their_head() {
        for order in 1..=MAX_ORDER {
            let count = 1 << order;
            let frames = Frames::new(2 * count as usize).unwrap();
            let single = frames.alloc(Use::File).unwrap();
            let compound = frames.alloc_compound(order).unwrap();
            let head = compound.page().pfn();
            for pfn in head..head + count {
                let page = frames.page(pfn);
                let order = if pfn == head { order } else { 0 };
                assert_eq!((page.compound_head().pfn(), page.order()), (head, order));
            }
            assert!(frames.alloc_compound(order).is_none(), "no run is left that is as long");
            frames.audit(&[]).unwrap();
            drop((single, compound));
            assert_eq!(frames.usage().in_use, 0);
            for pfn in 0..2 * count {
                let page = frames.page(pfn);
                assert_eq!((page.compound_head().pfn(), page.order()), (pfn, 0));
            }
        }
        let frames = Frames::new(4096).unwrap();
        assert!([MAX_ORDER + 1, 32, u32::MAX].iter().all(|&order| frames.alloc_compound(order).is_none()));
    }

    #[test]
    fn there_are_from_one_to_two_to_the_thirty_frames() {
        for count in [0, (1 << 30) + 1, usize::MAX] {
            assert!(matches!(Frames::new(count), Err(Error::InvalidArgument(_))), "{count}");
        }
        for count in [1, 1 << 30] {
            // The system may refuse so much address space.
            assert!(!matches!(Frames::new(count), Err(Error::InvalidArgument(_))), "{count}");
        }
    }

    #[test]
    fn each_life_of_a_frame_is_told_from_the_others() {
        let frames = Frames::new(3).unwrap();
        let other = frames.alloc_counting(Use::File).unwrap();
        assert_eq!(other.1, 2, "so many are left");
        let mut lives = vec![other.0.page().life()];
        for life in 1..5 {
            let handle = frames.alloc(Use::File).unwrap();
            handle.page().usage().set(usage::ACTIVE | usage::REFERENCED);
            assert_eq!(handle.page().life().1, life);
            lives.push(handle.page().life());
        }
        lives.sort_unstable();
        lives.dedup();
        assert_eq!(lives.len(), 5);
    }

    #[test]
    fn a_page_is_of_one_file_at_one_index_in_one_generation() {
        let frames = Frames::new(1).unwrap();
        let handle = frames.alloc(Use::File).unwrap();
        let page = handle.page();
        let lock = page.lock();
        assert!(!page.is_cached());
        lock.set_identity(7, 3);
        assert!(page.is_at(7, 3) && !page.is_at(7, 4) && !page.is_at(8, 3) && page.is_cached());
        assert_eq!((page.mapping_id(), page.index()), (7, 3));
        lock.clear_mapping();
        assert!(!page.is_at(7, 3) && !page.is_cached());
        assert_eq!(page.index(), 3, "kept");
        let seen = page.generation();
        assert!(page.is_generation(seen));
        lock.advance_generation();
        assert!(!page.is_generation(seen) && page.is_generation(page.generation()));
        assert!(!page.take_readahead());
        lock.set_readahead();
        assert_eq!(
            (page.take_readahead(), page.take_readahead()),
            (true, false),
            "one caller takes the marker"
        );
    }

    #[test]
    fn a_frozen_page_gives_no_reference() {
        let frames = Frames::new(1).unwrap();
        let handle = frames.alloc(Use::File).unwrap();
        let page = handle.page();
        let other = page.try_get().unwrap();
        assert!(!page.freeze(1) && page.refcount() == 2, "there is another reference");
        drop(other);
        assert!(page.freeze(1));
        assert!(page.try_get().is_none() && page.refcount() == 0);
        page.unfreeze(2);
        assert_eq!(page.refcount(), 2);
        drop((page.adopt(), handle));
        assert_eq!(frames.usage().in_use, 0);
    }

    #[test]
    fn a_page_is_on_one_list_or_pinned() {
        let frames = Frames::new(3).unwrap();
        let pages = [0; 3].map(|_| frames.alloc(Use::File).unwrap());
        let on = |list| {
            let zone = frames.zone.lock();
            zone.lru.oldest_first(list).collect::<Vec<_>>()
        };
        let [first, second, third] = pages.each_ref().map(|handle| handle.page().pfn());
        frames.move_to(pages[0].page(), List::Active);
        frames.move_to(pages[1].page(), List::Inactive);
        assert_eq!((on(List::Inactive), on(List::Active)), (vec![third, second], vec![first]));
        let isolated = frames.isolate(List::Inactive, 1);
        assert_eq!(isolated.iter().map(|page| page.page().pfn()).collect::<Vec<_>>(), [third]);
        frames.move_to(pages[2].page(), List::Active);
        assert_eq!((on(List::Inactive), on(List::Active)), (vec![second], vec![first]), "it is on none");
        // Pinned meanwhile: the pin puts it back, not reclaim, and it is put back once.
        assert!(frames.pin(pages[2].page()));
        frames.put_back(pages[2].page(), List::Active);
        assert_eq!((on(List::Inactive), on(List::Active)), (vec![second], vec![first]));
        frames.unpin(pages[2].page());
        frames.put_back(pages[2].page(), List::Active);
        assert_eq!((on(List::Inactive), on(List::Active)), (vec![second, third], vec![first]));
        frames.audit(&[]).unwrap();
    }

    #[test]
    fn who_waits_for_a_page_to_be_unlocked_takes_no_lock() {
        let frames = Frames::new(1).unwrap();
        let handle = frames.alloc(Use::File).unwrap();
        let page = handle.page();
        let (lock, over) = (page.lock(), AtomicU64::new(0));
        let (begins, began) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                begins.send(()).unwrap();
                page.wait_unlocked();
                assert_eq!(over.load(Ordering::Relaxed), 1);
            });
            began.recv().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(10));
            over.store(1, Ordering::Relaxed);
            drop(lock);
        });
        assert!(page.try_lock().is_some());
    }

    #[test]
    fn pins_are_refused_once_there_are_none() {
        let frames = Frames::new(1).unwrap();
        let handle = frames.alloc(Use::File).unwrap();
        assert!(frames.pin(handle.page()));
        assert_eq!(frames.refuse_pins(), Err(1));
        assert!(frames.pin(handle.page()), "what failed refuses nothing");
        frames.unpin(handle.page());
        frames.unpin(handle.page());
        assert_eq!(frames.refuse_pins(), Ok(()));
        assert!(!frames.pin(handle.page()));
        drop(handle);
        frames.audit(&[]).unwrap();
    }

    #[test]
    fn locks_exclude_and_wake() {
        let frames = Frames::new(1).unwrap();
        let handle = frames.alloc(Use::File).unwrap();
        let page = handle.page();
        let value = crate::sync::Tally::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let _lock = page.lock();
                        value.add_exclusive(1);
                    }
                });
            }
        });
        assert_eq!(value.tallied(), 8000);
        drop(handle);
        frames.audit(&[]).unwrap();
    }
}
