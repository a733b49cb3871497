//! References of entries that an unmapping has cleared and not yet put: `mmu_gather`.
//!
//! A program that read an entry just before it was cleared may still be using the page. So the entries' references are collected,
//! a grace period passes (this library's TLB flush), and only then are they put: no frame is reused while a thread can still
//! reach it through an entry. One wait serves all pages of a batch. If there is no memory to collect more, the batch ends early,
//! in [`MmuGather::make_room`].

use crate::page::Frames;

const FEW: usize = 32;

#[must_use = "finish() waits and puts the references"]
pub(crate) struct MmuGather<'f> {
    frames: &'f Frames,
    /// The first few, which need no allocation.
    few: [u32; FEW],
    length: usize,
    /// The others.
    many: Vec<u32>,
    /// Entries were write-protected: there is nothing to put, but a grace period must still pass.
    changed: bool,
}

impl<'f> MmuGather<'f> {
    pub(crate) fn new(frames: &'f Frames) -> Self {
        Self { frames, few: [0; FEW], length: 0, many: Vec::new(), changed: false }
    }

    /// Returns how many of `wanted` references can be taken now, at least one. May wait for a grace period, so it must not be
    /// called inside a read section.
    pub(crate) fn make_room(&mut self, wanted: usize) -> usize {
        if self.room() < wanted && self.many.try_reserve(wanted).is_err() && self.room() == 0 {
            self.flush();
        }
        self.room().min(wanted)
    }

    fn room(&self) -> usize {
        FEW - self.length + self.many.capacity() - self.many.len()
    }

    /// Takes over the reference of a cleared entry; there must be room for it.
    pub(crate) fn take(&mut self, pfn: u32) {
        if let Some(place) = self.few.get_mut(self.length) {
            *place = pfn;
            self.length += 1;
        } else {
            debug_assert!(self.many.len() < self.many.capacity(), "no room was made");
            self.many.push(pfn);
        }
    }

    /// Notes that an entry was write-protected.
    pub(crate) fn note_change(&mut self) {
        crate::sync::duty!("gather.note_change", self.changed = true);
    }

    /// Drops the lock first, so that threads waiting for it need not wait for the flush.
    pub(crate) fn finish_after<L>(self, lock: L) {
        drop(lock);
        self.finish();
    }

    /// Waits for the grace period and puts the references. Must not be called inside a read section; allowed under a page lock.
    pub(crate) fn finish(mut self) {
        self.flush();
    }

    fn flush(&mut self) {
        if self.length == 0 && !self.changed {
            return;
        }
        crate::sync::in_order!(
            "gather.waits_first",
            crate::sync::duty!("gather.flush", crate::rcu::synchronize()),
            self.put()
        );
        self.changed = false;
    }

    fn put(&mut self) {
        let few = std::mem::take(&mut self.length);
        for pfn in self.few[..few].iter().copied().chain(self.many.drain(..)) {
            drop(self.frames.page(pfn).adopt());
        }
    }
}
