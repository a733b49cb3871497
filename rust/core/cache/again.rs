//! Requesting failed windows again.
//!
//! Owns: the request for the rest of a failed window. Does not own its size (`window`) nor how it is read (`fill`). Page locks
//! are tried under `invalidate_lock`. Linux has no counterpart: it reads the pages of a failed window one by one, which is cheap
//! on a disk but costs a request per page over a network.
//!
//! A failure halves the size of the next request, a success doubles it. So a store that failed once gets a few additional
//! requests, and one with an unreadable page about as many as a binary search for that page. A single page is read the usual way,
//! and its reader gets the error. Faults of an `Mm` do as Linux does.

use super::address_space::AddressSpace;
use super::fill::is_unread;
use super::invalidate_lock::stable;
use super::open_file::OpenFile;
use super::readahead::{io_pages, submit_window};
use crate::page::{LockedPage, PageFlags, PageRef};
use crate::reserve;
use crate::sync::{in_order, operation};
use std::sync::Arc;

/// Requests the part of a failed window that begins at `index` again, if it is more than that page. Never waits.
pub(super) fn read_again(open: &Arc<OpenFile>, index: u64) {
    operation!("read");
    let mapping = &open.mapping;
    let most = mapping.again.get().min(io_pages(open).max(open.ra_pages()));
    // A failed window leaves pages that are not up to date and not being read.
    let is_left = |page: PageRef<'_>| {
        let flags = page.flags();
        !flags.has(PageFlags::UPTODATE) && !flags.has(PageFlags::LOCKED)
    };
    let neighbour = mapping.peek(index + 1, &crate::rcu::read()).is_some_and(is_left);
    if most < 2 || !neighbour {
        return;
    }
    let errand = {
        let Ok(mut pfns) = reserve::vec(most as usize, "a window") else { return };
        // Reads begin under this lock: see `invalidate_lock::quiet`.
        let Some(stable) = stable(mapping) else { return };
        while (pfns.len() as u64) < most {
            let Some(lock) = lock_unread(mapping, index + pfns.len() as u64) else { break };
            pfns.push(lock.into_pfn());
        }
        if pfns.is_empty() {
            return;
        }
        let errand;
        in_order!("again.submitted_inside", errand = submit_window(mapping, index, pfns), drop(stable));
        errand
    };
    if let Some(errand) = errand {
        errand.run();
    }
}

