//! The cache under shuttle: reads, readahead, eviction, reuse and truncation by many threads over few frames.

use super::address_space::Lookup;
use super::{AddressSpace, Advice, CacheOptions, File, Io, PageCache, StoreOptions};
use crate::error::Error;
use crate::page::{PAGE_SIZE, PageFlags};
use crate::rcu;
use crate::shuttle_harness::{Search, Test, contents, reach, together, word, words};
use crate::store::MemoryStore;
use crate::xarray::Entry;
use std::sync::Arc;
use std::time::Duration;

const PAGE: u64 = PAGE_SIZE as u64;

type Threads = Vec<Box<dyn FnOnce() + Send>>;

/// A cache of a few frames. No thread waits for a frame, because there is no time here.
pub(crate) fn cache_of(frames: u64, io: Io) -> PageCache {
    PageCache::with_options(frames * PAGE, CacheOptions::default().io(io).frame_timeout(Duration::ZERO))
        .unwrap()
}

/// File number `n` of a cache.
pub(crate) fn open(cache: &PageCache, n: u64, pages: u64, ra_pages: u32) -> File {
    let store = Arc::new(MemoryStore::new(contents(n, pages)));
    cache
        .open_store_with(store, pages * PAGE, StoreOptions::default().name("shuttle").ra_pages(ra_pages))
        .unwrap()
}

/// Nothing is left: no lock, no reference, no page, no node.
pub(crate) fn finish(cache: &PageCache, files: Vec<File>) {
    cache.check().unwrap();
    for file in &files {
        file.close().unwrap();
    }
    drop(files);
    nothing_is_left(cache);
    cache.close().unwrap();
}

/// Of a cache all of whose files are closed.
pub(crate) fn nothing_is_left(cache: &PageCache) {
    rcu::barrier();
    cache.check().unwrap();
    let stats = cache.stats();
    assert_eq!(
        (stats.frames_in_use, stats.private_frames, stats.xarray_nodes, stats.page_tables),
        (0, 0, 0, 0),
        "something is left"
    );
}

