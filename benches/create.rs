//! The cost of creating a cache and closing it unused: that takes address space, but no memory.

use criterion::{BatchSize, BenchmarkId, Criterion};
use specmm::{Io, PAGE_SIZE, PageCache};
use std::time::Duration;

fn main() {
    let mut criterion = Criterion::default().measurement_time(Duration::from_secs(1)).configure_from_args();
    let mut group = criterion.benchmark_group("make a cache");
    for (name, bytes) in [("10^6 pages", 1_000_000 * PAGE_SIZE as u64), ("300 GiB", 300 << 30)] {
        group.bench_function(BenchmarkId::from_parameter(name), |bench| {
            let make = |()| PageCache::new(bytes, Io::Threads).expect("address space");
            // One at a time: the address space has no room for hundreds of the larger one.
            bench.iter_batched(|| (), make, BatchSize::PerIteration);
        });
        group.bench_function(BenchmarkId::new("and end it", name), |bench| {
            bench.iter(|| PageCache::new(bytes, Io::Threads).expect("address space"));
        });
    }
    group.finish();
    criterion.final_summary();
}
