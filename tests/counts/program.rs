//! The program that `tests/counts/run.py` runs under callgrind: one operation, a thousand times.
//!
//! The argument names the operation. Everything is set up outside `counted_*`, the only functions in which instructions are
//! collected; each makes [`TIMES`] operations, on pages that it has touched before (except for misses), so nothing happens for
//! the first time.

use specmm::internals::rcu;
use specmm::internals::sync::Tally;
use specmm::internals::xarray::{Entry, XArray};
use specmm::store::Store;
use specmm::{Advice, File, Io, Locking, Madvise, Mm, MmOptions, PAGE_SIZE, PageCache, Prot, StoreOptions};
use std::hint::black_box;
use std::io;
use std::sync::Arc;

/// The number of operations by which a count is divided; `run.py` reads it from the program's output.
const TIMES: u64 = 1000;
const PAGE: u64 = PAGE_SIZE as u64;

/// A store whose bytes cost nothing to produce.
struct Zeros;

impl Store for Zeros {
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> io::Result<usize> {
        Ok(buf.len())
    }
}

/// A file of `pages` pages, of which every `step`-th is resident.
fn file(pages: u64, step: u64) -> (PageCache, File) {
    let resident = pages.div_ceil(step);
    let cache = PageCache::new(2 * resident * PAGE, Io::Inline).expect("room");
    let file = cache.open_store(Arc::new(Zeros), pages * PAGE).expect("a file");
    // If they are consecutive, as many as one call reads.
    let (each, length) = if step == 1 { (256, 256) } else { (step, 1) };
    for first in (0..pages).step_by(each as usize) {
        file.advise(Advice::WillNeed, first * PAGE, Some(length * PAGE)).expect("readable");
    }
    assert_eq!(cache.stats().frames_in_use, resident);
    (cache, file)
}

/// After this the pages are active, and a touch of one changes nothing: the hits that count.
fn use_twice(file: &File, pages: u64, step: u64) {
    for page in (0..pages).step_by(step as usize).chain((0..pages).step_by(step as usize)) {
        file.read_cached(&mut [0], page * PAGE).expect("resident");
    }
}

#[inline(never)]
fn counted_copy_out(file: &File, pages: u64, step: u64) {
    let mut buf = [0; 8];
    let mut page = 0;
    for _ in 0..TIMES {
        assert_eq!(file.read_cached(black_box(&mut buf), page * PAGE), Some(8));
        page += step;
        if page >= pages {
            page = 0;
        }
    }
}

fn copy_out(pages: u64, step: u64) {
    let (_cache, file) = file(pages, step);
    use_twice(&file, pages, step);
    counted_copy_out(&file, pages, step);
}

#[inline(never)]
fn counted_copy_out_of_a_page(file: &File) {
    let mut buf = [0; PAGE_SIZE];
    for page in 0..TIMES {
        assert_eq!(file.read_cached(black_box(&mut buf), page * PAGE), Some(PAGE_SIZE));
    }
}

#[inline(never)]
fn counted_misses(file: &File) {
    let mut buf = [0; 8];
    for page in 1..=TIMES {
        assert_eq!(file.pread(black_box(&mut buf), page * PAGE).ok(), Some(8));
    }
}

/// Absent pages, read one by one, without readahead: what is not the store's, nor the filling of a page, is the way there.
fn misses() {
    let cache = PageCache::new(2 * TIMES * PAGE, Io::Inline).expect("room");
    let alone = StoreOptions::default().ra_pages(0);
    let file = cache.open_store_with(Arc::new(Zeros), (TIMES + 1) * PAGE, alone).expect("a file");
    file.pread(&mut [0], 0).expect("readable");
    counted_misses(&file);
    assert_eq!(cache.stats().misses, TIMES + 1);
}

fn tree(entries: u64) -> XArray {
    let tree = XArray::new(Arc::new(Tally::new()));
    let mut locked = tree.lock();
    for index in 0..entries {
        locked.store(index, Entry::page(index as u32)).expect("memory for the index");
    }
    drop(locked);
    tree
}

