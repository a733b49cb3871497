//! The page-cache half of a classic fault: `filemap_fault`.
//!
//! Owns: one pass, from the look-up to the locked page, and the wait between two passes. Does not own page tables, nor the
//! speculative form (`speculation`). Mirrors `filemap_fault` of Linux 5.12.
//!
//! It never waits while the caller holds a lock that it may drop: it returns `Step::Blocked`; the caller drops its lock, waits in
//! [`unblock`], and tries again with [`Pass::Tried`].

use super::address_space::{AddressSpace, HeldPage};
use super::arrival::bring;
use super::coherence;
use super::creation::{FoundOrCreated, find_or_create, find_or_create_waiting};
use super::fill::read_page;
use super::open_file::{MMAP_LOTSAMISS, OpenFile};
use super::readahead::{page_cache_async_ra, page_cache_sync_ra, read_around};
use super::wait::NotRead;
use crate::error::{Error, IoError};
use crate::page::{PageFlags, PageHandle};
use crate::sync::{guard, operation};
use std::sync::Arc;

pub use super::advice::Pattern;

/// Whether the caller may still drop its lock to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The first pass: it never waits under the caller's lock.
    First,
    /// A later pass, after `Step::Blocked` (`FAULT_FLAG_TRIED`): it waits in place.
    Tried,
}

/// The outcome of a classic pass.
#[derive(Debug)]
pub(crate) enum Step<'f> {
    /// The page, locked, up to date and within the file.
    Locked(HeldPage<'f>),
    /// The file ends before the page, at this size.
    Beyond(u64),
    /// The page cannot be read.
    Unreadable(IoError),
    /// No memory for the file's index.
    NoMemory(Error),
    /// The caller must wait for something first.
    Blocked(Blocked),
}

/// What a pass must wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Blocked {
    /// Reading the window that a marker announces, then the page.
    AsyncReadahead,
    /// Sequential readahead or reading the window around the fault, then the page.
    SyncReadahead(Around),
    /// The page's lock or its bytes.
    Page,
}

/// The readahead that a miss asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Around {
    Sequential,
    Window,
}

/// The result of a classic pass.
#[derive(Debug)]
pub(crate) struct Answer<'f> {
    pub(crate) step: Step<'f>,
    /// The page was absent (`PGMAJFAULT`).
    pub(crate) missed: bool,
}

/// One pass of the classic `filemap_fault`.
pub(crate) fn filemap_fault(open: &Arc<OpenFile>, index: u64, pattern: Pattern, pass: Pass) -> Answer<'_> {
    operation!("classic fault");
    let mapping = &open.mapping;
    let answer = |step, missed| Answer { step, missed };
    if let Some(size) = mapping.ends_before(index) {
        return answer(Step::Beyond(size), false);
    }
    let mut missed = false;
    let found = mapping.find_get_page(index, &crate::rcu::read());
    match found {
        Some(handle) if pass == Pass::First && announces_window(open, &handle, pattern) => {
            return answer(Step::Blocked(Blocked::AsyncReadahead), false);
        }
        Some(_) => {}
        None => {
            missed = true;
            match (sync_mmap_readahead(open, pattern, pass), pass) {
                (Some(around), Pass::First) => {
                    return answer(Step::Blocked(Blocked::SyncReadahead(around)), true);
                }
                (Some(around), Pass::Tried) => read_sync(open, index, around),
                (None, _) => {}
            }
        }
    }
    let step = match pass {
        // A wait for a store that may stall can be given up only while the caller holds no lock.
        Pass::Tried if !mapping.read_by.may_stall() => hold_waiting(open, index, found),
        Pass::First | Pass::Tried => hold_without_waiting(open, index, found),
    };
    answer(step, missed)
}

fn announces_window(open: &OpenFile, handle: &PageHandle<'_>, pattern: Pattern) -> bool {
    pattern != Pattern::Random && open.ra_pages() != 0 && handle.page().flags().has(PageFlags::READAHEAD)
}

