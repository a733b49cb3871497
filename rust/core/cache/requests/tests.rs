//! What the queue hands out, takes back and gives up, without threads.

use super::*;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
/// Stores that may stall, with a time-out and without, and others.
const LIMITED: ReadBy = ReadBy::Workers { timeout: Some(MINUTE) };
const STALLS: ReadBy = ReadBy::Workers { timeout: None };
const LOCAL: ReadBy = ReadBy::Caller;

struct File(u64, ReadBy);

impl Source for File {
    fn id(&self) -> u64 {
        self.0
    }
    fn read_by(&self) -> ReadBy {
        self.1
    }
    fn fill(&self, _first: u64, _pfns: Vec<u32>, _answer: Option<Arc<Answer>>) {}
    fn cancel(&self, _pfns: Vec<u32>) {}
}

struct Room;

impl MakesRoom for Room {
    fn balance(&self) {}
}

fn request(file: u64, by: ReadBy, pages: Range<u64>) -> Request {
    let pfns = pages.clone().map(|page| page as u32).collect();
    Request { source: Arc::new(File(file, by)), first: pages.start, pfns, answer: None }
}

/// File and first page of each.
fn told<'r>(requests: impl IntoIterator<Item = &'r Request>) -> Vec<(u64, u64)> {
    requests.into_iter().map(|request| (request.source.id(), request.first)).collect()
}

/// The next read: file, first page, and whether it is readahead.
fn take(requests: &mut Requests) -> Option<(u64, u64, bool)> {
    match requests.take()? {
        Job::Read(request, ahead) => Some((request.source.id(), request.first, ahead)),
        Job::Reclaim(_) => panic!("reclaim was not asked for"),
    }
}

/// Takes and begins what workers may have, and returns the files.
fn take_all(requests: &mut Requests) -> Vec<u64> {
    let mut files = Vec::new();
    while let Some(job) = requests.take() {
        let Job::Read(request, ahead) = job else { panic!("reclaim was not asked for") };
        requests.begin(&request, ahead, Some(files.len() as u64));
        files.push(request.source.id());
    }
    files
}

#[test]
fn reclaim_goes_first_then_who_waits_then_windows_each_in_their_order() {
    let mut requests = Requests::new().unwrap();
    assert!(requests.is_empty() && requests.take().is_none());
    for (n, urgent) in [(1, false), (2, true), (3, false), (4, true)] {
        assert!(requests.reserve());
        requests.queue(request(n, LOCAL, n..n + 1), urgent);
        assert!(!requests.is_empty());
    }
    requests.reclaim = Some(Arc::new(Room));
    assert!(matches!(requests.take(), Some(Job::Reclaim(_))));
    let order: Vec<_> = std::iter::from_fn(|| take(&mut requests)).collect();
    assert_eq!(order, [(2, 2, false), (4, 4, false), (1, 1, true), (3, 3, true)]);
    assert!(requests.is_empty());
    requests.reclaim = Some(Arc::new(Room));
    assert!(!requests.is_empty());
    requests.reclaim = None;
    requests.queue(request(1, LOCAL, 0..1), true);
    assert!(!requests.is_empty());
}

#[test]
fn what_was_reserved_is_not_allocated_later() {
    let mut requests = Requests::new().unwrap();
    assert!(requests.underway.capacity() >= 2 * MAX_WORKERS, "room for all workers, and as many callers");
    for n in 0..40 {
        assert!(requests.reserve());
        let room = (requests.windows.capacity(), requests.urgent.capacity());
        assert!(room.1 > requests.windows.len(), "{n} windows, and one more, may all be hurried");
        requests.queue(request(n, LOCAL, 0..1), false);
        assert_eq!((requests.windows.capacity(), requests.urgent.capacity()), room, "{n} windows");
    }
    let room = requests.urgent.capacity();
    for n in 0..40 {
        let window = requests.unqueue_window(n, 0).expect("it was queued");
        requests.queue(window, true);
        assert_eq!(requests.urgent.capacity(), room, "{n} are hurried");
    }
}

