//! Stores that others change at chosen moments, and how often they are looked at.

use crate::store::{Look, Store};
use crate::sync::{Mutex, Tally};
use crate::{Advice, Error, File, Io, Mm, MmOptions, PAGE_SIZE, PageCache, Prot, StoreOptions, VmFault};
use std::io;
use std::sync::Arc;
use std::time::Duration;

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
}

impl Changing {
    fn new(look: Look) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State { version: 1, look }),
            reads: Tally::new(),
            looks: Tally::new(),
            before_read: Mutex::new(None),
            before_look: Mutex::new(None),
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
        let state = self.change(&self.before_read);
        let n = (state.look.size.unwrap_or(PAGES * PAGE).saturating_sub(offset) as usize).min(buf.len());
        buf[..n].fill(state.version);
        Ok(n)
    }

    fn look(&self) -> io::Result<Look> {
        self.looks.add(1);
        Ok(self.change(&self.before_look).look)
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
    cache.check().unwrap();
}

#[test]
fn a_ctime_that_moves_all_the_time_is_no_reason_to_give_up() {
    for call in CALLS {
        let store = Changing::file();
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