/// Reads whole words at `offset`; `None` when the cache is full. Claim: each is the file's, or zero where `may_be_zero`.
pub(crate) fn read(
    file: &File,
    n: u64,
    offset: u64,
    length: usize,
    may_be_zero: impl Fn(u64) -> bool,
) -> Option<usize> {
    let mut buf = vec![0xEE; length];
    let got = match file.pread(&mut buf, offset) {
        Ok(got) => got,
        Err(Error::OutOfFrames { .. }) => {
            reach("full");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    for (at, found) in (offset / 8..).zip(words(&buf[..got])) {
        let right = found == word(n, at) || (found == 0 && may_be_zero(at));
        assert!(right, "word {at} of file {n} reads as {found:#x}");
    }
    Some(got)
}

pub(crate) fn never(_word: u64) -> bool {
    false
}

/// Three lookups of one file's page against two threads that drop it and two that want its frame, the only one. Claim: a thread
/// that has a reference and then finds the slot unchanged has that file's page, and its bytes if it is up to date.
fn lookups() {
    let cache = cache_of(1, Io::Inline);
    let files = vec![open(&cache, 0, 1, 0), open(&cache, 1, 1, 0)];
    read(&files[0], 0, 0, PAGE_SIZE, never);
    let mut threads: Threads = Vec::new();
    for _ in 0..3 {
        let mapping = Arc::clone(&files[0].open_file().unwrap().mapping);
        threads.push(Box::new(move || {
            for _ in 0..2 {
                let section = rcu::read();
                match mapping.find_get_page_once(0, &section) {
                    Lookup::Found(handle) => {
                        let page = handle.page();
                        assert!(page.is_at(mapping.id(), 0), "a stranger's page: {handle:?}");
                        if page.flags().has(PageFlags::UPTODATE) {
                            reach("found");
                            let mut buf = [0; PAGE_SIZE];
                            page.bytes().read(0, &mut buf);
                            assert!(words(&buf).eq((0..).take(PAGE_SIZE / 8).map(|at| word(0, at))));
                        }
                    }
                    Lookup::Absent => reach("absent"),
                    Lookup::Interfered => reach("interfered"),
                }
            }
        }));
    }
    for file in &files {
        let dropped = file.clone();
        threads.push(Box::new(move || dropped.advise(Advice::DontNeed, 0, None).unwrap()));
    }
    for (n, file) in (0..).zip(&files) {
        let file = file.clone();
        threads.push(Box::new(move || {
            if read(&file, n, 0, PAGE_SIZE, never).is_some() && n == 1 {
                reach("reused");
            }
        }));
    }
    together(threads);
    finish(&cache, files);
}

#[test]
fn lookups_against_removal_and_reuse() {
    Test {
        name: "look-ups against removal and reuse, 7 threads",
        search: Search::Pct(4_000),
        body: lookups,
        reaches: &["found", "absent", "interfered", "reused", "full"],
        needs: &["filemap.slot_recheck", "page.get.unless_zero", "page.freeze.expected"],
    }
    .check();
}

/// Four readers of two files over four frames, with readahead; a reader that finds no free frame drops unused pages, and so do
/// two more threads. Claim: every byte is the file's.
fn evictions(io: Io) {
    let cache = cache_of(4, io);
    let files = vec![open(&cache, 0, 5, 2), open(&cache, 1, 5, 2)];
    let mut threads: Threads = Vec::new();
    for (n, file) in (0..).zip(&files) {
        for first in [0, 2] {
            let (cache, file) = (cache.clone(), file.clone());
            threads.push(Box::new(move || {
                for page in [first, first + 1] {
                    // Across the end of a page.
                    let mut got = read(&file, n, page * PAGE + 8, PAGE_SIZE, never);
                    if got.is_none() {
                        cache.drop_caches().unwrap();
                        got = read(&file, n, page * PAGE + 8, PAGE_SIZE, never);
                    }
                    if let Some(got) = got {
                        assert_eq!(got, PAGE_SIZE);
                        reach("read");
                    }
                }
            }));
        }
    }
    let (dropper, adviser) = (cache.clone(), files[0].clone());
    threads.push(Box::new(move || {
        for _ in 0..2 {
            if dropper.drop_caches().unwrap() > 0 {
                reach("dropped");
            }
        }
    }));
    threads.push(Box::new(move || {
        adviser.advise(Advice::DontNeed, PAGE, Some(2 * PAGE)).unwrap();
        adviser.advise(Advice::WillNeed, 0, Some(2 * PAGE)).unwrap();
    }));
    let count = threads.len();
    together(threads);
    let stats = cache.stats();
    if stats.retries > 0 {
        reach("retried");
    }
    // Numbers of threads are given in order: the main thread, those above, workers, this one.
    if crate::sync::thread::spawn(crate::sync::thread_number).join().unwrap() == Some(1 + count + 2) {
        reach("workers");
    }
    finish(&cache, files);
}

#[test]
fn reads_against_eviction() {
    Test {
        name: "reads against eviction and reuse, 2 files, 4 frames, 6 threads",
        search: Search::Pct(1_500),
        body: || evictions(Io::Inline),
        reaches: &["read", "dropped", "full", "retried"],
        needs: &[],
    }
    .check();
}

#[test]
fn reads_by_workers() {
    Test {
        name: "reads by two workers against eviction, 8 threads",
        search: Search::Pct(1_000),
        body: || evictions(Io::Threads),
        reaches: &["read", "dropped", "full", "retried", "workers"],
        needs: &["copy_out.uptodate"],
    }
    .check();
}

/// Three readers of a file that only becomes shorter, within its pages too; one thread drops pages. Claim: no read shows the
/// zeros behind the end.
fn shrinking() {
    let cache = cache_of(4, Io::Inline);
    let files = vec![open(&cache, 0, 4, 2)];
    let mut threads: Threads = Vec::new();
    for page in [0, 1, 2] {
        let file = files[0].clone();
        threads.push(Box::new(move || {
            for _ in 0..2 {
                let got = read(&file, 0, page * PAGE, PAGE_SIZE, never);
                reach(match got {
                    Some(PAGE_SIZE) => "whole",
                    Some(0) => "beyond",
                    _ => "partial",
                });
            }
        }));
    }
    let (truncater, dropper) = (files[0].clone(), cache.clone());
    threads.push(Box::new(move || {
        for words in [5, 3, 1] {
            truncater.truncate(words * 8).unwrap();
            assert_eq!(truncater.residency(0, None).unwrap().len() as u64, words.div_ceil(2));
        }
    }));
    threads.push(Box::new(move || {
        dropper.drop_caches().unwrap();
    }));
    together(threads);
    finish(&cache, files);
}

#[test]
fn reads_of_a_file_that_shrinks() {
    Test {
        name: "reads of a file that shrinks, 5 threads",
        search: Search::Pct(5_000),
        body: shrinking,
        reaches: &["whole", "beyond", "partial"],
        needs: &["copy_out.size", "page.generation.check"],
    }
    .check();
}

/// As above, but the file becomes longer again: the part that was cut off reads as zeros, the rest as before.
fn growing_again() {
    const KEPT: u64 = 3;
    let cache = cache_of(4, Io::Inline);
    let files = vec![open(&cache, 0, 4, 4)];
    let mut threads: Threads = Vec::new();
    for page in [0, 1, 2] {
        let file = files[0].clone();
        threads.push(Box::new(move || {
            for _ in 0..2 {
                read(&file, 0, page * PAGE, 2 * PAGE_SIZE, |word| word >= KEPT);
            }
        }));
    }
    let truncater = files[0].clone();
    threads.push(Box::new(move || {
        truncater.truncate(KEPT * 8).unwrap();
        truncater.truncate(4 * PAGE).unwrap();
        let mut tail = [0xEE; PAGE_SIZE];
        match truncater.pread(&mut tail, PAGE) {
            Ok(_) => {
                assert_eq!(words(&tail).collect::<Vec<_>>(), [word(0, 2), 0], "a cut-off byte came back");
            }
            Err(error) => assert!(matches!(error, Error::OutOfFrames { .. }), "{error}"),
        }
    }));
    together(threads);
    finish(&cache, files);
}

#[test]
fn reads_of_a_file_that_grows_again() {
    Test {
        name: "reads of a file cut short and grown again, 4 threads",
        search: Search::Pct(2_000),
        body: growing_again,
        reaches: &[],
        needs: &[],
    }
    .check();
}

/// Three speculative page faults against truncation and growth. Claims: a page that is returned is the file's as long as it is
/// locked; however an attempt ended, no reference is left.
fn speculative_page_faults() {
    let cache = cache_of(2, Io::Inline);
    let files = vec![open(&cache, 0, 2, 0)];
    read(&files[0], 0, 0, 2 * PAGE_SIZE, never);
    let mut threads: Threads = Vec::new();
    for index in [0, 1, 1] {
        let mapping = Arc::clone(&files[0].open_file().unwrap().mapping);
        threads.push(Box::new(move || {
            for _ in 0..2 {
                match super::speculation::filemap_fault_speculative(&mapping, index, &rcu::read()) {
                    Ok(held) => {
                        reach("locked");
                        assert!(held.lock.page().is_at(mapping.id(), index), "a truncated page: {held:?}");
                        drop(held);
                    }
                    Err(cause) => reach(cause),
                }
            }
        }));
    }
    // In two threads: truncation does not return while an attempt is under way.
    for size in [0, 2 * PAGE] {
        let file = files[0].clone();
        threads.push(Box::new(move || file.truncate(size).unwrap()));
    }
    together(threads);
    finish(&cache, files);
}

#[test]
fn speculative_page_faults_against_truncation() {
    Test {
        name: "speculative page faults against truncation, 5 threads",
        search: Search::Pct(3_000),
        body: speculative_page_faults,
        reaches: &["locked", "FILE_MISS", "FILE_LOCKED", "FILE_MAPPING", "FILE_EOF"],
        needs: &["filemap.spec.mapping", "filemap.spec.put"],
    }
    .check();
}

/// A file of one page, cached, in a cache of one frame.
fn one_page() -> (PageCache, File, Arc<AddressSpace>) {
    let cache = cache_of(1, Io::Inline);
    let file = open(&cache, 0, 1, 0);
    read(&file, 0, 0, PAGE_SIZE, never);
    let mapping = Arc::clone(&file.open_file().unwrap().mapping);
    (cache, file, mapping)
}

/// One thread takes a reference unless the count is zero and looks at the slot again; one freezes the count, removes the
/// page and gives the frame an owner without a file.
fn get_against_freeze() {
    let (_cache, _file, mapping) = one_page();
    let remover = {
        let mapping = Arc::clone(&mapping);
        crate::sync::thread::spawn(move || {
            let page = mapping.frames().page(0);
            let lock = page.try_lock().expect("nobody else locks it");
            if mapping.remove_mapping(&lock, Entry::EMPTY) {
                let reference = page.adopt();
                drop(lock);
                drop(reference);
            } else {
                reach("busy");
            }
        })
    };
    let section = rcu::read();
    let found = mapping.pages.find(0, &section);
    match found.entry.as_page().map(|pfn| mapping.frames().page(pfn).try_get()) {
        Some(Some(handle)) if found.is_unchanged() => {
            reach("found");
            assert!(handle.page().is_at(mapping.id(), 0), "a page that is gone: {handle:?}");
            assert!(handle.page().refcount() > 0);
        }
        Some(_) => reach("interfered"),
        None => reach("absent"),
    }
    drop(section);
    remover.join().unwrap();
    mapping.frames().audit(&[]).unwrap();
}

#[test]
fn every_schedule_of_get_against_freeze() {
    Test {
        name: "try_get against freeze",
        search: Search::Dfs,
        body: get_against_freeze,
        reaches: &["found", "interfered", "absent", "busy"],
        needs: &["page.get.unless_zero", "page.freeze.expected"],
    }
    .check();
}

/// One thread tries the page lock and then looks whose page it is; one truncates the page away. Claim: a page that is the
/// file's under its lock stays so until unlocked.
fn trylock_against_truncate() {
    let (_cache, _file, mapping) = one_page();
    let handle = mapping.find_get_page(0, &rcu::read()).expect("it is cached");
    let truncater = {
        let mapping = Arc::clone(&mapping);
        crate::sync::thread::spawn(move || {
            let page = mapping.frames().page(0);
            // Sleeping for the lock has its own test.
            if let Some(lock) = page.try_lock().or_else(|| page.try_lock()) {
                drop(mapping.delete(&lock));
                drop(lock);
            } else {
                reach("busy");
            }
        })
    };
    if let Some(lock) = handle.page().try_lock() {
        if handle.page().is_at(mapping.id(), 0) {
            reach("mine");
            crate::sync::imp::switch();
            assert!(handle.page().is_at(mapping.id(), 0), "it went under its lock");
        } else {
            reach("gone");
        }
        drop(lock);
    } else {
        reach("locked");
    }
    truncater.join().unwrap();
    drop(handle);
    mapping.frames().audit(&[]).unwrap();
}

#[test]
fn every_schedule_of_trylock_against_truncate() {
    Test {
        name: "trylock against truncate",
        search: Search::Dfs,
        body: trylock_against_truncate,
        reaches: &["mine", "gone", "locked", "busy"],
        needs: &["page.lock.was_free"],
    }
    .check();
}
