//! The cache: a fixed number of frames that many files share.

use super::file::{OpenFile, OpenMode};
use super::in_flight::InFlight;
use super::io::IoQueue;
use super::stats::{CacheStats, Counters, Gauges, Stat};
use super::workingset::Workingset;
use super::{AddressSpace, CacheOptions, File, Io, OpenOptions, StoreOptions};
use crate::error::{Error, Holders, IoError, Result};
use crate::page::{FrameUsage, Frames, PAGE_SIZE};
use crate::store::{LocalFile, MAX_SIZE, ReadBy, Store, TimedStore};
use crate::sync::{AtomicU32, Mutex, Ordering, Tally};
use crate::xarray::Census;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How long a request waits when nothing can be evicted, unless the cache says otherwise.
pub const DEFAULT_FRAME_TIMEOUT: Duration = Duration::from_secs(5);

/// What all files of one cache share.
pub(crate) struct Shared {
    pub(crate) frames: Frames,
    pub(crate) xarray_nodes: Arc<Tally>,
    /// Page tables of all address spaces.
    pub(crate) page_tables: Arc<Tally>,
    pub(crate) io: IoQueue,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) workingset: Workingset,
    /// References to pages that wait for a grace period: of entries that were replaced.
    pub(crate) deferred_puts: Tally,
    /// How long a request waits for a frame when none can be freed.
    pub(super) frame_timeout: Duration,
    stats: Counters,
    closed: AtomicU32,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    /// By device and inode, so that two opens of one file share pages.
    local: HashMap<(u64, u64), Weak<AddressSpace>>,
    /// All, by the identity that their pages carry: how reclaim finds the file of a page.
    all: BTreeMap<u64, Weak<AddressSpace>>,
    /// So many local files are worth a walk.
    prune_at: usize,
}

impl Files {
    /// Forgets local files that nobody uses, each time their number has doubled.
    fn prune(&mut self) {
        if self.local.len() >= self.prune_at.max(64) {
            self.local.retain(|_, file| file.strong_count() > 0);
            self.prune_at = 2 * self.local.len();
        }
    }
}

impl Shared {
    /// Under a model checker nobody waits for a frame: time-outs are nothing it explores.
    #[cfg(all(test, specmm_loom))]
    pub(crate) fn new(frames: usize, io: Io) -> Result<Arc<Self>> {
        Self::with_timeout(frames, io, Duration::ZERO)
    }

