//! Hits: the index alone, the index with a reference, and copy-out reads of 8 bytes and of a page; with rivals.
//!
//! | path | its own RMWs |
//! |---|---|
//! | `XArray::find` in a read section | none: two stores to the thread's own line |
//! | `find_get_page` and the put | 2: the compare-and-exchange of `PageRef::try_get`, the subtraction of the put |
//! | `File::read_cached` | none: nothing shared is written |
//!
//! Rivals of a hit: `quick_cache` with pages behind `Arc`s (the same service: bytes that eviction cannot take away) and
//! with bare numbers (less than the service), pread(2) of the same bytes in the kernel's cache, a load through mmap(2).
#![allow(unsafe_code, reason = "mmap(2) as a rival")]

mod common;

use common::{DataFile, criterion, in_turn, own_rmws, shuffled, two_threads_each};
use criterion::{BenchmarkId, Criterion};
use specmm::PAGE_SIZE;
use specmm::internals::page::{Frames, Use};
use specmm::internals::rcu;
use specmm::internals::sync::Tally;
use specmm::internals::xarray::{Entry, XArray};
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

const SIZES: [usize; 2] = [100, 65_536];

/// A tree with an entry for each of `pages` frames.
fn tree(frames: &Frames, pages: usize) -> XArray {
    let tree = XArray::new(Arc::new(Tally::new()));
    let mut locked = tree.lock();
    for index in 0..pages {
        let handle = frames.alloc(Use::File).expect("a frame a page");
        locked.store(index as u64, Entry::page(handle.page().pfn())).expect("memory for the index");
        // The cache's own reference, for the life of the bench.
        std::mem::forget(handle);
    }
    drop(locked);
    tree
}

fn lookup(criterion: &mut Criterion) {
    for pages in SIZES {
        let frames = Frames::new(pages).expect("room");
        let tree = tree(&frames, pages);
        let order = shuffled(pages);
        let mut group = criterion.benchmark_group(format!("lookup {pages}"));
        group.bench_function("find", |bench| {
            bench.iter(in_turn(&order, |index| tree.load(index, &rcu::read()).as_page()));
        });
        // The steps of `AddressSpace::find_get_page`, made of the same public parts.
        group.bench_function("find_get_page", |bench| {
            bench.iter(in_turn(&order, |index| {
                let section = rcu::read();
                let found = tree.find(index, &section);
                let handle =
                    frames.page(found.entry.as_page().expect("present")).try_get().expect("not frozen");
                assert!(found.is_unchanged());
                handle
            }));
        });
        own_rmws(&mut group, 2);
        group.finish();
    }
}

/// A read-only mapping of the kernel's.
struct KernelMap {
    start: *mut std::ffi::c_void,
    bytes: usize,
}

impl KernelMap {
    fn new(file: &std::fs::File, bytes: usize) -> Self {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        // SAFETY: a fresh mapping at an address that the kernel chooses.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, file, 0) };
        let map = Self { start: start.expect("mappable"), bytes };
        for page in 0..bytes / PAGE_SIZE {
            black_box(map.bytes(page, 1)[0]);
        }
        map
    }

    fn bytes(&self, page: usize, len: usize) -> &[u8] {
        assert!(page * PAGE_SIZE + len <= self.bytes);
        // SAFETY: within the mapping by the assertion; the temporary file is neither written nor truncated.
        unsafe { std::slice::from_raw_parts(self.start.cast::<u8>().add(page * PAGE_SIZE), len) }
    }
}

impl Drop for KernelMap {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and its borrows end with it.
        let _ = unsafe { rustix::mm::munmap(self.start, self.bytes) };
    }
}

fn copy_out<const LEN: usize>(criterion: &mut Criterion, data: &DataFile, pages: usize) {
    let (_cache, file) = data.cached(pages, 0);
    let kernel_file = std::fs::File::open(data.path()).expect("the temporary file");
    let order = shuffled(pages);
    let offset = |page: u64| page * PAGE_SIZE as u64;
    let mut buf = [0; LEN];

    let mut group = criterion.benchmark_group(format!("copy-out {LEN} bytes of {pages} pages"));
    group.bench_function("specmm", |bench| {
        bench.iter(in_turn(&order, |page| {
            assert_eq!(file.read_cached(black_box(&mut buf), offset(page)), Some(LEN));
        }));
    });
    group.bench_function("kernel pread", |bench| {
        bench.iter(in_turn(&order, |page| {
            assert_eq!(kernel_file.read_at(black_box(&mut buf), offset(page)).expect("readable"), LEN);
        }));
    });
    let map = KernelMap::new(&kernel_file, pages * PAGE_SIZE);
    group.bench_function("kernel mmap", |bench| {
        bench.iter(in_turn(&order, |page| {
            black_box(&mut buf).copy_from_slice(map.bytes(page as usize, LEN));
        }));
    });
    drop(map);
    let rival = quick_cache::sync::Cache::<u64, Arc<[u8; PAGE_SIZE]>>::new(pages * 4);
    for page in 0..pages as u64 {
        rival.insert(page, Arc::new([page as u8; PAGE_SIZE]));
    }
    group.bench_function("quick_cache of pages", |bench| {
        bench.iter(in_turn(&order, |page| {
            black_box(&mut buf).copy_from_slice(&rival.get(&page).expect("below capacity")[..LEN]);
        }));
    });
    drop(rival);
    if LEN == 8 {
        let rival = quick_cache::sync::Cache::<u64, u64>::new(pages * 4);
        for page in 0..pages as u64 {
            rival.insert(page, page);
        }
        group.bench_function("quick_cache of numbers", |bench| {
            bench.iter(in_turn(&order, |page| rival.get(&page).expect("below capacity")));
        });
    }
    group.finish();
}

fn copy_out_of_one_page(criterion: &mut Criterion, data: &DataFile) {
    let (_cache, file) = data.cached(100, 0);
    let read = || {
        let mut buf = [0; 8];
        assert_eq!(file.read_cached(black_box(&mut buf), 7 * PAGE_SIZE as u64), Some(8));
    };
    let mut group = criterion.benchmark_group("copy-out 8 bytes of one page");
    group.bench_function(BenchmarkId::new("threads", 1), |bench| bench.iter(read));
    group.bench_function(BenchmarkId::new("threads", 2), |bench| {
        bench.iter_custom(|iterations| two_threads_each(iterations, |_| read()));
    });
    group.finish();
}

fn main() {
    let mut criterion = criterion();
    let data = DataFile::new(SIZES[1]);
    lookup(&mut criterion);
    for pages in SIZES {
        copy_out::<8>(&mut criterion, &data, pages);
        copy_out::<PAGE_SIZE>(&mut criterion, &data, pages);
    }
    copy_out_of_one_page(&mut criterion, &data);
    criterion.final_summary();
}
