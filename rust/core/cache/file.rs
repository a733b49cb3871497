//! The public handle of an open file.
//!
//! Owns: the handle, which can be closed while others use it, and whose path may come to name another file; argument checks and
//! errors. Does not own the operations, which act on the [`OpenFile`] behind it, held by an RCU cell.

use super::advice::Advice;
use super::arguments::check_offset;
use super::fadvise::advise;
use super::files::Files;
use super::lone_fault::{FilemapFault, fault_classically, fault_speculatively};
use super::open_file::{OpenFile, ReadaheadState};
use super::options::OpenMode;
use super::shared::Shared;
use super::{coherence, size_change};
use crate::error::{Error, IoError, Result};
use crate::rcu::{ArcCell, ReadSection};
use crate::sync::{duty, in_order, operation};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open file. Clones share one open file: closing one closes all.
#[derive(Clone)]
pub struct File {
    handle: Arc<Handle>,
}

struct Handle {
    open: ArcCell<OpenFile>,
    /// Absolute path of a local file, as opened.
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

    /// A file over a store, outside any cache's registry, for models.
    #[cfg(all(test, specmm_loom))]
    pub(crate) fn in_memory(shared: &Arc<Shared>, store: Arc<dyn crate::store::Store>, size: u64) -> Self {
        let mapping = super::files::new_mapping(shared, &store, size, "model".as_ref());
        let files = Arc::new(Files::new(Arc::clone(shared)));
        let open = OpenFile::new(mapping, store, OpenMode::ReadWrite, super::DEFAULT_RA_PAGES);
        Self::new(&files, open, "model".as_ref(), None)
    }

    /// The open file, unless it or its cache is closed.
    pub(crate) fn open_file(&self) -> Result<Arc<OpenFile>> {
        let open = self.handle.open.get().ok_or_else(|| self.closed_error())?;
        open.mapping.shared.require_open()?;
        Ok(open)
    }

    /// As [`File::open_file`], but valid only within a read section: no reference count is changed.
    pub(super) fn current<'s>(&'s self, section: &'s ReadSection) -> Result<&'s OpenFile> {
        self.current_if_any(section).ok_or_else(|| self.closed_error())
    }

    /// As [`File::current`], without an error that says why there is none.
    #[inline]
    pub(super) fn current_if_any<'s>(&'s self, section: &'s ReadSection) -> Option<&'s OpenFile> {
        let open = self.handle.open.load(section);
        open.filter(|open| open.mapping.shared.is_open())
    }

    #[cold]
    fn closed_error(&self) -> Error {
        let cache = self.handle.files.shared.require_open().err();
        cache.unwrap_or_else(|| Error::Closed(format!("file {:?}", self.handle.name)))
    }

    /// Path of a local file.
    pub(super) fn path(&self) -> Option<&Path> {
        self.handle.path.as_deref()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.files.shared
    }

