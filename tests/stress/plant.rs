//! Deliberate bugs. Each is a sound piece of code with one step left out, and the sound piece runs before every real run: a
//! sanitizer must report the first and be silent about the second.
//!
//! | name | what is wrong | must be reported by |
//! |---|---|---|
//! | `race` | a plain counter without its mutex | `ThreadSanitizer` |
//! | `publish` | a value is published by a relaxed store of the facade's | `ThreadSanitizer` |
//! | `count` | a count is put without Release, so the last one frees under another's read | `ThreadSanitizer` |
//! | `fence` | the last put lacks its Acquire fence | `ThreadSanitizer` |
//! | `grace` | a value is freed without a grace period | both, each in its words |
//! | `leak` | a block is forgotten | `AddressSanitizer` (its leak detector) |
//! | `reference` | a page's reference is lost | the program's own audit |
#![allow(unsafe_code, reason = "bugs on purpose, and their sound twins")]

use specmm::internals::page::{Frames, Use};
use specmm::internals::rcu;
use specmm::internals::sync::{AtomicPtr, AtomicU32, AtomicU64, Condvar, Mutex, Ordering, fence};
use std::cell::UnsafeCell;
use std::hint::black_box;
use std::sync::Arc;
use std::thread::spawn;

/// Plain memory that threads share; each use states why it is sound, or is a planted bug.
struct Plain(UnsafeCell<u64>);

// SAFETY: each user orders its accesses, or is a planted bug.
unsafe impl Sync for Plain {}

impl Plain {
    fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }
    #[inline(never)]
    fn get(&self) -> u64 {
        // SAFETY: see the type.
        unsafe { *self.0.get() }
    }
    #[inline(never)]
    fn set(&self, value: u64) {
        // SAFETY: see the type.
        unsafe { *self.0.get() = value }
    }
}

/// Runs one bug.
pub fn wrong(name: &str) {
    match name {
        "race" => counter(false),
        "publish" => publication(Ordering::Relaxed),
        "count" => last_put(Ordering::Relaxed, true),
        "fence" => last_put(Ordering::Release, false),
        "grace" => replacement(false),
        "leak" => {
            black_box(Box::into_raw(Box::new([7_u8; 1234])));
        }
        "reference" => lookup(false),
        _ => panic!("there is no bug called {name:?}"),
    }
}

/// Runs the sound twins.
pub fn right() {
    counter(true);
    publication(Ordering::Release);
    last_put(Ordering::Release, true);
    replacement(true);
    lookup(true);
    hand_over();
    shared_box();
}

/// A plain counter of several threads.
fn counter(locked: bool) {
    let shared = Arc::new((Mutex::new(()), Plain::new(0)));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let shared = Arc::clone(&shared);
            spawn(move || {
                for _ in 0..5000 {
                    let _inside = locked.then(|| shared.0.lock());
                    shared.1.set(shared.1.get() + 1);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a counting thread");
    }
    assert!(!locked || shared.1.get() == 15_000);
}

/// A value behind a flag.
fn publication(order: Ordering) {
    let shared = Arc::new((Plain::new(0), AtomicU64::new(0)));
    let reader = {
        let shared = Arc::clone(&shared);
        spawn(move || {
            while shared.1.load(Ordering::Acquire) == 0 {
                std::thread::yield_now();
            }
            shared.0.get()
        })
    };
    shared.0.set(7);
    shared.1.store(1, order);
    assert_eq!(reader.join().expect("the reader"), 7);
}

/// A value that the last of several owners takes apart. The count is the facade's; the standard library's `Arc` has the same
/// shape.
fn last_put(order: Ordering, fenced: bool) {
    let shared = Arc::new((Plain::new(7), AtomicU64::new(4)));
    let owners: Vec<_> = (0..4)
        .map(|_| {
            let shared = Arc::clone(&shared);
            spawn(move || {
                assert_eq!(shared.0.get(), 7);
                if shared.1.fetch_sub(1, order) == 1 {
                    if fenced {
                        fence(Ordering::Acquire);
                    }
                    shared.0.set(0);
                }
            })
        })
        .collect();
    for owner in owners {
        owner.join().expect("an owner");
    }
}

/// A value that is replaced and freed while another thread reads it.
fn replacement(waits: bool) {
    let cell = Arc::new((AtomicPtr::new(Box::into_raw(Box::new([7_u64; 64]))), AtomicU32::new(0)));
    let reader = {
        let cell = Arc::clone(&cell);
        spawn(move || {
            let section = rcu::read();
            let value = cell.0.load(Ordering::Acquire);
            cell.1.swap(1, Ordering::Relaxed);
            // The bug is to free here, while the section is open.
            while !waits && cell.1.load(Ordering::Relaxed) != 2 {
                std::thread::yield_now();
            }
            // SAFETY: the section keeps the value, unless the bug is planted.
            let sum: u64 = unsafe { (*value).iter().sum() };
            drop(section);
            black_box(sum)
        })
    };
    while cell.1.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    let old = cell.0.swap(std::ptr::null_mut(), Ordering::AcqRel);
    if waits {
        rcu::synchronize();
    }
    // SAFETY: unlinked, and no reader is left after the grace period; the bug is to skip it.
    drop(unsafe { Box::from_raw(old) });
    cell.1.swap(2, Ordering::Relaxed);
    reader.join().expect("the reader");
}

/// A lookup's reference on a page.
fn lookup(puts: bool) {
    let frames = Frames::new(4).expect("room for four");
    let page = frames.alloc(Use::File).expect("the first");
    let found = page.page().try_get().expect("it has a reference");
    if puts {
        drop(found);
    } else {
        std::mem::forget(found);
    }
    drop(page);
    assert_eq!(frames.usage().in_use, 0, "a frame outlived its users");
}

/// Plain values through a condition variable.
fn hand_over() {
    let shared = Arc::new((Mutex::new(0_u64), Condvar::new(), Plain::new(0)));
    let taker = {
        let shared = Arc::clone(&shared);
        spawn(move || {
            for round in 1..=200 {
                let mut turn = shared.0.lock();
                while *turn != 2 * round - 1 {
                    turn = shared.1.wait(turn);
                }
                assert_eq!(shared.2.get(), round);
                *turn += 1;
                drop(turn);
                shared.1.notify_all();
            }
        })
    };
    for round in 1..=200 {
        let mut turn = shared.0.lock();
        while *turn != 2 * round - 2 {
            turn = shared.1.wait(turn);
        }
        shared.2.set(round);
        *turn += 1;
        drop(turn);
        shared.1.notify_all();
    }
    taker.join().expect("the taker");
}

/// Values that the last thread to drop them takes apart.
fn shared_box() {
    struct Noisy(Plain);
    impl Drop for Noisy {
        fn drop(&mut self) {
            self.0.set(0);
        }
    }
    for _ in 0..50 {
        let value = Arc::new(Noisy(Plain::new(7)));
        let users: Vec<_> = (0..3)
            .map(|_| {
                let value = Arc::clone(&value);
                spawn(move || assert_eq!(value.0.get(), 7))
            })
            .collect();
        drop(value);
        for user in users {
            user.join().expect("a user");
        }
    }
}
