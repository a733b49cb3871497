//! Linux's file page-fault path as a library.

#![deny(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("specmm runs on Linux only");

pub mod cache;
pub mod error;
pub mod mm;
pub mod page;
#[allow(unsafe_code, reason = "grace periods hand raw pointers from readers to their freer")]
pub mod rcu;
pub mod stats;
pub mod store;
pub mod sync;
#[cfg(all(feature = "workload", not(specmm_loom)))]
pub mod workload;
#[allow(unsafe_code, reason = "nodes are reached through raw pointers that RCU keeps alive")]
pub mod xarray;

pub use cache::{
    Abort, Advice, CacheStats, DEFAULT_RA_PAGES, File, FilemapFault, Io, OpenMode, PageCache, ReadaheadState,
    VmFault,
};
pub use error::{Error, Result};
pub use mm::{FaultOutcome, Locking, Madvise, Mm, MmOptions, Prot, TouchReport};
pub use page::{PAGE_SHIFT, PAGE_SIZE};

#[cfg(all(test, specmm_loom))]
#[path = "../../tests/loom/harness.rs"]
mod loom_harness;
