//! Waiting for a store that may stall, and giving up that wait.
//!
//! Owns: when a waiter gives up: its time-out expires, its file or cache is closed, or the program gives up. Does not own the
//! queue it waits in (`sync::wait`). Each wait belongs to one thread. Mirrors the killable waits of `mm/filemap.c`.

use super::address_space::AddressSpace;
use super::patience::{Closed, LOOK_AGAIN, NAP, should_give_up};
use crate::error::{Error, IoError};
use crate::sync::{Instant, pause};
use std::cell::Cell;
use std::time::Duration;

/// Why a page was not read.
#[derive(Debug)]
pub(crate) enum NotRead {
    /// The store failed.
    Failed(IoError),
    /// The waiter gave up.
    Left(Error),
}

/// One wait for a store that may stall.
pub(super) struct Wait<'a> {
    mapping: &'a AddressSpace,
    /// The closed flag of the open file through which the thread waits, if there is one.
    closed: Option<&'a Closed>,
    /// None: without limit, or beyond the range of the clock.
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
    /// Starts a wait, limited by the store's time-out.
    pub(super) fn new(mapping: &'a AddressSpace, closed: Option<&'a Closed>) -> Self {
        let now = Instant::now();
        let deadline = mapping.read_by.timeout().and_then(|timeout| now.checked_add(timeout));
        let (ask_at, why) = (Cell::new(now + LOOK_AGAIN), Cell::new(Why::Interrupted));
        Self { mapping, closed, deadline, ask_at, why }
    }

    /// How long the caller may sleep before it calls this again; None: give up. The caller holds no lock.
    pub(super) fn nap(&self) -> Option<Duration> {
        let leave = |why| {
            self.why.set(why);
            None
        };
        if !self.mapping.shared.is_open() || self.closed.is_some_and(Closed::get) {
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

    /// The error of a waiter that gave up waiting for the page at `index`.
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

    /// Repeats `attempt` until it succeeds or the wait ends: for locks that are held for long only during a truncation.
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

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::cache::patience::tests::{Gate, cached, give_up};
    use std::thread::sleep;

    #[test]
    fn a_wait_ends_with_the_file_or_the_cache_or_its_time() {
        let (cache, file) = cached(&Gate::new(Some(NAP), 1), 0);
        let open = file.open_file().unwrap();
        let wait = || Wait::new(&open.mapping, Some(&open.closed));
        let late = wait();
        sleep(2 * NAP);
        assert!(late.nap().is_none());
        assert!(matches!(late.error(3), Error::TimedOut { offset, timeout, .. }
            if offset == 3 << crate::page::PAGE_SHIFT && timeout == NAP));
        // Whoever waits through no file is not ended by one.
        file.close().unwrap();
        assert!(Wait::new(&open.mapping, None).nap().is_none_or(|nap| nap <= NAP));
        for wait in [wait(), late] {
            assert!(wait.nap().is_none());
            let error = wait.error(0);
            assert!(matches!(&error, Error::Closed(what) if what == "file \"gate\""), "{error:?}");
        }
        cache.close().unwrap();
        let wait = Wait::new(&open.mapping, None);
        assert!(wait.nap().is_none());
        assert!(matches!(wait.error(0), Error::Closed(what) if what == "the page cache"));
    }

    #[test]
    fn a_wait_sleeps_until_it_is_time_to_ask_or_over() {
        let (_cache, file) = cached(&Gate::new(Some(100 * LOOK_AGAIN), 1), 0);
        let open = file.open_file().unwrap();
        give_up(false);
        let (began, wait) = (Instant::now(), Wait::new(&open.mapping, None));
        for _ in 0..1000 {
            let (nap, passed) = (wait.nap().unwrap(), began.elapsed());
            assert!(nap <= LOOK_AGAIN && (nap + passed >= LOOK_AGAIN), "{nap:?} after {passed:?}");
        }
        assert!(u128::from(give_up(false)) <= began.elapsed().as_millis() / LOOK_AGAIN.as_millis());
        for asked in 0..3 {
            sleep(LOOK_AGAIN);
            assert!(wait.nap().unwrap() > Duration::ZERO);
            assert_eq!(give_up(asked == 2), 1);
        }
        sleep(LOOK_AGAIN);
        assert!(wait.nap().is_none());
        assert!(matches!(wait.error(0), Error::Interrupted(name) if name == "gate"));
        assert_eq!(give_up(false), 1);
        // The end comes before the next question.
        let (_cache, file) = cached(&Gate::new(Some(LOOK_AGAIN / 2), 1), 0);
        let open = file.open_file().unwrap();
        let nap = Wait::new(&open.mapping, None).nap();
        assert!(nap.is_none_or(|nap| nap <= LOOK_AGAIN / 2));
    }

    #[test]
    fn attempts_are_naps_apart() {
        let (_cache, file) = cached(&Gate::new(Some(20 * NAP), 1), 0);
        let open = file.open_file().unwrap();
        let attempts = Cell::new(0);
        let ended = Wait::new(&open.mapping, None).until(0, || {
            attempts.set(attempts.get() + 1);
            None::<()>
        });
        assert!(matches!(ended, Err(Error::TimedOut { .. })));
        assert!((1..60).contains(&attempts.get()), "{} attempts", attempts.get());
    }
}