/// Decides on readahead for a miss and debits the miss (`do_sync_mmap_readahead`).
fn sync_mmap_readahead(open: &OpenFile, pattern: Pattern, pass: Pass) -> Option<Around> {
    if pattern == Pattern::Random || open.ra_pages() == 0 {
        return None;
    }
    if pattern == Pattern::Sequential {
        return Some(Around::Sequential);
    }
    // One debit per fault: a later pass has already paid.
    let misses = match pass {
        Pass::First => open.debit_mmap_miss(),
        Pass::Tried => open.misses(),
    };
    (misses <= MMAP_LOTSAMISS).then_some(Around::Window)
}

fn read_sync(open: &Arc<OpenFile>, index: u64, around: Around) {
    match around {
        Around::Sequential => drop(page_cache_sync_ra(open, index, open.ra_pages())),
        Around::Window => read_around(open, index),
    }
}

/// First pass: the page, if that is possible without waiting; `found` is the result of the look-up.
pub(super) fn hold_without_waiting<'f>(
    open: &'f OpenFile,
    index: u64,
    mut found: Option<PageHandle<'f>>,
) -> Step<'f> {
    operation!("classic fault");
    let mapping = &open.mapping;
    loop {
        let handle = match take_or_create(mapping, index, found.take()) {
            Ok(handle) => handle,
            Err(step) => return step,
        };
        let Some(lock) = handle.page().try_lock() else { return Step::Blocked(Blocked::Page) };
        let held = HeldPage { lock, handle };
        if !mapping.is_mine(&held, index) {
            continue;
        }
        if !guard!("filemap.classic.uptodate", held.handle.page().flags().has(PageFlags::UPTODATE)) {
            return Step::Blocked(Blocked::Page);
        }
        return within_file(open, held, index);
    }
}

/// Later passes: waits here for the page and its bytes; `found` is the result of the look-up.
pub(super) fn hold_waiting<'f>(
    open: &'f OpenFile,
    index: u64,
    mut found: Option<PageHandle<'f>>,
) -> Step<'f> {
    operation!("classic fault");
    let mapping = &open.mapping;
    loop {
        let handle = match take_or_create(mapping, index, found.take()) {
            Ok(handle) => handle,
            Err(step) => return step,
        };
        let held = HeldPage { lock: handle.page().lock(), handle };
        if !mapping.is_mine(&held, index) {
            continue;
        }
        if let Err(error) = read_page(mapping, &held.lock, index) {
            return Step::Unreadable(error);
        }
        return within_file(open, held, index);
    }
}

/// The page that the look-up found, or a new one; otherwise how the pass ends.
fn take_or_create<'f>(
    mapping: &'f AddressSpace,
    index: u64,
    found: Option<PageHandle<'f>>,
) -> Result<PageHandle<'f>, Step<'f>> {
    match found.map_or_else(|| find_or_create(mapping, index), FoundOrCreated::Page) {
        FoundOrCreated::Page(handle) => Ok(handle),
        FoundOrCreated::Beyond(size) => Err(Step::Beyond(size)),
        FoundOrCreated::NoMemory(error) => Err(Step::NoMemory(error)),
        // A frame, or the end of a truncation, is waited for once the caller has dropped its lock.
        FoundOrCreated::NoFrame | FoundOrCreated::Unstable => Err(Step::Blocked(Blocked::Page)),
    }
}

/// Checks the size again under the page lock: truncation changes the size before it takes page locks.
fn within_file<'f>(open: &OpenFile, held: HeldPage<'f>, index: u64) -> Step<'f> {
    let end = open.mapping.ends_before(index);
    if guard!("filemap.classic.eof", end.is_none()) {
        Step::Locked(held)
    } else {
        Step::Beyond(end.unwrap_or_default())
    }
}

