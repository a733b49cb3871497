//! Every operation at every moment of a thread's end: in destructors of thread-locals that were made before or after the thread's
//! first section, and in those of C code, which run in up to four rounds after all of Rust's.
#![cfg(all(feature = "internals", not(any(specmm_loom, specmm_shuttle))))]
#![allow(missing_docs, reason = "a test suite")]

use specmm::internals::rcu;
use specmm::store::{MemoryStore, Store};
use specmm::{
    Advice, File, Io, Madvise, Mm, MmOptions, OpenOptions, PAGE_SIZE, PageCache, Prot, StoreOptions,
};
use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::time::Duration;

const PAGES: usize = 64;
const SIZE: u64 = (PAGES * PAGE_SIZE) as u64;

/// Reads take a while, so that threads meet at page locks and wait in queues.
struct Slow(MemoryStore);

impl Store for Slow {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        std::thread::sleep(Duration::from_micros(200));
        self.0.read_at(buf, offset)
    }
    fn truncate(&self, size: u64) -> std::io::Result<()> {
        self.0.truncate(size)
    }
}

struct World {
    cache: PageCache,
    file: File,
    other: File,
    mm: Mm,
    address: u64,
    turn: AtomicU64,
}

impl World {
    fn new() -> Self {
        let cache = PageCache::new(32 * PAGE_SIZE as u64, Io::Threads).unwrap();
        let open = |name| {
            let bytes = (0..SIZE).map(|at| (at / PAGE_SIZE as u64) as u8).collect();
            cache
                .open_store_with(
                    Arc::new(Slow(MemoryStore::new(bytes))),
                    SIZE,
                    StoreOptions::default().name(name).ra_pages(8),
                )
                .unwrap()
        };
        let (file, other) = (open("file"), open("other"));
        let mm = Mm::new(&cache, MmOptions::default()).unwrap();
        let address = mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
        Self { cache, file, other, mm, address, turn: AtomicU64::new(0) }
    }

    /// A page that few others have just used.
    fn page(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed) * 7 / 3 % PAGES as u64
    }
}

type Operation = fn(&World);

const OPERATIONS: &[(&str, Operation)] = &[
    ("pread", |world| {
        let (page, mut byte) = (world.page(), [0]);
        world.file.pread(&mut byte, page * PAGE_SIZE as u64).unwrap();
        assert_eq!(u64::from(byte[0]), page);
    }),
    ("pread of all", |world| {
        let mut all = vec![0; SIZE as usize];
        world.file.pread(&mut all, 0).unwrap();
    }),
    ("gather", |world| {
        let offsets: Vec<_> = (0..20).map(|_| world.page() * PAGE_SIZE as u64).collect();
        world.file.gather(&offsets, 8, &mut [0; 160]).unwrap();
    }),
    ("pin", |world| drop(world.file.pin(world.page() * PAGE_SIZE as u64, 9).unwrap())),
    ("advise", |world| {
        world.file.advise(Advice::DontNeed, 0, None).unwrap();
        world.file.advise(Advice::WillNeed, world.page() * PAGE_SIZE as u64, None).unwrap();
    }),
    ("truncate", |world| {
        world.other.truncate(world.page() * PAGE_SIZE as u64 + 5).unwrap();
        world.other.truncate(SIZE).unwrap();
    }),
    ("revalidate", |world| _ = world.other.revalidate().unwrap()),
    ("residency", |world| drop(world.file.residency(0, None).unwrap())),
    ("filemap_fault", |world| {
        for speculative in [true, false] {
            world.file.filemap_fault(world.page(), speculative).unwrap();
        }
    }),
    ("touch", |world| _ = world.mm.touch(world.address, SIZE, PAGE_SIZE as u64, false).unwrap()),
    ("mmap", |world| {
        let at = world.mm.mmap(&world.other, Some(SIZE), 0, Prot::ReadWrite, false).unwrap();
        // Others make the file shorter.
        let _bus = world.mm.store(at, b"x");
        world.mm.mprotect(at, SIZE, Prot::Read).unwrap();
        world.mm.munmap(at, SIZE).unwrap();
    }),
    ("madvise", |world| world.mm.madvise(world.address, SIZE, Madvise::DontNeed).unwrap()),
    ("an address space", |world| {
        let mm = Mm::new(&world.cache, MmOptions::default()).unwrap();
        let at = mm.mmap(&world.file, None, 0, Prot::Read, true).unwrap();
        mm.load(at + world.page() * PAGE_SIZE as u64, &mut [0; 9]).unwrap();
        mm.close().unwrap();
    }),
    ("reclaim", |world| {
        world.cache.reclaim(3).unwrap();
        world.cache.drop_caches().unwrap();
    }),
    ("stats and settle", |world| {
        let _ = world.cache.stats();
        world.cache.settle();
    }),
    ("a cache", |world| {
        let cache = PageCache::new(8 * PAGE_SIZE as u64, Io::Threads).unwrap();
        let path = std::env::current_exe().unwrap();
        let file = cache.open_with(&path, OpenOptions::default().ra_pages(4)).unwrap();
        file.pread(&mut [0; 40_000], 0).unwrap();
        let adopted = cache.adopt(&world.file).unwrap();
        adopted.pread(&mut [0; 10], 0).unwrap();
        drop((file, adopted));
        cache.close().unwrap();
    }),
    ("grace periods", |_| {
        let done = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&done);
        rcu::call_rcu(move || _ = counter.fetch_add(1, Ordering::Relaxed));
        rcu::barrier();
        assert_eq!(done.load(Ordering::Relaxed), 1);
    }),
];

