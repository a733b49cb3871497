//! Advice about coming accesses: for reads of a file, and for the faults of a mapping.
//!
//! Owns: the kinds of advice. Does not own what readahead and eviction do with it (`fadvise`). Plain values, so nothing to
//! synchronise. Mirrors `include/uapi/linux/fadvise.h`.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Advice about coming reads (`posix_fadvise`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Default readahead.
    Normal,
    /// No readahead.
    Random,
    /// Twice the readahead window.
    Sequential,
    /// Start reading the range now: per call at most 1 MiB or the maximum window, whichever is larger, and never more than half
    /// the cache.
    WillNeed,
    /// Drop the range's clean, unmapped pages.
    DontNeed,
}

impl FromStr for Advice {
    type Err = Error;
    fn from_str(advice: &str) -> Result<Self> {
        match advice {
            "normal" => Ok(Self::Normal),
            "random" => Ok(Self::Random),
            "sequential" => Ok(Self::Sequential),
            "willneed" => Ok(Self::WillNeed),
            "dontneed" => Ok(Self::DontNeed),
            "hugepage" => Err(Error::Unsupported("advice \"hugepage\" is not served yet".into())),
            _ => Err(Error::InvalidArgument(format!(
                "advice {advice:?} is not one of normal, random, sequential, willneed, dontneed"
            ))),
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "normal",
            Self::Random => "random",
            Self::Sequential => "sequential",
            Self::WillNeed => "willneed",
            Self::DontNeed => "dontneed",
        })
    }
}

/// The access pattern advised for a mapping (`VM_RAND_READ`, `VM_SEQ_READ`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pattern {
    /// No advice.
    #[default]
    Normal,
    /// No readahead.
    Random,
    /// Readahead starts at the fault, without miss accounting.
    Sequential,
}
