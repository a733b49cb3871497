//! What a failed read of a store means.
//!
//! Owns: the verdict. Does not own what a call does about it. When others have shortened or rewritten a store, reads that began
//! with its old size or version fail; those are not errors of the file.

use super::address_space::AddressSpace;
use super::coherence;
use crate::error::IoError;

/// The result of [`judge_read_error`].
pub(crate) enum ReadError {
    /// The store was shortened: the file ends before the page, at this size.
    Beyond(u64),
    /// The store was changed, and the page is still in the file: it can be read again.
    Changed,
    /// The page cannot be read; with the file's current size.
    Unreadable(u64, IoError),
}

/// Whether another read may succeed after one that failed.
pub(super) fn may_come(mapping: &AddressSpace, cause: &IoError) -> bool {
    cause.is_change() && mapping.version.may_vouch()
}

/// Judges a failed read.
pub(crate) fn judge_read_error(mapping: &AddressSpace, index: u64, cause: IoError) -> ReadError {
    if may_come(mapping, &cause) && coherence::follow_changes(mapping).is_ok() {
        return mapping.ends_before(index).map_or(ReadError::Changed, ReadError::Beyond);
    }
    if cause.is_short_read() && coherence::revalidate(mapping, false).is_ok() {
        if let Some(size) = mapping.ends_before(index) {
            return ReadError::Beyond(size);
        }
        if cause.size_expected().is_some_and(|size| size != mapping.i_size()) {
            return ReadError::Changed;
        }
    }
    ReadError::Unreadable(mapping.i_size(), cause)
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::error::ShortRead;
    use crate::store::{Look, Store};
    use crate::sync::Mutex;
    use crate::{File, Io, PAGE_SIZE, PageCache};
    use std::ffi::OsStr;
    use std::io;
    use std::sync::Arc;

    const PAGE: u64 = PAGE_SIZE as u64;

    /// A store that says what it is told to, or that it cannot.
    struct Says(Mutex<Option<u64>>);

    impl Store for Says {
        fn read_at(&self, buf: &mut [u8], _offset: u64) -> io::Result<usize> {
            Ok(buf.len())
        }

        fn look(&self) -> io::Result<Look> {
            let size = self.0.lock().ok_or(io::ErrorKind::TimedOut)?;
            Ok(Look { size: Some(size), version: Some(1), changed: None })
        }
    }

    fn open() -> (Arc<Says>, PageCache, File) {
        let store = Arc::new(Says(Mutex::new(Some(5 * PAGE))));
        let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
        let file = cache.open_store(Arc::clone(&store) as Arc<dyn Store>, 5 * PAGE).unwrap();
        (store, cache, file)
    }

    type Cause = fn() -> IoError;

    fn changed() -> IoError {
        IoError::changed(OsStr::new("says"))
    }

    fn short(size: u64) -> IoError {
        let short = ShortRead { got: 3, expected: 9, offset: 0, size };
        IoError::new(io::Error::new(io::ErrorKind::UnexpectedEof, short), OsStr::new("says"))
    }

    fn broken() -> IoError {
        IoError::new(io::Error::from_raw_os_error(5), OsStr::new("says"))
    }

    #[test]
    fn what_a_failed_read_means_depends_on_the_store() {
        let (same, inside, outside) = (Some(5 * PAGE), Some(4 * PAGE), Some(3 * PAGE));
        let began_with: Cause = || short(5 * PAGE);
        let began_earlier: Cause = || short(6 * PAGE);
        // A cause, what the store says now, and what that means for page 3.
        for (number, (cause, says, means)) in (0..).zip([
            (changed as Cause, same, "changed"),
            (changed, inside, "changed"),
            (changed, outside, "beyond"),
            (changed, None, "unreadable"),
            (began_with, same, "unreadable"),
            (began_with, inside, "changed"),
            (began_with, outside, "beyond"),
            (began_with, None, "unreadable"),
            (began_earlier, same, "changed"),
            (broken, same, "unreadable"),
            (broken, outside, "unreadable"),
        ]) {
            let (store, _cache, file) = open();
            *store.0.lock() = says;
            let mapping = &file.open_file().unwrap().mapping;
            let before = mapping.i_size();
            let followed = if says.is_some() && (cause().is_change() || cause().is_short_read()) {
                says
            } else {
                Some(before)
            };
            match (judge_read_error(mapping, 3, cause()), means) {
                (ReadError::Beyond(size), "beyond") => assert_eq!(size, 3 * PAGE, "{number}"),
                (ReadError::Changed, "changed") => {}
                (ReadError::Unreadable(size, of), "unreadable") => {
                    assert_eq!((size, of.errno()), (before, cause().errno()), "{number}");
                }
                _ => panic!("{number}: {means}"),
            }
            assert_eq!(Some(mapping.i_size()), followed, "{number}");
        }
    }

    #[test]
    fn a_store_that_always_differs_is_unreadable_at_last() {
        let (_store, _cache, file) = open();
        let mapping = &file.open_file().unwrap().mapping;
        let now = Look { version: Some(2), ..mapping.version.expected().unwrap() };
        assert!(
            may_come(mapping, &changed()) && !may_come(mapping, &broken()) && !may_come(mapping, &short(9))
        );
        while mapping.version.may_vouch() {
            mapping.version.vouches(&mapping.version.expected().unwrap(), &now);
        }
        assert!(!may_come(mapping, &changed()));
        assert!(
            matches!(judge_read_error(mapping, 3, changed()), ReadError::Unreadable(size, _) if size == 5 * PAGE)
        );
    }
}
