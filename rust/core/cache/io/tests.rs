//! The queue with its threads, over stores that note what becomes of each request.

use super::super::address_space::{AddressSpace, Created};
use super::super::arrival::bring;
use super::super::patience::tests::{Gate, cached, give_up, soon};
use super::super::requests::{Source, WORKERS};
use super::*;
use crate::store::ReadBy;
use crate::sync::Tally;

const FILE: u64 = 7;
const LOCAL: ReadBy = ReadBy::Caller;
const STALLS: ReadBy = ReadBy::Workers { timeout: None };

/// Time enough for a thread to go on that should have waited.
const A_WHILE: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Read(u32),
    Cancelled(u32),
}

/// What a read or a reclaim waits for.
#[derive(Default)]
struct Door {
    is_shut: Mutex<bool>,
    opened: Condvar,
    /// How many have come to it.
    came: Tally,
}

impl Door {
    fn shut(&self) {
        *self.is_shut.lock() = true;
    }

    fn open(&self) {
        *self.is_shut.lock() = false;
        self.opened.notify_all();
    }

    fn pass(&self) {
        self.came.add(1);
        let mut is_shut = self.is_shut.lock();
        while *is_shut {
            is_shut = self.opened.wait(is_shut);
        }
    }
}

/// A file. Each request is of one page, and told of by its number.
struct Disk {
    by: ReadBy,
    queue: Arc<Queue>,
    door: Door,
    told: Mutex<Vec<Told>>,
}

impl Disk {
    fn of(queue: &IoQueue, by: ReadBy) -> Arc<Self> {
        let (queue, door, told) = (Arc::clone(&queue.queue), Door::default(), Mutex::default());
        Arc::new(Self { by, queue, door, told })
    }

    /// As [`Disk::of`], but its reads wait.
    fn that_waits(queue: &IoQueue, by: ReadBy) -> Arc<Self> {
        let disk = Self::of(queue, by);
        disk.door.shut();
        disk
    }

    fn request(self: &Arc<Self>, page: u32, is_awaited: bool) -> Request {
        let source = Arc::<Self>::clone(self);
        let answer = is_awaited.then(Arc::default);
        Request { source, first: u64::from(page), pfns: vec![page], answer }
    }

    /// What became of requests since the last call.
    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock())
    }
}

impl Source for Disk {
    fn id(&self) -> u64 {
        FILE
    }

    fn read_by(&self) -> ReadBy {
        self.by
    }

    fn fill(&self, _first: u64, pfns: Vec<u32>, _answer: Option<Arc<Answer>>) {
        self.door.pass();
        self.told.lock().extend(pfns.into_iter().map(Told::Read));
    }

    fn cancel(&self, pfns: Vec<u32>) {
        // It wakes others, and may end the file.
        assert!(self.queue.requests.try_lock().is_some(), "the queue's mutex is held");
        self.told.lock().extend(pfns.into_iter().map(Told::Cancelled));
    }
}

/// A cache that reclaims.
#[derive(Default)]
struct Room(Door, Tally);

impl MakesRoom for Room {
    fn balance(&self) {
        self.0.pass();
        self.1.add(1);
    }
}

fn queue(mode: Io) -> IoQueue {
    IoQueue::new(mode).unwrap()
}

fn yours(submitted: Submitted) -> Errand {
    match submitted {
        Submitted::Yours(errand) => errand,
        Submitted::Queued => panic!("there are workers"),
        Submitted::Refused => panic!("it was refused"),
    }
}

fn queued(submitted: &Submitted) {
    assert!(matches!(submitted, Submitted::Queued));
}

fn workers(queue: &IoQueue) -> usize {
    queue.queue.requests.lock().workers.len()
}

#[test]
fn inline_the_caller_reads_and_what_may_stall_is_known_to_be_under_way() {
    let queue = queue(Io::Inline);
    for (by, is_known) in [(LOCAL, false), (STALLS, true)] {
        let disk = Disk::of(&queue, by);
        for is_awaited in [false, true] {
            let errand = yours(queue.submit(disk.request(3, is_awaited)));
            assert_eq!((queue.reads(FILE, 3), queue.reads(FILE, 4)), (is_known, false));
            assert_eq!(disk.told(), []);
            errand.run();
            assert_eq!((disk.told(), queue.reads(FILE, 0)), (vec![Told::Read(3)], false));
        }
    }
    let room = Arc::new(Room::default());
    queue.submit_reclaim(&room);
    assert!(workers(&queue) == 0 && !queue.queue.requests.lock().reclaiming && queue.settle());
    queue.close();
    yours(queue.submit(Disk::of(&queue, LOCAL).request(3, false))).run();
    assert!(matches!(queue.submit(Disk::of(&queue, STALLS).request(3, false)), Submitted::Refused));
}

