//! Hashed wait queues for the bits of page flags words.
//!
//! Owns: which thread sleeps on which word, and the hand-off. Does not own the words: the page lock (`page::lock`) is the other
//! half of the protocol. Mirrors `wait_on_page_bit_common` and `wake_page_function` of Linux 5.12's `mm/filemap.c`.
//!
//! A waiter sets the word's WAITERS bit *under the queue's mutex* and only then tries the lock bit; an unlocker clears the lock
//! bit and reads WAITERS in one read-modify-write. So either the waiter gets the bit or the unlocker visits the queue. A WAITERS
//! bit without waiters is allowed (it costs one needless visit), the opposite is not.
//!
//! A waiter may leave. It decides under the queue's mutex, under which wakers also remove the waiters they wake: a waiter that is
//! still in the queue has been told nothing and removes itself; one that is not was woken, or was handed the lock, and goes on as
//! if it had never wanted to leave. So a waiter that leaves loses neither a wake-up nor the lock.

use super::{AtomicU32, LifeCell, Mutex, Ordering, Parker, duty, guard, in_order, ord};
use crate::reserve;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Number of queues, as in Linux (`PAGE_WAIT_TABLE_BITS` 8).
const QUEUES: usize = if cfg!(any(specmm_loom, specmm_shuttle)) { 1 } else { 256 };
/// After this many rounds that lost the bit to a newcomer the waiter is handed the lock (`page_lock_unfairness`).
const UNFAIR_ROUNDS: u32 = if cfg!(any(specmm_loom, specmm_shuttle)) { 1 } else { 5 };

const SLEEPING: u32 = 0;
const WOKEN: u32 = 1;
const HANDED_OVER: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// Only to see the bit clear at some moment.
    Look,
    /// The lock, competing for it after each wake-up.
    Lock,
    /// The lock, given by the waker.
    HandOff,
}

/// Called by a waiter that may leave, before each sleep and with no lock of the table held: returns how long to sleep at most
/// before the next call, or None to leave.
pub type Patience<'a> = dyn Fn() -> Option<Duration> + 'a;

/// How a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slept {
    /// The waiter owns the bit, or has seen it clear if that was all it wanted.
    Done,
    /// The waiter was woken to try for the bit.
    TryAgain,
    /// Its patience ended before it was woken.
    Left,
}

#[derive(Debug)]
struct Waiter {
    word: usize,
    wants: Wants,
    state: AtomicU32,
    parker: Parker,
    /// Ends when the waiter returns. Here a reference count keeps the entry; in Linux it is on the waiter's stack.
    life: LifeCell,
}

/// The two bits of a word that the table works with.
#[derive(Debug, Clone, Copy)]
pub struct LockBits {
    /// The lock itself.
    pub locked: u32,
    /// There may be waiters in the queue.
    pub waiters: u32,
}

/// The queues. One table serves all pages of a cache.
#[derive(Debug)]
pub struct WaitTable {
    queues: Box<[Mutex<VecDeque<Arc<Waiter>>>]>,
    bits: LockBits,
}

