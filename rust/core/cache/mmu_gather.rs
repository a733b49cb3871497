//! What an unmapping has cleared and not yet let go: `mmu_gather`.
//!
//! A program that read an entry just before it was cleared may still be using the page. So the entries' references are
//! collected, a grace period is awaited (the TLB flush of this library), and only then are they put: no frame is reused
//! while anybody can reach it through an entry. One wait serves all pages of a batch.

use crate::page::Frames;

#[must_use = "finish() waits and puts the references"]
pub(crate) struct MmuGather<'f> {
    frames: &'f Frames,
    pfns: Vec<u32>,
    /// Entries lost rights: nothing to put, but the wait is owed.
    changed: bool,
}

impl<'f> MmuGather<'f> {
    pub(crate) fn new(frames: &'f Frames) -> Self {
        Self { frames, pfns: Vec::new(), changed: false }
    }

    /// Takes over the reference of a cleared entry.
    pub(crate) fn take(&mut self, pfn: u32) {
        self.pfns.push(pfn);
    }

    /// An entry was write-protected.
    pub(crate) fn note_change(&mut self) {
        crate::sync::duty!("gather.note_change", self.changed = true);
    }

    /// Gives the lock back first: whoever waits for it need not wait for the flush.
    pub(crate) fn finish_after<L>(self, lock: L) {
        drop(lock);
        self.finish();
    }

    /// Flushes and puts. Not inside a read section; allowed under a page lock.
    pub(crate) fn finish(self) {
        if self.pfns.is_empty() && !self.changed {
            return;
        }
        crate::sync::duty!("gather.flush", crate::rcu::synchronize());
        for pfn in self.pfns {
            drop(self.frames.page(pfn).adopt());
        }
    }
}
