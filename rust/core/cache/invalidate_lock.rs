//! Entering `invalidate_lock` where a store may stall.
//!
//! Owns: who waits for whom. Creating a page enters as a reader, changing the size as the writer; reads of a store that may stall
//! begin under it, and whoever enters as the writer has waited for those that had begun, so whoever is inside waits for no store.
//! Mirrors `filemap_invalidate_lock` of Linux 5.15.

use super::address_space::AddressSpace;
use super::patience::Closed;
use super::wait::Wait;
use crate::error::Error;
use crate::sync::rwsem::{ReadGuard, WriteGuard};
use crate::sync::{Tally, guard};

/// Enters `invalidate_lock` as a reader; with a store that may stall only if that can be had at once, and nobody waits to
/// truncate.
pub(super) fn stable(mapping: &AddressSpace) -> Option<ReadGuard<'_>> {
    if !mapping.read_by.may_stall() {
        return Some(mapping.invalidate_lock.read_guard());
    }
    // So that readers, one after the other, cannot keep a truncation out for ever. A look that comes early costs it a round.
    if mapping.truncaters.get() > 0 { None } else { mapping.invalidate_lock.try_read_guard() }
}

/// Enters `invalidate_lock` as the writer, at a moment when no store that may stall is reading pages from `first` on. From
/// then on none does, because such reads begin under this lock: so whoever is inside waits for no store. `closed`
/// ends the wait.
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

/// Counts a thread as long as it lives.
struct Waiting<'a>(&'a Tally);

impl<'a> Waiting<'a> {
    fn new(count: &'a Tally) -> Self {
        count.add(1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}
