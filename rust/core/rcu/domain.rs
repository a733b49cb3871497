//! The domain: grace periods, and the work that waits for them.
//!
//! | word | who writes | meaning |
//! |---|---|---|
//! | `Slot::count` of each thread | its owner only | odd: inside a section |
//! | `crowd` | who is inside without a slot | how many are |
//! | `started`, `completed` | the owner of `turn` | grace periods begun and ended |
//!
//! The argument. A section stores its odd count, then passes `light`, then reads shared pointers. A grace period
//! follows the unlinking store with `heavy`, then reads every count. Either the scan sees the odd count and waits, or
//! the section's reads come after the unlinking store and cannot find what is about to be freed. Both stores to a
//! count are Release and the scan's loads Acquire, so the section's accesses happen before the scan ends. The crowd's count
//! is one more that is waited for, until it is zero once.

use super::deferred::{Batch, Deferred, Work};
use super::membarrier;
use crate::sync::context;
use crate::sync::{
    AtomicU64, Mutex, guard, in_order, ord, process_epoch, seeded, slots, spin_hint, yield_now,
};

/// Deferred work that makes [`synchronize_if_much`] act.
const MUCH: u64 = 256;

pub(super) struct Domain {
    turn: Mutex<()>,
    /// Held by the one thread that runs deferred work.
    runner: Mutex<()>,
    started: AtomicU64,
    completed: AtomicU64,
    /// Sections of threads that have no slot.
    pub(super) crowd: AtomicU64,
    deferred: Deferred,
}

/// A ticket from [`snapshot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grace(u64);

impl Domain {
    fn new() -> Self {
        Self {
            turn: Mutex::new(()),
            runner: Mutex::new(()),
            started: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            crowd: AtomicU64::new(0),
            deferred: Deferred::new(),
        }
    }

    /// Lets a grace period pass and answers the work that was deferred before it, if `take` says to. Only the owner of
    /// `runner` may take.
    fn grace_period(&self, take: bool) -> [Batch; 2] {
        let take_now = || if take { self.deferred.take() } else { Batch::empty() };
        let ready = take_now();
        let ticket = snapshot();
        let _turn = self.turn.lock();
        // Batched: another thread's grace period that began after the snapshot serves this caller too.
        if guard!("rcu.batch.elapsed", elapsed(ticket)) {
            return [ready, Batch::empty()];
        }
        // What is deferred once the scan began may be in the hands of readers that the scan does not see.
        let more;
        in_order!("rcu.seed.taken_late", more = take_now(), self.pass());
        [ready, more]
    }

    /// One grace period. The caller holds `turn`.
    fn pass(&self) {
        // Pairs with the Release in `snapshot`. (The fence that follows would do, but membarrier is no fence of the language.)
        let number = self.started.fetch_add(1, ord!("rcu.started.acquire", Acquire)) + 1;
        self.wait_for_readers();
        // Pairs with the Acquire in `elapsed`.
        self.completed.swap(number, ord!("rcu.completed.release", Release));
    }

    /// Waits for every section open now. The caller holds `turn`.
    fn wait_for_readers(&self) {
        membarrier::heavy();
        for slot in slots().made() {
            // Pairs with the Release of the section's end.
            let seen = slot.count.load(ord!("rcu.scan.acquire", Acquire));
            if guard!("rcu.scan.waits", seen & 1 == 0) {
                continue;
            }
            wait_while(|| slot.count.load(ord!("rcu.scan.again.acquire", Acquire)) == seen);
        }
        wait_while(|| {
            // Pairs with the Release of each that leaves: a read-modify-write continues the one before.
            let inside = self.crowd.load(ord!("rcu.crowd.scan.acquire", Acquire));
            !guard!("rcu.crowd.waits", inside == 0)
        });
    }
}

