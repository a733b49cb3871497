//! Models of the page lock.

use super::{Frames, Use};
use crate::loom_harness::{History, Model, Protected, reach, spawn};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

/// `threads` threads lock one page, change what the lock protects, and unlock. Claims: mutual exclusion (each sees the counter as
/// the one before left it); every thread gets the lock (loom reports a sleeper that is never woken as a deadlock); no thread
/// sleeps at the end. Premise: a page's flags word has no other LOCKED or WAITERS users.
fn lockers(threads: u32) {
    let frames = Arc::new(Frames::new(1).unwrap());
    let pfn = frames.alloc(Use::File).unwrap().into_pfn();
    let protected = Arc::new(Protected::new());
    let history = History::new(0);
    let lock_once = {
        let (frames, protected, history) = (Arc::clone(&frames), Arc::clone(&protected), history.clone());
        move || {
            let section = || {
                let lock = frames.page(pfn).lock();
                let before = protected.get();
                protected.increment();
                drop(lock);
                before
            };
            history.call("count under the lock", section, |count, before| {
                *count += 1;
                *count == before + 1
            });
        }
    };
    let others: Vec<_> = (1..threads).map(|_| spawn(lock_once.clone())).collect();
    lock_once();
    for other in others {
        other.join().unwrap();
    }
    let lock = frames.page(pfn).try_lock().expect("free at the end");
    drop(lock);
    history.check();
    assert!(frames.waits.is_idle());
    drop(frames.page(pfn).adopt());
}

#[test]
fn big_two_lockers() {
    Model {
        name: "page lock, 2 threads",
        rows: &[17, 26, 27],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: || lockers(2),
        reaches: &[],
        needs: &[
            "page.lock.was_free",
            "page.unlock.sees_waiters",
            "page.unlock.release",
            "page.lock.acquire",
            "page.seed.waiters_late",
            "page.sleep.last_try",
            "page.sleep.queue_first",
        ],
    }
    .check();
}

#[test]
fn big_three_lockers() {
    Model {
        name: "page lock, 3 threads",
        rows: &[26, 27],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: || lockers(3),
        reaches: &[],
        needs: &["page.wake.last", "page.wake.cleared_in_queue"],
    }
    .check();
}

/// One thread owns the lock (as the completion of a read does), changes the bytes and unlocks; one waits for that without wanting
/// the lock. Claims: a thread that saw the bit clear sees the bytes; a sleeper is woken; the waker does not touch the waiter's
/// entry once the waiter may return. Premise: the wait begins after the lock was taken.
fn owner_against_onlooker() {
    let frames = Arc::new(Frames::new(1).unwrap());
    let pfn = frames.alloc(Use::File).unwrap().into_pfn();
    let protected = Arc::new(Protected::new());
    let history = History::new(0);
    let locked = frames.page(pfn).lock().into_pfn();
    let owner = {
        let (frames, protected, history) = (Arc::clone(&frames), Arc::clone(&protected), history.clone());
        spawn(move || {
            let complete = || {
                let lock = frames.page(locked).adopt_lock();
                protected.increment();
                drop(lock);
            };
            history.call("complete", complete, |count, ()| {
                *count += 1;
                true
            });
        })
    };
    let wait = || {
        frames.page(pfn).wait_unlocked();
        protected.get()
    };
    history.call("wait", wait, |count, seen| count == seen && *seen == 1);
    owner.join().unwrap();
    history.check();
    assert!(frames.waits.is_idle());
    drop(frames.page(pfn).adopt());
}

#[test]
fn an_owner_against_an_onlooker() {
    Model {
        name: "page lock: waiting for an owner",
        rows: &[26, 28],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: owner_against_onlooker,
        reaches: &[],
        needs: &[
            "page.wait.acquire",
            "page.wait.recheck.acquire",
            "page.woken.acquire",
            "page.wake.release",
            "page.wake.told_first",
            "page.seed.touched_late",
        ],
    }
    .check();
}

