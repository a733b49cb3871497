//! Waiting for a store that may not answer, and leaving that wait.
//!
//! Owns: when a waiter leaves (its time is over, its file or cache is closed, the program gives up), and the wait for the bytes
//! of one page. The queue that is left is `sync::wait`'s. Mirrors the killable waits of `mm/filemap.c`.

use super::AddressSpace;
use super::file::OpenFile;
use super::io::Submitted;
use super::requests::{Answer, Request};
use crate::error::{Error, IoError};
use crate::page::{LockedPage, PageFlags, PageRef};
use crate::sync::rwsem::{ReadGuard, WriteGuard};
use crate::sync::{Tally, guard, pause, seeded};
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a waiter sleeps before it asks whether the program wants it to give up.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long a thread sleeps that waits for what nobody announces.
pub(super) const NAP: Duration = Duration::from_millis(1);

#[cfg(not(any(specmm_loom, specmm_shuttle)))]
static SHOULD_GIVE_UP: crate::sync::OnceLock<fn() -> bool> = crate::sync::OnceLock::new();

/// From now on a thread that waits for a frame, or for a store that may stall ([`ReadBy::Workers`](crate::store::ReadBy::Workers)), asks `check` about twenty
/// times a second, holding no lock; true ends its wait, and its request fails: with
/// [`Error::OutOfFrames`] or [`Error::Interrupted`]. For programs whose
/// users may interrupt them. The first call counts, for the whole process.
#[cfg(not(any(specmm_loom, specmm_shuttle)))]
pub fn give_up_waiting_when(check: fn() -> bool) {
    SHOULD_GIVE_UP.get_or_init(|| check);
}

#[cfg(not(any(specmm_loom, specmm_shuttle)))]
pub(super) fn should_give_up() -> bool {
    SHOULD_GIVE_UP.get().is_some_and(|check| check())
}

#[cfg(any(specmm_loom, specmm_shuttle))]
pub(super) fn should_give_up() -> bool {
    false
}

/// Why a page has no bytes.
#[derive(Debug)]
pub(crate) enum NotRead {
    /// The store failed.
    Failed(IoError),
    /// The waiter left.
    Left(Error),
}

/// One wait for a store that may stall.
pub(super) struct Wait<'a> {
    mapping: &'a AddressSpace,
    /// The open file whose closing ends the wait, if it is one.
    open: Option<&'a OpenFile>,
    /// None: for ever, or later than the clock can tell.
    deadline: Option<Instant>,
    ask_at: Cell<Instant>,
    why: Cell<Why>,
}

#[derive(Debug, Clone, Copy)]
enum Why {
    Closed,
    TimedOut,
    Interrupted,
}

impl<'a> Wait<'a> {
    /// From now on, as long as the store's time-out says.
    pub(super) fn new(mapping: &'a AddressSpace, open: Option<&'a OpenFile>) -> Self {
        let now = Instant::now();
        let deadline = mapping.read_by.timeout().and_then(|timeout| now.checked_add(timeout));
        let (ask_at, why) = (Cell::new(now + LOOK_AGAIN), Cell::new(Why::Interrupted));
        Self { mapping, open, deadline, ask_at, why }
    }

    /// How long to sleep at most before this is asked again; None: leave. The caller holds no lock.
    pub(super) fn nap(&self) -> Option<Duration> {
        let leave = |why| {
            self.why.set(why);
            None
        };
        if self.mapping.shared.require_open().is_err() || self.open.is_some_and(OpenFile::is_closed) {
            return leave(Why::Closed);
        }
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return leave(Why::TimedOut);
        }
        if now >= self.ask_at.get() {
            if should_give_up() {
                return leave(Why::Interrupted);
            }
            self.ask_at.set(Instant::now() + LOOK_AGAIN);
        }
        let next = self.deadline.map_or(self.ask_at.get(), |deadline| deadline.min(self.ask_at.get()));
        Some(next.saturating_duration_since(now))
    }

    /// What the waiter says that left while it waited for the page at `index`.
    pub(super) fn error(&self, index: u64) -> Error {
        let name = &self.mapping.name;
        match self.why.get() {
            Why::Closed => match self.mapping.shared.require_open() {
                Err(closed) => closed,
                Ok(()) => Error::Closed(format!("file {name:?}")),
            },
            Why::TimedOut => Error::TimedOut {
                file: name.clone(),
                offset: index << crate::page::PAGE_SHIFT,
                timeout: self.mapping.read_by.timeout().unwrap_or_default(),
            },
            Why::Interrupted => Error::Interrupted(name.clone()),
        }
    }

    /// Tries until something is had or the patience ends, for what is held long only while somebody truncates.
    pub(super) fn until<T>(&self, index: u64, attempt: impl Fn() -> Option<T>) -> Result<T, Error> {
        loop {
            if let Some(had) = attempt() {
                return Ok(had);
            }
            let nap = self.nap().ok_or_else(|| self.error(index))?;
            pause(nap.min(NAP));
        }
    }
}