/// When the operation runs.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// In the destructor of a thread-local made before anything else.
    LocalBefore,
    /// In that of one made after the thread has used the library.
    LocalAfter,
    /// In a destructor of C code, in this round.
    Round(usize),
}

type Task = Box<dyn FnOnce()>;

struct AtTheEnd(Option<Task>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task();
        }
    }
}

thread_local! {
    static LOCAL: RefCell<AtTheEnd> = const { RefCell::new(AtTheEnd(None)) };
}

#[allow(unsafe_code, reason = "what C code does")]
fn in_round(round: usize, task: Task) {
    static KEY: OnceLock<libc::pthread_key_t> = OnceLock::new();
    type Value = (usize, Task);
    extern "C" fn come(value: *mut c_void) {
        // SAFETY: made by `set`, and the system hands it out once.
        let (round, task) = *unsafe { Box::from_raw(value.cast::<Value>()) };
        if round > 1 { set(round - 1, task) } else { task() }
    }
    fn set(round: usize, task: Task) {
        let value: *mut Value = Box::into_raw(Box::new((round, task)));
        // SAFETY: the key has not been deleted.
        assert_eq!(unsafe { libc::pthread_setspecific(*KEY.get().unwrap(), value.cast()) }, 0);
    }
    KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: the destructor takes what `set` gives.
        assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(come)) }, 0);
        key
    });
    set(round, task);
}

/// A thread that does `task` at its end, with or without having used the library before.
fn thread(world: &Arc<World>, used: bool, moment: Moment, task: Task) {
    let use_it = || {
        if used {
            world.file.pread(&mut [0; 9], world.page() * PAGE_SIZE as u64).unwrap();
        }
    };
    if let Moment::LocalAfter | Moment::Round(_) = moment {
        use_it();
    }
    match moment {
        Moment::Round(round) => in_round(round, task),
        _ => LOCAL.with_borrow_mut(|local| local.0 = Some(task)),
    }
    if let Moment::LocalBefore = moment {
        use_it();
    }
}

#[test]
fn every_operation_at_every_moment_of_a_thread_s_end() {
    const THREADS: usize = 4;
    let moments = [Moment::LocalBefore, Moment::LocalAfter]
        .into_iter()
        .chain((1..=4).map(Moment::Round))
        .flat_map(|moment| [(false, moment), (true, moment)]);
    let mut calls = 0;
    for (used, moment) in moments {
        let world = Arc::new(World::new());
        for (name, operation) in OPERATIONS {
            let done = Arc::new(AtomicU64::new(0));
            // At once, so that they wait for each other.
            let barrier = Arc::new(Barrier::new(THREADS));
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (world, done) = (Arc::clone(&world), Arc::clone(&done));
                    let barrier = Arc::clone(&barrier);
                    std::thread::spawn(move || {
                        let theirs = Arc::clone(&world);
                        let task = move || {
                            barrier.wait();
                            for _ in 0..2 {
                                operation(&theirs);
                            }
                            done.fetch_add(1, Ordering::Relaxed);
                        };
                        thread(&world, used, moment, Box::new(task));
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(done.load(Ordering::Relaxed), THREADS as u64, "{name} {used} {moment:?}");
            rcu::synchronize();
            calls += THREADS;
        }
        world.mm.close().unwrap();
        world.cache.check().unwrap();
        world.cache.close().unwrap();
    }
    assert_eq!(calls, 12 * OPERATIONS.len() * THREADS);
}
