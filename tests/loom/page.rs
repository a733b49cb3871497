//! Models of the page room: the page lock.

use super::{Frames, Use};
use crate::loom_harness::{History, Model, Protected, spawn};
use std::sync::Arc;

/// `threads` threads lock one page, change what the lock protects, and unlock. Claims: mutual exclusion (each sees the
/// counter as the one before left it); everybody gets the lock (loom reports a sleeper that nobody wakes as a deadlock);
/// nobody sleeps at the end. Premise: a page's flags word has no other LOCKED or WAITERS users.
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
        ],
    }
    .check();
}

#[test]
fn big_three_lockers() {
    Model {
        name: "page lock, 3 threads",
        rows: &[26, 27],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: || lockers(3),
        reaches: &[],
        needs: &["page.wake.last"],
    }
    .check();
}

/// One thread owns the lock (as the completion of a read does), changes the bytes and unlocks; one waits for that without
/// wanting the lock. Claims: who saw the bit clear sees the bytes; who sleeps is woken; the waker does not touch the waiter's
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
            "page.seed.touched_late",
        ],
    }
    .check();
}

/// One thread takes the lock again and again, one wants it once. Claims: mutual exclusion also when the lock is handed over;
/// the one is not passed over more often than `UNFAIR_ROUNDS` says. Premise: the hand-off takes the bit before it wakes.
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
fn a_thief_against_a_waiter() {
    Model {
        name: "page lock: a thief against a waiter",
        rows: &[27],
        preemption_bound: Some(3),
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
            // What is counted belongs to the second page.
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
fn a_wake_up_for_one_of_two_pages() {
    Model {
        name: "page lock: two pages in one queue",
        rows: &[26],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: two_pages_in_one_queue,
        reaches: &[],
        needs: &["page.wake.word"],
    }
    .check();
}
