//! Work that waits for a grace period, in a stack: pushing takes no lock, so a speculative fault may defer too.
//!
//! Each piece of work owns something that begins with a [`Head`]: a box with a closure, or an object that carries the room for
//! deferring its own end, which then allocates nothing.

use crate::sync::{AtomicPtr, AtomicU64, LifeCell, Ordering, in_order, ord};
use std::cell::UnsafeCell;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;
use std::ptr::null_mut;
use std::sync::Arc;

/// A place in the stack, and what to do with what begins here (`struct rcu_head`).
struct Head {
    next: *mut Head,
    end: unsafe fn(*mut Head, How),
    life: LifeCell,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Run,
    /// Unrun: a panic came before it.
    Drop,
}

/// Something owned that begins with a head.
pub(super) struct Work(*mut Head);

// SAFETY: what is deferred may be ended by any thread: see the two ways to make one.
unsafe impl Send for Work {}

impl Work {
    /// A closure, in a box.
    pub(super) fn new<F: FnOnce() + Send + 'static>(work: F) -> Self {
        #[repr(C)]
        struct Boxed<F> {
            head: Head,
            work: F,
        }
        unsafe fn end<F: FnOnce()>(head: *mut Head, how: How) {
            // SAFETY: the caller gives up the box that begins with this head.
            let boxed = unsafe { Box::from_raw(head.cast::<Boxed<F>>()) };
            if how == How::Run {
                (boxed.work)();
            }
        }
        let head = Head { next: null_mut(), end: end::<F>, life: LifeCell::new() };
        Self(Box::into_raw(Box::new(Boxed { head, work })).cast())
    }

    /// The end of a thing.
    ///
    /// # Safety
    /// The caller owns the thing, as [`Carries::end`] wants it, and ends it in no other way.
    pub(super) unsafe fn end_of<T: Carries>(thing: *mut T) -> Self {
        unsafe fn end<T: Carries>(head: *mut Head, _: How) {
            // SAFETY: a head is where its thing begins, and the caller gives the thing up.
            unsafe { T::end(head.cast()) }
        }
        let head: *mut Head = thing.cast();
        // SAFETY: the thing begins with room for a head, which nobody else uses: it is ended once.
        unsafe { head.write(Head { next: null_mut(), end: end::<T>, life: LifeCell::new() }) };
        Self(head)
    }

    pub(super) fn run(self) {
        ManuallyDrop::new(self).end(How::Run);
    }

    fn end(&self, how: How) {
        // SAFETY: owned, and given up here: `run` forgets, and otherwise this is the drop.
        unsafe { ((*self.0).end)(self.0, how) };
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.end(How::Drop);
    }
}

/// Room for deferring the end of what it is the first field of.
pub struct Room(
    #[allow(dead_code, reason = "reached as the address of the whole")] UnsafeCell<MaybeUninit<Head>>,
);

// SAFETY: only whoever ends the whole touches it.
unsafe impl Send for Room {}
// SAFETY: as above.
unsafe impl Sync for Room {}

impl Room {
    /// Not in use.
    #[must_use]
    pub const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Room")
    }
}

/// What carries the room for deferring its own end.
///
/// # Safety
/// The type is `repr(C)` and begins with a [`Room`]; any thread may end it.
pub unsafe trait Carries: 'static {
    /// Ends it.
    ///
    /// # Safety
    /// The caller gives it up, and what it says may be freed: no reader has it any more.
    unsafe fn end(this: *mut Self);
}

/// A shared value that carries the room for deferring its end.
#[repr(C)]
#[derive(Debug)]
pub struct Carried<T> {
    room: Room,
    value: T,
}

impl<T> Carried<T> {
    /// With room.
    pub fn new(value: T) -> Arc<Self> {
        Arc::new(Self { room: Room::new(), value })
    }
}

impl<T> Deref for Carried<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

// SAFETY: the room is first.
unsafe impl<T: Send + Sync + 'static> Carries for Carried<T> {
    unsafe fn end(this: *mut Self) {
        // SAFETY: as the caller promises: a count of an Arc, given up.
        drop(unsafe { Arc::from_raw(this) });
    }
}

