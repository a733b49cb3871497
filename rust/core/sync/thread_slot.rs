//! A small dense number for each living thread.
//!
//! Owns: the numbering. RCU's reader slots and the sharded event counters are indexed by it, so a thread writes only
//! lines of its own. A number is given back when its thread ends and is then used again.

#[cfg(not(any(specmm_loom, specmm_shuttle)))]
mod imp {
    use crate::sync::{Mutex, PerProcess};
    use std::cell::Cell;
    use std::collections::BTreeSet;

    struct Free {
        returned: BTreeSet<usize>,
        next: usize,
    }

    static FREE: PerProcess<Mutex<Free>> = PerProcess::new(Free::new());

    impl Free {
        const fn new() -> Mutex<Self> {
            Mutex::new(Self { returned: BTreeSet::new(), next: 0 })
        }
    }

    const UNSET: usize = usize::MAX;

    thread_local! {
        static INDEX: Cell<usize> = const { Cell::new(UNSET) };
        static GIVE_BACK: GiveBack = const { GiveBack };
    }

    struct GiveBack;

    impl Drop for GiveBack {
        fn drop(&mut self) {
            let index = INDEX.with(|cell| cell.replace(UNSET));
            if index != UNSET {
                FREE.get().lock().returned.insert(index);
            }
        }
    }

    #[cold]
    fn claim() -> usize {
        let mut free = FREE.get().lock();
        let index = free.returned.pop_first().unwrap_or_else(|| {
            free.next += 1;
            free.next - 1
        });
        drop(free);
        INDEX.with(|cell| cell.set(index));
        // A thread that is already tearing down keeps its number for good: numbers are never shared by two threads.
        let _ = GIVE_BACK.try_with(|_| ());
        index
    }

    pub(super) fn index() -> usize {
        let index = INDEX.with(Cell::get);
        if index == UNSET { claim() } else { index }
    }

    /// In a forked child: nobody else is there, so the numbering begins anew.
    pub(crate) fn forked() {
        FREE.renew(Free::new());
        INDEX.with(|cell| cell.set(UNSET));
    }
}

#[cfg(not(any(specmm_loom, specmm_shuttle)))]
pub(crate) use imp::forked;

#[cfg(any(specmm_loom, specmm_shuttle))]
mod imp {
    use crate::sync::imp::thread_index;

    pub(super) fn index() -> usize {
        thread_index()
    }
}

/// The calling thread's number: below the greatest number of threads that were ever alive at once.
#[inline]
#[must_use]
pub fn index() -> usize {
    imp::index()
}
