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
        Self { frames, few: [u32::MAX; FEW], length: 0, many: Vec::new(), changed: false }
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

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::page::Use;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn take(gather: &mut MmuGather<'_>, frames: &Frames, pages: usize) {
        for _ in 0..pages {
            gather.take(frames.alloc(Use::File).unwrap().into_pfn());
        }
    }

    #[test]
    fn references_are_put_when_all_are_there_and_not_before() {
        let frames = Frames::new(200).unwrap();
        for pages in [0, 1, 2, FEW - 1, FEW, FEW + 1, 150] {
            let mut gather = MmuGather::new(&frames);
            for _ in 0..pages {
                assert_eq!(gather.make_room(1), 1);
                take(&mut gather, &frames, 1);
            }
            assert_eq!(frames.usage().in_use, pages);
            assert_eq!(gather.many.capacity() == 0, pages <= FEW, "the first few need no allocation");
            gather.finish();
            assert_eq!(frames.usage().in_use, 0, "of {pages}");
        }
        frames.audit(&[]).unwrap();
    }

    #[test]
    fn room_is_made_for_many_at_once() {
        let frames = Frames::new(200).unwrap();
        let mut gather = MmuGather::new(&frames);
        for pages in [3, FEW, 100, 1] {
            assert_eq!(gather.make_room(pages), pages);
            take(&mut gather, &frames, pages);
        }
        gather.finish();
        frames.audit(&[]).unwrap();
        assert_eq!(frames.usage().in_use, 0);
    }

    #[test]
    fn a_batch_ends_early_where_there_is_neither_room_nor_memory() {
        let frames = Frames::new(200).unwrap();
        let mut gather = MmuGather::new(&frames);
        // No list is that long. How many are taken, for how many more there is room, and how many are not yet put.
        for (taken, room, left) in [(0, FEW, 0), (FEW - 1, 1, FEW - 1), (1, FEW, 0), (2, FEW - 2, 2)] {
            take(&mut gather, &frames, taken);
            assert_eq!((gather.make_room(usize::MAX), frames.usage().in_use), (room, left), "{taken} more");
        }
        gather.finish();
        frames.audit(&[]).unwrap();
    }

    #[test]
    fn the_end_waits_for_a_grace_period_only_if_an_entry_has_changed() {
        let frames = Frames::new(2).unwrap();
        // A wait inside a read section is refused.
        let waits = |gather: MmuGather<'_>| {
            let section = crate::rcu::read();
            let ended = catch_unwind(AssertUnwindSafe(|| gather.finish()));
            drop(section);
            ended.is_err()
        };
        assert!(!waits(MmuGather::new(&frames)));
        let mut gather = MmuGather::new(&frames);
        gather.note_change();
        assert!(waits(gather));
        let mut gather = MmuGather::new(&frames);
        take(&mut gather, &frames, 1);
        assert!(waits(gather));
    }

    #[test]
    fn the_lock_is_let_go_before_the_wait() {
        struct Lock<'f>(&'f Frames);
        impl Drop for Lock<'_> {
            fn drop(&mut self) {
                assert_eq!(self.0.usage().in_use, 1, "the reference is still there");
            }
        }
        let frames = Frames::new(1).unwrap();
        let mut gather = MmuGather::new(&frames);
        take(&mut gather, &frames, 1);
        gather.finish_after(Lock(&frames));
        assert_eq!(frames.usage().in_use, 0);
    }
}
