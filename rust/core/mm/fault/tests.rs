//! What faults answer, count and leave behind.

use super::super::leaf::Pte;
use super::super::mmap::{Madvise, Prot};
use super::super::tests::{FILE, FIRST, PAGE, byte, one, open};
use super::super::{Locking, Mm, MmOptions};
use crate::cache::{Abort, CacheOptions, MappedRange, VmFault};
use crate::error::{Error, Result};
use crate::page::{PAGE_SIZE, usage};
use crate::store::{Fault, FaultyStore, MemoryStore, Plan, ReadBy, Store};
use crate::sync::{AtomicU32, Ordering};
use crate::{File, Io, PageCache, StoreOptions};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Reads one page into the cache.
fn bring(file: &File, index: u64) {
    file.pread(&mut [0], index * PAGE).unwrap();
}

/// What the counters have grown by.
fn grown(mm: &Mm, before: &[(&'static str, u64)]) -> BTreeMap<&'static str, u64> {
    let now = mm.vm_events().into_iter().zip(before);
    now.filter(|((_, now), (_, before))| now > before)
        .map(|((name, now), (_, before))| (name, now - before))
        .collect()
}

/// How a fault ends, besides its result.
enum End {
    Minor,
    /// The page was absent, and read.
    Missed,
    Failed,
}

/// One fault, and what is expected of it: the result, why the attempt gives up, if it does, how often the mmap lock is taken then.
struct Case<'c> {
    at: u64,
    write: bool,
    result: VmFault,
    abort: Option<Abort>,
    locks: u64,
    end: End,
    told: &'c str,
}

impl Case<'_> {
    fn check(&self, mm: &Mm) -> Option<Error> {
        let before = mm.vm_events();
        let outcome = mm.fault(self.at, self.write);
        let speculative = mm.locking() == Locking::Speculative;
        let abort = self.abort.filter(|_| speculative);
        let major = matches!(self.end, End::Missed);
        assert_eq!(
            (outcome.result, outcome.abort, outcome.major),
            (self.result, abort, major),
            "{}",
            self.told
        );
        assert_eq!(outcome.error.is_some(), matches!(self.end, End::Failed), "{}: {outcome:?}", self.told);
        let mut events = BTreeMap::from([("pgfault", 1)]);
        if speculative {
            events.insert("spf_attempt", 1);
            match abort {
                Some(cause) => events.extend([("spf_abort", 1), (cause.event(), 1)]),
                None => events.extend([("spf_commit", 1)]),
            }
        }
        if !speculative || abort.is_some() {
            events.insert("mmap_lock_read", self.locks);
        }
        match self.end {
            End::Minor => events.extend([("min_flt", 1)]),
            End::Missed => events.extend([("maj_flt", 1), ("pgmajfault", 1)]),
            End::Failed => {}
        }
        assert_eq!(grown(mm, &before), events, "{}", self.told);
        outcome.error
    }
}

#[test]
fn each_fault_is_answered_and_counted_once() {
    for &locking in Locking::ALL {
        let (cache, file, mm) = one(64, locking);
        let shared = mm.mmap(&file, Some((FILE + 1) * PAGE), 0, Prot::Read, true).unwrap();
        let private = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
        let found = VmFault::LOCKED;
        let read = VmFault::LOCKED | VmFault::MAJOR;
        let check = |at, write, result, abort: Option<Abort>, locks, end, told| {
            Case { at, write, result, abort, locks, end, told }.check(&mm)
        };
        let error =
            check(FIRST - 1, true, VmFault::SIGSEGV, Some(Abort::Unmapped), 1, End::Failed, "below all");
        assert!(
            matches!(error, Some(Error::Segmentation { address, write: true, reason }) if address == FIRST - 1 && reason.contains("nothing"))
        );
        let end = private + FILE * PAGE;
        check(end, false, VmFault::SIGSEGV, Some(Abort::Unmapped), 1, End::Failed, "beyond all");
        check(shared, false, read, Some(Abort::Pud), 2, End::Missed, "the first of all");
        check(shared + PAGE + 7, false, read, Some(Abort::FileMiss), 2, End::Missed, "an absent page");
        bring(&file, 2);
        check(shared + 2 * PAGE + 4095, false, found, None, 1, End::Minor, "a cached page");
        check(shared + 2 * PAGE, false, VmFault::NONE, None, 1, End::Minor, "its entry is there");
        let error = check(
            shared + 2 * PAGE + 1,
            true,
            VmFault::SIGSEGV,
            Some(Abort::NoSpeculate),
            1,
            End::Failed,
            "a store to what is shared",
        );
        assert!(
            matches!(error, Some(Error::Segmentation { address, write: true, reason }) if address == shared + 2 * PAGE + 1 && reason.contains("read-only"))
        );
        check(private + 2 * PAGE, true, found, Some(Abort::AnonVma), 1, End::Minor, "the first private copy");
        bring(&file, 3);
        check(private + 3 * PAGE, true, found, None, 1, End::Minor, "a private copy of a cached page");
        check(private + 3 * PAGE, true, VmFault::NONE, None, 1, End::Minor, "that entry is there");
        check(private + 3 * PAGE, false, VmFault::NONE, None, 1, End::Minor, "and serves loads");
        check(private + PAGE, false, found, None, 1, End::Minor, "a page of a private mapping");
        check(private + PAGE, true, VmFault::NONE, None, 1, End::Minor, "it is copied");
        check(
            private + 4 * PAGE,
            true,
            read,
            Some(Abort::FileMiss),
            2,
            End::Missed,
            "a private copy of an absent page",
        );
        assert_eq!(mm.pagemap(private, FILE * PAGE).unwrap(), [0, 7, 7, 7, 7, 0, 0, 0]);
        assert_eq!(mm.pagemap(shared, FILE * PAGE).unwrap(), [1, 1, 1, 0, 0, 0, 0, 0]);
        mm.mprotect(private + 3 * PAGE, PAGE, Prot::Read).unwrap();
        check(
            private + 3 * PAGE,
            true,
            VmFault::SIGSEGV,
            Some(Abort::AccessError),
            1,
            End::Failed,
            "a store to a read-only mapping",
        );
        mm.mprotect(private + 3 * PAGE, PAGE, Prot::ReadWrite).unwrap();
        check(private + 3 * PAGE, true, VmFault::NONE, None, 1, End::Minor, "its copy is its own");
        let error = check(
            shared + FILE * PAGE + 5,
            false,
            VmFault::SIGBUS,
            Some(Abort::FileMiss),
            1,
            End::Failed,
            "beyond the file",
        );
        let (index, offset, size) = (FILE, FILE * PAGE + 5, FILE * PAGE);
        assert!(
            matches!(error, Some(Error::Bus { index: at, offset: byte, size: of, cause: None }) if (at, byte, of) == (index, offset, size))
        );
        assert_eq!(mm.pagemap(private, FILE * PAGE).unwrap(), [0, 7, 7, 7, 7, 0, 0, 0]);
        assert_eq!(cache.stats().private_frames, 4);
        let mut bytes = vec![0; (FILE * PAGE) as usize];
        mm.load(private, &mut bytes).unwrap();
        assert!((0..).zip(&bytes).all(|(at, &found)| found == byte(0, at / PAGE)), "copies are copies");
        mm.check().unwrap();
        cache.check().unwrap();
    }
}

#[test]
fn a_fault_that_waits_for_a_page_is_major_and_holds_no_lock() {
    for &locking in Locking::ALL {
        for write in [false, true] {
            let (_cache, file, mm) = one(64, locking);
            let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
            mm.store(at + PAGE, &[1]).unwrap();
            bring(&file, 0);
            let open = file.open_file().unwrap();
            let page = open.mapping.find_get_page(0, &crate::rcu::read()).unwrap();
            let lock = page.page().lock();
            let locks = || mm.inner.events.sum(super::Event::MmapLockRead);
            let before = locks();
            std::thread::scope(|scope| {
                let fault = scope.spawn(|| mm.fault(at, write));
                while locks() == before {
                    std::thread::yield_now();
                }
                std::thread::sleep(Duration::from_millis(5));
                mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
                drop(lock);
                let outcome = fault.join().unwrap();
                let abort = (locking == Locking::Speculative).then_some(Abort::FileLocked);
                assert_eq!((outcome.result, outcome.abort, outcome.major), (VmFault::LOCKED, abort, true));
                assert_eq!(locks() - before, 2);
            });
        }
    }
}

#[test]
fn a_fault_that_waits_for_a_frame_is_major_and_holds_no_lock() {
    for &locking in Locking::ALL {
        for write in [false, true] {
            let options = CacheOptions::default().io(Io::Inline).frame_timeout(Duration::from_secs(60));
            let cache = PageCache::with_options(3 * PAGE, options).unwrap();
            let file = open(&cache, 0);
            let mm = Mm::new(&cache, MmOptions::default().locking(locking).fault_around_bytes(PAGE)).unwrap();
            let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
            let pins = [1, 2, 3].map(|index| file.pin(index * PAGE, 1).unwrap());
            std::thread::scope(|scope| {
                // A page that is absent, or a copy of one that is there, and is not the first to be evicted.
                let fault = scope.spawn(|| mm.fault(if write { at + 3 * PAGE } else { at }, write));
                while cache.stats().frame_waits == 0 {
                    std::thread::yield_now();
                }
                mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
                drop(pins);
                let outcome = fault.join().unwrap();
                assert!(outcome.major && outcome.error.is_none(), "{outcome:?}");
            });
            mm.close().unwrap();
            cache.check().unwrap();
        }
    }
}

/// Stores that may stall are read while no lock is held, and so is what follows from their errors.
#[test]
fn entries_around_a_page_that_cannot_be_read_are_credited_with_it() {
    for &locking in Locking::ALL {
        for (near, absent) in [(1, false), (3, false), (3, true)] {
            let cache = PageCache::new(64 * PAGE, Io::Threads).unwrap();
            let store = Arc::new(Broken { pages: Mutex::new(vec![0]) });
            let options = StoreOptions::default().ra_pages(1);
            let file = cache.open_store_with(store.clone(), 64 * PAGE, options).unwrap();
            let mm =
                Mm::new(&cache, MmOptions::default().locking(locking).fault_around_bytes(4 * PAGE)).unwrap();
            let at = mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
            let misses = || file.readahead_state().unwrap().mmap_miss;
            for n in 1..5 {
                mm.load(at + 8 * n * PAGE, &mut [1]).unwrap();
            }
            (1..=near).for_each(|index| bring(&file, index));
            if !absent {
                file.pread(&mut [0], 0).unwrap_err();
            }
            let before = misses();
            assert!(before >= 4);
            let outcome = mm.fault(at, false);
            assert!(
                matches!(outcome.error, Some(Error::Bus { index: 0, cause: Some(_), .. })),
                "{outcome:?}"
            );
            let entries = mm.pagemap(at, 4 * PAGE).unwrap();
            assert_eq!(entries, [0, 1, u8::from(near > 1), u8::from(near > 2)]);
            // An attempt that gives up credits nothing, and a fault that missed counts as a miss.
            let after = match (absent, locking) {
                (true, _) => before + 1,
                (false, Locking::Speculative) => before,
                (false, Locking::MmapLock) => before - near as u32,
            };
            assert_eq!(misses(), after, "{locking}, {near}, {absent}");
            store.pages.lock().unwrap().clear();
            mm.load(at, &mut [1]).unwrap();
            mm.close().unwrap();
            cache.check().unwrap();
        }
    }
}

/// A store that may stall, in which some pages cannot be read.
struct Broken {
    pages: Mutex<Vec<u64>>,
}

impl Store for Broken {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let pages = self.pages.lock().unwrap();
        let mut read = offset / PAGE..(offset + buf.len() as u64).div_ceil(PAGE);
        if read.any(|page| pages.contains(&page)) {
            return Err(std::io::Error::from_raw_os_error(5));
        }
        buf.fill(1);
        Ok(buf.len())
    }

    fn read_by(&self) -> ReadBy {
        ReadBy::Workers { timeout: None }
    }
}

