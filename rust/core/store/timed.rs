//! A store with a time-out.

use super::{ReadBy, Store};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A store around another, whose readers wait so long for a page and no longer: see [`ReadBy::Workers`].
///
/// ```
/// use specmm::store::{Fault, FaultyStore, MemoryStore, Plan, TimedStore};
/// use specmm::{Error, Io, PageCache};
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// let slow = Plan { read: 1, fault: Fault::Slow(Duration::from_millis(200)), for_ever: false };
/// let store = FaultyStore::new(Arc::new(MemoryStore::new(vec![7; 100])), slow);
/// let store = TimedStore::new(Arc::new(store), Duration::from_millis(20));
/// let cache = PageCache::new(1 << 20, Io::Threads)?;
/// let file = cache.open_store(Arc::new(store), 100, "sevens", 0)?;
/// let mut byte = [0];
/// assert!(matches!(file.pread(&mut byte, 0), Err(Error::TimedOut { .. })));
/// assert_eq!(cache.stats().reads_abandoned, 1);
/// # Ok::<(), specmm::Error>(())
/// ```
pub struct TimedStore {
    inner: Arc<dyn Store>,
    timeout: Duration,
}

impl TimedStore {
    /// `inner`, with a time-out.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, timeout: Duration) -> Self {
        Self { inner, timeout }
    }
}

impl Store for TimedStore {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn read_by(&self) -> ReadBy {
        ReadBy::Workers { timeout: Some(self.timeout) }
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.inner.truncate(size)
    }

    fn identity(&self) -> io::Result<Option<(u64, u64)>> {
        self.inner.identity()
    }

    fn size(&self) -> io::Result<Option<u64>> {
        self.inner.size()
    }

    fn version(&self) -> io::Result<Option<u64>> {
        self.inner.version()
    }
}

impl std::fmt::Debug for TimedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TimedStore").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
