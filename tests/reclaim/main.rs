//! Limited memory: any file can be served with any number of frames, and an access that cannot be served reports why.
#![cfg(not(any(specmm_loom, specmm_shuttle)))]
#![allow(missing_docs, reason = "a test suite")]

use specmm::store::Store;
use specmm::{
    Advice, CacheOptions, Error, File, Io, Mm, MmOptions, OpenMode, OpenOptions, PAGE_SIZE, PageCache, Prot,
    StoreOptions,
};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const PAGE: u64 = PAGE_SIZE as u64;

/// A file of any size: each word is its own offset, scrambled. Counts its reads and may delay them.
#[derive(Default)]
struct Computed {
    reads: AtomicU64,
    held_back: AtomicBool,
}

fn word(at: u64) -> u64 {
    (at ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Store for Computed {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        while self.held_back.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        for (i, bytes) in buf.chunks_mut(8).enumerate() {
            bytes.copy_from_slice(&word(offset + 8 * i as u64).to_ne_bytes()[..bytes.len()]);
        }
        Ok(buf.len())
    }
}

fn cache(frames: u64, io: Io) -> PageCache {
    PageCache::with_options(
        frames * PAGE,
        CacheOptions::default().io(io).frame_timeout(Duration::from_secs(60)),
    )
    .unwrap()
}

fn computed(cache: &PageCache, pages: u64) -> File {
    cache.open_store(Arc::new(Computed::default()), pages * PAGE).unwrap()
}

fn read_word(file: &File, at: u64) {
    let mut buf = [0; 8];
    assert_eq!(file.pread(&mut buf, at).unwrap(), 8);
    assert_eq!(u64::from_ne_bytes(buf), word(at), "at {at}");
}

/// A sequence of numbers below `n`.
fn random(seed: u64, n: u64) -> impl Iterator<Item = u64> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state % n)
    })
}

#[test]
fn three_frames_serve_a_hundred_thousand_pages() {
    for io in [Io::Inline, Io::Threads] {
        let cache = cache(3, io);
        let file = computed(&cache, 100_000);
        for page in 0..100_000 {
            read_word(&file, page * PAGE + page % 512 * 8);
        }
        let stats = cache.stats();
        assert!(stats.frames_in_use <= 3);
        assert!(stats.evictions >= 99_997, "{stats:?}");
        assert_eq!(stats.misses, 100_000);
        let mut all = vec![0; 100 * PAGE_SIZE];
        assert_eq!(file.pread(&mut all, 500 * PAGE).unwrap(), all.len(), "one request larger than the cache");
        assert!(all.chunks_exact(8).zip(0..).all(|(b, i)| b == word(500 * PAGE + 8 * i).to_ne_bytes()));
        cache.check().unwrap();
    }
}

#[test]
fn one_frame_serves_many_threads() {
    for (frames, io) in
        [(1, Io::Inline), (1, Io::Threads), (3, Io::Threads), (40, Io::Threads), (400, Io::Threads)]
    {
        let cache = cache(frames, io);
        let files = [computed(&cache, 1000), computed(&cache, 50)];
        let mm = Mm::new(&cache, MmOptions::default()).unwrap();
        let maps = files.each_ref().map(|file| mm.mmap(file, None, 0, Prot::Read, true).unwrap());
        std::thread::scope(|scope| {
            for thread in 0..6_usize {
                let (files, mm, cache) = (&files, &mm, &cache);
                scope.spawn(move || {
                    for at in random(thread as u64 + 7, 50 * 512).take(1500) {
                        if thread % 3 == 0 {
                            let mut buf = [0; 8];
                            mm.load(maps[thread % 2] + at * 8, &mut buf).unwrap();
                            assert_eq!(u64::from_ne_bytes(buf), word(at * 8));
                        } else {
                            read_word(&files[thread % 2], at * 8);
                        }
                        if at % 100 == 0 {
                            cache.reclaim(2).unwrap();
                        }
                    }
                });
            }
        });
        let stats = cache.stats();
        assert!(stats.frames_in_use <= frames);
        assert!(stats.evictions > 0 && stats.shadows <= frames, "{stats:?}");
        mm.close().unwrap();
        cache.check().unwrap();
    }
}

