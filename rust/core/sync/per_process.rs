//! A value of which each process has one, and a forked child a new one.
//!
//! A child of fork has the memory of its parent and one of its threads. A lock that another thread held at that moment stays
//! locked forever, and the data it guards may be half changed. So the child makes a fresh value at its first use, and leaves its
//! parent's as it is. Any lock that exists once per process belongs in one of these.

use super::{AtomicPtr, imp, ord};

/// A value with the process that it belongs to.
#[derive(Debug)]
struct Owned<T> {
    epoch: u64,
    value: T,
}

/// One value per process, made at its first use there. See [`crate::fork`].
#[derive(Debug)]
pub struct PerProcess<T: 'static> {
    make: fn() -> T,
    /// The value of this process, else of the last ancestor that used one. Never freed: it may still be borrowed.
    current: AtomicPtr<Owned<T>>,
}

impl<T: Send + Sync> PerProcess<T> {
    /// Values that `make` makes. If threads make several at once, one is kept.
    #[cfg(not(any(specmm_loom, specmm_shuttle)))]
    pub const fn new(make: fn() -> T) -> Self {
        Self { make, current: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// As above; models make their statics at run time.
    #[cfg(any(specmm_loom, specmm_shuttle))]
    pub fn new(make: fn() -> T) -> Self {
        Self { make, current: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// The value of this process.
    #[inline]
    pub fn get(&'static self) -> &'static T {
        let epoch = imp::epoch();
        // Pairs with the Release in `renew`: the value is whole.
        // SAFETY: null, or leaked by `renew`.
        match unsafe { self.current.load(ord!("per_process.acquire", Acquire)).as_ref() } {
            Some(current) if current.epoch == epoch => &current.value,
            _ => self.renew(epoch),
        }
    }

    #[cold]
    fn renew(&'static self, epoch: u64) -> &'static T {
        let fresh = Box::into_raw(Box::new(Owned { epoch, value: (self.make)() }));
        let mut expected = std::ptr::null_mut();
        loop {
            // Release publishes the fresh value; Acquire for another thread's value, or to see that the current one is an
            // ancestor's.
            let Err(found) = self.current.compare_exchange(
                expected,
                fresh,
                ord!("per_process.release", Release),
                ord!("per_process.lost", Acquire),
            ) else {
                // SAFETY: published, so never freed.
                return unsafe { &(*fresh).value };
            };
            // SAFETY: as in `get`.
            if let Some(faster) = unsafe { found.as_ref() }.filter(|current| current.epoch == epoch) {
                // SAFETY: made above and not shared.
                drop(unsafe { Box::from_raw(fresh) });
                return &faster.value;
            }
            expected = found;
        }
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::{Owned, PerProcess, imp};
    use crate::sync::{Ordering, Tally};

    static MADE: Tally = Tally::new();
    static DROPPED: Tally = Tally::new();

    #[derive(Debug)]
    struct Counted(u64);

    impl Drop for Counted {
        fn drop(&mut self) {
            DROPPED.add(1);
        }
    }

    static VALUE: PerProcess<Counted> = PerProcess::new(|| {
        MADE.add(1);
        let number = MADE.tallied();
        if number == 1 {
            // As if another thread had been faster.
            VALUE.get();
        }
        Counted(number)
    });

    #[test]
    fn an_ancestor_s_value_is_left_alone() {
        static CHILDS: PerProcess<u64> = PerProcess::new(|| 2);
        // As a child of fork finds it.
        static ANCESTORS: std::sync::OnceLock<Owned<u64>> = std::sync::OnceLock::new();
        let ancestor_s = ANCESTORS.get_or_init(|| Owned { epoch: imp::epoch() - 1, value: 1 });
        CHILDS.current.store(std::ptr::from_ref(ancestor_s).cast_mut(), Ordering::Relaxed);
        let borrowed = &ancestor_s.value;
        assert_eq!((CHILDS.get(), borrowed), (&2, &1));
        assert!(std::ptr::eq(CHILDS.get(), CHILDS.get()));
    }

    #[test]
    fn a_process_keeps_the_value_that_was_made_first() {
        assert_eq!(VALUE.get().0, 2);
        assert_eq!((MADE.tallied(), DROPPED.tallied()), (2, 1), "the slower one is dropped");
        assert!(std::ptr::eq(VALUE.get(), VALUE.get()));
        assert_eq!(MADE.tallied(), 2, "it is made once");
    }
}
