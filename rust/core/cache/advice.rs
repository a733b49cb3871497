//! What is said about coming accesses: about reads of a file, and by a mapping about its faults.
//!
//! Owns: the words. What is done about them is readahead's and eviction's (`fadvise`). Mirrors `include/uapi/linux/fadvise.h`.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// What a user says about coming reads (`posix_fadvise`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Readahead as usual.
    Normal,
    /// No readahead.
    Random,
    /// Twice the readahead.
    Sequential,
    /// Read the range now: at most 1 MiB of it a call, or the largest window if that is more, and no more than half a cache.
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

/// What the mapping says about its access pattern (`VM_RAND_READ`, `VM_SEQ_READ`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pattern {
    /// Nothing.
    #[default]
    Normal,
    /// No readahead.
    Random,
    /// Readahead from the fault on, and no miss accounting.
    Sequential,
}
