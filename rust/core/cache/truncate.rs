//! Making a file shorter or longer under its users.
//!
//! Owns: the order of truncation. Mirrors `truncate_setsize`, `truncate_inode_pages` and `unmap_mapping_range`:
//! size, unmap, then page by page: lock, unmap again if mapped, take out of the cache, unlock, put; then unmap once more
//! for private copies made meanwhile. A fault that passed its size check before the shrink holds the page lock (so we
//! wait for it and unmap what it set) or finds its page without a mapping.
//!
//! The whole of it holds `invalidate_lock`, so no page is created from a state of the store that is about to go.

use super::address_space::index_of;
use super::{AddressSpace, OpenFile};
use crate::error::{Error, IoError, Result};
use crate::page::{LockedPage, PAGE_SIZE};
use crate::store::MAX_SIZE;
use crate::sync::{duty, give_back, guard, seeded};
use std::io;

/// Everything from a page on.
const TO_THE_END: u64 = u64::MAX;

/// The answer of [`AddressSpace::judge_read_error`].
pub(crate) enum ReadError {
    /// The store has become shorter: the file ends before the page, at this size.
    Beyond(u64),
    /// The store was changed, and the page is still in the file: it can be read again.
    Changed,
    /// The page cannot be read; the size now.
    Unreadable(u64, IoError),
}

impl AddressSpace {
    /// Changes the size; `change_store` does it to the store. When that fails the old size is put back: the pages are clean,
    /// so nothing is lost. `open` is the open file whose closing ends the wait for reads.
    pub(super) fn truncate(
        &self,
        size: u64,
        open: Option<&OpenFile>,
        change_store: impl FnOnce(u64) -> io::Result<()>,
    ) -> Result<()> {
        if size > MAX_SIZE {
            return Err(Error::InvalidArgument(format!("size {size} exceeds {MAX_SIZE} bytes (16 TiB)")));
        }
        // Whoever waits for reads here may leave, because nothing has changed yet.
        let first = if self.coherence.says() { 0 } else { index_of(size) };
        let quiet = || self.quiet(first, open);
        let stable = seeded!("truncate.invalidate_lock", None, Some(quiet()?));
        // What others did before is not ours. (A store that cannot say is asked again before the next read.)
        let _met_again = self.follow_changes_inside();
        let before = self.i_size();
        if size < before {
            self.shrink_pages(size);
        }
        let result = change_store(size).map_err(|error| Error::Io(IoError::new(error, &self.name)));
        if result.is_ok() {
            self.zero_tail(size);
            self.i_size_write(size);
        } else {
            self.i_size_write(before);
        }
        self.note_own_change();
        drop(stable);
        crate::rcu::barrier();
        result
    }

    /// Whether a page whose read failed may be had by another read.
    pub(super) fn may_come(&self, cause: &IoError) -> bool {
        cause.is_change() && self.coherence.may_vouch()
    }

    /// What a failed read means.
    pub(crate) fn judge_read_error(&self, index: u64, cause: IoError) -> ReadError {
        if self.may_come(&cause) && self.follow_changes().is_ok() {
            return self.ends_before(index).map_or(ReadError::Changed, ReadError::Beyond);
        }
        if cause.is_short_read() && self.revalidate(false).is_ok() {
            if let Some(size) = self.ends_before(index) {
                return ReadError::Beyond(size);
            }
            if cause.size_expected().is_some_and(|size| size != self.i_size()) {
                return ReadError::Changed;
            }
        }
        ReadError::Unreadable(self.i_size(), cause)
    }

    pub(super) fn drop_partial_page(&self, size: u64) {
        if size % PAGE_SIZE as u64 == 0 {
            return;
        }
        let index = size / PAGE_SIZE as u64;
        self.unmap(index, index, false);
        let Some(handle) = self.find_get_page(index, &crate::rcu::read()) else { return };
        let lock = handle.page().lock();
        self.truncate_page(&lock);
        drop(lock);
    }

    /// The cache's part of a shrink (`truncate_setsize`).
    pub(crate) fn shrink_pages(&self, size: u64) {
        duty!("truncate.size_first", self.i_size_write(size));
        let first = size.div_ceil(PAGE_SIZE as u64);
        // Only so that few pages are left to unmap one by one.
        self.unmap(first, TO_THE_END, true);
        self.truncate_pages(first);
        // Private copies that faults made between the two sweeps.
        duty!("truncate.unmap_again", self.unmap(first, TO_THE_END, true));
    }

    /// Takes every page from `first` on out of the cache, waiting for their owners (`truncate_inode_pages`).
    /// Answers how many there were.
    pub(super) fn truncate_pages(&self, first: u64) -> u64 {
        let mut dropped = 0;
        let mut next = Some(first);
        loop {
            let section = crate::rcu::read();
            let found = next.and_then(|from| self.pages.next(from, TO_THE_END, None, &section));
            let Some((index, entry)) = found else { return dropped };
            if entry.as_page().is_none() {
                drop(section);
                duty!("truncate.shadow", self.shared.workingset.forget_shadow(&self.pages, index));
                next = index.checked_add(1);
                continue;
            }
            let handle = self.find_get_page(index, &section);
            drop(section);
            // Removed meanwhile: look again, its shadow is there now.
            let Some(handle) = handle else { continue };
            let lock = handle.page().lock();
            self.truncate_page(&lock);
            dropped += 1;
            next = index.checked_add(1);
        }
    }

    /// One locked page (`truncate_cleanup_page`, `page_cache_delete`). The caller has a reference of its own. That the page was
    /// found with it is enough to know that it is still there: other truncations wait for `invalidate_lock`, and removal of
    /// idle pages fails against the reference.
    pub(super) fn truncate_page(&self, lock: &LockedPage<'_>) {
        let page = lock.page();
        debug_assert!(page.is_at(self.id(), page.index()), "somebody else removed {page:?}");
        // A fault may have set an entry after the bulk unmap and before we had the lock.
        if !guard!("truncate.unmap_locked", page.mapcount() == 0) {
            self.unmap(page.index(), page.index(), false);
        }
        debug_assert!(page.mapcount() == 0, "truncated while mapped: {page:?}");
        give_back!("truncate.put", self.delete(lock));
        self.note_shadows(page.index());
    }

    /// Zeroes the last page beyond the end, if it is cached.
    pub(super) fn zero_tail(&self, size: u64) {
        let (index, within) = (size / PAGE_SIZE as u64, (size % PAGE_SIZE as u64) as usize);
        if within == 0 {
            return;
        }
        let Some(handle) = self.find_get_page(index, &crate::rcu::read()) else { return };
        let page = handle.page();
        let lock = page.lock();
        debug_assert!(page.is_at(self.id(), index), "somebody else removed {page:?}");
        // A pinned page's bytes stay as they are: whoever reads the file next reads them anew, into another frame.
        if !guard!("zero_tail.pinned", self.frames().pins(page) == 0) {
            return self.truncate_page(&lock);
        }
        duty!("zero_tail.generation", lock.advance_generation());
        page.bytes().zero_from(within);
        drop(lock);
    }
}
