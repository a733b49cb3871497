//! The domain of the process: its grace periods, and the deferred work, which runs in threads that wait for one.
//!
//! Owns: the one domain, and the rule that one thread at a time runs deferred work, for which a barrier waits. Does not own the
//! scan of readers (`grace`) nor the stack of work (`deferred`). Mirrors `rcu_do_batch` and `rcu_barrier` of `kernel/rcu/tree.c`.

use super::deferred::{Batch, Deferred, Work};
use super::grace::GracePeriods;
use crate::sync::{Mutex, context, duty, guard, in_order, process_epoch, seeded};

/// Deferred work that makes [`synchronize_if_much`] act.
const MUCH: u64 = if cfg!(any(specmm_loom, specmm_shuttle)) { 2 } else { 256 };

const INSIDE: &str = "a wait for a grace period inside a read section waits for itself";

pub(super) struct Domain {
    pub(super) grace: GracePeriods,
    /// Held by the one thread that runs deferred work.
    runner: Mutex<()>,
    deferred: Deferred,
}

impl Domain {
    fn new() -> Self {
        Self { grace: GracePeriods::new(), runner: Mutex::new(()), deferred: Deferred::new() }
    }

    /// Waits for a grace period and returns the work that was deferred before it, if `take` is set. Only the owner of `runner`
    /// may take it.
    fn grace_period(&self, take: bool) -> [Batch; 2] {
        let take_now = || if take { self.deferred.take() } else { Batch::empty() };
        let (ready, more);
        in_order!("rcu.take.before_ticket", ready = take_now(), more = self.grace.wait(take_now));
        [ready, more.unwrap_or_else(Batch::empty)]
    }
}

/// A new one in a forked child: sections of threads that do not exist there are forgotten, and so is what they deferred, which is
/// for the parent to do.
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
    return super::model::is_real();
    #[cfg(not(specmm_loom))]
    true
}

pub(super) fn call_rcu(work: Work) {
    #[cfg(specmm_loom)]
    if !is_real() {
        return super::model::keep(work);
    }
    domain().deferred.push(work);
}

pub(super) fn synchronize() {
    if !is_real() {
        return;
    }
    assert!(is_outside(), "{INSIDE}");
    let domain = domain();
    // The thread that runs deferred work holds `runner`; the others need only the grace period.
    let runner = domain.runner.try_lock();
    let ready = domain.grace_period(guard!("rcu.take.runner", runner.is_some()));
    in_order!("rcu.synchronize.runs_first", run(ready), drop(runner));
}

pub(super) fn barrier() {
    // Deferred work that waits for deferred work would wait for itself.
    if !is_real() || !guard!("rcu.barrier.outside", !runs()) {
        return synchronize();
    }
    assert!(is_outside(), "{INSIDE}");
    let domain = domain();
    // What others took before has run when they release the mutex.
    let runner =
        seeded!("rcu.seed.barrier_runs_ahead", Some(domain.runner.lock()), bug = domain.runner.try_lock());
    // Work deferred before the call is in the stack as this thread sees it, or was taken by a former runner.
    if !domain.deferred.is_empty() {
        let ready = domain.grace_period(true);
        in_order!("rcu.barrier.runs_first", run(ready), drop(runner));
    }
}

/// Whether this thread is in no section.
fn is_outside() -> bool {
    context::with(|thread| thread.nesting.get()) == 0
}

pub(super) fn synchronize_if_much() {
    if is_real() && guard!("rcu.much.enough", domain().deferred.waiting() >= MUCH) {
        duty!("rcu.much.waits", synchronize());
    }
}

#[cfg(test)]
pub(super) fn snapshot() -> super::grace::Grace {
    domain().grace.snapshot()
}

#[cfg(test)]
pub(super) fn elapsed(ticket: super::grace::Grace) -> bool {
    domain().grace.elapsed(ticket)
}

#[cfg(all(test, specmm_loom))]
pub(super) fn ended() -> u64 {
    domain().grace.ended()
}

/// Deferred work that nobody has taken yet.
#[cfg(all(test, any(specmm_loom, specmm_shuttle)))]
pub(super) fn waiting() -> u64 {
    domain().deferred.waiting()
}

/// Runs deferred work, which may call this again.
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
    fn work_runs_in_the_order_in_which_it_was_deferred() {
        let done = Arc::new(crate::sync::Mutex::new(Vec::new()));
        for number in 0..5 {
            let done = Arc::clone(&done);
            call_rcu(move || done.lock().push(number));
        }
        barrier();
        assert_eq!(*done.lock(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_barrier_waits_for_work_under_way_whatever_its_thread_did_before() {
        let [began, may_end, ended] = [0; 3].map(|zero| Arc::new(AtomicU32::new(zero)));
        let wait_for = |flag: &AtomicU32| {
            while flag.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
        };
        // Runs nothing, if no other test has deferred work meanwhile.
        barrier();
        synchronize();
        std::thread::scope(|scope| {
            let flags = [&began, &may_end, &ended].map(Arc::clone);
            call_rcu(move || {
                flags[0].store(1, Ordering::Relaxed);
                wait_for(&flags[1]);
                std::thread::sleep(std::time::Duration::from_millis(5));
                flags[2].store(1, Ordering::Relaxed);
            });
            scope.spawn(barrier);
            wait_for(&began);
            may_end.store(1, Ordering::Relaxed);
            barrier();
            assert_eq!(ended.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn a_barrier_takes_a_grace_period_only_if_something_is_deferred() {
        // Other tests of this process may defer something meanwhile, or wait.
        let none_passes = || {
            barrier();
            let ticket = snapshot();
            barrier();
            !elapsed(ticket)
        };
        assert!((0..10_000).any(|_| none_passes()));
    }

    #[test]
    fn deferred_work_may_wait_and_defer() {
        let done = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&done);
        call_rcu(move || {
            barrier();
            synchronize();
            barrier();
            call_rcu(move || {
                counter.fetch_add(1, Ordering::Relaxed);
            });
        });
        barrier();
        barrier();
        assert_eq!(done.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn nested_sections_are_one_until_the_last_ends() {
        for inner_first in [true, false] {
            let (outer, inner) = (read(), read());
            let ticket = snapshot();
            std::thread::scope(|scope| {
                let waiter = scope.spawn(synchronize);
                let (early, late) = if inner_first { (inner, outer) } else { (outer, inner) };
                drop(early);
                drop(read());
                std::thread::sleep(std::time::Duration::from_millis(5));
                assert!(!elapsed(ticket), "one is open");
                drop(late);
                waiter.join().unwrap();
            });
            assert!(elapsed(ticket));
        }
    }

    #[test]
    fn waiting_inside_a_section_is_refused() {
        for wait in [synchronize, barrier] {
            let inside = || {
                let _section = read();
                wait();
            };
            assert!(std::panic::catch_unwind(inside).is_err());
            wait();
        }
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