#[inline(never)]
fn counted_lookup(tree: &XArray) {
    for index in 0..TIMES {
        black_box(tree.load(index, &rcu::read()));
    }
}

/// The positive control: [`counted_lookup`] with added waste.
#[inline(never)]
fn counted_wasteful_lookup(tree: &XArray) {
    for index in 0..TIMES {
        black_box(tree.load(index, &rcu::read()));
        black_box(black_box(index).wrapping_mul(3).rotate_left(7));
    }
}

fn lookup(entries: u64, count: fn(&XArray)) {
    let tree = tree(entries);
    drop(rcu::read());
    count(&tree);
}

#[inline(never)]
fn counted_faults(mm: &Mm, addresses: &[u64], write: bool) {
    for &address in addresses {
        black_box(mm.fault(address, write));
    }
}

fn faults(locking: Locking, fault_around_bytes: u64, write: bool) {
    /// Bytes that one page table maps.
    const LEAF: u64 = 2 << 20;
    let pages = (TIMES + TIMES / 16) * (fault_around_bytes / PAGE);
    let (cache, file) = file(pages, 1);
    let mm = Mm::new(&cache, MmOptions::default().locking(locking).fault_around_bytes(fault_around_bytes))
        .expect("an address space");
    let prot = if write { Prot::ReadWrite } else { Prot::Read };
    let start = mm.mmap(&file, None, 0, prot, !write).expect("room");
    let end = start + pages * PAGE;
    mm.touch(start, pages * PAGE, PAGE, write).expect("resident");
    // A table stays as long as it has an entry: the last one is left in each.
    let last_entry = |address: u64| (address / LEAF + 1) * LEAF - PAGE;
    let mut at = start;
    while at < end {
        let to = last_entry(at).min(end);
        mm.madvise(at, to - at, Madvise::DontNeed).expect("mapped");
        at = to + PAGE;
    }
    let around = |address: u64| address / fault_around_bytes;
    let all = (start..end).step_by(fault_around_bytes as usize);
    let addresses: Vec<_> =
        all.filter(|&at| around(at) != around(last_entry(at))).take(TIMES as usize).collect();
    assert_eq!(addresses.len() as u64, TIMES);
    counted_faults(&mm, &addresses, write);
    let events = mm.vm_events();
    let event = |name| events.iter().find(|(n, _)| *n == name).expect("an event").1;
    if locking == Locking::Speculative {
        assert!(event("spf_commit") >= TIMES, "{events:?}");
    }
}

fn main() {
    let name = std::env::args().nth(1).expect("the name of an operation");
    println!("{TIMES}");
    match &*name {
        "lookup_1000" => lookup(1_000, counted_lookup),
        "lookup_65536" => lookup(65_536, counted_lookup),
        "lookup_1000000" => lookup(1_000_000, counted_lookup),
        "control" => lookup(65_536, counted_wasteful_lookup),
        "copy_out_1000" => copy_out(1_000, 1),
        "copy_out_65536" => copy_out(65_536, 1),
        // One page in each leaf of the index: the tree of a million resident pages without their 4 GB.
        "copy_out_1000000" => copy_out(1_000_000, 64),
        "copy_out_page" => {
            let (_cache, file) = file(TIMES, 1);
            use_twice(&file, TIMES, 1);
            counted_copy_out_of_a_page(&file);
        }
        "miss" => misses(),
        "fault_speculative" => faults(Locking::Speculative, PAGE, false),
        "fault_speculative_around" => faults(Locking::Speculative, 16 * PAGE, false),
        "fault_speculative_private" => faults(Locking::Speculative, PAGE, true),
        "fault_mmap_lock" => faults(Locking::MmapLock, PAGE, false),
        "fault_mmap_lock_around" => faults(Locking::MmapLock, 16 * PAGE, false),
        _ => panic!("no operation is called {name}"),
    }
}
