//! Options of caches and of opens, with their defaults.

use super::io::Io;
use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Default time that a request waits for a frame when nothing can be evicted ([`CacheOptions::frame_timeout`]).
pub const DEFAULT_FRAME_TIMEOUT: Duration = Duration::from_secs(5);

/// Default maximum readahead window of an open file, in pages (128 KiB).
pub const DEFAULT_RA_PAGES: u32 = 32;

/// How a file is opened; displayed and parsed as the modes of Python's `open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// `rb`: for reading.
    Read,
    /// `r+b`: an existing file, whose size may be changed.
    ReadWrite,
    /// `w+b`: as `r+b`, but created if missing, and truncated to zero.
    Create,
    /// `x+b`: as `r+b`, but created; must not exist yet.
    CreateNew,
}

impl OpenMode {
    /// Whether the file's size may be changed.
    #[must_use]
    pub fn is_writable(self) -> bool {
        self != Self::Read
    }
}

impl FromStr for OpenMode {
    type Err = Error;
    fn from_str(mode: &str) -> Result<Self> {
        match mode {
            "r" | "rb" => Ok(Self::Read),
            "r+" | "r+b" | "rb+" => Ok(Self::ReadWrite),
            "w+" | "w+b" | "wb+" => Ok(Self::Create),
            "x+" | "x+b" | "xb+" => Ok(Self::CreateNew),
            _ => Err(Error::InvalidArgument(format!("mode {mode:?} is not one of rb, r+b, w+b, x+b"))),
        }
    }
}

impl fmt::Display for OpenMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "rb",
            Self::ReadWrite => "r+b",
            Self::Create => "w+b",
            Self::CreateNew => "x+b",
        })
    }
}

/// Options of a cache, for [`PageCache::with_options`](crate::PageCache::with_options).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheOptions {
    pub(super) io: Io,
    pub(super) frame_timeout: Duration,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self { io: Io::Threads, frame_timeout: DEFAULT_FRAME_TIMEOUT }
    }
}

impl CacheOptions {
    /// Which threads read the stores; [`Io::Threads`] by default.
    #[must_use]
    pub fn io(mut self, io: Io) -> Self {
        self.io = io;
        self
    }

    /// How long a request waits when no frame can be freed, because all are pinned or in use, before it fails with
    /// [`Error::OutOfFrames`]; [`DEFAULT_FRAME_TIMEOUT`] by default.
    #[must_use]
    pub fn frame_timeout(mut self, timeout: Duration) -> Self {
        self.frame_timeout = timeout;
        self
    }
}

/// Options of an open, for [`PageCache::open_with`](crate::PageCache::open_with).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    pub(super) mode: OpenMode,
    pub(super) ra_pages: u32,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { mode: OpenMode::Read, ra_pages: DEFAULT_RA_PAGES }
    }
}

impl OpenOptions {
    /// Whether the file may be changed or created; [`OpenMode::Read`] by default.
    #[must_use]
    pub fn mode(mut self, mode: OpenMode) -> Self {
        self.mode = mode;
        self
    }

    /// Maximum readahead window, in pages (`ra_pages` of `struct file_ra_state`): [`DEFAULT_RA_PAGES`] by default, at most 2^18;
    /// 0 disables readahead.
    #[must_use]
    pub fn ra_pages(mut self, pages: u32) -> Self {
        self.ra_pages = pages;
        self
    }
}

/// Options of a store, for [`PageCache::open_store_with`](crate::PageCache::open_store_with).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions<'a> {
    pub(super) name: &'a OsStr,
    pub(super) ra_pages: u32,
    pub(super) timeout: Option<Duration>,
}

impl Default for StoreOptions<'_> {
    fn default() -> Self {
        Self { name: OsStr::new(""), ra_pages: DEFAULT_RA_PAGES, timeout: None }
    }
}

impl<'a> StoreOptions<'a> {
    /// The file's name, mainly for error messages; empty by default.
    #[must_use]
    pub fn name<N: AsRef<OsStr> + ?Sized>(mut self, name: &'a N) -> Self {
        self.name = name.as_ref();
        self
    }

    /// Maximum readahead window, in pages (`ra_pages` of `struct file_ra_state`): [`DEFAULT_RA_PAGES`] by default, at most 2^18;
    /// 0 disables readahead.
    #[must_use]
    pub fn ra_pages(mut self, pages: u32) -> Self {
        self.ra_pages = pages;
        self
    }

    /// How long a reader waits for one page before it fails with [`Error::TimedOut`]. The store is then read by workers only
    /// ([`ReadBy::Workers`](crate::store::ReadBy::Workers)), whatever its own `read_by` returns, which applies by default.
    ///
    /// ```
    /// use specmm::store::{Fault, FaultyStore, MemoryStore, Plan};
    /// use specmm::{Error, Io, PageCache, StoreOptions};
    /// use std::sync::Arc;
    /// use std::time::Duration;
    ///
    /// let slow = Plan { read: 1, fault: Fault::Slow(Duration::from_millis(200)), for_ever: false };
    /// let store = FaultyStore::new(Arc::new(MemoryStore::new(vec![7; 100])), slow);
    /// let cache = PageCache::new(1 << 20, Io::Threads)?;
    /// let patience = StoreOptions::default().timeout(Duration::from_millis(20));
    /// let file = cache.open_store_with(Arc::new(store), 100, patience)?;
    /// let mut byte = [0];
    /// assert!(matches!(file.pread(&mut byte, 0), Err(Error::TimedOut { .. })));
    /// assert_eq!(cache.stats().reads_abandoned, 1);
    /// # Ok::<(), specmm::Error>(())
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn each_option_is_what_was_asked_for_and_the_others_stay() {
        let second = Duration::from_secs(1);
        let defaults = CacheOptions::default();
        assert_eq!(defaults, CacheOptions { io: Io::Threads, frame_timeout: DEFAULT_FRAME_TIMEOUT });
        assert_eq!(defaults.io(Io::Inline), CacheOptions { io: Io::Inline, ..defaults });
        assert_eq!(defaults.frame_timeout(second), CacheOptions { frame_timeout: second, ..defaults });
        let defaults = OpenOptions::default();
        assert_eq!(defaults, OpenOptions { mode: OpenMode::Read, ra_pages: DEFAULT_RA_PAGES });
        assert_eq!(defaults.mode(OpenMode::Create), OpenOptions { mode: OpenMode::Create, ..defaults });
        assert_eq!(defaults.ra_pages(3), OpenOptions { ra_pages: 3, ..defaults });
        let defaults = StoreOptions::default();
        let name = OsStr::new("");
        assert_eq!(defaults, StoreOptions { name, ra_pages: DEFAULT_RA_PAGES, timeout: None });
        assert_eq!(defaults.name("file"), StoreOptions { name: OsStr::new("file"), ..defaults });
        assert_eq!(defaults.ra_pages(3), StoreOptions { ra_pages: 3, ..defaults });
        assert_eq!(defaults.timeout(second), StoreOptions { timeout: Some(second), ..defaults });
    }

    #[test]
    fn a_mode_is_printed_as_it_is_written() {
        for (mode, is_writable) in [("rb", false), ("r+b", true), ("w+b", true), ("x+b", true)] {
            let parsed: OpenMode = mode.parse().unwrap();
            assert_eq!((parsed.to_string().as_str(), parsed.is_writable()), (mode, is_writable));
        }
        assert!("a".parse::<OpenMode>().is_err());
    }
}