    pub(crate) fn with_timeout(frames: usize, io: Io, frame_timeout: Duration) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            frames: Frames::new(frames)?,
            xarray_nodes: Arc::new(Tally::new()),
            page_tables: Arc::new(Tally::new()),
            io: IoQueue::new(io)?,
            in_flight: InFlight::new(frames),
            workingset: Workingset::default(),
            deferred_puts: Tally::new(),
            frame_timeout,
            stats: Counters::new()?,
            closed: AtomicU32::new(0),
            files: Mutex::new(Files::default()),
        }))
    }

    #[inline]
    pub(crate) fn count(&self, stat: Stat, n: u64) {
        self.stats.add(stat as usize, n);
    }

    fn snapshot(&self) -> CacheStats {
        CacheStats::of(
            &self.stats,
            &Gauges {
                capacity: self.frames.capacity(),
                usage: self.frames.usage(),
                shadows: self.workingset.shadows(),
                reads_abandoned: self.io.abandoned(),
                xarray_nodes: self.xarray_nodes.get(),
                page_tables: self.page_tables.get(),
                bytes_in_flight: self.in_flight.bytes(),
            },
        )
    }

    /// # Errors
    /// [`Error::Closed`] after [`PageCache::close`].
    #[inline]
    pub(crate) fn require_open(&self) -> Result<()> {
        // Relaxed: a close beside a running call has no order with it.
        if self.closed.load(Ordering::Relaxed) == 0 {
            Ok(())
        } else {
            Err(Error::Closed("the page cache".into()))
        }
    }

    /// The error of a request that found no frame, with what holds them.
    pub(crate) fn out_of_frames(&self, what: String) -> Error {
        let usage = self.frames.usage();
        let locked = self.frames.count_locked();
        let holders = Holders {
            pinned: usage.pinned,
            private: usage.private,
            locked,
            other: usage.in_use.saturating_sub(usage.pinned + usage.private + locked),
        };
        Error::OutOfFrames { capacity: self.frames.capacity(), holders, what }
    }

    /// The pages of a file: those that another open has already, if it is the same file.
    pub(super) fn mapping(
        self: &Arc<Self>,
        identity: Option<(u64, u64)>,
        store: &Arc<dyn Store>,
        size: u64,
        name: &OsStr,
    ) -> Result<Arc<AddressSpace>> {
        // Not under the mutex, which reclaim takes: the store is asked, which may be anybody's code.
        let mapping = Arc::new(AddressSpace::new(Arc::clone(store), size, name, Arc::clone(self)));
        if identity.is_some() {
            mapping.coherence.start_at(size);
        }
        let mut files = self.files.lock();
        if let Some(known) = identity.and_then(|identity| files.local.get(&identity)).and_then(Weak::upgrade)
        {
            drop(files);
            // A new open is a good moment to see what others did to the file.
            known.revalidate(false)?;
            return Ok(known);
        }
        files.prune();
        if identity.is_some() && files.local.try_reserve(1).is_err() {
            let bytes = files.local.len() * size_of::<((u64, u64), Weak<AddressSpace>)>();
            return Err(Error::out_of_memory("the table of open files", bytes));
        }
        files.all.insert(mapping.id(), Arc::downgrade(&mapping));
        if let Some(identity) = identity {
            files.local.insert(identity, Arc::downgrade(&mapping));
        }
        Ok(mapping)
    }

    /// Opens a regular file; another open of the same one shares its pages.
    pub(super) fn open_local(
        self: &Arc<Self>,
        path: &Path,
        name: &OsStr,
        mode: OpenMode,
        ra_pages: u32,
    ) -> Result<OpenFile> {
        let io_error = |error| Error::Io(IoError::new(error, name));
        let create = matches!(mode, OpenMode::Create | OpenMode::CreateNew);
        let store = LocalFile::open(path, mode.is_writable(), create, mode == OpenMode::CreateNew)
            .map_err(io_error)?;
        let identity = store.identity().map_err(io_error)?;
        let size = store.size().map_err(io_error)?.unwrap_or(0);
        let store: Arc<dyn Store> = Arc::new(store);
        let mapping = self.mapping(Some(identity), &store, size, name)?;
        Ok(OpenFile::new(mapping, store, mode, ra_pages))
    }

    /// The file is gone.
    pub(super) fn unregister(&self, id: u64) {
        self.files.lock().all.remove(&id);
    }

    /// The file whose pages carry this identity, unless its last user is gone.
    pub(super) fn mapping_of(&self, id: u64) -> Option<Arc<AddressSpace>> {
        self.files.lock().all.get(&id).and_then(Weak::upgrade)
    }

    /// The files that have users, one after the other, each held while it is looked at. The last user of one takes the mutex.
    pub(super) fn living_files(&self) -> impl Iterator<Item = Arc<AddressSpace>> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let files = self.files.lock();
            let (id, file) = files.all.range(from..).find_map(|(&id, file)| Some((id, file.upgrade()?)))?;
            from = id + 1;
            Some(file)
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.io.stop();
    }
}

/// A page cache with a hard bound, shared by many files. Clones are the same cache.
#[derive(Clone)]
pub struct PageCache {
    shared: Arc<Shared>,
}

/// Frames are numbered below 2^30.
const MAX_FRAMES: u64 = 1 << 30;

impl PageCache {
    /// A cache of `capacity_bytes`, rounded down to pages. Address space for all of it is taken now, memory as it is used.
    ///
    /// # Errors
    /// As [`PageCache::with_options`].
    pub fn new(capacity_bytes: u64, io: Io) -> Result<Self> {
        Self::with_options(capacity_bytes, CacheOptions::default().io(io))
    }

    /// As [`PageCache::new`], with more to choose.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for less than a page or more than 4 TiB; [`Error::OutOfMemory`] for more than the system has
    /// room for.
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
        Ok(Self { shared: Shared::with_timeout(frames, options.io, options.frame_timeout)? })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// All frames.
    #[must_use]
    pub fn capacity_frames(&self) -> usize {
        self.shared.frames.capacity()
    }

