//! Stores that others change at chosen moments, and how often they are looked at.

use crate::store::{Fault, FaultyStore, Look, MAX_SIZE, MemoryStore, Plan, ReadBy, Store};
use crate::sync::{Mutex, Tally};
use crate::{
    Advice, CacheOptions, Error, File, Io, Mm, MmOptions, Out, PAGE_SIZE, PageCache, Prot, StoreOptions,
    Verdict, VmFault,
};
use std::io;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PAGE: u64 = PAGE_SIZE as u64;
const PAGES: u64 = 40;

type Change = Box<dyn FnMut(&mut State) + Send>;

/// The state of the file: each of its bytes is its version.
#[derive(Debug, Clone, Copy, PartialEq)]
struct State {
    version: u8,
    look: Look,
}

impl State {
    /// New bytes, with the given times.
    fn rewrite(&mut self, mtime: u64) {
        self.version += 1;
        self.look.version = Some(mtime);
        self.touch();
    }

    fn touch(&mut self) {
        self.look.changed = self.look.changed.map(|ctime| ctime + 1);
    }
}

/// A file that changes before chosen reads or looks.
struct Changing {
    state: Mutex<State>,
    reads: Tally,
    looks: Tally,
    before_read: Mutex<Option<Change>>,
    before_look: Mutex<Option<Change>>,
    /// It cannot be examined.
    is_dumb: Mutex<bool>,
    /// Only workers may read it, and not this thread.
    not_by: Mutex<Option<ThreadId>>,
}

impl Changing {
    fn new(look: Look) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State { version: 1, look }),
            reads: Tally::new(),
            looks: Tally::new(),
            before_read: Mutex::new(None),
            before_look: Mutex::new(None),
            is_dumb: Mutex::new(false),
            not_by: Mutex::new(None),
        })
    }

    /// With times as of a file, long ago.
    fn file() -> Arc<Self> {
        Self::new(Look { size: Some(PAGES * PAGE), version: Some(5), changed: Some(7) })
    }

    fn before_each_read(&self, change: impl FnMut(&mut State) + Send + 'static) {
        *self.before_read.lock() = Some(Box::new(change));
    }

    fn before_each_look(&self, change: impl FnMut(&mut State) + Send + 'static) {
        *self.before_look.lock() = Some(Box::new(change));
    }

    fn change(&self, which: &Mutex<Option<Change>>) -> State {
        let mut state = self.state.lock();
        if let Some(change) = &mut *which.lock() {
            change(&mut state);
        }
        *state
    }
}

impl Store for Changing {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.reads.add(1);
        assert_ne!(*self.not_by.lock(), Some(std::thread::current().id()), "a caller reads");
        let state = self.change(&self.before_read);
        let n = (state.look.size.unwrap_or(PAGES * PAGE).saturating_sub(offset) as usize).min(buf.len());
        buf[..n].fill(state.version);
        Ok(n)
    }

    fn look(&self) -> io::Result<Look> {
        self.looks.add(1);
        if *self.is_dumb.lock() {
            return Err(io::Error::from_raw_os_error(13));
        }
        Ok(self.change(&self.before_look).look)
    }

    fn read_by(&self) -> ReadBy {
        if self.not_by.lock().is_some() { ReadBy::Workers { timeout: None } } else { ReadBy::Caller }
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let mtime = state.look.version.map_or(1, |mtime| mtime + 1);
        state.look.size = Some(size);
        state.look.version = Some(mtime);
        state.touch();
        Ok(())
    }
}

fn open(store: &Arc<Changing>, ra_pages: u32) -> (PageCache, File) {
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let options = StoreOptions::default().name("file").ra_pages(ra_pages);
    let file = cache.open_store_with(Arc::clone(store) as Arc<dyn Store>, PAGES * PAGE, options).unwrap();
    (cache, file)
}

/// Reads the whole file in one call, which is of one version.
fn read(file: &File) -> Result<u8, Error> {
    let mut buf = vec![0; (PAGES * PAGE) as usize];
    let n = file.pread(&mut buf, 0)?;
    assert!(buf[..n].iter().all(|&byte| byte == buf[0]), "two versions in one read");
    Ok(buf[0])
}

fn gather(file: &File) -> Result<u8, Error> {
    let mut rows = [0; 3];
    file.gather(&[30 * PAGE, 7, 12 * PAGE], 1, &mut rows)?;
    assert_eq!(rows, [rows[0]; 3], "two versions in one gather");
    Ok(rows[0])
}

type Call = fn(&File) -> Result<u8, Error>;

type Part = fn(&File, u64) -> Result<Vec<u8>, Error>;

const CALLS: [Call; 2] = [read, gather];

#[test]
fn a_miss_looks_once_before_and_once_after() {
    for ra_pages in [0, 32] {
        let store = Changing::file();
        let (cache, file) = open(&store, ra_pages);
        let mut page = [0; PAGE_SIZE];
        for (offset, windows) in [(20 * PAGE, 1), (3 * PAGE, 1), (11 * PAGE, 1)] {
            let (looks, reads) = (store.looks.tallied(), store.reads.tallied());
            file.pread(&mut page, offset).unwrap();
            assert_eq!(store.reads.tallied() - reads, windows);
            assert_eq!(
                store.looks.tallied() - looks,
                2,
                "one more than before pages were read of one version"
            );
            file.pread(&mut page, offset).unwrap();
            assert_eq!(store.looks.tallied() - looks, 2, "a hit does not look");
        }
        // Of several misses in one call, the look after one is the look before the next.
        let (looks, reads) = (store.looks.tallied(), store.reads.tallied());
        file.pread(&mut vec![0; 6 * PAGE_SIZE], 30 * PAGE).unwrap();
        assert_eq!(store.looks.tallied() - looks, 1 + store.reads.tallied() - reads);
        // Past the known end: once.
        let looks = store.looks.tallied();
        assert_eq!(file.pread(&mut page, PAGES * PAGE).unwrap(), 0);
        assert_eq!(store.looks.tallied() - looks, 1);
        cache.check().unwrap();
    }
}

