//! A reader-writer semaphore with hand-off and downgrade.
//!
//! Owns: which threads are inside. Mirrors the behaviour of `kernel/locking/rwsem.c`: readers share, writers exclude, a thread
//! that arrives while others queue goes to the end of the queue (so neither side starves), and a releaser passes ownership on to
//! the head of the queue. The standard library's lock cannot downgrade at our minimum Rust version.
//!
//! | bits of `state` | meaning | set | cleared |
//! |---|---|---|---|
//! | 31 `WRITER` | a writer is inside | by the writer, or by a releaser for it | by the writer |
//! | 30 `WAITERS` | the queue is not empty | under the queue's mutex | under the queue's mutex |
//! | 0-29 | readers inside | by each reader, or by a releaser for it | by each reader |

use super::{AtomicU32, Mutex, Ordering, Parker, duty, guard, in_order, ord, seeded, spin_hint};
use std::collections::VecDeque;
use std::sync::Arc;

const WRITER: u32 = 1 << 31;
const WAITERS: u32 = 1 << 30;
const READERS: u32 = WAITERS - 1;
/// Checks a busy semaphore this often before sleeping: sections are short, a sleep is not.
const SPINS: u32 = if cfg!(specmm_loom) {
    0
} else if cfg!(specmm_shuttle) {
    1
} else {
    64
};

const QUEUED: u32 = 0;
const GRANTED: u32 = 1;

#[derive(Debug)]
struct Waiter {
    granted: AtomicU32,
    writer: bool,
    parker: Parker,
}

/// The semaphore. The lock and unlock calls are raw: `mm::mmap_lock` and [`RwSem::read_guard`] wrap them in guards.
#[derive(Debug)]
pub struct RwSem {
    state: AtomicU32,
    queue: Mutex<VecDeque<Arc<Waiter>>>,
}

impl Default for RwSem {
    fn default() -> Self {
        Self::new()
    }
}

impl RwSem {
    /// A free semaphore.
    #[must_use]
    pub fn new() -> Self {
        Self { state: AtomicU32::new(0), queue: Mutex::new(VecDeque::new()) }
    }

    /// Tries once to enter as a reader.
    pub fn try_read(&self) -> bool {
        let mut state = self.state.load_then_write(Ordering::Relaxed);
        while guard!("rwsem.read.free", state & (WRITER | WAITERS) == 0) {
            // Pairs with the Release of the writer that left.
            match self.state.compare_exchange(
                state,
                state + 1,
                ord!("rwsem.read.acquire", Acquire),
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(found) => state = found,
            }
        }
        false
    }

    /// Tries once to enter as the writer.
    pub fn try_write(&self) -> bool {
        // Pairs with the Release of every thread that left before.
        self.state
            .compare_exchange(0, WRITER, ord!("rwsem.write.acquire", Acquire), Ordering::Relaxed)
            .is_ok()
    }

    /// Enters as a reader; waits while a writer is inside or any thread queues.
    pub(crate) fn lock_read(&self) {
        if !self.try_read() {
            self.wait(false, Self::try_read);
        }
    }

    /// Enters as the writer; waits until no thread is inside and it is this caller's turn.
    pub(crate) fn lock_write(&self) {
        if !self.try_write() {
            self.wait(true, Self::try_write);
        }
    }

    /// Leaves as a reader.
    pub(crate) fn unlock_read(&self) {
        // Pairs with the Acquire of the next writer.
        let before = self.state.fetch_sub(1, ord!("rwsem.unlock_read.release", Release));
        debug_assert!(before & READERS != 0, "read unlock without a reader");
        if before - 1 == WAITERS {
            duty!("rwsem.unlock_read.pass_on", self.pass_on());
        }
    }

