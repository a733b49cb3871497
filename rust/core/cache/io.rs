//! The queue of reads, and the threads that perform them.
//!
//! Owns: the threads that read, which also reclaim in the background, and the wait for all of them. Does not own the decision
//! what to read or reclaim, the order of the queue (`requests`), nor how pages are filled: a file is only a
//! [`Source`](super::requests::Source) here. Linux leaves this to the block layer.
//!
//! One mutex guards the queued requests and the reads under way; it is not held while a file is read. A store that may stall
//! ([`ReadBy::Workers`](crate::store::ReadBy)) ties up the worker that is inside it, the buffer, the file, and the pages being
//! read, which stay locked. A thread waiting for a page may leave (`wait`). The read is then abandoned: nothing waits for it any
//! more, and if it does complete, it fills its pages as any other read does.

use super::hire::hire;
use super::idle::wait_for_work;
use super::patience::{LOOK_AGAIN, should_give_up};
use super::requests::{Answer, Job, MAX_WORKERS, MakesRoom, Request, Requests};
use crate::sync::{
    Condvar, Instant, Mutex, MutexGuard, duty, guard, in_order, is_this_thread, operation, seeded, thread,
};
use std::sync::Arc;
use std::time::Duration;

/// Which threads read the stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// Worker threads: the caller waits only for the page it needs.
    Threads,
    /// The calling thread: deterministic, for tests.
    Inline,
}

/// How long a closing cache waits for stores that may stall.
const CLOSING: Duration = if cfg!(specmm_loom) { LOOK_AGAIN } else { Duration::from_millis(500) };

/// The queue of one cache.
pub(crate) struct IoQueue {
    mode: Io,
    queue: Arc<Queue>,
}

struct Queue {
    requests: Mutex<Requests>,
    work: Condvar,
    /// Notified when a read ends.
    ended: Condvar,
}

/// What happened to a submitted request.
pub(super) enum Submitted {
    /// A worker will read it.
    Queued,
    /// There is no worker for it: the caller must run it.
    Yours(Errand),
    /// The cache was closed, and this store must not block its caller: the pages are unlocked, unread.
    Refused,
}

/// A read for a thread to perform, recorded as under way if its store may stall.
pub(super) struct Errand {
    request: Request,
    underway: Option<Underway>,
}

