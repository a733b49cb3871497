//! Grace periods: when one has ended, every section that was open when it began has ended too.
//!
//! Owns: the numbers of grace periods, the scan of the readers, the count of readers without a slot. Does not own the slots
//! (`sync/slots.rs`) or the work that waits (`deferred`). Mirrors `kernel/rcu/tree.c` and `get_state_synchronize_rcu`.
//!
//! | word | who writes | meaning |
//! |---|---|---|
//! | `Slot::count` of each thread | its owner only | odd: inside a section |
//! | `crowd` | who is inside without a slot | how many are |
//! | `started`, `completed` | the owner of `turn` | grace periods begun and ended |
//!
//! The argument. A section stores its odd count, then passes `light`, then reads shared pointers. A grace period follows the
//! unlinking store with `heavy`, then reads every count. Either the scan sees the odd count and waits, or the section's reads
//! come after the unlinking store and cannot find what is about to be freed. Both stores to a count are Release and the scan's
//! loads Acquire, so the section's accesses happen before the scan ends. The scan also waits until the crowd's count has been
//! zero once.

use super::membarrier;
#[cfg(all(test, specmm_loom))]
use crate::sync::Ordering;
use crate::sync::{AtomicU64, Mutex, guard, in_order, ord, seeded, slots, spin_hint, yield_now};

pub(super) struct GracePeriods {
    turn: Mutex<()>,
    started: AtomicU64,
    completed: AtomicU64,
    /// Sections of threads that have no slot.
    pub(super) crowd: AtomicU64,
}

/// The number of a grace period that begins after the ticket was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grace(u64);

impl GracePeriods {
    pub(super) fn new() -> Self {
        Self {
            turn: Mutex::new(()),
            started: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            crowd: AtomicU64::new(0),
        }
    }

    pub(super) fn snapshot(&self) -> Grace {
        // A read-modify-write reads the newest count. A grace period with a higher number has read this one's result, so it began
        // after everything that this thread had unlinked. One with the same number may have begun before.
        let newest = self.started.fetch_add(0, ord!("rcu.snapshot.release", Release));
        Grace(newest + seeded!("rcu.seed.ticket", 1, bug = 0))
    }

    pub(super) fn elapsed(&self, ticket: Grace) -> bool {
        // Pairs with the Release in `pass`.
        self.completed.load(ord!("rcu.elapsed.acquire", Acquire)) >= ticket.0
    }

    /// Grace periods that have ended.
    #[cfg(all(test, specmm_loom))]
    pub(super) fn ended(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// Waits for the end of a grace period that begins now or later. `before` runs just before the scan, and what it takes has
    /// waited for the grace period too; `None`: another thread's grace period served this caller.
    pub(super) fn wait<T>(&self, before: impl FnOnce() -> T) -> Option<T> {
        let ticket = self.snapshot();
        let _turn = self.turn.lock();
        // Batched: another thread's grace period that began after the snapshot serves this caller too.
        if guard!("rcu.batch.elapsed", self.elapsed(ticket)) {
            return None;
        }
        // What is deferred after the scan began may be in use by readers that the scan does not see.
        let taken;
        in_order!("rcu.seed.taken_late", taken = before(), self.pass());
        Some(taken)
    }

    /// One grace period. The caller holds `turn`.
    fn pass(&self) {
        // Pairs with the Release in `snapshot`. (The fence that follows would do, but membarrier is no fence of the language.)
        let begin = || self.started.fetch_add(1, ord!("rcu.started.acquire", Acquire));
        // Pairs with the Acquire in `elapsed`.
        let end = || self.completed.fetch_add(1, ord!("rcu.completed.release", Release));
        // A scan serves the tickets that were drawn before it, and no others.
        in_order!(
            "rcu.pass.completed_last",
            in_order!("rcu.pass.numbered_first", begin(), self.wait_for_readers()),
            end()
        );
    }

    /// Waits for every section that is open now. The caller holds `turn`.
    fn wait_for_readers(&self) {
        in_order!("rcu.scan.fence_first", membarrier::heavy(), wait_for_slots());
        // Sections have a slot or are of the crowd, so these two scans may come in any order.
        wait_while(|| {
            // Pairs with the Release of each that leaves: a read-modify-write continues the one before.
            let inside = self.crowd.load(ord!("rcu.crowd.scan.acquire", Acquire));
            !guard!("rcu.crowd.waits", inside == 0)
        });
    }
}

fn wait_for_slots() {
    for slot in slots().made() {
        // Pairs with the Release of the section's end.
        let seen = slot.count.load(ord!("rcu.scan.acquire", Acquire));
        if guard!("rcu.scan.waits", seen & 1 == 0) {
            continue;
        }
        wait_while(|| slot.count.load(ord!("rcu.scan.again.acquire", Acquire)) == seen);
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

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::rcu::read;
    use crate::sync::Ordering;

    #[test]
    fn those_that_wait_at_once_share_a_grace_period() {
        const THREADS: u64 = 8;
        let (grace, arrived) = (GracePeriods::new(), AtomicU64::new(0));
        let section = read();
        let served = std::thread::scope(|scope| {
            let wait = || {
                arrived.fetch_add(1, Ordering::Relaxed);
                grace.wait(|| ()).is_none()
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(wait)).collect();
            while arrived.load(Ordering::Relaxed) < THREADS {
                yield_now();
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert_eq!(grace.completed.load(Ordering::Relaxed), 0, "a section is open");
            drop(section);
            threads.into_iter().map(|thread| u64::from(thread.join().unwrap())).sum::<u64>()
        });
        let [started, completed] =
            [&grace.started, &grace.completed].map(|count| count.load(Ordering::Relaxed));
        assert_eq!((started, completed), (THREADS - served, THREADS - served));
        // One that was under way when the others came, and one for all of these; more if a thread was late.
        assert!((2..THREADS / 2).contains(&completed), "{completed} grace periods");
    }
}
