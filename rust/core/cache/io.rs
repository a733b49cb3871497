//! Reading pages from their store: in the caller, or on workers.
//!
//! Owns: the queue of windows to read and the threads that read them, which also make room in the background. Does not own
//! the decision what to read or what to take. A request is a run of new pages, locked by whoever created them; the reader
//! fills them, marks them up to date and unlocks.
//! A run is read in pieces (`in_flight`). The first that fails ends it: what is left stays in the cache, not up to date, and the
//! next reader of a page tries that page alone and meets the error.

use super::idle::wait_for_work;
use super::page_cache::Stat;
use super::{AddressSpace, Shared};
use crate::error::{IoError, ShortRead};
use crate::page::{Frames, LockedPage, PAGE_SIZE, PageFlags};
use crate::reserve;
use crate::sync::{Condvar, Mutex, guard, thread};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Where windows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// On worker threads: the caller waits only for the page it needs.
    Threads,
    /// In the calling thread: deterministic, for tests.
    Inline,
}

/// Threads that read windows.
const WORKERS: usize = 2;

/// What a worker does.
enum Job {
    /// Reads a run of locked pages.
    Read(Request),
    /// Makes room in a cache.
    Reclaim(Arc<Shared>),
}

struct Request {
    mapping: Arc<AddressSpace>,
    first: u64,
    pfns: Vec<u32>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    in_flight: usize,
    /// A job to make room is queued or running.
    reclaiming: bool,
    stopping: bool,
    workers: Vec<thread::JoinHandle<()>>,
    /// Workers that were idle and are ending.
    retired: Vec<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    work: Condvar,
    idle: Condvar,
}

/// The queue of one cache.
pub(crate) struct IoQueue {
    mode: Io,
    queue: Arc<Queue>,
}

impl IoQueue {
    pub(crate) fn new(mode: Io) -> Self {
        Self { mode, queue: Arc::new(Queue::default()) }
    }

    /// Reads a run of locked pages, now or soon. Takes over their locks.
    pub(crate) fn submit(&self, mapping: &Arc<AddressSpace>, first: u64, pfns: Vec<u32>) {
        mapping.shared.count(Stat::ReadaheadPages, pfns.len() as u64);
        let request = Request { mapping: Arc::clone(mapping), first, pfns };
        if self.mode == Io::Inline {
            return request.run();
        }
        let mut state = self.queue.state.lock();
        if !self.has_workers(&mut state) || state.waiting.try_reserve(1).is_err() {
            // No thread or no place in the queue to be had: the caller reads.
            drop(state);
            return request.run();
        }
        state.in_flight += 1;
        state.waiting.push_back(Job::Read(request));
        drop(state);
        self.queue.work.notify_one();
    }

    /// Makes room in the background, unless that is being done (`wakeup_kswapd`). Without workers it is left to those who need
    /// the room.
    pub(crate) fn submit_reclaim(&self, shared: &Arc<Shared>) {
        if self.mode == Io::Inline {
            return;
        }
        let mut state = self.queue.state.lock();
        if state.reclaiming || !self.has_workers(&mut state) || state.waiting.try_reserve(1).is_err() {
            return;
        }
        state.reclaiming = true;
        state.in_flight += 1;
        // Before reads: they need the room.
        state.waiting.push_front(Job::Reclaim(Arc::clone(shared)));
        drop(state);
        self.queue.work.notify_one();
    }

    /// Starts the workers at first use. False when there are none.
    fn has_workers(&self, state: &mut State) -> bool {
        if state.stopping {
            return false;
        }
        // Those that have ended need not be waited for.
        #[cfg(not(any(specmm_loom, specmm_shuttle)))]
        state.retired.retain(|worker| !worker.is_finished());
        while state.workers.len() < WORKERS {
            let queue = Arc::clone(&self.queue);
            match thread::Builder::new().name("specmm-io".into()).spawn(move || queue.work()) {
                Ok(worker) => state.workers.push(worker),
                Err(_) => break,
            }
        }
        !state.workers.is_empty()
    }

    /// Waits until nothing is queued or being read.
    pub(crate) fn settle(&self) {
        let mut state = self.queue.state.lock();
        while state.in_flight > 0 {
            state = self.queue.idle.wait(state);
        }
    }

    /// Finishes what is queued and ends the workers. Later requests are read by their callers.
    pub(crate) fn stop(&self) {
        let workers = {
            let mut state = self.queue.state.lock();
            state.stopping = true;
            let mut workers = std::mem::take(&mut state.workers);
            workers.append(&mut state.retired);
            workers
        };
        self.queue.work.notify_all();
        for worker in workers {
            // A worker that drops the last user of a cache ends up here itself and must not wait for itself.
            if worker.thread().id() != thread::current().id() {
                let _ended = worker.join();
            }
        }
    }
}

