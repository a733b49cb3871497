//! Work that waits for a grace period, in a stack: pushing takes no lock, so a speculative fault may defer too.

use crate::sync::{AtomicPtr, LifeCell, Ordering, Tally, ord};
use std::ptr::null_mut;

pub(super) type Work = Box<dyn FnOnce() + Send>;

struct Item {
    work: Work,
    next: *mut Item,
    life: LifeCell,
}

/// What was deferred and not taken yet.
pub(super) struct Deferred {
    head: AtomicPtr<Item>,
    /// How much there is, or a little more: a hint.
    waiting: Tally,
}

impl Deferred {
    pub(super) fn new() -> Self {
        Self { head: AtomicPtr::new(null_mut()), waiting: Tally::new() }
    }

    pub(super) fn waiting(&self) -> u64 {
        self.waiting.get()
    }

    /// Whether there is any, as this thread sees it: its own is seen unless somebody has taken it.
    pub(super) fn is_empty(&self) -> bool {
        self.head.load_then_write(Ordering::Relaxed).is_null()
    }

    pub(super) fn push(&self, work: Work) {
        self.waiting.add(1);
        let item = Box::into_raw(Box::new(Item { work, next: null_mut(), life: LifeCell::new() }));
        let mut head = self.head.load_then_write(Ordering::Relaxed);
        loop {
            // SAFETY: `item` is not published yet.
            unsafe { (*item).next = head };
            // Pairs with the Acquire in `take`.
            match self.head.compare_exchange(
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

    /// All that was deferred so far.
    pub(super) fn take(&self) -> Batch {
        let mut newest = self.head.swap(null_mut(), ord!("rcu.take.acquire", Acquire));
        let (mut oldest, mut count) = (null_mut(), 0);
        while !newest.is_null() {
            // SAFETY: the swap made this thread the owner of the whole stack.
            let next = unsafe { std::mem::replace(&mut (*newest).next, oldest) };
            oldest = newest;
            newest = next;
            count += 1;
        }
        self.waiting.sub(count);
        Batch { oldest }
    }
}

/// Work that was taken, the oldest first. What is not run is dropped.
pub(super) struct Batch {
    oldest: *mut Item,
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
        // SAFETY: owned since `take`, and each is given out once.
        let item = unsafe { Box::from_raw(self.oldest) };
        item.life.kill();
        self.oldest = item.next;
        Some(item.work)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}