    /// Opens a regular file for reading. Two opens of one file (device and inode) share its pages.
    ///
    /// # Errors
    /// As [`PageCache::open_with`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<File> {
        self.open_with(path, OpenOptions::default())
    }

    /// As [`PageCache::open`], with more to choose.
    ///
    /// # Errors
    /// [`Error::Io`] with what open(2) says, or EISDIR or EINVAL for what is not a regular file;
    /// [`Error::InvalidArgument`] for more than 2^18 `ra_pages`, before anything is opened or made; [`Error::Closed`].
    pub fn open_with(&self, path: impl AsRef<Path>, options: OpenOptions) -> Result<File> {
        let (path, OpenOptions { mode, ra_pages }) = (path.as_ref(), options);
        self.shared.require_open()?;
        super::file::check_ra_pages(ra_pages)?;
        let name = path.as_os_str();
        let open = self.shared.open_local(path, name, mode, ra_pages)?;
        // The working directory may change.
        let file = File::new(open, name, std::path::absolute(path).ok());
        if mode == OpenMode::Create {
            file.truncate(0)?;
        }
        Ok(file)
    }

    /// Caches any [`Store`] of `size` bytes. `name` is for messages.
    ///
    /// # Errors
    /// As [`PageCache::open_store_with`].
    pub fn open_store(&self, store: Arc<dyn Store>, size: u64) -> Result<File> {
        self.open_store_with(store, size, StoreOptions::default())
    }

    /// As [`PageCache::open_store`], with more to choose.
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
        self.shared.require_open()?;
        if size > MAX_SIZE {
            return Err(Error::InvalidArgument(format!("size {size} exceeds {MAX_SIZE} bytes (16 TiB)")));
        }
        super::file::check_ra_pages(ra_pages)?;
        let store = match timeout {
            Some(timeout) => Arc::new(TimedStore::new(store, timeout)),
            None => store,
        };
        if let (ReadBy::Workers { timeout: Some(timeout) }, true) =
            (store.read_by(), self.shared.io.is_inline())
        {
            let timeout = timeout.as_secs_f64();
            return Err(Error::InvalidArgument(format!(
                "a time-out of {timeout} s in a cache that reads inline: the caller cannot leave its own read"
            )));
        }
        let mapping = self.shared.mapping(None, &store, size, name)?;
        Ok(File::new(OpenFile::new(mapping, store, OpenMode::ReadWrite, ra_pages), name, None))
    }

    /// The counters now.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.shared.snapshot()
    }

    /// Waits until no read is in flight, but those whose time-out is over; or until the program gives up
    /// ([`give_up_waiting_when`](super::give_up_waiting_when)).
    pub fn settle(&self) {
        let _gave_up = self.shared.io.settle();
    }

    /// Evicts up to `pages` pages that were not used for longest, mapped or not (`shrink_node`). Answers how many went.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn reclaim(&self, pages: usize) -> Result<usize> {
        self.shared.require_open()?;
        // References that wait for a grace period would make idle pages look busy.
        crate::rcu::barrier();
        Ok(self.shared.reclaim(pages))
    }

    /// Drops every clean page that nobody maps. Answers how many.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn drop_caches(&self) -> Result<u64> {
        self.shared.require_open()?;
        Ok(self.shared.living_files().map(|file| file.invalidate(0, u64::MAX)).sum())
    }

    /// Audits the cache at quiescence (nobody else is using it): locks free, counts balanced, trees and page tables sound, as
    /// many as are counted and none empty, every cached page where its descriptor says, no more references than the cache and
    /// the entries account for, nothing in flight. Pages of abandoned reads may be locked.
    ///
    /// # Errors
    /// [`Error::Invariant`] with the first contradiction; [`Error::Interrupted`] if the wait for reads in flight was given up.
    pub fn check(&self) -> Result<()> {
        if !self.shared.io.settle() {
            return Err(Error::Interrupted("the page cache".into()));
        }
        // References whose return was deferred are returned now.
        crate::rcu::barrier();
        let shared = &self.shared;
        shared.frames.audit(&shared.io.abandoned_frames())?;
        let mut cached = 0;
        let mut census = Census::default();
        let mut page_tables = 0;
        let mut seen = BTreeSet::new();
        for file in shared.living_files() {
            cached += file.audit(&mut census)?;
            page_tables += file.i_mmap.audit_tables(&mut seen).map_err(Error::Invariant)?;
        }
        self.audit_growth(census, page_tables)?;
        let FrameUsage { in_use, private, pinned, .. } = shared.frames.usage();
        // A page that was pinned and then truncated is in no file any more.
        let rest = (in_use - private) as u64;
        if rest < cached || rest - cached > pinned as u64 {
            return Err(Error::Invariant(format!(
                "{in_use} frames are in use, but files cache {cached} and {private} are private copies"
            )));
        }
        let shadows: u64 = shared.living_files().map(|file| file.count_shadows()).sum();
        if shadows != shared.workingset.shadows() || shadows > shared.frames.capacity() as u64 {
            return Err(Error::Invariant(format!(
                "{shadows} shadows, {} by the count, for {} frames",
                shared.workingset.shadows(),
                shared.frames.capacity()
            )));
        }
        Ok(())
    }

    /// What grows beside the frames, against its count and its bound.
    fn audit_growth(&self, census: Census, page_tables: u64) -> Result<()> {
        let shared = &self.shared;
        let counted = (shared.xarray_nodes.get(), shared.page_tables.get(), shared.in_flight.bytes());
        // What an abandoned read has is its own.
        let in_flight = if shared.io.abandoned() > 0 { counted.2 } else { 0 };
        if counted != (census.nodes, page_tables, in_flight) {
            return Err(Error::Invariant(format!(
                "{} index nodes and {page_tables} page tables, {} and {} by their counts, and {} bytes in flight",
                census.nodes, counted.0, counted.1, counted.2
            )));
        }
        let most = Workingset::most_nodes(shared.frames.capacity()) as u64;
        if census.of_values > most {
            return Err(Error::Invariant(format!(
                "{} index nodes hold shadows only, more than {most}",
                census.of_values
            )));
        }
        Ok(())
    }

    /// Ends the cache: waits for reads in flight, ends the workers, and makes every later call fail. A store that may stall is
    /// given half a second; what it has not read by then is abandoned. Other threads that wait for such a store leave with
    /// [`Error::Closed`]. Closing twice is fine.
    ///
    /// # Errors
    /// [`Error::Pinned`] while a page is pinned; then it stays open.
    pub fn close(&self) -> Result<()> {
        let pinned = self.shared.frames.usage().pinned;
        if pinned > 0 {
            return Err(Error::Pinned(format!(
                "the page cache cannot be closed: {pinned} of its pages are pinned"
            )));
        }
        self.shared.closed.swap(1, Ordering::Relaxed);
        self.shared.io.close();
        // Index nodes that evictions emptied.
        crate::rcu::barrier();
        Ok(())
    }

    /// Whether [`PageCache::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.require_open().is_err()
    }
}

