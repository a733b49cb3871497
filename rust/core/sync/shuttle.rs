//! The primitives that shuttle schedules: its own, behind the facade's names.
//!
//! Shuttle runs every thread as a coroutine of one system thread and switches between them at each access to an atomic or a lock.
//! It models sequential consistency only, so finding a missing ordering is left to loom. In return it can run whole operations of
//! the core with 4 to 8 threads.

use super::context::Context;
use super::slots::{Slot, Slots};
use std::cell::RefCell;

pub use ::shuttle::{lazy_static, thread, thread_local};
pub use std::sync::atomic::Ordering;

/// A number for each thread of an execution.
pub(crate) fn thread_index() -> usize {
    ::shuttle::current::me().into()
}

/// What [`this_thread`] returns.
pub(crate) type ThreadId = usize;

/// The calling thread of the test.
pub(crate) fn this_thread() -> ThreadId {
    thread_index()
}

thread_local! {
    static CONTEXT: Context = Context::new(&NOBODYS);
}
lazy_static! {
    static ref SLOTS: Slots = Slots::new();
    static ref NOBODYS: Slot = Slot::nobodys();
}

pub(crate) use super::slots::boxed::{chunk_of_slots, drop_chunk_of_slots};

pub(crate) fn slots() -> &'static Slots {
    &SLOTS
}

pub(crate) fn nobodys_slot() -> &'static Slot {
    &NOBODYS
}

pub(crate) fn with_context<R>(work: impl FnOnce(&Context) -> R) -> R {
    CONTEXT.with(work)
}

/// The number is for counters, which the checker does not see; it does see claims.
#[allow(clippy::unnecessary_wraps, reason = "as what ships")]
pub(crate) fn thread_number() -> Option<usize> {
    Some(thread_index())
}

/// Whether the calling thread is the one that this handle denotes.
pub(crate) fn is_this_thread<T>(handle: &thread::JoinHandle<T>) -> bool {
    handle.thread().id() == thread::current().id()
}

/// A test's threads end when the test says so ([`Context::end`]).
pub(crate) fn announces_end() -> bool {
    true
}

/// Tests under shuttle do not fork.
pub(crate) fn epoch() -> u64 {
    1
}

pub(crate) const fn first_chunk() -> usize {
    4
}

/// The lowest slot that is free.
pub(crate) fn first_look() -> usize {
    0
}

/// Guards that are switched off in this run.
pub mod mutant {
    use super::Ordering;
    use std::cell::Cell;

    std::thread_local! {
        static OFF: Cell<Option<&'static str>> = const { Cell::new(None) };
        static MET: Cell<bool> = const { Cell::new(false) };
    }

    /// Switches one name off, or none, for runs on this system thread.
    pub fn switch_off(name: Option<&'static str>) {
        OFF.set(name);
        MET.set(false);
    }

    /// Whether a run has passed the name that is switched off.
    pub fn was_met() -> bool {
        MET.get()
    }

    pub(crate) fn is_off(name: &'static str) -> bool {
        let off = OFF.get() == Some(name);
        if off {
            MET.set(true);
        }
        off
    }

    /// Orderings cannot be weakened here.
    pub(crate) fn ordering(_name: &'static str, order: Ordering) -> Ordering {
        order
    }

    pub(crate) fn fence(_name: &'static str, order: Ordering) {
        super::fence(order);
    }
}

macro_rules! atomic {
    ([$($generics:tt)*] $name:ident, $shuttle:ty, $value:ty) => {
        /// Shuttle's atomic behind the facade.
        pub struct $name $($generics)* ($shuttle);

        #[allow(missing_docs, reason = "each method is the standard one of that name")]
        impl $($generics)* $name $($generics)* {
            pub fn new(value: $value) -> Self {
                Self(<$shuttle>::new(value))
            }
            pub fn load(&self, order: Ordering) -> $value {
                if std::thread::panicking() {
                    // Called for a message that shows the word: a switch to another thread inside the panic hook would never
                    // return. SAFETY: nothing runs beside this thread until it switches.
                    return unsafe { self.0.raw_load() };
                }
                self.0.load(order)
            }
            pub fn load_then_write(&self, order: Ordering) -> $value {
                self.0.load(order)
            }
            pub fn store(&self, value: $value, order: Ordering) {
                self.0.store(value, order);
            }
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                self.0.swap(value, order)
            }
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.0.compare_exchange(current, new, success, failure)
            }
        }

        impl $($generics)* std::fmt::Debug for $name $($generics)* {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

macro_rules! arithmetic {
    ($name:ident, $value:ty) => {
        #[allow(missing_docs, reason = "each method is the standard one of that name")]
        impl $name {
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.0.fetch_add(value, order)
            }
            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.0.fetch_sub(value, order)
            }
            pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.0.fetch_and(value, order)
            }
            pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.0.fetch_or(value, order)
            }
        }
    };
}

