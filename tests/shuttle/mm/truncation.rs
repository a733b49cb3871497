//! Truncation under shuttle: against faults of both kinds, and of a mapping that is being split.

use super::*;

/// Two address spaces map one file, one shared and speculative, one private under the lock only; it is cut short within a page
/// and grown again while three threads load, one stores and one drops pages. Claims: a word is the file's, or zero where it was
/// cut off, or one that was stored; after the cut no entry beyond the end is left in either.
fn truncation() {
    const PAGES: u64 = 5;
    const KEPT: u64 = 3;
    let cache = cache_of(9, Io::Inline);
    let files = vec![open(&cache, 0, PAGES, 2)];
    let shared = mm_over(&cache, Locking::Speculative, 1);
    let private = mm_over(&cache, Locking::MmapLock, 2);
    let base = shared.mmap(&files[0], None, 0, Prot::Read, true).unwrap();
    assert_eq!(private.mmap(&files[0], None, 0, Prot::ReadWrite, false).unwrap(), base);
    load(&shared, base, 0);
    let stored = |at: u64| word(9, at);
    let mut threads: Threads = Vec::new();
    for (mm, at) in [(&shared, 1), (&shared, 3), (&shared, 5), (&private, 4)] {
        let mm = mm.clone();
        threads.push(Box::new(move || {
            for at in [at, at + 2] {
                if let Some(found) = load(&mm, base, at) {
                    let right = found == word(0, at) || found == stored(at) || (found == 0 && at >= KEPT);
                    assert!(right, "word {at} loads as {found:#x}");
                }
            }
        }));
    }
    let storing = private.clone();
    threads.push(Box::new(move || {
        for at in [0, 4, 7] {
            store(&storing, base, at, stored(at));
        }
    }));
    let (file, both) = (files[0].clone(), [shared.clone(), private.clone()]);
    threads.push(Box::new(move || {
        file.truncate(KEPT * 8).unwrap();
        for mm in &both {
            let beyond = mm.pagemap(base + 2 * PAGE, (PAGES - 2) * PAGE).unwrap();
            assert_eq!(beyond, [0; PAGES as usize - 2], "an entry beyond the end");
        }
        file.truncate(PAGES * PAGE).unwrap();
        if let Some(found) = load(&both[0], base, 5) {
            assert_eq!(found, 0, "a cut-off byte came back");
        }
    }));
    let dropped = cache.clone();
    threads.push(Box::new(move || {
        dropped.drop_caches().unwrap();
    }));
    together(threads);
    finish_all(&cache, vec![shared, private], files);
}

#[test]
fn faults_against_truncation() {
    Test {
        name: "faults of two address spaces against truncation, 7 threads",
        search: Search::Pct(1_500),
        body: truncation,
        reaches: &["load", "store", "BUS", "commit"],
        needs: &["truncate.unmap_locked"],
    }
    .check();
}

/// Three threads load a cached page under the mmap lock while the file is cut off and grown again. Claims: a word is the file's,
/// or zero; no page that was removed is mapped.
fn classic_faults() {
    let cache = cache_of(4, Io::Inline);
    let files = vec![open(&cache, 0, 1, 0)];
    let mm = mm_over(&cache, Locking::MmapLock, 1);
    let base = mm.mmap(&files[0], None, 0, Prot::Read, true).unwrap();
    files[0].advise(Advice::WillNeed, 0, None).unwrap();
    let mut threads: Threads = Vec::new();
    for at in [0, 0, 1] {
        let mm = mm.clone();
        threads.push(Box::new(move || {
            if let Some(found) = load(&mm, base, at) {
                assert!([0, word(0, at)].contains(&found), "word {at} loads as {found:#x}");
            }
        }));
    }
    for size in [0, PAGE] {
        let file = files[0].clone();
        threads.push(Box::new(move || file.truncate(size).unwrap()));
    }
    together(threads);
    finish_all(&cache, vec![mm], files);
}

#[test]
fn classic_faults_against_truncation() {
    Test {
        name: "faults under the mmap lock against truncation, 5 threads",
        search: Search::Pct(4_000),
        body: classic_faults,
        reaches: &["load", "BUS"],
        needs: &["filemap.classic.mapping"],
    }
    .check();
}

/// A mapping is split, and joined again, while its file is cut short: truncation must find every part of it at every moment.
/// Claim: no page that is truncated is mapped (asserted where it happens), and no entry beyond the end is left.
fn truncation_against_splitting() {
    const PAGES: u64 = 4;
    let cache = cache_of(6, Io::Inline);
    let files = vec![open(&cache, 0, PAGES, 4)];
    let mm = mm_over(&cache, Locking::Speculative, 4);
    let base = mm.mmap(&files[0], None, 0, Prot::Read, true).unwrap();
    for page in 0..PAGES {
        assert_eq!(load(&mm, base, page * WORDS), Some(word(0, page * WORDS)));
    }
    let (split, file) = (mm.clone(), files[0].clone());
    let mut threads: Threads = vec![Box::new(move || {
        split.madvise(base, 2 * PAGE, Madvise::Random).unwrap();
        split.madvise(base, 2 * PAGE, Madvise::Normal).unwrap();
        split.munmap(base + 2 * PAGE, PAGE).unwrap();
    })];
    let checked = mm.clone();
    threads.push(Box::new(move || {
        file.truncate(PAGE).unwrap();
        let beyond = checked.pagemap(base + PAGE, (PAGES - 1) * PAGE).unwrap();
        assert_eq!(beyond, [0; PAGES as usize - 1], "an entry beyond the end");
    }));
    let loading = mm.clone();
    threads.push(Box::new(move || {
        load(&loading, base, 2 * WORDS);
        load(&loading, base, WORDS);
    }));
    together(threads);
    finish_all(&cache, vec![mm], files);
}

#[test]
fn truncation_finds_a_mapping_that_is_split() {
    Test {
        name: "truncation against splitting and joining of a mapping, 3 threads",
        search: Search::Pct(2_000),
        body: truncation_against_splitting,
        reaches: &["load", "BUS"],
        needs: &["vma.move_end.seed.off_the_list"],
    }
    .check();
}
