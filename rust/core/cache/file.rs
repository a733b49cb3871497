//! Open files.
//!
//! Owns: one open of a file (`struct file`): its mode, its readahead window, its miss counter, its advice; and the handle
//! that users hold, which can be closed under them. Two opens of one file share an [`AddressSpace`] and nothing else.

use super::coherence;
use super::eviction;
use super::filemap::{Pass, Pattern, Step};
use super::files::Files;
use super::one_version;
use super::one_version::{OneVersion, Verdict};
use super::patience::NotRead;
use super::read_error;
use super::readahead::Window;
use super::size_change;
use super::{Abort, AddressSpace, VmFault};
use crate::error::{Error, IoError, Result};
use crate::page::{Out, PAGE_SIZE};
use crate::rcu::ArcCell;
use crate::store::{MAX_SIZE, Store};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, Tally};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// The readahead maximum of a newly opened file, in pages (128 KiB).
pub const DEFAULT_RA_PAGES: u32 = 32;
/// The largest window that may be asked for: 1 GiB.
const MAX_RA_PAGES: u32 = 1 << 18;

/// How a file is opened, as `open` of Python names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// `rb`: reading.
    Read,
    /// `r+b`: reading and changing an existing file.
    ReadWrite,
    /// `w+b`: as `r+b`, but created if missing and emptied.
    Create,
    /// `x+b`: as `r+b`, but must not exist.
    CreateNew,
}

impl OpenMode {
    /// Whether the file may be changed.
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

/// One open of a file. Mappings keep it alive after its handle is closed.
pub(crate) struct OpenFile {
    pub(crate) mapping: Arc<AddressSpace>,
    /// This open's own store: the mode may differ from the one that the shared pages are read through.
    store: Arc<dyn Store>,
    mode: OpenMode,
    base_ra_pages: u32,
    ra_pages: AtomicU32,
    advice: AtomicU32,
    pub(super) window: Mutex<Window>,
    /// Position of the byte after the last one read, hits apart; `u64::MAX` at first.
    prev_pos: AtomicU64,
    pub(super) mmap_miss: AtomicU32,
    /// Relaxed: a close beside a running call has no order with it.
    closed: AtomicU32,
    /// Pins made through this open.
    pub(super) pins: Tally,
}

impl OpenFile {
    pub(super) fn new(
        mapping: Arc<AddressSpace>,
        store: Arc<dyn Store>,
        mode: OpenMode,
        ra_pages: u32,
    ) -> Self {
        Self {
            mapping,
            store,
            mode,
            base_ra_pages: ra_pages,
            ra_pages: AtomicU32::new(ra_pages),
            advice: AtomicU32::new(Advice::Normal as u32),
            window: Mutex::new(Window::default()),
            prev_pos: AtomicU64::new(u64::MAX),
            mmap_miss: AtomicU32::new(0),
            closed: AtomicU32::new(0),
            pins: Tally::new(),
        }
    }

    /// This open once more, over other pages and another store.
    pub(super) fn again(&self, mapping: Arc<AddressSpace>, store: Arc<dyn Store>) -> Self {
        let open = Self::new(mapping, store, self.mode, self.base_ra_pages);
        // Relaxed: nobody else has it yet.
        open.ra_pages.store(self.ra_pages.load(Ordering::Relaxed), Ordering::Relaxed);
        open.advice.store(self.advice.load(Ordering::Relaxed), Ordering::Relaxed);
        open
    }

    /// Whether the handle was closed; mappings go on.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed) != 0
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    // Relaxed throughout: advice and positions steer readahead and guard nothing.

    /// The largest window: as asked for, but no more than a quarter of the cache.
    pub(super) fn ra_pages(&self) -> u64 {
        u64::from(self.ra_pages.load(Ordering::Relaxed)).min(self.mapping.frames().capacity() as u64 / 4)
    }

    pub(super) fn advice(&self) -> Advice {
        match self.advice.load(Ordering::Relaxed) {
            n if n == Advice::Random as u32 => Advice::Random,
            n if n == Advice::Sequential as u32 => Advice::Sequential,
            _ => Advice::Normal,
        }
    }

