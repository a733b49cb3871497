//! Every allocation of every operation fails in turn, once and from then on; nothing aborts, is lost or is left half-done.
//!
//! The operations are the same each time; the failure moves from the first allocation of one of them to its second and so on,
//! until it meets none (from the twelfth on a random sample; all of them with `SPECMM_DEEP` set). A call returns as if nothing
//! had happened, or reports that there was no memory and for what. Then the cache audits itself, and the same call succeeds.
//!
//! Small things of a fixed size are never refused here: a handle, a closure, a name (`SMALL`). `docs/limits.md` has them.
#![cfg(not(any(specmm_loom, specmm_shuttle)))]
#![allow(missing_docs, reason = "a test suite")]
#![allow(unsafe_code, reason = "an allocator")]

use specmm::store::{ReadBy, Store};
use specmm::{
    Advice, CacheOptions, Error, File, Io, Madvise, Mm, MmOptions, OpenMode, OpenOptions, PAGE_SIZE,
    PageCache, Prot, Result, StoreOptions,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Allocations up to this size are not refused, in bytes.
const SMALL: usize = 512;

struct Failing {
    armed: AtomicBool,
    for_ever: AtomicBool,
    /// Allocations left until one is refused.
    left: AtomicU64,
    refused: AtomicU64,
}

#[global_allocator]
static FAILING: Failing = Failing {
    armed: AtomicBool::new(false),
    for_ever: AtomicBool::new(false),
    left: AtomicU64::new(0),
    refused: AtomicU64::new(0),
};

impl Failing {
    fn refuses(&self, size: usize) -> bool {
        if size <= SMALL || !self.armed.load(Relaxed) {
            return false;
        }
        let left = self.left.fetch_sub(1, Relaxed);
        let refused = left == 1 || (left == 0 && self.for_ever.load(Relaxed));
        if left == 0 {
            self.left.store(0, Relaxed);
        }
        self.refused.fetch_add(u64::from(refused), Relaxed);
        refused
    }

    /// Runs a call in which the `nth` allocation is refused, and all later ones if `for_ever`; returns how many were.
    fn during<R>(&self, nth: u64, for_ever: bool, call: impl FnOnce() -> R) -> (R, u64) {
        self.left.store(nth, Relaxed);
        self.for_ever.store(for_ever, Relaxed);
        self.refused.store(0, Relaxed);
        self.armed.store(true, Relaxed);
        let answer = call();
        self.armed.store(false, Relaxed);
        (answer, self.refused.load(Relaxed))
    }
}

// SAFETY: forwards to the system's allocator, or returns null.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.refuses(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if self.refuses(size) {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller promises.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

const PAGE: u64 = PAGE_SIZE as u64;
const FRAMES: u64 = 600;
/// Sparse: most of its pages are never read.
const SIZE: u64 = (1 << 40) + 100;

fn byte(at: u64) -> u8 {
    (at % 251) as u8 + 1
}

/// A store of any size.
struct Numbers;

impl Store for Numbers {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        for (at, byte_read) in buf.iter_mut().enumerate() {
            *byte_read = byte(offset + at as u64);
        }
        Ok(buf.len())
    }

    fn truncate(&self, _size: u64) -> std::io::Result<()> {
        Ok(())
    }
}

struct MayStall;

impl Store for MayStall {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        Numbers.read_at(buf, offset)
    }

    fn read_by(&self) -> ReadBy {
        ReadBy::Workers { timeout: None }
    }
}

struct World {
    cache: PageCache,
    file: File,
    local: std::path::PathBuf,
    mm: Mm,
    /// Where the file is mapped, for reading and privately for stores.
    shared: u64,
    private: u64,
    /// Many mappings from this address on, the first of two pages and the others of one.
    crowded: (Mm, u64),
}

/// So many that a list of them is no small allocation.
const CROWD: u64 = SMALL as u64 / 4;

impl World {
    fn new(io: Io, local: &std::path::Path) -> Self {
        let cache = PageCache::with_options(
            FRAMES * PAGE,
            CacheOptions::default().io(io).frame_timeout(Duration::from_secs(60)),
        )
        .unwrap();
        let file = cache.open_store(Arc::new(Numbers), SIZE).unwrap();
        let mm = Mm::new(&cache, MmOptions::default()).unwrap();
        let shared = mm.mmap(&file, Some(1 << 40), 0, Prot::Read, true).unwrap();
        let private = mm.mmap(&file, Some(1 << 30), 0, Prot::ReadWrite, false).unwrap();
        let many = Mm::new(&cache, MmOptions::default()).unwrap();
        let first = many.mmap(&file, Some(2 * PAGE), PAGE, Prot::Read, true).unwrap();
        for _ in 1..CROWD {
            many.mmap(&file, Some(PAGE), 0, Prot::Read, true).unwrap();
        }
        Self { cache, file, local: local.to_owned(), mm, shared, private, crowded: (many, first) }
    }
}