/// Waits for what blocked a pass; the caller has dropped its lock. False if there was no frame.
///
/// Errors of the store are left to the next pass, which reads again. If that pass must not wait, because the store may stall, the
/// `unblock` after it reports them.
pub(crate) fn unblock(
    open: &Arc<OpenFile>,
    index: u64,
    blocked: Blocked,
    pass: Pass,
) -> Result<bool, NotRead> {
    // If the store cannot be examined, reading it fails too, and the next pass gets the error.
    let _met_again = coherence::follow_changes(&open.mapping);
    match blocked {
        Blocked::AsyncReadahead => {
            let found = open.mapping.find_get_page(index, &crate::rcu::read());
            if let Some(handle) = found {
                page_cache_async_ra(open, handle.page(), index, open.ra_pages());
            }
        }
        Blocked::SyncReadahead(around) => read_sync(open, index, around),
        Blocked::Page => {}
    }
    match find_or_create_waiting(&open.mapping, index, None).map_err(NotRead::Left)? {
        FoundOrCreated::Page(handle) => match bring(&open.mapping, handle.page(), index, None) {
            Err(NotRead::Failed(_)) if pass == Pass::First => Ok(true),
            Err(error) => Err(error),
            // A page that was truncated meanwhile need not be read.
            Ok(_) => {
                let _met_again = coherence::catch_up(&open.mapping);
                Ok(true)
            }
        },
        FoundOrCreated::Beyond(_) | FoundOrCreated::NoMemory(_) => Ok(true),
        FoundOrCreated::NoFrame | FoundOrCreated::Unstable => Ok(false),
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::cache::options::OpenMode;
    use crate::cache::patience::tests::{Gate, cached};
    use crate::store::{Fault, FaultyStore, MemoryStore, Plan, Store};
    use crate::{CacheOptions, File, Io, PAGE_SIZE, PageCache, StoreOptions, VmFault};
    use std::time::Duration;

    const PAGES: usize = 40;

    fn open(ra_pages: u32, frames: u64, fails_at: u64) -> (PageCache, File, Arc<OpenFile>) {
        let options = CacheOptions::default().io(Io::Inline).frame_timeout(Duration::ZERO);
        let cache = PageCache::with_options(frames * PAGE_SIZE as u64, options).unwrap();
        let bytes = Arc::new(MemoryStore::new(vec![7; PAGES * PAGE_SIZE]));
        let store = FaultyStore::new(bytes, Plan { read: fails_at, fault: Fault::Error(5), for_ever: true });
        let options = StoreOptions::default().ra_pages(ra_pages);
        let file = cache.open_store_with(Arc::new(store), (PAGES * PAGE_SIZE) as u64, options).unwrap();
        let open = file.open_file().unwrap();
        (cache, file, open)
    }

    /// How a pass ends, and whether the page was absent.
    fn pass(open: &Arc<OpenFile>, index: u64, pattern: Pattern, pass: Pass) -> (String, bool) {
        let Answer { step, missed } = filemap_fault(open, index, pattern, pass);
        let step = match step {
            Step::Locked(held) => format!("locked {}", held.lock.page().index()),
            step => format!("{step:?}"),
        };
        (step, missed)
    }

    fn answer(step: &str, missed: bool) -> (String, bool) {
        (step.into(), missed)
    }

    fn resident(file: &File) -> Vec<u64> {
        let pages = file.residency(0, None).unwrap();
        (0..).zip(pages).filter(|&(_, byte)| byte == 1).map(|(index, _)| index).collect()
    }

    const WINDOW: Blocked = Blocked::SyncReadahead(Around::Window);
    const SEQUENTIAL: Blocked = Blocked::SyncReadahead(Around::Sequential);

    #[test]
    fn a_first_pass_reads_nothing_and_says_what_to_read() {
        for (pattern, ra_pages, blocked, misses, pages) in [
            (Pattern::Normal, 8, WINDOW, 1, 6..14),
            (Pattern::Sequential, 8, SEQUENTIAL, 0, 10..18),
            (Pattern::Random, 8, Blocked::Page, 0, 10..11),
            (Pattern::Normal, 0, Blocked::Page, 0, 10..11),
            (Pattern::Sequential, 0, Blocked::Page, 0, 10..11),
        ] {
            let (cache, file, open) = open(ra_pages, 256, u64::MAX);
            let told = answer(&format!("{:?}", Step::Blocked(blocked)), true);
            assert_eq!(pass(&open, 10, pattern, Pass::First), told, "{pattern:?} {ra_pages}");
            assert_eq!((open.misses(), cache.stats().reads), (misses, 0));
            assert!(unblock(&open, 10, blocked, Pass::First).unwrap());
            assert_eq!(cache.stats().reads, 1);
            assert_eq!(resident(&file), pages.collect::<Vec<_>>(), "{pattern:?} {ra_pages}");
            for again in [Pass::First, Pass::Tried] {
                assert_eq!(pass(&open, 10, pattern, again), answer("locked 10", false));
            }
            assert_eq!((open.misses(), cache.stats().reads), (misses, 1));
            cache.check().unwrap();
        }
    }

    #[test]
    fn a_later_pass_reads_itself_and_pays_nothing() {
        for (pattern, ra_pages, pages) in [
            (Pattern::Normal, 8, 6..14),
            (Pattern::Sequential, 8, 10..18),
            (Pattern::Random, 8, 10..11),
            (Pattern::Normal, 0, 10..11),
        ] {
            let (cache, file, open) = open(ra_pages, 256, u64::MAX);
            assert_eq!(pass(&open, 10, pattern, Pass::Tried), answer("locked 10", true));
            assert_eq!(resident(&file), pages.collect::<Vec<_>>(), "{pattern:?} {ra_pages}");
            assert_eq!((open.misses(), cache.stats().reads), (0, 1));
            cache.check().unwrap();
        }
    }

    #[test]
    fn after_many_misses_no_window_is_read() {
        let (_cache, file, open) = open(8, 256, u64::MAX);
        for _ in 0..MMAP_LOTSAMISS - 1 {
            open.debit_mmap_miss();
        }
        let blocked = |blocked| answer(&format!("{:?}", Step::Blocked(blocked)), true);
        assert_eq!(pass(&open, 10, Pattern::Normal, Pass::First), blocked(WINDOW));
        assert_eq!(open.misses(), MMAP_LOTSAMISS);
        assert_eq!(pass(&open, 10, Pattern::Normal, Pass::Tried), answer("locked 10", true));
        assert_eq!(resident(&file).len(), 8, "a later pass is the same fault");
        assert_eq!(pass(&open, 30, Pattern::Normal, Pass::First), blocked(Blocked::Page));
        assert_eq!(pass(&open, 30, Pattern::Normal, Pass::Tried), answer("locked 30", false));
        assert_eq!(pass(&open, 38, Pattern::Normal, Pass::Tried), answer("locked 38", true));
        assert_eq!((resident(&file).len(), open.misses()), (10, MMAP_LOTSAMISS + 1));
    }

    #[test]
    fn a_marker_stops_the_first_pass_of_those_who_read_ahead() {
        let (cache, file, open) = open(8, 256, u64::MAX);
        read_around(&open, 10);
        let (marked, step) = (12, format!("{:?}", Step::Blocked(Blocked::AsyncReadahead)));
        let without = OpenFile::new(Arc::clone(&open.mapping), Arc::clone(open.store()), OpenMode::Read, 0);
        for (open, pattern, first) in [
            (&open, Pattern::Normal, &*step),
            (&open, Pattern::Sequential, &step),
            (&open, Pattern::Random, "locked 12"),
            (&Arc::new(without), Pattern::Normal, "locked 12"),
        ] {
            assert_eq!(pass(open, marked, pattern, Pass::First), answer(first, false));
            assert_eq!(pass(open, marked, pattern, Pass::Tried), answer("locked 12", false));
            assert_eq!(pass(open, marked - 1, pattern, Pass::First), answer("locked 11", false));
        }
        assert_eq!((resident(&file), open.misses()), ((6..14).collect(), 0));
        assert!(unblock(&open, marked, Blocked::AsyncReadahead, Pass::First).unwrap());
        assert!(resident(&file).len() > 8, "the next window was read");
        assert_eq!(pass(&open, marked, Pattern::Normal, Pass::First), answer("locked 12", false));
        cache.check().unwrap();
    }

    #[test]
    fn a_page_past_the_end_or_locked_is_not_waited_for() {
        let (cache, _file, open) = open(8, 256, u64::MAX);
        for index in [PAGES as u64, u64::MAX >> 12] {
            for again in [Pass::First, Pass::Tried] {
                let (step, missed) = pass(&open, index, Pattern::Normal, again);
                assert_eq!((&*step, missed), (&*format!("Beyond({})", PAGES * PAGE_SIZE), false));
            }
            assert!(unblock(&open, index, Blocked::Page, Pass::Tried).unwrap());
        }
        let last = PAGES as u64 - 1;
        assert_eq!(pass(&open, last, Pattern::Normal, Pass::Tried), answer("locked 39", true));
        let handle = open.mapping.find_get_page(last, &crate::rcu::read()).unwrap();
        let lock = handle.page().try_lock().unwrap();
        let told = answer(&format!("{:?}", Step::Blocked(Blocked::Page)), false);
        assert_eq!(pass(&open, last, Pattern::Normal, Pass::First), told);
        drop(lock);
        assert_eq!(pass(&open, last, Pattern::Normal, Pass::First), answer("locked 39", false));
        drop(handle);
        cache.check().unwrap();
    }

    #[test]
    fn a_store_that_may_stall_is_read_by_no_pass() {
        let gate = Gate::new(None, 1);
        gate.open();
        let (cache, file) = cached(&gate, 0);
        let open = file.open_file().unwrap();
        for absent in [true, false] {
            let told = answer(&format!("{:?}", Step::Blocked(Blocked::Page)), absent);
            assert_eq!(pass(&open, 3, Pattern::Random, Pass::Tried), told);
        }
        assert_eq!(cache.stats().reads, 0);
        assert!(unblock(&open, 3, Blocked::Page, Pass::Tried).unwrap());
        assert_eq!(pass(&open, 3, Pattern::Random, Pass::Tried), answer("locked 3", false));
        assert_eq!(cache.stats().reads, 1);
        cache.check().unwrap();
    }

    #[test]
    fn errors_are_left_to_the_pass_that_reads_again() {
        for ra_pages in [0, 8] {
            let (cache, file, open) = open(ra_pages, 256, 1);
            let (step, missed) = pass(&open, 3, Pattern::Normal, Pass::Tried);
            assert!(missed && step.starts_with("Unreadable"), "{step}");
            assert!(unblock(&open, 3, Blocked::Page, Pass::First).unwrap());
            assert!(
                matches!(unblock(&open, 3, Blocked::Page, Pass::Tried), Err(NotRead::Failed(error)) if error.errno() == 5)
            );
            let (step, missed) = pass(&open, 3, Pattern::Normal, Pass::First);
            assert_eq!((&*step, missed), (&*format!("{:?}", Step::Blocked(Blocked::Page)), false));
            let fault = file.filemap_fault(3, false).unwrap();
            assert_eq!((fault.result, fault.abort), (VmFault::SIGBUS, None));
            cache.check().unwrap();
        }
    }

    #[test]
    fn without_a_frame_a_fault_says_so() {
        let (cache, file, open) = open(8, 1, u64::MAX);
        let other = cache.open_store(Arc::new(MemoryStore::new(vec![1; 9])) as Arc<dyn Store>, 9).unwrap();
        let pin = other.pin(0, 9).unwrap();
        assert_eq!(pass(&open, 3, Pattern::Random, Pass::Tried), answer("Blocked(Page)", true));
        assert!(!unblock(&open, 3, Blocked::Page, Pass::First).unwrap());
        assert_eq!(file.filemap_fault(3, false).unwrap().result, VmFault::OOM | VmFault::MAJOR);
        drop(pin);
        assert!(unblock(&open, 3, Blocked::Page, Pass::First).unwrap());
        assert_eq!(file.filemap_fault(3, false).unwrap().result, VmFault::LOCKED);
        cache.check().unwrap();
    }
}
