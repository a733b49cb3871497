//! Acting on advice: `mm/fadvise.c`.
//!
//! Owns: which pages a range of bytes covers. Does not own reading them (`readahead`) nor dropping them (`eviction`).

use super::advice::Advice;
use super::open_file::OpenFile;
use super::readahead::will_need;
use super::{coherence, eviction};
use crate::page::PAGE_SIZE;
use crate::sync::operation;
use std::sync::Arc;

/// Takes advice about `length` bytes from `offset` on; a `length` of None means to the end.
pub(super) fn advise(open: &Arc<OpenFile>, advice: Advice, offset: u64, length: Option<u64>) {
    operation!("advise");
    let end = length.map_or(u64::MAX, |length| offset.saturating_add(length));
    let size = open.mapping.i_size();
    match advice {
        Advice::Normal | Advice::Random | Advice::Sequential => open.set_advice(advice),
        Advice::WillNeed => {
            // If the store cannot be examined, reading it fails too, and a later reader gets the error.
            let _met_again = coherence::follow_changes(&open.mapping);
            let size = open.mapping.i_size();
            let end = end.min(size);
            if offset < end {
                will_need(open, offset / PAGE_SIZE as u64, (end - 1) / PAGE_SIZE as u64);
            }
        }
        Advice::DontNeed => {
            let first = offset.div_ceil(PAGE_SIZE as u64);
            // A range that reaches the end of the file includes the last, partial page.
            let beyond = if end >= size { size.div_ceil(PAGE_SIZE as u64) } else { end / PAGE_SIZE as u64 };
            if first < beyond {
                eviction::invalidate(&open.mapping, first, beyond - 1);
            }
        }
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::cache::{File, Io, PageCache, StoreOptions};
    use crate::store::MemoryStore;

    const PAGE: u64 = PAGE_SIZE as u64;
    const SIZE: u64 = 7 * PAGE + 100;

    fn opened() -> (PageCache, File) {
        let cache = PageCache::new(64 * PAGE, Io::Inline).unwrap();
        let store = Arc::new(MemoryStore::new(vec![7; SIZE as usize]));
        let file = cache.open_store_with(store, SIZE, StoreOptions::default().ra_pages(0)).unwrap();
        (cache, file)
    }

    fn resident(file: &File) -> Vec<u8> {
        file.residency(0, None).unwrap()
    }

    #[test]
    fn willneed_brings_each_page_of_which_a_byte_is_named() {
        for (offset, length, expected) in [
            (0, Some(0), [0, 0, 0, 0, 0, 0, 0, 0]),
            (0, Some(1), [1, 0, 0, 0, 0, 0, 0, 0]),
            (0, Some(PAGE), [1, 0, 0, 0, 0, 0, 0, 0]),
            (PAGE - 1, Some(2), [1, 1, 0, 0, 0, 0, 0, 0]),
            (2 * PAGE, Some(PAGE + 1), [0, 0, 1, 1, 0, 0, 0, 0]),
            (6 * PAGE, Some(PAGE + 100), [0, 0, 0, 0, 0, 0, 1, 1]),
            (6 * PAGE, Some(u64::MAX), [0, 0, 0, 0, 0, 0, 1, 1]),
            (6 * PAGE, None, [0, 0, 0, 0, 0, 0, 1, 1]),
            (SIZE - 1, None, [0, 0, 0, 0, 0, 0, 0, 1]),
            (SIZE, None, [0; 8]),
            (SIZE + PAGE, Some(1), [0; 8]),
        ] {
            let (_cache, file) = opened();
            file.advise(Advice::WillNeed, offset, length).unwrap();
            assert_eq!(resident(&file), expected, "{length:?} bytes from {offset}");
        }
    }

    #[test]
    fn willneed_sees_that_a_file_has_grown() {
        let path = std::env::temp_dir().join(format!("specmm-willneed-{}", std::process::id()));
        std::fs::write(&path, vec![7; PAGE_SIZE]).unwrap();
        let cache = PageCache::new(64 * PAGE, Io::Inline).unwrap();
        let file = cache.open_with(&path, crate::OpenOptions::default().ra_pages(0)).unwrap();
        std::fs::write(&path, vec![7; 3 * PAGE_SIZE]).unwrap();
        file.advise(Advice::WillNeed, 0, None).unwrap();
        assert_eq!((file.size().unwrap(), resident(&file)), (3 * PAGE, vec![1; 3]));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn dontneed_drops_each_page_that_is_named_as_a_whole() {
        for (offset, length, expected) in [
            (0, Some(0), [1, 1, 1, 1, 1, 1, 1, 1]),
            (0, Some(PAGE - 1), [1, 1, 1, 1, 1, 1, 1, 1]),
            (0, Some(PAGE), [0, 1, 1, 1, 1, 1, 1, 1]),
            (1, Some(2 * PAGE - 1), [1, 0, 1, 1, 1, 1, 1, 1]),
            (2 * PAGE, Some(2 * PAGE), [1, 1, 0, 0, 1, 1, 1, 1]),
            // The last page is whole where the file ends.
            (6 * PAGE, Some(PAGE + 99), [1, 1, 1, 1, 1, 1, 0, 1]),
            (6 * PAGE, Some(PAGE + 100), [1, 1, 1, 1, 1, 1, 0, 0]),
            (7 * PAGE, None, [1, 1, 1, 1, 1, 1, 1, 0]),
            (7 * PAGE + 1, None, [1; 8]),
            (9 * PAGE, None, [1; 8]),
        ] {
            let (cache, file) = opened();
            file.advise(Advice::WillNeed, 0, None).unwrap();
            file.advise(Advice::DontNeed, offset, length).unwrap();
            assert_eq!(resident(&file), expected, "{length:?} bytes from {offset}");
            let left: u64 = expected.iter().map(|&there| u64::from(there)).sum();
            assert_eq!(cache.stats().dropped, 8 - left);
        }
    }

    #[test]
    fn a_pattern_is_remembered_and_moves_no_page() {
        let (cache, file) = opened();
        for advice in [Advice::Random, Advice::Sequential, Advice::Normal] {
            file.advise(advice, 0, None).unwrap();
            assert_eq!(file.advice().unwrap(), advice);
        }
        assert_eq!(cache.stats().frames_in_use, 0);
    }
}