#[test]
fn each_request_that_is_waited_for_has_a_worker() {
    for (is_awaited, hired) in [(false, WORKERS), (true, WORKERS + 1)] {
        let queue = queue(Io::Threads);
        queued(&queue.submit(Disk::of(&queue, LOCAL).request(0, is_awaited)));
        assert_eq!(workers(&queue), hired);
        queue.stop();
    }
    // So has reclaim.
    let queue = queue(Io::Threads);
    queue.submit_reclaim(&Arc::new(Room::default()));
    assert_eq!(workers(&queue), WORKERS);
    queue.stop();
}

#[test]
fn once_the_end_has_begun_callers_read_what_cannot_stall_and_nobody_reads_the_rest() {
    let queue = queue(Io::Threads);
    let (local, stalls) = (Disk::of(&queue, LOCAL), Disk::of(&queue, STALLS));
    let room = Arc::new(Room::default());
    queued(&queue.submit(local.request(0, false)));
    assert!(queue.settle());
    assert_eq!(local.told(), [Told::Read(0)]);
    for end in [|queue: &IoQueue| queue.queue.requests.lock().stopping = true, IoQueue::stop] {
        end(&queue);
        for is_awaited in [false, true] {
            let errand = yours(queue.submit(local.request(1, is_awaited)));
            assert!(queue.reads(FILE, 0));
            errand.run();
            assert_eq!((local.told(), queue.reads(FILE, 0)), (vec![Told::Read(1)], false));
            assert!(matches!(queue.submit(stalls.request(2, is_awaited)), Submitted::Refused));
            assert_eq!(stalls.told(), [Told::Cancelled(2)]);
        }
        queue.submit_reclaim(&room);
        assert!(!queue.queue.requests.lock().reclaiming && queue.queue.requests.lock().reclaim.is_none());
    }
    assert_eq!(room.1.tallied(), 0);
}

#[test]
fn settling_waits_for_reads_and_for_reclaim() {
    let queue = queue(Io::Threads);
    let disk = Disk::that_waits(&queue, LOCAL);
    let room = Arc::new(Room::default());
    room.0.shut();
    queued(&queue.submit(disk.request(0, false)));
    // The second finds the first under way.
    queue.submit_reclaim(&room);
    queue.submit_reclaim(&room);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(A_WHILE);
            disk.door.open();
            std::thread::sleep(A_WHILE);
            room.0.open();
        });
        assert!(queue.settle());
        assert_eq!((disk.told(), room.1.tallied()), (vec![Told::Read(0)], 1));
    });
    queue.submit_reclaim(&room);
    assert!(queue.settle());
    assert_eq!(room.1.tallied(), 2);
    queue.stop();
}

#[test]
fn a_read_or_a_reclaim_that_panics_ends_and_its_worker_goes_on() {
    struct Panics;
    impl Source for Panics {
        fn id(&self) -> u64 {
            FILE
        }
        fn read_by(&self) -> ReadBy {
            LOCAL
        }
        fn fill(&self, _first: u64, _pfns: Vec<u32>, _answer: Option<Arc<Answer>>) {
            std::panic::resume_unwind(Box::new("as planned"));
        }
        fn cancel(&self, _pfns: Vec<u32>) {}
    }
    impl MakesRoom for Panics {
        fn balance(&self) {
            std::panic::resume_unwind(Box::new("as planned"));
        }
    }
    let queue = queue(Io::Threads);
    for n in 0..8 {
        queued(&queue.submit(Request { source: Arc::new(Panics), first: n, pfns: vec![0], answer: None }));
        queue.submit_reclaim(&Arc::new(Panics));
        assert!(queue.settle());
    }
    let disk = Disk::of(&queue, LOCAL);
    queued(&queue.submit(disk.request(1, false)));
    assert!(queue.settle());
    assert_eq!((disk.told(), workers(&queue)), (vec![Told::Read(1)], WORKERS));
    queue.stop();
}

