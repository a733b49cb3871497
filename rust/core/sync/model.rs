//! What the model checker explores: loom's primitives behind the facade's names, in passes.
//!
//! Stock loom never lets a store move before *another* thread's load of a word that the storing thread has loaded itself
//! (tokio-rs/loom 166, 392): `try_get` and the try-locks have exactly that shape. So every model runs in passes.
//!
//! | pass | a load is | explores |
//! |---|---|---|
//! | A | loom's | stale reads, not every interleaving |
//! | B | a compare-and-exchange that cannot succeed | every interleaving, newest values |
//! | C | B's for words this thread writes later ([`AtomicU64::load_then_write`]), A's otherwise | stale reads and these interleavings |
//! | twin | loom's, after a read-modify-write on a word that stands beside the one accessed | every interleaving *and* stale reads, dearly: for small models |
//! | stale CAS | C's, and a compare-and-exchange may fail by a stale read, twice an execution | what C11 allows a failing exchange |
//!
//! Not explored: load buffering, more than the last seven stores of a word, more than five threads.

use super::context::Context;
use super::slots::{Slot, Slots};
use std::cell::Cell;

pub use loom::{lazy_static, thread_local};
pub use std::sync::atomic::Ordering;
/// Models start no threads of the core's own.
pub use std::thread;

/// How loads behave in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Loom as it is.
    A,
    /// Newest values, every interleaving.
    B,
    /// Newest values where the thread writes the word later.
    C,
    /// As C, and exchanges may fail by a stale read.
    StaleCas,
    /// Loom as it is, but every access first touches a companion word, which makes it a point of interference.
    Twin,
}

impl Pass {
    /// The passes of every model.
    pub const ALL: [Self; 4] = [Self::A, Self::B, Self::C, Self::StaleCas];
}

/// Stale failures of exchanges allowed in one execution: a retry loop must end.
const STALE_FAILURES: u32 = 2;

std::thread_local! {
    static PASS: Cell<Pass> = const { Cell::new(Pass::A) };
    static STALE_LEFT: Cell<u32> = const { Cell::new(0) };
    static NEXT_THREAD: Cell<usize> = const { Cell::new(0) };
}

/// Sets the pass for models on this OS thread.
pub fn set_pass(pass: Pass) {
    PASS.with(|cell| cell.set(pass));
}

/// Called first in every execution.
pub fn begin_execution() {
    STALE_LEFT.with(|cell| cell.set(STALE_FAILURES));
    NEXT_THREAD.with(|cell| cell.set(0));
    set_claims_meet(false);
}

/// The pass under way.
#[must_use]
pub fn pass() -> Pass {
    PASS.with(Cell::get)
}

