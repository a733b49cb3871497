//! Faults on cached pages: speculative and under the mmap lock, read and private write, one and two threads; next to the kernel's
//! own faults on the same file.
//!
//! A batch of pages is faulted in, which is timed, and then zapped (`madvise` DONTNEED), which is not.
//!
//! | path, one page | its own RMWs |
//! |---|---|
//! | speculative read | 6: count (`try_get`, which becomes the entry's), page lock, leaf lock, mapcount, leaf unlock, page unlock |
//! | classic read | 8: semaphore in and out, and those |
//! | speculative private write | 11: free lists' mutex in and out, PRIVATE flag, count of the copy; then as a read, and the put of the source |
//! | 16 pages at once (fault-around) | 66: leaf lock and unlock; each page: count, page lock, mapcount, page unlock |
#![allow(unsafe_code, reason = "mmap(2) as a rival")]

mod common;

use common::{DataFile, SpinBarrier, criterion, own_rmws, two_threads};
use criterion::Criterion;
use specmm::{Locking, Madvise, Mm, MmOptions, PAGE_SIZE, Prot};
use std::hint::black_box;
use std::time::{Duration, Instant};

const PAGE: u64 = PAGE_SIZE as u64;
/// Pages of a batch on one thread: their descriptors, entries and index nodes fit the processor's nearest caches, as in
/// the RMWs they are compared with.
const NEAR: u64 = 512;
/// Pages of a batch of each of two threads: enough that the start does not matter.
const FAR: u64 = 8192;

/// What one benchmark faults: a range that can be faulted in and zapped again.
trait Range: Sync {
    /// One fault at byte `at` of the range.
    fn fault(&self, at: u64);
    /// Zaps the entries of the `length` bytes from `at`.
    fn zap(&self, at: u64, length: u64);
}

/// `iterations` faults, `stride` bytes apart, in batches over `length` bytes from `from`; a barrier on either side of each
/// timed part when another thread does the same.
fn faults(
    range: &impl Range,
    iterations: u64,
    (from, length, stride): (u64, u64, u64),
    barrier: Option<&SpinBarrier>,
) -> Duration {
    let mut total = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let batch = left.min(length / stride);
        barrier.inspect(|barrier| barrier.wait());
        let start = Instant::now();
        for i in 0..batch {
            range.fault(from + i * stride);
        }
        total += start.elapsed();
        barrier.inspect(|barrier| barrier.wait());
        range.zap(from, length);
        left -= batch;
    }
    total
}

/// Measures `range` on one thread, and on two with a slice each.
fn measure(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    name: &str,
    stride: u64,
    threads: &[usize],
    range: &impl Range,
) {
    let near = (0, NEAR * PAGE, stride);
    // The first fault of each slice makes the tables and prepares a private mapping for copies.
    for slice in 0..2 {
        faults(range, FAR * PAGE / stride, (slice * FAR * PAGE, FAR * PAGE, stride), None);
    }
    if threads.contains(&1) {
        group.bench_function(format!("{name}, 1 thread"), |bench| {
            bench.iter_custom(|iterations| faults(range, iterations, near, None));
        });
    }
    if threads.contains(&2) {
        // The same batches on one thread, for the ratio between one and two.
        group.bench_function(format!("{name}, 1 thread of 2"), |bench| {
            bench.iter_custom(|iterations| faults(range, iterations, (0, FAR * PAGE, stride), None));
        });
        group.bench_function(format!("{name}, 2 threads"), |bench| {
            bench.iter_custom(|iterations| {
                two_threads(|thread, barrier| {
                    let slice = (thread as u64 * FAR * PAGE, FAR * PAGE, stride);
                    faults(range, iterations, slice, Some(barrier))
                })
            });
        });
    }
}

/// A range of an address space of specmm's.
struct Ours {
    mm: Mm,
    start: u64,
    write: bool,
}

impl Ours {
    fn new(data: &DataFile, locking: Locking, fault_around_bytes: u64, write: bool) -> Self {
        let pages = 2 * FAR as usize;
        let spare = if write { 2 * pages } else { 0 };
        let (cache, file) = data.cached(pages, spare);
        let mm =
            Mm::new(&cache, MmOptions::default().locking(locking).fault_around_bytes(fault_around_bytes))
                .expect("an address space");
        let prot = if write { Prot::ReadWrite } else { Prot::Read };
        let start = mm.mmap(&file, None, 0, prot, !write).expect("room");
        Self { mm, start, write }
    }

