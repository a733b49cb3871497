//! Real threads that wait for a store that may stall, and give up.

use crate::cache::wait::Wait;
use crate::store::{Look, ReadBy, Store};
use crate::sync::{Condvar, Mutex, Numbers, Tally};
use crate::{Error, File, Io, PAGE_SIZE, PageCache, StoreOptions};
use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PAGE: u64 = PAGE_SIZE as u64;
const PAGES: u64 = 64;
/// Only a hang takes this long.
const LONG: Duration = Duration::from_secs(20);

/// A store whose reads block, all or every `one_in`-th, until they are released.
pub(in crate::cache) struct Gate {
    timeout: Option<Duration>,
    one_in: u64,
    reads: Numbers,
    standing: Tally,
    open: Mutex<bool>,
    opened: Condvar,
    look: Mutex<Look>,
}

impl Gate {
    pub(in crate::cache) fn new(timeout: Option<Duration>, one_in: u64) -> Arc<Self> {
        let (reads, standing) = (Numbers::new(), Tally::new());
        let (open, opened, look) = (Mutex::new(false), Condvar::new(), Mutex::new(Look::default()));
        Arc::new(Self { timeout, one_in, reads, standing, open, opened, look })
    }

    pub(in crate::cache) fn open(&self) {
        *self.open.lock() = true;
        self.opened.notify_all();
    }

    pub(in crate::cache) fn until_standing(&self, reads: u64) {
        soon(|| self.standing.tallied() >= reads);
    }
}

impl Store for Gate {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.reads.next() % self.one_in == 0 {
            self.standing.add(1);
            let mut open = self.open.lock();
            while !*open {
                open = self.opened.wait(open);
            }
        }
        for (at, byte) in (offset..).zip(&mut *buf) {
            *byte = (at / PAGE) as u8;
        }
        Ok(buf.len())
    }

    fn read_by(&self) -> ReadBy {
        ReadBy::Workers { timeout: self.timeout }
    }

    fn truncate(&self, _size: u64) -> io::Result<()> {
        Ok(())
    }

    fn look(&self) -> io::Result<Look> {
        Ok(*self.look.lock())
    }
}