/// One thread takes the lock again and again, one wants it once. Claims: mutual exclusion also when the lock is handed over; the
/// second thread is not passed over more than `UNFAIR_ROUNDS` times. Premise: the hand-off takes the bit before it wakes.
fn thief_against_waiter() {
    let frames = Arc::new(Frames::new(1).unwrap());
    let pfn = frames.alloc(Use::File).unwrap().into_pfn();
    let protected = Arc::new(Protected::new());
    let history = History::new(0);
    let count = move |frames: &Frames, protected: &Protected, history: &History<u32>| {
        let section = || {
            let lock = frames.page(pfn).lock();
            let before = protected.get();
            protected.increment();
            drop(lock);
            before
        };
        history.call("count under the lock", section, |count, before| {
            *count += 1;
            *count == before + 1
        });
    };
    let first = frames.page(pfn).lock();
    let waiter = {
        let (frames, protected, history) = (Arc::clone(&frames), Arc::clone(&protected), history.clone());
        spawn(move || count(&frames, &protected, &history))
    };
    drop(first);
    for _ in 0..2 {
        count(&frames, &protected, &history);
    }
    waiter.join().unwrap();
    history.check();
    assert!(frames.waits.is_idle());
    drop(frames.page(pfn).try_lock().expect("free at the end"));
    drop(frames.page(pfn).adopt());
}

#[test]
fn big_a_thief_against_a_waiter() {
    Model {
        name: "page lock: a thief against a waiter",
        rows: &[27],
        preemption_bound: Some(6),
        grace_periods: false,
        twin: false,
        body: thief_against_waiter,
        reaches: &[],
        needs: &["page.lock.rounds", "page.wake.takes_the_bit"],
    }
    .check();
}

/// Two pages share a queue; a waiter for each. Claim: an unlock wakes the waiters of its own page only, and all of those.
fn two_pages_in_one_queue() {
    let frames = Arc::new(Frames::new(2).unwrap());
    let pages: Vec<_> = (0..2).map(|_| frames.alloc(Use::File).unwrap().into_pfn()).collect();
    let protected = Arc::new(Protected::new());
    let history = History::new(0);
    let locks: Vec<_> = pages.iter().map(|&pfn| frames.page(pfn).lock().into_pfn()).collect();
    let waiters: Vec<_> = pages
        .iter()
        .map(|&pfn| {
            let (frames, protected, history) = (Arc::clone(&frames), Arc::clone(&protected), history.clone());
            // The counter belongs to the second page.
            let second = pfn == pages[1];
            spawn(move || {
                let wait = || {
                    frames.page(pfn).wait_unlocked();
                    if second { protected.get() } else { 1 }
                };
                history.call("wait", wait, move |count, seen| !second || count == seen && *seen == 1);
            })
        })
        .collect();
    drop(frames.page(locks[0]).adopt_lock());
    let complete = || {
        let lock = frames.page(locks[1]).adopt_lock();
        protected.increment();
        drop(lock);
    };
    history.call("complete the second", complete, |count, ()| {
        *count += 1;
        true
    });
    for waiter in waiters {
        waiter.join().unwrap();
    }
    history.check();
    assert!(frames.waits.is_idle());
    for pfn in pages {
        drop(frames.page(pfn).adopt());
    }
}

#[test]
fn big_a_wake_up_for_one_of_two_pages() {
    Model {
        name: "page lock: two pages in one queue",
        rows: &[26],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: two_pages_in_one_queue,
        reaches: &[],
        needs: &["page.wake.word"],
    }
    .check();
}

/// Patience for this many sleeps. A sleep ends as soon as other threads had a chance to run, so waiters leave at every moment.
fn patience(naps: u32) -> impl Fn() -> Option<Duration> {
    let left = Cell::new(naps);
    move || left.replace(left.get().checked_sub(1)?).checked_sub(1).map(|_| Duration::ZERO)
}