#[test]
fn entries_around_a_page_that_is_waited_for_are_credited_once() {
    for &locking in Locking::ALL {
        let cache = PageCache::new(64 * PAGE, Io::Inline).unwrap();
        let store = Arc::new(MemoryStore::new(vec![5; 64 * PAGE_SIZE]));
        let file = cache.open_store_with(store, 64 * PAGE, StoreOptions::default().ra_pages(1)).unwrap();
        let mm = Mm::new(&cache, MmOptions::default().locking(locking).fault_around_bytes(4 * PAGE)).unwrap();
        let at = mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
        for n in 1..8 {
            mm.load(at + 8 * n * PAGE, &mut [1]).unwrap();
        }
        (0..4).for_each(|index| bring(&file, index));
        let open = file.open_file().unwrap();
        let page = open.mapping.find_get_page(0, &crate::rcu::read()).unwrap();
        let lock = page.page().lock();
        let (before, locks) =
            (file.readahead_state().unwrap().mmap_miss, || mm.inner.events.sum(super::Event::MmapLockRead));
        let locked = locks();
        std::thread::scope(|scope| {
            let fault = scope.spawn(|| mm.fault(at, false));
            while locks() == locked || mm.pagemap(at, 4 * PAGE).unwrap() != [0, 1, 1, 1] {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(5));
            drop(lock);
            assert!(fault.join().unwrap().error.is_none());
        });
        // What an attempt sets before it gives up is not credited.
        let credit = if locking == Locking::Speculative { 1 } else { 4 };
        assert_eq!(before - file.readahead_state().unwrap().mmap_miss, credit, "{locking}");
    }
}