#[test]
fn windows_under_way_are_bounded_for_each_store_that_may_stall_and_for_all_others_together() {
    let mut requests = Requests::new().unwrap();
    for n in 0..2 * WORKERS as u64 {
        for (file, by) in [(1, STALLS), (2, LIMITED), (3, LOCAL), (4, LOCAL)] {
            requests.queue(request(file, by, n..n + 1), false);
        }
    }
    let files = take_all(&mut requests);
    let of = |which: &[u64]| files.iter().filter(|file| which.contains(file)).count();
    assert_eq!((of(&[1]), of(&[2]), of(&[3, 4])), (WORKERS, WORKERS, WORKERS));
    // Each end makes room for one of its own.
    for (file, next) in [(1, vec![1]), (2, vec![2]), (3, vec![3, 4])] {
        let ended = requests.underway.iter().find(|read| read.file == file).unwrap().number;
        let before = requests.underway.len();
        requests.end(ended);
        assert_eq!(requests.underway.len(), before - 1);
        let came = take_all(&mut requests);
        assert!(came.len() == 1 && next.contains(&came[0]), "after the end of one of {file}: {came:?}");
    }
    // What a thread waits for is not readahead.
    requests.queue(request(1, STALLS, 90..91), true);
    assert_eq!(take(&mut requests), Some((1, 90, false)));
    // Nor does it take the place of any.
    let mut requests = Requests::new().unwrap();
    for worker in 0..WORKERS as u64 {
        requests.begin(&request(1, STALLS, 0..1), false, Some(worker));
        requests.begin(&request(3, LOCAL, 0..1), false, Some(worker));
    }
    requests.queue(request(1, STALLS, 1..2), false);
    requests.queue(request(4, LOCAL, 1..2), false);
    assert_eq!(take_all(&mut requests), [1, 4]);
}

#[test]
fn the_last_workers_never_enter_a_store_that_may_stall() {
    let mut requests = Requests::new().unwrap();
    let most = (MAX_WORKERS - WORKERS) as u64;
    let mut numbers = Vec::new();
    for worker in 0..most {
        // As many by the threads that read for themselves, which are no workers.
        requests.begin(&request(worker, STALLS, 0..1), false, None);
        assert_eq!(requests.wanted_workers(), WORKERS + worker as usize);
        numbers.push(requests.begin(&request(worker, STALLS, 0..1), false, Some(worker)));
    }
    // Nor do stores count that never stall.
    requests.begin(&request(80, LOCAL, 0..1), false, Some(most));
    requests.queue(request(90, STALLS, 0..1), true);
    requests.queue(request(91, STALLS, 0..1), false);
    assert_eq!(take(&mut requests), None);
    requests.queue(request(92, LOCAL, 0..1), false);
    assert_eq!(take(&mut requests), Some((92, 0, true)));
    assert_eq!(requests.wanted_workers(), MAX_WORKERS);
    requests.end(numbers[3]);
    assert_eq!(take(&mut requests), Some((90, 0, false)));
    assert_eq!(take(&mut requests), Some((91, 0, true)));
}

#[test]
fn each_request_that_a_thread_waits_for_wants_a_worker() {
    let mut requests = Requests::new().unwrap();
    for n in 0..2 * MAX_WORKERS {
        assert_eq!(requests.wanted_workers(), (WORKERS + n).min(MAX_WORKERS));
        requests.queue(request(1, LOCAL, 0..1), true);
        requests.queue(request(1, LOCAL, 0..1), false);
    }
}

#[test]
fn a_window_is_taken_back_by_a_page_of_it() {
    for (index, is_there) in [(9, false), (10, true), (12, true), (13, false)] {
        let mut requests = Requests::new().unwrap();
        requests.queue(request(1, LOCAL, 10..13), true);
        requests.queue(request(2, LOCAL, 10..13), false);
        requests.queue(request(1, LOCAL, 0..3), false);
        assert_eq!(requests.unqueue_window(1, index).map(|found| found.first), None);
        requests.queue(request(1, LOCAL, 10..13), false);
        let found = requests.unqueue_window(1, index);
        assert_eq!(told(&found), if is_there { vec![(1, 10)] } else { vec![] });
        assert_eq!(requests.windows.len(), 3 - usize::from(is_there));
        assert_eq!(requests.urgent.len(), 1);
    }
}

fn with_workers(requests: &mut Requests, workers: u64) {
    for number in 0..workers {
        requests.workers.push((number, thread::spawn(|| ())));
    }
}

