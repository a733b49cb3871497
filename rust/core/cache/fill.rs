//! Filling locked pages with bytes from a store.
//!
//! Owns: the read of a store, the interpretation of its result, and how a run of pages is read in pieces (`in_flight`). Does not
//! own which thread does it (`io`) nor which pages are read (`readahead`). Mirrors `mpage_readahead` and its completion.
//!
//! The caller has locked the pages of a run; they are filled, marked up to date and unlocked. The first piece that fails ends the
//! run: the remaining pages stay in the cache, not up to date. The next reader requests them again (`again`), in the end a single
//! page, and gets the error.

use super::address_space::AddressSpace;
use super::requests::{Answer, Source};
use super::stats::Stat;
use crate::error::{IoError, ShortRead};
use crate::page::{Frames, LockedPage, PAGE_SIZE, PageFlags};
use crate::reserve;
use crate::store::ReadBy;
use crate::sync::{duty, guard, in_order, operation, seeded};
use std::io;
use std::sync::Arc;
use std::time::Instant;

impl Source for AddressSpace {
    fn id(&self) -> u64 {
        self.id()
    }

    fn read_by(&self) -> ReadBy {
        self.read_by
    }

    fn fill(&self, mut first: u64, pfns: Vec<u32>, answer: Option<Arc<Answer>>) {
        operation!("readahead");
        let mut locks = Locks { frames: self.frames(), pfns: pfns.into_iter() };
        if let Some(answer) = answer {
            for page in &mut locks {
                let read = read_page(self, &page, first);
                // A thread that sees the page unlocked expects the answer.
                in_order!("fill.answer_first", _ = answer.get_or_init(|| read), drop(page));
            }
            return;
        }
        // No thread waits for these bytes yet: one that needs them later reads again and gets the error.
        while locks.pfns.len() > 0 {
            let piece = self.shared.in_flight.buffer(locks.pfns.len() * PAGE_SIZE).and_then(|buffer| {
                let count = buffer.bytes.len() / PAGE_SIZE;
                Ok((reserve::vec(count, "a window")?, count, buffer))
            });
            let Ok((mut pages, count, mut buffer)) = piece else {
                // Reading page by page needs no memory. After an unreadable page, the others are left until they are needed.
                for page in &mut locks {
                    if read_page(self, &page, first).is_err() {
                        break;
                    }
                    first += 1;
                }
                return;
            };
            pages.extend(locks.by_ref().take(count));
            if read_run(self, &pages, first, &mut buffer.bytes).is_err() {
                // Unlock the last page first: a thread waiting for one then finds those after it unlocked, and can request them
                // together (`again`).
                drop(locks);
                while pages.pop().is_some() {}
                return;
            }
            first += count as u64;
        }
    }

    fn cancel(&self, pfns: Vec<u32>) {
        drop(Locks { frames: self.frames(), pfns: pfns.into_iter() });
    }
}

/// The locks of a run's pages; those not taken out are unlocked on drop.
struct Locks<'f> {
    frames: &'f Frames,
    pfns: std::vec::IntoIter<u32>,
}

impl<'f> Iterator for Locks<'f> {
    type Item = LockedPage<'f>;

    fn next(&mut self) -> Option<LockedPage<'f>> {
        self.pfns.next().map(|pfn| self.frames.page(pfn).adopt_lock())
    }
}

impl Drop for Locks<'_> {
    fn drop(&mut self) {
        while let Some(pfn) = self.pfns.next_back() {
            drop(self.frames.page(pfn).adopt_lock());
        }
    }
}

/// Whether a locked page still has to be read.
pub(super) fn is_unread(lock: &LockedPage<'_>) -> bool {
    guard!("read_page.not_uptodate", !lock.page().flags().has(PageFlags::UPTODATE))
}

/// Reads one locked page, unless another thread did so while the caller waited for the lock: bytes that are up to date are not
/// written again, because they may be being copied.
pub(super) fn read_page(mapping: &AddressSpace, page: &LockedPage<'_>, index: u64) -> Result<(), IoError> {
    operation!("read");
    if !is_unread(page) {
        return Ok(());
    }
    read_run(mapping, std::slice::from_ref(page), index, &mut [0; PAGE_SIZE])
}

