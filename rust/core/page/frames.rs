//! The frames of one cache: a fixed number, preallocated. This is the bound.

use super::bytes::PageBytes;
use super::lock::LOCK_BITS;
use super::memory::Memory;
use super::{Page, PageFlags, PageHandle, PageRef, buddy::Buddy};
use crate::error::{Error, Result};
use crate::sync::wait::WaitTable;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};

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
    pages: Box<[Page]>,
    memory: Memory,
    pub(super) waits: WaitTable,
    free: Mutex<FreeLists>,
}

#[derive(Debug)]
struct FreeLists {
    buddy: Buddy,
    private: u32,
}

impl Frames {
    /// `count` frames.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no frames, more than 2^30, or more than the system has room for.
    pub fn new(count: usize) -> Result<Self> {
        if count == 0 || count > 1 << 30 {
            return Err(Error::InvalidArgument(format!(
                "capacity of {count} pages is not between 1 and {}",
                1 << 30
            )));
        }
        let memory = Memory::new(count)?;
        let pages = (0..count)
            .map(|_| Page {
                flags: AtomicU32::new(0),
                refcount: AtomicU32::new(0),
                mapcount: AtomicU32::new(0),
                compound: AtomicU32::new(0),
                generation: AtomicU64::new(0),
                mapping: AtomicU64::new(0),
                index: AtomicU64::new(0),
            })
            .collect();
        let buddy = Buddy::new(count as u32);
        Ok(Self {
            pages,
            memory,
            waits: WaitTable::new(LOCK_BITS),
            free: Mutex::new(FreeLists { buddy, private: 0 }),
        })
    }

    /// All frames, free or not.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.pages.len()
    }

    /// Frames in use, and how many of these are private copies.
    #[must_use]
    pub fn in_use(&self) -> (usize, usize) {
        let free = self.free.lock();
        (self.capacity() - free.buddy.available() as usize, free.private as usize)
    }

    /// The most private copies there may be.
    #[must_use]
    pub fn private_limit(&self) -> usize {
        self.capacity() / 2
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
        PageBytes::new(self.memory.words(pfn as usize))
    }

    /// A frame with one reference, or `None` when none is free (or, for [`Use::Private`], the limit is reached).
    #[must_use]
    pub fn alloc(&self, purpose: Use) -> Option<PageHandle<'_>> {
        let pfn = self.take(&mut self.free.lock(), purpose)?;
        Some(self.hand_out(pfn, 0, purpose))
    }

    /// As [`Frames::alloc`], but gives up where it would wait for another thread.
    #[must_use]
    pub fn try_alloc(&self, purpose: Use) -> Option<PageHandle<'_>> {
        let pfn = self.take(&mut *self.free.try_lock()?, purpose)?;
        Some(self.hand_out(pfn, 0, purpose))
    }

    /// A compound page of `2^order` frames, or `None` when no run is free: the caller falls back to order 0.
    #[must_use]
    pub fn alloc_compound(&self, order: u32) -> Option<PageHandle<'_>> {
        if order > super::buddy::MAX_ORDER {
            return None;
        }
        let pfn = self.free.lock().buddy.alloc(order)?;
        Some(self.hand_out(pfn, order, Use::File))
    }

    fn take(&self, free: &mut FreeLists, purpose: Use) -> Option<u32> {
        if purpose == Use::Private && free.private as usize >= self.private_limit() {
            return None;
        }
        let pfn = free.buddy.alloc(0)?;
        free.private += u32::from(purpose == Use::Private);
        Some(pfn)
    }

    fn hand_out(&self, pfn: u32, order: u32, purpose: Use) -> PageHandle<'_> {
        let page = self.page(pfn);
        page.tie(order);
        if purpose == Use::Private {
            page.page.flags.fetch_or(PageFlags::PRIVATE, Ordering::Relaxed);
        }
        page.init_count(1);
        page.adopt()
    }

    /// Takes a frame back whose count is zero. WAITERS is left alone: it belongs to the queue's mutex.
    pub(super) fn free(&self, page: PageRef<'_>) {
        // `free_pages_prepare`: whoever mapped, cached or locked the page has undone it before giving up a reference.
        debug_assert_eq!(page.mapcount(), 0, "freeing a mapped page");
        debug_assert!(!page.is_cached(), "freeing a cached page: {page:?}");
        let before = page.page.flags.fetch_and(PageFlags::WAITERS, Ordering::Relaxed);
        debug_assert!(before & PageFlags::LOCKED == 0, "freeing a locked page");
        let order = page.untie();
        let mut free = self.free.lock();
        free.private -= u32::from(before & PageFlags::PRIVATE != 0);
        free.buddy.free(page.pfn(), order);
    }

    /// What is wrong at quiescence: a locked or waited-for page, a free page with references, a used one without.
    ///
    /// # Errors
    /// [`Error::Invariant`] naming the page.
    pub fn audit(&self) -> Result<()> {
        let wrong = |page: PageRef<'_>, what: &str| Err(Error::Invariant(format!("{what}: {page:?}")));
        if !self.waits.is_idle() {
            return Err(Error::Invariant("somebody sleeps in a page wait queue".into()));
        }
        let mut used = 0;
        for pfn in 0..self.capacity() {
            let page = self.page(pfn as u32);
            if page.flags().has(PageFlags::LOCKED) {
                return wrong(page, "locked at quiescence");
            }
            if page.refcount() > 0 {
                used += 1 << page.order();
            } else if page.mapcount() > 0 || page.is_cached() {
                return wrong(page, "free, but mapped or cached");
            }
        }
        let (in_use, _) = self.in_use();
        if in_use != used {
            return Err(Error::Invariant(format!("{in_use} frames are taken but {used} have references")));
        }
        Ok(())
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_last_reference_frees_the_frame() {
        let frames = Frames::new(2).unwrap();
        let first = frames.alloc(Use::File).unwrap();
        let second = first.page().try_get().unwrap();
        assert_eq!(first.page().refcount(), 2);
        drop(first);
        assert_eq!(frames.in_use(), (1, 0));
        let page = second.page();
        drop(second);
        assert_eq!(frames.in_use(), (0, 0));
        assert!(page.try_get().is_none(), "a free page gives no reference");
        frames.audit().unwrap();
    }

    #[test]
    fn private_copies_take_at_most_half() {
        let frames = Frames::new(4).unwrap();
        let copies: Vec<_> = std::iter::from_fn(|| frames.alloc(Use::Private)).collect();
        assert_eq!(copies.len(), 2);
        assert!(frames.alloc(Use::File).is_some());
        drop(copies);
        assert_eq!(frames.in_use().1, 0);
    }

    #[test]
    fn tails_of_a_compound_page_name_their_head() {
        let frames = Frames::new(8).unwrap();
        let single = frames.alloc(Use::File).unwrap();
        let compound = frames.alloc_compound(2).unwrap();
        let head = compound.page().pfn();
        for pfn in head..head + 4 {
            assert_eq!(frames.page(pfn).compound_head().pfn(), head);
        }
        assert!(frames.alloc_compound(2).is_none(), "no run of four is left");
        frames.audit().unwrap();
        drop((single, compound));
        assert_eq!(frames.in_use().0, 0);
        assert_eq!(frames.page(head + 1).compound_head().pfn(), head + 1);
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
        assert_eq!(value.get(), 8000);
        drop(handle);
        frames.audit().unwrap();
    }
}
