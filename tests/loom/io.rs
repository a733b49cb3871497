//! Models of the queue of reads: a request against a worker that goes to sleep, ends, is inside a store, or has taken it;
//! background reclaim; the wait for everything; the end of the queue. The workers are those that ship, started by the queue; the
//! file is only a source that counts.

use super::super::Shared;
use super::super::patience::LOOK_AGAIN;
use super::super::requests::{Answer, MakesRoom, Request, Source};
use super::{IoQueue, Submitted};
use crate::loom_harness::{History, Model, Protected, reach, spawn};
use crate::store::ReadBy;
use crate::sync::clock::let_time_pass;
use crate::sync::model::become_a_child;
use crate::sync::{Condvar, Instant, Mutex};
use std::sync::Arc;
use std::time::Duration;

use super::Io;

/// A door that some thread opens.
struct Door {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Door {
    fn new() -> Arc<Self> {
        Arc::new(Self { is_open: Mutex::new(false), opened: Condvar::new() })
    }

    fn open(&self) {
        *self.is_open.lock() = true;
        self.opened.notify_all();
    }

    fn wait(&self) {
        let mut is_open = self.is_open.lock();
        while !*is_open {
            is_open = self.opened.wait(is_open);
        }
    }
}

/// A file of one page: how often it was read is for those to see who know that it was, and is no synchronisation. A read of a
/// file with a door waits before it.
struct Counting {
    id: u64,
    by: ReadBy,
    reads: Protected,
    cancels: Protected,
    read: Option<Arc<Door>>,
    door: Option<Arc<Door>>,
}

impl Counting {
    fn new(id: u64) -> Self {
        let (reads, cancels) = (Protected::new(), Protected::new());
        Self { id, by: ReadBy::Caller, reads, cancels, read: None, door: None }
    }

    /// Its store may block the thread that reads it.
    fn that_stalls(id: u64, timeout: Option<Duration>) -> Self {
        Self { by: ReadBy::Workers { timeout }, ..Self::new(id) }
    }
}

impl Source for Counting {
    fn id(&self) -> u64 {
        self.id
    }

    fn read_by(&self) -> ReadBy {
        self.by
    }

    fn fill(&self, _first: u64, _pfns: Vec<u32>, _answer: Option<Arc<Answer>>) {
        if let Some(door) = &self.door {
            door.wait();
        }
        self.reads.increment();
        if let Some(read) = &self.read {
            read.open();
        }
    }