    /// Faults that speculation could not serve would measure something else.
    fn assert_committed(&self) {
        let event = |name| self.mm.vm_events().into_iter().find(|(n, _)| *n == name).expect("an event").1;
        let (attempts, aborts) = (event("spf_attempt"), event("spf_abort"));
        println!("{attempts} attempts, {aborts} aborts");
        assert!(
            aborts * 20 <= attempts,
            "{aborts} of {attempts} speculative attempts aborted: {:?}",
            self.mm.vm_events()
        );
    }
}

impl Range for Ours {
    fn fault(&self, at: u64) {
        black_box(self.mm.fault(self.start + at, self.write));
    }
    fn zap(&self, at: u64, length: u64) {
        self.mm.madvise(self.start + at, length, Madvise::DontNeed).expect("mapped");
    }
}

/// A mapping of the kernel's. A fault maps up to 16 pages around it (its `fault_around_bytes`, which needs root to
/// change), so it is compared at a stride of 64 KiB.
struct Kernels {
    start: *mut std::ffi::c_void,
    bytes: usize,
}

// SAFETY: the mapping is read and zapped from any thread, and never written to.
unsafe impl Sync for Kernels {}

impl Kernels {
    fn new(data: &DataFile) -> Self {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let file = std::fs::File::open(data.path()).expect("the temporary file");
        let bytes = 2 * FAR as usize * PAGE_SIZE;
        // SAFETY: a fresh mapping at an address that the kernel chooses.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, &file, 0) };
        Self { start: start.expect("mappable"), bytes }
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no longer used.
        let _ = unsafe { rustix::mm::munmap(self.start, self.bytes) };
    }
}

impl Range for Kernels {
    fn fault(&self, at: u64) {
        assert!((at as usize) < self.bytes);
        // SAFETY: within the mapping by the assertion; the temporary file is not truncated.
        black_box(unsafe { self.start.cast::<u8>().add(at as usize).read_volatile() });
    }
    fn zap(&self, at: u64, length: u64) {
        assert!((at + length) as usize <= self.bytes);
        // SAFETY: within the mapping; dropping entries of a shared file mapping loses nothing.
        unsafe {
            let from = self.start.cast::<u8>().add(at as usize).cast();
            rustix::mm::madvise(from, length as usize, rustix::mm::Advice::LinuxDontNeed).expect("mapped");
        }
    }
}

fn read_one_page(criterion: &mut Criterion, data: &DataFile) {
    let mut group = criterion.benchmark_group("fault, read, one page");
    let speculative = Ours::new(data, Locking::Speculative, PAGE, false);
    measure(&mut group, "speculative", PAGE, &[1, 2], &speculative);
    speculative.assert_committed();
    own_rmws(&mut group, 6);
    measure(&mut group, "mmap_lock", PAGE, &[1, 2], &Ours::new(data, Locking::MmapLock, PAGE, false));
    own_rmws(&mut group, 8);
    group.finish();
}

fn read_around(criterion: &mut Criterion, data: &DataFile) {
    const AROUND: u64 = 64 << 10;
    let mut group = criterion.benchmark_group("fault, read, 16 pages around");
    let speculative = Ours::new(data, Locking::Speculative, AROUND, false);
    measure(&mut group, "speculative", AROUND, &[1, 2], &speculative);
    speculative.assert_committed();
    own_rmws(&mut group, 66);
    measure(&mut group, "mmap_lock", AROUND, &[1], &Ours::new(data, Locking::MmapLock, AROUND, false));
    measure(&mut group, "kernel", AROUND, &[1, 2], &Kernels::new(data));
    group.finish();
}

fn private_write(criterion: &mut Criterion, data: &DataFile) {
    let mut group = criterion.benchmark_group("fault, private write");
    let speculative = Ours::new(data, Locking::Speculative, PAGE, true);
    measure(&mut group, "speculative", PAGE, &[1], &speculative);
    speculative.assert_committed();
    own_rmws(&mut group, 11);
    // Separate: two threads contend for the free lists, and an attempt that meets another aborts.
    measure(&mut group, "speculative", PAGE, &[2], &speculative);
    measure(&mut group, "mmap_lock", PAGE, &[1], &Ours::new(data, Locking::MmapLock, PAGE, true));
    group.finish();
}

fn main() {
    let mut criterion = criterion();
    let data = DataFile::new(2 * FAR as usize);
    read_one_page(&mut criterion, &data);
    read_around(&mut criterion, &data);
    private_write(&mut criterion, &data);
    criterion.final_summary();
}