/// Spins first (sections are short), then yields, then sleeps: a reader may have lost its CPU.
fn wait_while(condition: impl Fn() -> bool) {
    let mut rounds = 0_u32;
    while condition() {
        rounds += 1;
        if cfg!(any(specmm_loom, specmm_shuttle)) || (200..1000).contains(&rounds) {
            yield_now();
        } else if rounds < 200 {
            spin_hint();
        } else {
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }
}

/// In the child of a fork a new one: sections of threads that are not there are forgotten, and so is what they deferred, which
/// is the parent's to do.
#[cfg(not(any(specmm_loom, specmm_shuttle)))]
pub(super) fn domain() -> &'static Domain {
    static DOMAIN: crate::sync::PerProcess<Domain> = crate::sync::PerProcess::new(Domain::new);
    DOMAIN.get()
}

#[cfg(any(specmm_loom, specmm_shuttle))]
pub(super) fn domain() -> &'static Domain {
    crate::sync::imp::lazy_static! {
        static ref DOMAIN: Domain = Domain::new();
    }
    &DOMAIN
}

pub(super) fn is_real() -> bool {
    #[cfg(specmm_loom)]
    return model::is_real();
    #[cfg(not(specmm_loom))]
    true
}

pub(super) fn call_rcu(work: Work) {
    #[cfg(specmm_loom)]
    if !is_real() {
        return model::keep(work);
    }
    domain().deferred.push(work);
}

pub(super) fn snapshot() -> Grace {
    if !is_real() {
        return Grace(0);
    }
    // A read-modify-write reads the newest count. A grace period numbered higher read this one's result, so it began after
    // what this thread had unlinked. One of the same number may have begun before.
    let newest = domain().started.fetch_add(0, ord!("rcu.snapshot.release", Release));
    Grace(newest + seeded!("rcu.seed.ticket", 1, bug = 0))
}

pub(super) fn elapsed(ticket: Grace) -> bool {
    // Pairs with the Release in `synchronize`.
    !is_real() || domain().completed.load(ord!("rcu.elapsed.acquire", Acquire)) >= ticket.0
}

pub(super) fn synchronize() {
    if !is_real() {
        return;
    }
    assert!(
        context::with(|thread| thread.nesting.get()) == 0,
        "synchronize inside a read section waits for itself"
    );
    let domain = domain();
    // Whoever runs deferred work holds `runner`: the others need only the grace period.
    let runner = domain.runner.try_lock();
    let ready = domain.grace_period(guard!("rcu.take.runner", runner.is_some()));
    run(ready);
}

/// Runs deferred work, which may come back here.
fn run(ready: [Batch; 2]) {
    /// Ends with the run, a panic included.
    struct Running;
    impl Drop for Running {
        fn drop(&mut self) {
            context::with(|thread| thread.running.set(0));
        }
    }
    if ready.iter().all(Batch::is_empty) {
        return;
    }
    context::with(|thread| thread.running.set(process_epoch()));
    let _running = Running;
    for work in ready.into_iter().flatten() {
        work.run();
    }
}

/// Whether this thread is inside [`run`], in this process.
fn runs() -> bool {
    context::with(|thread| thread.running.get()) == process_epoch()
}

pub(super) fn barrier() {
    // Deferred work that asks for deferred work to be done would wait for itself.
    if !is_real() || !guard!("rcu.barrier.outside", !runs()) {
        return synchronize();
    }
    let domain = domain();
    // What others took before has run when they give the mutex back.
    let _runner =
        seeded!("rcu.seed.barrier_runs_ahead", Some(domain.runner.lock()), bug = domain.runner.try_lock());
    // Work deferred before the call is in the stack as this thread sees it, or was taken by a former runner.
    if !domain.deferred.is_empty() {
        run(domain.grace_period(true));
    }
}

pub(super) fn synchronize_if_much() {
    if is_real() && domain().deferred.waiting() >= MUCH {
        synchronize();
    }
}

/// Deferred work that nobody has taken yet.
#[cfg(all(test, specmm_shuttle))]
pub(super) fn waiting() -> u64 {
    domain().deferred.waiting()
}

