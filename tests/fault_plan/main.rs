//! Every read of a program fails in turn, once and from then on, in every way; the guarantees hold nevertheless.
//!
//! The program is the same each time; the fault moves from its first read to its second and so on, until a run meets none. A call
//! must return the right bytes or a typed error that names the file or the page. After a fault that happens once the same call
//! succeeds. At the end nothing is locked, lost or left over.
#![cfg(not(any(specmm_loom, specmm_shuttle)))]
#![allow(missing_docs, reason = "a test suite")]

use specmm::store::{Fault, FaultyStore, MemoryStore, Plan, Store};
use specmm::{
    CacheOptions, Error, File, Io, Mm, MmOptions, PAGE_SIZE, PageCache, Prot, Result, StoreOptions,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PAGE: u64 = PAGE_SIZE as u64;
const SIZE: u64 = 40 * PAGE + 100;

fn byte(at: u64) -> u8 {
    (at % 251) as u8 + 1
}

fn bytes(at: u64, n: usize) -> Vec<u8> {
    (at..at + n as u64).map(byte).collect()
}

/// What a store was asked and answered: reads, reads that failed or ended early, bytes of the others.
struct Watched<S> {
    store: Arc<S>,
    seen: Mutex<[u64; 3]>,
}

impl<S: Store> Store for Watched<S> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let expected = SIZE.saturating_sub(offset).min(buf.len() as u64);
        let answer = self.store.read_at(buf, offset);
        let bytes = answer.as_ref().ok().filter(|&&n| n as u64 == expected);
        let mut seen = self.seen.lock().unwrap();
        seen[0] += 1;
        seen[1] += u64::from(bytes.is_none());
        seen[2] += bytes.map_or(0, |&n| n as u64);
        answer
    }

    fn size(&self) -> std::io::Result<Option<u64>> {
        self.store.size()
    }
}

/// One step of the program, which may be taken again.
type Step = Box<dyn Fn(&File, &Mm, u64) -> Result<()>>;

fn read(n: usize, at: u64) -> Step {
    Box::new(move |file, _, _| {
        let mut buf = vec![0; n];
        let got = file.pread(&mut buf, at)?;
        assert_eq!(got as u64, SIZE.saturating_sub(at).min(n as u64));
        assert_eq!(buf[..got], bytes(at, got));
        Ok(())
    })
}

fn load(at: u64) -> Step {
    Box::new(move |_, mm, map| {
        let mut buf = [0; 8];
        mm.load(map + at, &mut buf)?;
        assert_eq!(buf[..], bytes(at, 8));
        Ok(())
    })
}

fn program() -> Vec<Step> {
    vec![
        read(10, 0),
        read(3 * PAGE_SIZE, PAGE),
        read(1, 20 * PAGE),
        load(5 * PAGE),
        load(30 * PAGE + 8),
        read(1000, SIZE - 50),
        Box::new(|file, _, _| {
            let pin = file.pin(12 * PAGE + 5, 100)?;
            assert_eq!(pin[..], bytes(12 * PAGE + 5, 100));
            Ok(())
        }),
        Box::new(|file, _, _| {
            let mut rows = vec![0; 30];
            file.gather(&[33 * PAGE, 7, 25 * PAGE - 5], 10, &mut rows)?;
            assert_eq!(rows, [bytes(33 * PAGE, 10), bytes(7, 10), bytes(25 * PAGE - 5, 10)].concat());
            Ok(())
        }),
        read(SIZE as usize, 0),
        load(0),
    ]
}

/// An error that names the failure that was planned.
fn is_right(error: &Error, fault: Fault) -> bool {
    let (Error::Io(io) | Error::Bus { cause: Some(io), .. }) = error else { return false };
    match fault {
        Fault::Error(errno) => io.errno() == errno && io.file == "planned",
        Fault::Short(_) => io.source.to_string().contains("short read"),
        Fault::Slow(_) => false,
    }
}

/// Runs the program; returns how many reads and how many calls failed.
fn run(plan: Plan, frames: u64, io: Io) -> (u64, u64) {
    let cache = PageCache::with_options(
        frames * PAGE,
        CacheOptions::default().io(io).frame_timeout(Duration::from_secs(60)),
    )
    .unwrap();
    let inner = Arc::new(MemoryStore::new(bytes(0, SIZE as usize)));
    let store = Arc::new(FaultyStore::new(inner, plan));
    let watched = Arc::new(Watched { store: Arc::clone(&store), seen: Mutex::default() });
    let file = cache
        .open_store_with(
            Arc::clone(&watched) as Arc<dyn Store>,
            SIZE,
            StoreOptions::default().name("planned").ra_pages(8),
        )
        .unwrap();
    let mm = Mm::new(&cache, MmOptions::default()).unwrap();
    let map = mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
    let mut failed = 0;
    for (number, step) in program().iter().enumerate() {
        if let Err(error) = step(&file, &mm, map) {
            failed += 1;
            assert!(is_right(&error, plan.fault), "{plan:?}, step {number}: {error:?}");
            cache.settle();
            let again = step(&file, &mm, map);
            assert_eq!(again.is_ok(), !plan.for_ever, "{plan:?}, step {number}, again: {again:?}");
        }
        cache.check().unwrap();
    }
    let fired = store.fired();
    // The fault is over.
    store.replan(Plan { read: 0, fault: plan.fault, for_ever: false });
    for step in program() {
        step(&file, &mm, map).unwrap();
    }
    cache.settle();
    let stats = cache.stats();
    assert!(stats.frames_in_use <= frames);
    let counted = [stats.reads, stats.read_errors, stats.read_bytes];
    assert_eq!(counted, *watched.seen.lock().unwrap(), "{plan:?}: reads, errors, bytes");
    mm.close().unwrap();
    file.close().unwrap();
    cache.check().unwrap();
    assert_eq!(cache.stats().frames_in_use, 0, "{plan:?}");
    cache.close().unwrap();
    (fired, failed)
}

#[test]
fn every_read_may_go_wrong() {
    let faults = [
        Fault::Error(5),
        Fault::Error(4),
        Fault::Short(1),
        Fault::Short(usize::MAX),
        Fault::Slow(Duration::from_millis(1)),
    ];
    for (frames, io) in [(3, Io::Inline), (64, Io::Inline), (16, Io::Threads)] {
        for fault in faults {
            for for_ever in [false, true] {
                let (mut runs, mut failures) = (0, 0);
                for read in 1.. {
                    let (fired, failed) = run(Plan { read, fault, for_ever }, frames, io);
                    if fired == 0 {
                        break;
                    }
                    runs += 1;
                    failures += failed;
                }
                assert!(runs >= 8, "{frames} frames: the program has only {runs} reads");
                // With readahead a read that fails once is repeated alone, and no error is reported.
                let hidden = matches!(fault, Fault::Slow(_)) || (frames > 3 && !for_ever);
                assert_eq!(failures == 0, hidden, "{fault:?} for_ever={for_ever}: {failures} calls failed");
            }
        }
    }
}