/// Fills a run of locked pages, or a piece of one, from the store: all of them or none. The store writes into `buffer`, zeroed,
/// of that size and private to this thread, because page bytes are only accessed as atomics.
fn read_run(
    mapping: &AddressSpace,
    pages: &[LockedPage<'_>],
    first: u64,
    buffer: &mut [u8],
) -> Result<(), IoError> {
    let version = mapping.version.expected();
    let (short, now);
    in_order!(
        "fill.looks_last",
        short = read_store(mapping, pages.len(), first, buffer)?,
        now = version.map(|_| mapping.store.look())
    );
    // A file that others empty and write again has the size it had: that a read came between is no error, but a change.
    seeded!(
        "fill.short_at_once",
        bug = if let Some(short) = &short {
            return Err(short.clone());
        }
    );
    if let Some((version, now)) = version.zip(now) {
        let now = now.and_then(|now| now.past_an_append(&version, || mapping.store.look()));
        let now = now.map_err(|error| IoError::new(error, &mapping.name))?;
        if !guard!("fill.one_version", mapping.version.vouches(&version, &now)) {
            return Err(IoError::changed(&mapping.name));
        }
    }
    if let Some(short) = short {
        return Err(short);
    }
    for (page, bytes) in pages.iter().zip(buffer.chunks_exact(PAGE_SIZE)) {
        in_order!("fill.bytes_first", page.page().bytes().write(0, bytes), page.set_uptodate());
    }
    Ok(())
}

/// Reads what the file has of a run into a zeroed buffer; returns the error that it is if that is less than the file should have.
fn read_store(
    mapping: &AddressSpace,
    pages: usize,
    first: u64,
    buffer: &mut [u8],
) -> Result<Option<IoError>, IoError> {
    let offset = first * PAGE_SIZE as u64;
    let room = buffer.len();
    let (size, expected, read) = loop {
        let size = mapping.i_size();
        let expected = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(room);
        let started = Instant::now();
        let read = if expected == 0 { Ok(0) } else { mapping.store.read_at(&mut buffer[..expected], offset) };
        let nanoseconds = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        mapping.shared.count(Stat::Reads, 1);
        mapping.shared.count(Stat::IoNanoseconds, nanoseconds);
        // Truncation waits for the locks of the pages that it removes, not for that of the page it cuts in two. It sets the size
        // before it changes the store: a read that is short for the old size may be complete for the new one.
        let is_short = matches!(read, Ok(n) if n < expected);
        if is_short && seeded!("fill.short_again", mapping.i_size() != size, bug = false) {
            duty!("fill.wipe", buffer.fill(0));
            continue;
        }
        break (size, expected, read);
    };
    mapping.again.note(pages, !matches!(read, Ok(n) if n == expected));
    match read {
        Ok(n) if n == expected => {
            mapping.shared.count(Stat::ReadBytes, n as u64);
            Ok(None)
        }
        Ok(got) => {
            mapping.shared.count(Stat::ReadErrors, 1);
            let short = ShortRead { got, expected, offset, size };
            Ok(Some(IoError::new(io::Error::new(io::ErrorKind::UnexpectedEof, short), &mapping.name)))
        }
        Err(error) => {
            mapping.shared.count(Stat::ReadErrors, 1);
            Err(IoError::new(error, &mapping.name))
        }
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::read_page;
    use crate::cache::address_space::Created;
    use crate::page::PageFlags;
    use crate::store::{Fault, FaultyStore, MemoryStore, Plan, Store};
    use crate::sync::Mutex;
    use crate::{Advice, Error, File, Io, PAGE_SIZE, PageCache, StoreOptions};
    use std::io;
    use std::sync::Arc;
    use std::time::Duration;

    const PAGE: u64 = PAGE_SIZE as u64;

    fn bytes(size: u64) -> Vec<u8> {
        (0..size).map(|at| (at % 251) as u8).collect()
    }

    fn open(store: Arc<dyn Store>, size: u64, ra_pages: u32) -> (PageCache, File) {
        let cache = PageCache::new(16 << 20, Io::Inline).unwrap();
        let options = StoreOptions::default().ra_pages(ra_pages);
        let file = cache.open_store_with(store, size, options).unwrap();
        (cache, file)
    }

    fn faulty(size: u64, read: u64, fault: Fault) -> Arc<FaultyStore> {
        let inner = Arc::new(MemoryStore::new(bytes(size)));
        Arc::new(FaultyStore::new(inner, Plan { read, fault, for_ever: false }))
    }

    #[test]
    fn reads_and_their_bytes_are_counted() {
        let size = 2 * PAGE + 100;
        let (cache, file) = open(Arc::new(MemoryStore::new(bytes(size))), size, 0);
        let counts = |cache: &PageCache| {
            let stats = cache.stats();
            (stats.reads, stats.read_bytes, stats.read_errors)
        };
        let mut buf = vec![0; 3 * PAGE_SIZE];
        for (offset, expected) in [(0, (1, PAGE, 0)), (2 * PAGE, (2, PAGE + 100, 0)), (PAGE, (3, size, 0))] {
            file.pread(&mut buf[..1], offset).unwrap();
            assert_eq!(counts(&cache), expected);
        }
        for size in [1, PAGE + 1] {
            let (cache, file) = open(Arc::new(MemoryStore::new(bytes(size))), size, 0);
            assert_eq!(file.pread(&mut buf[..9], size - 1).unwrap(), 1);
            assert_eq!(counts(&cache), (1, 1, 0));
        }
        // A window is one read, and the end of its last page is zeros, as growth shows.
        let (cache, file) = open(Arc::new(MemoryStore::new(bytes(size))), size, 8);
        file.pread(&mut buf, 0).unwrap();
        assert_eq!(counts(&cache), (1, size, 0));
        file.truncate(3 * PAGE).unwrap();
        assert_eq!(file.pread(&mut buf, 0).unwrap(), buf.len());
        assert_eq!(counts(&cache), (1, size, 0));
        assert!(buf[..size as usize] == bytes(size) && buf[size as usize..].iter().all(|&byte| byte == 0));
        for fault in [Fault::Error(5), Fault::Short(9)] {
            let (cache, file) = open(faulty(size, 2, fault), size, 0);
            for (read, expected) in [
                (true, (1, PAGE, 0)),
                (false, (2, PAGE, 1)),
                (true, (3, 2 * PAGE, 1)),
                (true, (3, 2 * PAGE, 1)),
            ] {
                let offset = if expected.0 == 1 { 0 } else { PAGE };
                assert_eq!(file.pread(&mut buf[..8], offset).is_ok(), read);
                assert_eq!(counts(&cache), expected);
            }
            cache.check().unwrap();
        }
        let store = faulty(size, 1, Fault::Error(5));
        let (_cache, file) = open(Arc::clone(&store) as Arc<dyn Store>, size, 0);
        let pin = file.pin(PAGE, 1);
        assert!(matches!(&pin, Err(Error::Bus { cause: Some(cause), .. }) if cause.errno() == 5), "{pin:?}");
        assert_eq!(store.reads(), 1);
        let (cache, file) = open(faulty(size, 1, Fault::Slow(Duration::from_millis(8))), size, 0);
        file.pread(&mut buf[..8], 0).unwrap();
        assert!(cache.stats().io_seconds >= 0.008);
        file.pread(&mut buf[..8], 0).unwrap();
        assert_eq!(cache.stats().reads, 1);
    }

    #[test]
    fn a_long_window_is_read_in_pieces_up_to_the_first_that_fails() {
        let pages = 700;
        for fails_at in [1, 2, 3, 9] {
            let (cache, file) = open(faulty(pages * PAGE, fails_at, Fault::Error(5)), pages * PAGE, 1000);
            file.advise(Advice::WillNeed, 0, None).unwrap();
            let resident = file.residency(0, None).unwrap();
            let expected = (256 * (fails_at - 1)).min(pages) as usize;
            assert!(resident[..expected].iter().all(|&byte| byte == 1), "{fails_at}");
            assert!(resident[expected..].iter().all(|&byte| byte == 0), "{fails_at}");
            assert_eq!((cache.stats().reads, cache.stats().readahead_pages), (fails_at.min(3), pages));
            assert_eq!(cache.stats().bytes_in_flight, 0);
            let mut buf = vec![0; (pages * PAGE) as usize];
            assert_eq!(file.pread(&mut buf, 0).unwrap(), buf.len());
            assert!(buf == bytes(pages * PAGE));
            cache.check().unwrap();
        }
    }

    #[test]
    fn a_page_past_the_end_is_zeros_of_which_no_store_is_asked() {
        let store = faulty(PAGE, 1, Fault::Error(5));
        let (cache, file) = open(Arc::clone(&store) as Arc<dyn Store>, PAGE, 0);
        let open = file.open_file().unwrap();
        let Created::New(held) = open.mapping.add_page(7) else { panic!("it is there") };
        read_page(&open.mapping, &held.lock, 7).unwrap();
        assert!(held.lock.page().flags().has(PageFlags::UPTODATE));
        // One that is up to date is not read again.
        read_page(&open.mapping, &held.lock, 0).unwrap();
        assert_eq!((store.reads(), cache.stats().read_errors), (0, 0));
        drop(held);
        file.truncate(0).unwrap();
        cache.check().unwrap();
    }

    /// A store whose size the file changes while it is read for the first time: to so many bytes after the offset.
    struct Cut {
        inner: MemoryStore,
        to: u64,
        /// Until the first read.
        file: Mutex<Option<File>>,
    }

    impl Store for Cut {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            let file = self.file.lock().take();
            if let Some(file) = file {
                let (other, to) = (file.clone(), offset + self.to);
                std::thread::spawn(move || other.truncate(to).unwrap());
                while self.inner.size()? != Some(to) || file.size().unwrap() != to {
                    std::thread::yield_now();
                }
            }
            self.inner.read_at(buf, offset)
        }

        fn truncate(&self, size: u64) -> io::Result<()> {
            self.inner.truncate(size)
        }
    }

    #[test]
    fn a_read_that_a_truncation_cuts_short_is_made_again() {
        for (to, got, reads) in [(100, 100, 2), (8 * PAGE, PAGE_SIZE, 1)] {
            let inner = MemoryStore::new(bytes(4 * PAGE));
            let store = Arc::new(Cut { inner, to, file: Mutex::new(None) });
            let (cache, file) = open(Arc::clone(&store) as Arc<dyn Store>, 4 * PAGE, 0);
            *store.file.lock() = Some(file.clone());
            let mut buf = [9; PAGE_SIZE];
            assert_eq!(file.pread(&mut buf, PAGE).unwrap(), got);
            assert_eq!(buf[..got], bytes(PAGE + got as u64)[PAGE_SIZE..]);
            let stats = cache.stats();
            assert_eq!((stats.reads, stats.read_bytes, stats.read_errors), (reads, got as u64, 0));
            assert_eq!(stats.retries, reads - 1, "the first copy found the file shorter");
        }
    }
}