thread_local! {
    static GIVES_UP: Cell<bool> = const { Cell::new(false) };
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// Lets this thread give up its waits from now on, or not; returns how often it was asked since the last call.
pub(in crate::cache) fn give_up(now: bool) -> u64 {
    super::give_up_waiting_when(|| {
        ASKED.set(ASKED.get() + 1);
        GIVES_UP.get()
    });
    GIVES_UP.set(now);
    ASKED.replace(0)
}

pub(in crate::cache) fn soon(holds: impl Fn() -> bool) {
    let limit = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < limit, "it never came");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(in crate::cache) fn cached(gate: &Arc<Gate>, ra_pages: u32) -> (PageCache, File) {
    let cache = PageCache::new(1 << 20, Io::Threads).unwrap();
    let file = cache
        .open_store_with(
            Arc::clone(gate) as Arc<dyn Store>,
            PAGES * PAGE,
            StoreOptions::default().name("gate").ra_pages(ra_pages),
        )
        .unwrap();
    (cache, file)
}

#[test]
fn a_reader_leaves_when_its_time_is_over_and_the_late_answer_serves_the_next() {
    let gate = Gate::new(Some(Duration::from_millis(30)), 1);
    for ra_pages in [0, 8] {
        let (cache, file) = cached(&gate, ra_pages);
        *gate.open.lock() = false;
        for index in [5, 5, 6] {
            let started = Instant::now();
            let left = file.pread(&mut [0], index * PAGE + 9);
            assert!(
                matches!(&left, Err(Error::TimedOut { file, offset, timeout })
                    if file == "gate" && *offset == index * PAGE && Some(*timeout) == gate.timeout),
                "{left:?}"
            );
            assert!(started.elapsed() >= Duration::from_millis(30));
        }
        cache.settle();
        cache.check().unwrap();
        assert!(cache.stats().reads_abandoned > 0);
        gate.open();
        soon(|| cache.stats().reads_abandoned == 0);
        let (mut byte, reads) = ([0], cache.stats().reads);
        file.pread(&mut byte, 5 * PAGE).unwrap();
        assert_eq!((byte, cache.stats().reads), ([5], reads));
        cache.close().unwrap();
    }
}

#[test]
fn what_can_be_had_at_once_is_had_though_the_time_is_over() {
    let (_cache, file) = cached(&Gate::new(Some(Duration::ZERO), 1), 0);
    let open = file.open_file().unwrap();
    let wait = Wait::new(&open.mapping, None);
    assert_eq!(wait.until(3, || Some(7)).unwrap(), 7);
    assert!(
        matches!(wait.until(3, || None::<()>), Err(Error::TimedOut { offset, .. }) if offset == 3 * PAGE)
    );
}

#[test]
fn closing_a_file_or_its_cache_ends_the_waits() {
    for close_cache in [false, true] {
        let gate = Gate::new(None, 1);
        let (cache, file) = cached(&gate, 8);
        std::thread::scope(|scope| {
            let file = &file;
            let read = |index| scope.spawn(move || file.pread(&mut [0], index * PAGE).map(drop));
            let mut readers = vec![read(20), read(40), scope.spawn(|| file.pin(0, 1).map(drop))];
            gate.until_standing(3);
            // The truncation waits for those reads, and later readers wait for it.
            readers.push(scope.spawn(|| file.truncate(0)));
            soon(|| file.open_file().unwrap().mapping.truncaters.load(crate::sync::Ordering::Relaxed) > 0);
            readers.push(read(60));
            let started = Instant::now();
            if close_cache { cache.close() } else { file.close() }.unwrap();
            for reader in readers {
                let left = reader.join().unwrap();
                assert!(matches!(left, Err(Error::Closed(_))), "{left:?}");
            }
            assert!(started.elapsed() < Duration::from_secs(2));
        });
        if close_cache {
            assert!(cache.stats().reads_abandoned > 0, "close abandons what does not come");
        } else {
            gate.open();
            cache.check().unwrap();
        }
        gate.open();
        soon(|| cache.stats().reads_abandoned == 0);
    }
}

#[test]
fn a_close_that_is_refused_ends_no_wait() {
    let gate = Gate::new(None, 1);
    let (cache, file) = cached(&gate, 0);
    gate.open();
    let pin = file.pin(0, 1).unwrap();
    *gate.open.lock() = false;
    assert!(matches!(file.close(), Err(Error::Pinned(_))));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| file.pread(&mut [0], 9 * PAGE));
        gate.until_standing(2);
        std::thread::sleep(Duration::from_millis(20));
        gate.open();
        assert_eq!(reader.join().unwrap().unwrap(), 1);
    });
    drop(pin);
    file.close().unwrap();
    cache.check().unwrap();
}

#[test]
fn a_truncation_that_leaves_has_changed_nothing() {
    let gate = Gate::new(Some(Duration::from_millis(30)), 1);
    let (cache, file) = cached(&gate, 0);
    assert!(matches!(file.pread(&mut [0], 9 * PAGE), Err(Error::TimedOut { .. })));
    assert!(matches!(file.truncate(9 * PAGE + 1), Err(Error::TimedOut { offset, .. }) if offset == 9 * PAGE));
    assert_eq!(file.size().unwrap(), PAGES * PAGE);
    // The pages that it removes are not being read.
    file.truncate(10 * PAGE).unwrap();
    gate.open();
    soon(|| cache.stats().reads_abandoned == 0);
    file.truncate(9 * PAGE + 1).unwrap();
    let mut bytes = [0; 2];
    assert_eq!(file.pread(&mut bytes, 9 * PAGE).unwrap(), 1);
    assert_eq!(bytes, [9, 0]);
    cache.check().unwrap();
}

