//! What the threads share, and what must be true of it whatever runs beside.

use super::super::leaf::FANOUT;
use super::store::{Remote, Rewritten, length, version_of, versioned};
use super::{PAGE, PAGES, WORDS};
use crate::cache::shuttle_tests::nothing_is_left;
use crate::cache::{CacheOptions, File, Io, PageCache, StoreOptions};
use crate::error::Error;
use crate::mm::{Locking, Mm, MmOptions, Prot};
use crate::shuttle_harness::{contents, reach, word};
use crate::store::{MemoryStore, Store};
use crate::sync::clock::let_time_pass;
use crate::sync::imp::draw;
use crate::sync::yield_now;
// Never waits here: one thread runs at a time, and none is switched from inside.
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The file that is cut off and grows again through the cache; the one that others rewrite; the one that only workers read, cut
/// off too.
pub(super) const CUT: usize = 0;
pub(super) const REWRITTEN: usize = 1;
pub(super) const REMOTE: usize = 2;
/// The words of a cut file that always remain.
pub(super) const KEPT: u64 = 3;
/// Stores write words of this file.
const STORED: u64 = 9;

/// A mapping as somebody made it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    pub(super) mm: usize,
    pub(super) base: u64,
    pub(super) file: usize,
    /// The first page of the file that is mapped.
    first: u64,
    pub(super) pages: u64,
    pub(super) private: bool,
}

/// What a load found, and between which versions of the rewritten file.
#[derive(Debug)]
struct Load {
    mm: usize,
    address: u64,
    found: u64,
    versions: (u64, u64),
}

pub(super) struct World {
    pub(super) cache: PageCache,
    pub(super) files: Vec<File>,
    pub(super) rewritten: Arc<Rewritten>,
    pub(super) mms: Vec<Mm>,
    /// Whether something is closed before the end.
    pub(super) ends: bool,
    /// Pins of each file.
    pub(super) pins: Mutex<[u32; 3]>,
    /// The areas that somebody may unmap.
    pub(super) areas: Mutex<Vec<Area>>,
    /// All that there ever were.
    ever: Mutex<Vec<Area>>,
    loads: Mutex<Vec<Load>>,
}

impl World {
    /// Three files in a cache of so many frames, in which workers read; two address spaces that map some of them, if any.
    pub(super) fn new(frames: u64, spaces: bool, ends: bool) -> Self {
        let_time_pass();
        let options = CacheOptions::default().io(Io::Threads).frame_timeout(Duration::from_millis(4));
        let cache = PageCache::with_options(frames * PAGE, options).unwrap();
        let rewritten = Arc::new(Rewritten::new(REWRITTEN as u64));
        let memory = |file: usize| MemoryStore::new(contents(file as u64, PAGES));
        let stores: [Arc<dyn Store>; 3] = [
            Arc::new(memory(CUT)),
            Arc::clone(&rewritten) as Arc<dyn Store>,
            Arc::new(Remote(memory(REMOTE))),
        ];
        let open = |store| {
            let options = StoreOptions::default().name("everything").ra_pages(2);
            cache.open_store_with(store, PAGES * PAGE, options).unwrap()
        };
        let mut files: Vec<_> = stores.into_iter().map(open).collect();
        // By its identity, so that further opens share its pages.
        files[REWRITTEN] = cache.adopt(&files[REWRITTEN]).unwrap();
        let mut world = Self {
            cache,
            files,
            rewritten,
            mms: Vec::new(),
            ends,
            pins: Mutex::default(),
            areas: Mutex::default(),
            ever: Mutex::default(),
            loads: Mutex::default(),
        };
        if spaces {
            let space = |locking, around| {
                let options = MmOptions::default().locking(locking).fault_around_bytes(around * PAGE);
                Mm::new(&world.cache, options).unwrap()
            };
            world.mms = vec![space(Locking::Speculative, 2), space(Locking::MmapLock, 4)];
            for (mm, file, private) in [(0, CUT, false), (0, REWRITTEN, false), (1, CUT, true)] {
                world.map(mm, file, 0, private).unwrap();
            }
        }
        world
    }

