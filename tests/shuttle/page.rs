//! The page lock under shuttle.

use super::{Frames, Use};
use crate::shuttle_harness::{Protected, Search, Test, reach, together};
use std::sync::Arc;

/// `lockers` threads lock one page `times` times, `lookers` wait until they have seen it unlocked; a second page's lockers share
/// the queue. Claims: no two threads are inside at once; every thread gets the lock (shuttle reports a sleeper that is never
/// woken); no thread sleeps at the end.
fn locks(lockers: usize, times: u64, lookers: usize, others: usize) {
    let frames = Arc::new(Frames::new(2).unwrap());
    let pages: Vec<u32> = (0..2).map(|_| frames.alloc(Use::File).unwrap().into_pfn()).collect();
    let protected: Vec<_> = (0..2).map(|_| Arc::new(Protected::default())).collect();
    let mut threads: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for (page, count) in [(0, lockers), (1, others)] {
        for _ in 0..count {
            let (frames, pfn, protected) = (Arc::clone(&frames), pages[page], Arc::clone(&protected[page]));
            threads.push(Box::new(move || {
                for _ in 0..times {
                    let lock = frames.page(pfn).try_lock().unwrap_or_else(|| {
                        reach("taken");
                        frames.page(pfn).lock()
                    });
                    protected.enter();
                    drop(lock);
                }
            }));
        }
    }
    for _ in 0..lookers {
        let (frames, pfn) = (Arc::clone(&frames), pages[0]);
        threads.push(Box::new(move || frames.page(pfn).wait_unlocked()));
    }
    together(threads);
    assert_eq!(protected[0].entered(), lockers as u64 * times);
    frames.audit(&[]).unwrap();
    for pfn in pages {
        drop(frames.page(pfn).adopt());
    }
    frames.audit(&[]).unwrap();
    assert_eq!(frames.usage().in_use, 0);
}

#[test]
fn many_lockers() {
    Test {
        name: "page lock, 4 lockers, 2 lookers, 2 beside",
        search: Search::Pct(2_000),
        body: || locks(4, 3, 2, 2),
        reaches: &["taken"],
        needs: &["page.lock.was_free", "page.unlock.sees_waiters"],
    }
    .check();
}

/// Two threads lock, enter, unlock.
fn two_lockers() {
    let frames = Arc::new(Frames::new(1).unwrap());
    let pfn = frames.alloc(Use::File).unwrap().into_pfn();
    let protected = Arc::new(Protected::default());
    let other = {
        let (frames, protected) = (Arc::clone(&frames), Arc::clone(&protected));
        crate::sync::thread::spawn(move || {
            let lock = frames.page(pfn).lock();
            protected.enter();
            drop(lock);
        })
    };
    let lock = frames.page(pfn).lock();
    protected.enter();
    drop(lock);
    other.join().unwrap();
    assert_eq!(protected.entered(), 2);
    frames.audit(&[]).unwrap();
    drop(frames.page(pfn).adopt());
}

#[test]
fn every_schedule_of_two_lockers() {
    Test {
        name: "page lock, 2 threads",
        search: Search::Dfs,
        body: two_lockers,
        reaches: &[],
        needs: &["page.lock.was_free", "page.unlock.sees_waiters"],
    }
    .check();
}