    /// Page of the byte after the last one read; -1 as an unsigned number before the first read.
    pub(super) fn prev_index(&self) -> u64 {
        let position = self.prev_pos.load(Ordering::Relaxed);
        if position == u64::MAX { u64::MAX } else { super::address_space::index_of(position) }
    }

    pub(super) fn set_prev_pos(&self, position: u64) {
        self.prev_pos.store(position, Ordering::Relaxed);
    }

    fn advise(self: &Arc<Self>, advice: Advice, offset: u64, length: Option<u64>) {
        let end = length.map_or(u64::MAX, |length| offset.saturating_add(length));
        let size = self.mapping.i_size();
        match advice {
            Advice::Normal | Advice::Random | Advice::Sequential => {
                match advice {
                    Advice::Sequential => self.ra_pages.store(self.base_ra_pages * 2, Ordering::Relaxed),
                    Advice::Normal => self.ra_pages.store(self.base_ra_pages, Ordering::Relaxed),
                    _ => {}
                }
                self.advice.store(advice as u32, Ordering::Relaxed);
            }
            Advice::WillNeed => {
                // A file that cannot be looked at cannot be read either, which who needs the pages meets.
                let _met_again = coherence::follow_changes(&self.mapping);
                let size = self.mapping.i_size();
                let end = end.min(size);
                if offset < end {
                    self.will_need(offset / PAGE_SIZE as u64, (end - 1) / PAGE_SIZE as u64);
                }
            }
            Advice::DontNeed => {
                let first = offset.div_ceil(PAGE_SIZE as u64);
                // A range that reaches the end of the file includes the last, partial page.
                let beyond =
                    if end >= size { size.div_ceil(PAGE_SIZE as u64) } else { end / PAGE_SIZE as u64 };
                if first < beyond {
                    eviction::invalidate(&self.mapping, first, beyond - 1);
                }
            }
        }
    }

    /// The seed function alone, speculatively: the page is unlocked and put before this returns.
    fn fault_speculatively(&self, index: u64) -> FilemapFault {
        let section = crate::rcu::read();
        match self.mapping.filemap_fault_speculative(index, &section) {
            Ok(held) => {
                drop(held);
                FilemapFault { result: VmFault::LOCKED, abort: None }
            }
            Err(abort) => FilemapFault { result: VmFault::RETRY, abort: Some(abort) },
        }
    }

    /// The seed function alone, classically, until it is LOCKED or fails.
    fn fault_classically(self: &Arc<Self>, index: u64) -> Result<FilemapFault> {
        let pattern = match self.advice() {
            Advice::Random => Pattern::Random,
            Advice::Sequential => Pattern::Sequential,
            _ => Pattern::Normal,
        };
        let mut pass = Pass::First;
        let mut result = VmFault::NONE;
        loop {
            let answer = self.filemap_fault(index, pattern, pass);
            let missed = if answer.missed { VmFault::MAJOR } else { VmFault::NONE };
            // As in Linux an error stands alone: MAJOR then comes from earlier passes only.
            let end = match answer.step {
                Step::Locked(held) => {
                    drop(held);
                    VmFault::LOCKED | missed
                }
                Step::Unreadable(error) if read_error::may_come(&self.mapping, &error) => {
                    coherence::follow_changes(&self.mapping)?;
                    continue;
                }
                Step::Beyond(_) | Step::Unreadable(_) => VmFault::SIGBUS,
                Step::NoMemory(_) => VmFault::OOM,
                Step::Blocked(blocked) => {
                    let unblocked = self.unblock(index, blocked, pass);
                    if unblocked.is_ok() {
                        result |= missed;
                    }
                    match unblocked {
                        Ok(true) => {
                            pass = Pass::Tried;
                            continue;
                        }
                        Ok(false) => VmFault::OOM,
                        Err(NotRead::Failed(error)) if read_error::may_come(&self.mapping, &error) => {
                            coherence::follow_changes(&self.mapping)?;
                            continue;
                        }
                        Err(NotRead::Failed(_)) => VmFault::SIGBUS,
                        Err(NotRead::Left(error)) => return Err(error),
                    }
                }
            };
            return Ok(FilemapFault { result: result | end, abort: None });
        }
    }
}

/// The answer of [`File::filemap_fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilemapFault {
    /// LOCKED, perhaps with MAJOR; RETRY when speculation aborted; SIGBUS or OOM.
    pub result: VmFault,
    /// Why speculation aborted.
    pub abort: Option<Abort>,
}

