//! The public handle of a cache: a fixed number of frames that many files share.

use super::arguments::check_ra_pages;
use super::files::{Files, new_mapping};
use super::open_file::OpenFile;
use super::options::OpenMode;
use super::shared::Shared;
use super::{CacheOptions, CacheStats, File, Io, OpenOptions, StoreOptions, audit, vmscan};
use crate::error::{Error, Result};
use crate::page::PAGE_SIZE;
use crate::store::{MAX_SIZE, ReadBy, Store, TimedStore};
use crate::sync::{Ordering, duty, in_order, operation};
use std::path::Path;
use std::sync::Arc;

/// A page cache with a hard memory limit that many files share. Clones share one cache.
#[derive(Clone)]
pub struct PageCache {
    files: Arc<Files>,
}

/// Frames are numbered below 2^30.
const MAX_FRAMES: u64 = 1 << 30;

impl PageCache {
    /// Creates a cache of `capacity_bytes`, rounded down to pages. Address space is reserved for all of it now; memory is
    /// allocated as it is used.
    ///
    /// # Errors
    /// As [`PageCache::with_options`].
    pub fn new(capacity_bytes: u64, io: Io) -> Result<Self> {
        Self::with_options(capacity_bytes, CacheOptions::default().io(io))
    }

    /// As [`PageCache::new`], with options.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for less than a page or more than 4 TiB; [`Error::OutOfMemory`] for more than the system can
    /// provide.
    pub fn with_options(capacity_bytes: u64, options: CacheOptions) -> Result<Self> {
        let frames = capacity_bytes / PAGE_SIZE as u64;
        if frames == 0 {
            return Err(Error::InvalidArgument(format!(
                "capacity of {capacity_bytes} bytes is less than one page of {PAGE_SIZE}"
            )));
        }
        if frames > MAX_FRAMES {
            return Err(Error::InvalidArgument(format!(
                "capacity of {capacity_bytes} bytes exceeds {MAX_FRAMES} pages (4 TiB)"
            )));
        }
        let frames = usize::try_from(frames).unwrap_or(usize::MAX);
        let shared = Shared::with_timeout(frames, options.io, options.frame_timeout)?;
        Ok(Self { files: Arc::new(Files::new(shared)) })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.files.shared
    }

    pub(super) fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// The capacity in frames.
    #[must_use]
    pub fn capacity_frames(&self) -> usize {
        self.shared().frames.capacity()
    }

