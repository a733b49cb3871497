//! The wait for the bytes of one page.
//!
//! Owns: how a thread that needs a page that is not up to date reads it, has it read, or leaves. Does not own how pages are
//! filled (`fill`) nor the queue (`io`). Mirrors `lock_page_or_retry` and `filemap_update_page`.

use super::address_space::AddressSpace;
use super::fill::read_page;
use super::invalidate_lock::stable;
use super::io::Submitted;
use super::patience::Closed;
use super::requests::{Answer, Request};
use super::wait::{NotRead, Wait};
use crate::error::{Error, IoError};
use crate::page::{LockedPage, PageFlags, PageRef};
use crate::sync::{guard, in_order, operation};
use std::sync::Arc;

/// Waits for the bytes of a page to which the caller holds a reference, and if necessary reads them or has them read. False: the
/// page was truncated. `closed` ends the wait.
pub(super) fn bring(
    mapping: &Arc<AddressSpace>,
    page: PageRef<'_>,
    index: u64,
    closed: Option<&Closed>,
) -> Result<bool, NotRead> {
    operation!("read");
    if mapping.read_by.may_stall() {
        return have_brought(mapping, page, index, closed);
    }
    let lock = page.lock();
    if !page.is_at(mapping.id(), index) {
        return Ok(false);
    }
    read_page(mapping, &lock, index).map_err(NotRead::Failed)?;
    Ok(true)
}

fn have_brought(
    mapping: &Arc<AddressSpace>,
    page: PageRef<'_>,
    index: u64,
    closed: Option<&Closed>,
) -> Result<bool, NotRead> {
    let wait = Wait::new(mapping, closed);
    let io = &mapping.shared.io;
    loop {
        let lock = lock_brought(mapping, page, index, &wait)?;
        if !page.is_at(mapping.id(), index) {
            return Ok(false);
        }
        if page.flags().has(PageFlags::UPTODATE) {
            return Ok(true);
        }
        // A truncation waits for reads before it enters, and none may begin after that. (In the lock order `invalidate_lock`
        // comes before the page lock, so it is only tried here.)
        let inside = stable(mapping);
        if !guard!("bring.stable", inside.is_some()) {
            drop(lock);
            let entered = wait.until(index, || stable(mapping));
            drop(entered.map_err(NotRead::Left)?);
            continue;
        }
        let answer = Arc::new(Answer::new());
        let source = Arc::<AddressSpace>::clone(mapping);
        let pfns = vec![lock.into_pfn()];
        let request = Request { source, first: index, pfns, answer: Some(Arc::clone(&answer)) };
        let submitted;
        in_order!("bring.submitted_inside", submitted = io.submit(request), drop(inside));
        match submitted {
            Submitted::Yours(errand) => errand.run(),
            Submitted::Queued => {
                if !wait_for_answer(page, &answer, &wait) {
                    io.abandon(mapping.id(), index, Some(&answer));
                    return Err(NotRead::Left(wait.error(index)));
                }
            }
            Submitted::Refused => {}
        }
        // The answer was set before the page was unlocked, so a thread that saw it unlocked sees the answer.
        return match answer.get() {
            Some(answer) => answer.clone().map(|()| true).map_err(NotRead::Failed),
            None => Err(NotRead::Left(unanswered(mapping))),
        };
    }
}

/// Waits for a worker to unlock the page, and so for its answer. False: the wait has ended.
pub(super) fn wait_for_answer(page: PageRef<'_>, answer: &Answer, wait: &Wait<'_>) -> bool {
    // A thread that unlocked the page earlier may send its wake-up late and so wake this one: check whether the page is still
    // locked.
    while answer.get().is_none() && page.flags().has(PageFlags::LOCKED) {
        if !page.wait_unlocked_patiently(&|| wait.nap()) {
            return false;
        }
    }
    true
}

/// Locks a page that may be part of a read under way.
fn lock_brought<'f>(
    mapping: &AddressSpace,
    page: PageRef<'f>,
    index: u64,
    wait: &Wait<'_>,
) -> Result<LockedPage<'f>, NotRead> {
    if let Some(lock) = page.try_lock() {
        return Ok(lock);
    }
    // Its window may be at the end of the queue.
    if let Some(errand) = mapping.shared.io.hurry(mapping.id(), index) {
        errand.run();
    }
    page.lock_patiently(&|| wait.nap()).ok_or_else(|| {
        mapping.shared.io.abandon(mapping.id(), index, None);
        NotRead::Left(wait.error(index))
    })
}

