//! Reclaim under shuttle: more pages than frames, read, mapped, pinned, cut, dropped and reclaimed by many threads at once.

use super::{Madvise, Mm, MmOptions, Prot};
use crate::cache::shuttle_tests::{cache_of, finish, never, open, read};
use crate::cache::{File, Io};
use crate::error::Error;
use crate::page::PAGE_SIZE;
use crate::rcu;
use crate::shuttle_harness::{Search, Test, reach, together, word, words};
use crate::sync::imp::switch;

const PAGE: u64 = PAGE_SIZE as u64;
/// Words in a page.
const WORDS: u64 = PAGE / 8;
/// Pages of each file.
const PAGES: u64 = 3;

type Threads = Vec<Box<dyn FnOnce() + Send>>;

/// The result of a request that may find the page cut off or no free frame.
fn or_refused<T>(answer: Result<T, Error>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(Error::Bus { cause: None, .. }) => {
            reach("beyond");
            None
        }
        Err(Error::OutOfFrames { .. }) => {
            reach("full");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Pins a page of file 0, of which words from `kept` on may be zero, and looks at it several times.
fn pin(file: &File, index: u64, kept: u64) {
    let Some(pinned) = or_refused(file.pin(index * PAGE, PAGE_SIZE)) else { return };
    reach("pinned");
    let look = || {
        let mut buf = [0xEE; PAGE_SIZE];
        pinned.read(&mut buf);
        buf
    };
    let before = look();
    for (at, found) in (index * WORDS..).zip(words(&before)) {
        let right = found == word(0, at) || (found == 0 && at >= kept);
        assert!(right, "word {at} is pinned as {found:#x}");
    }
    for _ in 0..3 {
        switch();
        assert_eq!(look(), before, "the bytes of a pin change");
    }
}

/// Two threads pin pages of a file that one cuts in the middle of a page and lets grow again; one reads another file, one
/// reclaims, one drops unused pages. Claims: pins show the file's bytes and do not change; each page is on one list or none;
/// nothing is left.
fn pins() {
    const KEPT: u64 = WORDS + 1;
    let cache = cache_of(3, Io::Inline);
    let files = vec![open(&cache, 0, PAGES, 0), open(&cache, 1, PAGES, 0)];
    read(&files[0], 0, 0, 2 * PAGE_SIZE, never);
    let mut threads: Threads = Vec::new();
    for first in [0, 1] {
        let file = files[0].clone();
        threads.push(Box::new(move || {
            pin(&file, first, KEPT);
            pin(&file, 1, KEPT);
        }));
    }
    let cut = files[0].clone();
    threads.push(Box::new(move || {
        cut.truncate(KEPT * 8).unwrap();
        cut.truncate(PAGES * PAGE).unwrap();
    }));
    let other = files[1].clone();
    threads.push(Box::new(move || {
        for page in 0..PAGES {
            read(&other, 1, page * PAGE, PAGE_SIZE, never);
        }
    }));
    let reclaimed = cache.clone();
    threads.push(Box::new(move || {
        for _ in 0..3 {
            if reclaimed.reclaim(1).unwrap() > 0 {
                reach("reclaimed");
            }
        }
    }));
    let dropped = cache.clone();
    threads.push(Box::new(move || {
        dropped.drop_caches().unwrap();
    }));
    together(threads);
    finish(&cache, files);
}

#[test]
fn pins_against_reclaim_and_truncation() {
    Test {
        name: "pins against truncation, reclaim and reuse, 3 frames, 6 threads",
        search: Search::Pct(1_500),
        body: pins,
        reaches: &["pinned", "reclaimed"],
        needs: &["zero_tail.pinned", "unpin.seed.put_first", "free.unlink"],
    }
    .check();
}

/// Three threads load from two mapped files of six pages over three frames; one reads, two reclaim, one zaps, one revalidates.
/// Claim: every word is the file's, whatever the frame held meanwhile.
fn mapped() {
    let cache = cache_of(3, Io::Inline);
    let files = vec![open(&cache, 0, PAGES, 2), open(&cache, 1, PAGES, 0)];
    let options = MmOptions::default().fault_around_bytes(2 * PAGE);
    let mm = Mm::new(&cache, options).unwrap();
    let bases: Vec<_> = files.iter().map(|file| mm.mmap(file, None, 0, Prot::Read, true).unwrap()).collect();
    let mut threads: Threads = Vec::new();
    for (file, first) in [(0, 0), (0, 1), (1, 0)] {
        let (mm, base) = (mm.clone(), bases[file as usize]);
        threads.push(Box::new(move || {
            for page in [first, first + 1, first] {
                let at = page * WORDS + 1;
                let mut buf = [0; 8];
                if or_refused(mm.load(base + at * 8, &mut buf)).is_some() {
                    reach("load");
                    assert_eq!(u64::from_ne_bytes(buf), word(file, at), "word {at} of file {file}");
                }
            }
        }));
    }
    let other = files[1].clone();
    threads.push(Box::new(move || {
        for page in [2, 0, 1] {
            read(&other, 1, page * PAGE, PAGE_SIZE, never);
        }
    }));
    for _ in 0..2 {
        let cache = cache.clone();
        threads.push(Box::new(move || {
            for _ in 0..2 {
                if cache.reclaim(2).unwrap() > 0 {
                    reach("reclaimed");
                }
            }
        }));
    }
    let (zapped, base) = (mm.clone(), bases[0]);
    threads.push(Box::new(move || zapped.madvise(base, PAGE, Madvise::DontNeed).unwrap()));
    let again = files[0].clone();
    threads.push(Box::new(move || assert_eq!(again.revalidate().unwrap(), PAGES * PAGE)));
    together(threads);
    if cache.stats().refaults > 0 {
        reach("refault");
    }
    mm.check().unwrap();
    cache.check().unwrap();
    mm.close().unwrap();
    drop(mm);
    rcu::barrier();
    finish(&cache, files);
}

#[test]
fn loads_against_reclaim() {
    Test {
        name: "loads of mapped files against reclaim, 3 frames, 8 threads",
        search: Search::Pct(8_000),
        body: mapped,
        reaches: &["load", "reclaimed", "refault"],
        needs: &["gather.flush", "vmscan.published"],
    }
    .check();
}