#[test]
fn mapped_pages_go_and_come_back() {
    let cache = cache(8, Io::Inline);
    let file = computed(&cache, 100);
    let mm = Mm::new(&cache, MmOptions::default()).unwrap();
    let at = mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
    for round in 0..3 {
        for page in 0..100 {
            let mut buf = [0; 8];
            mm.load(at + page * PAGE + 8, &mut buf).unwrap();
            assert_eq!(u64::from_ne_bytes(buf), word(page * PAGE + 8), "round {round}");
        }
    }
    let map = mm.pagemap(at, 100 * PAGE).unwrap();
    assert!(
        map.iter().filter(|&&entry| entry != 0).count() <= 8,
        "an entry for a page that is gone: {map:?}"
    );
    cache.check().unwrap();
}

#[test]
fn a_page_that_was_just_copied_goes_when_its_turn_comes() {
    let cache = cache(8, Io::Inline);
    let file = cache
        .open_store_with(Arc::new(Computed::default()), 8 * PAGE, StoreOptions::default().ra_pages(0))
        .unwrap();
    let mm = Mm::new(&cache, MmOptions::default().fault_around_bytes(PAGE)).unwrap();
    let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
    mm.load(at, &mut [0; 8]).unwrap();
    for page in 1..7 {
        read_word(&file, page * PAGE);
    }
    // The entry's reference to the page now waits for a grace period.
    mm.store(at, &[1; 8]).unwrap();
    read_word(&file, 7 * PAGE);
    assert_eq!(file.residency(0, None).unwrap(), [0, 1, 1, 1, 1, 1, 1, 1]);
    mm.close().unwrap();
    cache.check().unwrap();
}

#[test]
fn what_a_mapping_used_was_not_read_ahead_in_vain() {
    let cache = cache(64, Io::Inline);
    let file = computed(&cache, 400);
    let mm = Mm::new(&cache, MmOptions::default()).unwrap();
    let at = mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
    for page in 0..400 {
        mm.load(at + page * PAGE, &mut [0; 8]).unwrap();
    }
    mm.close().unwrap();
    let stats = cache.stats();
    assert!(stats.evictions > 300, "{stats:?}");
    assert_eq!(stats.readahead_used + stats.readahead_wasted, stats.readahead_pages, "{stats:?}");
    // Windows around a fault reach before it, where the pages have been evicted by now.
    assert!(stats.readahead_used >= 390, "{stats:?}");
}

#[test]
fn a_wait_may_be_longer_than_the_clock() {
    let cache =
        PageCache::with_options(PAGE, CacheOptions::default().io(Io::Inline).frame_timeout(Duration::MAX))
            .unwrap();
    let file = computed(&cache, 10);
    let pin = file.pin(0, 1).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| read_word(&file, PAGE));
        while cache.stats().frame_waits == 0 {
            std::thread::yield_now();
        }
        drop(pin);
        waiting.join().unwrap();
    });
}

#[test]
fn private_copies_are_not_evicted() {
    let cache = PageCache::with_options(
        8 * PAGE,
        CacheOptions::default().io(Io::Inline).frame_timeout(Duration::ZERO),
    )
    .unwrap();
    let file = computed(&cache, 100);
    let mm = Mm::new(&cache, MmOptions::default()).unwrap();
    let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
    for page in 0..4 {
        mm.store(at + page * PAGE, b"mine").unwrap();
    }
    for page in 4..100 {
        read_word(&file, page * PAGE);
    }
    let mut buf = [0; 4];
    mm.load(at + 2 * PAGE, &mut buf).unwrap();
    assert_eq!(&buf, b"mine");
    let error = mm.store(at + 5 * PAGE, b"more").unwrap_err();
    assert!(matches!(error, Error::OutOfFrames { .. }), "half of the frames may be copies: {error}");
    assert!(error.to_string().contains("4 private copies"), "{error}");
}

#[test]
fn pages_read_twice_survive_a_scan() {
    let cache = cache(64, Io::Inline);
    let (hot, cold) = (computed(&cache, 20), computed(&cache, 10_000));
    cold.advise(Advice::Random, 0, None).unwrap();
    for _ in 0..3 {
        (0..20).for_each(|page| read_word(&hot, page * PAGE));
    }
    (0..10_000).for_each(|page| read_word(&cold, page * PAGE));
    assert_eq!(hot.residency(0, None).unwrap().into_iter().map(u32::from).sum::<u32>(), 20);
    let stats = cache.stats();
    assert!(stats.activations >= 20, "{stats:?}");
}

