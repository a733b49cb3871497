//! Read large files under a memory limit you set: a page cache inside your process, in place of mmap.
//!
//! Pages are found and copied out without a lock, any number of files share the limit, and a truncated file is an error where
//! mmap sends a signal. On top of the cache are address spaces whose page faults are served as Linux serves them: first
//! *speculatively*, without the mmap lock, and only if that fails with it.
//!
//! ```
//! use specmm::{Io, Mm, MmOptions, PageCache, Prot, store::MemoryStore};
//! use std::sync::Arc;
//!
//! let cache = PageCache::new(1 << 20, Io::Inline)?;
//! let file = cache.open_store(Arc::new(MemoryStore::new(vec![7; 100_000])), 100_000)?;
//!
//! // As a file.
//! let mut buf = [0; 10];
//! assert_eq!(file.pread(&mut buf, 99_995)?, 5);
//!
//! // Without a copy: a pin keeps its page in memory and the file open.
//! let pin = file.pin(40_000, 10)?;
//! assert_eq!(pin[..], [7; 10]);
//! assert!(matches!(file.close(), Err(specmm::Error::Pinned(_))));
//! drop(pin);
//!
//! // As a mapping: the first fault allocates page tables under the lock, a later one commits without it.
//! let mm = Mm::new(&cache, MmOptions::default())?;
//! let address = mm.mmap(&file, None, 0, Prot::Read, true)?;
//! assert!(mm.fault(address, false).abort.is_some());
//! assert!(mm.fault(address + 80_000, false).abort.is_none());
//!
//! // Past the truncated end: an error, never a signal.
//! file.truncate(4096)?;
//! assert!(matches!(mm.load(address + 80_000, &mut buf), Err(specmm::Error::Bus { index: 19, .. })));
//!
//! // Mappings keep their files alive; files and caches close here, or when the last clone is dropped.
//! mm.close()?;
//! file.close()?;
//! cache.close()?;
//! # Ok::<(), specmm::Error>(())
//! ```
//!
//! # The house
//!
//! The crate is a house of rooms (its modules), and each room uses only the rooms below it. Each function is where Linux keeps
//! it. Only [`store`], [`error`], [`fork`] and the names at the root are public; the other rooms are private.
//!
//! | room | what | Linux |
//! |---|---|---|
//! | `workload` | drivers of the workloads (feature `workload`) | will-it-scale, pft |
//! | `mm` | address spaces: mappings, page table, mmap lock with its sequence, faults | `mm/memory.c`, `mm/mmap.c` |
//! | `cache` | pages of files: lookup, `filemap_fault`, readahead, truncation, the memory limit | `mm/filemap.c`, `mm/readahead.c`, `mm/truncate.c` |
//! | `page` | frames: flags, reference counts, locks, bytes | `struct page`, `mm/page_alloc.c` |
//! | `xarray` | index to page | `lib/xarray.c` |
//! | [`store`] | where the bytes come from | file systems |
//! | `stats` | event counters | `mm/vmstat.c` |
//! | `rcu` | read sections and grace periods | `kernel/rcu` |
//! | `sync` | atomics (native, and for model checkers), named guards, locks, wait queues | `kernel/locking` |
//!
//! Beside them are [`fork`], for a forked child's first steps, and `reserve`, allocations that may fail.
//!
//! The features `internals` (internal items that benchmarks, checks and the Python binding need) and `workload` are for the
//! project's own use and exempt from semantic versioning.
//!
//! # What waits
//!
//! Lock-free: a copy-out attempt ([`File::read_cached`]) and a speculative attempt (a count of zero aborts; the page lock
//! and the leaf lock are tried once). Waiting: [`File::pread`] on a miss, the classic fault, the page lock, the leaf lock,
//! the mmap lock, grace periods.
//!
//! # What excludes what
//!
//! For each pair of operations: the guard, and in parentheses the lock that both take. F is a speculative fault, C a classic one,
//! L a load or store through an entry, P a copy of a resident page, R the creation and reading of pages, T truncation, E the
//! removal of an idle page, S reclaim, K a pin, W a change of mappings. `docs/concurrency.md` in the repository lists every pair
//! with the models that fail without its guard, and the assumptions that cross modules.
//!
//! | | F | C | L | P |
//! |---|---|---|---|---|
//! | F, C | entry still none (leaf lock) | up to date under the page lock (page, leaf lock) | entry set after the bytes | nothing shared is written |
//! | R | up to date under the page lock | the same | the same | up to date before the copy, generation after |
//! | T | mapping and size under the page lock; T unmaps again under it | the same | T awaits a grace period | generation, slot, size |
//! | E | a reference unless the count is zero, the slot again | the same | E leaves what is mapped | slot again, generation |
//! | S | as E (page lock, tried by both) | the same | S awaits a grace period between entry and freeze | as E |
//! | W | the sequence, last looked at under the leaf lock; one read section | the mmap lock | W awaits a grace period | nothing in common |
//!
//! | | R | T | E | W |
//! |---|---|---|---|---|
//! | R | slot empty (`i_pages`); markers by test-and-clear | size and insertion (`invalidate_lock`) | slot again | nothing in common |
//! | T | | (`invalidate_lock`) | mapping (page lock) | a mapping stays on its file's list (`i_mmap`) |
//! | E | | | (page lock) | references that wait for a grace period |
//! | W | | | | (mmap lock) |
//!
//! | | R | T | E | S | K |
//! |---|---|---|---|---|---|
//! | S | a mapping before the lock is tried | mapping (page lock); shadows looked for again | (page lock) | put back once (free lists' mutex) | |
//! | K | nothing in common | pins and size under the page lock | a pin's reference | a pin's reference; pinned is on no list | nothing in common |
//!
//! When a file was changed by others, every page is taken out (T) and then the file's epoch advances; a call over several pages
//! loads the epoch before its first page and after its last. A read (R) is valid if the store reports the same state before and
//! after it.
//!
//! Lock order, outermost first: mmap lock, `invalidate_lock`, page lock, `i_mmap`, leaf lock, `i_pages`. A grace period may
//! be awaited under all but the last two, and never inside a read section.
//!
//! `docs/checking.md` in the repository says how each of these is checked.

