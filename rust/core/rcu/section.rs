//! Read sections: a thread announces in its slot that it is inside one.
//!
//! A thread without a slot (there are more slots than a Linux system can have threads, but memory may be short) joins the
//! *crowd*: a count of the threads inside a section without a slot.

use super::domain::{domain, is_real};
use super::membarrier;
use crate::sync::context::{self, Context};
use crate::sync::slots::Slot;
use crate::sync::{Ordering, guard, in_order, ord, seeded};
use std::marker::PhantomData;

/// An open read section; it must not move to another thread.
#[must_use = "dropping the section ends it"]
#[derive(Debug)]
pub struct ReadSection {
    _this_thread: PhantomData<*const ()>,
}

#[inline]
pub(super) fn read() -> ReadSection {
    if is_real() {
        context::with(|thread| {
            let nesting = thread.nesting.get();
            if guard!("rcu.enter.outermost", nesting == 0) {
                enter(thread);
            }
            thread.nesting.set(nesting + 1);
        });
    }
    ReadSection { _this_thread: PhantomData }
}

/// Ends the calling thread's section and begins another, for a mutant: what a section should have kept may go.
#[cfg(any(specmm_loom, specmm_shuttle))]
pub fn lapse() {
    drop(ReadSection { _this_thread: PhantomData });
    std::mem::forget(read());
}

#[inline]
fn enter(thread: &Context) {
    in_order!("rcu.enter.announced_first", announce(thread), membarrier::light());
}

#[inline]
fn announce(thread: &Context) {
    match thread.slot().or_else(|| claim(thread)) {
        Some(slot) => {
            // Relaxed: only the owner writes it.
            let count = slot.count.load(Ordering::Relaxed) + 1;
            // Release: the accesses of the previous section stay before it.
            slot.count.store(count, ord!("rcu.enter.release", Release));
        }
        None => join_the_crowd(),
    }
}

#[cold]
fn claim(thread: &Context) -> Option<&'static Slot> {
    membarrier::choose();
    thread.claim()
}

#[cold]
fn join_the_crowd() {
    // Relaxed: a read-modify-write continues what others of the crowd released.
    domain().grace.crowd.fetch_add(1, Ordering::Relaxed);
}

impl Drop for ReadSection {
    #[inline]
    fn drop(&mut self) {
        if is_real() {
            context::with(|thread| {
                let nesting = thread.nesting.get() - 1;
                thread.nesting.set(nesting);
                if guard!("rcu.exit.outermost", nesting == 0) {
                    // A slot goes back when nobody is inside any more.
                    let slot = thread.slot_of_section();
                    in_order!("rcu.seed.given_back_inside", leave(slot), thread.section_ended());
                }
            });
        }
    }
}

#[inline]
fn leave(slot: Option<&Slot>) {
    match slot {
        Some(slot) => {
            let count = slot.count.load(Ordering::Relaxed) + 1;
            // Pairs with the scan's Acquire: the section's accesses happen before the grace period ends.
            slot.count.store(count, ord!("rcu.exit.release", Release));
        }
        None => leave_the_crowd(),
    }
}

#[cold]
fn leave_the_crowd() {
    let crowd = &domain().grace.crowd;
    // Pairs with the Acquire of the look at the crowd.
    let order = ord!("rcu.crowd.exit.release", Release);
    seeded!("rcu.crowd.counted", crowd.fetch_sub(1, order), bug = crowd.swap(0, order));
}