    /// The path it was opened by, or the name given to a store.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.handle.name
    }

    /// The mode it was opened in.
    #[must_use]
    pub fn mode(&self) -> OpenMode {
        self.handle.mode
    }

    /// Whether [`File::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.handle.open.load(&crate::rcu::read()).is_none()
    }

    /// Closes the file. Its mappings stay usable; its pages are freed with its last user. Threads reading through this handle
    /// that wait for a store that may stall get [`Error::Closed`]. Closing twice is allowed.
    ///
    /// # Errors
    /// [`Error::Pinned`] while pins made through this handle exist; the file then stays open.
    pub fn close(&self) -> Result<()> {
        operation!("close a file");
        loop {
            let section = crate::rcu::read();
            let Some(open) = self.handle.open.load(&section) else { return Ok(()) };
            open.pins.close().map_err(|pins| {
                Error::Pinned(format!("file {:?} cannot be closed: it has {pins} live pins", self.name()))
            })?;
            open.closed.close();
            // If it was replaced meanwhile, its replacement is closed.
            if self.handle.open.replace_if(open, None) {
                break;
            }
        }
        duty!("close.barrier", crate::rcu::barrier());
        Ok(())
    }

    /// The file's size in bytes, as far as the cache knows (`i_size_read`).
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn size(&self) -> Result<u64> {
        Ok(self.current(&crate::rcu::read())?.mapping.i_size())
    }

    /// Changes the size, as ftruncate(2) does. Shrinking drops the cached pages and page-table entries past the new end.
    ///
    /// # Errors
    /// [`Error::Io`] with EINVAL if the file was opened for reading, or with the store's error; [`Error::TimedOut`] and
    /// [`Error::Interrupted`] while a store that may stall is still reading pages to be dropped. On an error the size is
    /// unchanged.
    pub fn truncate(&self, size: u64) -> Result<()> {
        operation!("truncate");
        let open = self.open_file()?;
        if !open.mode.is_writable() {
            let error = rustix::io::Errno::INVAL.into();
            return Err(Error::Io(crate::error::IoError::new(error, self.name())));
        }
        size_change::change_size(&open.mapping, size, Some(&open.closed), |size| open.store().truncate(size))
    }

    /// Declares how the file will be read; see [`Advice`]. A `length` of `None` means to the end.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an offset beyond 16 TiB, [`Error::Closed`].
    pub fn advise(&self, advice: Advice, offset: u64, length: Option<u64>) -> Result<()> {
        check_offset(offset)?;
        advise(&self.open_file()?, advice, offset, length);
        Ok(())
    }

    /// The access pattern last advised: normal, random or sequential.
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
        Ok(self.open_file()?.readahead_state())
    }

    /// Runs `filemap_fault` alone, without an address space. Speculative: a single attempt, which ends LOCKED, or RETRY with the
    /// cause. Classic: repeats until LOCKED (with MAJOR if the page was absent), SIGBUS or OOM.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::TimedOut`], [`Error::Interrupted`]; [`Error::Io`] if the store was changed meanwhile and cannot
    /// be examined.
    pub fn filemap_fault(&self, index: u64, speculative: bool) -> Result<FilemapFault> {
        let open = self.open_file()?;
        if speculative { Ok(fault_speculatively(&open, index)) } else { fault_classically(&open, index) }
    }

    /// Checks whether the file was changed by others, brings the cache up to date, and returns the size. A changed file (smaller,
    /// or with another modification time or ctime) loses its cached pages. One that has only grown keeps them, except for a
    /// partial last page. If the path now names another file, that one is opened instead; a deleted file stays readable, as any
    /// open file does. Existing mappings and pins keep the old file and its bytes.
    ///
    /// Without this call, changes to the file (but not to its path) are noticed before and after each read of its store, and
    /// before a read past its known end.
    ///
    /// # Errors
    /// [`Error::Io`] if the store cannot be examined or the file that the path now names cannot be opened; [`Error::Closed`].
    pub fn revalidate(&self) -> Result<u64> {
        operation!("revalidate");
        self.follow(false)
    }

    fn follow(&self, drop_all: bool) -> Result<u64> {
        loop {
            let open = self.open_file()?;
            let Some(replacement) = self.replacement(&open)? else {
                return coherence::revalidate(&open.mapping, drop_all);
            };
            let size = replacement.mapping.i_size();
            if self.reopen(&open, replacement) {
                return Ok(size);
            }
        }
    }

    /// Puts another open in the place of one; false if that was closed or replaced meanwhile.
    pub(super) fn reopen(&self, open: &OpenFile, replacement: OpenFile) -> bool {
        let replaced;
        in_order!(
            "reopen.barrier_last",
            replaced = self.handle.open.replace_if(open, Some(Arc::new(replacement))),
            // Whoever replaced the file may unmount what it was on.
            duty!("reopen.barrier", crate::rcu::barrier())
        );
        replaced
    }

    /// As [`File::revalidate`], but always drops every cached page: for changes that cannot be detected, such as a rewrite that
    /// also made the file longer, or one within a tick of the clock.
    ///
    /// # Errors
    /// As [`File::revalidate`].
    pub fn revalidate_dropping(&self) -> Result<u64> {
        self.follow(true)
    }

    /// The file that the path now names, if it is another one.
    fn replacement(&self, open: &OpenFile) -> Result<Option<OpenFile>> {
        let io_error = |error| Error::Io(IoError::new(error, self.name()));
        let Some(path) = &self.handle.path else { return Ok(None) };
        let Some(identity) = open.store().identity().map_err(io_error)? else { return Ok(None) };
        let now = match std::fs::metadata(path) {
            Ok(metadata) => (metadata.dev(), metadata.ino()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(error)),
        };
        if now == identity {
            return Ok(None);
        }
        // Whatever "w" and "x" ask for was done at the first open.
        let mode = if open.mode.is_writable() { OpenMode::ReadWrite } else { OpenMode::Read };
        let now = self.handle.files.open_local(path, self.name(), mode, open.base_ra_pages)?;
        Ok(Some(open.again(Arc::clone(&now.mapping), Arc::clone(now.store()))))
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("name", &self.name()).field("mode", &self.mode()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests;