    /// Leaves as the writer.
    pub(crate) fn unlock_write(&self) {
        // Pairs with the Acquire of the next owner.
        let before = self.state.fetch_and(!WRITER, ord!("rwsem.unlock_write.release", Release));
        debug_assert!(before & WRITER != 0, "write unlock without a writer");
        if before & WAITERS != 0 {
            duty!("rwsem.unlock_write.pass_on", self.pass_on());
        }
    }

    /// Turns the writer into a reader without letting another writer in between.
    pub(crate) fn downgrade(&self) {
        // Pairs with the Acquire of the readers that now enter.
        let before = self.state.fetch_sub(WRITER - 1, ord!("rwsem.downgrade.release", Release));
        debug_assert!(before & WRITER != 0, "downgrade without a writer");
        if before & WAITERS != 0 {
            duty!("rwsem.downgrade.pass_on", self.pass_on());
        }
    }

    #[cold]
    fn wait(&self, writer: bool, try_enter: fn(&Self) -> bool) {
        #[allow(clippy::reversed_empty_ranges, reason = "a model does not spin")]
        for _ in 0..SPINS {
            spin_hint();
            if try_enter(self) {
                return;
            }
        }
        let waiter = Arc::new(Waiter { granted: AtomicU32::new(QUEUED), writer, parker: Parker::new() });
        {
            let mut queue = self.queue.lock();
            // A releaser that sees WAITERS comes for the queue and waits for its mutex; one that left before it was set is covered
            // by the grant right here, which comes last.
            in_order!(
                "rwsem.wait.queued_first",
                queue.push_back(Arc::clone(&waiter)),
                in_order!(
                    "rwsem.wait.announced_first",
                    duty!("rwsem.wait.announce", _ = self.state.fetch_or(WAITERS, Ordering::Relaxed)),
                    duty!("rwsem.wait.grant", self.grant(&mut queue))
                )
            );
        }
        // Pairs with the Release in `grant`, which follows the granter's own Acquire.
        while waiter.granted.load(ord!("rwsem.granted.acquire", Acquire)) == QUEUED {
            waiter.parker.park();
        }
    }

    #[cold]
    fn pass_on(&self) {
        let mut queue = self.queue.lock();
        self.grant(&mut queue);
    }

    /// Lets the head of the queue in, and every reader behind a reader, as far as the state allows.
    fn grant(&self, queue: &mut VecDeque<Arc<Waiter>>) {
        self.let_in(queue);
        self.clear_waiters(queue);
    }

    fn let_in(&self, queue: &mut VecDeque<Arc<Waiter>>) {
        while let Some(head) = queue.front() {
            let (blocked_by, enter) = if head.writer { (WRITER | READERS, WRITER) } else { (WRITER, 1) };
            let state = self.state.load_then_write(Ordering::Relaxed);
            if !guard!("rwsem.grant.free", state & blocked_by == 0) {
                break;
            }
            // Acquire on the waiter's behalf, to whom `granted` passes the ordering on.
            if self
                .state
                .compare_exchange(
                    state,
                    state + enter,
                    ord!("rwsem.grant.acquire", Acquire),
                    Ordering::Relaxed,
                )
                .is_err()
            {
                continue;
            }
            let waiter = queue.pop_front().expect("the head was just seen");
            let parker = waiter.parker.clone();
            in_order!(
                "rwsem.grant.told_first",
                waiter.granted.store(GRANTED, ord!("rwsem.grant.release", Release)),
                parker.unpark()
            );
            // Readers behind a reader may be waited for by those inside.
            seeded!("rwsem.grant.one", bug = break);
        }
    }

    fn clear_waiters(&self, queue: &VecDeque<Arc<Waiter>>) {
        if guard!("rwsem.grant.last", queue.is_empty()) {
            duty!("rwsem.grant.clear", _ = self.state.fetch_and(!WAITERS, Ordering::Relaxed));
        }
    }

