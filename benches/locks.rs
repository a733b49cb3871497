//! The page lock and the reader-writer semaphore behind `mmap_lock`, with rivals.
//!
//! | path | its own RMWs |
//! |---|---|
//! | page lock and unlock | 2: `fetch_or` of LOCKED, `fetch_and` of its complement |
//! | semaphore, reader or writer, in and out | 2: the compare-and-exchange, the subtraction (`fetch_and` for a writer) |

mod common;

use common::{criterion, own_rmws, two_threads_each};
use criterion::Criterion;
use specmm::internals::page::{Frames, Use};
use specmm::internals::sync::RwSem;
use std::hint::black_box;

/// One operation alone and against itself on a second thread.
fn alone_and_contended(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    name: &str,
    operation: impl Fn() + Sync,
) {
    group.bench_function(format!("{name}, 1 thread"), |bench| bench.iter(&operation));
    group.bench_function(format!("{name}, 2 threads"), |bench| {
        bench.iter_custom(|iterations| two_threads_each(iterations, |_| operation()));
    });
}

fn page_lock(criterion: &mut Criterion) {
    let frames = Frames::new(1).expect("room");
    let handle = frames.alloc(Use::File).expect("a frame");
    let page = handle.page();
    let mut group = criterion.benchmark_group("page lock");
    alone_and_contended(&mut group, "specmm", || drop(black_box(page.lock())));
    let rival = parking_lot::Mutex::new(());
    alone_and_contended(&mut group, "parking_lot", || drop(black_box(rival.lock())));
    let rival = std::sync::Mutex::new(());
    alone_and_contended(&mut group, "std", || drop(black_box(rival.lock())));
    own_rmws(&mut group, 2);
    group.finish();
}

fn rwsem(criterion: &mut Criterion) {
    let sem = RwSem::new();
    let parking_lot = parking_lot::RwLock::new(());
    let std = std::sync::RwLock::new(());
    let mut group = criterion.benchmark_group("rwsem reader");
    alone_and_contended(&mut group, "specmm", || drop(black_box(sem.read_guard())));
    alone_and_contended(&mut group, "parking_lot", || drop(black_box(parking_lot.read())));
    alone_and_contended(&mut group, "std", || drop(black_box(std.read())));
    own_rmws(&mut group, 2);
    group.finish();
    let mut group = criterion.benchmark_group("rwsem writer");
    alone_and_contended(&mut group, "specmm", || drop(black_box(sem.write_guard())));
    alone_and_contended(&mut group, "parking_lot", || drop(black_box(parking_lot.write())));
    alone_and_contended(&mut group, "std", || drop(black_box(std.write())));
    own_rmws(&mut group, 2);
    group.finish();
}

fn main() {
    let mut criterion = criterion();
    page_lock(&mut criterion);
    rwsem(&mut criterion);
    criterion.final_summary();
}
