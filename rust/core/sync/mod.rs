//! Atomics, locks and waiting: the only module that names `std::sync::atomic`, loom or shuttle.
//!
//! Owns: the variants of every primitive (`native` ships, loom explores `model`, shuttle schedules `shuttle`; `watched` has the
//! locks that `tools/tsan` uses instead of those that ship), the named guards and orderings that the mutant build can switch off,
//! the sequence count, the reader-writer semaphore and the hashed wait table of the page lock. Knows nothing of pages or address
//! spaces.
//!
//! Mirrors `include/linux/{atomic,seqlock,rwsem,wait}.h`. Departs from Linux in that no access is sequentially
//! consistent: where a store-load order is needed there is a named fence, because the model checker treats
//! sequentially consistent accesses as acquire-release.

#[cfg(any(specmm_loom, specmm_shuttle))]
#[cfg_attr(any(specmm_shuttle, not(test)), allow(dead_code, reason = "models under loom steer it"))]
pub mod clock;
#[cfg(not(any(specmm_loom, specmm_shuttle, specmm_tsan)))]
mod lock;
#[cfg(specmm_loom)]
#[allow(unsafe_code, reason = "loom cells hand out raw pointers")]
#[allow(clippy::missing_panics_doc, clippy::needless_pass_by_value, reason = "never part of what ships")]
#[allow(clippy::unused_self, reason = "as the faces that ship")]
#[cfg_attr(not(test), allow(dead_code, reason = "the models steer it"))]
pub mod model;
#[cfg(specmm_mutants)]
pub mod mutant;
#[cfg(not(any(specmm_loom, specmm_shuttle)))]
pub(crate) mod native;
#[cfg(specmm_shuttle)]
#[allow(unsafe_code, reason = "a load without a switch")]
#[allow(
    clippy::needless_pass_by_value,
    clippy::trivially_copy_pass_by_ref,
    reason = "never part of what ships"
)]
#[cfg_attr(not(test), allow(dead_code, reason = "the tests steer it"))]
pub mod shuttle;
#[cfg(specmm_tsan)]
#[allow(clippy::missing_panics_doc, clippy::new_without_default, reason = "never part of what ships")]
mod watched;

#[cfg(specmm_loom)]
pub(crate) use model as imp;
#[cfg(not(any(specmm_loom, specmm_shuttle)))]
pub(crate) use native as imp;
#[cfg(specmm_shuttle)]
pub(crate) use shuttle as imp;

#[cfg(any(specmm_loom, specmm_shuttle))]
pub use clock::Instant;
pub use imp::{
    AtomicPtr, AtomicU32, AtomicU64, Condvar, LifeCell, Mutex, MutexGuard, OnceLock, Parker, fence, pause,
    spin_hint, thread, yield_now,
};
#[cfg(not(any(specmm_loom, specmm_shuttle)))]
pub use native::light_barrier;
pub use std::sync::atomic::Ordering;
#[cfg(not(any(specmm_loom, specmm_shuttle)))]
pub use std::time::Instant;

pub(crate) mod context;
mod guard;
mod hint;
#[cfg(not(any(specmm_loom, specmm_shuttle)))]
#[allow(unsafe_code, reason = "calls of the C library")]
mod life;
#[cfg(any(not(any(specmm_loom, specmm_shuttle)), all(test, specmm_loom)))]
mod parker;
#[allow(unsafe_code, reason = "values that are never freed")]
mod per_process;
#[cfg(any(specmm_loom, specmm_shuttle))]
#[cfg_attr(not(test), allow(dead_code, reason = "the harnesses ask"))]
pub(crate) mod running;
pub mod rwsem;
pub mod seqcount;
#[allow(unsafe_code, reason = "memory that is never freed")]
pub(crate) mod slots;
mod tally;
pub mod wait;
#[cfg(not(any(specmm_loom, specmm_shuttle)))]
#[allow(unsafe_code, reason = "system calls")]
mod wiped;

pub(crate) use context::thread_number;
#[allow(unused_imports, reason = "not every build plants every kind")]
pub(crate) use guard::{duty, give_back, guard, in_order, operation, ord, ordered_fence, seeded};
pub use hint::{Guess, Hint};
pub(crate) use imp::{epoch as process_epoch, is_this_thread, slots};
pub use per_process::PerProcess;
pub use tally::{Numbers, Tally};

#[cfg(all(test, specmm_loom))]
#[path = "../../../tests/loom/canaries.rs"]
mod canaries;
#[cfg(all(test, specmm_loom))]
#[path = "../../../tests/loom/sync.rs"]
mod models;
#[cfg(all(test, specmm_shuttle))]
#[path = "../../../tests/shuttle/sync.rs"]
mod shuttle_tests;
