//! Loom's mutex, condition variable and notification behind the facade's names. A nap lets others run.

use super::super::clock;
use std::ops::{Deref, DerefMut};

/// Loom's mutex without poisoning.
#[derive(Debug)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

/// Loom's guard, and what it guards, for a sleep that ends by itself.
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    guard: loom::sync::MutexGuard<'a, T>,
    mutex: &'a Mutex<T>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Mutex<T> {
    /// A free mutex around `value`.
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }
    /// Waits for the mutex.
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { guard: self.0.lock().unwrap(), mutex: self }
    }
    /// Takes the mutex if it is free.
    #[track_caller]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok().map(|guard| MutexGuard { guard, mutex: self })
    }
}

/// Loom's condition variable.
#[derive(Debug)]
pub struct Condvar(loom::sync::Condvar);

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl Condvar {
    /// A condition without waiters.
    pub fn new() -> Self {
        Self(loom::sync::Condvar::new())
    }
    /// Releases the mutex, sleeps until notified, and takes the mutex again.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        MutexGuard { guard: self.0.wait(guard.guard).unwrap(), mutex: guard.mutex }
    }
    /// Where time passes, all of `time` does before others had a chance to run; elsewhere as [`Condvar::wait`].
    pub fn wait_for<'a, T>(&self, guard: MutexGuard<'a, T>, time: std::time::Duration) -> MutexGuard<'a, T> {
        if !clock::passes() {
            return self.wait(guard);
        }
        let mutex = guard.mutex;
        drop(guard);
        pause(time);
        mutex.lock()
    }
    /// Wakes one waiter.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }
    /// Wakes all waiters.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// The model thread that will sleep. Not loom's own `park`: there `unpark` orders the woken thread after the waker even
/// if that thread never parks, which would hide a missing ordering on the word it looks at instead.
#[derive(Debug, Clone)]
pub struct Parker(std::sync::Arc<loom::sync::Notify>);

impl Parker {
    /// For the calling thread: each has one.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "as what ships")]
    pub fn new() -> Self {
        loom::thread_local! {
            static PARKER: Parker = Parker(std::sync::Arc::new(loom::sync::Notify::new()));
        }
        PARKER.with(Self::clone)
    }
    /// Sleeps until some [`Parker::unpark`], or once in an execution without any.
    pub fn park(&self) {
        self.0.wait();
    }
    /// A sleep ends as soon as other threads had a chance to run: models have no time.
    pub fn park_for(&self, time: std::time::Duration) {
        pause(time);
    }
    /// Wakes the thread.
    pub fn unpark(&self) {
        self.0.notify();
    }
}

/// A spin loop lets other threads run.
pub fn spin_hint() {
    loom::thread::yield_now();
}

/// Sleeps: for waiting for an event that is not announced.
pub fn pause(time: std::time::Duration) {
    clock::advance(time);
    yield_now();
}

/// Lets other threads run.
pub fn yield_now() {
    loom::thread::yield_now();
}