/// What the model checker sets: most models leave RCU out and drop deferred work at their end.
#[cfg(specmm_loom)]
#[cfg_attr(not(test), allow(dead_code, reason = "the models set it"))]
pub mod model {
    use super::Work;
    use std::cell::{Cell, RefCell};
    use std::mem::ManuallyDrop;

    std::thread_local! {
        static REAL: Cell<bool> = const { Cell::new(false) };
        // Never dropped with the thread: after an execution that failed, what this would free has died with it.
        static KEPT: RefCell<ManuallyDrop<Vec<Work>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
    }

    /// Whether sections and grace periods are explored.
    pub fn set_real(real: bool) {
        REAL.with(|cell| cell.set(real));
    }
    pub(super) fn is_real() -> bool {
        REAL.with(Cell::get)
    }
    pub(super) fn keep(work: Work) {
        KEPT.with(|kept| kept.borrow_mut().push(work));
    }
    /// Ends the calling thread's section and begins another: what a section should have kept may go.
    pub fn lapse() {
        drop(super::super::ReadSection::of_this_thread());
        std::mem::forget(super::super::read());
    }
    /// Runs the work kept back, at the end of an execution.
    pub fn drain() {
        for work in take() {
            work.run();
        }
    }
    /// Leaks the work kept back by an execution that failed.
    pub fn forget() {
        std::mem::forget(take());
    }
    fn take() -> Vec<Work> {
        KEPT.with(|kept| std::mem::take(&mut **kept.borrow_mut()))
    }
}

/// A wrong way, for the mutants; here sections and grace periods are always real.
#[cfg(specmm_shuttle)]
pub mod model {
    /// Ends the calling thread's section and begins another: what a section should have kept may go.
    pub fn lapse() {
        drop(super::super::ReadSection::of_this_thread());
        std::mem::forget(super::super::read());
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::super::{barrier, call_rcu, read, synchronize};
    use super::{elapsed, snapshot};
    use crate::sync::{AtomicPtr, AtomicU32, Ordering};
    use std::sync::Arc;

    #[test]
    fn nothing_is_freed_under_a_reader() {
        let freed = Arc::new(AtomicU32::new(0));
        let section = read();
        let counter = Arc::clone(&freed);
        call_rcu(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let ticket = snapshot();
        let waiter = std::thread::spawn(synchronize);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(freed.load(Ordering::Relaxed), 0);
        assert!(!elapsed(ticket));
        drop(section);
        waiter.join().unwrap();
        barrier();
        assert!(elapsed(ticket));
        assert_eq!(freed.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_barrier_waits_for_work_that_others_run() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let done = Arc::new(AtomicU32::new(0));
                        let counter = Arc::clone(&done);
                        call_rcu(move || {
                            std::thread::yield_now();
                            counter.fetch_add(1, Ordering::Relaxed);
                        });
                        barrier();
                        assert_eq!(done.load(Ordering::Relaxed), 1);
                    }
                });
            }
        });
    }

    #[test]
    fn readers_see_only_living_values() {
        struct Value(AtomicU32);
        let shared = Arc::new(AtomicPtr::new(Box::into_raw(Box::new(Value(AtomicU32::new(1))))));
        let stop = Arc::new(AtomicU32::new(0));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
                std::thread::spawn(move || {
                    while stop.load(Ordering::Relaxed) == 0 {
                        let _section = read();
                        // SAFETY: replaced values are marked dead only after a grace period.
                        let value = unsafe { &*shared.load(Ordering::Acquire) };
                        assert_eq!(value.0.load(Ordering::Relaxed), 1);
                    }
                })
            })
            .collect();
        for _ in 0..500 {
            let old = shared.swap(Box::into_raw(Box::new(Value(AtomicU32::new(1)))), Ordering::AcqRel);
            synchronize();
            // SAFETY: no reader holds `old` after the grace period.
            let old = unsafe { Box::from_raw(old) };
            old.0.store(0, Ordering::Relaxed);
        }
        stop.store(1, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
        // SAFETY: the readers are gone.
        drop(unsafe { Box::from_raw(shared.load(Ordering::Relaxed)) });
    }
}