/// It may find that others have changed the file, and then takes out every page.
#[test]
fn a_truncation_of_a_store_that_tells_its_state_waits_for_every_read() {
    for index in [0, 9, 20] {
        let gate = Gate::new(Some(Duration::from_millis(30)), 1);
        *gate.look.lock() = Look { size: Some(PAGES * PAGE), version: Some(5), changed: Some(7) };
        let (cache, file) = cached(&gate, 0);
        assert!(matches!(file.pread(&mut [0], index * PAGE), Err(Error::TimedOut { .. })));
        assert!(matches!(file.truncate(10 * PAGE), Err(Error::TimedOut { offset: 0, .. })));
        assert_eq!(file.size().unwrap(), PAGES * PAGE);
        gate.open();
        soon(|| cache.stats().reads_abandoned == 0);
        file.truncate(10 * PAGE).unwrap();
        cache.check().unwrap();
    }
}

#[test]
fn readers_do_not_keep_a_truncation_out() {
    let gate = Gate::new(None, u64::MAX);
    let (cache, file) = cached(&gate, 8);
    let (done, reads) = (Tally::new(), Tally::new());
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (file, cache, done, reads) = (&file, &cache, &done, &reads);
            scope.spawn(move || {
                for index in (0..PAGES).cycle().skip(number * 8).step_by(5) {
                    if done.tallied() > 0 {
                        break;
                    }
                    cache.drop_caches().unwrap();
                    file.pread(&mut [0], index * PAGE).unwrap();
                    reads.add(1);
                }
            });
        }
        for _ in 0..20 {
            file.truncate(0).unwrap();
            file.truncate(PAGES * PAGE).unwrap();
            let before = reads.tallied();
            soon(|| reads.tallied() > before);
        }
        done.add(1);
    });
    cache.check().unwrap();
}

#[test]
fn windows_of_a_store_that_stalls_keep_two_workers() {
    let gate = Gate::new(None, 1);
    let (cache, file) = cached(&gate, 4);
    for index in (0..PAGES).step_by(4) {
        file.advise(crate::Advice::WillNeed, index * PAGE, Some(4 * PAGE)).unwrap();
    }
    gate.until_standing(2);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(gate.standing.tallied(), 2);
    // A window at the end of the queue goes first once a thread waits for one of its pages.
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| file.pread(&mut [0], (PAGES - 1) * PAGE));
        gate.until_standing(3);
        gate.open();
        reader.join().unwrap().unwrap();
    });
    cache.check().unwrap();
}

