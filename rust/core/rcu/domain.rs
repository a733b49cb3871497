//! The domain: a slot per thread, a scan per grace period.
//!
//! | word | who writes | meaning |
//! |---|---|---|
//! | `Slot::count` | its thread only | odd: inside a section |
//! | `started`, `completed` | the owner of `turn` | grace periods begun and ended |
//!
//! The argument. A section stores its odd count, then passes `light`, then reads shared pointers. A grace period
//! follows the unlinking store with `heavy`, then reads every count. Either the scan sees the odd count and waits, or
//! the section's reads come after the unlinking store and cannot find what is about to be freed. Both stores to a
//! count are Release and the scan's loads Acquire, so the section's accesses happen before the scan ends.

use super::membarrier;
use crate::sync::{
    AtomicPtr, AtomicU64, LifeCell, Mutex, Ordering, Tally, guard, ord, seeded, spin_hint, thread_slot,
    yield_now,
};
use std::marker::PhantomData;

type Work = Box<dyn FnOnce() + Send>;

/// Deferred work, in a stack: pushing takes no lock, so a speculative fault may defer too.
struct Deferred {
    work: Work,
    next: *mut Deferred,
    life: LifeCell,
}

const CHUNK: usize = if cfg!(specmm_loom) {
    5
} else if cfg!(specmm_shuttle) {
    4
} else {
    64
};
const CHUNKS: usize = if cfg!(specmm_loom) {
    1
} else if cfg!(specmm_shuttle) {
    3
} else {
    1024
};
/// Deferred work that makes [`synchronize_if_much`] act.
const MUCH: u64 = 256;

/// One thread's announcement, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Slot {
    count: AtomicU64,
}

type Chunk = [Slot; CHUNK];

struct Domain {
    chunks: [AtomicPtr<Chunk>; CHUNKS],
    turn: Mutex<()>,
    /// Held by the one thread that runs deferred work.
    runner: Mutex<()>,
    started: AtomicU64,
    completed: AtomicU64,
    deferred: AtomicPtr<Deferred>,
    /// How much is in the stack, or a little more: a hint for [`super::synchronize_if_much`].
    waiting: Tally,
}

/// A ticket from [`super::snapshot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grace(u64);

impl Domain {
    /// The slot of thread number `index`; chunks are never freed.
    fn slot(&self, index: usize) -> &Slot {
        assert!(index < CHUNK * CHUNKS, "{index} threads alive at once exceed the reader slots");
        let head = &self.chunks[index / CHUNK];
        // Pairs with the Release below: the chunk's slots are initialised.
        let mut chunk = head.load_then_write(ord!("rcu.chunk.acquire", Acquire));
        if chunk.is_null() {
            let fresh: Box<Chunk> = Box::new(std::array::from_fn(|_| Slot { count: AtomicU64::new(0) }));
            let fresh = Box::into_raw(fresh);
            match head.compare_exchange(
                std::ptr::null_mut(),
                fresh,
                ord!("rcu.chunk.publish.release", Release),
                ord!("rcu.chunk.lost", Acquire),
            ) {
                Ok(_) => chunk = fresh,
                Err(winner) => {
                    // SAFETY: `fresh` came from Box::into_raw above and was not published.
                    drop(unsafe { Box::from_raw(fresh) });
                    chunk = winner;
                }
            }
        }
        // SAFETY: published chunks are initialised and live as long as the domain, which is static.
        unsafe { &(&*chunk)[index % CHUNK] }
    }

    fn defer(&self, work: Work) {
        self.waiting.add(1);
        let item =
            Box::into_raw(Box::new(Deferred { work, next: std::ptr::null_mut(), life: LifeCell::new() }));
        let mut head = self.deferred.load_then_write(Ordering::Relaxed);
        loop {
            // SAFETY: `item` is not published yet.
            unsafe { (*item).next = head };
            // Pairs with the Acquire in `take_deferred`.
            match self.deferred.compare_exchange(
                head,
                item,
                ord!("rcu.defer.release", Release),
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(found) => head = found,
            }
        }
    }

    /// All work deferred so far, oldest first.
    fn take_deferred(&self) -> Vec<Work> {
        let mut item = self.deferred.swap(std::ptr::null_mut(), ord!("rcu.take.acquire", Acquire));
        let mut ready = Vec::new();
        while !item.is_null() {
            // SAFETY: the swap made this thread the owner of the whole stack.
            let deferred = unsafe { Box::from_raw(item) };
            deferred.life.kill();
            item = deferred.next;
            ready.push(deferred.work);
        }
        self.waiting.sub(ready.len() as u64);
        ready.reverse();
        ready
    }