    /// Opens a regular file for reading. Several opens of one file (same device and inode) share its pages.
    ///
    /// # Errors
    /// As [`PageCache::open_with`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<File> {
        self.open_with(path, OpenOptions::default())
    }

    /// As [`PageCache::open`], with options.
    ///
    /// # Errors
    /// [`Error::Io`] with the error of open(2), or EISDIR or EINVAL for anything but a regular file; [`Error::InvalidArgument`]
    /// for more than 2^18 `ra_pages`, before anything is opened or created; [`Error::Closed`].
    pub fn open_with(&self, path: impl AsRef<Path>, options: OpenOptions) -> Result<File> {
        let (path, OpenOptions { mode, ra_pages }) = (path.as_ref(), options);
        self.shared().require_open()?;
        check_ra_pages(ra_pages)?;
        let name = path.as_os_str();
        let open = self.files.open_local(path, name, mode, ra_pages)?;
        // Made absolute, because the working directory may change.
        let file = File::new(&self.files, open, name, std::path::absolute(path).ok());
        if mode == OpenMode::Create {
            file.truncate(0)?;
        }
        Ok(file)
    }

    /// Opens any [`Store`], of `size` bytes, as a file of this cache.
    ///
    /// # Errors
    /// As [`PageCache::open_store_with`].
    pub fn open_store(&self, store: Arc<dyn Store>, size: u64) -> Result<File> {
        self.open_store_with(store, size, StoreOptions::default())
    }

    /// As [`PageCache::open_store`], with options.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a size beyond 16 TiB, more than 2^18 `ra_pages`, or a store with a time-out in a cache with
    /// [`Io::Inline`]; [`Error::Closed`].
    pub fn open_store_with(
        &self,
        store: Arc<dyn Store>,
        size: u64,
        options: StoreOptions<'_>,
    ) -> Result<File> {
        let StoreOptions { name, ra_pages, timeout } = options;
        self.shared().require_open()?;
        if size > MAX_SIZE {
            return Err(Error::InvalidArgument(format!("size {size} exceeds {MAX_SIZE} bytes (16 TiB)")));
        }
        check_ra_pages(ra_pages)?;
        let store = match timeout {
            Some(timeout) => Arc::new(TimedStore::new(store, timeout)),
            None => store,
        };
        if let (ReadBy::Workers { timeout: Some(timeout) }, true) =
            (store.read_by(), self.shared().io.is_inline())
        {
            let timeout = timeout.as_secs_f64();
            return Err(Error::InvalidArgument(format!(
                "a time-out of {timeout} s in a cache that reads inline: the caller cannot leave its own read"
            )));
        }
        let mapping = new_mapping(self.shared(), &store, size, name);
        let open = OpenFile::new(mapping, store, OpenMode::ReadWrite, ra_pages);
        Ok(File::new(&self.files, open, name, None))
    }

    /// A snapshot of the counters.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.shared().snapshot()
    }

    /// Waits until no read is in flight, except reads whose time-out has expired, or until the program gives up
    /// ([`give_up_waiting_when`](super::give_up_waiting_when)).
    pub fn settle(&self) {
        let _gave_up = self.shared().io.settle();
    }

    /// Evicts up to `pages` of the least recently used pages, mapped or not (`shrink_node`). Returns how many were evicted.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn reclaim(&self, pages: usize) -> Result<usize> {
        self.shared().require_open()?;
        // References awaiting a grace period would make idle pages look busy.
        duty!("reclaim.barrier", crate::rcu::barrier());
        Ok(vmscan::reclaim(self.shared(), pages))
    }

    /// Drops every clean, unmapped page. Returns how many were dropped.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn drop_caches(&self) -> Result<u64> {
        self.shared().require_open()?;
        Ok(self.shared().files.iter().map(|file| file.drop_idle_pages()).sum())
    }

    /// Audits a cache that no other thread is using: locks are free; counts balance; trees and page tables are sound, match their
    /// counts, and none is empty; every cached page is where its descriptor says; the cache and the page-table entries account
    /// for every reference; nothing is in flight. Only pages of abandoned reads may be locked.
    ///
    /// # Errors
    /// [`Error::Invariant`] with the first violation found; [`Error::Interrupted`] if the program gave up the wait for reads in
    /// flight.
    pub fn check(&self) -> Result<()> {
        if !self.shared().io.settle() {
            return Err(Error::Interrupted("the page cache".into()));
        }
        // Puts the references that were deferred.
        crate::rcu::barrier();
        audit::check(self.shared())
    }

    /// Closes the cache: waits for reads in flight, ends the workers, and makes every later call fail. A store that may stall
    /// gets half a second; its reads that have not returned by then are abandoned. Other threads waiting for such a store get
    /// [`Error::Closed`]. Closing twice is allowed.
    ///
    /// # Errors
    /// [`Error::Pinned`] while a page is pinned; the cache then stays open.
    pub fn close(&self) -> Result<()> {
        operation!("close the cache");
        let shared = self.shared();
        shared.frames.refuse_pins().map_err(|pinned| {
            Error::Pinned(format!("the page cache cannot be closed: {pinned} of its pages are pinned"))
        })?;
        in_order!(
            "close.flag_first",
            shared.closed.swap(1, Ordering::Relaxed),
            // What the workers' evictions emptied is freed when they have ended.
            in_order!("close.barrier_last", shared.io.close(), crate::rcu::barrier()),
        );
        Ok(())
    }

    /// Whether [`PageCache::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        !self.shared().is_open()
    }
}

impl std::fmt::Debug for PageCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageCache").field("capacity_frames", &self.capacity_frames()).finish_non_exhaustive()
    }
}