#[test]
fn the_last_request_is_taken_back_when_no_worker_can_reach_it() {
    const MOST: u64 = MAX_WORKERS as u64;
    // Workers, those of them in a store that may stall, requests that threads wait for; whether it is taken back.
    let cases = [
        (0, 0, 0, None),
        (0, 0, 1, Some(false)),
        (1, 0, 1, None),
        (1, 0, 2, Some(false)),
        (1, 1, 1, Some(false)),
        (2, 1, 1, None),
        (MOST - 1, MOST - 1, 1, Some(false)),
        (MOST, MOST, 1, None),
    ];
    for (workers, stalling, urgent, taken) in cases {
        let mut requests = Requests::new().unwrap();
        with_workers(&mut requests, workers);
        for worker in 0..stalling {
            requests.begin(&request(7, STALLS, 0..1), false, Some(worker));
        }
        for n in 0..urgent {
            requests.queue(request(n, LOCAL, 0..1), true);
        }
        let back = requests.unqueue_if_stuck();
        assert_eq!(
            back.map(|(request, ahead)| (request.source.id(), ahead)),
            taken.map(|ahead| (urgent - 1, ahead)),
            "{workers} workers, {stalling} stalling, {urgent} urgent"
        );
    }
    // A window waits as long as there is a worker.
    for (workers, taken) in [(0, Some((2, true))), (1, None)] {
        let mut requests = Requests::new().unwrap();
        with_workers(&mut requests, workers);
        requests.queue(request(1, LOCAL, 0..1), false);
        requests.queue(request(2, LOCAL, 0..1), false);
        let back = requests.unqueue_if_stuck();
        assert_eq!(back.map(|(request, ahead)| (request.source.id(), ahead)), taken);
    }
}

#[test]
fn a_worker_that_ends_is_retired_alone() {
    let mut requests = Requests::new().unwrap();
    with_workers(&mut requests, 3);
    requests.retire(1);
    requests.retire(5);
    let numbers =
        |of: &[(u64, thread::JoinHandle<()>)]| of.iter().map(|(number, _)| *number).collect::<Vec<_>>();
    assert_eq!((numbers(&requests.workers), numbers(&requests.retired)), (vec![0, 2], vec![1]));
}

#[test]
fn what_is_worth_waiting_for() {
    type Make = fn(&mut Requests);
    let a_read: Make = |requests| _ = requests.begin(&request(1, LIMITED, 0..1), false, None);
    let cases: [(&str, Make, bool); 8] = [
        ("nothing", |_| (), false),
        ("reclaim", |requests| requests.reclaiming = true, true),
        ("a request", |requests| requests.queue(request(1, LOCAL, 0..1), true), true),
        ("a window", |requests| requests.queue(request(1, LOCAL, 0..1), false), true),
        ("a read", a_read, true),
        (
            "one that a thread has left",
            |requests| {
                requests.begin(&request(1, STALLS, 0..1), false, None);
                requests.abandon(1, 0, None);
            },
            true,
        ),
        (
            "one at the end of the cache",
            |requests| {
                requests.begin(&request(1, STALLS, 0..1), false, None);
                requests.stop();
            },
            true,
        ),
        (
            "one that was left, at the end of the cache",
            |requests| {
                requests.begin(&request(1, STALLS, 0..1), false, None);
                requests.stop();
                requests.abandon_all();
            },
            false,
        ),
    ];
    for (what, make, expected) in cases {
        let mut requests = Requests::new().unwrap();
        make(&mut requests);
        assert_eq!(requests.are_pending(Instant::now()), expected, "{what}");
    }
    let mut requests = Requests::new().unwrap();
    a_read(&mut requests);
    assert!(!requests.are_pending(Instant::now() + MINUTE), "one that is overdue");
}

#[test]
fn reads_reach_up_to_their_end() {
    type Make = fn(&mut Requests, &Request);
    let places: [Make; 3] = [
        |requests, one| requests.queue(request(one.source.id(), LOCAL, one.pages()), true),
        |requests, one| requests.queue(request(one.source.id(), LOCAL, one.pages()), false),
        |requests, one| _ = requests.begin(one, false, None),
    ];
    for place in places {
        let mut requests = Requests::new().unwrap();
        assert!(!requests.reach(1, 0));
        place(&mut requests, &request(1, LOCAL, 10..13));
        let reach = |file, first| requests.reach(file, first);
        assert!(reach(1, 0) && reach(1, 10) && reach(1, 12));
        assert!(!reach(1, 13) && !reach(2, 0));
    }
}