/// The lock is taken; one waits for it with patience for `naps` sleeps, `others` wait for it without a limit. The owner unlocks
/// and takes the lock again `again` times. Claims: mutual exclusion, including threads that wanted to leave and were handed the
/// lock nevertheless; every other thread gets the lock (a wake-up lost with the leaver is a deadlock); at the end it is free (a
/// hand-off to a thread that left would keep it taken), and the queue is empty. Premise: a thread that left does not touch what
/// the lock protects.
fn leaver_among_lockers(naps: u32, others: u32, again: u32) {
    let frames = Arc::new(Frames::new(1).unwrap());
    let pfn = frames.alloc(Use::File).unwrap().into_pfn();
    let protected = Arc::new(Protected::new());
    let history = History::new(0);
    let count = {
        let (frames, protected, history) = (Arc::clone(&frames), Arc::clone(&protected), history.clone());
        move |naps: Option<u32>| {
            let section = || {
                let page = frames.page(pfn);
                let lock = match naps {
                    Some(naps) => page.lock_patiently(&patience(naps))?,
                    None => page.lock(),
                };
                let before = protected.get();
                protected.increment();
                drop(lock);
                Some(before)
            };
            let seen = history.ask("count under the lock, or leave", section, |count, before| match before {
                Some(before) => {
                    *count += 1;
                    *count == before + 1
                }
                None => true,
            });
            if naps.is_some() {
                reach(if seen.is_some() { "stayed" } else { "left" });
            }
        }
    };
    let first = frames.page(pfn).lock();
    let leaver = spawn({
        let count = count.clone();
        move || count(Some(naps))
    });
    let waiters: Vec<_> = (0..others)
        .map(|_| {
            let count = count.clone();
            spawn(move || count(None))
        })
        .collect();
    drop(first);
    for _ in 0..again {
        count(None);
    }
    leaver.join().unwrap();
    for waiter in waiters {
        waiter.join().unwrap();
    }
    history.check();
    assert!(frames.waits.is_idle(), "a leaver is still in the queue");
    drop(frames.page(pfn).try_lock().expect("free at the end"));
    drop(frames.page(pfn).adopt());
}

#[test]
fn big_a_leaver_beside_a_waiter() {
    Model {
        name: "page lock: a leaver beside a waiter",
        rows: &[29],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: || leaver_among_lockers(0, 1, 0),
        reaches: &["left", "stayed"],
        needs: &["page.leave.untold", "page.leave.dequeue"],
    }
    .check();
}

/// With one sleep the leaver may have lost the bit once, and then leaves while the lock is handed to it.
#[test]
fn big_a_leaver_is_owed_the_lock() {
    Model {
        name: "page lock: a leaver that is owed the lock",
        rows: &[27, 29],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || leaver_among_lockers(1, 0, 1),
        reaches: &["left", "stayed"],
        needs: &["page.leave.untold"],
    }
    .check();
}

/// One thread owns the lock, as the completion of a read does; one watches the bit with patience, and leaves. Claims: a thread
/// that stays sees the bytes, ordered by the wake-up; the waker does not touch the entry of a thread that left. Premise: as for
/// an owner and an onlooker.
fn owner_against_leaving_onlooker() {
    let frames = Arc::new(Frames::new(1).unwrap());
    let pfn = frames.alloc(Use::File).unwrap().into_pfn();
    let protected = Arc::new(Protected::new());
    let history = History::new(0);
    let locked = frames.page(pfn).lock().into_pfn();
    let owner = {
        let (frames, protected, history) = (Arc::clone(&frames), Arc::clone(&protected), history.clone());
        spawn(move || {
            let complete = || {
                let lock = frames.page(locked).adopt_lock();
                protected.increment();
                drop(lock);
            };
            history.call("complete", complete, |count, ()| {
                *count += 1;
                true
            });
        })
    };
    let wait = || frames.page(pfn).wait_unlocked_patiently(&patience(0)).then(|| protected.get());
    let seen =
        history.ask("wait or leave", wait, |count, seen| seen.is_none_or(|seen| *count == seen && seen == 1));
    reach(if seen.is_some() { "stayed" } else { "left" });
    owner.join().unwrap();
    history.check();
    assert!(frames.waits.is_idle(), "a leaver is still in the queue");
    drop(frames.page(pfn).adopt());
}

#[test]
fn an_owner_against_a_leaving_onlooker() {
    Model {
        name: "page lock: an onlooker leaves",
        rows: &[28, 29],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: owner_against_leaving_onlooker,
        reaches: &["left", "stayed"],
        needs: &["page.leave.dequeue", "page.woken.acquire"],
    }
    .check();
}
