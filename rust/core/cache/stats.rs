//! What a cache counts, and all of it at one moment.
//!
//! Owns: the names of the counters, and the snapshot. Does not own the counting (`crate::stats`) nor what is gauged, each of
//! which its owner says. Mirrors `mm/vmstat.c`.

use crate::page::FrameUsage;
use crate::stats::Sharded;
use std::time::Duration;

/// What the cache counts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stat {
    Hits,
    Misses,
    Retries,
    ReadaheadPages,
    ReadaheadUsed,
    ReadaheadWasted,
    Evictions,
    BackgroundReclaimed,
    Dropped,
    Invalidated,
    Refaults,
    RefaultsActivated,
    Activations,
    Deactivations,
    Scanned,
    DirectReclaims,
    FrameWaits,
    Reads,
    ReadBytes,
    ReadErrors,
    IoNanoseconds,
}

const STATS: usize = Stat::IoNanoseconds as usize + 1;

/// The counters of one cache.
pub(super) type Counters = Sharded<STATS>;

/// Counters and gauges of a cache at one moment. Monotone but for the gauges: frames, shadows, nodes, abandoned reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheStats {
    /// All frames.
    pub capacity_frames: u64,
    /// Frames that hold a page of a file or a private copy.
    pub frames_in_use: u64,
    /// Frames that hold private copies.
    pub private_frames: u64,
    /// Frames that hold pinned pages.
    pub pinned_frames: u64,
    /// Pages on the active list.
    pub active_frames: u64,
    /// Pages on the inactive list.
    pub inactive_frames: u64,
    /// Places that remember an evicted page; never more than frames.
    pub shadows: u64,
    /// Pages that a read found up to date.
    pub hits: u64,
    /// Pages that a read had to bring in or wait for.
    pub misses: u64,
    /// Copy-out attempts that met a change and started over.
    pub retries: u64,
    /// Pages that readahead brought into the cache.
    pub readahead_pages: u64,
    /// Of these, the ones that were then used: by a read at once, through a mapping when reclaim or an unmapping finds it.
    pub readahead_used: u64,
    /// Of these, the ones that were evicted before anybody used them.
    pub readahead_wasted: u64,
    /// Pages evicted to make room.
    pub evictions: u64,
    /// Of these, the ones that the background evicted.
    pub evictions_background: u64,
    /// Pages dropped on request (`drop_caches`, advice "dontneed").
    pub dropped: u64,
    /// Pages dropped because somebody else changed their file.
    pub invalidated: u64,
    /// Evicted pages that were read again while their shadow was there (`workingset_refault_file`).
    pub refaults: u64,
    /// Of these, the ones that came back soon enough to be active at once (`workingset_activate_file`).
    pub refaults_activated: u64,
    /// Pages that reclaim found used again and made active (`pgactivate`).
    pub activations: u64,
    /// Active pages that reclaim found unused and made inactive (`pgdeactivate`).
    pub deactivations: u64,
    /// Pages that reclaim looked at (`pgscan`).
    pub scanned: u64,
    /// Times that a request had to make room itself (`allocstall`).
    pub direct_reclaims: u64,
    /// Times that a request had to wait because nothing could be evicted.
    pub frame_waits: u64,
    /// Reads from stores.
    pub reads: u64,
    /// Bytes read from stores.
    pub read_bytes: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Reads that somebody stopped waiting for, or whose time-out is over, and that have not come back: each keeps a thread,
    /// its frames and as many bytes. A gauge.
    pub reads_abandoned: u64,
    /// Nodes of the index trees.
    pub xarray_nodes: u64,
    /// Page tables of all address spaces, of 4 KiB each, but for the root that each has.
    pub page_tables: u64,
    /// Bytes of the buffers into which windows are being read.
    pub bytes_in_flight: u64,
    /// Time spent inside stores' reads, all threads together.
    pub io_seconds: f64,
}

/// What is not counted but looked at.
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

impl CacheStats {
    pub(super) fn of(counters: &Counters, gauges: &Gauges) -> Self {
        let sum = |stat: Stat| counters.sum(stat as usize);
        let usage = gauges.usage;
        Self {
            capacity_frames: gauges.capacity as u64,
            frames_in_use: usage.in_use as u64,
            private_frames: usage.private as u64,
            pinned_frames: usage.pinned as u64,
            active_frames: usage.active as u64,
            inactive_frames: usage.inactive as u64,
            shadows: gauges.shadows,
            hits: sum(Stat::Hits),
            misses: sum(Stat::Misses),
            retries: sum(Stat::Retries),
            readahead_pages: sum(Stat::ReadaheadPages),
            readahead_used: sum(Stat::ReadaheadUsed),
            readahead_wasted: sum(Stat::ReadaheadWasted),
            evictions: sum(Stat::Evictions),
            evictions_background: sum(Stat::BackgroundReclaimed),
            dropped: sum(Stat::Dropped),
            invalidated: sum(Stat::Invalidated),
            refaults: sum(Stat::Refaults),
            refaults_activated: sum(Stat::RefaultsActivated),
            activations: sum(Stat::Activations),
            deactivations: sum(Stat::Deactivations),
            scanned: sum(Stat::Scanned),
            direct_reclaims: sum(Stat::DirectReclaims),
            frame_waits: sum(Stat::FrameWaits),
            reads: sum(Stat::Reads),
            read_bytes: sum(Stat::ReadBytes),
            read_errors: sum(Stat::ReadErrors),
            reads_abandoned: gauges.reads_abandoned,
            xarray_nodes: gauges.xarray_nodes,
            page_tables: gauges.page_tables,
            bytes_in_flight: gauges.bytes_in_flight,
            io_seconds: Duration::from_nanos(sum(Stat::IoNanoseconds)).as_secs_f64(),
        }
    }
}
