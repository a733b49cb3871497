//! Locks that `ThreadSanitizer` can follow; compiled only for `tools/tsan`.
//!
//! The sanitizer sees only code that is compiled with it, and the standard library is not: it sees the fast paths of the mutex,
//! which are inlined into this crate, but nothing of the condition variable and of the once-cell's slow path, so it would report
//! races under contended locks. Here a contended lock repeats its fast path, and a wait for a condition releases the mutex and
//! checks again later. The orderings are those of the real locks, no stronger.

use super::{AtomicU32, Ordering, yield_now};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// A mutex that ignores poisoning.
#[derive(Debug, Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

/// Inside a [`Mutex`].
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    inside: std::sync::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    /// A free mutex around `value`.
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }
    /// Waits for the mutex.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        loop {
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            yield_now();
        }
    }
    /// Takes the mutex if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(inside) => Some(MutexGuard { mutex: self, inside }),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => {
                Some(MutexGuard { mutex: self, inside: poisoned.into_inner() })
            }
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inside
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inside
    }
}

/// A condition variable for [`Mutex`].
#[derive(Debug, Default)]
pub struct Condvar {
    notified: AtomicU32,
}

impl Condvar {
    /// A condition without waiters.
    pub const fn new() -> Self {
        Self { notified: AtomicU32::new(0) }
    }
    /// Releases the mutex, sleeps until notified (or spuriously woken), and takes the mutex again.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        // Relaxed throughout: a real condition variable orders nothing either; its mutex does.
        let before = self.notified.load(Ordering::Relaxed);
        let mutex = guard.mutex;
        drop(guard);
        while self.notified.load(Ordering::Relaxed) == before {
            std::thread::sleep(Duration::from_micros(50));
        }
        mutex.lock()
    }
    /// As [`Condvar::wait`], but with a time limit.
    pub fn wait_for<'a, T>(&self, guard: MutexGuard<'a, T>, time: Duration) -> MutexGuard<'a, T> {
        let mutex = guard.mutex;
        drop(guard);
        // A spurious wake-up, which a waiter must tolerate.
        std::thread::sleep(time.min(Duration::from_micros(50)));
        mutex.lock()
    }
    /// Wakes one waiter; here, all of them, which waiters must tolerate anyway.
    pub fn notify_one(&self) {
        self.notify_all();
    }
    /// Wakes all waiters.
    pub fn notify_all(&self) {
        self.notified.fetch_add(1, Ordering::Relaxed);
    }
}

/// A cell that is filled once.
#[derive(Debug)]
pub struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    filled: AtomicU32,
    turn: Mutex<()>,
}

impl<T> OnceLock<T> {
    /// An empty cell.
    pub const fn new() -> Self {
        Self { value: std::sync::OnceLock::new(), filled: AtomicU32::new(0), turn: Mutex::new(()) }
    }
    /// What is inside, if it is filled.
    pub fn get(&self) -> Option<&T> {
        if self.filled.load(Ordering::Acquire) == 0 { None } else { self.value.get() }
    }
    /// What is inside, filled with `make` if it is empty.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if self.filled.load(Ordering::Acquire) == 0 {
            let _turn = self.turn.lock();
            self.value.get_or_init(make);
            self.filled.store(1, Ordering::Release);
        }
        self.value.get().expect("filled")
    }
}
