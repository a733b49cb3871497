//! The mmap lock and its sequence: writers make the sequence odd while they are inside.
//!
//! Mirrors `include/linux/mmap_lock.h` with patch 9 of the series. Downgrading makes the sequence even *after* the mappings were
//! detached: a snapshot from before fails, and a fault that starts afterwards does not find them.

use super::events::{Event, Events};
use crate::sync::rwsem::RwSem;
use crate::sync::seqcount::SeqCount;
use crate::sync::{duty, in_order};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct MmapLock {
    sem: RwSem,
    pub(super) sequence: SeqCount,
    events: Arc<Events>,
}

impl MmapLock {
    pub(super) fn new(events: Arc<Events>) -> Self {
        Self { sem: RwSem::new(), sequence: SeqCount::new(), events }
    }

    /// `mmap_read_lock`.
    pub(super) fn read(&self) -> MmapRead<'_> {
        self.sem.lock_read();
        self.events.add(Event::MmapLockRead);
        MmapRead { lock: self }
    }

    /// `mmap_write_lock`.
    pub(super) fn write(&self) -> MmapWrite<'_> {
        in_order!(
            "mmap_lock.odd_inside",
            self.sem.lock_write(),
            duty!("mmap_lock.write.odd", self.sequence.write_begin())
        );
        self.events.add(Event::MmapLockWrite);
        MmapWrite { lock: self }
    }
}

/// The lock held for reading.
#[must_use = "dropping the guard unlocks"]
#[derive(Debug)]
pub(super) struct MmapRead<'a> {
    lock: &'a MmapLock,
}

impl Drop for MmapRead<'_> {
    fn drop(&mut self) {
        self.lock.sem.unlock_read();
    }
}

/// The lock held for writing; proves the right to change mappings.
#[must_use = "dropping the guard unlocks"]
#[derive(Debug)]
pub(super) struct MmapWrite<'a> {
    lock: &'a MmapLock,
}

impl<'a> MmapWrite<'a> {
    /// Lets readers in and keeps writers out (`mmap_write_downgrade`).
    pub(super) fn downgrade(self) -> MmapRead<'a> {
        let lock = std::mem::ManuallyDrop::new(self).lock;
        lock.sequence.write_end();
        lock.sem.downgrade();
        MmapRead { lock }
    }
}

impl Drop for MmapWrite<'_> {
    fn drop(&mut self) {
        // In the opposite order the next writer would be let in too early.
        in_order!(
            "mmap_lock.seed.unlock_first",
            self.lock.sequence.write_end(),
            self.lock.sem.unlock_write()
        );
    }
}
