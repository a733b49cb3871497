//! The counters of a cache, and a snapshot of them.
//!
//! Owns: the table of counters, which generates the counters, the snapshot and the descriptions. Does not own the counting
//! (`crate::stats`), which synchronises it, nor the gauges, whose values their owners report. Mirrors `mm/vmstat.c`.

use crate::page::FrameUsage;
use crate::stats::Sharded;
use std::time::Duration;

/// Values that are read rather than counted.
#[derive(Debug)]
pub(super) struct Gauges {
    pub(super) capacity: usize,
    pub(super) usage: FrameUsage,
    pub(super) shadows: u64,
    pub(super) reads_abandoned: u64,
    pub(super) xarray_nodes: u64,
    pub(super) page_tables: u64,
    pub(super) bytes_in_flight: u64,
}

/// One counter of [`CacheStats`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// The name of its field in [`CacheStats`].
    pub name: &'static str,
    /// What kind of event changes it: "memory", "reads", "readahead", "reclaim", "changes" or "store".
    pub group: &'static str,
    /// What it counts, in one sentence.
    pub gloss: &'static str,
}

/// The value of a [`Counter`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CounterValue {
    /// A plain count.
    Count(u64),
    /// A time in seconds.
    Seconds(f64),
}

impl From<u64> for CounterValue {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<f64> for CounterValue {
    fn from(seconds: f64) -> Self {
        Self::Seconds(seconds)
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64()
}

// A row is a field of the snapshot, the source of its value (a counter, which naming it here creates, or a gauge), and what it
// counts. A test compares `specmm._types.CacheStats` with the table.
macro_rules! counters {
    ($($group:literal {
        $($name:ident: $type:ty
            = $(count $stat:ident $(as $unit:ident)?)? $(gauge |$gauges:ident| $gauge:expr)?, $gloss:literal;)*
    })*) => {
        /// The counters that a cache counts.
        #[derive(Debug, Clone, Copy)]
        pub(crate) enum Stat {
            $($($($stat,)?)*)*
        }

        const STATS: usize = [$($($(Stat::$stat,)?)*)*].len();

        /// A snapshot of a cache's counters and gauges. All values only grow, except the gauges: frames, shadows, nodes, page
        /// tables, bytes in flight, abandoned reads.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct CacheStats {
            $($(#[doc = $gloss] pub $name: $type,)*)*
        }

        impl CacheStats {
            /// Every counter, by group.
            pub const COUNTERS: &'static [Counter] =
                &[$($(Counter { name: stringify!($name), group: $group, gloss: $gloss },)*)*];

            /// The values, in the order of [`CacheStats::COUNTERS`].
            pub fn values(&self) -> impl Iterator<Item = CounterValue> {
                [$($(CounterValue::from(self.$name),)*)*].into_iter()
            }

            pub(super) fn of(counters: &Counters, gauges: &Gauges) -> Self {
                Self {
                    $($($name: {
                        $(
                            let value = counters.sum(Stat::$stat as usize);
                            $(let value = $unit(value);)?
                            value
                        )?
                        $(
                            let $gauges = gauges;
                            $gauge
                        )?
                    },)*)*
                }
            }
        }
    };
}

/// The counters of one cache.
pub(super) type Counters = Sharded<STATS>;

counters! {
    "memory" {
        capacity_frames: u64 = gauge |now| now.capacity as u64, "The bound, in frames of one page.";
        frames_in_use: u64 = gauge |now| now.usage.in_use as u64, "Frames that hold a page of a file or a private copy.";
        private_frames: u64 = gauge |now| now.usage.private as u64, "Of these, private copies that stores to a mapping made.";
        pinned_frames: u64 = gauge |now| now.usage.pinned as u64, "Of these, pages that are pinned and cannot be evicted.";
        active_frames: u64 = gauge |now| now.usage.active as u64, "Of these, pages on the active list: used more than once.";
        inactive_frames: u64 = gauge |now| now.usage.inactive as u64, "Of these, pages on the inactive list: evicted first.";
        shadows: u64 = gauge |now| now.shadows,
            "Evicted pages that are remembered, to see whether they come back; never more than frames.";
        xarray_nodes: u64 = gauge |now| now.xarray_nodes,
            "Nodes of the index from page number to page, of 576 bytes each.";
        page_tables: u64 = gauge |now| now.page_tables,
            "Page tables of all address spaces, of 4 KiB each, but for the root that each address space has.";
        bytes_in_flight: u64 = gauge |now| now.bytes_in_flight, "Bytes of the buffers into which windows are being read.";
    }
    "reads" {
        hits: u64 = count Hits, "Pages that a read found in the cache.";
        misses: u64 = count Misses, "Pages that a read had to bring in or wait for.";
        retries: u64 = count Retries, "Lock-free copies that met a change and started over.";
    }
    "readahead" {
        readahead_pages: u64 = count ReadaheadPages, "Pages that readahead brought in.";
        readahead_used: u64 = count ReadaheadUsed,
            "Of these, pages that were used since; use through a mapping is noticed by reclaim or munmap.";
        readahead_wasted: u64 = count ReadaheadWasted, "Of these, pages that were evicted before anybody used them.";
    }
    "reclaim" {
        evictions: u64 = count Evictions, "Pages evicted to make room.";
        evictions_background: u64 = count BackgroundReclaimed, "Of these, pages that were evicted in the background.";
        refaults: u64 = count Refaults,
            "Evicted pages that were soon read again: the bound is too low for them (`workingset_refault_file`).";
        refaults_activated: u64 = count RefaultsActivated,
            "Of these, pages that came back soon enough to be active at once (`workingset_activate_file`).";
        activations: u64 = count Activations, "Pages that reclaim found used again and made active (`pgactivate`).";
        deactivations: u64 = count Deactivations, "Active pages that reclaim found unused and made inactive (`pgdeactivate`).";
        scanned: u64 = count Scanned, "Pages that reclaim looked at (`pgscan`).";
        direct_reclaims: u64 = count DirectReclaims, "Times that a request had to make room itself (`allocstall`).";
        frame_waits: u64 = count FrameWaits, "Times that a request had to wait because nothing could be evicted.";
    }
    "changes" {
        dropped: u64 = count Dropped, "Pages dropped on request: `drop_caches`, advice dontneed.";
        invalidated: u64 = count Invalidated, "Pages dropped because somebody else changed their file.";
    }
    "store" {
        reads: u64 = count Reads, "Reads of files and stores.";
        read_bytes: u64 = count ReadBytes, "Bytes that these reads returned.";
        read_errors: u64 = count ReadErrors, "Of these reads, the ones that failed.";
        reads_abandoned: u64 = gauge |now| now.reads_abandoned,
            "Reads that nobody waits for any more and that have not returned: each keeps a thread and its frames.";
        io_seconds: f64 = count IoNanoseconds as seconds, "Time spent in reads, summed over threads.";
    }
}
