//! Linux's file page-fault path as a library.
//!
//! specmm is a page cache with a hard bound and address spaces over it, built the way Linux builds them: pages are found
//! without a lock, a fault first tries to be served *speculatively*, without the mmap lock, and only then takes it.
//!
//! ```
//! use specmm::{Io, Mm, MmOptions, PageCache, Prot, store::MemoryStore};
//! use std::sync::Arc;
//!
//! let cache = PageCache::new(1 << 20, Io::Inline)?;
//! let file = cache.open_store(Arc::new(MemoryStore::new(vec![7; 100_000])), 100_000, "sevens", 32)?;
//!
//! // As a file.
//! let mut buf = [0; 10];
//! assert_eq!(file.pread(&mut buf, 99_995)?, 5);
//!
//! // As a mapping: the first fault makes page tables under the lock, a later one commits without it.
//! let mm = Mm::new(&cache, MmOptions::default())?;
//! let address = mm.mmap(&file, None, 0, Prot::Read, true)?;
//! assert!(mm.fault(address, false).abort.is_some());
//! assert!(mm.fault(address + 80_000, false).abort.is_none());
//!
//! // Beyond a truncated end: an error, never a signal.
//! file.truncate(4096)?;
//! assert!(matches!(mm.load(address + 80_000, &mut buf), Err(specmm::Error::Bus { index: 19, .. })));
//! # Ok::<(), specmm::Error>(())
//! ```
//!
//! # The house
//!
//! Each room knows only the rooms below it. A reader who knows Linux finds each function where Linux keeps it.
//!
//! | room | what | Linux |
//! |---|---|---|
//! | `workload` | drivers of the workloads (cargo feature) | will-it-scale, pft |
//! | [`mm`] | address spaces: mappings, page table, mmap lock with its sequence, faults | `mm/memory.c`, `mm/mmap.c` |
//! | [`cache`] | pages of files: lookup, `filemap_fault`, readahead, truncation, the bound | `mm/filemap.c`, `mm/readahead.c`, `mm/truncate.c` |
//! | [`page`] | frames: flags, reference counts, locks, bytes | `struct page`, `mm/page_alloc.c` |
//! | [`xarray`] | index to page | `lib/xarray.c` |
//! | [`store`] | where bytes live | file systems |
//! | [`stats`] | event counters | `mm/vmstat.c` |
//! | [`rcu`] | read sections and grace periods | `kernel/rcu` |
//! | [`sync`] | atomics in two faces, named guards, locks, wait queues | `kernel/locking` |
//!
//! # Who waits
//!
//! Lock-free: a copy-out attempt ([`File::read_cached`]) and a speculative attempt (a count of zero aborts; the page lock
//! and the leaf lock are tried once). Waiting: [`File::pread`] on a miss, the classic fault, the page lock, the leaf lock,
//! the mmap lock, [`rcu::synchronize`].
//!
//! # What excludes what
//!
//! A fault (F speculative, C classic) against the operations that can take its page or its mapping away:
//!
//! | against | guard of F | guard of C |
//! |---|---|---|
//! | munmap, mprotect, madvise | the sequence, looked at under the leaf lock | the mmap lock |
//! | truncation | page lock, then mapping and size under it; truncation unmaps again under the page lock | the same |
//! | removal of an idle page | a reference unless the count is zero, then the slot again | the same |
//! | another fault on the page | page lock tried once; entry none under the leaf lock | page lock; the same |
//! | freeing of tables, mappings, files | one read section for the whole attempt | the mmap lock, references |
//! | reuse of a frame that was mapped | the unmapper awaits a grace period before it puts its references | the same |
//!
//! Lock order, outermost first: mmap lock, `invalidate_lock`, page lock, `i_mmap`, leaf lock, `i_pages`. A grace period may
//! be awaited under all but the last two, and never inside a read section.
//!
//! How each of these is checked stands in the repository under `docs/checking.md`.

#![deny(unsafe_code)]
#![allow(clippy::nonminimal_bool, reason = "a guard is written as the condition that must hold")]

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
#[cfg(feature = "workload")]
pub mod workload;
#[allow(unsafe_code, reason = "nodes are reached through raw pointers that RCU keeps alive")]
pub mod xarray;

#[cfg(all(test, specmm_loom))]
#[path = "../../tests/loom/harness.rs"]
mod loom_harness;
#[cfg(all(test, specmm_loom))]
#[path = "../../tests/loom/history.rs"]
mod loom_history;

pub use cache::{
    Abort, Advice, CacheStats, DEFAULT_RA_PAGES, File, FilemapFault, Io, OpenMode, PageCache, ReadaheadState,
    VmFault,
};
pub use error::{Error, Result};
pub use mm::{FaultOutcome, Locking, Madvise, Mm, MmOptions, Prot, TouchReport};
pub use page::{PAGE_SHIFT, PAGE_SIZE};