/// A store that may stall, but not for long.
struct Brief;

impl Store for Brief {
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> std::io::Result<usize> {
        buf.fill(1);
        Ok(buf.len())
    }

    fn read_by(&self) -> ReadBy {
        ReadBy::Workers { timeout: Some(Duration::from_millis(20)) }
    }
}

#[test]
fn entries_around_a_page_are_not_credited_to_a_fault_that_gives_up() {
    for &locking in Locking::ALL {
        let cache = PageCache::new(64 * PAGE, Io::Threads).unwrap();
        let options = StoreOptions::default().ra_pages(1);
        let file = cache.open_store_with(Arc::new(Brief), 64 * PAGE, options).unwrap();
        let mm = Mm::new(&cache, MmOptions::default().locking(locking).fault_around_bytes(4 * PAGE)).unwrap();
        let at = mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
        // On a busy machine a read may take too long.
        for n in 1..8 {
            while mm.load(at + 8 * n * PAGE, &mut [1]).is_err() {}
        }
        for index in 0..4 {
            while file.pread(&mut [0], index * PAGE).is_err() {}
        }
        let misses = || file.readahead_state().unwrap().mmap_miss;
        let before = misses();
        let open = file.open_file().unwrap();
        let page = open.mapping.find_get_page(0, &crate::rcu::read()).unwrap();
        let lock = page.page().lock();
        let outcome = mm.fault(at, false);
        assert!(matches!(outcome.error, Some(Error::TimedOut { .. })), "{outcome:?}");
        assert_eq!((mm.pagemap(at, 4 * PAGE).unwrap(), misses()), (vec![0, 1, 1, 1], before));
        drop(lock);
        mm.load(at, &mut [1]).unwrap();
        assert_eq!(misses(), before - 1);
    }
}

