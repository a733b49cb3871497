//! Buffers for readahead, and a limit on their total size.
//!
//! Owns: the buffers that stores read windows into, because page bytes are only accessed as atomics. A window is read in pieces,
//! so that memory beside the frames does not grow with the window: all threads together have [`InFlight::most`] bytes of buffers,
//! and a thread that finds them used up still gets a small one. No thread waits for another's buffer.

use crate::error::Result;
use crate::page::PAGE_SIZE;
use crate::reserve;
use crate::sync::{AtomicU64, Ordering, duty};
use std::sync::Arc;

/// Largest read of a store (1 MiB).
const PIECE: usize = 256 * PAGE_SIZE;
/// Smallest buffer, when other threads have used up the limit: the default window (128 KiB).
const LEAST: usize = 32 * PAGE_SIZE;

/// The buffers of one cache.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// Bytes of all buffers. Relaxed: it bounds itself, and orders nothing.
    bytes: AtomicU64,
    most: u64,
}

impl InFlight {
    /// Buffers for a cache of `frames`: a 16th of its bytes, and at least one piece.
    pub(super) fn new(frames: usize) -> Arc<Self> {
        let most = (frames / 16 * PAGE_SIZE).max(PIECE) as u64;
        Arc::new(Self { bytes: AtomicU64::new(0), most })
    }

    /// Total bytes of the buffers in use.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A zeroed buffer for the first piece of a window of `wanted` bytes, whole pages.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(super) fn buffer(self: &Arc<Self>, wanted: usize) -> Result<Buffer> {
        let mut claim = Claim { of: Arc::clone(self), bytes: wanted.min(PIECE) };
        // Claimed in the step that sees the others' claims, so that together they cannot exceed the limit.
        let total = self.bytes.fetch_add(claim.bytes as u64, Ordering::Relaxed) + claim.bytes as u64;
        let over = usize::try_from(total.saturating_sub(self.most)).unwrap_or(usize::MAX);
        duty!("in_flight.bounded", claim.give_back(over.min(claim.bytes.saturating_sub(LEAST))));
        Ok(Buffer { bytes: reserve::zeros(claim.bytes, "a window")?, _claim: claim })
    }
}

/// A claim on part of the total.
#[derive(Debug)]
struct Claim {
    of: Arc<InFlight>,
    bytes: usize,
}

impl Claim {
    fn give_back(&mut self, bytes: usize) {
        self.of.bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
        self.bytes -= bytes;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

/// A buffer, counted while it exists.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    _claim: Claim,
}

#[cfg(all(test, specmm_loom))]
impl InFlight {
    pub(super) const LEAST: usize = LEAST;

    pub(super) fn most(&self) -> u64 {
        self.most
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_read_in_pieces_and_the_last_ones_are_small() {
        let in_flight = InFlight::new(4096);
        assert_eq!(in_flight.most, 1 << 20);
        assert_eq!(InFlight::new(16 * 1000).most, (1000 * PAGE_SIZE) as u64);
        assert_eq!(in_flight.bytes(), 0);
        assert_eq!(in_flight.buffer(3 * PAGE_SIZE).unwrap().bytes.len(), 3 * PAGE_SIZE);
        let first = in_flight.buffer(16 << 20).unwrap();
        assert_eq!(first.bytes.len(), 1 << 20);
        let second = in_flight.buffer(16 << 20).unwrap();
        assert_eq!(second.bytes.len(), LEAST, "nothing is left, but nobody waits");
        assert_eq!(in_flight.buffer(PAGE_SIZE).unwrap().bytes.len(), PAGE_SIZE);
        assert_eq!(in_flight.bytes(), (PIECE + LEAST) as u64);
        drop(first);
        assert_eq!(in_flight.buffer(16 << 20).unwrap().bytes.len(), PIECE - LEAST);
        drop(second);
        assert_eq!(in_flight.bytes(), 0);
    }

    #[test]
    fn many_at_once_stay_within_what_is_said() {
        let in_flight = InFlight::new(16384);
        let (most, readers) = (in_flight.most, 8);
        std::thread::scope(|scope| {
            for reader in 0..readers {
                let in_flight = &in_flight;
                scope.spawn(move || {
                    for round in 0..2000 {
                        let kept = in_flight.buffer((reader + round) % 400 * PAGE_SIZE).unwrap();
                        // Momentary claims of the other threads count too, a piece each.
                        let bound = most + readers as u64 * (LEAST + PIECE) as u64;
                        assert!(in_flight.bytes() <= bound, "{} bytes", in_flight.bytes());
                        drop(kept);
                    }
                });
            }
        });
        assert_eq!(in_flight.bytes(), 0);
    }
}