atomic!([] AtomicU32, ::shuttle::sync::atomic::AtomicU32, u32);
atomic!([] AtomicU64, ::shuttle::sync::atomic::AtomicU64, u64);
atomic!([<T>] AtomicPtr, ::shuttle::sync::atomic::AtomicPtr<T>, *mut T);
arithmetic!(AtomicU32, u32);
arithmetic!(AtomicU64, u64);

pub use ::shuttle::sync::atomic::fence;
/// Filled without switching threads.
pub use std::sync::OnceLock;

/// Shuttle's mutex without poisoning.
#[derive(Debug, Default)]
pub struct Mutex<T>(::shuttle::sync::Mutex<T>);

/// Releases the mutex when dropped.
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    guard: ::shuttle::sync::MutexGuard<'a, T>,
    mutex: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    /// A free mutex around `value`.
    pub fn new(value: T) -> Self {
        Self(::shuttle::sync::Mutex::new(value))
    }
    /// Waits for the mutex.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let guard = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        MutexGuard { guard, mutex: self }
    }
    /// Takes the mutex if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok().map(|guard| MutexGuard { guard, mutex: self })
    }
}

impl<T> std::ops::Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> std::ops::DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// Shuttle's condition variable.
#[derive(Debug, Default)]
pub struct Condvar(::shuttle::sync::Condvar);

impl Condvar {
    /// A condition without waiters.
    pub fn new() -> Self {
        Self(::shuttle::sync::Condvar::new())
    }
    /// Releases the mutex, sleeps until notified, and takes the mutex again.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let MutexGuard { guard, mutex } = guard;
        MutexGuard { guard: self.0.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner), mutex }
    }
    /// Where time passes, all of `time` does before others had a chance to run; elsewhere as [`Condvar::wait`].
    pub fn wait_for<'a, T>(&self, guard: MutexGuard<'a, T>, time: std::time::Duration) -> MutexGuard<'a, T> {
        if !super::clock::passes() {
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

/// The thread that will sleep.
#[derive(Debug, Clone)]
pub struct Parker(thread::Thread);

impl Parker {
    /// For the calling thread.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "as what ships")]
    pub fn new() -> Self {
        Self(thread::current())
    }
    /// Sleeps until some [`Parker::unpark`].
    #[allow(clippy::unused_self, reason = "as what ships")]
    pub fn park(&self) {
        thread::park();
    }
    /// A sleep ends as soon as other threads had a chance to run: there is no time.
    #[allow(clippy::unused_self, reason = "as what ships")]
    pub fn park_for(&self, time: std::time::Duration) {
        pause(time);
    }
    /// Wakes the thread.
    pub fn unpark(&self) {
        self.0.unpark();
    }
}

/// A spin loop lets other threads run: a thread that only spun at a high priority would starve the one it waits for.
pub fn spin_hint() {
    ::shuttle::hint::spin_loop();
}

/// Sleeps: for waiting for an event that is not announced.
pub fn pause(time: std::time::Duration) {
    super::clock::advance(time);
    yield_now();
}

/// Lets other threads run.
pub fn yield_now() {
    thread::yield_now();
}

/// A point where threads may switch, like any access.
pub(crate) fn switch() {
    // There is no time under shuttle, so a sleep is only that.
    thread::sleep(std::time::Duration::ZERO);
}

/// A number below `end`, drawn by the search as it draws schedules: a schedule that is replayed draws the same.
pub(crate) fn draw(end: usize) -> usize {
    use ::shuttle::rand::Rng as _;
    ::shuttle::rand::thread_rng().gen_range(0..end)
}

std::thread_local! {
    static LIVES: RefCell<Vec<bool>> = const { RefCell::new(Vec::new()) };
}

/// Called first in every execution.
pub fn begin_execution() {
    super::clock::begin_execution();
    LIVES.with(|lives| lives.borrow_mut().clear());
    super::running::begin_execution();
}

/// Dies when its owner is freed: a reader that comes later is reported. Copies are the same cell, so a reader that took one can
/// check without touching the owner.
#[derive(Debug, Clone, Copy)]
pub struct LifeCell(usize);

impl Default for LifeCell {
    fn default() -> Self {
        Self::new()
    }
}

impl LifeCell {
    /// A living object.
    #[must_use]
    pub fn new() -> Self {
        LIVES.with(|lives| {
            let mut lives = lives.borrow_mut();
            lives.push(true);
            Self(lives.len() - 1)
        })
    }
    /// A reader asserts that the object is alive, after other threads had a chance to free it.
    #[track_caller]
    pub fn assert_alive(&self) {
        switch();
        let alive = LIVES.with(|lives| lives.borrow().get(self.0).copied());
        assert_eq!(alive, Some(true), "used after it was freed");
    }
    /// The freer declares the object dead.
    pub fn kill(&self) {
        LIVES.with(|lives| {
            if let Some(alive) = lives.borrow_mut().get_mut(self.0) {
                *alive = false;
            }
        });
    }
}
