//! What an unmapping has cleared and not yet let go: `mmu_gather`.
//!
//! A program that read an entry just before it was cleared may still be using the page. So the entries' references are
//! collected, a grace period is awaited (the TLB flush of this library), and only then are they put: no frame is reused
//! while anybody can reach it through an entry.

use super::page_table::PageTable;

#[must_use = "finish() waits and puts the references"]
pub(super) struct Gather<'t> {
    tables: &'t PageTable,
    pfns: Vec<u32>,
    /// Entries lost rights: nothing to put, but the wait is owed.
    changed: bool,
}

impl<'t> Gather<'t> {
    pub(super) fn new(tables: &'t PageTable) -> Self {
        Self { tables, pfns: Vec::new(), changed: false }
    }

    /// Takes over the reference of a cleared entry.
    pub(super) fn take(&mut self, pfn: u32) {
        self.pfns.push(pfn);
    }

    /// An entry was write-protected.
    pub(super) fn note_change(&mut self) {
        crate::sync::duty!("gather.note_change", self.changed = true);
    }

    /// Gives the lock back first: whoever waits for it need not wait for the flush.
    pub(super) fn finish_after<L>(self, lock: L) {
        drop(lock);
        self.finish();
    }

    /// Flushes and puts. Not inside a read section; allowed under a page lock.
    pub(super) fn finish(self) {
        if self.pfns.is_empty() && !self.changed {
            return;
        }
        crate::sync::duty!("gather.flush", crate::rcu::synchronize());
        for pfn in self.pfns {
            drop(self.tables.frames().page(pfn).adopt());
        }
    }
}
