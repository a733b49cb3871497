//! The requests that are queued and the reads under way.
//!
//! Owns: the order in which workers take requests, how many workers are wanted, and which reads were abandoned. Does not own the
//! threads nor any wait (`io`), whose mutex guards it. Linux leaves this to the block layer.
//!
//! Requests that a thread waits for go first. Of readahead windows, each store that may stall has at most [`WORKERS`] under way
//! at a time, and so have all other stores together. So a store that never returns blocks two workers with its windows, and one
//! with each page that a thread waits for or has given up on. For each of those the cache starts another worker, up to
//! [`MAX_WORKERS`] in all; the last [`WORKERS`] of them never enter a store that may stall, and serve the files of other stores.

use crate::error::{IoError, Result};
use crate::reserve;
use crate::store::ReadBy;
use crate::sync::{Instant, OnceLock, thread};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Number of threads that read, as long as no store stalls.
pub(super) const WORKERS: usize = if cfg!(specmm_loom) { 1 } else { 2 };

/// Maximum number of threads that read.
pub(super) const MAX_WORKERS: usize = if cfg!(specmm_loom) { 3 } else { 32 };

/// The result of a read that a thread waits for; set before its pages are unlocked.
pub(super) type Answer = OnceLock<std::result::Result<(), IoError>>;

/// A file as seen by the queue: a store to read.
pub(super) trait Source: Send + Sync {
    /// The file's identity.
    fn id(&self) -> u64;

    /// Which threads may read its store.
    fn read_by(&self) -> ReadBy;

    /// Reads a run of locked pages, whose locks it takes over; sets `answer`, if there is one.
    fn fill(&self, first: u64, pfns: Vec<u32>, answer: Option<Arc<Answer>>);

    /// Unlocks the pages of a run, unread.
    fn cancel(&self, pfns: Vec<u32>);
}

/// A cache as seen by its threads.
pub(super) trait MakesRoom: Send + Sync {
    /// Evicts pages until enough frames are free.
    fn balance(&self);
}

/// A run of locked pages to read.
pub(super) struct Request {
    pub(super) source: Arc<dyn Source>,
    pub(super) first: u64,
    pub(super) pfns: Vec<u32>,
    /// Where the result goes; None for readahead.
    pub(super) answer: Option<Arc<Answer>>,
}

impl Request {
    /// Whether its store may block the thread that reads it.
    pub(super) fn may_stall(&self) -> bool {
        self.source.read_by().may_stall()
    }

    pub(super) fn pages(&self) -> Range<u64> {
        self.first..self.first + self.pfns.len() as u64
    }

    /// Reads the pages and unlocks them.
    pub(super) fn read(&mut self) {
        self.source.fill(self.first, std::mem::take(&mut self.pfns), self.answer.take());
    }

    /// Unlocks the pages, unread.
    pub(super) fn cancel(self) {
        self.source.cancel(self.pfns);
    }
}

/// A worker's next job.
pub(super) enum Job {
    /// A read, and whether it is readahead.
    Read(Request, bool),
    /// Reclaim in a cache.
    Reclaim(Arc<dyn MakesRoom>),
}

/// A read under way.
struct Read {
    number: u64,
    /// The worker that performs it, if it is a worker.
    worker: Option<u64>,
    /// The file's identity.
    file: u64,
    pages: Range<u64>,
    pfns: Vec<u32>,
    by: ReadBy,
    ahead: bool,
    started: Instant,
    /// A thread has stopped waiting for it.
    abandoned: bool,
}

impl Read {
    /// Whether its time-out has expired, so that no thread waits for it any more.
    fn is_overdue(&self, now: Instant) -> bool {
        self.by.timeout().is_some_and(|timeout| now.duration_since(self.started) >= timeout)
    }
}

/// The requests of one cache, and its workers.
#[derive(Default)]
pub(super) struct Requests {
    urgent: VecDeque<Request>,
    windows: VecDeque<Request>,
    underway: Vec<Read>,
    last_number: u64,
    /// A cache that needs reclaim; `reclaiming` is set until that is done.
    pub(super) reclaim: Option<Arc<dyn MakesRoom>>,
    pub(super) reclaiming: bool,
    pub(super) stopping: bool,
    pub(super) workers: Vec<(u64, thread::JoinHandle<()>)>,
    pub(super) last_worker: u64,
    /// Idle workers that are ending.
    pub(super) retired: Vec<(u64, thread::JoinHandle<()>)>,
}

