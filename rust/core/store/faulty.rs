//! A store that fails as planned.

use super::{Look, ReadBy, Store};
use crate::sync::{Mutex, Numbers, Tally, pause};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What a planned read does instead of succeeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Fails with this errno.
    Error(i32),
    /// Returns this many bytes fewer than requested, but at least one.
    Short(usize),
    /// Takes this long, and then succeeds.
    Slow(Duration),
}

/// Which reads fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The first of them, counted from 1.
    pub read: u64,
    /// How.
    pub fault: Fault,
    /// Whether all later reads fail too.
    pub for_ever: bool,
}

/// A store around another, for tests: its reads fail, return too little or take long when the plan says so. Running a program
/// with the first read failing, then the second, and so on until one run meets no fault, visits every place where a read can
/// fail.
///
/// ```
/// use specmm::store::{Fault, FaultyStore, MemoryStore, Plan};
/// use specmm::{Io, PageCache, StoreOptions};
/// use std::sync::Arc;
///
/// let plan = Plan { read: 2, fault: Fault::Error(5), for_ever: false };
/// let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new(vec![7; 100_000])), plan));
/// let cache = PageCache::new(1 << 20, Io::Inline)?;
/// let file = cache.open_store_with(store.clone(), 100_000, StoreOptions::default().ra_pages(0))?;
/// let mut byte = [0];
/// assert!(file.pread(&mut byte, 0).is_ok());
/// assert!(file.pread(&mut byte, 50_000).is_err());
/// assert!(file.pread(&mut byte, 50_000).is_ok(), "a failed read poisons nothing");
/// assert_eq!((store.reads(), store.fired()), (3, 1));
/// # Ok::<(), specmm::Error>(())
/// ```
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    plan: Mutex<Plan>,
    reads: Numbers,
    fired: Tally,
}

impl FaultyStore {
    /// `inner`, except for what `plan` says.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, plan: Plan) -> Self {
        Self { inner, plan: Mutex::new(plan), reads: Numbers::new(), fired: Tally::new() }
    }

    /// Replaces the plan; reads are still counted from the beginning.
    pub fn replan(&self, plan: Plan) {
        *self.plan.lock() = plan;
    }

    /// Reads so far.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads.drawn()
    }

    /// How many reads failed as planned.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.fired.tallied()
    }
}

impl Store for FaultyStore {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let number = self.reads.next();
        let Plan { read, fault, for_ever } = *self.plan.lock();
        if number != read && !(for_ever && number > read) {
            return self.inner.read_at(buf, offset);
        }
        self.fired.add(1);
        match fault {
            Fault::Error(errno) => Err(io::Error::from_raw_os_error(errno)),
            Fault::Short(by) => {
                let n = buf.len().saturating_sub(by).max(1).min(buf.len());
                self.inner.read_at(&mut buf[..n], offset)
            }
            Fault::Slow(time) => {
                pause(time);
                self.inner.read_at(buf, offset)
            }
        }
    }

    fn read_by(&self) -> ReadBy {
        self.inner.read_by()
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

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore")
            .field("plan", &self.plan)
            .field("reads", &self.reads)
            .finish_non_exhaustive()
    }
}