/// Random, from a seed that is printed: threads read and truncate a store of which every third read blocks for a while, with
/// time-outs of all lengths, while another thread releases the reads now and then.
#[test]
fn many_threads_leave_and_come_back() {
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.subsec_nanos());
    println!("seed {seed}");
    let gate = Gate::new(Some(Duration::from_millis(3)), 3);
    let (cache, file) = cached(&gate, 8);
    let left = Tally::new();
    let end = Instant::now() + Duration::from_millis(700);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (file, left, cache) = (&file, &left, &cache);
            scope.spawn(move || {
                let mut state = u64::from(seed) << 8 | number;
                let mut draw = |below: u64| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state % below
                };
                while Instant::now() < end {
                    let (index, mut byte) = (draw(PAGES), [0xff]);
                    let done = match draw(20) {
                        0 => file.truncate(PAGES * PAGE),
                        1 => file.truncate((index + 1) * PAGE),
                        2 => cache.drop_caches().map(drop),
                        3 => file.pin(index * PAGE, 1).map(|pin| byte[0] = pin[0]),
                        // What is not returned may be zeroed.
                        _ => file.pread(&mut byte, index * PAGE).map(|n| {
                            if n == 0 {
                                byte[0] = 0xff;
                            }
                        }),
                    };
                    match done {
                        Ok(()) => assert!([0xff, index as u8].contains(&byte[0]), "{byte:?} of page {index}"),
                        Err(Error::TimedOut { .. }) => left.add(1),
                        Err(Error::Bus { cause: None, .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        scope.spawn(|| {
            while Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
                gate.open();
                std::thread::sleep(Duration::from_millis(2));
                *gate.open.lock() = false;
            }
        });
    });
    assert!(left.tallied() > 0, "nobody left");
    gate.open();
    soon(|| cache.stats().reads_abandoned == 0);
    cache.check().unwrap();
    file.truncate(PAGES * PAGE).unwrap();
    let mut bytes = vec![0; PAGES as usize * PAGE_SIZE];
    // On a busy machine a read may take longer than the store's 3 ms.
    while let Err(error) = file.pread(&mut bytes, 0) {
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    }
    assert!(bytes.chunks(PAGE_SIZE).zip(0..).all(|(page, index)| page.iter().all(|&byte| byte == index)));
    cache.close().unwrap();
}

#[test]
fn pages_are_dropped_when_no_read_of_one_is_under_way() {
    let gate = Gate::new(Some(Duration::from_millis(30)), 1);
    let (cache, file) = cached(&gate, 0);
    gate.open();
    file.pread(&mut [0; 2], PAGE - 1).unwrap();
    *gate.open.lock() = false;
    // A store that says nothing has nothing to follow, whatever is being read.
    assert!(matches!(file.pread(&mut [0], 2 * PAGE), Err(Error::TimedOut { .. })));
    assert_eq!(file.revalidate().unwrap(), PAGES * PAGE);
    assert!(matches!(file.revalidate_dropping(), Err(Error::TimedOut { offset: 0, .. })));
    assert_eq!(file.residency(0, Some(3)).unwrap(), [1, 1, 0]);
    gate.open();
    soon(|| cache.stats().reads_abandoned == 0);
    assert_eq!(file.revalidate_dropping().unwrap(), PAGES * PAGE);
    assert_eq!((cache.stats().invalidated, cache.stats().frames_in_use), (3, 0));
    // Also the very first page.
    *gate.open.lock() = false;
    assert!(matches!(file.pread(&mut [0], 0), Err(Error::TimedOut { .. })));
    assert!(matches!(file.revalidate_dropping(), Err(Error::TimedOut { offset: 0, .. })));
    gate.open();
    soon(|| cache.stats().reads_abandoned == 0);
    cache.check().unwrap();
}

#[test]
fn a_version_is_trusted_when_no_read_of_it_is_under_way() {
    let gate = Gate::new(Some(Duration::from_millis(50)), 1);
    *gate.look.lock() = Look { size: Some(PAGES * PAGE), version: Some(5), changed: Some(7) };
    let (cache, file) = cached(&gate, 0);
    let written = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    // A clock may be a little ahead.
    gate.look.lock().version = Some(u64::try_from(written).unwrap() + 15_000_000);
    file.revalidate().unwrap();
    assert!(matches!(file.pread(&mut [0], 0), Err(Error::TimedOut { offset: 0, .. })));
    // Long after that it is old.
    assert!(matches!(file.one_version(), Err(Error::TimedOut { offset: 0, .. })));
    gate.open();
    soon(|| cache.stats().reads_abandoned == 0);
    file.one_version().unwrap();
    cache.check().unwrap();
}

#[test]
fn a_reader_that_waits_keeps_no_truncation_out_of_other_pages() {
    let gate = Gate::new(Some(LONG), 1);
    let (cache, file) = cached(&gate, 0);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| file.pread(&mut [0], 9 * PAGE));
        gate.until_standing(1);
        let started = Instant::now();
        file.truncate(10 * PAGE).unwrap();
        assert!(started.elapsed() < LONG);
        assert_eq!(gate.standing.tallied(), 1);
        gate.open();
        assert_eq!(reader.join().unwrap().unwrap(), 1);
    });
    cache.check().unwrap();
}

#[test]
fn a_read_that_everybody_left_is_abandoned() {
    let gate = Gate::new(None, 1);
    let (cache, file) = cached(&gate, 0);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| file.pread(&mut [0], 5 * PAGE));
        gate.until_standing(1);
        soon(|| cache.stats().misses == 1);
        let before = cache.stats().reads_abandoned;
        file.close().unwrap();
        soon(|| reader.is_finished());
        assert_eq!((before, cache.stats().reads_abandoned), (0, 1));
        gate.open();
        assert!(matches!(reader.join().unwrap(), Err(Error::Closed(_))));
    });
    soon(|| cache.stats().reads_abandoned == 0);
    cache.check().unwrap();
}
