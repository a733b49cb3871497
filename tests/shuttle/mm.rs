//! The address space under shuttle: faults of both kinds, mmap, munmap, zapping, truncation, eviction and reuse, all at once.

use super::leaf::FANOUT;
use super::{Locking, Madvise, Mm, MmOptions, Prot};
use crate::cache::shuttle_tests::{cache_of, finish, open};
use crate::cache::{Advice, File, Io, PageCache};
use crate::error::Error;
use crate::page::PAGE_SIZE;
use crate::rcu;
use crate::shuttle_harness::{Search, Test, reach, together, word};

#[path = "mm/truncation.rs"]
mod truncation;

const PAGE: u64 = PAGE_SIZE as u64;
/// Words in a page.
const WORDS: u64 = PAGE / 8;

type Threads = Vec<Box<dyn FnOnce() + Send>>;

fn mm_over(cache: &PageCache, locking: Locking, pages_around: u64) -> Mm {
    Mm::new(cache, MmOptions::default().locking(locking).fault_around_bytes(pages_around * PAGE)).unwrap()
}

/// Loads the word at `at` (counted in words from `base`). `None`: nothing mapped, beyond the file, or no frame.
fn load(mm: &Mm, base: u64, at: u64) -> Option<u64> {
    let mut buf = [0; 8];
    match mm.load(base + at * 8, &mut buf) {
        Ok(()) => {
            reach("load");
            Some(u64::from_ne_bytes(buf))
        }
        Err(error) => refused(&error),
    }
}

/// Stores a word. False: as for a load.
fn store(mm: &Mm, base: u64, at: u64, value: u64) -> bool {
    match mm.store(base + at * 8, &value.to_ne_bytes()) {
        Ok(()) => {
            reach("store");
            true
        }
        Err(error) => refused::<()>(&error).is_some(),
    }
}

fn refused<T>(error: &Error) -> Option<T> {
    match error {
        Error::Segmentation { .. } => reach("SEGV"),
        Error::Bus { cause: None, .. } => reach("BUS"),
        Error::OutOfFrames { .. } => reach("OOM"),
        other => panic!("{other}"),
    }
    None
}

/// Closes everything: counters add up, no entry, table, reference, page, node or lock is left.
fn finish_all(cache: &PageCache, mms: Vec<Mm>, files: Vec<File>) {
    for mm in &mms {
        mm.check().unwrap();
        let count = |name: &str| mm.vm_events().iter().find(|event| event.0 == name).unwrap().1;
        if count("spf_commit") > 0 {
            reach("commit");
        }
        for (name, times) in mm.vm_events() {
            if name.starts_with("spf_abort_") && times > 0 {
                reach(name);
            }
        }
    }
    cache.check().unwrap();
    for mm in &mms {
        mm.close().unwrap();
        assert_eq!(mm.page_table_bytes(), (FANOUT * 8) as u64, "a table below the root is left");
    }
    drop(mms);
    finish(cache, files);
}

/// Three threads load from a range that maps one file and then another; one remaps it, one zaps its entries, one drops pages
/// and reads others so that frames are reused. Claims: a word is one of the two files' at that place, and after munmap no
/// entry is left.
fn remapping() {
    const PAGES: u64 = 6;
    let cache = cache_of(7, Io::Inline);
    let files = vec![open(&cache, 0, PAGES, 2), open(&cache, 1, PAGES, 2)];
    let mm = mm_over(&cache, Locking::Speculative, 1);
    let base = mm.mmap(&files[0], None, 0, Prot::Read, true).unwrap();
    load(&mm, base, 0);
    let mut threads: Threads = Vec::new();
    for first in [0, 1, 4] {
        let mm = mm.clone();
        threads.push(Box::new(move || {
            for page in [first, first + 1] {
                let at = page * WORDS + 1;
                if let Some(found) = load(&mm, base, at) {
                    assert!([0, 1].map(|n| word(n, at)).contains(&found), "word {at} loads as {found:#x}");
                }
            }
        }));
    }
    let (remapped, file) = (mm.clone(), files[1].clone());
    threads.push(Box::new(move || {
        remapped.munmap(base, PAGES * PAGE).unwrap();
        assert_eq!(remapped.pagemap(base, PAGES * PAGE).unwrap(), [0; PAGES as usize], "an entry is left");
        assert_eq!(remapped.mmap(&file, None, 0, Prot::Read, true).unwrap(), base);
        if let Some(found) = load(&remapped, base, 2) {
            assert_eq!(found, word(1, 2), "the mapping before");
        }
    }));
    let zapped = mm.clone();
    threads.push(Box::new(move || match zapped.madvise(base, 2 * PAGE, Madvise::DontNeed) {
        Ok(()) => reach("zapped"),
        Err(error) => assert!(matches!(error, Error::InvalidArgument(_)), "{error}"),
    }));
    let (dropped, file) = (cache.clone(), files[1].clone());
    threads.push(Box::new(move || {
        dropped.drop_caches().unwrap();
        let _may_be_full = file.pread(&mut [0; PAGE_SIZE], 4 * PAGE);
    }));
    together(threads);
    finish_all(&cache, vec![mm], files);
}

