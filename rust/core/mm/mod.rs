//! One address space: where files are mapped, which pages its entries name, and what happens on a fault.
//!
//! Owns: the mappings (`vma`), the page table, the mmap lock with its sequence, the speculative and the classic fault.
//! Does not own pages or files. Mirrors `mm/memory.c`, `mm/mmap.c` and the fault entry of `arch/x86/mm/fault.c` with the
//! speculative page-fault series.
//!
//! A speculative fault, step by step (`S` marks a check of the sequence):
//!
//! ```text
//! S read it ── odd? ABORT        nothing here waits, allocates tables or starts I/O
//!   find the VMA, copy it
//! S unchanged? ── no: ABORT      from here only the copy is used
//!   may it speculate? may it access? walk the tables
//! S unchanged? ── no: ABORT      so the file is alive for the rest of the section
//!   page cache: present, unmarked, trylock, same mapping, up to date, inside the file
//! S unchanged? leaf lock (tried once); the leaf still in the tree?
//! S unchanged? ── no: ABORT      every writer that moves this entry bumps the sequence, then takes this leaf lock
//!   entry none? set it: COMMIT
//! ```
//!
//! Any ABORT puts back what was taken and the classic path serves the fault under the mmap lock.

mod access;
pub mod events;
mod fault;
mod leaf;
mod memory;
mod mmap;
mod mmap_lock;
mod page_table;
mod vma;

pub use access::TouchReport;
pub use fault::FaultOutcome;
pub use mmap::{Madvise, Prot};

use crate::cache::{PageCache, Shared};
use crate::error::{Error, Result};
use crate::page::PAGE_SIZE;
use crate::sync::{AtomicU32, Ordering, in_order, operation, seeded};
use events::{Event, Events};
use mmap_lock::MmapLock;
use page_table::PageTable;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use vma::Vmas;

/// How a fault finds its mapping. Every mode works on the same page cache and the same page table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Locking {
    /// Every fault takes the mmap lock for reading.
    MmapLock,
    /// Every fault tries without it first.
    Speculative,
}

impl Locking {
    /// All modes.
    pub const ALL: &'static [Self] = &[Self::MmapLock, Self::Speculative];
}

impl fmt::Display for Locking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MmapLock => "mmap_lock",
            Self::Speculative => "speculative",
        })
    }
}

impl FromStr for Locking {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|mode| mode.to_string() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(ToString::to_string).collect();
            Error::InvalidArgument(format!("locking {name:?} is not one of {}", names.join(", ")))
        })
    }
}

/// Options of [`Mm::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MmOptions {
    locking: Locking,
    fault_around_bytes: u64,
}

impl MmOptions {
    /// Default number of bytes around a read fault that are mapped with it.
    pub const FAULT_AROUND_BYTES: u64 = 64 << 10;

    /// How faults find their mapping; [`Locking::Speculative`] by default.
    #[must_use]
    pub fn locking(mut self, locking: Locking) -> Self {
        self.locking = locking;
        self
    }

    /// Bytes around a read fault that are mapped with it if they are in the cache (`fault_around_bytes`): a power of two from one
    /// page, which turns it off, to 2 MiB; [`MmOptions::FAULT_AROUND_BYTES`] by default.
    #[must_use]
    pub fn fault_around_bytes(mut self, bytes: u64) -> Self {
        self.fault_around_bytes = bytes;
        self
    }
}

impl Default for MmOptions {
    fn default() -> Self {
        Self { locking: Locking::Speculative, fault_around_bytes: Self::FAULT_AROUND_BYTES }
    }
}

/// One address space (`struct mm_struct`). Clones share it; any thread may use it.
#[derive(Clone)]
pub struct Mm {
    inner: Arc<MmInner>,
}

struct MmInner {
    shared: Arc<Shared>,
    lock: MmapLock,
    vmas: Vmas,
    tables: Arc<PageTable>,
    events: Arc<Events>,
    options: MmOptions,
    closed: AtomicU32,
}

impl Mm {
    /// An empty address space over the pages of `cache`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a fault-around that is not a power of two between one page and 2 MiB;
    /// [`Error::OutOfMemory`]; [`Error::Closed`] if the cache is.
    pub fn new(cache: &PageCache, options: MmOptions) -> Result<Self> {
        cache.shared().require_open()?;
        Self::over(Arc::clone(cache.shared()), options)
    }

