//! Which pages of a file are in the cache.
//!
//! Owns: the count, page by page and in total. Does not own the pages. Takes no lock, so as with mincore(2) the result may
//! already be out of date.

use super::address_space::AddressSpace;
use super::file::File;
use crate::error::{Error, Result};
use crate::page::PageFlags;
use crate::reserve;
use crate::sync::operation;

const MAX_PARTS: usize = 1 << 16;

/// Entries visited in one read section, which delays grace periods.
const SECTION_ENTRIES: usize = 1024;

impl File {
    /// One byte per page, from page `first` on, at most to the end of the file: 1 if the page is cached and up to date, as in
    /// mincore(2).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if there is no memory for the result; [`Error::Closed`].
    pub fn residency(&self, first: u64, count: Option<u64>) -> Result<Vec<u8>> {
        operation!("residency");
        let open = self.open_file()?;
        let pages = open.mapping.pages_in_file();
        let last = count.map_or(pages, |count| first.saturating_add(count).min(pages));
        let mut answer = reserve::vec(last.saturating_sub(first) as usize, "the residency of pages")?;
        let section = crate::rcu::read();
        let resident = |index| {
            let page = open.mapping.peek(index, &section);
            u8::from(page.is_some_and(|page| page.flags().has(PageFlags::UPTODATE)))
        };
        answer.extend((first..last).map(resident));
        Ok(answer)
    }

    /// Returns the number of pages in the file, and for each of `parts` equal parts of it (or for each page, if it has fewer
    /// pages), the number of pages that are cached and up to date. Takes time proportional to the file's cached pages, not to its
    /// length.
    ///
    /// ```
    /// # use specmm::{Io, PageCache, StoreOptions, store::MemoryStore};
    /// # use std::sync::Arc;
    /// let cache = PageCache::new(1 << 20, Io::Inline)?;
    /// let file = cache.open_store_with(Arc::new(MemoryStore::new(vec![7; 40_960])), 40_960, StoreOptions::default().ra_pages(0))?;
    /// file.pread(&mut [0; 8192], 0)?;
    /// assert_eq!(file.resident_in(3)?, (10, vec![2, 0, 0]));
    /// # Ok::<(), specmm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for zero parts or more than 65,536; [`Error::OutOfMemory`]; [`Error::Closed`].
    pub fn resident_in(&self, parts: usize) -> Result<(u64, Vec<u64>)> {
        operation!("residency");
        if parts == 0 || parts > MAX_PARTS {
            return Err(Error::InvalidArgument(format!("parts must be 1 to {MAX_PARTS}: {parts}")));
        }
        let open = self.open_file()?;
        let pages = open.mapping.pages_in_file();
        let parts = (parts as u64).min(pages);
        let mut resident = reserve::vec(parts as usize, "the residency of parts")?;
        resident.resize(parts as usize, 0);
        let mut next = Some(0);
        while let Some(from) = next {
            next = each_resident(&open.mapping, from, pages, |index| {
                // Part `p` begins at page `pages * p / parts`, rounded down.
                resident[(((index + 1) * parts - 1) / pages) as usize] += 1;
            });
        }
        Ok((pages, resident))
    }
}

