//! Opening in one cache a file that is open in another: how a forked child gets its parent's files.
//!
//! Owns: what is taken over. The other cache may be a parent's, frozen with any of its locks held, so only words that change
//! atomically are read of it: the open file behind its RCU pointer, its mode, advice and size.

use super::open_file::OpenFile;
use super::{File, PageCache};
use crate::error::{Error, IoError, Result};
use crate::store::Store;
use crate::sync::operation;
use std::path::Path;
use std::sync::Arc;

impl PageCache {
    /// Opens in this cache a file that is open in another one: through the same store (for a file on disk, the same descriptor),
    /// with its name, mode and advice, but without its pages. See [`crate::fork`]; if the caller wrote the store, its locks are
    /// the caller's responsibility there.
    ///
    /// # Errors
    /// [`Error::Io`] if the store cannot report its size; [`Error::Closed`].
    pub fn adopt(&self, file: &File) -> Result<File> {
        let open = file.open_file()?;
        self.adopted(file, &open, Arc::clone(open.store()))
    }

    /// As [`PageCache::adopt`], but through another store, which replaces the file's own.
    ///
    /// # Errors
    /// As [`PageCache::adopt`].
    pub fn adopt_through(&self, file: &File, store: Arc<dyn Store>) -> Result<File> {
        self.adopted(file, &*file.open_file()?, store)
    }

    fn adopted(&self, file: &File, open: &OpenFile, store: Arc<dyn Store>) -> Result<File> {
        operation!("open");
        self.shared().require_open()?;
        let name = &open.mapping.name;
        let io_error = |error| Error::Io(IoError::new(error, name));
        let identity = store.identity().map_err(io_error)?;
        let size = store.size().map_err(io_error)?.unwrap_or_else(|| open.mapping.i_size());
        let mapping = self.files().mapping(identity, &store, size, name)?;
        Ok(File::new(self.files(), open.again(mapping, store), file.name(), file.path().map(Path::to_owned)))
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use crate::store::MemoryStore;
    use crate::{Advice, Io, OpenMode, OpenOptions, PAGE_SIZE, PageCache, StoreOptions};
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::sync::Arc;

    #[test]
    fn a_name_that_is_no_text_stays_what_it_is() {
        let name = OsStr::from_bytes(b"specmm-\xff\n");
        let path = std::env::temp_dir().join(name);
        let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
        let Err(crate::Error::Io(missing)) = cache.open(&path) else { panic!("it is there") };
        assert_eq!(missing.file, path.as_os_str());
        std::fs::write(&path, b"bytes").unwrap();
        let file = cache.open(&path).unwrap();
        let again = PageCache::new(1 << 20, Io::Inline).unwrap().adopt(&file).unwrap();
        assert_eq!((file.name(), again.name()), (path.as_os_str(), path.as_os_str()));
        let Err(crate::Error::Io(refused)) = file.truncate(0) else { panic!("it is open to read") };
        assert_eq!(refused.file, path.as_os_str());
        std::fs::remove_file(&path).unwrap();
        let store = Arc::new(MemoryStore::new(vec![7; 100]));
        assert_eq!(
            cache.open_store_with(store, 100, StoreOptions::default().name(name)).unwrap().name(),
            name
        );
    }

    #[test]
    fn a_file_on_disk_is_the_same_file() {
        let path = std::env::temp_dir().join(format!("specmm-adopt-{}", std::process::id()));
        std::fs::write(&path, vec![7; 3 * PAGE_SIZE]).unwrap();
        let one = PageCache::new(1 << 20, Io::Inline).unwrap();
        let file =
            one.open_with(&path, OpenOptions::default().mode(OpenMode::ReadWrite).ra_pages(16)).unwrap();
        let also = one.open_with(&path, OpenOptions::default().ra_pages(8)).unwrap();
        file.advise(Advice::Sequential, 0, None).unwrap();
        std::fs::remove_file(&path).unwrap();

        let other = PageCache::new(1 << 20, Io::Inline).unwrap();
        let (file, also) = (other.adopt(&file).unwrap(), other.adopt(&also).unwrap());
        let mut buf = [0; 10];
        assert_eq!(file.pread(&mut buf, PAGE_SIZE as u64).unwrap(), 10);
        assert_eq!(buf, [7; 10]);
        assert_eq!((file.name(), file.mode()), (path.as_os_str(), OpenMode::ReadWrite));
        assert_eq!(file.readahead_state().unwrap().ra_pages, 32);
        assert_eq!(also.readahead_state().unwrap().ra_pages, 8);
        assert!(also.read_cached(&mut buf, PAGE_SIZE as u64).is_some(), "both share pages");
        file.truncate(5).unwrap();
        assert_eq!(also.size().unwrap(), 5);
        assert_eq!(one.stats().reads, 0);
        other.check().unwrap();
    }

    #[test]
    fn a_store_may_be_replaced() {
        let one = PageCache::new(1 << 20, Io::Inline).unwrap();
        let file = one
            .open_store_with(
                Arc::new(MemoryStore::new(vec![1; 100])),
                100,
                StoreOptions::default().name("ones").ra_pages(4),
            )
            .unwrap();
        let other = PageCache::new(1 << 20, Io::Inline).unwrap();
        let same = other.adopt(&file).unwrap();
        let twos = other.adopt_through(&file, Arc::new(MemoryStore::new(vec![2; 100]))).unwrap();
        let mut buf = [0; 2];
        for (file, byte) in [(&same, 1), (&twos, 2)] {
            file.pread(&mut buf, 98).unwrap();
            assert_eq!((buf, file.size().unwrap(), file.name()), ([byte; 2], 100, "ones".as_ref()));
        }
        let closed = PageCache::new(1 << 20, Io::Inline).unwrap();
        closed.close().unwrap();
        assert!(matches!(closed.adopt(&file), Err(crate::Error::Closed(what)) if what == "the page cache"));
        file.close().unwrap();
        assert!(matches!(other.adopt(&file), Err(crate::Error::Closed(_))));
        other.close().unwrap();
        assert!(matches!(other.adopt(&twos), Err(crate::Error::Closed(_))));
    }
}