impl Queue {
    fn work(&self) {
        loop {
            let mut state = self.state.lock();
            let job = loop {
                if let Some(job) = state.waiting.pop_front() {
                    break job;
                }
                if state.stopping {
                    return;
                }
                let is_idle;
                (state, is_idle) = wait_for_work(&self.work, state);
                if is_idle && state.waiting.is_empty() && !state.stopping {
                    return state.retire();
                }
            };
            drop(state);
            let reclaims = matches!(job, Job::Reclaim(_));
            // A store that panics must not take the worker with it: whoever needs the page reads again and meets the panic.
            let _met_again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match job {
                Job::Read(request) => request.run(),
                Job::Reclaim(shared) => shared.balance(),
            }));
            let mut state = self.state.lock();
            state.in_flight -= 1;
            state.reclaiming &= !reclaims;
            if state.in_flight == 0 {
                self.idle.notify_all();
            }
        }
    }
}

impl State {
    /// The calling worker ends.
    fn retire(&mut self) {
        let is_me = |worker: &thread::JoinHandle<()>| worker.thread().id() == thread::current().id();
        let (me, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.workers).into_iter().partition(is_me);
        self.workers = others;
        self.retired.extend(me);
    }
}

impl Request {
    fn run(self) {
        let Self { mapping, mut first, pfns } = self;
        let mut locks = Locks { frames: mapping.frames(), pfns: pfns.into_iter() };
        // Nobody asked for these bytes yet: whoever does reads again and gets the error.
        while locks.pfns.len() > 0 {
            let piece = mapping.shared.in_flight.buffer(locks.pfns.len() * PAGE_SIZE).and_then(|buffer| {
                let count = buffer.bytes.len() / PAGE_SIZE;
                Ok((reserve::vec(count, "a window")?, count, buffer))
            });
            let Ok((mut pages, count, mut buffer)) = piece else {
                // Page by page needs no memory. After a page that cannot be read the others may wait for those who ask for them.
                for page in &mut locks {
                    if mapping.read_page(&page, first).is_err() {
                        break;
                    }
                    first += 1;
                }
                return;
            };
            pages.extend(locks.by_ref().take(count));
            if mapping.read_run(&pages, first, &mut buffer.bytes).is_err() {
                return;
            }
            first += count as u64;
        }
    }
}

/// The locks of a run's pages; those that are not taken out are given back.
struct Locks<'f> {
    frames: &'f Frames,
    pfns: std::vec::IntoIter<u32>,
}

impl<'f> Iterator for Locks<'f> {
    type Item = LockedPage<'f>;

    fn next(&mut self) -> Option<LockedPage<'f>> {
        self.pfns.next().map(|pfn| self.frames.page(pfn).adopt_lock())
    }
}

impl Drop for Locks<'_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl AddressSpace {
    /// Reads one locked page, unless somebody has while the caller waited for the lock: bytes that are the file's are not
    /// written again, because copies are being made of them.
    pub(super) fn read_page(&self, page: &LockedPage<'_>, index: u64) -> Result<(), IoError> {
        if !guard!("read_page.not_uptodate", !page.page().flags().has(PageFlags::UPTODATE)) {
            return Ok(());
        }
        self.read_run(std::slice::from_ref(page), index, &mut [0; PAGE_SIZE])
    }

    /// Fills a run of locked pages, or a piece of one, from the store, all or none. The store writes into `buffer`, zeros of that size that are this
    /// thread's own: page bytes are only ever touched as atomics.
    fn read_run(&self, pages: &[LockedPage<'_>], first: u64, buffer: &mut [u8]) -> Result<(), IoError> {
        let offset = first * PAGE_SIZE as u64;
        let room = buffer.len();
        let (size, expected, read) = loop {
            let size = self.i_size();
            let expected = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(room);
            let started = Instant::now();
            let read =
                if expected == 0 { Ok(0) } else { self.store.read_at(&mut buffer[..expected], offset) };
            let nanoseconds = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.shared.count(Stat::Reads, 1);
            self.shared.count(Stat::IoNanoseconds, nanoseconds);
            // Truncation waits for the locks of pages that it cuts off, not for that of the page it cuts in two. It sets the
            // size before it changes the store: what is short by the old size may be whole by the new.
            if matches!(read, Ok(n) if n < expected) && self.i_size() != size {
                buffer.fill(0);
                continue;
            }
            break (size, expected, read);
        };
        match read {
            Ok(n) if n == expected => self.shared.count(Stat::ReadBytes, n as u64),
            Ok(got) => {
                self.shared.count(Stat::ReadErrors, 1);
                let short = ShortRead { got, expected, offset, size };
                return Err(IoError::new(
                    std::io::Error::new(std::io::ErrorKind::UnexpectedEof, short),
                    &self.name,
                ));
            }
            Err(error) => {
                self.shared.count(Stat::ReadErrors, 1);
                return Err(IoError::new(error, &self.name));
            }
        }
        for (page, bytes) in pages.iter().zip(buffer.chunks_exact(PAGE_SIZE)) {
            page.page().bytes().write(0, bytes);
            page.set_uptodate();
        }
        Ok(())
    }
}
