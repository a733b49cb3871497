//! Reads that may have to wait: `generic_file_buffered_read` of Linux 5.12.
//!
//! Owns: the steps of a read that is not a hit, page by page: examining the store, bringing in the page, copying. Does not own
//! the copy itself (`copy_out`), readahead (`readahead`), nor the wait for bytes (`arrival`). Holds a reference to the page that
//! it copies, and no lock.

use super::accessed;
use super::address_space::index_of;
use super::again::read_again;
use super::arrival::bring;
use super::coherence::{self, TRIES};
use super::copy_out::{CopyOut, copy_held};
use super::creation::{FoundOrCreated, find_or_create_waiting};
use super::direct_read::read_twice;
use super::one_version::{self, OneVersion, Verdict};
use super::open_file::OpenFile;
use super::readahead::{page_cache_async_ra, page_cache_sync_ra};
use super::stats::Stat;
use super::wait::NotRead;
use crate::error::{Error, Result};
use crate::page::{Out, PAGE_SIZE, PageFlags, PageHandle};
use crate::sync::{operation, yield_now};
use std::sync::Arc;

/// Reads into `out` from `offset` on; short only at the end of the file.
pub(super) fn buffered_read(open: &Arc<OpenFile>, mut out: Out<'_>, offset: u64) -> Result<usize> {
    operation!("read");
    let mapping = &open.mapping;
    let room = out.len();
    // A single page is of one version, if it can be read at all.
    if room <= PAGE_SIZE - (offset % PAGE_SIZE as u64) as usize {
        coherence::settle(mapping, false)?;
        for _ in 0..TRIES {
            if let Some(n) = try_read(open, out.part(0..room), offset, None)? {
                return Ok(n);
            }
        }
    }
    let mut call = one_version::one_version(mapping)?;
    loop {
        let read = try_read(open, out.part(0..room), offset, Some(&call))?;
        let read = match one_version::judge(mapping, &mut call, read.is_some())? {
            Verdict::OneVersion => read,
            Verdict::Again => None,
            Verdict::ReadTwice => read_twice(open, &mut call, &[offset], room, out.part(0..room))?,
        };
        if let Some(n) = read {
            return Ok(n);
        }
    }
}

