//! A store with a time-out.

use super::{Look, ReadBy, Store};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A store around another, whose readers wait for a page no longer than a time-out: see [`ReadBy::Workers`].
pub(crate) struct TimedStore {
    inner: Arc<dyn Store>,
    timeout: Duration,
}

impl TimedStore {
    /// `inner`, with a time-out.
    pub(crate) fn new(inner: Arc<dyn Store>, timeout: Duration) -> Self {
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

    fn look(&self) -> io::Result<Look> {
        self.inner.look()
    }
}