    /// Maps a file from a page to its end as it was at first.
    pub(super) fn map(&self, mm: usize, file: usize, first: u64, private: bool) -> Result<Area, Error> {
        let prot = if private { Prot::ReadWrite } else { Prot::Read };
        let pages = PAGES - first;
        let base = self.mms[mm].mmap(&self.files[file], Some(pages * PAGE), first * PAGE, prot, !private)?;
        let area = Area { mm, base, file, first, pages, private };
        self.areas.lock().unwrap().push(area);
        self.ever.lock().unwrap().push(area);
        Ok(area)
    }

    /// One of the areas; `None` if all are unmapped.
    pub(super) fn area(&self) -> Option<Area> {
        let areas = self.areas.lock().unwrap();
        (!areas.is_empty()).then(|| areas[draw(areas.len())])
    }

    /// A call was refused. Claim: for a reason that it may give, of which `other` says more.
    pub(super) fn refused(&self, error: &Error, other: impl Fn(&Error) -> bool) {
        match error {
            Error::OutOfFrames { .. } => reach("out of frames"),
            Error::Closed(_) if self.ends => reach("closed"),
            error => assert!(other(error), "{error}"),
        }
    }

    /// The words from `at` on that a read of a file returned, which may have begun at version `since`. Claims: each is the file's,
    /// or zero where it may have been cut off, and all are of one version, of which there were no more.
    pub(super) fn judge(&self, file: usize, at: u64, asked: usize, found: &[u64], since: u64) {
        if file != REWRITTEN {
            for (at, &found) in (at..).zip(found) {
                let right = found == word(file as u64, at) || (found == 0 && at >= KEPT);
                assert!(right, "word {at} of file {file} reads as {found:#x}");
            }
            return;
        }
        let Some(&first) = found.first() else { return };
        let version = version_of(first);
        let newest = self.rewritten.version();
        assert!((since..=newest).contains(&version), "version {version}, not of {since} to {newest}");
        let rest = length(version).saturating_sub(at).min(asked as u64);
        let whole: Vec<_> = (at..at + rest).map(|at| versioned(file as u64, version, at)).collect();
        assert_eq!(found, whole, "not what version {version} has at {at}");
    }

    /// What a load found is judged in the end, when all areas are known.
    pub(super) fn loaded(&self, mm: usize, address: u64, found: u64, since: u64) {
        let versions = (since, self.rewritten.version());
        self.loads.lock().unwrap().push(Load { mm, address, found, versions });
    }

    /// What is stored at an address.
    pub(super) fn to_store(address: u64) -> u64 {
        word(STORED, address / 8)
    }

    /// Claim: each load found a word of a page that was mapped there, or one that was stored there.
    fn judge_loads(&self) {
        let ever = self.ever.lock().unwrap();
        for load in self.loads.lock().unwrap().iter() {
            let right = ever.iter().any(|area| {
                let within = load.address.checked_sub(area.base).filter(|&within| within < area.pages * PAGE);
                let Some(within) = within.filter(|_| area.mm == load.mm) else { return false };
                let (file, at) = (area.file as u64, area.first * WORDS + within / 8);
                if area.private && load.found == Self::to_store(load.address) {
                    return true;
                }
                if area.file != REWRITTEN {
                    return load.found == word(file, at) || (load.found == 0 && at >= KEPT);
                }
                // A private copy stays what it was.
                let (since, newest) = load.versions;
                let since = if area.private { 0 } else { since };
                (since..=newest).any(|version| load.found == versioned(file, version, at))
            });
            assert!(right, "{load:x?} of {ever:x?}");
        }
    }

    /// Claims: counts are balanced; everything can be closed, if it is not closed yet; nothing is left.
    pub(super) fn finish(self) {
        self.judge_loads();
        assert_eq!(*self.pins.lock().unwrap(), [0; 3], "a pin is left");
        let Self { cache, files, mms, .. } = self;
        for mm in &mms {
            mm.check().unwrap();
        }
        cache.check().unwrap();
        for mm in &mms {
            mm.close().unwrap();
            assert_eq!(mm.page_table_bytes(), (FANOUT * 8) as u64, "a table below the root is left");
        }
        drop(mms);
        for file in &files {
            file.close().unwrap();
        }
        drop(files);
        // A close of the cache may have left a worker behind in a read.
        while cache.stats().reads_abandoned > 0 {
            yield_now();
        }
        nothing_is_left(&cache);
        cache.close().unwrap();
    }
}
