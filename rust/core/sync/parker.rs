//! What one thread sleeps on; the threads that wake it hold clones.
//!
//! Not the standard library's parking, which cannot be used once a thread's end has begun. The checkers' builds sleep on what
//! loom and shuttle have for it; there only models of this file use it.

use super::{Condvar, Mutex, duty, guard, in_order};
use std::sync::Arc;
use std::time::Duration;

/// A bed.
#[derive(Debug, Clone, Default)]
pub struct Parker(Arc<Bed>);

#[derive(Debug, Default)]
struct Bed {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Parker {
    /// For the calling thread.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sleeps until some [`Parker::unpark`].
    pub fn park(&self) {
        let mut woken = self.0.woken.lock();
        while !guard!("park.woken", *woken) {
            woken = self.0.changed.wait(woken);
        }
        duty!("park.forgets", *woken = false);
    }

    /// As [`Parker::park`], but with a time limit. It may return early: the caller checks its condition in a loop.
    pub fn park_for(&self, time: Duration) {
        let mut woken = self.0.woken.lock();
        if !*woken {
            woken = self.0.changed.wait_for(woken, time);
        }
        *woken = false;
    }

    /// Wakes the thread, or makes its next [`Parker::park`] return at once.
    pub fn unpark(&self) {
        // A sleeper looks under the mutex before it sleeps, and sees this, or sleeps already and is called.
        in_order!("park.told_first", *self.0.woken.lock() = true, self.0.changed.notify_one());
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use std::time::Instant;

    const SHORT: Duration = Duration::from_millis(10);
    const LONG: Duration = Duration::from_secs(20);

    /// Whether a sleep with a limit lasts as long as the limit. The system may wake a thread for nothing, but not each time.
    fn sleeps(parker: &Parker) -> bool {
        (0..10).any(|_| {
            let began = Instant::now();
            parker.park_for(SHORT);
            began.elapsed() >= SHORT
        })
    }

    #[test]
    fn a_wake_up_ends_one_sleep_the_present_or_the_next() {
        let parker = Parker::new();
        let began = Instant::now();
        parker.unpark();
        parker.unpark();
        parker.park();
        assert!(sleeps(&parker), "two wake-ups before a sleep are one");
        parker.unpark();
        parker.park_for(LONG);
        assert!(sleeps(&parker));
        for park in [Parker::park, |parker: &Parker| parker.park_for(LONG)] {
            std::thread::scope(|scope| {
                let sleeper = scope.spawn(|| park(&parker));
                std::thread::sleep(SHORT);
                parker.unpark();
                sleeper.join().unwrap();
            });
        }
        assert!(began.elapsed() < LONG, "no sleep lasted until its limit");
    }
}
