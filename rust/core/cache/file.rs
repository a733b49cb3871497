//! Open files, as users hold them.
//!
//! Owns: the handle, which can be closed under its users and whose path may name another file one day; arguments and errors. What
//! is done with the file is done to the [`OpenFile`] behind it.

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
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    pub(crate) fn in_memory(shared: &Arc<Shared>, store: Arc<dyn crate::store::Store>, size: u64) -> Self {
        let mapping = super::files::new_mapping(shared, &store, size, "model".as_ref());
        let files = Arc::new(Files::new(Arc::clone(shared)));
        let open = OpenFile::new(mapping, store, OpenMode::ReadWrite, super::DEFAULT_RA_PAGES);
        Self::new(&files, open, "model".as_ref(), None)
    }

    /// The open file, while neither it nor its cache is closed.
    pub(crate) fn open_file(&self) -> Result<Arc<OpenFile>> {
        let open = self.handle.open.get().ok_or_else(|| self.closed_error())?;
        open.mapping.shared.require_open()?;
        Ok(open)
    }

    /// The same for as long as a section is open: touches no count.
    pub(super) fn current<'s>(&'s self, section: &'s ReadSection) -> Result<&'s OpenFile> {
        self.current_if_any(section).ok_or_else(|| self.closed_error())
    }

    /// The same without saying why there is none.
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

    /// Where a local file was found.
    pub(super) fn path(&self) -> Option<&Path> {
        self.handle.path.as_deref()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
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
                open.closed.close();
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
        Ok(self.current(&crate::rcu::read())?.mapping.i_size())
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
        size_change::change_size(&open.mapping, size, Some(&open.closed), |size| open.store().truncate(size))
    }

    /// Says how the file will be read; see [`Advice`]. `length` `None` means to the end.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an offset beyond 16 TiB, [`Error::Closed`].
    pub fn advise(&self, advice: Advice, offset: u64, length: Option<u64>) -> Result<()> {
        check_offset(offset)?;
        advise(&self.open_file()?, advice, offset, length);
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
        Ok(self.open_file()?.readahead_state())
    }

    /// `filemap_fault` alone, without an address space. Speculative: one attempt, LOCKED or RETRY with the cause.
    /// Classic: until LOCKED (with MAJOR if the page was absent), SIGBUS or OOM.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::TimedOut`], [`Error::Interrupted`].
    pub fn filemap_fault(&self, index: u64, speculative: bool) -> Result<FilemapFault> {
        let open = self.open_file()?;
        if speculative { Ok(fault_speculatively(&open, index)) } else { fault_classically(&open, index) }
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
        let Some(identity) = open.store().identity().map_err(io_error)? else { return Ok(None) };
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
        Ok(Some(open.again(Arc::clone(&now.mapping), Arc::clone(now.store()))))
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("name", &self.name()).field("mode", &self.mode()).finish_non_exhaustive()
    }
}
