//! Latencies: a histogram, and what the clock itself costs.

use super::SAMPLE_EVERY;
use hdrhistogram::Histogram;
use std::time::Instant;

/// The longest latency that is recorded.
const LONGEST_NS: u64 = 60_000_000_000;
const DIGITS: u8 = 3;

/// Latencies in nanoseconds, to three digits.
#[derive(Debug, Clone)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// The usual quantiles, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quantiles {
    /// Half are faster.
    pub p50: u64,
    /// One in a hundred is slower.
    pub p99: u64,
    /// One in a thousand is slower.
    pub p999: u64,
    /// The slowest one timed.
    pub max: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// An empty histogram.
    ///
    /// # Panics
    /// Never: the bounds are constants that the histogram accepts.
    #[must_use]
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect("constant bounds");
        Self { histogram }
    }

    /// Adds one; a latency above a minute counts as a minute.
    #[inline]
    pub fn record(&mut self, nanoseconds: u64) {
        self.histogram.saturating_record(nanoseconds);
    }

    /// Adds all of another histogram.
    ///
    /// # Panics
    /// Never: all histograms have the same bounds.
    pub fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("the same bounds");
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.histogram.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    /// The usual quantiles.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        let at = |quantile| self.histogram.value_at_quantile(quantile);
        Quantiles { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: self.histogram.max() }
    }

    /// Pairs of quantile and nanoseconds, ever closer to 1: the curve of a plot.
    #[must_use]
    pub fn curve(&self) -> Vec<(f64, u64)> {
        let mut points = Vec::new();
        // The slower part shrinks in steps of a tenth of a decade, down to one sample.
        for tenth in 0_i32.. {
            let slower = 10_f64.powf(-f64::from(tenth) / 10.0);
            if slower * (self.len() as f64) < 1.0 {
                break;
            }
            points.push((1.0 - slower, self.histogram.value_at_quantile(1.0 - slower)));
        }
        points
    }
}

/// The cost in nanoseconds of two readings of the clock with nothing in between: the median of many.
pub(super) fn clock_cost() -> u64 {
    let mut latencies = Latencies::new();
    for _ in 0..10_000 {
        let start = Instant::now();
        latencies.record(nanoseconds(start));
    }
    latencies.quantiles().p50
}

#[inline]
pub(super) fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Chooses the touches to be timed: one in [`SAMPLE_EVERY`] on average, with random gaps.
#[derive(Debug)]
pub(super) struct Sampler {
    state: u64,
    left: u64,
}

impl Sampler {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(2) + 1, left: SAMPLE_EVERY }
    }

    #[inline]
    pub(super) fn is_next(&mut self) -> bool {
        self.left -= 1;
        if self.left > 0 {
            return false;
        }
        // Knuth's linear congruential generator: good enough for gaps of 1 to 127.
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.left = 1 + (self.state >> 33) % (2 * SAMPLE_EVERY - 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_samples() {
        let mut latencies = Latencies::new();
        for value in 1..=1000 {
            latencies.record(value);
        }
        let mut twice = latencies.clone();
        twice.add(&latencies);
        assert_eq!(twice.len(), 2000);
        assert_eq!(twice.quantiles(), Quantiles { p50: 500, p99: 990, p999: 999, max: 1000 });
        let curve = twice.curve();
        assert_eq!(curve[10], (0.9, 900));
        assert!(curve.windows(2).all(|pair| pair[0] <= pair[1]), "{curve:?}");
    }

    #[test]
    fn one_touch_in_64_is_timed() {
        let mut sampler = Sampler::new(7);
        let timed = (0..640_000).filter(|_| sampler.is_next()).count();
        assert!((9_500..10_500).contains(&timed), "{timed}");
    }
}
