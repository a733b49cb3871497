//! Where a file's bytes live.
//!
//! Owns: the [`Store`] trait and the stores that come with specmm. Does not own pages or caching. Anything that can read
//! bytes at an offset can be cached: a local file, memory, a remote object, an archive member, a test double.

mod faulty;
mod local;
mod look;
mod memory;
pub(crate) mod regular;
mod timed;

pub use faulty::{Fault, FaultyStore, Plan};
pub use local::LocalFile;
pub(crate) use look::Change;
pub use look::Look;
pub use memory::MemoryStore;
pub use regular::Opening;
pub(crate) use regular::open_regular;
pub(crate) use timed::TimedStore;

use std::io;
use std::time::Duration;

/// The greatest size of a file or store: 16 TiB.
pub const MAX_SIZE: u64 = 1 << 44;

/// Which threads call a store, and how long its readers wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadBy {
    /// Whoever needs a page reads it, and workers read ahead; everybody waits as long as the store takes. For stores that soon
    /// succeed or fail, such as local disks.
    #[default]
    Caller,
    /// For stores that may stall: only the cache's workers call it, and their waiters can stop waiting. A thread stops waiting
    /// for a page after the time-out ([`Error::TimedOut`](crate::Error::TimedOut)), when its file or cache is closed, and when
    /// the program asks for it ([`give_up_waiting_when`](crate::give_up_waiting_when)). The read is then abandoned: it keeps the
    /// worker, its frames and the file until it returns.
    ///
    /// A cache with [`Io::Inline`](crate::Io::Inline) has no workers: there, and where no thread can be started, callers call the
    /// store.
    Workers {
        /// How long a reader waits for one page; None: without limit.
        timeout: Option<Duration>,
    },
}

impl ReadBy {
    /// Whether a read may keep its thread for longer than a reader would wait.
    pub(crate) fn may_stall(self) -> bool {
        self != Self::Caller
    }

    /// How long a reader waits for one page.
    pub(crate) fn timeout(self) -> Option<Duration> {
        match self {
            Self::Caller => None,
            Self::Workers { timeout } => timeout,
        }
    }
}

/// A sequence of bytes that is read at offsets, by several threads at once.
pub trait Store: Send + Sync + 'static {
    /// Fills `buf` from `offset`, and returns how many bytes it wrote: fewer than requested only at the end of the store.
    ///
    /// # Errors
    /// The store's own; every reader that waits for these bytes gets it.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Which threads call [`Store::read_at`], and how long readers wait for them. Called once, when the store is opened.
    fn read_by(&self) -> ReadBy {
        ReadBy::Caller
    }

    /// Changes the size in bytes; a grown range reads as zeros.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] unless the store implements it.
    fn truncate(&self, size: u64) -> io::Result<()> {
        let _ = size;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// An identity that two stores share if they have the same bytes, such as device and inode, if the store knows it. Files that
    /// [`PageCache::adopt`](crate::PageCache::adopt) opens share pages with files of the same identity.
    ///
    /// # Errors
    /// Whatever the store says.
    fn identity(&self) -> io::Result<Option<(u64, u64)>> {
        Ok(None)
    }

    /// The size in bytes now, if the store knows it.
    ///
    /// # Errors
    /// Whatever the store says.
    fn size(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// A number that changes when somebody writes to the store, if it has one: an mtime, an etag's hash. Part of [`Store::look`].
    ///
    /// # Errors
    /// Whatever the store says; the read that asked fails with it.
    fn version(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// What the store reports of itself now. Called before and after pages are read, so it should be cheap: if both reports are
    /// equal, what was read is of one version; if they differ, cached pages are dropped and read again. A store that reports
    /// nothing when it is opened is not asked again.
    ///
    /// # Errors
    /// Whatever the store says; the read that asked fails with it.
    fn look(&self) -> io::Result<Look> {
        Ok(Look { size: self.size()?, version: self.version()?, changed: None })
    }
}