/// Fails the first request for so many pages that a list of them is no small allocation.
struct FailsOnce(AtomicBool);

impl Store for FailsOnce {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        if buf.len() > SMALL / 4 * PAGE_SIZE && !self.0.swap(true, Relaxed) {
            return Err(std::io::Error::from_raw_os_error(5));
        }
        Numbers.read_at(buf, offset)
    }
}

/// No request for its page 5 succeeds.
struct Hole(AtomicU64);

impl Store for Hole {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.0.fetch_add(1, Relaxed);
        if (offset..offset + buf.len() as u64).contains(&(5 * PAGE)) {
            return Err(std::io::Error::from_raw_os_error(5));
        }
        Numbers.read_at(buf, offset)
    }
}

type Step = (&'static str, fn(&World) -> Result<()>);

fn read(world: &World, n: usize, at: u64) -> Result<()> {
    // The caller's own buffer is not part of the test.
    let mut buf = [0; 2 * PAGE_SIZE];
    assert_eq!(world.file.pread(&mut buf[..n], at)?, n);
    assert!((at..).zip(&buf[..n]).all(|(at, &found)| found == byte(at)), "{n} bytes at {at}");
    Ok(())
}

fn load(world: &World, at: u64) -> Result<()> {
    let mut buf = [0; 8];
    world.mm.load(world.shared + at, &mut buf)?;
    assert!((at..).zip(&buf).all(|(at, &found)| found == byte(at)), "a load at {at}");
    Ok(())
}

const STEPS: &[Step] = &[
    ("a first read, with readahead", |world| read(world, 2 * PAGE_SIZE, 0)),
    ("reads that go on", |world| (2..80).try_for_each(|page| read(world, 10, page * PAGE))),
    ("reads far apart", |world| (0..40).try_for_each(|far| read(world, 1, (1 << far) * PAGE % SIZE))),
    ("a window with gaps", |world| {
        (0..60).step_by(2).try_for_each(|page| read(world, 1, (5000 + page) * PAGE))?;
        world.file.advise(Advice::WillNeed, 5000 * PAGE, Some(60 * PAGE))
    }),
    ("willneed", |world| world.file.advise(Advice::WillNeed, 70_000 * PAGE, Some(300 * PAGE))),
    ("a window of a store that may stall", |world| {
        let options = StoreOptions::default().ra_pages(512);
        let file = world.cache.open_store_with(Arc::new(MayStall), SIZE, options)?;
        file.advise(Advice::WillNeed, 0, Some(512 * PAGE))?;
        let mut found = [0];
        file.pread(&mut found, 300 * PAGE)?;
        assert_eq!(found, [byte(300 * PAGE)]);
        Ok(())
    }),
    ("loads", |world| (0..40).try_for_each(|page| load(world, (100 + 3 * page) * PAGE + 5))),
    ("loads far apart", |world| (12..40).try_for_each(|far| load(world, 1 << far))),
    ("stores to private copies", |world| {
        (0..60).try_for_each(|page| world.mm.store(world.private + page * 5 * PAGE, &[1, 2, 3]))
    }),
    ("touches", |world| world.mm.touch(world.shared + (1 << 32), 300 * PAGE, PAGE, false).map(drop)),
    ("a mapping and its end", |world| {
        let at = world.mm.mmap(&world.file, Some(600 * PAGE), 0, Prot::Read, true)?;
        let touched = world.mm.touch(at, 600 * PAGE, PAGE, false);
        world.mm.munmap(at, 600 * PAGE)?;
        touched.map(drop)
    }),
    ("the end of many mappings and of half of one", |world| {
        let (mm, first) = &world.crowded;
        match mm.munmap(first + PAGE, CROWD * PAGE) {
            // Or they were ended before.
            Ok(()) | Err(Error::InvalidArgument(_)) => Ok(()),
            Err(error) => {
                // All or nothing.
                mm.touch(*first, (CROWD + 1) * PAGE, PAGE, false)?;
                Err(error)
            }
        }
    }),
    ("rights of a part", |world| {
        world.mm.mprotect(world.private + 10 * PAGE, 20 * PAGE, Prot::Read)?;
        world.mm.mprotect(world.private, 1 << 30, Prot::ReadWrite)
    }),
    ("advice for a part", |world| {
        world.mm.madvise(world.shared + 10 * PAGE, 20 * PAGE, Madvise::Random)?;
        world.mm.madvise(world.shared, 1 << 40, Madvise::Normal)
    }),
    ("entries forgotten", |world| {
        world.mm.touch(world.shared, 400 * PAGE, PAGE, false)?;
        world.mm.madvise(world.shared, 1 << 40, Madvise::DontNeed)
    }),
    ("what is resident and mapped", |world| {
        world.file.residency(0, Some(5000)).map(|pages| assert_eq!(pages.len(), 5000))?;
        world.mm.pagemap(world.shared, 5000 * PAGE).map(|pages| assert_eq!(pages.len(), 5000))
    }),
    ("gather", |world| {
        let mut rows = [0; 16 * 8];
        let offsets: [u64; 16] = std::array::from_fn(|row| (row as u64) << 35);
        world.file.gather(&offsets, 8, &mut rows)
    }),
    ("pins", |world| {
        let pins = [3, 9_000_000, 90_000_000].map(|page| world.file.pin(page * PAGE, 100));
        pins.into_iter().try_for_each(|pin| pin.map(drop))
    }),
    ("faults alone", |world| {
        for page in [1, 40_000_000] {
            assert!(!world.file.filemap_fault(page, true)?.result.has(specmm::VmFault::ERROR));
            let fault = world.file.filemap_fault(page, false)?;
            if fault.result.has(specmm::VmFault::OOM) {
                return Err(Error::OutOfMemory { what: "a fault".into(), bytes: 1 });
            }
        }
        Ok(())
    }),
    ("reclaim", |world| world.cache.reclaim(200).map(drop)),
    ("a local file, opened twice", |world| {
        let files = [OpenMode::Read, OpenMode::ReadWrite]
            .map(|mode| world.cache.open_with(&world.local, OpenOptions::default().mode(mode).ra_pages(8)));
        files.into_iter().try_for_each(|file| file?.close())
    }),
    ("another address space", |world| {
        let mm = Mm::new(&world.cache, MmOptions::default())?;
        let at = mm.mmap(&world.file, Some(PAGE), 0, Prot::Read, true)?;
        mm.touch(at, PAGE, PAGE, false)?;
        mm.close()
    }),
    ("another cache", |_| PageCache::new(1 << 30, Io::Inline)?.close()),
    ("truncation and growth", |world| {
        world.file.truncate(3 * PAGE + 7)?;
        world.file.truncate(SIZE)
    }),
    ("revalidate", |world| world.file.revalidate().map(drop)),
    ("drop_caches", |world| world.cache.drop_caches().map(drop)),
    ("the end of an address space", |world| {
        let mm = Mm::new(&world.cache, MmOptions::default())?;
        let at = mm.mmap(&world.file, Some(1 << 30), 0, Prot::Read, true)?;
        let touched = mm.touch(at, 300 * PAGE, PAGE, false);
        mm.close()?;
        touched.map(drop)
    }),
    ("a window that fails, and is requested again", |world| {
        let store = Arc::new(FailsOnce(AtomicBool::new(false)));
        let file = world.cache.open_store_with(store, SIZE, StoreOptions::default().ra_pages(512))?;
        file.advise(Advice::WillNeed, 0, Some(512 * PAGE))?;
        world.cache.settle();
        // The requests after the one that failed succeeded, so all that it left is requested at once.
        (0..40).try_for_each(|page| {
            let mut found = [0];
            file.pread(&mut found, page * PAGE)?;
            assert_eq!(found, [byte(page * PAGE)], "page {page}");
            Ok(())
        })
    }),
    ("a window with an unreadable page", |world| {
        let store = Arc::new(Hole(AtomicU64::new(0)));
        let options = StoreOptions::default().ra_pages(32);
        let file = world.cache.open_store_with(Arc::clone(&store) as Arc<dyn Store>, SIZE, options)?;
        let before = world.cache.stats().readahead_pages;
        file.advise(Advice::WillNeed, 0, Some(32 * PAGE))?;
        world.cache.settle();
        let window = world.cache.stats().readahead_pages - before;
        let resident = file.residency(0, Some(32))?.into_iter().map(u64::from).sum::<u64>();
        let found = (window, store.0.load(Relaxed), resident);
        // One request; or without memory for it, page by page up to the one that fails. Or there was none for the window, or for
        // more than its first page.
        assert!([(32, 1, 0), (32, 6, 5), (0, 0, 0), (1, 1, 1)].contains(&found), "{found:?}");
        Ok(())
    }),
    ("more local files than the table of them had room for", |world| {
        let files: [_; LOCAL] =
            std::array::from_fn(|number| world.cache.open(numbered(&world.local, number)));
        files.into_iter().try_for_each(|file| file?.close())
    }),
];

/// So many that a table of them is no small allocation.
const LOCAL: usize = SMALL / 24;

fn numbered(path: &std::path::Path, number: usize) -> std::path::PathBuf {
    path.with_extension(number.to_string())
}

/// The steps that need no memory: above all those that make room.
const FRUGAL: &[&str] = &[
    "rights of a part",
    "advice for a part",
    "reclaim",
    "a local file, opened twice",
    "revalidate",
    "drop_caches",
];

/// Refuses the `nth` allocation of one step, after the steps before it succeeded; returns how many were refused, and whether it
/// reported that.
fn run(io: Io, local: &std::path::Path, number: usize, nth: u64, for_ever: bool) -> (u64, bool) {
    let world = World::new(io, local);
    for (name, step) in &STEPS[..number] {
        step(&world).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    world.cache.settle();
    let (name, step) = &STEPS[number];
    let (answer, refused) = FAILING.during(nth, for_ever, || {
        let answer = step(&world);
        world.cache.settle();
        answer
    });
    let at = format!("{name}, allocation {nth}, {io:?}, for ever: {for_ever}");
    match &answer {
        Ok(()) => {}
        Err(error @ Error::OutOfMemory { what, bytes }) => {
            assert!(*bytes > 0 && !what.is_empty(), "{at}: {error}");
            assert!(refused > 0, "{at}: nothing was refused, but {error}");
        }
        Err(error) => panic!("{at}: {error:?}"),
    }
    world.cache.check().unwrap_or_else(|error| panic!("{at}: {error}"));
    world.mm.check().unwrap_or_else(|error| panic!("{at}: {error}"));
    step(&world).unwrap_or_else(|error| panic!("{at}, again: {error}"));
    world.cache.check().unwrap_or_else(|error| panic!("{at}, again: {error}"));
    world.mm.close().unwrap();
    world.crowded.0.close().unwrap();
    world.file.close().unwrap();
    world.cache.check().unwrap();
    assert_eq!(world.cache.stats().frames_in_use, 0, "{at}");
    world.cache.close().unwrap();
    assert_eq!(world.cache.stats().xarray_nodes, 0, "{at}");
    (refused, answer.is_err())
}

/// In one test, so that there are no other threads than the cache's.
#[test]
fn every_allocation_may_fail() {
    let local = std::env::temp_dir().join(format!("specmm-no-memory-{}", std::process::id()));
    let paths = || (0..LOCAL).map(|number| numbered(&local, number)).chain([local.clone()]);
    paths().for_each(|path| std::fs::write(path, vec![7; 3 * PAGE_SIZE]).unwrap());
    // What a process allocates once.
    World::new(Io::Threads, &local);
    let deep = std::env::var_os("SPECMM_DEEP").is_some();
    let mut seed =
        u64::from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos());
    println!("seed {seed}");
    let mut draw = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let (mut runs, mut told) = (0, 0);
    for (io, for_evers) in [(Io::Inline, &[false, true][..]), (Io::Threads, &[true])] {
        for &for_ever in for_evers {
            for (number, (name, _)) in STEPS.iter().enumerate() {
                let began = (runs, told);
                // A worker hired by an earlier step may only be starting now, and allocates for that: not each time.
                if FRUGAL.contains(name) && (0..5).any(|_| run(io, &local, number, 1, for_ever).0 == 0) {
                    continue;
                }
                let mut nth = 1;
                loop {
                    let (refused, failed) = run(io, &local, number, nth, for_ever);
                    if refused == 0 {
                        break;
                    }
                    runs += 1;
                    told += u64::from(failed);
                    nth += if nth < 12 || deep { 1 } else { 1 + draw() % (nth / 3) };
                }
                let (tried, told) = (runs - began.0, told - began.1);
                println!("{name}, {io:?}, for ever: {for_ever}: {tried} refused, {told} told");
                assert!(tried > 0 && !FRUGAL.contains(name), "{name}: {tried} allocations");
            }
        }
    }
    paths().for_each(|path| std::fs::remove_file(path).unwrap());
    assert!(runs > 100 && told > 100, "{runs} allocations were refused, {told} calls failed");
}