/// Locks a page that is in the cache and not up to date, if that is possible without waiting. The caller holds `invalidate_lock`
/// for reading, which keeps truncations out; the reference keeps evictions out.
fn lock_unread(mapping: &AddressSpace, index: u64) -> Option<LockedPage<'_>> {
    let handle = mapping.find_get_page(index, &crate::rcu::read())?;
    let lock = handle.page().try_lock()?;
    debug_assert!(lock.page().is_at(mapping.id(), index), "somebody else removed {:?}", lock.page());
    is_unread(&lock).then_some(lock)
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use crate::store::Store;
    use crate::sync::Mutex;
    use crate::{Io, PAGE_SIZE, PageCache, StoreOptions};
    use std::io;
    use std::sync::Arc;

    const PAGES: u64 = 1024;

    /// A store that fails the requests that `fails` selects by their number and their pages.
    struct Plan {
        fails: Box<dyn Fn(usize, std::ops::Range<u64>) -> bool + Send + Sync>,
        requests: Mutex<Vec<(u64, bool)>>,
    }

    impl Store for Plan {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            let mut requests = self.requests.lock();
            let pages = (buf.len() as u64).div_ceil(PAGE_SIZE as u64);
            let first = offset / PAGE_SIZE as u64;
            let failed = (self.fails)(requests.len(), first..first + pages);
            requests.push((pages, failed));
            if failed {
                return Err(io::Error::from_raw_os_error(5));
            }
            for (at, byte) in (offset..).zip(&mut *buf) {
                *byte = (at / PAGE_SIZE as u64 % 251) as u8;
            }
            Ok(buf.len())
        }
    }

    /// Reads the file from front to back, page by page, each up to `tries` times; returns the requests, and the pages that did
    /// not arrive.
    fn scan(
        io: Io,
        ra_pages: u32,
        fails: impl Fn(usize, std::ops::Range<u64>) -> bool + Send + Sync + 'static,
        tries: usize,
    ) -> (Vec<(u64, bool)>, Vec<u64>) {
        let plan = Arc::new(Plan { fails: Box::new(fails), requests: Mutex::new(Vec::new()) });
        let cache = PageCache::new(16 << 20, io).unwrap();
        let store = Arc::clone(&plan) as Arc<dyn Store>;
        let options = StoreOptions::default().ra_pages(ra_pages);
        let file = cache.open_store_with(store, PAGES * PAGE_SIZE as u64, options).unwrap();
        let mut errors = Vec::new();
        for index in 0..PAGES {
            let mut byte = [0];
            let came = (0..tries).any(|_| file.pread(&mut byte, index * PAGE_SIZE as u64).is_ok());
            if came {
                assert_eq!(u64::from(byte[0]), index % 251);
            } else {
                errors.push(index);
            }
        }
        cache.settle();
        cache.check().unwrap();
        let requests = plan.requests.lock().clone();
        (requests, errors)
    }

    fn alone(requests: &[(u64, bool)]) -> usize {
        requests.iter().filter(|(pages, _)| *pages == 1).count()
    }

    #[test]
    fn a_window_that_failed_once_takes_a_few_requests_more() {
        let whole = scan(Io::Inline, 256, |_, _| false, 1).0.len();
        for failing in 0..whole {
            let (requests, errors) = scan(Io::Inline, 256, move |number, _| number == failing, 1);
            assert!(errors.is_empty(), "request {failing} of {whole} failed, and {errors:?} did not come");
            // The two halves of the failed window.
            assert!(requests.len() <= whole + 2, "{failing}: {whole} without it, {requests:?}");
            // Workers may read a window in more pieces or fewer; a reader that waited for one page requests it alone.
            let (requests, errors) = scan(Io::Threads, 256, move |number, _| number == failing, 1);
            assert!(errors.is_empty(), "request {failing} of {whole} failed, and {errors:?} did not come");
            assert!(alone(&requests) <= 4, "{failing}: {requests:?}");
        }
    }

    #[test]
    fn a_page_that_cannot_be_read_is_found_by_halves() {
        for io in [Io::Inline, Io::Threads] {
            for bad in [0, 1, 100, 255, 256, 700, PAGES - 1] {
                let (requests, errors) = scan(io, 256, move |_, pages| pages.contains(&bad), 1);
                assert_eq!(errors, [bad], "the pages around it can be read");
                assert!(alone(&requests) <= 24, "{bad}: {requests:?}");
            }
        }
    }

    #[test]
    fn requests_are_bounded_by_failures() {
        use rand_like::Draw;
        for seed in 0..20 {
            let one_in = Draw::new(seed).below(6) + 2;
            let fails = move |number: usize, _| Draw::new(seed ^ (number as u64) << 8).below(one_in) == 0;
            let whole = scan(Io::Inline, 256, |_, _| false, 1).0.len();
            let (requests, errors) = scan(Io::Inline, 256, fails, 200);
            let failed = requests.iter().filter(|(_, failed)| *failed).count();
            assert!(errors.is_empty(), "seed {seed}: {errors:?}");
            // Each failure halves the next request, and one success makes up for it.
            let most = whole + 3 * failed + 40;
            assert!(requests.len() <= most, "seed {seed}: {} requests, {failed} failed", requests.len());
        }
    }

    #[test]
    fn each_failure_halves_what_is_requested_down_to_one_page_alone() {
        let first_requests = |ra_pages, pages: u64, failing: usize| {
            let fails = Box::new(move |number: usize, _: std::ops::Range<u64>| number < failing);
            let plan = Arc::new(Plan { fails, requests: Mutex::new(Vec::new()) });
            let cache = PageCache::new(16 << 20, Io::Inline).unwrap();
            let options = StoreOptions::default().ra_pages(ra_pages);
            let store = Arc::clone(&plan) as Arc<dyn Store>;
            let file = cache.open_store_with(store, PAGES * PAGE_SIZE as u64, options).unwrap();
            let offset = 100 * PAGE_SIZE as u64;
            let came = file.pread(&mut vec![0; pages as usize * PAGE_SIZE], offset).is_ok();
            cache.check().unwrap();
            let requests: Vec<u64> = plan.requests.lock().iter().map(|&(pages, _)| pages).collect();
            (came, requests)
        };
        for (ra_pages, pages, failing, came, requests) in [
            (32, 32, 0, true, vec![32]),
            (32, 32, 1, true, vec![32, 16, 16]),
            (32, 32, 2, true, vec![32, 16, 1, 8, 16, 7]),
            (32, 32, 9, false, vec![32, 16, 1]),
            (32, 7, 1, true, vec![7, 3, 4]),
            (2, 2, 9, false, vec![2, 1]),
            (2, 2, 1, true, vec![2, 1, 1]),
            (3, 3, 1, true, vec![3, 1, 2]),
            (32, 1, 9, false, vec![1, 1]),
        ] {
            assert_eq!(
                first_requests(ra_pages, pages, failing),
                (came, requests),
                "{ra_pages} {pages} {failing}"
            );
        }
    }

    #[test]
    fn a_request_ends_before_a_page_that_is_there() {
        let plan =
            Arc::new(Plan { fails: Box::new(|number, _| number == 0), requests: Mutex::new(Vec::new()) });
        let cache = PageCache::new(16 << 20, Io::Inline).unwrap();
        let options = StoreOptions::default().ra_pages(8);
        let store = Arc::clone(&plan) as Arc<dyn Store>;
        let file = cache.open_store_with(store, PAGES * PAGE_SIZE as u64, options).unwrap();
        let read = |index: u64, pages: usize| {
            file.pread(&mut vec![0; pages * PAGE_SIZE], index * PAGE_SIZE as u64).unwrap();
            plan.requests.lock().iter().map(|&(pages, _)| pages).collect::<Vec<_>>()
        };
        // Where nothing else is to be read the first half comes again, then what is left up to what has come.
        file.advise(crate::Advice::WillNeed, 100 * PAGE_SIZE as u64, Some(8 * PAGE_SIZE as u64)).unwrap();
        assert_eq!(read(104, 1), [8, 4]);
        assert_eq!(read(100, 1), [8, 4, 4]);
        assert_eq!(read(100, 8), [8, 4, 4]);
        cache.check().unwrap();
    }

    /// Numbers drawn from a seed.
    mod rand_like {
        pub(super) struct Draw(u64);

        impl Draw {
            pub(super) fn new(seed: u64) -> Self {
                Self(seed.wrapping_add(0x9e37_79b9_7f4a_7c15))
            }

            pub(super) fn below(&mut self, bound: u64) -> u64 {
                self.0 ^= self.0 >> 30;
                self.0 = self.0.wrapping_mul(0xbf58_476d_1ce4_e5b9);
                self.0 ^= self.0 >> 27;
                self.0 = self.0.wrapping_mul(0x94d0_49bb_1331_11eb);
                (self.0 ^ (self.0 >> 31)) % bound
            }
        }
    }
}
