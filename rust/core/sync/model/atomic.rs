//! Loom's atomics behind the facade's names: what a load is depends on the pass.

use super::{Ordering, Pass, STALE_LEFT, pass, trace};
use std::cell::Cell;

pub use loom::sync::atomic::fence;

/// A full fence for protocols that exist only in models.
pub fn full_fence() {
    trace::note(|| "full fence".into());
    fence(Ordering::SeqCst);
}

/// The word beside an atomic in the twin pass.
struct Companion(Option<loom::sync::atomic::AtomicUsize>);

impl Companion {
    fn new() -> Self {
        Self((pass() == Pass::Twin).then(|| loom::sync::atomic::AtomicUsize::new(0)))
    }
    fn touch(&self) {
        if let Some(word) = &self.0 {
            word.fetch_add(1, Ordering::Relaxed);
        }
    }
}

macro_rules! atomic {
    ([$($generics:tt)*] $name:ident, $loom:ty, $value:ty, $sentinel:expr) => {
        /// Loom's atomic behind the facade.
        pub struct $name $($generics)* ($loom, Companion);

        #[allow(missing_docs, reason = "each method is the standard one of that name")]
        impl $($generics)* $name $($generics)* {
            #[track_caller]
            pub fn new(value: $value) -> Self {
                Self(<$loom>::new(value), Companion::new())
            }

            #[track_caller]
            fn newest(&self, order: Ordering) -> $value {
                self.1.touch();
                match self.0.compare_exchange($sentinel, $sentinel, Ordering::AcqRel, order) {
                    Ok(value) | Err(value) => value,
                }
            }

            #[track_caller]
            fn as_loom_likes(&self, order: Ordering) -> $value {
                self.1.touch();
                self.0.load(order)
            }

            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                let value = if pass() == Pass::B { self.newest(order) } else { self.as_loom_likes(order) };
                trace::access("load", value);
                value
            }

            #[track_caller]
            pub fn load_then_write(&self, order: Ordering) -> $value {
                let stale = matches!(pass(), Pass::A | Pass::Twin);
                let value = if stale { self.as_loom_likes(order) } else { self.newest(order) };
                trace::access("load", value);
                value
            }

            #[track_caller]
            pub fn store(&self, value: $value, order: Ordering) {
                trace::access("store", value);
                self.1.touch();
                self.0.store(value, order);
            }

            #[track_caller]
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                self.1.touch();
                let before = self.0.swap(value, order);
                trace::access("swap", (before, value));
                before
            }

            #[track_caller]
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                if pass() == Pass::StaleCas && STALE_LEFT.with(Cell::get) > 0 {
                    let stale = self.0.load(failure);
                    // Others ran meanwhile.
                    if stale != current && STALE_LEFT.with(Cell::get) > 0 {
                        STALE_LEFT.with(|left| left.set(left.get() - 1));
                        trace::access("compare_exchange fails by a stale read", stale);
                        return Err(stale);
                    }
                }
                self.1.touch();
                let result = self.0.compare_exchange(current, new, success, failure);
                trace::access("compare_exchange", (current, new, result));
                result
            }
        }

        impl $($generics)* std::fmt::Debug for $name $($generics)* {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

macro_rules! arithmetic {
    ($name:ident, $value:ty) => {
        #[allow(missing_docs, reason = "each method is the standard one of that name")]
        impl $name {
            #[track_caller]
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.1.touch();
                let before = self.0.fetch_add(value, order);
                trace::access("fetch_add", (before, value));
                before
            }
            #[track_caller]
            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.1.touch();
                let before = self.0.fetch_sub(value, order);
                trace::access("fetch_sub", (before, value));
                before
            }
            #[track_caller]
            pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.1.touch();
                let before = self.0.fetch_and(value, order);
                trace::access("fetch_and", (before, value));
                before
            }
            #[track_caller]
            pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.1.touch();
                let before = self.0.fetch_or(value, order);
                trace::access("fetch_or", (before, value));
                before
            }
        }
    };
}

atomic!([] AtomicU32, loom::sync::atomic::AtomicU32, u32, 0x5E17_15E1);
atomic!([] AtomicU64, loom::sync::atomic::AtomicU64, u64, 0x5E17_15E1_5E17_15E1);
atomic!([<T>] AtomicPtr, loom::sync::atomic::AtomicPtr<T>, *mut T, std::ptr::without_provenance_mut(0x5E17_15E0));
arithmetic!(AtomicU32, u32);
arithmetic!(AtomicU64, u64);
