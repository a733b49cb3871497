//! Results, as plain structs.

use super::latency::{Latencies, Quantiles};
use super::plan::{Rate, Row, Workload};

/// The results of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// What the threads did.
    pub workload: Workload,
    /// The number of threads.
    pub threads: usize,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Whether each faulting thread was bound to a processor.
    pub pinned: bool,
    /// Bytes of the file.
    pub file_size: u64,
    /// Bytes of it that were mapped.
    pub length: u64,
    /// Bytes of the cache.
    pub capacity: u64,
    /// Bytes from one touch to the next.
    pub stride: u64,
    /// The cost of reading the clock in nanoseconds; subtracted from each latency.
    pub clock_ns: u64,
    /// One for each cell of the grid: all rows of the first rate, then those of the next.
    pub runs: Vec<Run>,
}

/// One cell of the grid.
#[derive(Debug, Clone)]
pub struct Run {
    /// What served the faults.
    pub row: Row,
    /// The writer's rate.
    pub rate: Rate,
    /// Its rounds.
    pub rounds: Vec<Round>,
    /// The latencies of all rounds.
    pub latencies: Latencies,
    /// The events of the address spaces, summed over the rounds, including cold passes and the writer's faults; empty for the
    /// kernel.
    pub events: Vec<(&'static str, u64)>,
}

/// One round of a cell.
#[derive(Debug, Clone)]
pub struct Round {
    /// Faults of the faulting threads after the cold pass.
    pub faults: u64,
    /// Touches that caused them.
    pub touches: u64,
    /// Faults per second without the time for zapping, summed over the threads.
    pub faults_per_s: f64,
    /// Seconds that a thread spent faulting, on average.
    pub seconds: f64,
    /// Latencies of the faults that were timed.
    pub quantiles: Quantiles,
    /// Seconds until the last thread had finished its cold pass; for the kernel the file's pages are already in its cache.
    pub cold_seconds: f64,
    /// Pairs that the writer made.
    pub pairs: u64,
    /// Seconds that the writer worked.
    pub writer_seconds: f64,
}

/// The median of several values, with their extremes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of no values: all zero.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            return Self { median: 0.0, min: 0.0, max: 0.0 };
        };
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Self { median, min, max }
    }
}

impl Run {
    pub(super) fn new(row: Row, rate: Rate) -> Self {
        Self { row, rate, rounds: Vec::new(), latencies: Latencies::new(), events: Vec::new() }
    }

    /// One figure, taken from every round.
    pub fn spread(&self, figure: impl Fn(&Round) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(figure))
    }

    /// One quantile of the latencies of every round, in nanoseconds.
    pub fn spread_ns(&self, cut: impl Fn(&Quantiles) -> u64) -> Spread {
        self.spread(|round| cut(&round.quantiles) as f64)
    }

    /// A counter of the address spaces; 0 if there is none of that name.
    #[must_use]
    pub fn event(&self, name: &str) -> u64 {
        self.events.iter().find(|(event, _)| *event == name).map_or(0, |(_, count)| *count)
    }

    /// Faults of all rounds, without the cold passes.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.rounds.iter().map(|round| round.faults).sum()
    }

    /// The share of faults that took no lock, if the address spaces were specmm's.
    #[must_use]
    pub fn speculative_share(&self) -> Option<f64> {
        let faults = self.event("pgfault");
        (faults > 0).then(|| self.event("spf_commit") as f64 / faults as f64)
    }

    /// How often the mmap lock was taken, for reading or writing, by any thread.
    #[must_use]
    pub fn lock_acquisitions(&self) -> u64 {
        self.event("mmap_lock_read") + self.event("mmap_lock_write")
    }

    pub(super) fn add(&mut self, round: Round, latencies: &Latencies, events: &[(&'static str, u64)]) {
        self.rounds.push(round);
        self.latencies.add(latencies);
        if self.events.is_empty() {
            self.events = events.to_vec();
            return;
        }
        for (sum, (_, count)) in self.events.iter_mut().zip(events) {
            sum.1 += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_and_the_ends() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of([]), Spread { median: 0.0, min: 0.0, max: 0.0 });
    }
}