#[test]
fn a_store_that_says_nothing_is_not_asked() {
    let store = Changing::new(Look::default());
    let (_cache, file) = open(&store, 32);
    read(&file).unwrap();
    gather(&file).unwrap();
    file.pread(&mut [0], PAGES * PAGE).unwrap();
    file.truncate(PAGES * PAGE - 1).unwrap();
    assert_eq!(store.looks.tallied(), 1);
}

/// Others empty the file and write it again, as long as it was: a read that comes between finds nothing.
#[test]
fn a_file_that_is_empty_for_a_moment_was_changed() {
    let pin = |file: &File| Ok(file.pin(7 * PAGE, PAGE_SIZE)?[0]);
    let load = |file: &File| {
        let mm = Mm::over(Arc::clone(file.shared()), MmOptions::default())?;
        let address = mm.mmap(file, None, 7 * PAGE, Prot::Read, true)?;
        let mut byte = [0];
        mm.load(address, &mut byte)?;
        Ok(byte[0])
    };
    for call in [read, gather, pin, load] {
        for ra_pages in [0, 32] {
            let store = Changing::file();
            let (cache, file) = open(&store, ra_pages);
            let mut is_empty = false;
            store.before_each_read(move |state| {
                if !std::mem::replace(&mut is_empty, true) {
                    state.look.size = Some(0);
                }
            });
            store.before_each_look(|state| {
                if state.look.size == Some(0) {
                    state.look.size = Some(PAGES * PAGE);
                    state.rewrite(6);
                }
            });
            assert_eq!(call(&file).unwrap(), 2);
            cache.check().unwrap();
        }
    }
}

#[test]
fn a_change_before_any_read_is_met() {
    for call in CALLS {
        for ra_pages in [0, 3, 32] {
            for at in 1..PAGES {
                let store = Changing::file();
                let (cache, file) = open(&store, ra_pages);
                for cached in [0, 13] {
                    file.pread(&mut [0; PAGE_SIZE], cached * PAGE).unwrap();
                }
                let mut reads = 0;
                store.before_each_read(move |state| {
                    reads += 1;
                    if reads == at {
                        state.rewrite(6);
                    }
                });
                let answer = call(&file).unwrap();
                assert!(answer <= store.state.lock().version);
                assert_eq!(file.revalidate().unwrap(), PAGES * PAGE);
                assert_eq!(call(&file).unwrap(), store.state.lock().version);
                cache.check().unwrap();
            }
        }
    }
}

#[test]
fn a_file_that_is_rewritten_before_each_read_is_stale() {
    for call in CALLS {
        let store = Changing::file();
        let (cache, file) = open(&store, 0);
        let mut mtime = 5;
        store.before_each_read(move |state| {
            mtime += 1;
            state.rewrite(mtime);
        });
        let answer = call(&file);
        assert!(
            matches!(&answer, Err(Error::Io(error)) if error.errno() == 116 && error.file == "file"),
            "{answer:?}"
        );
        *store.before_read.lock() = None;
        assert_eq!(call(&file).unwrap(), store.state.lock().version, "an error poisons nothing");
        cache.check().unwrap();
    }
}

#[test]
fn a_store_that_never_says_the_same_ends_every_call() {
    let stale = |error: &Error| {
        let (Error::Io(io) | Error::Bus { cause: Some(io), .. }) = error else { panic!("{error}") };
        assert_eq!(io.errno(), 116, "{error}");
    };
    let store = Changing::file();
    let (cache, file) = open(&store, 0);
    let mm = Mm::new(&cache, MmOptions::default()).unwrap();
    let address = mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
    let mut mtime = 5;
    store.before_each_look(move |state| {
        mtime += 1;
        state.look.version = Some(mtime);
    });
    stale(&file.pread(&mut [0; 8], 0).unwrap_err());
    stale(&file.pin(PAGE, 8).unwrap_err());
    stale(&mm.load(address + 2 * PAGE, &mut [0; 8]).unwrap_err());
    assert!(file.filemap_fault(3, false).unwrap().result.has(VmFault::SIGBUS));
    *store.before_look.lock() = None;
    assert_eq!(read(&file).unwrap(), 1, "an error poisons nothing");
    mm.close().unwrap();
    cache.check().unwrap();
}

#[test]
fn one_page_comes_beside_a_ctime_that_moves_all_the_time() {
    let store = Changing::file();
    let (cache, file) = open(&store, 4);
    store.before_each_look(State::touch);
    let mut bytes = [0; 8];
    assert_eq!(file.pread(&mut bytes, 3 * PAGE).unwrap(), 8);
    assert_eq!(bytes, [1; 8]);
    // Three tries for the page, three for a version, and one past the cache.
    assert_eq!(store.reads.tallied(), 3 + 3 + 2);
    cache.check().unwrap();
}

#[test]
fn a_ctime_that_moves_all_the_time_is_no_reason_to_give_up() {
    let elsewhere = std::thread::spawn(|| std::thread::current().id()).join().unwrap();
    // Without workers the caller reads, whatever the store asks for.
    for (call, not_by) in CALLS.into_iter().flat_map(|call| [(call, None), (call, Some(elsewhere))]) {
        let store = Changing::file();
        *store.not_by.lock() = not_by;
        let (cache, file) = open(&store, 4);
        store.before_each_look(State::touch);
        assert_eq!(call(&file).unwrap(), 1);
        *store.before_look.lock() = None;
        assert_eq!(call(&file).unwrap(), 1);
        cache.check().unwrap();
    }
}

#[test]
fn a_page_is_pinned_whatever_the_ctime_does() {
    let store = Changing::file();
    let (cache, file) = open(&store, 4);
    store.before_each_look(State::touch);
    for page in 0..3 * PAGES {
        let pin = file.pin(page % PAGES * PAGE + 9, 100).unwrap();
        store.state.lock().version += 1;
        assert!(pin.iter().all(|&byte| u64::from(byte) == page + 1), "what there was, and still is");
    }
    // From here on each look says that it is shorter.
    let size = PAGES * PAGE - 100;
    store.before_each_read(move |state| state.look.size = Some(size));
    let past_the_end = file.pin(size - 10, 11).unwrap_err();
    assert!(matches!(past_the_end, Error::Bus { size: found, .. } if found == size), "{past_the_end:?}");
    assert_eq!(cache.stats().pinned_frames, 0);
    cache.check().unwrap();
}