impl WaitTable {
    /// A table for words that use `bits`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn new(bits: LockBits) -> crate::Result<Self> {
        let mut queues = reserve::vec(QUEUES, "the wait queues")?;
        queues.resize_with(QUEUES, || Mutex::new(VecDeque::new()));
        Ok(Self { queues: queues.into_boxed_slice(), bits })
    }

    fn queue(&self, word: &AtomicU32) -> (&Mutex<VecDeque<Arc<Waiter>>>, usize) {
        let key = std::ptr::from_ref(word).addr();
        // Descriptors are a few words apart: multiply so that neighbours spread.
        let hash = (key >> 3).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        (&self.queues[hash % self.queues.len()], key)
    }

    /// Tries once to take the lock bit of `word`.
    #[inline]
    #[must_use]
    pub fn try_lock(&self, word: &AtomicU32) -> bool {
        // Pairs with the Release in `unlock`.
        let before = word.fetch_or(self.bits.locked, ord!("page.lock.acquire", Acquire));
        guard!("page.lock.was_free", before & self.bits.locked == 0)
    }

    /// Waits for the lock bit of `word`.
    pub fn lock(&self, word: &AtomicU32) {
        let locked = self.lock_while(word, None);
        debug_assert!(locked, "nobody leaves without being asked");
    }

    /// As [`WaitTable::lock`], but leaves when `patience` ends; returns false then. A waiter that is handed the lock at that very
    /// moment has it.
    #[must_use]
    pub fn lock_patiently(&self, word: &AtomicU32, patience: &Patience<'_>) -> bool {
        self.lock_while(word, Some(patience))
    }

    fn lock_while(&self, word: &AtomicU32, patience: Option<&Patience<'_>>) -> bool {
        let mut rounds = 0;
        while !self.try_lock(word) {
            debug_assert!(rounds <= UNFAIR_ROUNDS, "passed over after it asked to be handed the lock");
            let may_lose = guard!("page.lock.rounds", rounds < UNFAIR_ROUNDS);
            let wants = if may_lose { Wants::Lock } else { Wants::HandOff };
            match self.sleep(word, wants, patience) {
                Slept::Done => return true,
                Slept::TryAgain => rounds += 1,
                Slept::Left => return false,
            }
        }
        true
    }

    /// Waits until the lock bit of `word` was seen clear.
    #[allow(dead_code, reason = "reads that an event loop awaits will")]
    pub fn wait_unlocked(&self, word: &AtomicU32) {
        let seen = self.wait_while_locked(word, None);
        debug_assert!(seen, "nobody leaves without being asked");
    }

    /// As [`WaitTable::wait_unlocked`], but leaves when `patience` ends; returns false then.
    #[must_use]
    pub fn wait_unlocked_patiently(&self, word: &AtomicU32, patience: &Patience<'_>) -> bool {
        self.wait_while_locked(word, Some(patience))
    }

    fn wait_while_locked(&self, word: &AtomicU32, patience: Option<&Patience<'_>>) -> bool {
        // Pairs with the Release in `unlock`: a thread that sees the bit clear sees what the owner did.
        word.load(ord!("page.wait.acquire", Acquire)) & self.bits.locked == 0
            || self.sleep(word, Wants::Look, patience) == Slept::Done
    }

    /// Clears the lock bit of `word` and wakes the waiters that are due.
    #[inline]
    pub fn unlock(&self, word: &AtomicU32) {
        // One read-modify-write: clearing first and reading WAITERS later would lose a waiter in between.
        let before = word.fetch_and(!self.bits.locked, ord!("page.unlock.release", Release));
        debug_assert!(before & self.bits.locked != 0, "unlock of an unlocked page");
        if !guard!("page.unlock.sees_waiters", before & self.bits.waiters == 0) {
            self.wake(word);
        }
    }

    /// Queues up and sleeps, as long as its patience lasts if it has one.
    #[cold]
    fn sleep(&self, word: &AtomicU32, wants: Wants, patience: Option<&Patience<'_>>) -> Slept {
        let (queue, key) = self.queue(word);
        let waiter;
        {
            let announce = || word.fetch_or(self.bits.waiters, Ordering::Relaxed);
            let is_taken = || {
                guard!(
                    "page.sleep.last_try",
                    match wants {
                        Wants::Look =>
                            word.load(ord!("page.wait.recheck.acquire", Acquire)) & self.bits.locked != 0,
                        Wants::Lock | Wants::HandOff => !self.try_lock(word),
                    }
                )
            };
            // The queue first: a waker that finds nobody there takes WAITERS back. Then WAITERS, and the try last: an unlocker
            // between the two sees WAITERS.
            let (mut waiters, taken);
            in_order!(
                "page.sleep.queue_first",
                waiters = queue.lock(),
                in_order!("page.seed.waiters_late", announce(), taken = is_taken())
            );
            if !taken {
                return Slept::Done;
            }
            waiter = Arc::new(Waiter {
                word: key,
                wants,
                state: AtomicU32::new(SLEEPING),
                parker: Parker::new(),
                life: LifeCell::new(),
            });
            waiters.push_back(Arc::clone(&waiter));
        }
        let slept = loop {
            // Pairs with the Release in `wake`, which follows the waker's Acquire of the bit.
            match waiter.state.load(ord!("page.woken.acquire", Acquire)) {
                SLEEPING => match patience.map(|patience| patience()) {
                    None => waiter.parker.park(),
                    Some(Some(nap)) => waiter.parker.park_for(nap),
                    Some(None) if Self::leave(queue, &waiter) => break Slept::Left,
                    // Told meanwhile, which the next check sees.
                    Some(None) => {}
                },
                WOKEN if wants != Wants::Look => break Slept::TryAgain,
                _ => break Slept::Done,
            }
        };
        waiter.life.kill();
        slept
    }

    /// Removes a waiter from the queue, unless a waker has: then it must go on. True: it was in the queue and has left.
    #[cold]
    fn leave(queue: &Mutex<VecDeque<Arc<Waiter>>>, waiter: &Arc<Waiter>) -> bool {
        let mut queue = queue.lock();
        let place = queue.iter().position(|other| Arc::ptr_eq(other, waiter));
        if let Some(at) = place {
            duty!("page.leave.dequeue", drop(queue.remove(at)));
        }
        guard!("page.leave.untold", place.is_some())
    }

    /// Wakes those that only watch the bit and the first that wants the lock, and hands the lock over where that is due.
    #[cold]
    fn wake(&self, word: &AtomicU32) {
        let (queue, key) = self.queue(word);
        let mut queue = queue.lock();
        let mut at = 0;
        while at < queue.len() {
            // Other words hash here too.
            if !guard!("page.wake.word", queue[at].word == key) {
                at += 1;
                continue;
            }
            let wants = queue[at].wants;
            let state = match wants {
                // Another thread took the bit meanwhile: its unlock will see WAITERS and come here. This only saves a wake-up.
                Wants::Lock if word.load(Ordering::Relaxed) & self.bits.locked != 0 => break,
                Wants::HandOff if guard!("page.wake.takes_the_bit", self.try_lock(word)) => HANDED_OVER,
                Wants::HandOff => break,
                Wants::Look | Wants::Lock => WOKEN,
            };
            let waiter = queue.remove(at).expect("the index is in range");
            let parker = waiter.parker.clone();
            let tell = || waiter.state.store(state, ord!("page.wake.release", Release));
            let release = || in_order!("page.wake.told_first", tell(), parker.unpark());
            // The store is the last access to the entry: a waiter that sees it may return.
            in_order!("page.seed.touched_late", waiter.life.assert_alive(), release());
            if wants != Wants::Look {
                break;
            }
        }
        let last = guard!("page.wake.last", !queue.iter().any(|waiter| waiter.word == key));
        let clear = || last.then(|| word.fetch_and(!self.bits.waiters, Ordering::Relaxed));
        // A waiter that queues up between the two would find its announcement taken back.
        in_order!("page.wake.cleared_in_queue", clear(), drop(queue));
    }

    /// Whether no thread sleeps in any queue: true at quiescence.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queues.iter().all(|queue| queue.lock().is_empty())
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use std::cell::Cell;

    const LOCKED: u32 = 1;
    const WAITERS: u32 = 2;
    const ALIEN: u32 = 4;

    fn table() -> WaitTable {
        WaitTable::new(LockBits { locked: LOCKED, waiters: WAITERS }).unwrap()
    }

    /// A patience of so many naps.
    fn naps(left: u32) -> impl Fn() -> Option<Duration> {
        let left = Cell::new(left);
        move || {
            left.set(left.get().checked_sub(1)?);
            Some(Duration::from_millis(1))
        }
    }

    fn wait_for(condition: impl Fn() -> bool) {
        while !condition() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn other_bits_of_a_word_are_left_alone_and_waiters_leave_nothing_behind() {
        let (table, word) = (table(), AtomicU32::new(ALIEN));
        assert!(table.wait_unlocked_patiently(&word, &naps(0)), "it is free");
        assert!(table.lock_patiently(&word, &naps(0)), "it is free");
        assert!(!table.try_lock(&word));
        for left in [0, 1, 3] {
            assert!(!table.lock_patiently(&word, &naps(left)));
            assert!(!table.wait_unlocked_patiently(&word, &naps(left)));
            assert!(table.is_idle());
        }
        table.unlock(&word);
        assert_eq!(word.load(Ordering::Relaxed), ALIEN, "the first unlock takes WAITERS back");
        assert!(table.try_lock(&word));
        assert_eq!(word.load(Ordering::Relaxed), ALIEN | LOCKED);
    }

    #[test]
    fn an_unlock_wakes_all_that_look_and_one_that_locks() {
        let (table, word) = (table(), AtomicU32::new(LOCKED));
        let [looked, locked] = [0, 0].map(AtomicU32::new);
        let queued = |count| wait_for(|| table.queue(&word).0.lock().len() == count);
        std::thread::scope(|scope| {
            for number in 1..=2 {
                scope.spawn(|| {
                    table.wait_unlocked(&word);
                    looked.fetch_add(1, Ordering::Relaxed);
                });
                queued(number);
            }
            for number in 3..=5 {
                scope.spawn(|| {
                    table.lock(&word);
                    locked.fetch_add(1, Ordering::Relaxed);
                });
                queued(number);
            }
            assert!(!table.is_idle());
            for round in 1..=3 {
                table.unlock(&word);
                assert_eq!(table.queue(&word).0.lock().len() as u32, 3 - round, "the others sleep on");
                wait_for(|| locked.load(Ordering::Relaxed) == round);
                assert_ne!(word.load(Ordering::Relaxed) & LOCKED, 0, "it is locked for the one woken");
            }
            wait_for(|| looked.load(Ordering::Relaxed) == 2);
            assert!(table.is_idle());
            table.unlock(&word);
        });
        assert_eq!(word.load(Ordering::Relaxed), 0);
    }

    /// Patience is asked for without a lock of the table: what other threads might do then, it does itself.
    #[test]
    fn a_waiter_that_keeps_losing_is_handed_the_lock() {
        let (table, word, lost) = (table(), AtomicU32::new(LOCKED), Cell::new(0));
        let newcomer = || {
            table.unlock(&word);
            if table.try_lock(&word) {
                lost.set(lost.get() + 1);
                assert!(lost.get() < 100, "it is never handed the lock");
            }
            Some(Duration::from_secs(20))
        };
        assert!(table.lock_patiently(&word, &newcomer));
        assert_eq!((lost.get(), word.load(Ordering::Relaxed)), (UNFAIR_ROUNDS, LOCKED));
        assert!(table.is_idle());
    }

    #[test]
    fn a_waiter_that_was_told_goes_on_when_its_patience_ends() {
        let (table, word) = (table(), AtomicU32::new(LOCKED));
        let free = || {
            table.unlock(&word);
            None
        };
        assert!(table.lock_patiently(&word, &free), "it got the lock that it was told of");
        let seen_and_taken = || {
            table.unlock(&word);
            assert!(table.try_lock(&word));
            None
        };
        assert!(table.wait_unlocked_patiently(&word, &seen_and_taken), "it was free for a moment");
        let calls = Cell::new(0);
        let taken_once = || {
            calls.set(calls.get() + 1);
            if calls.get() == 1 { seen_and_taken() } else { None }
        };
        assert!(!table.lock_patiently(&word, &taken_once), "a newcomer got the lock");
        assert_eq!((calls.get(), table.is_idle()), (2, true));
        let handed_over = || {
            calls.set(calls.get() + 1);
            table.unlock(&word);
            if calls.get() <= UNFAIR_ROUNDS { table.try_lock(&word).then_some(Duration::ZERO) } else { None }
        };
        calls.set(0);
        assert!(table.lock_patiently(&word, &handed_over), "it was handed the lock");
        assert_eq!((calls.get(), table.is_idle()), (UNFAIR_ROUNDS + 1, true));
    }

    #[test]
    fn words_that_share_a_queue_do_not_share_wake_ups() {
        let table = table();
        let words: Vec<_> = (0..4096).map(|_| AtomicU32::new(LOCKED)).collect();
        let queue = table.queue(&words[0]).0;
        let mates: Vec<_> = words.iter().filter(|word| std::ptr::eq(table.queue(word).0, queue)).collect();
        assert!((3..1000).contains(&mates.len()), "{} of 4096 words share a queue", mates.len());
        std::thread::scope(|scope| {
            for (number, word) in (1..).zip(&mates[..3]) {
                scope.spawn(|| table.lock(word));
                wait_for(|| queue.lock().len() == number);
            }
            for (left, at) in [(2, 1), (1, 2), (0, 0)] {
                table.unlock(mates[at]);
                wait_for(|| queue.lock().len() == left);
                let waiting = |word: &&&AtomicU32| word.load(Ordering::Relaxed) == LOCKED | WAITERS;
                assert_eq!(mates.iter().filter(waiting).count(), left);
            }
        });
        assert!(mates[..3].iter().all(|word| word.load(Ordering::Relaxed) == LOCKED));
    }
}
