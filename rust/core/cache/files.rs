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

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::Files;
    use crate::store::{Look, MemoryStore, Store};
    use crate::sync::{Mutex, Tally};
    use crate::{Error, Io, PageCache};
    use std::io;
    use std::sync::{Arc, Weak};

    #[test]
    fn the_table_of_files_is_pruned_when_it_has_doubled() {
        let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
        let files = cache.files();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(vec![7; 10]));
        let mut number = 0;
        let mut open = || {
            number += 1;
            files.mapping(Some((1, number)), &store, 10, "file".as_ref()).unwrap()
        };
        let mut kept = Vec::new();
        // Files that stay open, files that do not, and how many are known then: it is pruned at 64 (16 stay), at 64 again, when
        // there is nothing to prune, and at 128.
        for (stay, go, known) in [
            (16, 48, 64),
            (1, 0, 17),
            (0, 47, 64),
            (1, 0, 18),
            (47, 0, 65),
            (0, 63, 128),
            (1, 0, 66),
            (0, 62, 128),
        ] {
            kept.extend((0..stay).map(|_| open()));
            (0..go).for_each(|_| drop(open()));
            assert_eq!(files.local.lock().files.len(), known, "{} stay", kept.len());
        }
        let open = |number| files.mapping(Some((1, number)), &store, 10, "file".as_ref()).unwrap();
        for (number, file) in (1..=16).zip(&kept) {
            assert_eq!(open(number).id(), file.id(), "one that is open is found");
        }
        assert_eq!(files.local.lock().files.len(), 128, "and nothing is added");
    }

    /// A store that counts the looks at it, and answers none while it is dumb. Its look may open files.
    #[derive(Default)]
    struct Looked {
        looks: Tally,
        is_dumb: Mutex<bool>,
        files: Mutex<Weak<Files>>,
    }

    impl Store for Looked {
        fn read_at(&self, buf: &mut [u8], _offset: u64) -> io::Result<usize> {
            buf.fill(7);
            Ok(buf.len())
        }

        fn look(&self) -> io::Result<Look> {
            self.looks.add(1);
            let files = self.files.lock().upgrade().unwrap();
            assert!(files.local.try_lock().is_some(), "the table of files is locked");
            let look = Look { size: Some(10), version: Some(1), changed: None };
            if *self.is_dumb.lock() { Err(io::Error::from_raw_os_error(13)) } else { Ok(look) }
        }
    }

    #[test]
    fn files_without_identity_share_nothing() {
        let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
        let files = cache.files();
        let looked = Arc::new(Looked { files: Mutex::new(Arc::downgrade(files)), ..Looked::default() });
        let store = Arc::clone(&looked) as Arc<dyn Store>;
        let open = |identity| files.mapping(identity, &store, 10, "file".as_ref()).unwrap();
        let opened = [None, None, Some((1, 2)), Some((2, 1)), Some((1, 2))].map(open);
        let ids = opened.each_ref().map(|file| file.id());
        assert_eq!(ids[2], ids[4]);
        assert!((0..4).all(|at| !ids[..at].contains(&ids[at])), "{ids:?}");
        // One each, and one that finds what others did to the file that is open.
        assert_eq!(looked.looks.tallied(), 5 + 1);
    }

    #[test]
    fn a_file_that_is_open_is_not_opened_again_if_it_cannot_be_examined() {
        let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
        let files = cache.files();
        let looked = Arc::new(Looked { files: Mutex::new(Arc::downgrade(files)), ..Looked::default() });
        let store = Arc::clone(&looked) as Arc<dyn Store>;
        let open = || files.mapping(Some((1, 2)), &store, 10, "file".as_ref());
        let file = open().unwrap();
        *looked.is_dumb.lock() = true;
        let error = open().unwrap_err();
        assert!(
            matches!(&error, Error::Io(error) if error.errno() == 13 && error.file == "file"),
            "{error:?}"
        );
        *looked.is_dumb.lock() = false;
        assert_eq!(open().unwrap().id(), file.id());
    }
}