#[test]
fn loads_against_remapping_and_reuse() {
    Test {
        name: "loads against munmap, mmap, zapping, eviction and reuse, 6 threads",
        search: Search::Pct(1_500),
        body: remapping,
        reaches: &["load", "SEGV", "zapped", "commit"],
        needs: &[],
    }
    .check();
}

/// Three threads fault on two cached pages; one unmaps them. Claim: when munmap returns no entry is left, and none is set later.
/// (The entry of a third page keeps their table.)
fn faults_against_unmapping() {
    let cache = cache_of(3, Io::Inline);
    let files = vec![open(&cache, 0, 3, 0)];
    files[0].advise(Advice::WillNeed, 0, None).unwrap();
    let mm = mm_over(&cache, Locking::Speculative, 1);
    let base = mm.mmap(&files[0], None, 0, Prot::Read, true).unwrap();
    load(&mm, base, 2 * WORDS);
    let mut threads: Threads = Vec::new();
    for page in [0, 0, 1] {
        let mm = mm.clone();
        threads.push(Box::new(move || {
            if mm.fault(base + page * PAGE, false).abort.is_none() {
                reach("commit");
            }
        }));
    }
    let unmapped = mm.clone();
    threads.push(Box::new(move || {
        unmapped.munmap(base, 2 * PAGE).unwrap();
        assert_eq!(unmapped.pagemap(base, 3 * PAGE).unwrap(), [0, 0, 1], "an entry is left");
    }));
    together(threads);
    assert_eq!(mm.pagemap(base, 3 * PAGE).unwrap(), [0, 0, 1], "an entry outlives its mapping");
    finish_all(&cache, vec![mm], files);
}

#[test]
fn faults_against_munmap() {
    Test {
        name: "faults against munmap, 4 threads",
        search: Search::Pct(3_000),
        body: faults_against_unmapping,
        reaches: &[
            "commit",
            "spf_abort_odd",
            "spf_abort_unmapped",
            "spf_abort_vma_copy",
            "spf_abort_fault",
            "spf_abort_pte_map_lock_seq1",
            "spf_abort_pte_map_lock_seq2",
        ],
        needs: &["pte_map_lock.seq2"],
    }
    .check();
}

/// Three threads load through entries that exist; one zaps these, drops the page and reads another file into its frame, the
/// only one but for that of a page whose entry keeps their table. Claim: a load that began through an entry reads that file's
/// page to its end.
fn loads_in_progress() {
    let cache = cache_of(2, Io::Inline);
    let files = vec![open(&cache, 0, 1, 0), open(&cache, 1, 1, 0), open(&cache, 2, 1, 0)];
    let mm = mm_over(&cache, Locking::Speculative, 1);
    let base = mm.mmap(&files[0], None, 0, Prot::Read, true).unwrap();
    let beside = mm.mmap(&files[2], None, 0, Prot::Read, true).unwrap();
    assert_eq!(load(&mm, beside, 0), Some(word(2, 0)));
    assert_eq!(load(&mm, base, 0), Some(word(0, 0)));
    // Otherwise dropping the page would wait for a grace period, because mapping it deferred work, or a table was freed.
    rcu::barrier();
    let mut threads: Threads = Vec::new();
    for at in [0, 1, 1] {
        let mm = mm.clone();
        threads.push(Box::new(move || {
            if let Some(found) = load(&mm, base, at) {
                assert_eq!(found, word(0, at), "the frame's next owner's word");
            }
        }));
    }
    let (zapped, [file, next]) = (mm.clone(), [files[0].clone(), files[1].clone()]);
    threads.push(Box::new(move || {
        zapped.madvise(base, PAGE, Madvise::DontNeed).unwrap();
        file.advise(Advice::DontNeed, 0, None).unwrap();
        if next.pread(&mut [0; PAGE_SIZE], 0).is_ok() {
            reach("reused");
        }
    }));
    together(threads);
    finish_all(&cache, vec![mm], files);
}

#[test]
fn a_load_in_progress_keeps_its_page() {
    Test {
        name: "loads in progress against zapping and reuse, 4 threads",
        search: Search::Pct(3_000),
        body: loads_in_progress,
        reaches: &["load", "reused", "OOM"],
        needs: &["gather.flush", "rcu.scan.waits"],
    }
    .check();
}