    pub(crate) fn over(shared: Arc<Shared>, options: MmOptions) -> Result<Self> {
        let around = options.fault_around_bytes;
        if !around.is_power_of_two() || around < PAGE_SIZE as u64 || around > 2 << 20 {
            return Err(Error::InvalidArgument(format!(
                "fault_around of {around} bytes is not a power of two between {PAGE_SIZE} and {}",
                2 << 20
            )));
        }
        let events = Arc::new(Events::new()?);
        let tables = Arc::new(PageTable::new(Arc::clone(&shared))?);
        let inner = MmInner {
            shared,
            lock: MmapLock::new(Arc::clone(&events)),
            vmas: Vmas::new(),
            tables,
            events,
            options,
            closed: AtomicU32::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How faults find their mapping here.
    #[must_use]
    pub fn locking(&self) -> Locking {
        self.inner.options.locking
    }

    /// The counters, in a fixed order, named as in `/proc/vmstat`. They never decrease; sums are exact at rest.
    #[must_use]
    pub fn vm_events(&self) -> Vec<(&'static str, u64)> {
        self.inner.events.all()
    }

    /// Every counter of [`Mm::vm_events`] with what it counts, in the same order.
    pub fn vm_event_glosses() -> impl Iterator<Item = (&'static str, &'static str)> {
        Events::glosses()
    }

    /// Checks the counters and page tables at rest, while no fault is running.
    ///
    /// # Errors
    /// [`Error::Invariant`] if attempts are not commits plus aborts, aborts are not the sum of their causes, or page tables are
    /// miscounted.
    pub fn check(&self) -> Result<()> {
        // Freed tables still wait for a grace period.
        crate::rcu::barrier();
        self.inner.tables.audit().map_err(Error::Invariant)?;
        if self.inner.events.balance() {
            return Ok(());
        }
        Err(Error::Invariant(format!("attempts, commits and aborts do not add up: {:?}", self.vm_events())))
    }

    /// Bytes that the page tables take now.
    #[must_use]
    pub fn page_table_bytes(&self) -> u64 {
        self.inner.tables.bytes()
    }

    /// Whether [`Mm::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.require_open().is_err()
    }

    /// Unmaps everything; later calls fail. May be called twice.
    ///
    /// # Errors
    /// None yet: there is nothing to write back.
    pub fn close(&self) -> Result<()> {
        operation!("close an address space");
        // The flag first: `mmap` sees it under the lock, or what it has mapped is unmapped here.
        in_order!(
            "mm.close.flag_first",
            if self.inner.closed.swap(1, Ordering::Relaxed) != 0 {
                return Ok(());
            },
            self.inner.unmap_all()
        );
        Ok(())
    }
}

impl MmInner {
    fn require_open(&self) -> Result<()> {
        self.shared.require_open()?;
        // Relaxed: a close beside a running call has no order with it.
        if self.closed.load(Ordering::Relaxed) == 0 {
            Ok(())
        } else {
            Err(Error::Closed("the address space".into()))
        }
    }

    /// What to say where nothing is mapped: that the address space was closed meanwhile, if so. The caller has looked under the mmap
    /// lock, and an end sets the flag before it unmaps under that lock.
    #[cold]
    fn unmapped(&self, error: Error) -> Error {
        seeded!("mm.closed_meanwhile", self.require_open().err(), bug = None).unwrap_or(error)
    }

    #[inline]
    fn count(&self, event: Event) {
        self.events.add(event);
    }
}

impl Drop for MmInner {
    fn drop(&mut self) {
        debug_assert!(
            self.events.balance(),
            "attempts, commits and aborts do not add up: {:?}",
            self.events.all()
        );
        self.unmap_all();
    }
}

impl fmt::Debug for Mm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mm").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

#[cfg(all(test, specmm_shuttle))]
#[path = "../../../tests/shuttle/everything.rs"]
mod everything_shuttle_tests;
#[cfg(all(test, specmm_loom))]
#[path = "../../../tests/loom/mmap.rs"]
pub(crate) mod mmap_models;
#[cfg(all(test, specmm_loom))]
#[path = "../../../tests/loom/mm.rs"]
pub(crate) mod models;
#[cfg(all(test, specmm_loom))]
#[path = "../../../tests/loom/open_question.rs"]
mod open_question;
#[cfg(all(test, specmm_loom))]
#[path = "../../../tests/loom/reclaim.rs"]
mod reclaim_models;
#[cfg(all(test, specmm_shuttle))]
#[path = "../../../tests/shuttle/reclaim.rs"]
mod reclaim_shuttle_tests;
#[cfg(all(test, specmm_shuttle))]
#[path = "../../../tests/shuttle/mm.rs"]
mod shuttle_tests;
#[cfg(all(test, specmm_loom))]
#[path = "../../../tests/loom/page_table.rs"]
pub(crate) mod table_models;
#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests;