#[test]
fn a_frame_for_a_copy_is_kept_while_the_page_waits_for_another() {
    for &locking in Locking::ALL {
        let options = CacheOptions::default().io(Io::Inline).frame_timeout(Duration::ZERO);
        let cache = PageCache::with_options(2 * PAGE, options).unwrap();
        let file = open(&cache, 0);
        let mm = Mm::new(&cache, MmOptions::default().locking(locking).fault_around_bytes(PAGE)).unwrap();
        let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
        let pin = file.pin(5 * PAGE, 1).unwrap();
        let told = mm.store(at, &[1]);
        let Err(Error::OutOfFrames { what, holders, .. }) = told else { panic!("{told:?}") };
        // It was given back before this was told.
        assert_eq!((what, holders.pinned, holders.private), (format!("a page at {at:#x}"), 1, 0));
        assert_eq!(cache.stats().frame_waits, 1);
        drop(pin);
        mm.store(at, &[1]).unwrap();
    }
}

#[test]
fn a_copy_of_a_mapped_page_makes_room_for_itself() {
    for &locking in Locking::ALL {
        let (cache, file, mm) = one(FILE, locking);
        let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
        mm.touch(at, FILE * PAGE, PAGE, false).unwrap();
        assert_eq!(cache.stats().frames_in_use, FILE);
        mm.touch(at, FILE / 2 * PAGE, PAGE, true).unwrap();
        assert_eq!(cache.stats().private_frames, FILE / 2);
        mm.check().unwrap();
        mm.close().unwrap();
        cache.check().unwrap();
    }
}