impl Requests {
    /// Reserves memory for one more request, in either queue, now and if it is hurried; false if there is none.
    pub(super) fn reserve(&mut self) -> bool {
        let windows = self.windows.len() + 1;
        self.windows.try_reserve(1).is_ok() && self.urgent.try_reserve(windows).is_ok()
    }

    /// Reserves room for the reads of all workers, and of as many callers.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(super) fn new() -> Result<Self> {
        Ok(Self { underway: reserve::vec(2 * MAX_WORKERS, "the reads of a cache")?, ..Self::default() })
    }

    /// Whether nothing is queued.
    pub(super) fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.windows.is_empty() && self.reclaim.is_none()
    }

    /// Moves a worker that is ending to the retired ones.
    pub(super) fn retire(&mut self, number: u64) {
        if let Some(at) = self.workers.iter().position(|(worker, _)| *worker == number) {
            self.retired.push(self.workers.swap_remove(at));
        }
    }

    pub(super) fn queue(&mut self, request: Request, urgent: bool) {
        if urgent {
            self.urgent.push_back(request);
        } else {
            self.windows.push_back(request);
        }
    }

    /// Takes back the queued readahead request that contains a page.
    pub(super) fn unqueue_window(&mut self, file: u64, index: u64) -> Option<Request> {
        let has = |request: &Request| request.source.id() == file && request.pages().contains(&index);
        self.windows.iter().position(has).and_then(|at| self.windows.remove(at))
    }

    /// Takes back the last request if no worker may ever reach it: each is inside a store that may stall, or will be, and no
    /// other could be started.
    pub(super) fn unqueue_if_stuck(&mut self) -> Option<(Request, bool)> {
        let free = self.workers.len().saturating_sub(self.stalling());
        if free < self.urgent.len() && self.workers.len() < MAX_WORKERS {
            return self.urgent.pop_back().map(|request| (request, false));
        }
        if self.workers.is_empty() { self.windows.pop_back().map(|request| (request, true)) } else { None }
    }

    /// How many workers there should be now: [`WORKERS`] in addition to those that a store may block.
    pub(super) fn wanted_workers(&self) -> usize {
        (WORKERS + self.stalling() + self.urgent.len()).min(MAX_WORKERS)
    }

    /// Workers inside stores that may stall.
    fn stalling(&self) -> usize {
        self.underway.iter().filter(|read| read.worker.is_some() && read.by.may_stall()).count()
    }

    /// The next job for a worker.
    pub(super) fn take(&mut self) -> Option<Job> {
        // Before reads, because they need the room.
        if let Some(shared) = self.reclaim.take() {
            return Some(Job::Reclaim(shared));
        }
        let may_stall = self.stalling() < MAX_WORKERS - WORKERS;
        if let Some(request) = if may_stall { self.urgent.pop_front() } else { None } {
            return Some(Job::Read(request, false));
        }
        let next = self.windows.iter().position(|request| {
            if request.may_stall() {
                may_stall && self.windows_of(Some(request.source.id())) < WORKERS
            } else {
                self.windows_of(None) < WORKERS
            }
        })?;
        self.windows.remove(next).map(|request| Job::Read(request, true))
    }

    /// Number of windows under way, of one store that may stall, or of all other stores together.
    fn windows_of(&self, file: Option<u64>) -> usize {
        let of = |read: &&Read| read.ahead && file == read.by.may_stall().then_some(read.file);
        self.underway.iter().filter(of).count()
    }

    /// Records a request as under way and returns a number, which ends it in [`Requests::end`].
    pub(super) fn begin(&mut self, request: &Request, ahead: bool, worker: Option<u64>) -> u64 {
        self.last_number += 1;
        self.underway.push(Read {
            number: self.last_number,
            worker,
            file: request.source.id(),
            pages: request.pages(),
            pfns: frames_of(request),
            by: request.source.read_by(),
            ahead,
            started: Instant::now(),
            abandoned: false,
        });
        self.last_number
    }

    pub(super) fn end(&mut self, number: u64) {
        self.underway.retain(|read| read.number != number);
    }

    /// Whether anything worth waiting for is queued or under way.
    pub(super) fn are_pending(&self, now: Instant) -> bool {
        self.reclaiming
            || !self.urgent.is_empty()
            || !self.windows.is_empty()
            || self.underway.iter().any(|read| !read.is_overdue(now) && !(self.stopping && read.abandoned))
    }

    /// Whether a page of the file from `first` on is queued or under way.
    pub(super) fn reach(&self, file: u64, first: u64) -> bool {
        let queued = self.urgent.iter().chain(&self.windows);
        queued
            .map(|request| (request.source.id(), request.pages().end))
            .chain(self.underway.iter().map(|read| (read.file, read.pages.end)))
            .any(|(id, end)| id == file && end > first)
    }

    /// A thread has stopped waiting for a page: abandons its read. Returns the requests to cancel: a read that only this thread
    /// asked for (`answer`) and that has not begun, and the readahead of a store that stalls.
    pub(super) fn abandon(&mut self, file: u64, index: u64, answer: Option<&Arc<Answer>>) -> Vec<Request> {
        let mine = |request: &Request| matches!((&request.answer, answer), (Some(theirs), Some(ours)) if Arc::ptr_eq(theirs, ours));
        let mut unread = Vec::new();
        if let Some(at) = self.urgent.iter().position(mine) {
            unread.extend(self.urgent.remove(at));
        }
        let mut stalls = false;
        for read in self.underway.iter_mut().filter(|read| read.file == file && read.pages.contains(&index)) {
            read.abandoned = true;
            stalls = true;
        }
        if stalls {
            unread.extend(self.unqueue_windows(|request| request.source.id() == file));
        }
        unread
    }

    /// Abandons the reads whose time-out has expired; returns the queued readahead of the same stores.
    pub(super) fn abandon_overdue(&mut self, now: Instant) -> Vec<Request> {
        let mut files = Vec::new();
        for read in self.underway.iter_mut().filter(|read| read.is_overdue(now)) {
            read.abandoned = true;
            files.push(read.file);
        }
        if files.is_empty() {
            return Vec::new();
        }
        self.unqueue_windows(|request| files.contains(&request.source.id()))
    }

    /// Starts no more reads of stores that may stall; returns those that have not begun.
    pub(super) fn stop(&mut self) -> Vec<Request> {
        self.stopping = true;
        let mut unread: Vec<_> = self.urgent.drain(..).collect();
        unread.extend(self.unqueue_windows(Request::may_stall));
        unread
    }

    fn unqueue_windows(&mut self, unread: impl Fn(&Request) -> bool) -> Vec<Request> {
        let (gone, stay): (Vec<_>, Vec<_>) = self.windows.drain(..).partition(unread);
        self.windows = stay.into();
        gone
    }

    /// Abandons every read of a store that may stall.
    pub(super) fn abandon_all(&mut self) {
        for read in self.underway.iter_mut().filter(|read| read.by.may_stall()) {
            read.abandoned = true;
        }
    }

    /// Whether a worker is inside a read that was abandoned.
    pub(super) fn is_stuck(&self, worker: u64) -> bool {
        self.underway.iter().any(|read| read.worker == Some(worker) && read.abandoned)
    }

    /// The frames of each read that was abandoned, or whose time-out has expired, and that has not returned.
    pub(super) fn abandoned(&self, now: Instant) -> impl Iterator<Item = &Vec<u32>> {
        self.underway.iter().filter(move |read| read.abandoned || read.is_overdue(now)).map(|read| &read.pfns)
    }
}

/// The frames that a read keeps if it is abandoned. Only reads of stores that may stall can be abandoned. Without memory for this
/// list the read keeps its frames all the same, but an audit then reports them as leaked.
fn frames_of(request: &Request) -> Vec<u32> {
    let mut frames = Vec::new();
    if request.may_stall() && frames.try_reserve_exact(request.pfns.len()).is_ok() {
        frames.extend_from_slice(&request.pfns);
    }
    frames
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests;