/// A number for each model thread.
pub(crate) fn thread_index() -> usize {
    loom::thread_local! {
        static INDEX: usize = NEXT_THREAD.with(|next| next.replace(next.get() + 1));
    }
    INDEX.with(|index| *index)
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

/// The number is for counters, which are out of the checker's sight: claims are not.
#[allow(clippy::unnecessary_wraps, reason = "as what ships")]
pub(crate) fn thread_number() -> Option<usize> {
    Some(thread_index())
}

/// Whether the calling thread is the one that this handle stands for.
pub(crate) fn is_this_thread<T>(handle: &thread::JoinHandle<T>) -> bool {
    handle.thread().id() == thread::current().id()
}

/// Threads of a test end when it says so ([`Context::end`]).
pub(crate) fn announces_end() -> bool {
    true
}

/// Nobody forks here.
pub(crate) fn epoch() -> u64 {
    1
}

std::thread_local! {
    static FIRST_LOOK_IS_THE_SAME: Cell<bool> = const { Cell::new(false) };
}

/// Whether all threads look for a slot from the first one on, as in what ships, or each from one of its own: then claims do
/// not meet, which keeps models small that are not about them.
pub fn set_claims_meet(meet: bool) {
    FIRST_LOOK_IS_THE_SAME.with(|cell| cell.set(meet));
}

pub(crate) fn first_look() -> usize {
    if FIRST_LOOK_IS_THE_SAME.with(Cell::get) { 0 } else { thread_index() }
}

/// The one guard, step or ordering that is switched off in this run.
pub mod mutant {
    use super::Ordering;
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    std::thread_local! {
        static OFF: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
        static MET: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
    }

    /// Switches one name off, or none. `name:acquire` and `name:release` take that half from an acquire-release ordering,
    /// `name:seqcst` makes a sequentially consistent fence acquire-release; without a part everything goes.
    pub fn switch_off(name: Option<&str>) {
        let split = |name: &str| {
            let (name, part) = name.split_once(':').unwrap_or((name, ""));
            (name.to_owned(), part.to_owned())
        };
        OFF.with(|off| *off.borrow_mut() = name.map(split));
    }

    /// Whether a run on this OS thread has passed `name`.
    pub fn has_met(name: &str) -> bool {
        let name = name.split(':').next().unwrap_or(name);
        MET.with(|met| met.borrow().contains(name))
    }

    fn weakened<R>(name: &'static str, how: impl FnOnce(Option<&str>) -> R) -> R {
        MET.with(|met| met.borrow_mut().insert(name));
        OFF.with(|off| {
            how(off.borrow().as_ref().filter(|(off, _)| off == name).map(|(_, part)| part.as_str()))
        })
    }

    pub(crate) fn is_off(name: &'static str) -> bool {
        weakened(name, |part| part.is_some())
    }

    pub(crate) fn ordering(name: &'static str, order: Ordering) -> Ordering {
        weakened(name, |part| match (part, order) {
            (None, _) => order,
            (Some("acquire"), Ordering::AcqRel) => Ordering::Release,
            (Some("release"), Ordering::AcqRel) => Ordering::Acquire,
            (Some(""), Ordering::Acquire | Ordering::Release) => Ordering::Relaxed,
            (Some(part), _) => panic!("{name} is {order:?}: it has no part {part:?}"),
        })
    }

    pub(crate) fn fence(name: &'static str, order: Ordering) {
        let order = weakened(name, |part| match (part, order) {
            (None, _) => Some(order),
            (Some("seqcst"), Ordering::SeqCst) => Some(Ordering::AcqRel),
            (Some(""), _) => None, // a relaxed fence does not exist
            (Some(part), _) => panic!("{name} is {order:?}: it has no part {part:?}"),
        });
        if let Some(order) = order {
            super::trace::note(|| format!("{name}: fence {order:?}"));
            loom::sync::atomic::fence(order);
        }
    }
}

/// What each thread did in the execution under way, for counterexamples.
pub mod trace {
    use std::cell::RefCell;
    use std::fmt::Debug;
    use std::panic::Location;

    std::thread_local! {
        static STEPS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    }

    /// Starts an empty record; without this nothing is recorded.
    pub fn restart() {
        STEPS.with(|steps| *steps.borrow_mut() = Some(Vec::new()));
    }

    /// The steps recorded since, oldest first.
    pub fn take() -> Vec<String> {
        STEPS.with(|steps| steps.borrow_mut().take()).unwrap_or_default()
    }

    /// Adds a remark to the record.
    pub fn note(what: impl FnOnce() -> String) {
        STEPS.with(|steps| {
            if let Some(steps) = steps.borrow_mut().as_mut() {
                steps.push(format!("thread {} | {}", super::current_thread(), what()));
            }
        });
    }

    #[track_caller]
    pub(super) fn access(operation: &str, value: impl Debug) {
        let at = Location::caller();
        note(|| format!("{}:{} {operation} {value:?}", at.file(), at.line()));
    }
}

/// For the record only: threads are named in the order in which they first touched something.
fn current_thread() -> String {
    format!("{:?}", loom::thread::current().id()).chars().filter(char::is_ascii_digit).collect()
}

/// Names that a model must reach in some execution.
pub mod coverage {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    std::thread_local! {
        static REACHED: RefCell<BTreeMap<String, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// This execution came here.
    pub fn reach(point: impl ToString) {
        REACHED.with(|reached| *reached.borrow_mut().entry(point.to_string()).or_default() += 1);
    }

    /// Takes what was reached since the last call.
    pub fn take() -> BTreeMap<String, u64> {
        REACHED.with(|reached| std::mem::take(&mut *reached.borrow_mut()))
    }
}

/// The word beside an atomic in the twin pass.
struct Companion(Option<loom::sync::atomic::AtomicUsize>);

impl Companion {
    fn new() -> Self {
        Self((pass() == Pass::Twin).then(|| loom::sync::atomic::AtomicUsize::new(0)))
    }
    fn touch(&self) {
        if let Some(word) = &self.0 {
            word.fetch_add(1, Ordering::Relaxed);
        }
    }
}

macro_rules! atomic {
    ([$($generics:tt)*] $name:ident, $loom:ty, $value:ty, $sentinel:expr) => {
        /// Loom's atomic behind the facade.
        pub struct $name $($generics)* ($loom, Companion);

        #[allow(missing_docs, reason = "each method is the standard one of that name")]
        impl $($generics)* $name $($generics)* {
            #[track_caller]
            pub fn new(value: $value) -> Self {
                Self(<$loom>::new(value), Companion::new())
            }

            #[track_caller]
            fn newest(&self, order: Ordering) -> $value {
                self.1.touch();
                match self.0.compare_exchange($sentinel, $sentinel, Ordering::AcqRel, order) {
                    Ok(value) | Err(value) => value,
                }
            }

            #[track_caller]
            fn as_loom_likes(&self, order: Ordering) -> $value {
                self.1.touch();
                self.0.load(order)
            }

            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                let value = if pass() == Pass::B { self.newest(order) } else { self.as_loom_likes(order) };
                trace::access("load", value);
                value
            }

            #[track_caller]
            pub fn load_then_write(&self, order: Ordering) -> $value {
                let stale = matches!(pass(), Pass::A | Pass::Twin);
                let value = if stale { self.as_loom_likes(order) } else { self.newest(order) };
                trace::access("load", value);
                value
            }

            #[track_caller]
            pub fn store(&self, value: $value, order: Ordering) {
                trace::access("store", value);
                self.1.touch();
                self.0.store(value, order);
            }

            #[track_caller]
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                self.1.touch();
                let before = self.0.swap(value, order);
                trace::access("swap", (before, value));
                before
            }

            #[track_caller]
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                if pass() == Pass::StaleCas && STALE_LEFT.with(Cell::get) > 0 {
                    let stale = self.0.load(failure);
                    // Others ran meanwhile.
                    if stale != current && STALE_LEFT.with(Cell::get) > 0 {
                        STALE_LEFT.with(|left| left.set(left.get() - 1));
                        trace::access("compare_exchange fails by a stale read", stale);
                        return Err(stale);
                    }
                }
                self.1.touch();
                let result = self.0.compare_exchange(current, new, success, failure);
                trace::access("compare_exchange", (current, new, result));
                result
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
            #[track_caller]
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.1.touch();
                let before = self.0.fetch_add(value, order);
                trace::access("fetch_add", (before, value));
                before
            }
            #[track_caller]
            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.1.touch();
                let before = self.0.fetch_sub(value, order);
                trace::access("fetch_sub", (before, value));
                before
            }
            #[track_caller]
            pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.1.touch();
                let before = self.0.fetch_and(value, order);
                trace::access("fetch_and", (before, value));
                before
            }
            #[track_caller]
            pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.1.touch();
                let before = self.0.fetch_or(value, order);
                trace::access("fetch_or", (before, value));
                before
            }
        }
    };
}