/// Calls `each` for the resident pages in `from..end`, in one read section; returns where to continue, unless it reached the end.
fn each_resident(mapping: &AddressSpace, from: u64, end: u64, mut each: impl FnMut(u64)) -> Option<u64> {
    let section = crate::rcu::read();
    let mut next = from;
    for _ in 0..SECTION_ENTRIES {
        let (index, entry) = mapping.pages.next(next, end.checked_sub(1)?, None, &section)?;
        let page = entry.as_page().map(|pfn| mapping.frames().page(pfn));
        if page.is_some_and(|page| page.flags().has(PageFlags::UPTODATE)) {
            each(index);
        }
        next = index + 1;
    }
    Some(next)
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use crate::store::MemoryStore;
    use crate::{Io, PAGE_SIZE, PageCache, StoreOptions};
    use std::sync::Arc;

    #[test]
    fn parts_are_sums_of_pages() {
        let cache = PageCache::new(64 * PAGE_SIZE as u64, Io::Inline).unwrap();
        for pages in [0_usize, 1, 2, 7, 100] {
            let store = Arc::new(MemoryStore::new(vec![1; pages * PAGE_SIZE]));
            let file = cache
                .open_store_with(
                    store,
                    (pages * PAGE_SIZE) as u64,
                    StoreOptions::default().name("ones").ra_pages(0),
                )
                .unwrap();
            for page in (0..pages).filter(|page| page % 3 != 1) {
                file.pread(&mut [0], (page * PAGE_SIZE) as u64).unwrap();
            }
            let residency = file.residency(0, None).unwrap();
            for parts in [1, 2, 3, 7, 64, 1000] {
                let (of, resident) = file.resident_in(parts).unwrap();
                assert_eq!(of as usize, pages);
                let count = parts.min(pages);
                let sum = |part: usize| {
                    let range = pages * part / count..pages * (part + 1) / count;
                    residency[range].iter().map(|&byte| u64::from(byte)).sum()
                };
                assert_eq!(resident, (0..count).map(sum).collect::<Vec<u64>>(), "{pages} in {parts}");
            }
        }
    }

    #[test]
    fn a_long_file_is_no_longer_than_what_is_cached() {
        let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
        let file = cache
            .open_store_with(
                Arc::new(MemoryStore::new(Vec::new())),
                1 << 44,
                StoreOptions::default().name("nothing").ra_pages(0),
            )
            .unwrap();
        assert_eq!(file.resident_in(3).unwrap(), (1 << 32, vec![0; 3]));
        assert!(file.resident_in(0).is_err() && file.resident_in(65_537).is_err());
        assert_eq!(file.resident_in(65_536).unwrap().1, vec![0; 65_536]);
    }

    #[test]
    fn a_part_of_a_file_ends_where_the_file_does_and_what_is_not_read_is_not_there() {
        let cache = PageCache::new(64 * PAGE_SIZE as u64, Io::Inline).unwrap();
        let store = Arc::new(MemoryStore::new(vec![1; 8 * PAGE_SIZE]));
        let options = StoreOptions::default().ra_pages(0);
        let file = cache.open_store_with(store, 8 * PAGE_SIZE as u64, options).unwrap();
        file.pread(&mut [0], 5 * PAGE_SIZE as u64).unwrap();
        let open = file.open_file().unwrap();
        let fresh = cache.shared().frames.alloc(crate::page::Use::File).unwrap();
        let being_read = open.mapping.insert(6, fresh).unwrap().unwrap();
        for (first, count, expected) in [
            (0, Some(2), &[0, 0][..]),
            (4, Some(2), &[0, 1]),
            (5, None, &[1, 0, 0]),
            (7, Some(u64::MAX), &[0]),
            (8, None, &[]),
            (9, Some(1), &[]),
        ] {
            assert_eq!(file.residency(first, count).unwrap(), expected, "{count:?} from {first}");
        }
        assert_eq!(file.resident_in(2).unwrap(), (8, vec![0, 1]));
        drop(being_read);
        // As in a truncation that has not dropped them yet.
        open.mapping.i_size_write(5 * PAGE_SIZE as u64);
        assert_eq!(file.resident_in(2).unwrap(), (5, vec![0, 0]));
    }

    #[test]
    fn more_pages_than_one_section_visits_are_counted() {
        const PAGES: u64 = 2 * super::SECTION_ENTRIES as u64 + 100;
        let cache = PageCache::new(2 * PAGES * PAGE_SIZE as u64, Io::Inline).unwrap();
        let size = PAGES * PAGE_SIZE as u64;
        let file = cache.open_store(Arc::new(MemoryStore::new(vec![1; size as usize])), size).unwrap();
        file.pread(&mut vec![0; size as usize], 0).unwrap();
        assert_eq!(file.resident_in(1).unwrap(), (PAGES, vec![PAGES]));
    }
}