    /// Lets a grace period pass and answers the work that was deferred before it, if `take` says to. Only the owner of
    /// `runner` may take.
    fn grace_period(&self, take: bool) -> Vec<Work> {
        let mut ready = if take { self.take_deferred() } else { Vec::new() };
        let ticket = snapshot();
        let _turn = self.turn.lock();
        // Batched: another thread's grace period that began after the snapshot serves this caller too.
        if guard!("rcu.batch.elapsed", elapsed(ticket)) {
            return ready;
        }
        let mut take_more = || {
            if take {
                ready.append(&mut self.take_deferred());
            }
        };
        // What is deferred once the scan began may be in the hands of readers that the scan does not see.
        seeded!("rcu.seed.taken_late", (self.pass(), take_more()).1, (take_more(), self.pass()).1);
        ready
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
        for head in &self.chunks {
            // Pairs with the Release in `slot`.
            let chunk = head.load(ord!("rcu.scan.chunk.acquire", Acquire));
            if chunk.is_null() {
                continue;
            }
            // SAFETY: as in `slot`.
            for slot in unsafe { &*chunk } {
                // Pairs with the Release of the section's end.
                let seen = slot.count.load(ord!("rcu.scan.acquire", Acquire));
                if guard!("rcu.scan.waits", seen & 1 == 0) {
                    continue;
                }
                let mut rounds = 0_u32;
                while slot.count.load(ord!("rcu.scan.again.acquire", Acquire)) == seen {
                    rounds += 1;
                    wait_a_little(rounds);
                }
            }
        }
    }
}

/// The domain outlives the threads of a process, but not those of one execution under shuttle.
#[cfg(specmm_shuttle)]
impl Drop for Domain {
    fn drop(&mut self) {
        for head in &self.chunks {
            let chunk = head.load(Ordering::Relaxed);
            if !chunk.is_null() {
                // SAFETY: it came from Box::into_raw, and every thread of the execution has ended.
                drop(unsafe { Box::from_raw(chunk) });
            }
        }
    }
}

/// Spins first (sections are short), then yields, then sleeps: a reader may have lost its CPU.
fn wait_a_little(rounds: u32) {
    if cfg!(any(specmm_loom, specmm_shuttle)) || (200..1000).contains(&rounds) {
        yield_now();
    } else if rounds < 200 {
        spin_hint();
    } else {
        std::thread::sleep(std::time::Duration::from_micros(50));
    }
}

#[cfg(not(any(specmm_loom, specmm_shuttle)))]
mod global {
    use super::{AtomicPtr, AtomicU64, CHUNKS, Domain, Mutex, Tally, local, membarrier};
    use crate::sync::PerProcess;

    static DOMAIN: PerProcess<Domain> = PerProcess::new(fresh());

    const fn fresh() -> Domain {
        Domain {
            chunks: [const { AtomicPtr::new(std::ptr::null_mut()) }; CHUNKS],
            turn: Mutex::new(()),
            runner: Mutex::new(()),
            started: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            deferred: AtomicPtr::new(std::ptr::null_mut()),
            waiting: Tally::new(),
        }
    }

    pub(super) fn domain() -> &'static Domain {
        DOMAIN.get()
    }
    pub(super) fn is_real() -> bool {
        true
    }

    /// In a forked child: sections of threads that are not here are forgotten, and so is what they deferred, which is the
    /// parent's to do.
    pub(crate) fn forked() {
        membarrier::forked();
        DOMAIN.renew(fresh());
        local::with(local::Local::forked);
    }
}
#[cfg(not(any(specmm_loom, specmm_shuttle)))]
pub(crate) use global::forked;

#[cfg(any(specmm_loom, specmm_shuttle))]
mod global {
    use super::{AtomicPtr, AtomicU64, CHUNKS, Domain, Mutex, Tally};

    crate::sync::imp::lazy_static! {
        static ref DOMAIN: Domain = Domain {
            chunks: std::array::from_fn::<_, CHUNKS, _>(|_| AtomicPtr::new(std::ptr::null_mut())),
            turn: Mutex::new(()),
            runner: Mutex::new(()),
            started: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            deferred: AtomicPtr::new(std::ptr::null_mut()),
            waiting: Tally::new(),
        };
    }

    pub(super) fn domain() -> &'static Domain {
        &DOMAIN
    }
    pub(super) fn is_real() -> bool {
        #[cfg(specmm_loom)]
        return super::model::is_real();
        #[cfg(specmm_shuttle)]
        true
    }
}

use global::{domain, is_real};

/// What a thread knows of its own sections.
mod local {
    use super::{Slot, domain, membarrier, thread_slot};
    use std::cell::Cell;

    pub(super) struct Local {
        pub(super) slot: Cell<Option<&'static Slot>>,
        pub(super) nesting: Cell<u32>,
        pub(super) count: Cell<u64>,
        pub(super) running: Cell<bool>,
    }

