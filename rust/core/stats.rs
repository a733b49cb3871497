//! Event counters, sharded by thread.
//!
//! Owns: the sharding. Does not own the names: `mm::events` and `cache::stats` number their events. Mirrors
//! `count_vm_event`: each thread adds to a line of its own with a plain load and store, and a reader sums the shards.
//! Sums are exact at quiescence and monotone always.

use crate::error::Result;
use crate::reserve;
use crate::sync::{OnceLock, Tally, thread_number};

const SHARDS: usize = if cfg!(specmm_loom) {
    5
} else if cfg!(specmm_shuttle) {
    16
} else {
    256
};

#[derive(Debug)]
#[repr(align(128))]
struct Shard<const N: usize> {
    counts: [Tally; N],
}

impl<const N: usize> Shard<N> {
    fn alone() -> Result<Counts<N>> {
        reserve::boxed(Self { counts: [const { Tally::new() }; N] }, "counters")
    }
}

/// A shard, allocated fallibly.
type Counts<const N: usize> = Box<[Shard<N>; 1]>;

/// `N` counters.
#[derive(Debug)]
pub struct Sharded<const N: usize> {
    shards: Box<[OnceLock<Counts<N>>]>,
    /// For threads without a number, with a number beyond the shards, or without memory for one: they add with
    /// read-modify-writes.
    overflow: Counts<N>,
}

impl<const N: usize> Sharded<N> {
    /// All zero.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn new() -> Result<Self> {
        let mut shards = reserve::vec(SHARDS, "counters")?;
        shards.resize_with(SHARDS, OnceLock::new);
        Ok(Self { shards: shards.into_boxed_slice(), overflow: Shard::alone()? })
    }

    /// Adds `n` to counter `event`.
    #[inline]
    pub fn add(&self, event: usize, n: u64) {
        match thread_number().and_then(|number| self.shard(number)) {
            // Exclusive: nobody else has the number now, and its previous owner released it before this thread claimed it.
            Some(shard) => shard.counts[event].add_exclusive(n),
            None => self.overflow[0].counts[event].add(n),
        }
    }

    /// The counters of one thread, unless it has none or there is no memory.
    #[inline]
    fn shard(&self, number: usize) -> Option<&Shard<N>> {
        let shard = self.shards.get(number)?;
        shard.get().or_else(|| Self::first_use(shard)).map(|shard| &shard[0])
    }

    #[cold]
    fn first_use(shard: &OnceLock<Counts<N>>) -> Option<&Counts<N>> {
        let counts = Shard::alone().ok()?;
        Some(shard.get_or_init(|| counts))
    }

    /// The sum of counter `event`.
    #[must_use]
    pub fn sum(&self, event: usize) -> u64 {
        let shards =
            self.shards.iter().filter_map(OnceLock::get).map(|shard| shard[0].counts[event].tallied());
        self.overflow[0].counts[event].tallied() + shards.sum::<u64>()
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_with_more_threads_than_shards() {
        let counters = Sharded::<2>::new().unwrap();
        let barrier = std::sync::Barrier::new(SHARDS + 20);
        std::thread::scope(|scope| {
            for _ in 0..SHARDS + 20 {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..100 {
                        counters.add(1, 2);
                    }
                    barrier.wait();
                });
            }
        });
        assert_eq!(counters.sum(1), (SHARDS as u64 + 20) * 200);
        assert_eq!(counters.sum(0), 0);
    }
}