    fn cancel(&self, _pfns: Vec<u32>) {
        self.cancels.increment();
    }
}

fn request(file: &Arc<Counting>, answer: Option<&Arc<Answer>>) -> Request {
    Request { source: Arc::<Counting>::clone(file), first: 0, pfns: vec![0], answer: answer.cloned() }
}

/// Submits a request and, if it comes back, runs it.
fn submit(queue: &IoQueue, request: Request) {
    match queue.submit(request) {
        Submitted::Queued => reach("queued"),
        Submitted::Yours(errand) => {
            reach("mine");
            errand.run();
        }
        Submitted::Refused => reach("refused"),
    }
}

/// The queue is at rest: nothing is queued or under way, and no worker waits.
fn at_rest(queue: &IoQueue) -> bool {
    let requests = queue.queue.requests.lock();
    requests.is_empty() && !requests.are_pending(Instant::now()) && requests.workers.is_empty()
}

/// One thread submits a request, waits for everything, and again, when the worker may be asleep or about to be; then it stops the
/// queue. Claims: what was submitted is read, once, and no worker uses the file any more when the wait ends; the worker ends. Premise: a worker sleeps only if it
/// has found nothing, and lets go of the mutex by falling asleep.
fn against_the_workers_sleep() {
    let queue = IoQueue::new(Io::Threads).unwrap();
    let file = Arc::new(Counting::new(1));
    let history = History::new(0);
    for _ in 0..2 {
        history.call(
            "submit",
            || submit(&queue, request(&file, None)),
            |reads, ()| {
                *reads += 1;
                true
            },
        );
        let settle = || queue.settle().then(|| (file.reads.get(), Arc::strong_count(&file)));
        history.call("settle", settle, |reads, seen| *seen == Some((*reads, 1)));
    }
    history.call("stop", || queue.stop(), |_, ()| true);
    history.call("look", || at_rest(&queue), |_, &rest| rest);
    history.check();
}

#[test]
fn a_request_against_the_workers_sleep() {
    Model {
        name: "I/O queue: a request against the worker's sleep",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: against_the_workers_sleep,
        reaches: &["queued"],
        needs: &[
            "io.notify",
            "io.end.tell_last",
            "errand.seed.ended_first",
            "errand.file_first",
            "io.seed.lost_between",
            "stop.tell_last",
        ],
    }
    .check();
}

/// One thread submits a request, one closes the queue. Claims: the request is read once, by a worker or by its thread; the queue's
/// end does not leave it behind.
fn submit_against_close() {
    let queue = Arc::new(IoQueue::new(Io::Threads).unwrap());
    let file = Arc::new(Counting::new(1));
    let history = History::new(0);
    let reader = {
        let (queue, file, history) = (Arc::clone(&queue), Arc::clone(&file), history.clone());
        spawn(move || {
            history.call(
                "submit",
                || submit(&queue, request(&file, None)),
                |reads, ()| {
                    *reads += 1;
                    true
                },
            );
        })
    };
    history.call("close", || queue.close(), |_, ()| true);
    reader.join().unwrap();
    history.settle();
    history.call("look", || at_rest(&queue).then(|| file.reads.get()), |reads, seen| *seen == Some(*reads));
    history.check();
}

#[test]
fn a_request_against_the_end_of_the_queue() {
    Model {
        name: "I/O queue: a request against its end",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: submit_against_close,
        reaches: &["queued", "mine"],
        needs: &["io.seed.stop_first"],
    }
    .check();
}

/// The same with a store that may stall: its caller must not run it. Claims: the request is either read by a worker, or its pages are
/// unlocked, unread.
fn stalling_submit_against_close() {
    let queue = Arc::new(IoQueue::new(Io::Threads).unwrap());
    let file = Arc::new(Counting::that_stalls(1, None));
    let history = History::new(());
    let reader = {
        let (queue, file, history) = (Arc::clone(&queue), Arc::clone(&file), history.clone());
        spawn(move || {
            let submitted = || match queue.submit(request(&file, None)) {
                Submitted::Queued => "queued",
                Submitted::Yours(_) => "mine",
                Submitted::Refused => "refused",
            };
            history.call("submit", submitted, |(), &submitted| {
                reach(submitted);
                submitted != "mine"
            });
        })
    };
    history.call("close", || queue.close(), |(), ()| true);
    reader.join().unwrap();
    history.settle();
    let look = || at_rest(&queue).then(|| (file.reads.get(), file.cancels.get()));
    history.call("look", look, |(), &seen| {
        seen.is_some_and(|(reads, cancels)| {
            reach(if reads > 0 { "read" } else { "unread" });
            reads + cancels == 1
        })
    });
    history.check();
}

#[test]
fn big_a_request_that_may_stall_against_the_end_of_the_queue() {
    Model {
        name: "I/O queue: a request that may stall against its end",
        rows: &[],
        preemption_bound: Some(5),
        grace_periods: false,
        twin: false,
        body: stalling_submit_against_close,
        reaches: &["queued", "refused", "read", "unread"],
        needs: &["submit.open", "io.cancel"],
    }
    .check();
}

/// A window of a store that stalls is queued, and behind it one of another store. Claim: the second is read although the first
/// read does not return. Premise: a read is recorded as under way before the worker looks how many workers are wanted.
fn behind_a_stalling_store() {
    let queue = IoQueue::new(Io::Threads).unwrap();
    let (door, read) = (Door::new(), Door::new());
    let stalls = Arc::new(Counting { door: Some(Arc::clone(&door)), ..Counting::that_stalls(1, None) });
    let other = Arc::new(Counting { read: Some(Arc::clone(&read)), ..Counting::new(2) });
    let history = History::new(());
    history.call("submit", || submit(&queue, request(&stalls, None)), |(), ()| true);
    history.call("submit", || submit(&queue, request(&other, None)), |(), ()| true);
    history.call("wait for the second", || read.wait(), |(), ()| true);
    door.open();
    history.call("stop", || queue.stop(), |(), ()| true);
    let look = || at_rest(&queue).then(|| (stalls.reads.get(), other.reads.get()));
    history.call("look", look, |(), seen| *seen == Some((1, 1)));
    history.check();
}

#[test]
fn big_a_request_behind_a_store_that_stalls() {
    Model {
        name: "I/O queue: a request behind a store that stalls",
        rows: &[],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: behind_a_stalling_store,
        reaches: &["queued"],
        needs: &["io.replace_last"],
    }
    .check();
}

/// A read of a store that may stall does not return, or has not begun, when the queue is closed. Claims: the end of the queue waits
/// for neither the read nor its worker. The door is opened afterwards.
fn close_against_a_read_that_stalls() {
    let_time_pass();
    let queue = IoQueue::new(Io::Threads).unwrap();
    let door = Door::new();
    let file = Arc::new(Counting { door: Some(Arc::clone(&door)), ..Counting::that_stalls(1, None) });
    let history = History::new(());
    history.call("submit", || submit(&queue, request(&file, None)), |(), ()| true);
    history.call("close", || queue.close(), |(), ()| true);
    let look = || queue.queue.requests.lock().abandoned(Instant::now()).count();
    history.call("look", look, |(), &abandoned| {
        reach(if abandoned > 0 { "abandoned" } else { "unread" });
        abandoned <= 1
    });
    door.open();
    history.check();
}

#[test]
fn big_the_end_of_the_queue_against_a_read_that_stalls() {
    Model {
        name: "I/O queue: its end against a read that stalls",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: close_against_a_read_that_stalls,
        reaches: &["abandoned", "unread"],
        needs: &["stop.stuck"],
    }
    .check();
}

/// A read with a time-out does not return, and another request for its store is queued behind it. Claim: the wait for everything
/// ends, and the second request's pages are unlocked.
fn settle_against_an_overdue_read() {
    let_time_pass();
    let queue = IoQueue::new(Io::Threads).unwrap();
    let (door, read) = (Door::new(), Door::new());
    let file = Arc::new(Counting {
        door: Some(Arc::clone(&door)),
        read: Some(Arc::clone(&read)),
        ..Counting::that_stalls(1, Some(LOOK_AGAIN))
    });
    let history = History::new(());
    for _ in 0..2 {
        history.call("submit", || submit(&queue, request(&file, None)), |(), ()| true);
    }
    history.call("settle", || queue.settle(), |(), &settled| settled);
    door.open();
    read.wait();
    history.call("stop", || queue.stop(), |(), ()| true);
    history.call("look", || (file.reads.get(), file.cancels.get()), |(), &seen| seen == (1, 1));
    history.check();
}

#[test]
fn big_the_wait_for_everything_against_an_overdue_read() {
    Model {
        name: "I/O queue: the wait for everything against an overdue read",
        rows: &[],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: settle_against_an_overdue_read,
        reaches: &["queued"],
        needs: &["io.cancel"],
    }
    .check();
}

/// One thread has a page read and leaves at once; a worker may have taken the request. Claim: the page is read, or unlocked unread,
/// and not both.
fn abandon_against_take() {
    let queue = IoQueue::new(Io::Threads).unwrap();
    let file = Arc::new(Counting::that_stalls(1, None));
    let history = History::new(());
    let answer = Arc::new(Answer::new());
    history.call("submit", || submit(&queue, request(&file, Some(&answer))), |(), ()| true);
    history.call("leave", || queue.abandon(1, 0, Some(&answer)), |(), ()| true);
    history.call("settle", || queue.settle(), |(), &settled| settled);
    history.call("stop", || queue.stop(), |(), ()| true);
    let look = || at_rest(&queue).then(|| (file.reads.get(), file.cancels.get()));
    history.call("look", look, |(), &seen| {
        seen.is_some_and(|(reads, cancels)| {
            reach(if reads > 0 { "read" } else { "unread" });
            reads + cancels == 1
        })
    });
    history.check();
}

#[test]
fn big_a_leaver_against_the_worker() {
    Model {
        name: "I/O queue: a leaver against the worker that takes its request",
        rows: &[],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: abandon_against_take,
        reaches: &["read", "unread"],
        needs: &["abandon.cancel"],
    }
    .check();
}

/// One thread has a page read that a thread waits for, for which there is a worker of its own, and a window. Claims: both are read,
/// once; both workers end, asleep or not. Premise: none of them waits for the other.
fn two_workers() {
    let queue = IoQueue::new(Io::Threads).unwrap();
    let files = [1, 2].map(|id| Arc::new(Counting::new(id)));
    let history = History::new(());
    let answer = Arc::new(Answer::new());
    let wanted = [Some(&answer), None];
    let submit_both = || {
        for (file, answer) in files.iter().zip(wanted) {
            submit(&queue, request(file, answer));
        }
    };
    history.call("submit", submit_both, |(), ()| true);
    let workers = || queue.queue.requests.lock().workers.len();
    history.call("count the workers", workers, |(), &workers| workers == 2);
    history.call("settle", || queue.settle(), |(), &settled| settled);
    history.call("stop", || queue.stop(), |(), ()| true);
    let look = || at_rest(&queue).then(|| files.each_ref().map(|file| file.reads.get()));
    history.call("look", look, |(), seen| *seen == Some([1, 1]));
    history.check();
}

#[test]
fn big_two_workers_of_one_queue() {
    Model {
        name: "I/O queue: two workers",
        rows: &[],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: two_workers,
        reaches: &["queued"],
        needs: &["io.seed.stop_wakes_one"],
    }
    .check();
}

/// A cache that needs room: how often it was made is no synchronisation.
struct Room(Protected);

impl MakesRoom for Room {
    fn balance(&self) {
        self.0.increment();
    }
}

/// One thread starts background reclaim twice and waits for everything. Claims: the wait ends after the last reclaim that was started;
/// a reclaim that was asked for is done.
fn reclaim_against_the_wait() {
    let queue = IoQueue::new(Io::Threads).unwrap();
    let room = Arc::new(Room(Protected::new()));
    let history = History::new(());
    for _ in 0..2 {
        history.call("start", || queue.submit_reclaim(&room), |(), ()| true);
    }
    let settle = || queue.settle().then(|| room.0.get());
    history.call("settle", settle, |(), seen| {
        seen.is_some_and(|seen| {
            reach(if seen == 1 { "one" } else { "two" });
            seen == 1 || seen == 2
        })
    });
    history.call("stop", || queue.stop(), |(), ()| true);
    history.call("look", || at_rest(&queue), |(), &rest| rest);
    history.check();
}

#[test]
fn background_reclaim_against_the_wait_for_everything() {
    Model {
        name: "I/O queue: background reclaim against the wait for everything",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: reclaim_against_the_wait,
        reaches: &["one", "two"],
        needs: &[
            "submit_reclaim.notify",
            "submit_reclaim.once",
            "io.reclaim_first",
            "io.end_reclaim.tell_last",
        ],
    }
    .check();
}

/// One thread starts background reclaim in a cache and lets go of it: the worker may be its last user. Claim: the worker ends, and
/// does not wait for itself.
fn last_user_of_the_cache() {
    let shared = Shared::with_timeout(1, Io::Threads, Duration::ZERO).unwrap();
    let queue = Arc::clone(&shared.io.queue);
    // The state is whether the cache has certainly ended.
    let history = History::new(false);
    history.call("start", || shared.io.submit_reclaim(&shared), |_, ()| true);
    let last = || {
        let dropped = Arc::strong_count(&shared) == 1;
        reach(if dropped { "last" } else { "not the last" });
        drop(shared);
        dropped
    };
    history.call("let go", last, |ended, &last| {
        *ended = last;
        true
    });
    let stopped = || queue.requests.lock().workers.is_empty();
    history.call("look", stopped, |ended, &stopped| stopped || !*ended);
    history.check();
}

#[test]
fn the_last_user_of_a_cache_may_be_its_worker() {
    Model {
        name: "I/O queue: the last user of a cache against its worker",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: last_user_of_the_cache,
        reaches: &["last", "not the last"],
        needs: &["stop.others"],
    }
    .check();
}

/// In the child of a fork a worker ends when it was idle for a moment; one thread submits a request, and another when the worker may be
/// ending. Claims: both are read; no worker is left.
fn submit_against_an_idle_worker() {
    become_a_child();
    let_time_pass();
    let queue = IoQueue::new(Io::Threads).unwrap();
    let read = [Door::new(), Door::new()];
    let files = read.clone().map(|read| Arc::new(Counting { read: Some(read), ..Counting::new(1) }));
    let history = History::new(0);
    for (file, read) in files.iter().zip(&read) {
        let submit_and_wait = || {
            submit(&queue, request(file, None));
            read.wait();
        };
        history.call("submit", submit_and_wait, |_, ()| true);
    }
    history.call("stop", || queue.stop(), |_, ()| true);
    let look = || {
        let requests = queue.queue.requests.lock();
        reach(if requests.last_worker > 1 { "another" } else { "the same" });
        requests.is_empty() && requests.workers.is_empty() && requests.retired.is_empty()
    };
    history.call("look", look, |_, &rest| rest);
    history.check();
}

#[test]
fn a_request_against_an_idle_worker() {
    Model {
        name: "I/O queue: a request against the end of an idle worker",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: submit_against_an_idle_worker,
        reaches: &["another", "the same"],
        needs: &["io.idle", "io.retire"],
    }
    .check();
}
