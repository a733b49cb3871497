//! The page lock, and the changes of state that only its owner may make.
//!
//! Mirrors `lock_page`, `trylock_page` and `unlock_page`. The word and the queue are `sync::wait`; this file ties them
//! to pages. A [`LockedPage`] holds no reference: descriptors are type-stable, and a locked page that is in the cache
//! stays there, because truncation and reclaim need the lock.

use super::{PageFlags, PageRef};
use crate::sync::wait::{LockBits, Patience};
use crate::sync::{Ordering, guard, ord};

/// The lock bits of a page's flags word.
pub(super) const LOCK_BITS: LockBits = LockBits { locked: PageFlags::LOCKED, waiters: PageFlags::WAITERS };

/// A page this thread (or I/O request) has locked; dropping it unlocks.
#[must_use = "dropping this unlocks the page"]
#[derive(Debug)]
pub struct LockedPage<'f> {
    page: PageRef<'f>,
}

impl<'f> PageRef<'f> {
    /// Tries once (`trylock_page`).
    #[inline]
    #[must_use]
    pub fn try_lock(self) -> Option<LockedPage<'f>> {
        self.frames.waits.try_lock(&self.page.flags).then(|| LockedPage { page: self })
    }

    /// Waits for the lock (`lock_page`).
    pub fn lock(self) -> LockedPage<'f> {
        self.frames.waits.lock(&self.page.flags);
        LockedPage { page: self }
    }

    /// Waits for the lock as long as `patience` lasts (`lock_page_killable`).
    pub fn lock_patiently(self, patience: &Patience<'_>) -> Option<LockedPage<'f>> {
        self.frames.waits.lock_patiently(&self.page.flags, patience).then(|| LockedPage { page: self })
    }

    /// Waits until the page was seen unlocked, as long as `patience` lasts (`wait_on_page_locked_killable`); false if it was not
    /// seen so.
    #[must_use]
    pub fn wait_unlocked_patiently(self, patience: &Patience<'_>) -> bool {
        self.frames.waits.wait_unlocked_patiently(&self.page.flags, patience)
    }

    /// Waits until the page was seen unlocked (`wait_on_page_locked`).
    #[allow(dead_code, reason = "reads that an event loop awaits will")]
    pub fn wait_unlocked(self) {
        self.frames.waits.wait_unlocked(&self.page.flags);
    }

    /// Takes over a lock that was given up with [`LockedPage::into_pfn`].
    pub(crate) fn adopt_lock(self) -> LockedPage<'f> {
        debug_assert!(self.flags().has(PageFlags::LOCKED), "no lock to adopt on page {}", self.pfn());
        LockedPage { page: self }
    }

    /// Clears the marker and returns whether this caller cleared it (`TestClearPageReadahead`): of several callers that meet a
    /// marker, one starts the window.
    pub(crate) fn take_readahead(self) -> bool {
        let before = self.page.flags.fetch_and(!PageFlags::READAHEAD, Ordering::Relaxed);
        guard!("page.readahead.was_set", before & PageFlags::READAHEAD != 0)
    }
}

impl<'f> LockedPage<'f> {
    /// The page, without the lock.
    #[inline]
    #[must_use]
    pub fn page(&self) -> PageRef<'f> {
        self.page
    }

    /// Declares that the bytes are the file's. Everything written to them before is visible to whoever sees the flag.
    pub fn set_uptodate(&self) {
        // Pairs with the Acquire of `PageRef::flags`.
        self.page.page.flags.fetch_or(PageFlags::UPTODATE, ord!("page.uptodate.release", Release));
    }

    /// Sets the marker that starts the next window.
    pub(crate) fn set_readahead(&self) {
        self.page.page.flags.fetch_or(PageFlags::READAHEAD, Ordering::Relaxed);
    }

    /// Gives the page an identity before it is published in its mapping.
    pub(crate) fn set_identity(&self, mapping: u64, index: u64) {
        // Relaxed: published by the Release store into the slot, or by the unlock.
        self.page.page.index.store(index, Ordering::Relaxed);
        self.page.page.mapping.store(mapping, Ordering::Relaxed);
    }

    /// Takes the identity away; the slot is already empty. The index is kept, as in Linux.
    pub(crate) fn clear_mapping(&self) {
        self.page.page.mapping.store(0, Ordering::Relaxed);
    }

    /// Tells copiers without a reference that they may have read another page. Called after slot, mapping and size have changed
    /// and before any byte does. The fence that keeps later bytes after it precedes every change of bytes (`PageBytes::write`):
    /// the frame's next owner may be another thread.
    pub(crate) fn advance_generation(&self) {
        // Release pairs with the Acquire in `PageRef::generation`.
        self.page.page.generation.fetch_add(1, ord!("page.advance.release", Release));
    }

    /// Keeps the lock with something that stores a frame number (an I/O request).
    pub(crate) fn into_pfn(self) -> u32 {
        std::mem::ManuallyDrop::new(self).page.pfn()
    }
}

impl Drop for LockedPage<'_> {
    #[inline]
    fn drop(&mut self) {
        self.page.frames.waits.unlock(&self.page.page.flags);
    }
}