#[test]
fn a_fault_without_a_frame_is_out_of_memory() {
    for &locking in Locking::ALL {
        let options = CacheOptions::default().io(Io::Inline).frame_timeout(Duration::ZERO);
        let cache = PageCache::with_options(4 * PAGE, options).unwrap();
        let file = open(&cache, 0);
        let mm = Mm::new(&cache, MmOptions::default().locking(locking).fault_around_bytes(PAGE)).unwrap();
        let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
        let out_of_frames = |told: Result<()>, what: String, waits: u64| {
            let text = match told {
                Err(Error::OutOfFrames { what, .. }) => what,
                told => panic!("{told:?}"),
            };
            assert_eq!((text, cache.stats().frame_waits), (what, waits));
        };
        mm.store(at, &[1]).unwrap();
        mm.store(at + PAGE, &[1]).unwrap();
        // What is there needs no frame.
        assert_eq!((mm.fault(at, true).result, mm.fault(at, true).abort), (VmFault::NONE, None));
        let third = at + 2 * PAGE + 3;
        let case = |abort, locks, told| Case {
            at: third,
            write: true,
            result: VmFault::OOM,
            abort: Some(abort),
            locks,
            end: End::Failed,
            told,
        };
        let error = case(Abort::NoFrame, 1, "half of the frames are copies").check(&mm);
        out_of_frames(Err(error.unwrap()), format!("a private copy at {third:#x}"), 0);
        // Copies are within their limit again, but what they left is pinned.
        mm.madvise(at, PAGE, Madvise::DontNeed).unwrap();
        let pins = [4, 5, 6].map(|index| file.pin(index * PAGE, 1).unwrap());
        let error = case(Abort::NoFrame, 1, "no frame for a copy").check(&mm);
        out_of_frames(Err(error.unwrap()), format!("a private copy at {third:#x}"), 1);
        out_of_frames(mm.load(third, &mut [0]), format!("a page at {third:#x}"), 2);
        assert_eq!(mm.fault(third, false).result, VmFault::OOM | VmFault::MAJOR);
        let [pin, ..] = pins;
        drop(pin);
        mm.load(third, &mut [0]).unwrap();
        mm.close().unwrap();
        cache.check().unwrap();
    }
}