    /// Enters as a reader until the guard is dropped.
    pub fn read_guard(&self) -> ReadGuard<'_> {
        self.lock_read();
        ReadGuard { sem: self }
    }

    /// Enters as a reader until the guard is dropped, if that is possible without waiting.
    pub fn try_read_guard(&self) -> Option<ReadGuard<'_>> {
        self.try_read().then(|| ReadGuard { sem: self })
    }

    /// Enters as the writer until the guard is dropped, if that is possible without waiting.
    pub fn try_write_guard(&self) -> Option<WriteGuard<'_>> {
        self.try_write().then(|| WriteGuard { sem: self })
    }

    /// Enters as the writer until the guard is dropped.
    pub fn write_guard(&self) -> WriteGuard<'_> {
        self.lock_write();
        WriteGuard { sem: self }
    }
}

/// A reader inside a [`RwSem`].
#[must_use = "dropping the guard leaves the semaphore"]
#[derive(Debug)]
pub struct ReadGuard<'a> {
    sem: &'a RwSem,
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        self.sem.unlock_read();
    }
}

/// The writer inside a [`RwSem`].
#[must_use = "dropping the guard leaves the semaphore"]
#[derive(Debug)]
pub struct WriteGuard<'a> {
    sem: &'a RwSem,
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        self.sem.unlock_write();
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::sync::Tally;

    #[test]
    fn writers_exclude_readers_and_each_other() {
        let sem = Arc::new(RwSem::new());
        let value = Arc::new((Tally::new(), Tally::new()));
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let (sem, value) = (Arc::clone(&sem), Arc::clone(&value));
                std::thread::spawn(move || {
                    for i in 0..2000 {
                        if (i + n) % 3 == 0 {
                            let _inside = sem.write_guard();
                            value.0.add_exclusive(1);
                            value.1.add_exclusive(1);
                        } else {
                            let _inside = sem.read_guard();
                            assert_eq!(value.0.tallied(), value.1.tallied());
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let writes: u64 = (0..4u64).map(|n| (0..2000).filter(|i| (i + n) % 3 == 0).count() as u64).sum();
        assert_eq!(value.0.tallied(), writes, "an exclusive increment was lost");
        assert!(sem.try_write(), "free at the end");
    }

    #[test]
    fn those_that_queue_come_in_turn_and_readers_together() {
        let sem = RwSem::new();
        let order = Mutex::new(Vec::new());
        let enter = |writer: bool, number: u32| {
            if writer {
                sem.lock_write();
            } else {
                sem.lock_read();
            }
            order.lock().push(number);
        };
        let queued = |count| {
            while sem.queue.lock().len() != count {
                std::thread::yield_now();
            }
        };
        let entered = |count| {
            while order.lock().len() != count {
                std::thread::yield_now();
            }
        };
        sem.lock_read();
        std::thread::scope(|scope| {
            for (number, writer) in [true, false, false, true, false].into_iter().enumerate() {
                scope.spawn(move || enter(writer, number as u32));
                queued(number + 1);
                assert!(!sem.try_read() && !sem.try_write(), "it is the turn of those that queue");
            }
            sem.unlock_read();
            entered(1);
            sem.unlock_write();
            entered(3);
            sem.unlock_read();
            assert!(!sem.try_write() && order.lock().len() == 3, "a reader is inside");
            sem.unlock_read();
            entered(4);
            sem.downgrade();
            entered(5);
        });
        sem.unlock_read();
        assert!(!sem.try_write(), "a reader is inside");
        sem.unlock_read();
        assert!(sem.try_write() && !sem.try_read(), "none queues and none is inside");
        let mut order = order.lock().clone();
        order[1..3].sort_unstable();
        assert_eq!(order, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn downgrade_keeps_writers_out_and_lets_readers_in() {
        let sem = RwSem::new();
        sem.lock_write();
        assert!(!sem.try_read());
        sem.downgrade();
        assert!(sem.try_read());
        assert!(!sem.try_write());
        sem.unlock_read();
        sem.unlock_read();
        assert!(sem.try_write());
    }
}
