//! What the benchmarks share: a file whose pages are all cached, the cost of read-modify-writes, two threads at once.
//!
//! Every figure is judged as a ratio to another one of the same run: to a rival, or to "its own RMWs", which is as many
//! uncontended atomic read-modify-writes as the measured path makes, on cache lines that no other thread uses. The paths'
//! read-modify-writes were counted by reading the code; each benchmark lists them.
#![allow(dead_code, reason = "each bench uses its part")]

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use specmm::{Advice, File, Io, PAGE_SIZE, PageCache};
use std::hint::black_box;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Criterion with its command line, short enough that all benchmarks together take less than six minutes.
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(50)
        .configure_from_args()
}

/// A real file in a temporary folder, in the kernel's page cache; each of its 64-bit words is its own number.
pub struct DataFile {
    path: PathBuf,
    pages: usize,
}

impl DataFile {
    /// A file of `pages` pages.
    pub fn new(pages: usize) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("specmm-bench-{}-{number}", std::process::id()));
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path).expect("a temporary file"));
        for word in 0..(pages * PAGE_SIZE / 8) as u64 {
            file.write_all(&word.to_ne_bytes()).expect("room for the temporary file");
        }
        file.flush().expect("room for the temporary file");
        Self { path, pages }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The first `pages` pages in a cache with room for `spare` more frames. No page carries the readahead marker.
    pub fn cached(&self, pages: usize, spare: usize) -> (PageCache, File) {
        assert!(pages <= self.pages);
        let cache = PageCache::new(((pages + spare) * PAGE_SIZE) as u64, Io::Inline).expect("a cache");
        let file = cache.open(&self.path).expect("the temporary file");
        // One call reads this much.
        for first in (0..pages).step_by(256) {
            let (offset, length) = (first * PAGE_SIZE, (pages - first) * PAGE_SIZE);
            file.advise(Advice::WillNeed, offset as u64, Some(length as u64)).expect("readable");
        }
        let resident = file.residency(0, Some(pages as u64)).expect("open");
        assert!(resident.iter().all(|&page| page == 1), "a page is missing");
        (cache, file)
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Page numbers below `pages` in an order that no prefetcher knows, the same in every run.
pub fn shuffled(pages: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..pages as u32).collect();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for at in (1..order.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(at, (state % (at as u64 + 1)) as usize);
    }
    order
}

/// Calls `work` with one page number after another, starting again at the end.
pub fn in_turn<R>(order: &[u32], mut work: impl FnMut(u64) -> R) -> impl FnMut() -> R {
    let mut at = 0;
    move || {
        let page = order[at];
        at = if at + 1 == order.len() { 0 } else { at + 1 };
        work(u64::from(page))
    }
}

#[repr(align(128))]
struct Line(AtomicU64);

/// Measures `n` uncontended read-modify-writes on distinct lines, to compare with a path that makes as many: function `own RMWs`.
pub fn own_rmws(group: &mut BenchmarkGroup<'_, WallTime>, n: usize) {
    let lines: Vec<Line> = (0..n).map(|_| Line(AtomicU64::new(0))).collect();
    group.bench_function(format!("own {n} RMWs"), |bench| {
        bench.iter(|| {
            for line in &lines {
                black_box(line.0.fetch_add(1, Ordering::AcqRel));
            }
        });
    });
}

/// A barrier that spins: a sleeping one would let the first thread finish before the second has woken.
pub struct SpinBarrier {
    arrived: AtomicU64,
    threads: u64,
}

impl SpinBarrier {
    pub const fn new(threads: u64) -> Self {
        Self { arrived: AtomicU64::new(0), threads }
    }

    pub fn wait(&self) {
        let ticket = self.arrived.fetch_add(1, Ordering::AcqRel);
        let full = (ticket / self.threads + 1) * self.threads;
        let mut spins = 0_u32;
        while self.arrived.load(Ordering::Acquire) < full {
            spins += 1;
            if spins % 4096 == 0 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// Runs `work(thread, barrier)` on two threads and returns the mean of the times they report. `work` meets the other thread at
/// the barrier before it starts its clock.
pub fn two_threads(work: impl Fn(usize, &SpinBarrier) -> Duration + Sync) -> Duration {
    let barrier = SpinBarrier::new(2);
    let (work, barrier) = (&work, &barrier);
    std::thread::scope(|scope| {
        let threads = [0, 1].map(|thread| scope.spawn(move || work(thread, barrier)));
        threads.into_iter().map(|thread| thread.join().expect("the work does not panic")).sum::<Duration>()
            / 2
    })
}

/// As [`two_threads`], for an operation that needs nothing between its calls.
pub fn two_threads_each(iterations: u64, operation: impl Fn(usize) + Sync) -> Duration {
    two_threads(|thread, barrier| {
        // The first section of a thread claims its number: not timed.
        operation(thread);
        barrier.wait();
        let start = Instant::now();
        for _ in 0..iterations {
            operation(thread);
        }
        start.elapsed()
    })
}