#[test]
fn settling_leaves_reads_that_are_overdue_and_cancels_what_is_queued_behind_them() {
    let queue = queue(Io::Threads);
    let disk = Disk::that_waits(&queue, ReadBy::Workers { timeout: Some(A_WHILE) });
    let last = WORKERS as u32;
    for page in 0..=last {
        queued(&queue.submit(disk.request(page, false)));
    }
    soon(|| disk.door.came.tallied() == u64::from(last));
    assert!(queue.settle());
    assert_eq!(disk.told(), [Told::Cancelled(last)]);
    let mut frames = queue.abandoned_frames();
    frames.sort_unstable();
    assert_eq!((queue.abandoned(), frames), (u64::from(last), (0..last).collect()));
    assert!(queue.reads(FILE, 0) && !queue.reads(FILE, u64::from(last)));
    disk.door.open();
    soon(|| queue.abandoned() == 0);
    assert!(!queue.reads(FILE, 0));
    queue.stop();
}

#[test]
fn a_wait_sleeps_between_its_looks_and_asks_twenty_times_a_second() {
    let queue = queue(Io::Inline);
    give_up(false);
    let began = Instant::now();
    let mut looks = 0;
    assert!(queue.wait_until(|_| {
        looks += 1;
        (began.elapsed() > 2 * LOOK_AGAIN, Vec::new())
    }));
    let asked = give_up(false);
    assert!((2..10).contains(&looks) && (1..10).contains(&asked), "{looks} looks, asked {asked} times");
    // What a look finds is cancelled before the next one, which comes at once.
    let disk = Disk::of(&queue, LOCAL);
    for (time, between) in [(Duration::ZERO, Duration::ZERO), (2 * LOOK_AGAIN, LOOK_AGAIN / 5)] {
        let began = Instant::now();
        let mut looks = 0;
        assert!(queue.wait_until(|_| {
            looks += 1;
            std::thread::sleep(between);
            let is_over = if time.is_zero() { looks == 100 } else { began.elapsed() > time };
            (is_over, vec![disk.request(looks, false)])
        }));
        let (asked, passed) = (give_up(false), began.elapsed());
        assert_eq!(disk.told(), (1..=looks).map(Told::Cancelled).collect::<Vec<_>>());
        assert!(u128::from(asked) <= passed.as_millis() / LOOK_AGAIN.as_millis(), "{asked} in {passed:?}");
        if time.is_zero() {
            assert!(passed < 50 * LOOK_AGAIN, "{looks} looks in {passed:?}");
        } else {
            assert!(asked > 0);
        }
    }
}

#[test]
fn a_wait_that_is_given_up_ends_unless_it_was_over() {
    let queue = queue(Io::Threads);
    let disk = Disk::that_waits(&queue, STALLS);
    queued(&queue.submit(disk.request(0, true)));
    give_up(true);
    assert!(queue.wait_until(|_| {
        std::thread::sleep(LOOK_AGAIN);
        (true, Vec::new())
    }));
    assert!(!queue.settle());
    give_up(true);
    // It ends all the same, after being asked once.
    queue.close();
    assert_eq!(give_up(false), 1);
    assert_eq!((queue.abandoned(), workers(&queue)), (1, 0));
    disk.door.open();
    soon(|| queue.abandoned() == 0);
}

#[test]
fn closing_gives_stores_that_stall_a_moment() {
    // One that is overdue does not get it.
    for (timeout, moment) in [(None, CLOSING), (Some(A_WHILE), A_WHILE)] {
        let queue = queue(Io::Threads);
        let disk = Disk::that_waits(&queue, ReadBy::Workers { timeout });
        let began = Instant::now();
        queued(&queue.submit(disk.request(0, true)));
        soon(|| disk.door.came.tallied() == 1);
        queue.close();
        assert!(began.elapsed() >= moment);
        assert_eq!((queue.abandoned(), workers(&queue)), (1, 0));
        disk.door.open();
        soon(|| queue.abandoned() == 0);
        assert_eq!(disk.told(), [Told::Read(0)]);
    }
}