#[test]
fn a_page_that_cannot_be_read_is_a_bus_error_until_it_can() {
    for &locking in Locking::ALL {
        for write in [false, true] {
            let cache = PageCache::new(64 * PAGE, Io::Inline).unwrap();
            let broken = Plan { read: 1, fault: Fault::Error(5), for_ever: true };
            let store =
                Arc::new(FaultyStore::new(Arc::new(MemoryStore::new(vec![9; 4 * PAGE_SIZE])), broken));
            let options = StoreOptions::default().name("broken").ra_pages(0);
            let file = cache.open_store_with(Arc::clone(&store) as _, 4 * PAGE, options).unwrap();
            let mm = Mm::new(&cache, MmOptions::default().locking(locking)).unwrap();
            let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap() + 2 * PAGE + 1;
            let before = mm.vm_events();
            let outcome = mm.fault(at, write);
            assert!(outcome.result.has(VmFault::SIGBUS) && !outcome.major, "{outcome:?}");
            let Some(Error::Bus { index: 2, offset, size, cause: Some(cause) }) = outcome.error else {
                panic!("{:?}", outcome.error);
            };
            assert_eq!(
                (offset, size, cause.errno(), &*cause.file),
                (2 * PAGE + 1, 4 * PAGE, 5, "broken".as_ref())
            );
            let grown = grown(&mm, &before);
            assert_eq!((grown.get("maj_flt"), grown.get("min_flt")), (None, None));
            assert_eq!((grown["pgfault"], grown["pgmajfault"], grown["mmap_lock_read"]), (1, 1, 2));
            assert_eq!((cache.stats().private_frames, mm.pagemap(at - 1, PAGE).unwrap()), (0, vec![0]));
            store.replan(Plan { read: 0, fault: Fault::Error(5), for_ever: false });
            let mut found = [0];
            mm.load(at, &mut found).unwrap();
            assert_eq!(found, [9]);
            mm.close().unwrap();
            cache.check().unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn a_read_fault_maps_what_is_ready_around_it(
        // Of address space before the mapping, so that it may cross the end of a leaf table.
        before in prop_oneof![0..40_u64, 400..496_u64],
        first in 0..10_u64,
        pages in 1..60_u64,
        ready in prop::collection::vec(any::<bool>(), 50),
        faults in prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.2)), 1..5),
        around in 0..8_u32,
        speculative in any::<bool>(),
    ) {
        let size = 50;
        let cache = PageCache::new(256 * PAGE, Io::Inline).unwrap();
        let store = Arc::new(MemoryStore::new(vec![5; size * PAGE_SIZE - 1]));
        let file = cache.open_store_with(store, size as u64 * PAGE - 1, StoreOptions::default().ra_pages(0)).unwrap();
        let locking = if speculative { Locking::Speculative } else { Locking::MmapLock };
        let around = PAGE << around;
        let mm = Mm::new(&cache, MmOptions::default().locking(locking).fault_around_bytes(around)).unwrap();
        if before > 0 {
            mm.mmap(&file, Some(before * PAGE), 0, Prot::Read, true).unwrap();
        }
        let at = mm.mmap(&file, Some(pages * PAGE), first * PAGE, Prot::ReadWrite, false).unwrap();
        let mut ready = ready;
        for (index, _) in (0..).zip(&ready).filter(|(_, ready)| **ready) {
            bring(&file, index);
        }
        let mut entries = vec![0; pages as usize];
        let mut accessed = vec![false; pages as usize];
        for (which, write) in faults {
            let page = which.index(pages as usize) as u64;
            let address = at + page * PAGE;
            let within = first + page < size as u64;
            let outcome = mm.fault(address + 17, write);
            let absent = entries[page as usize] == 0;
            if within && absent {
                let mut result = if write || around == PAGE { VmFault::LOCKED } else { VmFault::NOPAGE };
                if !ready[(first + page) as usize] {
                    result |= VmFault::MAJOR;
                }
                prop_assert_eq!(outcome.result, result);
            }
            prop_assert_eq!(outcome.error.is_none(), within, "{:?}", outcome);
            if !write && absent {
                let end = at + pages * PAGE;
                let leaf = address & !((1 << 21) - 1);
                let from = (address & !(around - 1)).max(at).max(leaf);
                let to = (from + around).min(end).min(leaf + (1 << 21));
                if around > PAGE {
                    for near in (from - at) / PAGE..(to - at) / PAGE {
                        let cached = ready.get((first + near) as usize) == Some(&true);
                        entries[near as usize] |= u8::from(cached);
                    }
                }
            }
            if within {
                entries[page as usize] = if write { 7 } else { entries[page as usize] | 1 };
                accessed[page as usize] = true;
                ready[(first + page) as usize] = true;
            }
            prop_assert_eq!(mm.pagemap(at, pages * PAGE).unwrap(), &entries[..], "page {} write {}", page, write);
            // A program has used those that it asked for, not those around them.
            let section = crate::rcu::read();
            let has = |page: u64| {
                let at = at + page * PAGE;
                mm.inner.tables.walk(at, &section).is_ok_and(|walk| walk.get(at).has(Pte::ACCESSED))
            };
            prop_assert_eq!((0..pages).map(has).collect::<Vec<_>>(), &accessed[..]);
        }
        mm.check().unwrap();
        cache.check().unwrap();
    }
}