/// One attempt at a read; None if the file changed meanwhile. If the call must be of one version, the attempt ends as soon as a
/// change is found.
pub(super) fn try_read(
    open: &Arc<OpenFile>,
    mut out: Out<'_>,
    offset: u64,
    call: Option<&OneVersion>,
) -> Result<Option<usize>> {
    operation!("read");
    let mapping = &open.mapping;
    let room = out.len();
    let wanted = |size: u64| usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(room);
    let moved = || call.is_some_and(|call| !one_version::is_current(mapping, call));
    let (mut done, mut looked) = (0, false);
    loop {
        // The size may change between pages; nothing past it is read.
        let size = mapping.i_size();
        let n = wanted(size);
        if done >= n {
            break;
        }
        let at = offset + done as u64;
        let within = (at % PAGE_SIZE as u64) as usize;
        let step = (n - done).min(PAGE_SIZE - within);
        let index = index_of(at);
        let rest = index_of(offset + n as u64 - 1) - index + 1;
        let mut found = mapping.find_get_page(index, &crate::rcu::read());
        if !looked && !found.as_ref().is_some_and(is_at_hand) {
            looked = true;
            coherence::follow_changes(mapping)?;
            if moved() {
                return Ok(None);
            }
            found = found.filter(|found| found.page().is_at(mapping.id(), index));
        }
        // The reference prevents reclaim from taking the page before it is copied, however small the cache.
        let held = match make_uptodate(open, index, rest, found) {
            Ok(Some(handle)) => handle,
            Ok(None) => continue,
            Err(Error::Io(error)) if error.is_change() => {
                return coherence::follow_changes(mapping).map(|()| None);
            }
            // The file was made shorter by others: retry with the new size.
            Err(Error::Io(error)) if error.is_short_read() => {
                if coherence::revalidate(mapping, false)? == size {
                    return Err(Error::Io(error));
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        if moved() {
            return Ok(None);
        }
        // Without a copy, the page or the size has changed meanwhile: retry with the new size.
        let part = out.part(done..done + step);
        if let CopyOut::Copied(copied) = copy_held(mapping, held.page(), at, part) {
            accessed::touch(&mapping.shared, copied.page);
            done += step;
            open.set_prev_pos(offset + done as u64);
        } else {
            mapping.shared.count(Stat::Retries, 1);
            // Otherwise a model would keep reading the same stale slot.
            if cfg!(specmm_loom) {
                yield_now();
            }
        }
    }
    Ok(Some(done))
}

/// Whether a page can be read without the store.
pub(super) fn is_at_hand(found: &PageHandle<'_>) -> bool {
    let flags = found.page().flags();
    flags.has(PageFlags::UPTODATE) && !flags.has(PageFlags::READAHEAD)
}

/// Brings the page at `index` into the cache. `found` is the result of the caller's look-up; `rest` is the number of pages wanted
/// from `index` on. None if the page was truncated meanwhile.
pub(super) fn make_uptodate<'f>(
    open: &'f Arc<OpenFile>,
    index: u64,
    rest: u64,
    found: Option<PageHandle<'f>>,
) -> Result<Option<PageHandle<'f>>> {
    let mapping = &open.mapping;
    let missed = found.is_none();
    let handle = match found.or_else(|| page_cache_sync_ra(open, index, rest)) {
        Some(handle) => handle,
        None => match find_or_create_waiting(mapping, index, Some(&open.closed))? {
            FoundOrCreated::Page(handle) => handle,
            // The caller checks the size again.
            FoundOrCreated::Beyond(_) => return Ok(None),
            FoundOrCreated::NoMemory(error) => return Err(error),
            FoundOrCreated::NoFrame | FoundOrCreated::Unstable => {
                let page = format!("page {index} of {}", mapping.name.to_string_lossy());
                return Err(mapping.shared.out_of_frames(page));
            }
        },
    };
    let page = handle.page();
    if page.flags().has(PageFlags::READAHEAD) {
        page_cache_async_ra(open, page, index, rest);
    }
    if page.flags().has(PageFlags::UPTODATE) {
        mapping.shared.count(if missed { Stat::Misses } else { Stat::Hits }, 1);
        coherence::catch_up(mapping)?;
        return Ok(Some(handle));
    }
    mapping.shared.count(Stat::Misses, 1);
    read_again(open, index);
    match bring(mapping, page, index, Some(&open.closed)) {
        Ok(true) => {
            coherence::catch_up(mapping)?;
            Ok(Some(handle))
        }
        // Truncated during the wait; the caller will notice.
        Ok(false) => Ok(None),
        Err(NotRead::Failed(error)) => Err(Error::Io(error)),
        Err(NotRead::Left(error)) => Err(error),
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use crate::store::{MemoryStore, Store};
    use crate::{CacheOptions, CacheStats, Error, File, Io, PAGE_SIZE, PageCache, StoreOptions};
    use std::sync::Arc;
    use std::time::Duration;

    const PAGE: u64 = PAGE_SIZE as u64;
    const PAGES: u64 = 40;

    fn open(store: Arc<dyn Store>, frames: u64, ra_pages: u32) -> (PageCache, File) {
        let options = CacheOptions::default().io(Io::Inline).frame_timeout(Duration::ZERO);
        let cache = PageCache::with_options(frames * PAGE, options).unwrap();
        let options = StoreOptions::default().name("file").ra_pages(ra_pages);
        let file = cache.open_store_with(store, PAGES * PAGE, options).unwrap();
        (cache, file)
    }

    fn numbers() -> Arc<dyn Store> {
        Arc::new(MemoryStore::new((0..PAGES * PAGE).map(|at| (at % 251) as u8).collect()))
    }

    fn position(file: &File) -> u64 {
        u64::try_from(file.readahead_state().unwrap().prev_pos).unwrap()
    }

    fn counts(stats: CacheStats) -> [u64; 4] {
        [stats.hits, stats.misses, stats.reads, stats.readahead_pages]
    }

    #[test]
    fn a_read_at_random_requests_its_own_pages_at_once() {
        for (offset, length, pages) in [
            (20 * PAGE, 1, 1),
            (20 * PAGE + 9, PAGE - 9, 1),
            (20 * PAGE + 9, PAGE - 8, 2),
            (20 * PAGE + 4000, 200, 2),
            (20 * PAGE, 5 * PAGE, 5),
            (20 * PAGE + 1, 5 * PAGE, 6),
            (PAGES * PAGE - 9, 20, 1),
            (PAGES * PAGE - PAGE - 1, 2 * PAGE, 2),
        ] {
            let (cache, file) = open(numbers(), 256, 32);
            let mut buf = vec![0; length as usize];
            let n = file.pread(&mut buf, offset).unwrap();
            assert_eq!(n as u64, length.min(PAGES * PAGE - offset));
            assert!(buf[..n].iter().zip(offset..).all(|(&found, at)| u64::from(found) == at % 251));
            assert_eq!(counts(cache.stats())[2..], [1, pages], "{length} at {offset}");
            assert_eq!(cache.stats().misses + cache.stats().hits, pages);
            assert_eq!(position(&file), offset + n as u64);
            // A hit moves nothing.
            file.pread(&mut buf[..1], offset).unwrap();
            assert_eq!(position(&file), offset + n as u64);
            cache.check().unwrap();
        }
    }

    #[test]
    fn what_is_cached_up_to_the_end_is_a_hit_that_moves_nothing() {
        let (cache, file) = open(numbers(), 256, 0);
        let mut buf = [0; 2 * PAGE_SIZE];
        for index in [PAGES - 1, 3] {
            file.pread(&mut buf[..9], index * PAGE).unwrap();
        }
        let before = counts(cache.stats());
        assert_eq!(file.pread(&mut buf, (PAGES - 1) * PAGE).unwrap(), PAGE_SIZE);
        assert_eq!((counts(cache.stats())[0], position(&file)), (before[0] + 1, 3 * PAGE + 9));
    }

    #[test]
    fn a_pin_at_random_requests_one_page() {
        let (cache, file) = open(numbers(), 256, 32);
        let pin = file.pin(20 * PAGE + 9, 5).unwrap();
        assert_eq!((counts(cache.stats()), pin.len()), ([0, 1, 1, 1], 5));
    }

    #[test]
    fn each_page_is_a_hit_or_a_miss() {
        let (cache, file) = open(numbers(), 256, 0);
        let mut buf = vec![0; 6 * PAGE_SIZE];
        let mut before = counts(cache.stats());
        for (first, pages, expected) in [
            (3, 1, [0, 1, 1, 0]),
            (5, 1, [0, 1, 1, 0]),
            (2, 5, [2, 3, 3, 0]),
            (2, 5, [5, 0, 0, 0]),
            (4, 1, [1, 0, 0, 0]),
        ] {
            file.pread(&mut buf[..pages * PAGE_SIZE], first * PAGE).unwrap();
            let after = counts(cache.stats());
            assert_eq!([0, 1, 2, 3].map(|at| after[at] - before[at]), expected, "{pages} from {first}");
            before = after;
        }
        assert_eq!(cache.stats().retries, 0);
        // What readahead brings is there when its turn comes.
        let (cache, file) = open(numbers(), 256, 8);
        for index in 0..PAGES {
            file.pread(&mut buf[..9], index * PAGE).unwrap();
        }
        let [hits, misses, reads, ahead] = counts(cache.stats());
        assert_eq!((hits, misses, ahead), (PAGES - 1, 1, PAGES));
        assert!(reads <= PAGES / 8 + 3, "{reads}");
        cache.check().unwrap();
    }

    #[test]
    fn a_reader_without_a_frame_is_told_what_holds_them() {
        let (cache, file) = open(numbers(), 1, 0);
        let pin = file.pin(3 * PAGE, 1).unwrap();
        let error = file.pread(&mut [0; 9], 7 * PAGE).unwrap_err();
        let told = error.to_string();
        assert!(
            matches!(error, Error::OutOfFrames { capacity: 1, ref what, .. } if what == "page 7 of file"),
            "{told}"
        );
        assert!(told.contains("1 pinned"), "{told}");
        assert_eq!(file.pread(&mut [0; 9], 3 * PAGE).unwrap(), 9);
        drop(pin);
        assert_eq!(file.pread(&mut [0; 9], 7 * PAGE).unwrap(), 9);
        cache.check().unwrap();
    }

    /// A store that has fewer bytes than the file should, and may not say so.
    struct Short {
        has: usize,
        says: bool,
    }

    impl Store for Short {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
            let n = self.has.saturating_sub(offset as usize).min(buf.len());
            buf[..n].fill(7);
            Ok(n)
        }

        fn size(&self) -> std::io::Result<Option<u64>> {
            Ok(self.says.then_some(self.has as u64))
        }

        fn look(&self) -> std::io::Result<crate::store::Look> {
            Ok(crate::store::Look::default())
        }
    }

    #[test]
    fn a_store_that_ends_early_made_the_file_shorter_or_is_broken() {
        let has = 3 * PAGE_SIZE + 100;
        for ra_pages in [0, 8] {
            for (offset, got) in
                [(3 * PAGE, 100), (3 * PAGE + 99, 1), (5 * PAGE, 0), (PAGE, 2 * PAGE_SIZE + 100)]
            {
                let (cache, file) = open(Arc::new(Short { has, says: true }), 256, ra_pages);
                let mut buf = vec![0; 4 * PAGE_SIZE];
                assert_eq!(file.pread(&mut buf, offset).unwrap(), got);
                assert_eq!(file.size().unwrap(), has as u64);
                assert!(buf[..got].iter().all(|&byte| byte == 7));
                cache.check().unwrap();
            }
            let (_cache, file) = open(Arc::new(Short { has, says: true }), 256, ra_pages);
            let error = file.gather(&[0, 3 * PAGE + 90], 20, &mut [0; 40]).unwrap_err();
            assert!(
                matches!(error, Error::Bus { index: 3, size, cause: None, .. } if size == has as u64),
                "{error:?}"
            );
            let (cache, file) = open(Arc::new(Short { has, says: false }), 256, ra_pages);
            for (offset, told) in [
                (3 * PAGE, "short read: 100 of 4096 bytes at offset 12288"),
                (5 * PAGE, "short read: 0 of 4096 bytes at offset 20480"),
            ] {
                let error = file.pread(&mut [0; 4], offset).unwrap_err();
                assert_eq!(error.to_string(), format!("file: {told}"));
                assert_eq!(cache.stats().read_errors, cache.stats().reads);
            }
            assert_eq!((file.size().unwrap(), cache.stats().read_bytes), (PAGES * PAGE, 0));
            file.pread(&mut vec![0; 3 * PAGE_SIZE], 0).unwrap();
            cache.check().unwrap();
        }
    }
}
