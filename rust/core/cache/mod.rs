//! Pages of files: which page is at which index, how pages get there and how they leave.
//!
//! Owns: mappings of files to pages ([`AddressSpace`]), open files and their readahead windows ([`File`]), the speculative and
//! the classic [`filemap`] fault, copy-out reads, truncation, the I/O queue, the memory limit ([`PageCache`]). Does not own
//! address spaces of programs: `mm/` implements `MappedRange`, through which truncation unmaps.
//!
//! Mirrors `mm/filemap.c`, `mm/readahead.c`, `mm/truncate.c`, `mm/vmscan.c` and `mm/workingset.c`.
//!
//! # Floors
//!
//! A module names only modules of lower floors, and a type has methods only where it is defined; higher floors use functions.
//! (Only the public handles, [`File`] and [`PageCache`], have methods on floors above their own.) `tests/house` reads this table
//! and checks every module against it. `docs/architecture.md` follows the paths through the floors, hop by hop.
//!
//! | floor | what | modules |
//! |---|---|---|
//! | 15 | handles built on handles | `adopt` `reader` |
//! | 14 | the public handle of a cache, and operations on files | `gather` `page_cache` `pin` `pread` `residency` |
//! | 13 | the public handle of a file | `file` |
//! | 12 | reads | `read` |
//! | 11 | reads past the cache; a fault alone | `direct_read` `lone_fault` |
//! | 10 | faults, opens, changes of size, advice, failed reads, calls of one version | `again` `fadvise` `filemap` `files` `one_version` `read_error` `size_change` |
//! | 9 | pages arrive: found or created, read ahead, waited for; changes by others are followed | `arrival` `coherence` `creation` `readahead` |
//! | 8 | idle pages leave; `invalidate_lock` | `eviction` `invalidate_lock` |
//! | 7 | operations on one file's pages | `audit` `copy_out` `fill` `open_file` `speculation` `truncate` `wait` |
//! | 6 | one file's pages: finding, adding, removing | `address_space` |
//! | 5 | reclaim, which knows files only through [`registry`] | `vmscan` |
//! | 4 | marks of use | `accessed` |
//! | 3 | state that all files share | `shared` |
//! | 2 | evicted pages; options | `options` `workingset` |
//! | 1 | the files of a cache, the ranges of a file, the queue of reads | `i_mmap` `io` `registry` |
//! | 0 | parts that depend on no other | `advice` `arguments` `hire` `idle` `in_flight` `mmu_gather` `patience` `requests` `stats` `version` `vm_fault` `window` |
//!
//! Lock order, outermost first: `invalidate_lock`, page lock, `i_mmap`, leaf lock (in `mm/`), `i_pages`.

mod accessed;
mod address_space;
mod adopt;
mod advice;
mod again;
mod arguments;
mod arrival;
mod audit;
mod coherence;
mod copy_out;
mod creation;
mod direct_read;
mod eviction;
mod fadvise;
mod file;
pub mod filemap;
mod files;
mod fill;
mod gather;
mod hire;
mod i_mmap;
mod idle;
mod in_flight;
mod invalidate_lock;
mod io;
mod lone_fault;
mod mmu_gather;
mod one_version;
mod open_file;
mod options;
mod page_cache;
mod patience;
mod pin;
mod pread;
mod read;
mod read_error;
mod readahead;
mod reader;
mod registry;
mod requests;
mod residency;
mod shared;
mod size_change;
mod speculation;
mod stats;
mod truncate;
mod version;
mod vm_fault;
mod vmscan;
mod wait;
mod window;
mod workingset;

pub(crate) use accessed::mark_accessed;
pub use address_space::AddressSpace;
pub(crate) use address_space::HeldPage;
pub use advice::Advice;
pub use file::File;
pub(crate) use i_mmap::MappedRange;
pub use io::Io;
pub use lone_fault::FilemapFault;
pub(crate) use mmu_gather::MmuGather;
pub use one_version::{OneVersion, Verdict};
pub(crate) use open_file::OpenFile;
pub use open_file::ReadaheadState;
pub use options::{
    CacheOptions, DEFAULT_FRAME_TIMEOUT, DEFAULT_RA_PAGES, OpenMode, OpenOptions, StoreOptions,
};
pub use page_cache::PageCache;
pub use pin::Pinned;
pub(crate) use read_error::{ReadError, judge_read_error};
pub(crate) use readahead::will_need;
pub use reader::FileReader;
pub(crate) use shared::Shared;
pub(crate) use speculation::{filemap_fault_speculative, next_uptodate_page};
pub use stats::{CacheStats, Counter, CounterValue};
pub use vm_fault::{Abort, VmFault};
pub(crate) use vmscan::{alloc_page, put_after_grace_period, wait_for_frame};
pub(crate) use wait::NotRead;

#[cfg(not(any(specmm_loom, specmm_shuttle)))]
pub use patience::give_up_waiting_when;

#[cfg(all(test, specmm_loom))]
#[path = "../../../tests/loom/cache.rs"]
pub(crate) mod models;
#[cfg(all(test, specmm_shuttle))]
#[path = "../../../tests/shuttle/cache.rs"]
pub(crate) mod shuttle_tests;
