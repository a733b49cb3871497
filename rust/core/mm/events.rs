//! The counters of one address space, named as in `/proc/vmstat`.

use crate::cache::Abort;
use crate::stats::Sharded;

// One row an event: the variant, its name, what it counts.
macro_rules! events {
    ($($(#[$attribute:meta])* $variant:ident $name:literal $doc:literal,)*) => {
        /// What is counted, besides one counter for each [`Abort`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Event {
            $(#[doc = $doc] $(#[$attribute])* $variant,)*
        }

        const NAMED: &[(&str, &str)] = &[$(($name, $doc)),*];
    };
}

events! {
    Pgfault "pgfault" "A fault, counted once however often it was tried.",
    Pgmajfault "pgmajfault" "A classic look at the page cache that found the page absent.",
    MajFlt "maj_flt" "A fault that succeeded after a read or a wait.",
    MinFlt "min_flt" "A fault that succeeded without a read or a wait.",
    SpfAttempt "spf_attempt" "A speculative attempt began.",
    SpfCommit "spf_commit" "A speculative attempt ended with the entry in place, set by it or by a twin.",
    SpfAbort "spf_abort" "A speculative attempt gave up.",
    #[expect(dead_code, reason = "a mode to come")]
    VmaLockSuccess "vma_lock_success" "Reserved for a per-VMA lock mode, which this release lacks: always 0.",
    #[expect(dead_code, reason = "a mode to come")]
    VmaLockAbort "vma_lock_abort" "Reserved for a per-VMA lock mode, which this release lacks: always 0.",
    #[expect(dead_code, reason = "a mode to come")]
    VmaLockRetry "vma_lock_retry" "Reserved for a per-VMA lock mode, which this release lacks: always 0.",
    #[expect(dead_code, reason = "a mode to come")]
    VmaLockMiss "vma_lock_miss" "Reserved for a per-VMA lock mode, which this release lacks: always 0.",
    MmapLockRead "mmap_lock_read" "The mmap lock was taken for reading.",
    MmapLockWrite "mmap_lock_write" "The mmap lock was taken for writing.",
}

const EVENTS: usize = NAMED.len();
const ALL: usize = EVENTS + Abort::ALL.len();

/// The counters.
#[derive(Debug)]
pub struct Events {
    counts: Sharded<ALL>,
}

impl Events {
    /// All zero.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn new() -> crate::Result<Self> {
        Ok(Self { counts: Sharded::new()? })
    }

    /// Counts one `event`.
    #[inline]
    pub fn add(&self, event: Event) {
        self.counts.add(event as usize, 1);
    }

    /// Counts an aborted attempt: the total and its cause.
    pub fn add_abort(&self, cause: Abort) {
        self.add(Event::SpfAbort);
        self.counts.add(EVENTS + cause as usize, 1);
    }

    /// The sum of one event.
    #[must_use]
    pub fn sum(&self, event: Event) -> u64 {
        self.counts.sum(event as usize)
    }

    /// The sum of one abort cause.
    #[must_use]
    pub fn sum_abort(&self, cause: Abort) -> u64 {
        self.counts.sum(EVENTS + cause as usize)
    }

    /// Whether attempts are commits plus aborts, and aborts the sum of their causes. True whenever no fault is running.
    #[must_use]
    pub fn balance(&self) -> bool {
        let causes: u64 = Abort::ALL.iter().map(|cause| self.sum_abort(*cause)).sum();
        let aborts = self.sum(Event::SpfAbort);
        aborts == causes && self.sum(Event::SpfAttempt) == self.sum(Event::SpfCommit) + aborts
    }

    /// Every counter's name with what it counts: the events, then the abort causes.
    pub fn glosses() -> impl Iterator<Item = (&'static str, &'static str)> {
        let causes = Abort::ALL.iter().map(|cause| (cause.event(), cause.gloss()));
        NAMED.iter().copied().chain(causes)
    }

    /// Every counter by name.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        Self::glosses().enumerate().map(|(at, (name, _))| (name, self.counts.sum(at))).collect()
    }
}