#[test]
fn stopping_waits_for_workers_that_read_and_for_those_that_end() {
    let queue = queue(Io::Threads);
    let disk = Disk::that_waits(&queue, LOCAL);
    let users = Arc::strong_count(&queue.queue);
    queued(&queue.submit(disk.request(0, false)));
    soon(|| disk.door.came.tallied() == 1);
    let held = Arc::clone(&queue.queue);
    let ends = std::thread::spawn(move || {
        std::thread::sleep(2 * A_WHILE);
        drop(held);
    });
    queue.queue.requests.lock().retired.push((0, ends));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(A_WHILE);
            disk.door.open();
        });
        queue.stop();
        assert_eq!((disk.told(), workers(&queue)), (vec![Told::Read(0)], 0));
        assert_eq!(Arc::strong_count(&queue.queue), users, "a thread has the queue");
    });
}

#[test]
fn what_is_queued_at_the_end_is_read() {
    let queue = queue(Io::Threads);
    let disk = Disk::that_waits(&queue, LOCAL);
    for page in 0..8 {
        queued(&queue.submit(disk.request(page, false)));
    }
    soon(|| disk.door.came.tallied() == WORKERS as u64);
    std::thread::scope(|scope| {
        let stops = scope.spawn(|| queue.stop());
        soon(|| queue.queue.requests.lock().stopping);
        disk.door.open();
        stops.join().unwrap();
        assert_eq!((disk.told().len(), workers(&queue)), (8, 0));
    });
}

#[test]
fn a_worker_in_a_store_that_stalls_is_replaced_and_not_waited_for() {
    let queue = queue(Io::Threads);
    let stalls: [_; WORKERS] = std::array::from_fn(|_| Disk::that_waits(&queue, STALLS));
    let local = Disk::that_waits(&queue, LOCAL);
    let mut requests = queue.queue.requests.lock();
    for disk in &stalls {
        requests.queue(disk.request(0, false), false);
    }
    // Only as many are hired, and all of them will be inside the stores.
    assert!(queue.queue.put_to_work(requests, local.request(1, false), false).is_none());
    soon(|| local.door.came.tallied() == 1 && stalls.iter().all(|disk| disk.door.came.tallied() == 1));
    queue.abandon(FILE, 0, None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(A_WHILE);
            local.door.open();
        });
        queue.stop();
        assert_eq!(local.told(), [Told::Read(1)]);
    });
    // The disks, the queue, and each worker and its read.
    assert_eq!(Arc::strong_count(&queue.queue), WORKERS + 1 + 1 + 2 * WORKERS);
    for disk in &stalls {
        disk.door.open();
    }
    soon(|| queue.abandoned() == 0);
}

#[test]
fn the_last_user_of_a_cache_ends_its_workers() {
    let cache = crate::PageCache::new(1 << 20, Io::Threads).unwrap();
    let queue = Arc::clone(&cache.shared().io.queue);
    let disk = Disk::of(&cache.shared().io, LOCAL);
    queued(&cache.shared().io.submit(disk.request(0, false)));
    drop(cache);
    assert_eq!((disk.told(), Arc::strong_count(&queue)), (vec![Told::Read(0)], 2));
}

#[test]
fn a_worker_waits_for_work_as_long_as_its_cache_lives() {
    let queue = queue(Io::Threads);
    queued(&queue.submit(Disk::of(&queue, LOCAL).request(0, false)));
    assert!(queue.settle());
    // Some wake for nothing.
    queue.queue.work.notify_all();
    // In a child of a fork it would end by then.
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(workers(&queue), WORKERS);
    queue.stop();
}

#[test]
fn a_window_that_no_worker_will_reach_is_read_by_the_thread_that_waits_for_it() {
    let gate = Gate::new(Some(Duration::from_secs(1)), u64::MAX);
    let (cache, file) = cached(&gate, 0);
    let mapping = &file.open_file().unwrap().mapping;
    let pages = [5, 6].map(|index| match mapping.add_page(index) {
        Created::New(held) => held,
        _ => panic!("it is there"),
    });
    let [(pfns, found), (next, _)] = pages.map(|held| (held.lock.into_pfn(), held.handle));
    let source = Arc::<AddressSpace>::clone(mapping);
    let mut requests = cache.shared().io.queue.requests.lock();
    requests.queue(Request { source, first: 5, pfns: vec![pfns, next], answer: None }, false);
    // No worker is to be had.
    requests.stopping = true;
    drop(requests);
    assert!(bring(mapping, found.page(), 5, None).unwrap());
    assert!(!cache.shared().io.reads(mapping.id(), 0));
    assert_eq!(cache.stats().reads, 1);
}