/// Four threads load from pages that are not cached, without readahead; one drops the pages that they brought in. Claim: no page
/// is mapped before it was read.
fn first_faults() {
    // One for each page, and one for each thread that makes a page which another has just made.
    let cache = cache_of(7, Io::Inline);
    let files = vec![open(&cache, 0, 3, 0)];
    let mms = [Locking::Speculative, Locking::MmapLock].map(|locking| mm_over(&cache, locking, 1));
    let bases = mms.each_ref().map(|mm| mm.mmap(&files[0], None, 0, Prot::Read, true).unwrap());
    // The tables are there already.
    load(&mms[0], bases[0], 2 * WORDS);
    let mut threads: Threads = Vec::new();
    for mm in [0, 0, 0, 1] {
        let (mm, base) = (mms[mm].clone(), bases[mm]);
        threads.push(Box::new(move || {
            for at in [0, WORDS + 1] {
                assert_eq!(load(&mm, base, at), Some(word(0, at)));
            }
        }));
    }
    let dropped = cache.clone();
    threads.push(Box::new(move || {
        dropped.drop_caches().unwrap();
    }));
    together(threads);
    finish_all(&cache, mms.to_vec(), files);
}

#[test]
fn first_faults_without_readahead() {
    Test {
        name: "first faults without readahead, 5 threads",
        search: Search::Pct(2_000),
        body: first_faults,
        reaches: &["load", "commit", "spf_abort_file_locked", "spf_abort_file_not_uptodate"],
        needs: &["filemap.spec.uptodate"],
    }
    .check();
}

/// Two threads store to different words of one page of a private mapping, one to another page, two load, one makes the mapping
/// read-only and writable again. Claims: a thread that stored a word finds it; every word is the file's or one that was stored.
fn private_copies() {
    let cache = cache_of(8, Io::Inline);
    let files = vec![open(&cache, 0, 2, 2)];
    let mm = mm_over(&cache, Locking::Speculative, 1);
    let base = mm.mmap(&files[0], None, 0, Prot::ReadWrite, false).unwrap();
    let stored = |at: u64| word(9, at);
    let mut threads: Threads = Vec::new();
    for at in [0, 1, 2] {
        let mm = mm.clone();
        threads.push(Box::new(move || {
            if store(&mm, base, at, stored(at)) {
                assert_eq!(load(&mm, base, at), Some(stored(at)), "a store is lost");
            }
        }));
    }
    for at in [1, 2] {
        let mm = mm.clone();
        threads.push(Box::new(move || {
            for _ in 0..2 {
                let found = load(&mm, base, at).expect("mapped, within the file, and there are frames");
                assert!([word(0, at), stored(at)].contains(&found), "word {at} loads as {found:#x}");
            }
        }));
    }
    let protected = mm.clone();
    threads.push(Box::new(move || {
        protected.mprotect(base, PAGE, Prot::Read).unwrap();
        protected.mprotect(base, PAGE, Prot::ReadWrite).unwrap();
    }));
    together(threads);
    finish_all(&cache, vec![mm], files);
}

#[test]
fn stores_to_private_copies() {
    Test {
        name: "stores to private copies against mprotect, 6 threads",
        search: Search::Pct(3_000),
        body: private_copies,
        reaches: &["load", "store", "SEGV", "commit"],
        needs: &["finish_fault.pte_none", "leaf.trylock.was_free"],
    }
    .check();
}

/// Four threads store through read-only entries, two to each page, and two load. Claims: as above, and a copy is never mapped
/// before it was filled.
fn upgrades() {
    let cache = cache_of(8, Io::Inline);
    let files = vec![open(&cache, 0, 2, 2)];
    let mm = mm_over(&cache, Locking::Speculative, 1);
    let base = mm.mmap(&files[0], None, 0, Prot::ReadWrite, false).unwrap();
    for at in [0, 2] {
        assert_eq!(load(&mm, base, at), Some(word(0, at)));
    }
    let stored = |at: u64| word(9, at);
    let mut threads: Threads = Vec::new();
    for at in 0..2 * WORDS {
        let mm = mm.clone();
        threads.push(Box::new(move || {
            assert!(store(&mm, base, at, stored(at)));
            assert_eq!(load(&mm, base, at), Some(stored(at)), "a store is lost");
        }));
    }
    for at in [1, 2] {
        let mm = mm.clone();
        threads.push(Box::new(move || {
            let found = load(&mm, base, at).unwrap();
            assert!([word(0, at), stored(at)].contains(&found), "word {at} loads as {found:#x}");
        }));
    }
    together(threads);
    assert_eq!(cache.stats().private_frames, 2);
    finish_all(&cache, vec![mm], files);
}

#[test]
fn stores_through_entries_without_the_right() {
    Test {
        name: "stores through entries without the right, 6 threads",
        search: Search::Pct(2_000),
        body: upgrades,
        reaches: &["load", "store", "commit"],
        needs: &["do_wp_page.pte_same"],
    }
    .check();
}