#[test]
fn a_page_read_in_pieces_is_read_once() {
    let cache = cache(64, Io::Inline);
    let file = computed(&cache, 1000);
    for at in (0..100 * PAGE).step_by(256) {
        read_word(&file, at);
    }
    assert_eq!(cache.stats().activations, 0, "{:?}", cache.stats());
}

#[test]
fn a_working_set_larger_than_the_inactive_list_is_recognised() {
    let cache = cache(64, Io::Inline);
    let file = computed(&cache, 1000);
    file.advise(Advice::Random, 0, None).unwrap();
    // Half of the cache becomes active and is not used again.
    for _ in 0..3 {
        (500..540).for_each(|page| read_word(&file, page * PAGE));
    }
    // A loop that needs more than the rest, and less than the cache.
    for _ in 0..6 {
        (0..50).for_each(|page| read_word(&file, page * PAGE));
    }
    let stats = cache.stats();
    assert!(stats.refaults > 0 && stats.refaults_activated > 0, "{stats:?}");
    let before = stats.misses;
    (0..50).for_each(|page| read_word(&file, page * PAGE));
    assert!(cache.stats().misses - before <= 10, "the loop fits by now: {:?}", cache.stats());
}

#[test]
fn the_background_makes_room() {
    let cache = cache(2048, Io::Threads);
    let file = computed(&cache, 20_000);
    for page in 0..20_000 {
        read_word(&file, page * PAGE);
    }
    cache.settle();
    let stats = cache.stats();
    assert!(stats.evictions_background > 0, "{stats:?}");
    assert!(stats.frames_in_use < 2048, "free frames are kept: {stats:?}");
    cache.check().unwrap();
}

#[test]
fn shadows_never_outnumber_frames() {
    let cache = cache(16, Io::Inline);
    let files: Vec<_> = (0..20).map(|_| computed(&cache, 30)).collect();
    for file in &files {
        (0..30).for_each(|page| read_word(file, page * PAGE));
        assert!(cache.stats().shadows <= 16);
        cache.check().unwrap();
    }
    drop(files);
    assert_eq!((cache.stats().shadows, cache.stats().frames_in_use), (0, 0));
}

#[test]
fn a_pin_is_a_snapshot_charged_to_the_bound() {
    let path = std::env::temp_dir().join(format!("specmm-pin-{}", std::process::id()));
    std::fs::write(&path, vec![7; 3 * PAGE_SIZE]).unwrap();
    let cache = PageCache::with_options(
        2 * PAGE,
        CacheOptions::default().io(Io::Inline).frame_timeout(Duration::ZERO),
    )
    .unwrap();
    let file = cache.open_with(&path, OpenOptions::default().mode(OpenMode::ReadWrite)).unwrap();
    let pin = file.pin(PAGE, 100).unwrap();
    assert_eq!(&pin[..], [7; 100]);
    assert_eq!(cache.stats().pinned_frames, 1);
    // The page is cut in two, in the middle of the pin, and grows back.
    file.truncate(PAGE + 50).unwrap();
    file.truncate(3 * PAGE).unwrap();
    assert_eq!(&pin[..], [7; 100], "the pin keeps what it had");
    let mut now = [1; 100];
    file.pread(&mut now, PAGE).unwrap();
    assert_eq!((&now[..50], &now[50..]), (&[7; 50][..], &[0; 50][..]), "the file has moved on");
    let other = file.pin(PAGE + 10, 80).unwrap();
    assert_eq!(&other[..40], [7; 40]);
    assert_eq!(&other[40..], [0; 40]);
    // Now both frames are pinned.
    let error = file.pread(&mut now, 0).unwrap_err();
    assert!(matches!(error, Error::OutOfFrames { .. }) && error.to_string().contains("2 pinned"), "{error}");
    assert!(matches!(file.close(), Err(Error::Pinned(_))));
    assert!(matches!(cache.close(), Err(Error::Pinned(_))));
    cache.check().unwrap();
    drop(pin);
    file.pread(&mut now, 0).unwrap();
    drop(other);
    cache.check().unwrap();
    file.close().unwrap();
    cache.close().unwrap();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn pins_lie_in_one_page_and_in_the_file() {
    let cache = cache(4, Io::Inline);
    let file = cache.open_store(Arc::new(Computed::default()), 2 * PAGE + 10).unwrap();
    for (offset, length) in [(0, 0), (0, PAGE_SIZE + 1), (PAGE - 1, 2)] {
        let error = file.pin(offset, length).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    }
    assert!(file.pin(PAGE - 1, 2).unwrap_err().to_string().contains("1 to 1 bytes"));
    assert!(matches!(file.pin(2 * PAGE, 11), Err(Error::Bus { index: 2, .. })));
    assert!(matches!(file.pin(5 * PAGE, 1), Err(Error::Bus { index: 5, .. })));
    assert_eq!(file.pin(2 * PAGE, 10).unwrap().len(), 10);
    assert_eq!(cache.stats().pinned_frames, 0);
}

#[test]
fn a_frame_is_waited_for() {
    let store = Arc::new(Computed::default());
    let cache = cache(1, Io::Inline);
    let file = cache.open_store(Arc::clone(&store) as _, 10 * PAGE).unwrap();
    store.held_back.store(true, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| read_word(&file, 0));
        while cache.stats().frames_in_use == 0 {
            std::thread::yield_now();
        }
        let second = scope.spawn(|| read_word(&file, PAGE));
        while cache.stats().frame_waits == 0 {
            std::thread::yield_now();
        }
        store.held_back.store(false, Ordering::Relaxed);
        first.join().unwrap();
        second.join().unwrap();
    });
    cache.check().unwrap();
}