/// A read is under way while this exists.
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

    /// Hands a request to the workers, if there are any. Never waits.
    pub(super) fn submit(&self, request: Request) -> Submitted {
        let stalls = request.may_stall();
        if self.mode == Io::Inline && !stalls {
            return Submitted::Yours(Errand { request, underway: None });
        }
        let mut requests = self.queue.requests.lock();
        if !guard!("submit.open", !(requests.stopping && stalls)) {
            drop(requests);
            request.cancel();
            return Submitted::Refused;
        }
        // Or there is no memory for the queue.
        if self.mode == Io::Inline || requests.stopping || !requests.reserve() {
            return Submitted::Yours(self.queue.errand(&mut requests, request, false, None));
        }
        let urgent = request.answer.is_some();
        self.queue.put_to_work(requests, request, urgent).map_or(Submitted::Queued, Submitted::Yours)
    }

    /// A thread is waiting for a page: a queued readahead request that contains it moves to the front. Some: there is no worker
    /// for it, so the caller must run it.
    pub(super) fn hurry(&self, file: u64, index: u64) -> Option<Errand> {
        let mut requests = self.queue.requests.lock();
        let request = requests.unqueue_window(file, index)?;
        self.queue.put_to_work(requests, request, true)
    }

    /// Starts background reclaim, unless it is running (`wakeup_kswapd`). Without workers, requests that need a frame reclaim
    /// directly.
    pub(super) fn submit_reclaim<R: MakesRoom + 'static>(&self, cache: &Arc<R>) {
        if self.mode == Io::Inline {
            return;
        }
        let mut requests = self.queue.requests.lock();
        if requests.stopping || !guard!("submit_reclaim.once", !requests.reclaiming) {
            return;
        }
        self.queue.make_workers(&mut requests);
        if requests.workers.is_empty() {
            return;
        }
        requests.reclaiming = true;
        requests.reclaim = Some(Arc::<R>::clone(cache));
        drop(requests);
        duty!("submit_reclaim.notify", self.queue.work.notify_one());
    }

    /// A thread has stopped waiting for a page. If only that thread asked for its read (`answer`) and it has not begun, it is
    /// cancelled.
    pub(super) fn abandon(&self, file: u64, index: u64, answer: Option<&Arc<Answer>>) {
        let unread = self.queue.requests.lock().abandon(file, index, answer);
        duty!("abandon.cancel", unread.into_iter().for_each(Request::cancel));
    }

    /// Whether pages of a file from `first` on are queued or being read.
    pub(super) fn reads(&self, file: u64, first: u64) -> bool {
        self.queue.requests.lock().reach(file, first)
    }

    /// Abandoned reads that have not returned.
    pub(super) fn abandoned(&self) -> u64 {
        self.queue.requests.lock().abandoned(Instant::now()).count() as u64
    }

    /// The frames of those reads.
    pub(super) fn abandoned_frames(&self) -> Vec<u32> {
        let requests = self.queue.requests.lock();
        requests.abandoned(Instant::now()).flatten().copied().collect()
    }

    /// Waits until nothing is queued or being read, except reads whose time-out has expired. False: the program gave up.
    pub(crate) fn settle(&self) -> bool {
        operation!("settle");
        self.wait_until(|requests| {
            let now = Instant::now();
            let unread = requests.abandon_overdue(now);
            (!requests.are_pending(now), unread)
        })
    }

    /// Calls `look` until it reports success, and again whenever a read ends; it also returns requests to cancel. False: the
    /// program gave up.
    fn wait_until(&self, mut look: impl FnMut(&mut Requests) -> (bool, Vec<Request>)) -> bool {
        let mut ask_at = Instant::now() + LOOK_AGAIN;
        loop {
            let mut requests = self.queue.requests.lock();
            let (is_there, unread) = look(&mut requests);
            if !is_there && unread.is_empty() {
                requests = self.queue.ended.wait_for(requests, LOOK_AGAIN);
            }
            drop(requests);
            duty!("io.cancel", unread.into_iter().for_each(Request::cancel));
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

    /// Finishes the queued reads, except those of stores that may stall; gives these reads a moment, then abandons them and ends
    /// the workers.
    pub(crate) fn close(&self) {
        operation!("close the cache");
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

    /// Finishes the queued reads and ends the workers, except those stuck in a store. Later requests are read by their callers.
    pub(crate) fn stop(&self) {
        let workers;
        let tell = || {
            let work = &self.queue.work;
            seeded!("io.seed.stop_wakes_one", work.notify_all(), bug = work.notify_one());
        };
        in_order!("stop.tell_last", workers = self.dismiss(), tell());
        for (_, worker) in workers {
            // A worker that drops the last user of a cache gets here, and must not wait for itself.
            if guard!("stop.others", !is_this_thread(&worker)) {
                let _ended = worker.join();
            }
        }
    }

    /// Lets no worker wait for more work; returns those that will end.
    fn dismiss(&self) -> Vec<(u64, thread::JoinHandle<()>)> {
        let mut requests = self.queue.requests.lock();
        requests.stopping = true;
        let mut workers = std::mem::take(&mut requests.workers);
        workers.append(&mut requests.retired);
        workers.retain(|(number, _)| guard!("stop.stuck", !requests.is_stuck(*number)));
        workers
    }
}

impl Queue {
    /// Queues a request and ensures that it is read. Some: no worker may ever reach it.
    fn put_to_work(
        self: &Arc<Self>,
        mut requests: MutexGuard<'_, Requests>,
        request: Request,
        urgent: bool,
    ) -> Option<Errand> {
        requests.queue(request, urgent);
        self.make_workers(&mut requests);
        if let Some((request, ahead)) = requests.unqueue_if_stuck() {
            return Some(self.errand(&mut requests, request, ahead, None));
        }
        drop(requests);
        duty!("io.notify", self.work.notify_one());
        None
    }

    /// Starts as many of the wanted workers as the system can provide.
    fn make_workers(self: &Arc<Self>, requests: &mut Requests) {
        debug_assert!(requests.workers.len() <= MAX_WORKERS, "too many workers");
        // Threads that have ended need no wait.
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

    /// Turns a request into an errand and records the read as under way.
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

    fn end_reclaim(&self) {
        in_order!(
            "io.end_reclaim.tell_last",
            self.requests.lock().reclaiming = false,
            self.ended.notify_all(),
        );
    }

    fn work(self: Arc<Self>, number: u64) {
        operation!("work for I/O");
        loop {
            let mut requests = self.requests.lock();
            let job = loop {
                // What is queued is read before a worker ends.
                seeded!(
                    "io.seed.stop_first",
                    bug = if requests.stopping {
                        return;
                    }
                );
                if let Some(job) = requests.take() {
                    break job;
                }
                if requests.stopping {
                    return;
                }
                let is_idle;
                (requests, is_idle) = wait_for_work(&self.work, requests);
                if is_idle && guard!("io.idle", requests.is_empty()) {
                    duty!("io.retire", requests.retire(number));
                    return;
                }
            };
            match job {
                Job::Read(request, ahead) => {
                    // In the step that took it from the queue: until it has ended, a read is either queued or under way.
                    seeded!(
                        "io.seed.lost_between",
                        bug = {
                            drop(requests);
                            requests = self.requests.lock();
                        }
                    );
                    let errand;
                    in_order!(
                        "io.replace_last",
                        errand = self.errand(&mut requests, request, ahead, Some(number)),
                        // If a store may block this worker, another takes its place.
                        self.make_workers(&mut requests),
                    );
                    drop(requests);
                    // A store that panics must not end the worker: a thread that needs the page gets an error, or reads again and
                    // meets the panic itself.
                    let _met_again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| errand.run()));
                }
                Job::Reclaim(cache) => {
                    drop(requests);
                    in_order!("io.reclaim_first", reclaim(cache), self.end_reclaim());
                }
            }
        }
    }
}

/// Reclaims in a cache, and then lets go of it, whose last user this may be.
#[allow(clippy::needless_pass_by_value, reason = "the cache ends here")]
fn reclaim(cache: Arc<dyn MakesRoom>) {
    let _met_again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cache.balance()));
}

impl Drop for Underway {
    fn drop(&mut self) {
        in_order!(
            "io.end.tell_last",
            self.queue.requests.lock().end(self.number),
            self.queue.ended.notify_all(),
        );
    }
}

impl Errand {
    pub(super) fn run(mut self) {
        seeded!("errand.seed.ended_first", bug = drop(self.underway.take()));
        self.request.read();
        // This may be the file's last user: when all reads have ended, its pages are gone.
        in_order!("errand.file_first", drop(self.request), drop(self.underway));
    }
}

#[cfg(all(test, specmm_loom))]
#[path = "../../../tests/loom/io.rs"]
mod models;

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests;
