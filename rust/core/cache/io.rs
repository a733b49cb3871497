//! The queue of reads, and the threads that make them.
//!
//! Owns: the threads that read, which also make room in the background, and the wait for all of them. Does not own the decision
//! what to read or what to take, the order of what is queued (`requests`), nor how pages are filled: of files it knows no more
//! than that they are a [`Source`](super::requests::Source). Linux leaves this to the block layer.
//!
//! One mutex has what is queued and what is under way; it is not held while a file is read. A store that may stall
//! ([`ReadBy::Workers`](crate::store::ReadBy)) keeps the worker that is inside it, the pages being read, locked, its buffer, and
//! the file. Whoever waits for a page may leave (`wait`); the read is then abandoned: it is waited for no more, and its answer,
//! if one comes, fills the pages as any other does.

use super::hire::hire;
use super::idle::wait_for_work;
use super::patience::{LOOK_AGAIN, should_give_up};
use super::requests::{Answer, Job, MAX_WORKERS, MakesRoom, Request, Requests};
use crate::sync::{Condvar, Mutex, is_this_thread};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where windows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// On worker threads: the caller waits only for the page it needs.
    Threads,
    /// In the calling thread: deterministic, for tests.
    Inline,
}

/// How long a cache that is being closed waits for stores that may stall.
const CLOSING: Duration = Duration::from_millis(500);

/// The queue of one cache.
pub(crate) struct IoQueue {
    mode: Io,
    queue: Arc<Queue>,
}

struct Queue {
    requests: Mutex<Requests>,
    work: Condvar,
    /// A read ended that somebody may wait for.
    ended: Condvar,
}

/// What became of a request.
pub(super) enum Submitted {
    /// A worker will read it.
    Queued,
    /// No worker is to be had: the caller runs it.
    Yours(Errand),
    /// The cache was closed, and its caller must not be kept by this store: the pages are unlocked, unread.
    Refused,
}

/// A read that a thread is to make, known to others meanwhile if its store may stall.
pub(super) struct Errand {
    request: Request,
    underway: Option<Underway>,
}

/// A read is under way as long as this lives.
struct Underway {
    queue: Arc<Queue>,
    number: u64,
}

impl IoQueue {
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(crate) fn new(mode: Io) -> crate::Result<Self> {
        let requests = Mutex::new(Requests::new()?);
        Ok(Self { mode, queue: Arc::new(Queue { requests, work: Condvar::new(), ended: Condvar::new() }) })
    }

    pub(super) fn is_inline(&self) -> bool {
        self.mode == Io::Inline
    }

    /// Hands a request to the workers if there are any. Waits for nothing.
    pub(super) fn submit(&self, request: Request) -> Submitted {
        let stalls = request.may_stall();
        if self.mode == Io::Inline && !stalls {
            return Submitted::Yours(Errand { request, underway: None });
        }
        let mut requests = self.queue.requests.lock();
        if requests.stopping && stalls {
            drop(requests);
            request.cancel();
            return Submitted::Refused;
        }
        // Or no place in the queue is to be had.
        if self.mode == Io::Inline || requests.stopping || !requests.reserve() {
            return Submitted::Yours(self.queue.errand(&mut requests, request, false, None));
        }
        requests.queue(request);
        self.queue.put_to_work(requests).map_or(Submitted::Queued, Submitted::Yours)
    }

    /// Somebody waits for a page: what is to be read ahead of need and has it goes before the rest. Some: no worker is to be had
    /// for it, so the caller runs it.
    pub(super) fn hurry(&self, file: u64, index: u64) -> Option<Errand> {
        let mut requests = self.queue.requests.lock();
        if requests.hurry(file, index) { self.queue.put_to_work(requests) } else { None }
    }

