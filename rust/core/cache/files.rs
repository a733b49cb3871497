//! Which open files share pages.
//!
//! Owns: the table of files that have an identity (device and inode), and the assignment of pages to an open. Does not own the
//! files: a file is freed with its last user. Mirrors `iget` and its hash of inodes.
//!
//! One mutex, under which no store is called, because a store may be any code.

use super::address_space::AddressSpace;
use super::coherence;
use super::open_file::OpenFile;
use super::options::OpenMode;
use super::registry::CachedFile;
use super::shared::Shared;
use crate::error::{Error, IoError, Result};
use crate::store::{LocalFile, Opening, Store};
use crate::sync::{Mutex, duty, in_order, operation, seeded};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Weak};

/// The files of one cache.
pub(crate) struct Files {
    pub(super) shared: Arc<Shared>,
    local: Mutex<Local>,
}

/// Keyed by device and inode, so that two opens of one file share pages.
#[derive(Default)]
struct Local {
    files: HashMap<(u64, u64), Weak<AddressSpace>>,
    /// Number of files at which to prune.
    prune_at: usize,
}

impl Local {
    /// Removes files without users, whenever the number of files has doubled.
    fn prune(&mut self) {
        if self.files.len() >= self.prune_at.max(64) {
            self.files.retain(|_, file| file.strong_count() > 0);
            self.prune_at = 2 * self.files.len();
        }
    }
}

/// An empty page index for a file that is not open yet.
pub(super) fn new_mapping(
    shared: &Arc<Shared>,
    store: &Arc<dyn Store>,
    size: u64,
    name: &OsStr,
) -> Arc<AddressSpace> {
    operation!("open");
    let mapping = Arc::new(AddressSpace::new(Arc::clone(store), size, name, Arc::clone(shared)));
    register(&mapping);
    mapping
}

/// Registers the file, so that reclaim can find it from its pages.
fn register(mapping: &Arc<AddressSpace>) {
    let weak = Arc::downgrade(mapping);
    mapping.shared.files.insert(mapping.id(), weak as Weak<dyn CachedFile>);
}

impl Files {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, local: Mutex::new(Local::default()) }
    }

    /// The pages of a file, shared with other opens of the same file.
    pub(super) fn mapping(
        &self,
        identity: Option<(u64, u64)>,
        store: &Arc<dyn Store>,
        size: u64,
        name: &OsStr,
    ) -> Result<Arc<AddressSpace>> {
        operation!("open");
        let Some(identity) = identity else { return Ok(new_mapping(&self.shared, store, size, name)) };
        let mapping = Arc::new(AddressSpace::new(Arc::clone(store), size, name, Arc::clone(&self.shared)));
        mapping.version.start_at(size);
        let mut local = self.local.lock();
        if let Some(known) = local.files.get(&identity).and_then(Weak::upgrade) {
            let looked;
            // A new open is a good moment to check for changes by others. The store may be any code, and open files too.
            in_order!("open.unlock_first", drop(local), looked = coherence::revalidate(&known, false));
            looked?;
            return Ok(known);
        }
        seeded!(
            "open.seed.look_then_insert",
            bug = {
                drop(local);
                local = self.local.lock();
            }
        );
        local.prune();
        if local.files.try_reserve(1).is_err() {
            let bytes = local.files.len() * size_of::<((u64, u64), Weak<AddressSpace>)>();
            return Err(Error::out_of_memory("the table of open files", bytes));
        }
        // Reclaim must find the file of a page that its first user brings in.
        duty!("open.register", register(&mapping));
        local.files.insert(identity, Arc::downgrade(&mapping));
        Ok(mapping)
    }

    /// Opens a regular file, whose pages are shared with other opens of it.
    pub(super) fn open_local(
        &self,
        path: &Path,
        name: &OsStr,
        mode: OpenMode,
        ra_pages: u32,
    ) -> Result<OpenFile> {
        operation!("open");
        let io_error = |error| Error::Io(IoError::new(error, name));
        let how = Opening {
            write: mode.is_writable(),
            create: matches!(mode, OpenMode::Create | OpenMode::CreateNew),
            exclusive: mode == OpenMode::CreateNew,
        };
        let store = LocalFile::open(path, how).map_err(io_error)?;
        let identity = store.identity().map_err(io_error)?;
        let size = store.size().map_err(io_error)?.unwrap_or(0);
        let store: Arc<dyn Store> = Arc::new(store);
        let mapping = self.mapping(Some(identity), &store, size, name)?;
        Ok(OpenFile::new(mapping, store, mode, ra_pages))
    }
}
