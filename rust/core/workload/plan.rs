//! What to run, checked before anything starts.

use crate::error::{Error, IoError, Result};
use crate::mm::{Locking, MmOptions};
use crate::page::PAGE_SIZE;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The most that is mapped by default: all of it stays resident, so that no fault waits for a disk or for reclaim.
pub const MAX_LENGTH: u64 = 64 << 20;
/// Room in the cache beyond the mapped file: for private copies of the writer and pages read ahead.
const ROOM: u64 = 4 << 20;

/// What the faulting threads do. A writer works at the same time, except at rate 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Workload {
    /// Read faults, each thread in its own slice of one shared mapping.
    FaultVsMmap,
    /// Read faults, each thread through its own mapping, all of the same pages.
    FaultReadShared,
    /// Private write faults, each thread in its own slice of the file; a pass ends with munmap and a new mmap.
    PageFault2,
}

impl Workload {
    /// All workloads.
    pub const ALL: &'static [Self] = &[Self::FaultVsMmap, Self::FaultReadShared, Self::PageFault2];

    /// What it does, in one line.
    #[must_use]
    pub const fn gloss(self) -> &'static str {
        match self {
            Self::FaultVsMmap => "read faults, each thread in its own slice of one shared mapping",
            Self::FaultReadShared => "read faults, each thread through its own mapping of the same pages",
            Self::PageFault2 => {
                "private write faults, each thread in its own slice; a pass ends with munmap and mmap"
            }
        }
    }

    /// Whether touches store.
    pub(super) const fn writes(self) -> bool {
        matches!(self, Self::PageFault2)
    }

    /// Bytes from one touch to the next: as many as one fault maps.
    pub(super) fn stride(self) -> u64 {
        // There is no fault-around for stores.
        if self.writes() { PAGE_SIZE as u64 } else { MmOptions::FAULT_AROUND_BYTES }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FaultVsMmap => "fault_vs_mmap",
            Self::FaultReadShared => "fault_read_shared",
            Self::PageFault2 => "page_fault2",
        })
    }
}

impl FromStr for Workload {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        pick("workload", name, Self::ALL)
    }
}

/// Pairs of mmap and munmap per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rate {
    /// This many; 0 means that there is no writer.
    PerSecond(u32),
    /// Without pause.
    Max,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerSecond(rate) => rate.fmt(f),
            Self::Max => f.write_str("max"),
        }
    }
}

impl FromStr for Rate {
    type Err = Error;
    fn from_str(rate: &str) -> Result<Self> {
        if rate == "max" {
            return Ok(Self::Max);
        }
        rate.parse().map(Self::PerSecond).map_err(|_| {
            Error::InvalidArgument(format!(
                "writer rate {rate:?} is neither a number of pairs a second nor max"
            ))
        })
    }
}

/// What serves the faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Row {
    /// The kernel, through the real mmap(2).
    Kernel,
    /// An address space of specmm.
    Specmm(Locking),
}

impl Row {
    /// The kernel, then each locking mode.
    #[must_use]
    pub fn all() -> Vec<Self> {
        std::iter::once(Self::Kernel).chain(Locking::ALL.iter().copied().map(Self::Specmm)).collect()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => f.write_str("kernel"),
            Self::Specmm(locking) => locking.fmt(f),
        }
    }
}

impl FromStr for Row {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        pick("locking", name, &Self::all())
    }
}

fn pick<T: Copy + fmt::Display>(what: &str, name: &str, all: &[T]) -> Result<T> {
    all.iter().copied().find(|one| one.to_string() == name).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(ToString::to_string).collect();
        Error::InvalidArgument(format!("{what} {name:?} is not one of {}", names.join(", ")))
    })
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// A regular file; it is opened for reading and never changed.
    pub path: PathBuf,
    /// What the faulting threads do.
    pub workload: Workload,
    /// Faulting threads.
    pub threads: usize,
    /// Writer rates, one for each column of the grid.
    pub rates: Vec<Rate>,
    /// Rows of the grid.
    pub rows: Vec<Row>,
    /// Seconds of warm faulting in each cell of the grid, over all rounds.
    pub seconds: f64,
    /// Rounds into which that time is split.
    pub rounds: u32,
    /// Bytes to map; `None`: the whole file, at most [`MAX_LENGTH`].
    pub length: Option<u64>,
    /// Bytes of the cache; `None`: as many as the mapping needs.
    pub capacity: Option<u64>,
}

/// Sizes that follow from a plan and its file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) file: u64,
    /// Bytes mapped, in whole pages (the last one may exceed the file).
    pub(super) length: u64,
    pub(super) capacity: u64,
}

impl Plan {
    pub(super) fn check(&self) -> Result<Sizes> {
        let invalid = |message: String| Err(Error::InvalidArgument(message));
        if self.threads == 0 || self.threads > 1024 {
            return invalid(format!("threads {} is not between 1 and 1024", self.threads));
        }
        if !(self.seconds > 0.0 && self.seconds <= 86400.0) {
            return invalid(format!("seconds {} is not between 0 and a day", self.seconds));
        }
        if self.rounds == 0 || self.rates.is_empty() || self.rows.is_empty() {
            return invalid("nothing to run: no rounds, no rates or no rows".into());
        }
        let name = self.path.to_string_lossy();
        let found =
            std::fs::metadata(&self.path).map_err(|error| Error::Io(IoError::new(error, &self.path)))?;
        if !found.is_file() {
            return invalid(format!("{name} is not a regular file"));
        }
        if found.len() == 0 {
            return invalid(format!("{name} is empty: there is nothing to map"));
        }
        self.sizes(found.len())
    }

    fn sizes(&self, file: u64) -> Result<Sizes> {
        let page = PAGE_SIZE as u64;
        // Private copies of the whole mapping may take half of the cache, no more.
        let needed = |length: u64| if self.workload.writes() { length * 2 + ROOM } else { length + ROOM };
        let wanted = self.length.unwrap_or(MAX_LENGTH).min(file).next_multiple_of(page);
        let length = match (self.length, self.capacity) {
            (Some(0), _) => return Err(Error::InvalidArgument("length 0: there is nothing to map".into())),
            (None, Some(capacity)) => {
                let fits = capacity.saturating_sub(ROOM) / if self.workload.writes() { 2 } else { 1 };
                wanted.min(fits / page * page)
            }
            _ => wanted,
        };
        let capacity = self.capacity.unwrap_or_else(|| needed(length));
        if length == 0 || capacity < needed(length) {
            return Err(Error::InvalidArgument(format!(
                "capacity of {capacity} bytes is too small: {} bytes to map need {}",
                length.max(page),
                needed(length.max(page))
            )));
        }
        Ok(Sizes { file, length, capacity })
    }
}
