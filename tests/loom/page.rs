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
fn two_lockers() {
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
        needs: &["page.unlock.sees_waiters"],
    }
    .check();
}