/// The readahead state of one open file (`struct file_ra_state`); sizes in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadaheadState {
    /// First page of the current window.
    pub start: u64,
    /// Pages in the window.
    pub size: u64,
    /// Pages of the window that are read ahead of need.
    pub async_size: u64,
    /// The largest window: as asked for, but no more than a quarter of the cache.
    pub ra_pages: u32,
    /// Faults that missed, less those that hit; 0 to 1000.
    pub mmap_miss: u32,
    /// Position of the byte after the last one read, by reads that were not pure hits; -1 at first.
    pub prev_pos: i64,
}

/// An open file. Clones are the same open file and close together.
#[derive(Clone)]
pub struct File {
    handle: Arc<Handle>,
}

struct Handle {
    open: ArcCell<OpenFile>,
    /// Where a local file was found, from the root.
    path: Option<PathBuf>,
    name: OsString,
    mode: OpenMode,
    files: Arc<Files>,
}

impl File {
    pub(super) fn new(files: &Arc<Files>, open: OpenFile, name: &OsStr, path: Option<PathBuf>) -> Self {
        let (name, mode) = (name.to_owned(), open.mode);
        let files = Arc::clone(files);
        Self { handle: Arc::new(Handle { open: ArcCell::new(Arc::new(open)), path, name, mode, files }) }
    }

    /// A file over a store without a cache's registry, for models.
    #[cfg(all(test, specmm_loom))]
    pub(crate) fn in_memory(shared: &Arc<super::shared::Shared>, store: Arc<dyn Store>, size: u64) -> Self {
        let mapping = super::files::new_mapping(shared, &store, size, "model".as_ref());
        let files = Arc::new(Files::new(Arc::clone(shared)));
        let open = OpenFile::new(mapping, store, OpenMode::ReadWrite, DEFAULT_RA_PAGES);
        Self::new(&files, open, "model".as_ref(), None)
    }

    /// The open file, while neither it nor its cache is closed.
    pub(crate) fn open_file(&self) -> Result<Arc<OpenFile>> {
        self.handle.files.shared.require_open()?;
        self.handle.open.get().ok_or_else(|| self.closed_error())
    }

    fn closed_error(&self) -> Error {
        Error::Closed(format!("file {:?}", self.handle.name))
    }

    /// Where a local file was found.
    pub(super) fn path(&self) -> Option<&Path> {
        self.handle.path.as_deref()
    }

    pub(crate) fn shared(&self) -> &Arc<super::shared::Shared> {
        &self.handle.files.shared
    }