#![deny(unsafe_code)]
#![cfg_attr(not(feature = "internals"), warn(unnameable_types))]
#![allow(clippy::nonminimal_bool, reason = "a guard is written as the condition that must hold")]

#[cfg(not(target_os = "linux"))]
compile_error!("specmm runs on Linux only");

mod cache;
pub mod error;
#[cfg(not(any(specmm_loom, specmm_shuttle)))]
pub mod fork;
#[cfg(feature = "internals")]
pub mod internals;
mod mm;
mod page;
#[allow(unsafe_code, reason = "grace periods hand raw pointers from readers to their freer")]
mod rcu;
mod reserve;
mod stats;
pub mod store;
mod sync;
#[cfg(all(feature = "workload", not(any(specmm_loom, specmm_shuttle))))]
pub mod workload;
#[allow(unsafe_code, reason = "nodes are reached through raw pointers that RCU keeps alive")]
mod xarray;

/// The crate's README, whose examples run with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(all(test, specmm_loom))]
#[path = "../../tests/loom/harness.rs"]
mod loom_harness;
#[cfg(all(test, specmm_loom))]
#[path = "../../tests/loom/history.rs"]
mod loom_history;
#[cfg(all(test, specmm_shuttle))]
#[path = "../../tests/shuttle/harness.rs"]
mod shuttle_harness;

#[cfg(not(any(specmm_loom, specmm_shuttle)))]
pub use cache::give_up_waiting_when;
pub use cache::{
    Abort, Advice, CacheOptions, CacheStats, Counter, CounterValue, DEFAULT_FRAME_TIMEOUT, DEFAULT_RA_PAGES,
    File, FileReader, FilemapFault, Io, OneVersion, OpenMode, OpenOptions, PageCache, Pinned, ReadaheadState,
    StoreOptions, Verdict, VmFault,
};
pub use error::{Error, Result};
pub use mm::{FaultOutcome, Locking, Madvise, Mm, MmOptions, Prot, TouchReport};
pub use page::{Out, PAGE_SHIFT, PAGE_SIZE};
