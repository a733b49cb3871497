//! A sequence count: readers detect that a writer was at work, and never wait for one.
//!
//! Mirrors `mmap_seq` of the speculative page-fault series (patch 9). The writer side is serialised by a lock that the caller
//! holds. The protected data must itself be read with relaxed atomics.
//!
//! | word | even | odd |
//! |---|---|---|
//! | `sequence` | no writer | a writer is between [`SeqCount::write_begin`] and [`SeqCount::write_end`] |
//!
//! 64 bits: at one write per nanosecond it wraps after 584 years, so a reader never sees an old value come back.

use super::{AtomicU64, Ordering, guard, in_order, ord, ordered_fence};

/// Set in the sequence while a writer is inside.
const ODD: u64 = 1;

/// The count; even while there is no writer.
#[derive(Debug)]
pub struct SeqCount {
    sequence: AtomicU64,
}

impl Default for SeqCount {
    fn default() -> Self {
        Self::new()
    }
}

impl SeqCount {
    /// A count at zero: no writer.
    #[must_use]
    pub fn new() -> Self {
        Self { sequence: AtomicU64::new(0) }
    }

    /// The count now, or `None` while a writer is inside.
    #[inline]
    pub fn read_start(&self) -> Option<u64> {
        // Pairs with the Release in `write_end`: a reader that sees the even value sees everything written before it.
        let sequence = self.sequence.load(ord!("seq.start.acquire", Acquire));
        if guard!("seq.start.even", sequence & ODD == 0) { Some(sequence) } else { None }
    }

    /// Whether no writer has begun since [`SeqCount::read_start`] returned `start`.
    #[inline]
    #[must_use]
    pub fn read_check(&self, start: u64) -> bool {
        // Pairs with the fence in `write_begin`: a reader that saw one protected store sees the odd value here.
        let sequence;
        in_order!(
            "seq.check.fence_first",
            ordered_fence!("seq.check.fence", Acquire),
            sequence = self.sequence.load(Ordering::Relaxed)
        );
        sequence == start
    }

    /// Makes the count odd. The caller holds the writers' lock.
    pub fn write_begin(&self) {
        let sequence = self.sequence.load_then_write(Ordering::Relaxed);
        debug_assert!(sequence & ODD == 0, "two writers inside one sequence");
        // Pairs with the fence in `read_check`: no protected store becomes visible before the odd value.
        in_order!(
            "seq.begin.odd_first",
            self.sequence.store(sequence + 1, Ordering::Relaxed),
            ordered_fence!("seq.begin.fence", Release)
        );
    }

    /// Makes the count even again.
    pub fn write_end(&self) {
        let sequence = self.sequence.load_then_write(Ordering::Relaxed);
        debug_assert!(
            sequence & ODD != 0 || cfg!(any(specmm_loom, specmm_shuttle)),
            "no writer inside the sequence"
        );
        // Pairs with the Acquire in `read_start`. (A mutant leaves `write_begin` out: it changes the count here only.)
        self.sequence.store((sequence | ODD) + 1, ord!("seq.end.release", Release));
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::SeqCount;

    #[test]
    fn a_reader_notices_each_writer() {
        let sequence = SeqCount::default();
        for _ in 0..3 {
            let start = sequence.read_start().expect("no writer is inside");
            assert!(sequence.read_check(start));
            sequence.write_begin();
            assert!(sequence.read_start().is_none() && !sequence.read_check(start));
            sequence.write_end();
            assert!(!sequence.read_check(start));
        }
    }
}
