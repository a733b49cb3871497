//! Taking `invalidate_lock` for a file whose store may stall.
//!
//! Owns: the order in which readers and writers of the lock wait. Does not own the lock (`address_space`). Creating a page takes
//! it for reading, changing the size for writing. Reads of a store that may stall begin under it, and a writer first waits for
//! those that have begun, so no thread that holds the lock waits for a store. Mirrors `filemap_invalidate_lock` of Linux 5.15.

use super::address_space::AddressSpace;
use super::patience::Closed;
use super::wait::Wait;
use crate::error::Error;
use crate::sync::rwsem::{ReadGuard, WriteGuard};
use crate::sync::{AtomicU64, Ordering, guard};

/// Takes `invalidate_lock` for reading. If the store may stall, only when that is possible at once and no thread waits to
/// truncate.
pub(super) fn stable(mapping: &AddressSpace) -> Option<ReadGuard<'_>> {
    if !mapping.read_by.may_stall() {
        return Some(mapping.invalidate_lock.read_guard());
    }
    // So that successive readers cannot starve a truncation. Missing one that starts right now costs it another round.
    if mapping.truncaters.load(Ordering::Relaxed) > 0 {
        None
    } else {
        mapping.invalidate_lock.try_read_guard()
    }
}

/// Takes `invalidate_lock` for writing, at a moment when no store that may stall is reading pages from `first` on. None starts
/// while the lock is held, because such reads begin under it: so a thread that holds the lock waits for no store. `closed` ends
/// the wait.
pub(super) fn quiet<'f>(
    mapping: &'f AddressSpace,
    first: u64,
    closed: Option<&Closed>,
) -> Result<WriteGuard<'f>, Error> {
    if !mapping.read_by.may_stall() {
        return Ok(mapping.invalidate_lock.write_guard());
    }
    let _waiting = Waiting::new(&mapping.truncaters);
    let wait = Wait::new(mapping, closed);
    let io = &mapping.shared.io;
    loop {
        wait.until(first, || (!io.reads(mapping.id(), first)).then_some(()))?;
        let inside = wait.until(first, || mapping.invalidate_lock.try_write_guard())?;
        if guard!("quiet.none_began", !io.reads(mapping.id(), first)) {
            return Ok(inside);
        }
    }
}

/// Counts a waiting thread while this exists.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