impl AddressSpace {
    /// Waits for the bytes of a page to which the caller holds a reference, and reads them or has them read if need be. False: it
    /// was truncated. `open` is the open file whose closing ends the wait.
    pub(super) fn bring(
        self: &Arc<Self>,
        page: PageRef<'_>,
        index: u64,
        open: Option<&OpenFile>,
    ) -> Result<bool, NotRead> {
        if self.read_by.may_stall() {
            return self.have_brought(page, index, open);
        }
        let lock = page.lock();
        if !page.is_at(self.id(), index) {
            return Ok(false);
        }
        super::fill::read_page(self, &lock, index).map_err(NotRead::Failed)?;
        Ok(true)
    }

    fn have_brought(
        self: &Arc<Self>,
        page: PageRef<'_>,
        index: u64,
        open: Option<&OpenFile>,
    ) -> Result<bool, NotRead> {
        let wait = Wait::new(self, open);
        let io = &self.shared.io;
        loop {
            let lock = self.lock_brought(page, index, &wait)?;
            if !page.is_at(self.id(), index) {
                return Ok(false);
            }
            if page.flags().has(PageFlags::UPTODATE) {
                return Ok(true);
            }
            // Truncation waits for reads before it enters: none may begin after that. (In the order of locks this one comes
            // before the page's, so it is only tried.)
            let stable = seeded!("bring.stable", Some(None), self.stable().map(Some));
            let Some(stable) = stable else {
                drop(lock);
                let entered = wait.until(index, || self.stable());
                drop(entered.map_err(NotRead::Left)?);
                continue;
            };
            let answer = Arc::new(Answer::new());
            let source = Arc::<Self>::clone(self);
            let pfns = vec![lock.into_pfn()];
            let submitted =
                io.submit(Request { source, first: index, pfns, answer: Some(Arc::clone(&answer)) });
            drop(stable);
            match submitted {
                Submitted::Yours(errand) => errand.run(),
                Submitted::Queued => {
                    // Who unlocked the page before this thread locked it may be late with its wake-up, and wake this one for
                    // that: so it looks whether the page is still locked.
                    while answer.get().is_none() && page.flags().has(PageFlags::LOCKED) {
                        if !page.wait_unlocked_patiently(&|| wait.nap()) {
                            io.abandon(self.id(), index, Some(&answer));
                            return Err(NotRead::Left(wait.error(index)));
                        }
                    }
                }
                Submitted::Refused => {}
            }
            // Who saw the page unlocked sees the answer, which came before.
            return match answer.get() {
                Some(answer) => answer.clone().map(|()| true).map_err(NotRead::Failed),
                None => Err(NotRead::Left(self.unanswered())),
            };
        }
    }

    /// Locks a page that may be part of a read.
    fn lock_brought<'f>(
        &self,
        page: PageRef<'f>,
        index: u64,
        wait: &Wait<'_>,
    ) -> Result<LockedPage<'f>, NotRead> {
        if let Some(lock) = page.try_lock() {
            return Ok(lock);
        }
        // The window that it is part of may be at the end of the queue.
        if let Some(errand) = self.shared.io.hurry(self.id(), index) {
            errand.run();
        }
        page.lock_patiently(&|| wait.nap()).ok_or_else(|| {
            self.shared.io.abandon(self.id(), index, None);
            NotRead::Left(wait.error(index))
        })
    }

    /// The error of a read that was given up without an answer.
    fn unanswered(&self) -> Error {
        let panicked = || std::io::Error::other("the store panicked");
        self.shared.require_open().err().unwrap_or_else(|| Error::Io(IoError::new(panicked(), &self.name)))
    }

    /// Enters `invalidate_lock` as a reader; with a store that may stall only if that can be had at once, and nobody waits to
    /// truncate.
    pub(super) fn stable(&self) -> Option<ReadGuard<'_>> {
        if !self.read_by.may_stall() {
            return Some(self.invalidate_lock.read_guard());
        }
        // So that readers, one after the other, cannot keep a truncation out for ever. A look that comes early costs it a round.
        if self.truncaters.get() > 0 { None } else { self.invalidate_lock.try_read_guard() }
    }

    /// Enters `invalidate_lock` as the writer, at a moment when no store that may stall is reading pages from `first` on. From
    /// then on none does, because such reads begin under this lock: so whoever is inside waits for no store. `open` is as for
    /// [`AddressSpace::bring`].
    pub(super) fn quiet(&self, first: u64, open: Option<&OpenFile>) -> Result<WriteGuard<'_>, Error> {
        if !self.read_by.may_stall() {
            return Ok(self.invalidate_lock.write_guard());
        }
        let _waiting = Waiting::new(&self.truncaters);
        let wait = Wait::new(self, open);
        let io = &self.shared.io;
        loop {
            wait.until(first, || (!io.reads(self.id(), first)).then_some(()))?;
            let inside = wait.until(first, || self.invalidate_lock.try_write_guard())?;
            if guard!("quiet.none_began", !io.reads(self.id(), first)) {
                return Ok(inside);
            }
        }
    }
}

/// Counts a thread as long as it lives.
struct Waiting<'a>(&'a Tally);

impl<'a> Waiting<'a> {
    fn new(count: &'a Tally) -> Self {
        count.add(1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests;