    impl Local {
        const fn new() -> Self {
            Self {
                slot: Cell::new(None),
                nesting: Cell::new(0),
                count: Cell::new(0),
                running: Cell::new(false),
            }
        }
        /// The thread's slot, found on first use.
        #[inline]
        pub(super) fn slot(&self) -> &'static Slot {
            match self.slot.get() {
                Some(slot) => slot,
                None => self.claim(),
            }
        }
        #[cold]
        fn claim(&self) -> &'static Slot {
            membarrier::choose();
            let slot = domain().slot(thread_slot::index());
            // Only this thread writes the slot now, and its former owner left it even.
            self.count.set(slot.count.load(crate::sync::Ordering::Relaxed));
            self.slot.set(Some(slot));
            slot
        }
        /// The one thread of a forked child, which is in no section, has no slot in the new domain yet.
        #[cfg(not(any(specmm_loom, specmm_shuttle)))]
        pub(super) fn forked(&self) {
            debug_assert!(self.nesting.get() == 0, "fork inside a read section");
            self.slot.set(None);
            self.running.set(false);
        }
    }

    #[cfg(not(any(specmm_loom, specmm_shuttle)))]
    thread_local! {
        static LOCAL: Local = const { Local::new() };
    }
    #[cfg(any(specmm_loom, specmm_shuttle))]
    crate::sync::imp::thread_local! {
        static LOCAL: Local = Local::new();
    }

    #[inline]
    pub(super) fn with<R>(work: impl FnOnce(&Local) -> R) -> R {
        LOCAL.with(work)
    }
}

/// An open read section; not for other threads.
#[must_use = "dropping the section ends it"]
#[derive(Debug)]
pub struct ReadSection {
    _this_thread: PhantomData<*const ()>,
}

#[inline]
pub(super) fn read() -> ReadSection {
    if is_real() {
        local::with(|local| {
            let slot = local.slot();
            let nesting = local.nesting.get();
            local.nesting.set(nesting + 1);
            if guard!("rcu.enter.outermost", nesting == 0) {
                let count = local.count.get() + 1;
                local.count.set(count);
                // Release: the accesses of the previous section stay before it.
                slot.count.store(count, ord!("rcu.enter.release", Release));
                membarrier::light();
            }
        });
    }
    ReadSection { _this_thread: PhantomData }
}

impl Drop for ReadSection {
    #[inline]
    fn drop(&mut self) {
        if is_real() {
            local::with(|local| {
                let nesting = local.nesting.get() - 1;
                local.nesting.set(nesting);
                if guard!("rcu.exit.outermost", nesting == 0) {
                    let count = local.count.get() + 1;
                    local.count.set(count);
                    // Pairs with the scan's Acquire: the section's accesses happen before the grace period ends.
                    local.slot().count.store(count, ord!("rcu.exit.release", Release));
                }
            });
        }
    }
}

pub(super) fn call_rcu(work: Work) {
    #[cfg(specmm_loom)]
    if !is_real() {
        return model::keep(work);
    }
    domain().defer(work);
}

pub(super) fn snapshot() -> Grace {
    if !is_real() {
        return Grace(0);
    }
    // A read-modify-write reads the newest count. A grace period numbered higher read this one's result, so it began after
    // what this thread had unlinked. One of the same number may have begun before.
    let newest = domain().started.fetch_add(0, ord!("rcu.snapshot.release", Release));
    Grace(newest + seeded!("rcu.seed.ticket", 0, 1))
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
        local::with(|local| local.nesting.get() == 0),
        "synchronize inside a read section waits for itself"
    );
    let domain = domain();
    // Whoever runs deferred work holds `runner`: the others need only the grace period.
    let runner = domain.runner.try_lock();
    let ready = domain.grace_period(guard!("rcu.take.runner", runner.is_some()));
    run(ready);
}

/// Runs deferred work, which may come back here.
fn run(ready: Vec<Work>) {
    if ready.is_empty() {
        return;
    }
    local::with(|local| local.running.set(true));
    for work in ready {
        work();
    }
    local::with(|local| local.running.set(false));
}

pub(super) fn barrier() {
    // Deferred work that asks for deferred work to be done would wait for itself.
    if !is_real() || !guard!("rcu.barrier.outside", local::with(|local| !local.running.get())) {
        return synchronize();
    }
    let domain = domain();
    // What others took before has run when they give the mutex back.
    let _runner =
        seeded!("rcu.seed.barrier_runs_ahead", domain.runner.try_lock(), Some(domain.runner.lock()));
    // Relaxed: work deferred before the call is in the stack as this thread sees it, or was taken by a former runner.
    if !domain.deferred.load_then_write(Ordering::Relaxed).is_null() {
        run(domain.grace_period(true));
    }
}

pub(super) fn synchronize_if_much() {
    if is_real() && domain().waiting.get() >= MUCH {
        synchronize();
    }
}

/// Deferred work that nobody has taken yet.
#[cfg(specmm_shuttle)]
pub(super) fn waiting() -> u64 {
    domain().waiting.get()
}

/// What the model checker sets: most models leave RCU out and drop deferred work at their end.
#[cfg(specmm_loom)]
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
        drop(super::ReadSection { _this_thread: std::marker::PhantomData });
        std::mem::forget(super::read());
    }
    /// Runs the work kept back, at the end of an execution.
    pub fn drain() {
        for work in take() {
            work();
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
        drop(super::ReadSection { _this_thread: std::marker::PhantomData });
        std::mem::forget(super::read());
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::super::{barrier, call_rcu, elapsed, read, snapshot, synchronize};
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