impl std::fmt::Debug for PageCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageCache").field("capacity_frames", &self.capacity_frames()).finish_non_exhaustive()
    }
}

impl AddressSpace {
    /// Audits one file's pages and answers how many there are; what its index has is added to `census`.
    fn audit(&self, census: &mut Census) -> Result<u64> {
        let found = self.pages.lock().audit().map_err(Error::Invariant)?;
        census.nodes += found.nodes;
        census.of_values += found.of_values;
        let section = crate::rcu::read();
        let mut cached = 0;
        let mut next = Some(0);
        while let Some((index, entry)) = next.and_then(|from| self.pages.next(from, u64::MAX, None, &section))
        {
            next = index.checked_add(1);
            let Some(pfn) = entry.as_page() else { continue };
            let page = self.frames().page(pfn);
            cached += 1;
            if !page.is_at(self.id(), index) {
                return Err(Error::Invariant(format!(
                    "slot {index} of {} holds a stranger: {page:?}",
                    self.name.to_string_lossy()
                )));
            }
            if page.refcount() != 1 + page.mapcount() + self.frames().pins(page) {
                return Err(Error::Invariant(format!(
                    "page {index} of {} has references that neither the cache nor an entry holds: {page:?}",
                    self.name.to_string_lossy()
                )));
            }
        }
        Ok(cached)
    }
}