#[test]
fn who_stops_waiting_abandons_that_read_and_the_readahead_of_its_store() {
    let mut requests = Requests::new().unwrap();
    let answers: [Arc<Answer>; 2] = std::array::from_fn(|_| Arc::default());
    for (n, answer) in answers.iter().enumerate() {
        let answer = Some(Arc::clone(answer));
        requests.queue(Request { answer, ..request(1, STALLS, n as u64..n as u64 + 1) }, true);
    }
    requests.queue(request(1, STALLS, 20..30), false);
    requests.queue(request(2, STALLS, 20..30), false);
    // Nothing of it has begun: only its own request goes.
    assert_eq!(told(&requests.abandon(1, 1, Some(&answers[1]))), [(1, 1)]);
    assert_eq!(told(&requests.urgent), [(1, 0)]);
    assert!(
        requests.abandon(1, 25, None).is_empty() && requests.abandon(1, 25, Some(&Arc::default())).is_empty()
    );
    // Reads of that page of that file, whoever performs them.
    for (worker, file, pages) in [(0, 1, 4..8), (1, 1, 8..12), (2, 2, 4..8), (3, 1, 7..8)] {
        requests.begin(&request(file, STALLS, pages), false, Some(worker));
    }
    assert!(requests.abandon(1, 3, None).is_empty());
    assert_eq!((0..4).filter(|&worker| requests.is_stuck(worker)).count(), 0);
    assert_eq!(told(&requests.abandon(1, 7, None)), [(1, 20)]);
    assert_eq!((0..4).filter(|&worker| requests.is_stuck(worker)).collect::<Vec<_>>(), [0, 3]);
    assert_eq!((told(&requests.windows), told(&requests.urgent)), (vec![(2, 20)], vec![(1, 0)]));
    let kept: Vec<_> = requests.abandoned(Instant::now()).cloned().collect();
    assert_eq!(kept, [vec![4, 5, 6, 7], vec![7]]);
}

#[test]
fn what_is_overdue_is_abandoned_with_the_readahead_of_its_store() {
    let mut requests = Requests::new().unwrap();
    requests.begin(&request(1, LIMITED, 0..2), false, Some(0));
    requests.begin(&request(2, LIMITED, 0..2), false, Some(1));
    requests.begin(&request(3, STALLS, 0..2), false, Some(2));
    for file in [1, 2, 3] {
        requests.queue(request(file, LIMITED, 20..30), false);
    }
    let begun = requests.underway[0].started;
    requests.underway[1].started = begun + MINUTE;
    assert!(requests.abandon_overdue(begun + MINUTE / 2).is_empty());
    assert_eq!(requests.abandoned(begun + MINUTE / 2).count(), 0);
    // To the moment; and the audit knows it before anybody abandons it.
    assert_eq!(requests.abandoned(begun + MINUTE).cloned().collect::<Vec<_>>(), [vec![0, 1]]);
    assert!(!requests.is_stuck(0));
    assert_eq!(told(&requests.abandon_overdue(begun + MINUTE)), [(1, 20)]);
    assert_eq!((0..3).filter(|&worker| requests.is_stuck(worker)).collect::<Vec<_>>(), [0]);
    assert_eq!(told(&requests.windows), [(2, 20), (3, 20)]);
}

#[test]
fn at_the_end_nothing_is_begun_that_may_stall() {
    let mut requests = Requests::new().unwrap();
    requests.queue(request(1, LOCAL, 0..1), true);
    requests.queue(request(2, STALLS, 0..1), true);
    requests.queue(request(3, LOCAL, 0..1), false);
    requests.queue(request(4, LIMITED, 0..1), false);
    assert_eq!(told(&requests.stop()), [(1, 0), (2, 0), (4, 0)]);
    assert!(requests.stopping);
    assert_eq!(take(&mut requests), Some((3, 0, true)));
    assert!(requests.is_empty());
    // Of a store that never stalls nothing is abandoned: it comes back.
    requests.begin(&request(3, LOCAL, 0..1), true, Some(0));
    requests.begin(&request(4, LIMITED, 0..1), true, Some(1));
    requests.abandon_all();
    assert_eq!((requests.is_stuck(0), requests.is_stuck(1), requests.is_stuck(2)), (false, true, false));
}

#[test]
fn a_read_that_may_be_abandoned_keeps_its_frames() {
    for (by, kept) in [(LOCAL, 0), (STALLS, 3), (LIMITED, 3)] {
        assert_eq!(frames_of(&request(1, by, 5..8)).len(), kept);
    }
    let mut requests = Requests::new().unwrap();
    let first = requests.begin(&request(1, LOCAL, 0..1), false, None);
    let second = requests.begin(&request(1, LOCAL, 0..1), false, None);
    assert_ne!(first, second);
    requests.end(first);
    assert_eq!(requests.underway.iter().map(|read| read.number).collect::<Vec<_>>(), [second]);
}