    /// Makes room in the background, unless that is being done (`wakeup_kswapd`). Without workers it is left to those who need
    /// the room.
    pub(super) fn submit_reclaim<R: MakesRoom + 'static>(&self, cache: &Arc<R>) {
        if self.mode == Io::Inline {
            return;
        }
        let mut requests = self.queue.requests.lock();
        if requests.stopping || requests.reclaiming {
            return;
        }
        self.queue.make_workers(&mut requests);
        if requests.workers.is_empty() {
            return;
        }
        requests.reclaiming = true;
        requests.reclaim = Some(Arc::<R>::clone(cache));
        drop(requests);
        self.queue.work.notify_one();
    }

    /// Somebody stopped waiting for a page, whose read, if it was asked for by `answer` alone, is not begun any more.
    pub(super) fn abandon(&self, file: u64, index: u64, answer: Option<&Arc<Answer>>) {
        let unread = self.queue.requests.lock().abandon(file, index, answer);
        unread.into_iter().for_each(Request::cancel);
    }

    /// Whether pages of a file from `first` on are queued or being read.
    pub(super) fn reads(&self, file: u64, first: u64) -> bool {
        self.queue.requests.lock().reach(file, first)
    }

    /// Reads that were abandoned and have not come back.
    pub(super) fn abandoned(&self) -> u64 {
        self.queue.requests.lock().abandoned(Instant::now()).count() as u64
    }

    /// The frames that those have.
    pub(super) fn abandoned_frames(&self) -> Vec<u32> {
        let requests = self.queue.requests.lock();
        requests.abandoned(Instant::now()).flatten().copied().collect()
    }

    /// Waits until nothing is queued or being read, but by stores whose time-out is over. False: the program gives up.
    pub(crate) fn settle(&self) -> bool {
        self.wait_until(|requests| {
            let now = Instant::now();
            let unread = requests.abandon_overdue(now);
            (!requests.are_pending(now), unread)
        })
    }

    /// Looks, at the latest when a read ended, until what is looked for is there. A look also answers requests to cancel. False:
    /// the program gives up.
    fn wait_until(&self, mut look: impl FnMut(&mut Requests) -> (bool, Vec<Request>)) -> bool {
        let mut ask_at = Instant::now() + LOOK_AGAIN;
        loop {
            let mut requests = self.queue.requests.lock();
            let (is_there, unread) = look(&mut requests);
            if !is_there && unread.is_empty() {
                requests = self.queue.ended.wait_for(requests, LOOK_AGAIN);
            }
            drop(requests);
            unread.into_iter().for_each(Request::cancel);
            if is_there {
                return true;
            }
            if Instant::now() >= ask_at {
                if should_give_up() {
                    return false;
                }
                ask_at = Instant::now() + LOOK_AGAIN;
            }
        }
    }

    /// Finishes what is queued, but for stores that may stall, gives the reads of those a moment, abandons them and ends the
    /// workers.
    pub(crate) fn close(&self) {
        let until = Instant::now() + CLOSING;
        let close = |requests: &mut Requests| {
            let (unread, now) = (requests.stop(), Instant::now());
            requests.abandon_overdue(now);
            if now >= until {
                requests.abandon_all();
            }
            (!requests.are_pending(now), unread)
        };
        while !self.wait_until(close) {
            self.queue.requests.lock().abandon_all();
        }
        self.stop();
    }

    /// Finishes what is queued and ends the workers but those that are stuck in a store. Later requests are read by their
    /// callers.
    pub(crate) fn stop(&self) {
        let workers = {
            let mut requests = self.queue.requests.lock();
            requests.stopping = true;
            let mut workers = std::mem::take(&mut requests.workers);
            workers.append(&mut requests.retired);
            let may_wait = |(number, _): &(u64, _)| !requests.is_stuck(*number);
            workers.into_iter().filter(may_wait).collect::<Vec<_>>()
        };
        self.queue.work.notify_all();
        for (_, worker) in workers {
            // A worker that drops the last user of a cache ends up here itself and must not wait for itself.
            if !is_this_thread(&worker) {
                let _ended = worker.join();
            }
        }
    }
}

impl Queue {
    /// Sees to it that what was queued is read. Some: the last of it, which no worker may ever come to.
    fn put_to_work(self: &Arc<Self>, mut requests: crate::sync::MutexGuard<'_, Requests>) -> Option<Errand> {
        self.make_workers(&mut requests);
        if let Some((request, ahead)) = requests.unqueue_if_stuck() {
            return Some(self.errand(&mut requests, request, ahead, None));
        }
        drop(requests);
        self.work.notify_one();
        None
    }

    /// Starts the workers that are wanted, as far as there are threads to be had.
    fn make_workers(self: &Arc<Self>, requests: &mut Requests) {
        debug_assert!(requests.workers.len() <= MAX_WORKERS, "too many workers");
        // Those that have ended need not be waited for.
        #[cfg(not(any(specmm_loom, specmm_shuttle)))]
        requests.retired.retain(|(_, worker)| !worker.is_finished());
        while !requests.stopping && requests.workers.len() < requests.wanted_workers() {
            requests.last_worker += 1;
            let (queue, number) = (Arc::clone(self), requests.last_worker);
            match hire(move || queue.work(number)) {
                Ok(worker) => requests.workers.push((number, worker)),
                Err(_) => break,
            }
        }
    }

    /// Makes an errand of a request, and a read under way.
    fn errand(
        self: &Arc<Self>,
        requests: &mut Requests,
        request: Request,
        ahead: bool,
        worker: Option<u64>,
    ) -> Errand {
        let number = requests.begin(&request, ahead, worker);
        Errand { request, underway: Some(Underway { queue: Arc::clone(self), number }) }
    }

    fn work(self: Arc<Self>, number: u64) {
        loop {
            let mut requests = self.requests.lock();
            let job = loop {
                if let Some(job) = requests.take() {
                    break job;
                }
                if requests.stopping {
                    return;
                }
                let is_idle;
                (requests, is_idle) = wait_for_work(&self.work, requests);
                if is_idle && requests.is_empty() && !requests.stopping {
                    return requests.retire(number);
                }
            };
            match job {
                Job::Read(request, ahead) => {
                    let errand = self.errand(&mut requests, request, ahead, Some(number));
                    // If a store may keep this one, another takes its place.
                    self.make_workers(&mut requests);
                    drop(requests);
                    // A store that panics must not take the worker with it: who needs the page is told, or reads again and
                    // meets the panic.
                    let _met_again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| errand.run()));
                }
                Job::Reclaim(cache) => {
                    drop(requests);
                    let _met_again =
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cache.balance()));
                    drop(cache);
                    self.requests.lock().reclaiming = false;
                    self.ended.notify_all();
                }
            }
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.queue.requests.lock().end(self.number);
        self.queue.ended.notify_all();
    }
}

impl Errand {
    pub(super) fn run(self) {
        let Self { request, underway } = self;
        let Request { source, first, pfns, answer } = request;
        source.fill(first, pfns, answer);
        drop(source);
        drop(underway);
    }
}