/// The error of a read that ended without an answer.
fn unanswered(mapping: &AddressSpace) -> Error {
    let panicked = || std::io::Error::other("the store panicked");
    mapping.shared.require_open().err().unwrap_or_else(|| Error::Io(IoError::new(panicked(), &mapping.name)))
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::{Answer, Closed, NotRead, Wait};
    use crate::cache::address_space::Created;
    use crate::cache::patience::tests::{Gate, cached};
    use crate::store::{Look, ReadBy, Store};
    use crate::sync::{Mutex, Ordering, Tally};
    use crate::{Error, Io, Mm, MmOptions, PAGE_SIZE, PageCache, Prot, StoreOptions};
    use std::io;
    use std::sync::Arc;
    use std::time::Duration;

    const PAGE: u64 = PAGE_SIZE as u64;

    /// A store that workers read: its first read panics or fails.
    struct Fails {
        panics: bool,
        reads: Tally,
    }

    impl Store for Fails {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            self.reads.add(1);
            if self.reads.tallied() == 1 {
                assert!(!self.panics, "as planned");
                return Err(io::Error::from_raw_os_error(5));
            }
            buf.fill((offset / PAGE) as u8 + 1);
            Ok(buf.len())
        }

        fn read_by(&self) -> ReadBy {
            ReadBy::Workers { timeout: None }
        }
    }

    #[test]
    fn a_page_that_workers_read_arrives_with_its_bytes_or_its_error() {
        for (panics, told) in [(true, "the store panicked"), (false, "Input/output error")] {
            let store = Arc::new(Fails { panics, reads: Tally::new() });
            let cache = PageCache::new(1 << 20, Io::Threads).unwrap();
            let options = StoreOptions::default().name("fails").ra_pages(0);
            let file =
                cache.open_store_with(Arc::clone(&store) as Arc<dyn Store>, 8 * PAGE, options).unwrap();
            let error = file.pread(&mut [0], 3 * PAGE).unwrap_err();
            assert!(matches!(&error, Error::Io(error) if error.file == "fails"), "{error:?}");
            assert!(error.to_string().contains(told), "{error}");
            cache.settle();
            cache.check().unwrap();
            let mm = Mm::new(&cache, MmOptions::default()).unwrap();
            let address = mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
            let mut byte = [0];
            for index in [3, 5] {
                file.pread(&mut byte, index * PAGE).unwrap();
                assert_eq!(u64::from(byte[0]), index + 1);
                mm.load(address + (index + 1) * PAGE, &mut byte).unwrap();
                assert_eq!(u64::from(byte[0]), index + 2);
            }
            assert_eq!((store.reads.tallied(), cache.stats().reads_abandoned), (5, 0));
            mm.close().unwrap();
            cache.close().unwrap();
            let closed = file.pread(&mut byte, 7 * PAGE);
            assert!(matches!(&closed, Err(Error::Closed(what)) if what == "the page cache"), "{closed:?}");
        }
    }

    /// A store that workers read, and that says how large it is, but not what was done to it.
    struct Sized(Mutex<u64>);

    impl Store for Sized {
        fn read_at(&self, buf: &mut [u8], _offset: u64) -> io::Result<usize> {
            buf.fill(7);
            Ok(buf.len())
        }

        fn read_by(&self) -> ReadBy {
            ReadBy::Workers { timeout: None }
        }

        fn size(&self) -> io::Result<Option<u64>> {
            Ok(Some(*self.0.lock()))
        }

        fn look(&self) -> io::Result<Look> {
            Ok(Look::default())
        }
    }

    #[test]
    fn a_size_is_followed_whoever_reads() {
        let store = Arc::new(Sized(Mutex::new(PAGE)));
        let cache = PageCache::new(1 << 20, Io::Threads).unwrap();
        let file = cache.open_store(Arc::clone(&store) as Arc<dyn Store>, PAGE).unwrap();
        for size in [PAGE, 3 * PAGE, 2] {
            *store.0.lock() = size;
            assert_eq!(file.revalidate().unwrap(), size);
            assert_eq!(file.pread(&mut [0; 3 * PAGE_SIZE], 0).unwrap() as u64, size);
        }
        cache.close().unwrap();
    }

    /// Counts its reads, by workers or by callers.
    struct Counts {
        by: ReadBy,
        reads: Tally,
    }

    impl Store for Counts {
        fn read_at(&self, buf: &mut [u8], _offset: u64) -> io::Result<usize> {
            self.reads.add(1);
            buf.fill(7);
            Ok(buf.len())
        }

        fn read_by(&self) -> ReadBy {
            self.by
        }

        fn truncate(&self, _size: u64) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_page_that_is_there_or_has_gone_is_not_read() {
        for by in [ReadBy::Caller, ReadBy::Workers { timeout: None }] {
            let store = Arc::new(Counts { by, reads: Tally::new() });
            let cache = PageCache::new(1 << 20, Io::Threads).unwrap();
            let options = StoreOptions::default().ra_pages(0);
            let file =
                cache.open_store_with(Arc::clone(&store) as Arc<dyn Store>, 8 * PAGE, options).unwrap();
            let mapping = &file.open_file().unwrap().mapping;
            file.pread(&mut [0], 3 * PAGE).unwrap();
            let Created::New(unread) = mapping.add_page(5) else { panic!("it is there") };
            drop(unread.lock);
            let found = mapping.find_get_page(3, &crate::rcu::read()).unwrap();
            let bring = |page, index| super::bring(mapping, page, index, None).unwrap();
            assert!(bring(found.page(), 3), "it is there");
            assert!(!bring(found.page(), 4) && !bring(unread.handle.page(), 6), "that is another one");
            assert_eq!(store.reads.tallied(), 1);
            file.truncate(PAGE).unwrap();
            assert!(!bring(found.page(), 3) && !bring(unread.handle.page(), 5), "they have gone");
            assert_eq!(store.reads.tallied(), 1);
            drop((found, unread.handle));
            file.truncate(8 * PAGE).unwrap();
            let Created::New(unread) = mapping.add_page(5) else { panic!("it is there") };
            drop(unread.lock);
            assert!(bring(unread.handle.page(), 5));
            assert_eq!(store.reads.tallied(), 2);
            drop(unread.handle);
            cache.check().unwrap();
            cache.close().unwrap();
        }
    }

    #[test]
    fn while_a_truncation_waits_only_what_is_there_is_had() {
        let (cache, file) = cached(&Gate::new(None, u64::MAX), 0);
        let mapping = &file.open_file().unwrap().mapping;
        file.pread(&mut [0], 3 * PAGE).unwrap();
        let found = mapping.find_get_page(3, &crate::rcu::read()).unwrap();
        let Created::New(unread) = mapping.add_page(5) else { panic!("it is there") };
        drop(unread.lock);
        let (page, closed) = (unread.handle.page(), Closed::new());
        mapping.truncaters.fetch_add(1, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| super::bring(mapping, page, 5, Some(&closed)));
            std::thread::sleep(Duration::from_millis(20));
            // The truncation needs that lock, perhaps.
            let is_free = (0..1000).any(|_| {
                std::thread::sleep(Duration::from_millis(1));
                page.try_lock().is_some()
            });
            assert!(!waits.is_finished());
            closed.close();
            assert!(matches!(waits.join().unwrap(), Err(NotRead::Left(Error::Closed(_)))));
            assert!(is_free, "it waits with the page lock");
        });
        assert!(super::bring(mapping, found.page(), 3, Some(&closed)).unwrap());
        mapping.truncaters.fetch_sub(1, Ordering::Relaxed);
        assert!(super::bring(mapping, page, 5, None).unwrap());
        assert_eq!(cache.stats().reads, 2);
    }

    #[test]
    fn an_answer_is_had_though_the_page_is_locked_again() {
        let (_cache, file) = cached(&Gate::new(None, u64::MAX), 0);
        let mapping = &file.open_file().unwrap().mapping;
        let Created::New(held) = mapping.add_page(5) else { panic!("it is there") };
        let (closed, answer) = (Closed::new(), Answer::new());
        closed.close();
        let is_answered =
            || super::wait_for_answer(held.handle.page(), &answer, &Wait::new(mapping, Some(&closed)));
        assert!(!is_answered());
        answer.set(Ok(())).unwrap();
        assert!(is_answered());
    }

    #[test]
    fn a_read_is_abandoned_by_a_thread_that_did_not_ask_for_it() {
        let gate = Gate::new(None, 1);
        let (cache, file) = cached(&gate, 0);
        let mapping = &file.open_file().unwrap().mapping;
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| file.pread(&mut [0], 5 * PAGE));
            gate.until_standing(1);
            let (page, closed) = (mapping.find_get_page(5, &crate::rcu::read()).unwrap(), Closed::new());
            closed.close();
            let left = super::bring(mapping, page.page(), 5, Some(&closed));
            let abandoned = cache.stats().reads_abandoned;
            gate.open();
            assert!(matches!(left, Err(NotRead::Left(Error::Closed(_)))));
            assert_eq!((abandoned, reader.join().unwrap().unwrap()), (1, 1));
        });
        cache.check().unwrap();
    }
}