/// Each fault that misses counts against readahead around a fault, each entry that is set without a miss for it.
#[test]
fn entries_that_are_set_are_credited_once() {
    for &locking in Locking::ALL {
        for around in [PAGE, 4 * PAGE] {
            let cache = PageCache::new(256 * PAGE, Io::Inline).unwrap();
            let store = Arc::new(MemoryStore::new(vec![5; 64 * PAGE_SIZE]));
            let file = cache.open_store_with(store, 64 * PAGE, StoreOptions::default().ra_pages(1)).unwrap();
            let mm =
                Mm::new(&cache, MmOptions::default().locking(locking).fault_around_bytes(around)).unwrap();
            let misses = || file.readahead_state().unwrap().mmap_miss;
            let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
            for n in 0..12 {
                assert_eq!(misses(), n);
                assert!(mm.fault(at + u64::from(n) * 4 * PAGE, false).major);
            }
            assert_eq!(misses(), 12);
            let again = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
            let credited = |at: u64, write: bool, credit: u32, told: &str| {
                let before = misses();
                let outcome = mm.fault(at, write);
                assert!(!outcome.major && outcome.error.is_none(), "{told}: {outcome:?}");
                assert_eq!(before - misses(), credit, "{told}, {locking}, {around}");
            };
            credited(again, false, 1, "one entry");
            credited(again, false, 0, "it is there");
            credited(again + 4 * PAGE, true, 1, "a private copy");
            credited(again + 4 * PAGE, true, 0, "it is there");
            credited(again, true, 0, "a copy of what was mapped");
            for index in 33..36 {
                bring(&file, index);
            }
            let ready = if around == PAGE { 1 } else { 4 };
            credited(again + 32 * PAGE, false, ready, "those around it");
            mm.madvise(again + 8 * PAGE, PAGE, Madvise::Random).unwrap();
            credited(again + 8 * PAGE, false, 0, "advice says that it is random");
        }
    }
}

#[test]
fn what_entries_were_used_is_told_once_and_by_their_end() {
    let (cache, file, mm) = one(64, Locking::Speculative);
    let maps = [0, 1].map(|_| mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap());
    (0..FILE).for_each(|index| bring(&file, index));
    mm.touch(maps[0], 3 * PAGE, PAGE, false).unwrap();
    mm.touch(maps[1] + 2 * PAGE, 2 * PAGE, PAGE, false).unwrap();
    mm.touch(maps[1] + 5 * PAGE, PAGE, PAGE, true).unwrap();
    // Another maps little of the file.
    mm.mmap(&file, Some(PAGE), 0, Prot::Read, true).unwrap();
    let section = crate::rcu::read();
    let bits = [Pte::ACCESSED, Pte::DIRTY];
    let has = |at: u64| bits.map(|bit| mm.inner.tables.walk(at, &section).unwrap().get(at).has(bit));
    assert_eq!((has(maps[0]), has(maps[1] + 5 * PAGE)), ([true, false], [true, true]), "stores make dirty");
    drop(section);
    let referenced = || {
        let section = crate::rcu::read();
        let vmas = mm.inner.vmas.load(&section);
        (0..FILE).map(|index| vmas.iter().map(|vma| vma.referenced(index)).sum()).collect::<Vec<u32>>()
    };
    assert_eq!(referenced(), [1, 1, 2, 1, 0, 0, 0, 0], "a private copy is no use of the file's page");
    assert_eq!(referenced(), [0; 8]);
    mm.touch(maps[0], PAGE, PAGE, false).unwrap();
    mm.touch(maps[1] + 3 * PAGE, PAGE, PAGE, false).unwrap();
    let open = file.open_file().unwrap();
    let marks = || {
        let section = crate::rcu::read();
        (0..4)
            .map(|index| {
                open.mapping
                    .find_get_page(index, &section)
                    .unwrap()
                    .page()
                    .usage()
                    .clear(usage::REFERENCED | usage::ACTIVE)
                    & 3
            })
            .collect::<Vec<u32>>()
    };
    marks();
    for map in maps {
        mm.munmap(map, FILE * PAGE).unwrap();
    }
    assert_eq!(marks(), [1, 0, 0, 1], "used through entries since they were asked");
    cache.check().unwrap();
}