    /// The path as it was given, or the name given to a store.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.handle.name
    }

    /// How it was opened.
    #[must_use]
    pub fn mode(&self) -> OpenMode {
        self.handle.mode
    }

    /// Whether [`File::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.handle.open.load(&crate::rcu::read()).is_none()
    }

    /// Gives the file up. Mappings of it live on; its pages go when the last user does. Other threads that wait for a store that
    /// may stall, to read through this handle, leave with [`Error::Closed`]. Closing twice is fine.
    ///
    /// # Errors
    /// [`Error::Pinned`] while pins that were made through it live; then it stays open.
    pub fn close(&self) -> Result<()> {
        {
            let section = crate::rcu::read();
            let open = self.handle.open.load(&section);
            let pins = open.map_or(0, |open| open.pins.get());
            if pins > 0 {
                return Err(Error::Pinned(format!(
                    "file {:?} cannot be closed: it has {pins} live pins",
                    self.name()
                )));
            }
            if let Some(open) = open {
                open.closed.store(1, Ordering::Relaxed);
            }
        }
        if self.handle.open.replace(None) {
            crate::rcu::barrier();
        }
        Ok(())
    }

    /// The size in bytes that the cache knows (`i_size_read`).
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn size(&self) -> Result<u64> {
        Ok(self.open_file()?.mapping.i_size())
    }

    /// The lock-free hit: serves the whole read from the cache, or nothing. Takes no lock, no reference, and writes
    /// nothing that another thread reads. On `None` nothing of what was read
    /// stays in the buffer: where it was written it holds zeros.
    #[inline]
    #[must_use]
    pub fn read_cached(&self, buf: &mut [u8], offset: u64) -> Option<usize> {
        self.read_cached_into(buf.into(), offset)
    }

    /// As [`File::read_cached`], into raw memory: of `Some(n)` the first `n` bytes are written.
    #[inline]
    #[must_use]
    pub fn read_cached_into(&self, out: Out<'_>, offset: u64) -> Option<usize> {
        let section = crate::rcu::read();
        self.handle.files.shared.require_open().ok()?;
        self.handle.open.load(&section)?.mapping.read_cached(out, offset, &section)
    }

    /// Reads into `buf` from `offset` as pread(2) does: short only at the end of the file.
    ///
    /// # Errors
    /// [`Error::Io`] if the store fails, [`Error::OutOfFrames`], [`Error::OutOfMemory`], [`Error::Closed`],
    /// [`Error::InvalidArgument`]; [`Error::TimedOut`] and [`Error::Interrupted`] of a store that may stall.
    pub fn pread(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.pread_into(buf.into(), offset)
    }

    /// As [`File::pread`], into raw memory: of `Ok(n)` the first `n` bytes are written.
    ///
    /// # Errors
    /// As [`File::pread`].
    pub fn pread_into(&self, mut out: Out<'_>, offset: u64) -> Result<usize> {
        check_offset(offset)?;
        let room = out.len();
        {
            let section = crate::rcu::read();
            self.handle.files.shared.require_open()?;
            let open = self.handle.open.load(&section).ok_or_else(|| self.closed_error())?;
            // What the end cuts short may be longer by now.
            if offset + room as u64 <= open.mapping.i_size() {
                if let Some(n) = open.mapping.read_cached(out.part(0..room), offset, &section) {
                    return Ok(n);
                }
            }
        }
        let open = self.open_file()?;
        if coherence::look_at_the_end(&open.mapping, offset, room)? {
            if let Some(n) = self.read_cached_into(out.part(0..room), offset) {
                return Ok(n);
            }
        }
        open.buffered_read(out, offset)
    }

    /// Begins a call of several reads whose answer must be of one version of the file: each by [`File::pread_part`] or
    /// [`File::gather_part`], at the end [`File::judge`], and as long as that says so, all of it again. ([`File::pread`] and
    /// [`File::gather`] are such calls themselves.)
    ///
    /// ```
    /// # use specmm::{Io, Out, PageCache, Verdict, store::MemoryStore};
    /// # use std::sync::Arc;
    /// # let cache = PageCache::new(1 << 20, Io::Inline)?;
    /// # let file = cache.open_store(Arc::new(MemoryStore::new(vec![7; 100])), 100)?;
    /// let (mut head, mut tail) = ([0; 4], [0; 4]);
    /// let mut call = file.one_version()?;
    /// loop {
    ///     let read = file.pread_part(&call, Out::from(&mut head[..]), 0)?.is_some()
    ///         && file.pread_part(&call, Out::from(&mut tail[..]), 96)?.is_some();
    ///     if file.judge(&mut call, read)? == Verdict::OneVersion {
    ///         break;
    ///     }
    /// }
    /// # Ok::<(), specmm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] with ESTALE if the file is being rewritten all the time, or if the store cannot say; [`Error::Closed`].
    pub fn one_version(&self) -> Result<OneVersion> {
        one_version::one_version(&self.open_file()?.mapping)
    }

    /// The same at once; None if the file was rewritten so lately that it must be waited for.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn one_version_now(&self) -> Result<Option<OneVersion>> {
        Ok(one_version::one_version_now(&self.open_file()?.mapping))
    }

    /// What becomes of a call of several reads, after a try at all of them: see [`File::one_version`]. `came`: none of them found
    /// a change.
    ///
    /// # Errors
    /// [`Error::Io`] with ESTALE when the file was rewritten during the third try, or what it says of itself differs each time;
    /// [`Error::Closed`].
    pub fn judge(&self, call: &mut OneVersion, came: bool) -> Result<Verdict> {
        one_version::judge(&self.open_file()?.mapping, call, came)
    }

    /// As [`File::pread_into`], for a part of a call: see [`File::one_version`]. None: a change was found.
    ///
    /// # Errors
    /// As [`File::pread`].
    pub fn pread_part(&self, call: &OneVersion, mut out: Out<'_>, offset: u64) -> Result<Option<usize>> {
        check_offset(offset)?;
        let open = self.open_file()?;
        coherence::look_at_the_end(&open.mapping, offset, out.len())?;
        let room = out.len();
        match self.read_cached_into(out.part(0..room), offset) {
            Some(n) => Ok(one_version::is_current(&open.mapping, call).then_some(n)),
            None => open.try_read(out, offset, Some(call)),
        }
    }

    /// Reads `length` bytes at each offset past the cache, in order, one after the other, twice. If both reads agree, and
    /// meanwhile nothing but the file's ctime moved or the file grew, what was read was all there at the moment between them.
    /// Answers the bytes of the last of these reads, fewer than `length` where the file ends. None: it was one try of the call.
    ///
    /// # Errors
    /// As [`File::judge`], and what the store says; [`Error::InvalidArgument`] for an `out` of another size.
    pub fn read_twice(
        &self,
        call: &mut OneVersion,
        offsets: &[u64],
        length: usize,
        out: Out<'_>,
    ) -> Result<Option<usize>> {
        super::gather::check_room(offsets, length, &out)?;
        self.open_file()?.read_twice(call, offsets, length, out)
    }

    /// The size, looked at now: what somebody else changed about the file is followed, as before a read of its store.
    ///
    /// # Errors
    /// [`Error::Io`] if the store cannot say, [`Error::Closed`].
    pub fn look(&self) -> Result<u64> {
        let open = self.open_file()?;
        coherence::follow_changes(&open.mapping)?;
        Ok(open.mapping.i_size())
    }

    /// Changes the size, as ftruncate(2): drops cached pages and entries beyond a smaller one.
    ///
    /// # Errors
    /// [`Error::Io`] with EINVAL for a file opened for reading or if the store refuses; [`Error::TimedOut`] and
    /// [`Error::Interrupted`] while a store that may stall is still reading what is to go. Then the size stays.
    pub fn truncate(&self, size: u64) -> Result<()> {
        let open = self.open_file()?;
        if !open.mode.is_writable() {
            let error = rustix::io::Errno::INVAL.into();
            return Err(Error::Io(crate::error::IoError::new(error, self.name())));
        }
        size_change::change_size(&open.mapping, size, Some(&open), |size| open.store.truncate(size))
    }

    /// Says how the file will be read; see [`Advice`]. `length` `None` means to the end.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an offset beyond 16 TiB, [`Error::Closed`].
    pub fn advise(&self, advice: Advice, offset: u64, length: Option<u64>) -> Result<()> {
        check_offset(offset)?;
        self.open_file()?.advise(advice, offset, length);
        Ok(())
    }

    /// How the file will be read, as was last said: normal, random or sequential.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn advice(&self) -> Result<Advice> {
        Ok(self.open_file()?.advice())
    }

    /// The readahead window and the miss counter.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn readahead_state(&self) -> Result<ReadaheadState> {
        let open = self.open_file()?;
        let window = *open.window.lock();
        let prev_pos = open.prev_pos.load(Ordering::Relaxed);
        Ok(ReadaheadState {
            start: window.start,
            size: window.size,
            async_size: window.async_size,
            ra_pages: open.ra_pages() as u32,
            mmap_miss: open.mmap_miss.load(Ordering::Relaxed),
            prev_pos: i64::try_from(prev_pos).unwrap_or(-1),
        })
    }

    /// `filemap_fault` alone, without an address space. Speculative: one attempt, LOCKED or RETRY with the cause.
    /// Classic: until LOCKED (with MAJOR if the page was absent), SIGBUS or OOM.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::TimedOut`], [`Error::Interrupted`].
    pub fn filemap_fault(&self, index: u64, speculative: bool) -> Result<FilemapFault> {
        let open = self.open_file()?;
        if speculative { Ok(open.fault_speculatively(index)) } else { open.fault_classically(index) }
    }

    /// Looks whether somebody else changed the file, follows, and answers the size. A file that was changed (its size is
    /// smaller, or its modification time or ctime differs) loses its cached pages; one that has grown keeps them, but for the
    /// last, partial one; a path that names another file by now is opened anew; a file that was deleted is read on, as any
    /// open file is. Mappings and pins stay with what they were made of.
    ///
    /// Without being asked, a file looks for changes, but not at its path, before and after each read of its store, and
    /// before a read that reaches beyond the end it knows.
    ///
    /// # Errors
    /// [`Error::Io`] if the store cannot say or what the path names now cannot be opened, [`Error::Closed`].
    pub fn revalidate(&self) -> Result<u64> {
        self.follow(false)
    }

    fn follow(&self, drop_all: bool) -> Result<u64> {
        let open = self.open_file()?;
        if let Some(replacement) = self.replacement(&open)? {
            let size = replacement.mapping.i_size();
            self.handle.open.replace(Some(Arc::new(replacement)));
            crate::rcu::barrier();
            return Ok(size);
        }
        coherence::revalidate(&open.mapping, drop_all)
    }

    /// As [`File::revalidate`], and drops every cached page, whatever the look says: for changes that leave no trace, such as a
    /// rewrite that also made the file longer, or one within a tick of the clock.
    ///
    /// # Errors
    /// As [`File::revalidate`].
    pub fn revalidate_dropping(&self) -> Result<u64> {
        self.follow(true)
    }

    /// The file that the path names now, if it is another one.
    fn replacement(&self, open: &OpenFile) -> Result<Option<OpenFile>> {
        let io_error = |error| Error::Io(IoError::new(error, self.name()));
        let Some(path) = &self.handle.path else { return Ok(None) };
        let Some(identity) = open.store.identity().map_err(io_error)? else { return Ok(None) };
        let now = match std::fs::metadata(path) {
            Ok(metadata) => (metadata.dev(), metadata.ino()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(error)),
        };
        if now == identity {
            return Ok(None);
        }
        // What "w" and "x" ask for was done long ago.
        let mode = if open.mode.is_writable() { OpenMode::ReadWrite } else { OpenMode::Read };
        let now = self.handle.files.open_local(path, self.name(), mode, open.base_ra_pages)?;
        Ok(Some(open.again(Arc::clone(&now.mapping), Arc::clone(&now.store))))
    }
}

pub(super) fn check_ra_pages(ra_pages: u32) -> Result<()> {
    if ra_pages > MAX_RA_PAGES {
        return Err(Error::InvalidArgument(format!("ra_pages {ra_pages} exceeds {MAX_RA_PAGES} (1 GiB)")));
    }
    Ok(())
}

pub(super) fn check_offset(offset: u64) -> Result<()> {
    if offset > MAX_SIZE {
        return Err(Error::InvalidArgument(format!("offset {offset} exceeds {MAX_SIZE} bytes (16 TiB)")));
    }
    Ok(())
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("name", &self.name()).field("mode", &self.mode()).finish_non_exhaustive()
    }
}