atomic!([] AtomicU32, loom::sync::atomic::AtomicU32, u32, 0x5E17_15E1);
atomic!([] AtomicU64, loom::sync::atomic::AtomicU64, u64, 0x5E17_15E1_5E17_15E1);
atomic!([<T>] AtomicPtr, loom::sync::atomic::AtomicPtr<T>, *mut T, std::ptr::without_provenance_mut(0x5E17_15E0));
arithmetic!(AtomicU32, u32);
arithmetic!(AtomicU64, u64);

pub use loom::sync::MutexGuard;
pub use loom::sync::atomic::fence;
pub use std::sync::OnceLock;

/// A full fence for protocols that only models have.
pub fn full_fence() {
    trace::note(|| "full fence".into());
    fence(Ordering::SeqCst);
}

/// Loom's mutex without poisoning.
#[derive(Debug)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

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
        self.0.lock().unwrap()
    }
    /// Takes the mutex if it is free.
    #[track_caller]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
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
    /// A condition nobody waits for.
    pub fn new() -> Self {
        Self(loom::sync::Condvar::new())
    }
    /// Gives the mutex back, sleeps until notified, takes it again.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap()
    }
    /// As [`Condvar::wait`]: in models time never passes.
    pub fn wait_for<'a, T>(&self, guard: MutexGuard<'a, T>, time: std::time::Duration) -> MutexGuard<'a, T> {
        let _ = time;
        self.wait(guard)
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
    /// A nap is over whenever the others were let run: models have no time.
    pub fn park_for(&self, time: std::time::Duration) {
        pause(time);
    }
    /// Wakes the thread.
    pub fn unpark(&self) {
        self.0.notify();
    }
}

/// A spin loop lets others run.
pub fn spin_hint() {
    loom::thread::yield_now();
}

/// Sleeps: for those who wait for what nobody announces.
pub fn pause(time: std::time::Duration) {
    let _ = time;
    yield_now();
}

/// Lets others run.
pub fn yield_now() {
    loom::thread::yield_now();
}

/// Dies when its owner is freed: loom reports a reader that is not ordered before that. Copies are the same cell, so a
/// reader that took one need not touch the owner to ask; cells are leaked for that.
#[derive(Debug, Clone, Copy)]
pub struct LifeCell(&'static loom::cell::UnsafeCell<bool>);

// SAFETY: loom checks every access of the cell for races; that is what it is for.
unsafe impl Send for LifeCell {}
// SAFETY: as above.
unsafe impl Sync for LifeCell {}

impl Default for LifeCell {
    fn default() -> Self {
        Self::new()
    }
}

impl LifeCell {
    /// A living object.
    #[must_use]
    pub fn new() -> Self {
        Self(Box::leak(Box::new(loom::cell::UnsafeCell::new(true))))
    }
    /// A reader asserts that the object is alive and that no free races with it.
    #[track_caller]
    pub fn assert_alive(&self) {
        // SAFETY: loom checks the access; the pointer is valid while the cell is borrowed.
        self.0.with(|alive| assert!(unsafe { *alive }, "used after it was freed"));
    }
    /// The freer declares the object dead.
    #[track_caller]
    pub fn kill(&self) {
        // SAFETY: as above.
        self.0.with_mut(|alive| unsafe { *alive = false });
    }
}