#[test]
fn reclaim_takes_entries_of_a_page_and_no_private_copy() {
    let (cache, file, mm) = one(16, Locking::Speculative);
    let [shared, private] = [0, 1].map(|_| mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap());
    mm.load(shared, &mut [0]).unwrap();
    mm.store(private, &[77]).unwrap();
    // The page has a second chance, for the entry through which it was used.
    while file.residency(0, Some(1)).unwrap() == [1] {
        cache.reclaim(1).unwrap();
    }
    assert_eq!((mm.pagemap(shared, PAGE).unwrap(), mm.pagemap(private, PAGE).unwrap()), (vec![0], vec![7]));
    let mut found = [0];
    mm.load(private, &mut found).unwrap();
    assert_eq!(found, [77]);
    cache.check().unwrap();
}

/// A file that others make shorter each time its last page is read, but not so short that it has no such page.
struct Shrinking {
    sizes: Mutex<Vec<u64>>,
    /// Not 0 if the next question for the size belongs to a read.
    was_read: AtomicU32,
    /// Told of each other question, and when it may be answered.
    asked: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

impl Store for Shrinking {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.was_read.store(1, Ordering::Relaxed);
        let mut sizes = self.sizes.lock().unwrap();
        if sizes.len() > 1 && offset + buf.len() as u64 > 2 * PAGE {
            sizes.pop();
        }
        let length = sizes.last().unwrap().saturating_sub(offset).min(buf.len() as u64) as usize;
        buf[..length].fill(1);
        Ok(length)
    }

    fn size(&self) -> std::io::Result<Option<u64>> {
        let is_alone = self.was_read.swap(0, Ordering::Relaxed) == 0;
        if let Some((asked, answer)) = self.asked.lock().unwrap().as_ref().filter(|_| is_alone) {
            asked.send(()).unwrap();
            answer.recv().unwrap();
        }
        Ok(self.sizes.lock().unwrap().last().copied())
    }
}

#[test]
fn a_page_that_is_cut_while_it_is_read_is_read_again_and_mappings_may_change_before() {
    for &locking in Locking::ALL {
        let cache = PageCache::new(16 * PAGE, Io::Inline).unwrap();
        let sizes = (1..7).map(|part| 2 * PAGE + part * 500).collect();
        let store = Arc::new(Shrinking {
            sizes: Mutex::new(sizes),
            was_read: AtomicU32::new(0),
            asked: Mutex::new(None),
        });
        let size = store.size().unwrap().unwrap();
        let options = StoreOptions::default().ra_pages(0);
        let file = cache.open_store_with(Arc::clone(&store) as _, size, options).unwrap();
        let mm = Mm::new(&cache, MmOptions::default().locking(locking).fault_around_bytes(PAGE)).unwrap();
        let at = mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
        let ((asked, questions), (answers, answer)) = (channel(), channel());
        *store.asked.lock().unwrap() = Some((asked, answer));
        let outcome = std::thread::scope(|scope| {
            let fault = scope.spawn(|| mm.fault(at + 2 * PAGE, false));
            while !fault.is_finished() {
                if questions.recv_timeout(Duration::from_millis(1)).is_ok() {
                    mm.mmap(&file, Some(PAGE), 0, Prot::Read, true).unwrap();
                    answers.send(()).unwrap();
                }
            }
            fault.join().unwrap()
        });
        *store.asked.lock().unwrap() = None;
        assert!(
            outcome.error.is_none() && !outcome.result.has(VmFault::ERROR) && outcome.major,
            "{outcome:?}"
        );
        let mut found = [9; 1000];
        mm.load(at + 2 * PAGE, &mut found).unwrap();
        assert!(found[..500] == [1; 500] && found[500..] == [0; 500]);
    }
}