#[test]
fn a_fault_waits_for_the_look_that_misses_a_touch() {
    let store = Changing::file();
    let (cache, file) = open(&store, 0);
    let mm = Mm::new(&cache, MmOptions::default()).unwrap();
    let address = mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
    let mut looks = 0;
    store.before_each_look(move |state| {
        looks += 1;
        if looks % 3000 > 2 {
            state.touch();
        }
    });
    for page in 0..PAGES {
        let fault = mm.fault(address + page * PAGE, false);
        assert!(!fault.result.has(VmFault::SIGBUS), "page {page}: {fault:?}");
    }
    mm.close().unwrap();
    cache.check().unwrap();
}

#[test]
fn calls_give_up_for_themselves_alone() {
    let store = Changing::file();
    let (cache, file) = open(&store, 0);
    let mm = Mm::new(&cache, MmOptions::default()).unwrap();
    let address = mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
    store.before_each_look(State::touch);
    assert!(mm.fault(address, false).result.has(VmFault::SIGBUS), "no look says what the last one did");
    for call in CALLS {
        assert_eq!(call(&file).unwrap(), 1, "after a fault has given up");
    }
    assert_eq!(file.pin(5, 5).unwrap()[..], [1; 5]);
    let mut bytes = [0; 8];
    assert_eq!(file.pread(&mut bytes, 3 * PAGE).unwrap(), 8);
    mm.close().unwrap();
    cache.check().unwrap();
}

#[test]
fn a_file_whose_time_is_put_back_is_never_torn() {
    for call in CALLS {
        for every in 1..12 {
            let store = Changing::file();
            let (cache, file) = open(&store, 0);
            store.before_each_look(State::touch);
            let mut reads = 0;
            store.before_each_read(move |state| {
                reads += 1;
                // The times stay the same.
                if reads % every == 0 && state.version < 250 {
                    state.rewrite(5);
                }
            });
            match call(&file) {
                Ok(version) => assert!(version <= store.state.lock().version),
                Err(Error::Io(error)) => assert_eq!(error.errno(), 116),
                Err(error) => panic!("{error}"),
            }
            cache.check().unwrap();
        }
    }
}

#[test]
fn what_is_read_ahead_of_need_is_of_one_version() {
    let store = Changing::file();
    let (cache, file) = open(&store, 32);
    file.pread(&mut [0], 0).unwrap();
    let ahead = file.residency(0, None).unwrap().iter().map(|&byte| u64::from(byte)).sum::<u64>();
    assert!(ahead > 1);
    // In the middle of what is prefetched.
    let mut reads = 0;
    store.before_each_read(move |state| {
        reads += 1;
        if reads == 1 {
            state.rewrite(6);
        }
    });
    file.advise(Advice::WillNeed, 0, None).unwrap();
    assert_eq!(file.residency(ahead, None).unwrap(), vec![0; (PAGES - ahead) as usize], "not vouched for");
    assert_eq!(read(&file).unwrap(), 2);
    cache.check().unwrap();
}

#[test]
fn a_version_counts_as_a_time_does() {
    let store = Changing::new(Look { size: None, version: Some(1), changed: None });
    let (cache, file) = open(&store, 0);
    file.pread(&mut [0; PAGE_SIZE], 0).unwrap();
    store.state.lock().rewrite(2);
    assert_eq!(read(&file).unwrap(), 2);
    assert_eq!(cache.stats().invalidated, 1);
    assert_eq!(file.revalidate_dropping().unwrap(), PAGES * PAGE);
    assert_eq!(cache.stats().invalidated, 1 + PAGES);
}

#[test]
fn what_workers_read_is_of_one_version_too() {
    let store = Changing::file();
    let cache = PageCache::new(1 << 20, Io::Threads).unwrap();
    let options = StoreOptions::default().ra_pages(4).timeout(Duration::from_secs(20));
    let file = cache.open_store_with(Arc::clone(&store) as Arc<dyn Store>, PAGES * PAGE, options).unwrap();
    for call in CALLS {
        for at in 1..6 {
            let (mut reads, mtime) = (0, store.state.lock().look.version.unwrap() + 1);
            store.before_each_read(move |state| {
                reads += 1;
                if reads == at {
                    state.rewrite(mtime);
                }
            });
            assert!(call(&file).unwrap() <= store.state.lock().version);
            file.revalidate().unwrap();
            assert_eq!(call(&file).unwrap(), store.state.lock().version);
        }
    }
    cache.close().unwrap();
}

