//! References that keep a frame from being reused.
//!
//! Mirrors `include/linux/page_ref.h` and the lookup protocol described in `pagemap.h`: a lookup finds the page, takes a
//! reference unless the count is zero, then checks that the page is still there; a remover freezes the count at zero, removes the
//! page, and frees it. Either the remover sees the reference and gives up, or the lookup sees zero, or it sees that the slot has
//! changed.
//!
//! The cache holds one reference on each of its pages, each page-table entry one, each [`PageHandle`] one.

use super::PageRef;
use crate::sync::{Ordering, guard, ord, ordered_fence};
use std::mem::ManuallyDrop;

/// One reference on a page; dropping it puts the reference, and the last one frees the frame.
#[must_use = "dropping the handle puts the reference"]
pub struct PageHandle<'f> {
    page: PageRef<'f>,
}

impl<'f> PageRef<'f> {
    /// References now. Only a hint while other threads run.
    #[must_use]
    pub fn refcount(self) -> u32 {
        self.page.refcount.load(Ordering::Relaxed)
    }

    /// Takes a reference unless the page is frozen or free (`get_page_unless_zero`).
    #[inline]
    #[must_use]
    pub fn try_get(self) -> Option<PageHandle<'f>> {
        let mut count = self.page.refcount.load_then_write(Ordering::Relaxed);
        while guard!("page.get.unless_zero", count != 0) {
            // Acquire: pairs with the Release of the unfreeze and of the puts of the frame's former life, which every later
            // change of the count continues; so the slot recheck that follows sees that the page was taken out.
            match self.page.refcount.compare_exchange(
                count,
                count.wrapping_add(1),
                ord!("page.get.acquire", Acquire),
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(PageHandle { page: self }),
                Err(found) => count = found,
            }
        }
        None
    }

    /// Takes one more reference where the caller knows that one exists (`get_page`).
    pub(crate) fn get(self) -> PageHandle<'f> {
        // Relaxed: an existing reference keeps the page; the caller's own order carries over.
        let before = self.page.refcount.fetch_add(1, Ordering::Relaxed);
        debug_assert!(before > 0, "get on a free page");
        PageHandle { page: self }
    }

    /// Takes over a reference that was given up with [`PageHandle::into_pfn`].
    pub(crate) fn adopt(self) -> PageHandle<'f> {
        debug_assert!(self.refcount() > 0, "no reference to adopt on page {}", self.pfn());
        PageHandle { page: self }
    }

    /// Removes all `expected` references at once, if there are no others (`page_ref_freeze`). Afterwards nobody can take one, and
    /// the caller must unfreeze or free.
    pub(crate) fn freeze(self, expected: u32) -> bool {
        // Relaxed: that one exchange decides between a lookup and a remover is a matter of this word alone, and what earlier
        // owners did is ordered by the last put. (A check for dirty after the freeze will need Acquire.)
        guard!(
            "page.freeze.expected",
            self.page.refcount.compare_exchange(expected, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        )
    }

    /// Gives a free frame's page its first reference. A swap, not a store: two threads read-modify-write this word.
    pub(super) fn init_count(self, count: u32) {
        // Relaxed: a read-modify-write continues the Release of the former life's puts, with which `try_get` pairs.
        self.page.refcount.swap(count, Ordering::Relaxed);
    }

    /// Ends a freeze (`page_ref_unfreeze`): the caller now owns `count` references.
    pub(crate) fn unfreeze(self, count: u32) {
        // Pairs with the Acquire in `try_get`: whoever gets a reference after the freeze sees that the slot has changed.
        self.page.refcount.swap(count, ord!("page.unfreeze.release", Release));
    }
}

impl<'f> PageHandle<'f> {
    /// The page, without the reference.
    #[inline]
    #[must_use]
    pub fn page(&self) -> PageRef<'f> {
        self.page
    }

    /// Gives the reference to something that keeps a frame number (a page-table entry, the cache, an I/O request).
    #[inline]
    pub(crate) fn into_pfn(self) -> u32 {
        ManuallyDrop::new(self).page.pfn()
    }
}

impl Drop for PageHandle<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: this owner's accesses happen before the frame's next life. Pairs with the fence below, and with the
        // Acquire of a `try_get` that finds the frame in its next life.
        let before = self.page.page.refcount.fetch_sub(1, ord!("page.put.release", Release));
        debug_assert!(before > 0, "put on a free page");
        if before == 1 {
            ordered_fence!("page.put.last.fence", Acquire);
            self.page.frames.free(self.page);
        }
    }
}

impl std::fmt::Debug for PageHandle<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.page.fmt(f)
    }
}
