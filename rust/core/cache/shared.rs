//! State that all files of one cache share.
//!
//! Owns: the frames, and the counters, the queue and the shadows beside them. Does not own the files, which are only
//! [`CachedFile`](super::registry::CachedFile)s here. Every part synchronises itself. Linux has all of this once per machine.

use super::in_flight::InFlight;
use super::io::{Io, IoQueue};
use super::registry::Registry;
use super::stats::{CacheStats, Counters, Gauges, Stat};
use super::workingset::Workingset;
use crate::error::{Error, Holders, Result};
use crate::page::Frames;
use crate::sync::{AtomicU32, AtomicU64, Guess, Ordering, Tally};
use std::sync::Arc;
use std::time::Duration;

/// State that all files of one cache share.
pub(crate) struct Shared {
    pub(crate) frames: Frames,
    pub(super) xarray_nodes: Arc<Tally>,
    /// Page tables of all address spaces.
    pub(crate) page_tables: Arc<Guess>,
    pub(super) io: IoQueue,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) workingset: Workingset,
    /// References of replaced entries that await a grace period.
    pub(crate) deferred_puts: AtomicU64,
    /// How long a request waits for a frame when none can be freed.
    pub(super) frame_timeout: Duration,
    stats: Counters,
    pub(super) closed: AtomicU32,
    pub(super) files: Registry,
}

impl Shared {
    /// Under a model checker no thread waits for a frame: it does not explore time-outs.
    #[cfg(all(test, specmm_loom))]
    pub(crate) fn new(frames: usize, io: Io) -> Result<Arc<Self>> {
        Self::with_timeout(frames, io, Duration::ZERO)
    }

    pub(crate) fn with_timeout(frames: usize, io: Io, frame_timeout: Duration) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            frames: Frames::new(frames)?,
            xarray_nodes: Arc::new(Tally::new()),
            page_tables: Arc::new(Guess::new()),
            io: IoQueue::new(io)?,
            in_flight: InFlight::new(frames),
            workingset: Workingset::new(),
            deferred_puts: AtomicU64::new(0),
            frame_timeout,
            stats: Counters::new()?,
            closed: AtomicU32::new(0),
            files: Registry::default(),
        }))
    }

    #[inline]
    pub(crate) fn count(&self, stat: Stat, n: u64) {
        self.stats.add(stat as usize, n);
    }

    /// A snapshot of the counters and gauges.
    pub(super) fn snapshot(&self) -> CacheStats {
        CacheStats::of(
            &self.stats,
            &Gauges {
                capacity: self.frames.capacity(),
                usage: self.frames.usage(),
                shadows: self.workingset.shadows(),
                reads_abandoned: self.io.abandoned(),
                xarray_nodes: self.xarray_nodes.tallied(),
                page_tables: self.page_tables.get(),
                bytes_in_flight: self.in_flight.bytes(),
            },
        )
    }

    /// Whether [`PageCache::close`](super::PageCache::close) has not been called yet.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        // Relaxed: a close is not ordered with a concurrent call.
        self.closed.load(Ordering::Relaxed) == 0
    }

    /// # Errors
    /// [`Error::Closed`] after [`PageCache::close`](super::PageCache::close).
    #[inline]
    pub(crate) fn require_open(&self) -> Result<()> {
        if self.is_open() { Ok(()) } else { Err(Error::Closed("the page cache".into())) }
    }

    /// The error of a request that got no frame, with what the frames are used for.
    pub(crate) fn out_of_frames(&self, what: String) -> Error {
        let usage = self.frames.usage();
        let locked = self.frames.count_locked();
        let holders = Holders {
            pinned: usage.pinned,
            private: usage.private,
            locked,
            other: usage.in_use.saturating_sub(usage.pinned + usage.private + locked),
        };
        Error::OutOfFrames { capacity: self.frames.capacity(), holders, what }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.io.stop();
    }
}
