//! The primitives that ship: the standard library's, behind the facade's names, inlined away.

use std::sync::atomic::{self, Ordering};

macro_rules! atomic_integer {
    ($name:ident, $std:ty, $prim:ty) => {
        #[doc = concat!("[`", stringify!($std), "`] behind the facade.")]
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name($std);

        #[allow(missing_docs, reason = "each method is the standard one of that name")]
        impl $name {
            #[must_use]
            pub const fn new(value: $prim) -> Self {
                Self(<$std>::new(value))
            }
            #[inline]
            #[must_use]
            pub fn load(&self, order: Ordering) -> $prim {
                self.0.load(order)
            }
            /// A load of a word that this thread writes later in the same operation (pass C of the model checker
            /// makes it read the newest value, see `sync::model`).
            #[inline]
            #[must_use]
            pub fn load_then_write(&self, order: Ordering) -> $prim {
                self.0.load(order)
            }
            #[inline]
            pub fn store(&self, value: $prim, order: Ordering) {
                self.0.store(value, order);
            }
            #[inline]
            pub fn swap(&self, value: $prim, order: Ordering) -> $prim {
                self.0.swap(value, order)
            }
            /// # Errors
            /// The value found, when it was not `current`.
            #[inline]
            pub fn compare_exchange(
                &self,
                current: $prim,
                new: $prim,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$prim, $prim> {
                self.0.compare_exchange(current, new, success, failure)
            }
            #[inline]
            pub fn fetch_add(&self, value: $prim, order: Ordering) -> $prim {
                self.0.fetch_add(value, order)
            }
            #[inline]
            pub fn fetch_sub(&self, value: $prim, order: Ordering) -> $prim {
                self.0.fetch_sub(value, order)
            }
            #[inline]
            pub fn fetch_and(&self, value: $prim, order: Ordering) -> $prim {
                self.0.fetch_and(value, order)
            }
            #[inline]
            pub fn fetch_or(&self, value: $prim, order: Ordering) -> $prim {
                self.0.fetch_or(value, order)
            }
        }
    };
}

atomic_integer!(AtomicU32, atomic::AtomicU32, u32);
atomic_integer!(AtomicU64, atomic::AtomicU64, u64);

/// [`std::sync::atomic::AtomicPtr`] behind the facade.
#[derive(Debug)]
#[repr(transparent)]
pub struct AtomicPtr<T>(atomic::AtomicPtr<T>);

#[allow(missing_docs, reason = "each method is the standard one of that name")]
impl<T> AtomicPtr<T> {
    #[must_use]
    pub const fn new(pointer: *mut T) -> Self {
        Self(atomic::AtomicPtr::new(pointer))
    }
    #[inline]
    #[must_use]
    pub fn load(&self, order: Ordering) -> *mut T {
        self.0.load(order)
    }
    /// See [`AtomicU64::load_then_write`].
    #[inline]
    #[must_use]
    pub fn load_then_write(&self, order: Ordering) -> *mut T {
        self.0.load(order)
    }
    #[inline]
    pub fn store(&self, pointer: *mut T, order: Ordering) {
        self.0.store(pointer, order);
    }
    #[inline]
    pub fn swap(&self, pointer: *mut T, order: Ordering) -> *mut T {
        self.0.swap(pointer, order)
    }
    /// # Errors
    /// The pointer found, when it was not `current`.
    #[inline]
    pub fn compare_exchange(
        &self,
        current: *mut T,
        new: *mut T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<*mut T, *mut T> {
        self.0.compare_exchange(current, new, success, failure)
    }
}

pub(crate) use super::life::{
    announces_end, chunk_of_slots, drop_chunk_of_slots, epoch, first_look, is_this_thread, nobodys_slot,
    slots, thread_number, with_context,
};
#[cfg(not(specmm_tsan))]
pub use super::lock::{Condvar, Mutex, MutexGuard, OnceLock};
#[cfg(specmm_mutants)]
pub(crate) use super::mutant;
pub use super::parker::Parker;
#[cfg(specmm_tsan)]
pub use super::watched::{Condvar, Mutex, MutexGuard, OnceLock};
pub use std::sync::atomic::fence;
pub use std::thread;

/// The reader's half of an asymmetric fence: forbids reordering by the compiler only. Its partner is `rcu::membarrier`, which
/// makes every running thread execute a full fence.
#[inline]
pub fn light_barrier() {
    atomic::compiler_fence(Ordering::SeqCst);
}

/// Tells the CPU that this is a spin loop.
#[inline]
pub fn spin_hint() {
    std::hint::spin_loop();
}

/// Sleeps: for waiting for an event that is not announced.
pub fn pause(time: std::time::Duration) {
    std::thread::sleep(time);
}

/// Gives the CPU to another thread.
pub fn yield_now() {
    std::thread::yield_now();
}

/// Marks an object as alive for the model checker; empty in the code that ships.
#[derive(Debug, Default, Clone, Copy)]
pub struct LifeCell;

#[allow(
    clippy::unused_self,
    clippy::trivially_copy_pass_by_ref,
    reason = "the model's cell has what to look at"
)]
impl LifeCell {
    /// A living object.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
    /// A reader asserts that the object is alive and that no free races with it.
    #[inline]
    pub fn assert_alive(&self) {}
    /// The freer declares the object dead.
    #[inline]
    pub fn kill(&self) {}
}