/// What the page cache holds of a file.
fn cached(file: &File) -> Vec<bool> {
    file.residency(0, None).unwrap().into_iter().map(|byte| byte != 0).collect()
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

#[test]
fn a_call_looks_where_the_file_may_have_changed_since() {
    let store = Changing::file();
    let (cache, file) = open(&store, 0);
    read(&file).unwrap();
    let size = PAGES * PAGE;
    let call = file.one_version().unwrap();
    let mut bytes = [0; 9];
    let looks = |call: &mut dyn FnMut()| {
        let before = store.looks.tallied();
        call();
        store.looks.tallied() - before
    };
    for (offset, length, expected) in
        [(size - 8, 8, 0), (size - 8, 9, 1), (size, 0, 0), (size, 1, 1), (size + 5, 0, 0), (5, 8, 0)]
    {
        let got = size.saturating_sub(offset).min(length as u64) as usize;
        let room = &mut bytes[..length];
        assert_eq!(looks(&mut || assert_eq!(file.pread(room, offset).unwrap(), got)), expected);
        assert_eq!(
            looks(&mut || {
                let part = file.pread_part(&call, Out::from(&mut *room), offset).unwrap();
                assert_eq!(part, Some(got));
            }),
            expected
        );
        assert_eq!(
            looks(&mut || assert_eq!(file.gather(&[offset], length, room).is_ok(), got == length)),
            expected
        );
        if length == 8 {
            assert_eq!(looks(&mut || assert_eq!(file.pin(offset, length).unwrap()[..], [1; 8])), 0);
        }
        assert_eq!(looks(&mut || assert_eq!(file.read_cached(room, offset), Some(got))), 0);
    }
    assert_eq!(looks(&mut || assert_eq!(file.look().unwrap(), size)), 1);
    assert_eq!(looks(&mut || assert_eq!(file.revalidate().unwrap(), size)), 1);
    assert_eq!(looks(&mut || file.advise(Advice::WillNeed, 0, None).unwrap()), 1);
    assert_eq!(looks(&mut || file.advise(Advice::Sequential, 0, None).unwrap()), 0);
    assert_eq!(looks(&mut || assert_eq!(file.size().unwrap(), size)), 0);
    assert_eq!(cache.stats().reads, PAGES);
    assert_eq!(cache.stats().invalidated, 0);
    cache.check().unwrap();
}

#[test]
fn growth_takes_away_nothing_but_the_page_that_was_partial() {
    for within in [0, 1, PAGE - 1] {
        for by in [1, PAGE, 3 * PAGE] {
            let store = Changing::file();
            let (cache, file) = open(&store, 0);
            let size = 10 * PAGE + within;
            store.state.lock().look.size = Some(size);
            assert_eq!(file.revalidate().unwrap(), size);
            read(&file).unwrap();
            let call = file.one_version().unwrap();
            store.state.lock().look.size = Some(size + by);
            assert_eq!(file.look().unwrap(), size + by);
            let mut expected = vec![true; 10];
            expected.resize((size + by).div_ceil(PAGE) as usize, false);
            assert_eq!(cached(&file), expected, "{within} {by}");
            // It was noted: the next miss looks before and after, as any.
            let looks = store.looks.tallied();
            file.pread(&mut [0], 10 * PAGE).unwrap();
            assert_eq!(store.looks.tallied() - looks, 2);
            let mut bytes = vec![9; (size + by) as usize];
            let part = file.pread_part(&call, Out::from(&mut bytes[..]), 0).unwrap();
            assert_eq!(part, Some(bytes.len()), "of the same version");
            assert!(bytes.iter().all(|&byte| byte == 1));
            cache.check().unwrap();
        }
    }
}

#[test]
fn a_size_is_all_that_some_stores_say() {
    let store = Arc::new(MemoryStore::new(vec![7; 3 * PAGE_SIZE]));
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let options = StoreOptions::default().ra_pages(0);
    let file = cache.open_store_with(Arc::clone(&store) as Arc<dyn Store>, 3 * PAGE, options).unwrap();
    let mm = Mm::new(&cache, MmOptions::default()).unwrap();
    let address = mm.mmap(&file, Some(4 * PAGE), 0, Prot::Read, true).unwrap();
    let mut bytes = vec![0; 4 * PAGE_SIZE];
    let mut reads = 0;
    // Each time: what is cached after the change, and pages that the read after it brings in.
    for (size, before, brought) in [
        (3 * PAGE, [false; 4], 3),
        (2 * PAGE + 5, [true, true, true, false], 0),
        (3 * PAGE, [true, true, false, false], 1),
        (PAGE, [true, false, false, false], 0),
        (4 * PAGE, [true, false, false, false], 3),
        (0, [false; 4], 0),
    ] {
        store.truncate(size).unwrap();
        assert_eq!(file.revalidate().unwrap(), size);
        let pages = size.div_ceil(PAGE) as usize;
        assert_eq!(cached(&file), before[..pages], "{size}");
        if size % PAGE > 0 {
            let tail = &mut bytes[..(PAGE - size % PAGE) as usize];
            mm.load(address + size, tail).unwrap();
            assert!(tail.iter().all(|&byte| byte == 0), "{size}");
        }
        bytes.fill(9);
        assert_eq!(file.pread(&mut bytes, 0).unwrap(), size as usize);
        let mut right = vec![0; size as usize];
        store.read_at(&mut right, 0).unwrap();
        assert!(bytes[..size as usize] == right, "{size}");
        reads += brought;
        assert_eq!((cache.stats().reads, cache.stats().invalidated), (reads, 0), "{size}");
        cache.check().unwrap();
    }
}

#[test]
fn no_store_is_larger_than_a_file_may_be() {
    let store = Changing::file();
    let (cache, file) = open(&store, 0);
    for (said, size) in [(MAX_SIZE - 1, MAX_SIZE - 1), (MAX_SIZE + 1, MAX_SIZE), (u64::MAX, MAX_SIZE)] {
        store.state.lock().look.size = Some(said);
        assert_eq!((file.revalidate().unwrap(), file.size().unwrap()), (size, size));
    }
    cache.check().unwrap();
}

#[test]
fn a_change_of_ones_own_is_none() {
    let store = Changing::file();
    let (cache, file) = open(&store, 0);
    read(&file).unwrap();
    let call = file.one_version().unwrap();
    for size in [PAGES * PAGE - 1, 30 * PAGE, 35 * PAGE] {
        let looks = store.looks.tallied();
        file.truncate(size).unwrap();
        assert_eq!(store.looks.tallied() - looks, 2, "what others did, and what it did itself");
        assert_eq!((file.look().unwrap(), file.size().unwrap()), (size, size));
        assert_eq!(file.pread_part(&call, Out::from(&mut [0; 9][..]), 4).unwrap(), Some(9));
    }
    assert_eq!((cache.stats().invalidated, cache.stats().reads), (0, PAGES));
    let mut expected = vec![true; 30];
    expected.resize(35, false);
    assert_eq!(cached(&file), expected);
    // What others did before is followed first, and not taken for one's own.
    store.state.lock().rewrite(100);
    file.truncate(20 * PAGE).unwrap();
    assert_eq!(cache.stats().invalidated, 30);
    assert_eq!(read(&file).unwrap(), 2);
    cache.check().unwrap();
}

/// Runs `phase` within the time in which a version that was just written is young; anew if the machine was too slow.
fn while_young<R>(
    mut phase: impl FnMut(&Changing, &PageCache, &File) -> R,
) -> (Arc<Changing>, PageCache, File, R) {
    for _ in 0..100 {
        let store = Changing::file();
        let (cache, file) = open(&store, 0);
        read(&file).unwrap();
        let began = Instant::now();
        store.state.lock().rewrite(now());
        assert_eq!(file.revalidate().unwrap(), PAGES * PAGE);
        let answer = phase(&store, &cache, &file);
        if began.elapsed() < Duration::from_millis(15) {
            return (store, cache, file, answer);
        }
    }
    panic!("this machine is too slow");
}

#[test]
fn of_a_young_version_nothing_is_a_hit() {
    let (store, cache, file, answer) = while_young(|store, cache, file| {
        let begun = file.one_version_now().unwrap().is_some();
        let mut page = [0; PAGE_SIZE];
        let read = [0, 1, 0].map(|index| {
            let looks = store.looks.tallied();
            (file.pread(&mut page, index * PAGE).unwrap(), store.looks.tallied() - looks)
        });
        let hit = file.read_cached(&mut page, 0);
        (begun, page[0], read, hit, cached(file)[..3].to_vec(), cache.stats())
    });
    let (begun, byte, read_then, hit, residency, stats) = answer;
    // Each looks whether it was written again, and those that miss also before and after their read.
    let looked = [3, 3, 1].map(|looks| (PAGE_SIZE, looks));
    assert_eq!((begun, byte, read_then, hit), (false, 2, looked, None));
    assert_eq!(residency, [true, true, false]);
    assert_eq!((stats.invalidated, stats.reads), (PAGES, PAGES + 2));
    // Several pages are waited for, and what was read so far is read again.
    let mut pages = vec![0; 2 * PAGE_SIZE];
    assert_eq!(file.pread(&mut pages, 0).unwrap(), pages.len());
    let written = store.state.lock().look.version.unwrap();
    assert!(now() - written >= 20_000_000, "a write that began then has ended");
    assert_eq!((cache.stats().invalidated, cache.stats().reads), (PAGES + 2, PAGES + 4));
    assert_eq!(file.read_cached(&mut pages, 0), Some(pages.len()));
    assert!(file.one_version_now().unwrap().is_some());
    cache.check().unwrap();
}

#[test]
fn a_gather_waits_for_a_young_version_and_reads_all_of_it() {
    let (_store, cache, file, ()) = while_young(|_, _, file| {
        let answer = file.gather(&[0, 1], 3, &mut [0; 5]);
        assert!(matches!(answer, Err(Error::InvalidArgument(_))), "{answer:?}");
    });
    assert_eq!(gather(&file).unwrap(), 2);
    cache.check().unwrap();
}

#[test]
fn a_window_looks_before_and_after_whatever_began_it() {
    let store = Changing::file();
    let (cache, file) = open(&store, 8);
    let looks = store.looks.tallied();
    for page in 0..PAGES {
        file.pread(&mut [0; 9], page * PAGE).unwrap();
    }
    assert!(store.reads.tallied() > 3);
    assert_eq!(store.looks.tallied() - looks, 2 * store.reads.tallied());
    assert_eq!((cache.stats().readahead_pages, cache.stats().readahead_used), (PAGES, PAGES));
}

#[test]
fn a_version_that_has_grown_old_is_trusted_by_the_next_read_of_a_page() {
    let (_store, cache, file, hit) = while_young(|_, _, file| {
        file.pread(&mut [0; 8], 0).unwrap();
        // Drops pages, but the version is as young as before.
        file.revalidate_dropping().unwrap();
        file.pread(&mut [0; 8], 0).unwrap();
        file.read_cached(&mut [0; 8], 0)
    });
    assert_eq!((hit, cache.stats().invalidated), (None, PAGES + 1));
    std::thread::sleep(Duration::from_millis(25));
    assert!(file.one_version_now().unwrap().is_none(), "nobody has looked");
    file.pread(&mut [0; 8], 0).unwrap();
    assert_eq!(cache.stats().invalidated, PAGES + 2);
    assert_eq!(file.read_cached(&mut [0; 8], 0), Some(8));
    cache.check().unwrap();
}

/// Another thread may have done it, or found a newer version, before this one had `invalidate_lock`.
#[test]
fn a_version_that_is_trusted_or_too_young_is_not_made_trusted() {
    let trust = |file: &File| super::trust(&file.open_file().unwrap().mapping).unwrap();
    let (_store, cache, file, (is_cached, is_trusted)) = while_young(|_, _, file| {
        file.pread(&mut [0; 8], 0).unwrap();
        trust(file);
        (cached(file)[0], file.one_version_now().unwrap().is_some())
    });
    assert_eq!((is_cached, is_trusted), (true, false));
    let call = file.one_version().unwrap();
    read(&file).unwrap();
    let invalidated = cache.stats().invalidated;
    trust(&file);
    assert_eq!((cached(&file), cache.stats().invalidated), (vec![true; PAGES as usize], invalidated));
    assert_eq!(
        file.pread_part(&call, Out::from(&mut [0; 9][..]), 4).unwrap(),
        Some(9),
        "of the same version"
    );
    cache.check().unwrap();
}

#[test]
fn a_file_that_stays_young_is_stale_unless_it_grows() {
    let rounds = 6;
    let ends_as_it_should = |grows: bool| {
        let store = Changing::file();
        let (cache, file) = open(&store, 0);
        // A clock may be a little ahead.
        let write = |state: &mut State| state.rewrite(now() + 15_000_000);
        let mut looks = 0;
        store.before_each_look(move |state| {
            let (round, step) = (looks / 12, looks % 12);
            looks += 1;
            match step {
                _ if !grows => write(state),
                // Twice a new time, which is looked at until no append comes, and a greater size after the wait.
                0 | 5 if round < rounds => write(state),
                10 if round < rounds => *state.look.size.as_mut().unwrap() += 1,
                _ => {}
            }
        });
        if grows {
            file.look().unwrap();
        } else {
            file.revalidate_dropping().unwrap();
        }
        let looks = store.looks.tallied();
        let call = file.one_version();
        let looks = store.looks.tallied() - looks;
        *store.before_look.lock() = None;
        assert_eq!(read(&file).unwrap(), store.state.lock().version);
        cache.check().unwrap();
        match call {
            Ok(_) => grows && file.size().unwrap() > PAGES * PAGE,
            Err(error) => {
                assert!(matches!(&error, Error::Io(error) if error.errno() == 116), "{error:?}");
                // There is a change; what is it; and then the moments of an append. Three waits come between.
                assert!(grows || looks == 4 * (1 + 1 + 3), "{looks} looks");
                !grows
            }
        }
    };
    for grows in [false, true] {
        // On a slow machine a version grows old between two looks.
        assert!((0..10).any(|_| ends_as_it_should(grows)), "{grows}");
    }
}

#[test]
fn a_store_that_cannot_be_examined_serves_hits_alone() {
    let store = Changing::file();
    let (cache, file) = open(&store, 0);
    let mut page = [0; PAGE_SIZE];
    file.pread(&mut page, 0).unwrap();
    *store.is_dumb.lock() = true;
    let told =
        |error: &Error| matches!(error, Error::Io(error) if error.errno() == 13 && error.file == "file");
    assert_eq!(file.pread(&mut page, 0).unwrap(), PAGE_SIZE);
    assert_eq!(file.pin(9, 9).unwrap()[..], [1; 9]);
    assert!(told(&file.pread(&mut page, PAGE).unwrap_err()));
    assert!(told(&file.pread(&mut page, PAGES * PAGE).unwrap_err()));
    assert!(told(&file.gather(&[0, 2 * PAGE], 1, &mut page[..2]).unwrap_err()));
    assert!(told(&file.look().unwrap_err()) && told(&file.revalidate().unwrap_err()));
    assert!(told(&file.revalidate_dropping().unwrap_err()));
    assert!(told(&file.pin(PAGE, 1).unwrap_err()));
    assert!(file.filemap_fault(3, false).unwrap().result.has(VmFault::SIGBUS));
    assert_eq!(cached(&file).iter().position(|is| !is), Some(1));
    file.advise(Advice::WillNeed, 0, None).unwrap();
    assert_eq!(
        cached(&file).iter().filter(|&&is| is).count(),
        1,
        "what cannot be vouched for does not count"
    );
    // A truncation goes through: whatever was missed is met at the next look.
    file.truncate(PAGES * PAGE / 2).unwrap();
    assert_eq!(file.size().unwrap(), PAGES * PAGE / 2);
    *store.is_dumb.lock() = false;
    assert_eq!(file.pread(&mut page, PAGE).unwrap(), PAGE_SIZE);
    assert_eq!((page, file.look().unwrap()), ([1; PAGE_SIZE], PAGES * PAGE / 2));
    cache.check().unwrap();
}

#[test]
fn a_call_of_one_version_starts_over_a_bounded_number_of_times() {
    type Change = fn(&Changing, &File);
    let rewrite: Change = |store, file| {
        store.state.lock().rewrite(8);
        file.revalidate_dropping().unwrap();
    };
    let touch: Change = |store, file| {
        store.state.lock().touch();
        file.revalidate().unwrap();
    };
    let append: Change = |store, file| {
        *store.state.lock().look.size.as_mut().unwrap() += 1;
        file.revalidate_dropping().unwrap();
    };
    let nothing: Change = |_, _| {};
    for (change, again, then) in [
        (rewrite, 2, None),
        (touch, 2, Some(Verdict::ReadTwice)),
        (append, 32 + 2, None),
        (nothing, 99, None),
    ] {
        let store = Changing::file();
        let (_cache, file) = open(&store, 0);
        let mut call = file.one_version().unwrap();
        for _ in 0..again {
            change(&store, &file);
            assert_eq!(file.judge(&mut call, false).unwrap(), Verdict::Again);
            // Each try is judged by itself.
            let mut other = file.one_version().unwrap();
            assert_eq!(file.judge(&mut other, true).unwrap(), Verdict::OneVersion);
        }
        for _ in 0..3 {
            change(&store, &file);
            let end = file.judge(&mut call, false);
            match then {
                Some(verdict) => assert_eq!(end.unwrap(), verdict),
                None => assert!(matches!(&end, Err(Error::Io(error)) if error.errno() == 116), "{end:?}"),
            }
        }
    }
    // A try that read everything from one version ends the call, whatever came before.
    let store = Changing::file();
    let (_cache, file) = open(&store, 0);
    let mut call = file.one_version().unwrap();
    for change in [rewrite, touch, append] {
        change(&store, &file);
        assert_eq!(file.judge(&mut call, true).unwrap(), Verdict::Again);
        assert_eq!(file.judge(&mut call, true).unwrap(), Verdict::OneVersion);
    }
}

#[test]
fn what_is_found_unchanged_keeps_its_last_page() {
    let store = Changing::file();
    let (cache, file) = open(&store, 0);
    let size = 2 * PAGE + 100;
    file.truncate(size).unwrap();
    for pinned in [false, true] {
        read(&file).unwrap();
        let pin = pinned.then(|| file.pin(2 * PAGE, 9).unwrap());
        assert_eq!(file.revalidate().unwrap(), size);
        file.truncate(size).unwrap();
        assert_eq!(file.look().unwrap(), size);
        assert_eq!((cached(&file), cache.stats().reads), (vec![true; 3], 3));
        drop(pin);
    }
    // A pinned page that a truncation cuts goes, because it may not change; another one stays.
    let pin = file.pin(2 * PAGE, 90).unwrap();
    file.truncate(2 * PAGE + 50).unwrap();
    assert_eq!((cached(&file), &pin[..]), (vec![true, true, false], &[1; 90][..]));
    read(&file).unwrap();
    file.truncate(2 * PAGE + 40).unwrap();
    assert_eq!(cached(&file), [true; 3]);
    drop(pin);
    assert_eq!(file.revalidate_dropping().unwrap(), 2 * PAGE + 40);
    assert_eq!(
        (cache.stats().frames_in_use, cache.stats().xarray_nodes),
        (0, 0),
        "given back when the call returns"
    );
    cache.check().unwrap();
}

#[test]
fn growth_that_a_fill_finds_is_followed_at_once() {
    for ra_pages in [0, 8] {
        for pages in [1, 3] {
            let store = Changing::file();
            let (cache, file) = open(&store, ra_pages);
            let mut looks = 0;
            store.before_each_look(move |state| {
                looks += 1;
                // After the first read.
                if looks == 2 {
                    state.look.size = Some(PAGES * PAGE + 9);
                }
            });
            file.pread(&mut vec![0; pages * PAGE_SIZE], 20 * PAGE).unwrap();
            assert_eq!(file.size().unwrap(), PAGES * PAGE + 9, "{ra_pages} {pages}");
            assert_eq!(cache.stats().invalidated, 0);
            cache.check().unwrap();
        }
    }
}

#[test]
fn a_young_file_is_young_only_if_its_bytes_were_seen_to_change() {
    for _ in 0..100 {
        let began = Instant::now();
        let store = Changing::new(Look { size: Some(PAGES * PAGE), version: Some(now()), changed: Some(7) });
        let (_cache, file) = open(&store, 0);
        store.state.lock().touch();
        file.revalidate().unwrap();
        let touched = file.one_version_now().unwrap().is_some();
        file.revalidate_dropping().unwrap();
        let dropped = file.one_version_now().unwrap().is_some();
        store.state.lock().rewrite(now());
        file.revalidate().unwrap();
        let written = file.one_version_now().unwrap().is_some();
        // A pin waits, as a read of several pages does.
        file.pread(&mut [0; 8], 0).unwrap();
        if began.elapsed() > Duration::from_millis(15) {
            continue;
        }
        let pin = file.pin(0, 8).unwrap();
        assert!(now() - store.state.lock().look.version.unwrap() >= 20_000_000);
        assert_eq!((touched, dropped, written, &pin[..]), (true, true, false, &[2; 8][..]));
        return;
    }
    panic!("this machine is too slow");
}

#[test]
fn a_page_that_no_fill_gets_is_read_past_the_cache_after_sixteen() {
    let store = Changing::file();
    let cache =
        PageCache::with_options(PAGE, CacheOptions::default().io(Io::Inline).frame_timeout(Duration::ZERO))
            .unwrap();
    let options = StoreOptions::default().name("file").ra_pages(0);
    let file = cache.open_store_with(Arc::clone(&store) as Arc<dyn Store>, PAGES * PAGE, options).unwrap();
    let opened = store.looks.tallied();
    store.before_each_look(State::touch);
    let pin = file.pin(3 * PAGE + 9, 100).unwrap();
    assert_eq!((store.reads.tallied(), &pin[..]), (16 + 2, &[1; 100][..]));
    // One before the first fill, and one to follow it; one after each fill, and two to follow all but the last; and of the reads
    // past the cache, before, between and after them.
    assert_eq!(store.looks.tallied() - opened, 2 + 16 + 15 * 2 + 3);
    drop(pin);
    assert_eq!(file.pin(3 * PAGE, PAGE_SIZE).unwrap().len(), PAGE_SIZE);
    // Only the page itself could make room, and somebody uses it.
    let open = file.open_file().unwrap();
    let (reads, waits) = (store.reads.tallied(), cache.stats().frame_waits);
    let used = Arc::new(Mutex::new(None));
    let (looked_up, mapping, counted) = (Arc::clone(&used), Arc::clone(&open.mapping), Arc::clone(&store));
    store.before_each_look(move |state| {
        state.touch();
        if counted.reads.tallied() == reads + 16 && looked_up.lock().is_none() {
            let page = mapping.find_get_page(3, &crate::rcu::read()).unwrap();
            *looked_up.lock() = Some(page.into_pfn());
        }
    });
    let error = file.pin(3 * PAGE + 9, 100).unwrap_err();
    assert!(matches!(&error, Error::OutOfFrames { what, .. } if what == "page 3 of file"), "{error:?}");
    assert_eq!((store.reads.tallied() - reads, cache.stats().frame_waits - waits), (16, 1));
    drop(open.mapping.frames().page(used.lock().take().unwrap()).adopt());
    drop(open);
    // The store ends earlier than it says.
    let reads = store.reads.tallied();
    let short = move |read: u64| read > reads + 16;
    let mut read = reads;
    store.before_each_read(move |state| {
        read += 1;
        state.look.size = Some(if short(read) { 3 * PAGE + 50 } else { PAGES * PAGE });
    });
    store.before_each_look(|state| {
        state.touch();
        state.look.size = Some(PAGES * PAGE);
    });
    let error = file.pin(3 * PAGE + 9, 100).unwrap_err();
    assert!(
        matches!(error, Error::Bus { index: 3, offset, size, cause: None }
            if (offset, size) == (3 * PAGE + 9, 3 * PAGE + 50)),
        "{error:?}"
    );
    assert_eq!(store.reads.tallied() - reads, 16 + 2);
    assert_eq!(cache.stats().pinned_frames, 0);
    cache.check().unwrap();
}

#[test]
fn what_only_workers_read_gives_up_rather_than_read_itself() {
    let store = Changing::file();
    *store.not_by.lock() = Some(std::thread::current().id());
    let cache = PageCache::new(1 << 20, Io::Threads).unwrap();
    let options = StoreOptions::default().name("file").ra_pages(0);
    let file = cache.open_store_with(Arc::clone(&store) as Arc<dyn Store>, PAGES * PAGE, options).unwrap();
    // A touch counts as a rewrite does.
    let mut call = file.one_version().unwrap();
    for number in 1..=3 {
        store.state.lock().touch();
        file.revalidate().unwrap();
        match file.judge(&mut call, false) {
            Ok(verdict) => assert!(verdict == Verdict::Again && number < 3),
            Err(error) => {
                assert!(matches!(&error, Error::Io(error) if error.errno() == 116) && number == 3, "{error}");
            }
        }
    }
    let mut mtime = 5;
    store.before_each_look(move |state| {
        mtime += 1;
        state.look.version = Some(mtime);
    });
    for error in [file.pin(3 * PAGE, 9).map(drop).unwrap_err(), read(&file).map(drop).unwrap_err()] {
        let (Error::Io(cause) | Error::Bus { cause: Some(cause), .. }) = &error else { panic!("{error}") };
        assert_eq!(cause.errno(), 116);
    }
    assert!(store.reads.tallied() > 100);
    *store.before_look.lock() = None;
    assert_eq!((file.pin(3 * PAGE, 9).unwrap()[..].to_vec(), read(&file).unwrap()), (vec![1; 9], 1));
    cache.close().unwrap();
}

#[test]
fn what_was_appended_is_found_by_every_call_that_asks_for_it() {
    let calls: [Part; 4] = [
        |file, at| {
            let mut found = vec![0; 30];
            file.pread(&mut found, at).map(|n| found[..n].to_vec())
        },
        |file, at| {
            let mut found = vec![0; 30];
            file.gather(&[at], 30, &mut found).map(|()| found)
        },
        |file, at| file.pin(at, 30).map(|pin| pin.to_vec()),
        |file, at| {
            let (call, mut found) = (file.one_version()?, vec![0; 30]);
            file.pread_part(&call, Out::from(&mut found[..]), at).map(|n| found[..n.unwrap()].to_vec())
        },
    ];
    for call in calls {
        let store = Changing::file();
        let (cache, file) = open(&store, 0);
        file.truncate(2 * PAGE + 100).unwrap();
        read(&file).unwrap();
        store.state.lock().look.size = Some(2 * PAGE + 200);
        assert_eq!(call(&file, 2 * PAGE + 90).unwrap(), [1; 30]);
        assert_eq!(file.size().unwrap(), 2 * PAGE + 200);
        cache.check().unwrap();
    }
}

#[test]
fn a_change_during_a_pin_costs_it_one_read_more() {
    let store = Changing::file();
    let (cache, file) = open(&store, 0);
    let mut reads = 0;
    store.before_each_read(move |state| {
        reads += 1;
        if reads == 1 {
            state.rewrite(6);
        }
    });
    assert_eq!(file.pin(PAGE, 9).unwrap()[..], [2; 9]);
    assert_eq!(store.reads.tallied(), 2);
    cache.check().unwrap();
}

#[test]
fn a_marked_page_that_a_look_drops_is_a_miss() {
    let store = Changing::file();
    let (cache, file) = open(&store, 8);
    file.pread(&mut [0; 9], 0).unwrap();
    let marked = (0..PAGES).find(|page| file.read_cached(&mut [0], page * PAGE).is_none()).unwrap();
    assert!(cached(&file)[marked as usize], "the marker is on a page that was read ahead");
    store.state.lock().rewrite(6);
    let (before, mut found) = (cache.stats(), [0; 9]);
    file.pread(&mut found, marked * PAGE).unwrap();
    let after = cache.stats();
    assert_eq!((found, after.retries), ([2; 9], 0));
    assert_eq!((after.hits - before.hits, after.misses - before.misses), (0, 1));
    cache.check().unwrap();
}

#[test]
fn a_pin_of_what_was_closed_meanwhile_is_none() {
    for closes_cache in [false, true] {
        let store = Changing::file();
        let (cache, file) = open(&store, 0);
        let handles = (cache.clone(), file.clone());
        store.before_each_read(move |_| {
            if closes_cache {
                handles.0.close().unwrap();
            } else {
                handles.1.close().unwrap();
            }
        });
        let pin = file.pin(PAGE, 9);
        let what = if closes_cache { "the page cache" } else { "file \"file\"" };
        assert!(matches!(&pin, Err(Error::Closed(closed)) if closed == what), "{pin:?}");
        assert_eq!(cache.stats().pinned_frames, 0);
        // The store lets go of the file that has it.
        store.before_each_read(|_| ());
    }
}

#[test]
fn reads_that_hit_before_a_change_was_found_are_made_again() {
    let store = Changing::file();
    let (cache, file) = open(&store, 0);
    file.pread(&mut [0; 9], 0).unwrap();
    let mut reads = 0;
    store.before_each_read(move |state| {
        reads += 1;
        if reads == 1 {
            state.rewrite(6);
        }
    });
    let mut rows = [0; 3];
    file.gather(&[7, 5 * PAGE, 8], 1, &mut rows).unwrap();
    assert_eq!(rows, [2; 3]);
    cache.check().unwrap();
}

#[test]
fn a_store_that_fails_is_not_asked_whether_it_is_shorter() {
    let store = Changing::file();
    let broken = Plan { read: 1, fault: Fault::Error(5), for_ever: false };
    let faulty = FaultyStore::new(Arc::clone(&store) as Arc<dyn Store>, broken);
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let options = StoreOptions::default().ra_pages(0);
    let file = cache.open_store_with(Arc::new(faulty), PAGES * PAGE, options).unwrap();
    let looks = store.looks.tallied();
    assert!(matches!(file.pread(&mut [0; 9], 0), Err(Error::Io(error)) if error.errno() == 5));
    assert_eq!(store.looks.tallied() - looks, 1, "before the read");
}

#[test]
fn a_fault_looks_before_it_reads_a_window() {
    let store = Changing::file();
    let (cache, file) = open(&store, 8);
    store.state.lock().rewrite(6);
    assert_eq!(file.filemap_fault(10, false).unwrap().result, VmFault::LOCKED | VmFault::MAJOR);
    assert_eq!((store.reads.tallied(), cached(&file)[10..13].to_vec()), (1, vec![true; 3]));
    cache.check().unwrap();
}

#[test]
fn a_page_that_could_not_be_read_is_looked_at_like_one_that_is_absent() {
    let store = Changing::file();
    let broken = Plan { read: 1, fault: Fault::Error(5), for_ever: false };
    let faulty = Arc::new(FaultyStore::new(Arc::clone(&store) as Arc<dyn Store>, broken));
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let options = StoreOptions::default().ra_pages(0);
    let file = cache.open_store_with(Arc::clone(&faulty) as Arc<dyn Store>, PAGES * PAGE, options).unwrap();
    let mut byte = [0];
    file.pread(&mut byte, 0).unwrap_err();
    store.state.lock().rewrite(6);
    assert_eq!((file.pread(&mut byte, 0).unwrap(), byte), (1, [2]));
    assert_eq!(faulty.reads(), 2, "no read was wasted on the old version");
    cache.check().unwrap();
}