/// What was deferred and not taken yet.
pub(super) struct Deferred {
    head: AtomicPtr<Head>,
    /// How much there is, or slightly more: counted before it is pushed, and taken off after it was taken.
    waiting: AtomicU64,
}

impl Deferred {
    pub(super) fn new() -> Self {
        Self { head: AtomicPtr::new(null_mut()), waiting: AtomicU64::new(0) }
    }

    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether there is any, as this thread sees it: its own is seen unless somebody has taken it.
    pub(super) fn is_empty(&self) -> bool {
        self.head.load_then_write(Ordering::Relaxed).is_null()
    }

    pub(super) fn push(&self, work: Work) {
        in_order!("rcu.defer.counted_first", self.waiting.fetch_add(1, Ordering::Relaxed), self.link(work));
    }

    fn link(&self, work: Work) {
        let item = ManuallyDrop::new(work).0;
        // SAFETY: `item` is not published yet.
        let life = unsafe { (*item).life };
        let mut head = self.head.load_then_write(Ordering::Relaxed);
        loop {
            let point = || {
                life.assert_alive();
                // SAFETY: as above.
                unsafe { (*item).next = head };
            };
            // Pairs with the Acquire in `take`.
            let publish = || {
                self.head.compare_exchange(head, item, ord!("rcu.defer.release", Release), Ordering::Relaxed)
            };
            let published;
            in_order!("rcu.defer.linked_first", point(), published = publish());
            match published {
                Ok(_) => break,
                Err(found) => head = found,
            }
        }
    }

    /// Takes everything deferred so far.
    pub(super) fn take(&self) -> Batch {
        let mut newest = self.head.swap(null_mut(), ord!("rcu.take.acquire", Acquire));
        let (mut oldest, mut count) = (null_mut(), 0);
        while !newest.is_null() {
            // SAFETY: the swap made this thread the owner of the whole stack.
            let next = unsafe {
                (*newest).life.assert_alive();
                std::mem::replace(&mut (*newest).next, oldest)
            };
            oldest = newest;
            newest = next;
            count += 1;
        }
        let before = self.waiting.fetch_sub(count, Ordering::Relaxed);
        debug_assert!(before >= count, "{count} taken of {before}");
        Batch { oldest }
    }
}

/// Work that was taken, oldest first. Work that is not run is dropped.
pub(super) struct Batch {
    oldest: *mut Head,
}

// SAFETY: the list is owned, and what it holds may be run by any thread.
unsafe impl Send for Batch {}

impl Batch {
    pub(super) fn empty() -> Self {
        Self { oldest: null_mut() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.oldest.is_null()
    }
}

impl Iterator for Batch {
    type Item = Work;

    fn next(&mut self) -> Option<Work> {
        if self.oldest.is_null() {
            return None;
        }
        let work = Work(self.oldest);
        // SAFETY: owned since `take`, and each is given out once.
        unsafe {
            (*self.oldest).life.kill();
            self.oldest = (*self.oldest).next;
        }
        Some(work)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::rcu::{ArcCell, barrier};
    use crate::sync::AtomicU32;

    /// As after a panic in deferred work.
    #[test]
    fn work_that_is_not_run_is_dropped() {
        let (ran, held) = (Arc::new(AtomicU32::new(0)), Arc::new(()));
        let deferred = Deferred::new();
        assert_eq!((deferred.waiting(), deferred.is_empty(), deferred.take().is_empty()), (0, true, true));
        for _ in 0..3 {
            let (ran, held) = (Arc::clone(&ran), Arc::clone(&held));
            deferred.push(Work::new(move || {
                ran.fetch_add(1, Ordering::Relaxed);
                drop(held);
            }));
        }
        assert_eq!((deferred.waiting(), deferred.is_empty()), (3, false));
        let mut batch = deferred.take();
        assert_eq!((deferred.waiting(), deferred.is_empty()), (0, true));
        batch.next().unwrap().run();
        drop(batch);
        assert_eq!((ran.load(Ordering::Relaxed), Arc::strong_count(&held)), (1, 1));
    }

    #[test]
    fn a_value_that_carries_its_room_is_dropped_later() {
        let held = Arc::new(());
        let cell = ArcCell::new(Carried::new(Arc::clone(&held)));
        assert!(cell.clear());
        barrier();
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(!cell.clear());
    }
}
