//! Parts of the house for those who measure and check it: benches, counts of instructions, the stress program, planted
//! bugs, and the Python binding.
//!
//! Owns: the list, and nothing on it. It is compiled under the feature `internals` alone, follows no semantic versioning, and
//! changes with the code; whoever finds that a program needs something of it has found something that is missing in the
//! public part.

/// Which process of a family this is, and what each of them has once; see [`crate::fork`].
pub mod fork {
    pub use crate::sync::PerProcess;

    /// The number of this process among its ancestors and itself: what was made under a smaller one belongs to an ancestor.
    #[inline]
    #[must_use]
    pub fn epoch() -> u64 {
        crate::sync::process_epoch()
    }
}

/// Frames and their use.
pub mod page {
    pub use crate::page::{Frames, Use};
}

/// Read sections and grace periods.
pub mod rcu {
    pub use crate::rcu::{ArcCell, barrier, call_rcu, read, synchronize};
}

/// Opening what is a regular file, and nothing else.
pub mod store {
    pub use crate::store::regular::open_regular;
}

/// Atomics, locks and counts as the core uses them.
pub mod sync {
    #[cfg(specmm_mutants)]
    pub use crate::sync::mutant::switch_off;
    pub use crate::sync::rwsem::RwSem;
    pub use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Condvar, Mutex, Ordering, Tally, fence};
}

/// The map from index to page.
pub mod xarray {
    pub use crate::xarray::{Entry, XArray};
}