#[test]
fn what_others_do_to_a_file_is_seen_at_the_next_miss() {
    let folder = std::env::temp_dir().join(format!("specmm-changed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("data");
    let write = |byte: u8, pages: usize| std::fs::write(&path, vec![byte; pages * PAGE_SIZE]).unwrap();
    write(1, 8);
    let cache = cache(64, Io::Inline);
    let file = cache.open_with(&path, OpenOptions::default().ra_pages(0)).unwrap();
    let byte = |page: u64| {
        let mut buf = [0; 1];
        file.pread(&mut buf, page * PAGE).map(|n| (n == 1).then_some(buf[0]))
    };
    assert_eq!(byte(0).unwrap(), Some(1));
    // Rewritten in place.
    write(2, 8);
    assert_eq!(byte(0).unwrap(), Some(1), "a hit serves what is cached");
    assert_eq!(byte(1).unwrap(), Some(2), "a miss looks");
    assert_eq!(byte(0).unwrap(), Some(2), "and from then on nothing old is served");
    assert!(cache.stats().invalidated >= 1);
    // Rewritten again, and requested.
    write(3, 8);
    assert_eq!(file.revalidate().unwrap(), 8 * PAGE);
    assert_eq!(byte(1).unwrap(), Some(3));
    // Shorter.
    write(4, 2);
    assert_eq!(byte(5).unwrap(), None, "a miss beyond the new end");
    assert_eq!(file.size().unwrap(), 2 * PAGE);
    assert!(matches!(file.pin(5 * PAGE, 1), Err(Error::Bus { size, .. }) if size == 2 * PAGE));
    // Replaced: the open file continues to read the old one until it is revalidated.
    let pin = file.pin(0, 4).unwrap();
    std::fs::write(folder.join("new"), vec![9; 3 * PAGE_SIZE]).unwrap();
    std::fs::rename(folder.join("new"), &path).unwrap();
    assert_eq!(byte(1).unwrap(), Some(4));
    assert_eq!(file.revalidate().unwrap(), 3 * PAGE);
    assert_eq!((byte(0).unwrap(), byte(2).unwrap()), (Some(9), Some(9)));
    assert_eq!(&pin[..], [4; 4]);
    drop(pin);
    // Deleted: as with any open file, the bytes stay. (Cached pages are dropped: the ctime changed.)
    std::fs::remove_file(&path).unwrap();
    let before = cache.stats().invalidated;
    assert_eq!(file.revalidate().unwrap(), 3 * PAGE);
    assert_eq!(cache.stats().invalidated - before, 2);
    assert_eq!(byte(1).unwrap(), Some(9));
    cache.check().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

/// As a rule, a new cache lies where an earlier one was. The page that this thread touched last there is not a page of the new
/// one.
#[test]
fn the_page_touched_last_in_a_cache_that_is_gone_is_another() {
    for round in 0..20 {
        let cache = cache(4, Io::Inline);
        let file = computed(&cache, 1);
        let mm = Mm::new(&cache, MmOptions::default()).unwrap();
        let address = mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
        mm.touch(address, PAGE, PAGE, false).unwrap();
        mm.munmap(address, PAGE).unwrap();
        // Used through the mapping, and now by a read: twice.
        read_word(&file, 0);
        cache.reclaim(1).unwrap();
        assert_eq!(cache.stats().activations, 1, "in cache {round}");
    }
}
