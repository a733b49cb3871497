//! One open of a file: `struct file`.
//!
//! Owns: its mode, readahead window, advice, miss counter and pins. Two opens of one file share an [`AddressSpace`] and nothing
//! else. Does not own the public handle, which can be closed while others use it (`file`).
//!
//! A mutex guards the window; everything else is single words, Relaxed: advice and positions steer readahead and guard nothing.

use super::address_space::{AddressSpace, index_of};
use super::advice::{Advice, Pattern};
use super::options::OpenMode;
use super::patience::Closed;
use super::window::Window;
use crate::store::Store;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, guard};
use std::sync::Arc;

/// Number of misses above which faults on a file count as random (`MMAP_LOTSAMISS`).
pub const MMAP_LOTSAMISS: u32 = 100;
/// Maximum of the miss counter.
pub const MMAP_MISS_MAX: u32 = 10 * MMAP_LOTSAMISS;

/// One open of a file, which its mappings keep alive after its handle is closed.
pub(crate) struct OpenFile {
    pub(crate) mapping: Arc<AddressSpace>,
    /// This open's own store: the mode may differ from the one that the shared pages are read through.
    store: Arc<dyn Store>,
    pub(super) mode: OpenMode,
    pub(super) base_ra_pages: u32,
    ra_pages: AtomicU32,
    advice: AtomicU32,
    pub(super) window: Mutex<Window>,
    /// Position of the byte after the last one read, not counting hits; `u64::MAX` at first.
    prev_pos: AtomicU64,
    pub(super) mmap_miss: AtomicU32,
    /// Closed by its handle; mappings are unaffected.
    pub(super) closed: Closed,
    /// Pins made through this open.
    pub(super) pins: Pins,
}

impl OpenFile {
    pub(super) fn new(
        mapping: Arc<AddressSpace>,
        store: Arc<dyn Store>,
        mode: OpenMode,
        ra_pages: u32,
    ) -> Self {
        Self {
            mapping,
            store,
            mode,
            base_ra_pages: ra_pages,
            ra_pages: AtomicU32::new(ra_pages),
            advice: AtomicU32::new(Advice::Normal as u32),
            window: Mutex::new(Window::default()),
            prev_pos: AtomicU64::new(u64::MAX),
            mmap_miss: AtomicU32::new(0),
            closed: Closed::new(),
            pins: Pins::new(),
        }
    }

    /// A copy of this open, over other pages and another store.
    pub(super) fn again(&self, mapping: Arc<AddressSpace>, store: Arc<dyn Store>) -> Self {
        let open = Self::new(mapping, store, self.mode, self.base_ra_pages);
        // Relaxed: no other thread has it yet.
        open.ra_pages.store(self.ra_pages.load(Ordering::Relaxed), Ordering::Relaxed);
        open.advice.store(self.advice.load(Ordering::Relaxed), Ordering::Relaxed);
        open
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The maximum window: as configured, but at most a quarter of the cache.
    pub(super) fn ra_pages(&self) -> u64 {
        u64::from(self.ra_pages.load(Ordering::Relaxed)).min(self.mapping.frames().capacity() as u64 / 4)
    }

    pub(super) fn advice(&self) -> Advice {
        match self.advice.load(Ordering::Relaxed) {
            n if n == Advice::Random as u32 => Advice::Random,
            n if n == Advice::Sequential as u32 => Advice::Sequential,
            _ => Advice::Normal,
        }
    }

    /// The page that contains the byte after the last one read; -1 as an unsigned number before the first read.
    pub(super) fn prev_index(&self) -> u64 {
        let position = self.prev_pos.load(Ordering::Relaxed);
        if position == u64::MAX { u64::MAX } else { index_of(position) }
    }

    pub(super) fn set_prev_pos(&self, position: u64) {
        self.prev_pos.store(position, Ordering::Relaxed);
    }

    /// The maximum window, the current window, the miss counter and the position, in the public form.
    pub(super) fn readahead_state(&self) -> ReadaheadState {
        let window = *self.window.lock();
        let prev_pos = self.prev_pos.load(Ordering::Relaxed);
        ReadaheadState {
            start: window.start,
            size: window.size,
            async_size: window.async_size,
            ra_pages: self.ra_pages() as u32,
            mmap_miss: self.misses(),
            prev_pos: i64::try_from(prev_pos).unwrap_or(-1),
        }
    }

    /// Sets the advice, and with it the maximum window.
    pub(super) fn set_advice(&self, advice: Advice) {
        match advice {
            Advice::Sequential => self.ra_pages.store(self.base_ra_pages * 2, Ordering::Relaxed),
            Advice::Normal => self.ra_pages.store(self.base_ra_pages, Ordering::Relaxed),
            _ => {}
        }
        self.advice.store(advice as u32, Ordering::Relaxed);
    }

    /// Faults that missed, minus those that hit.
    pub(super) fn misses(&self) -> u32 {
        self.mmap_miss.load(Ordering::Relaxed)
    }

    /// Adds a miss, unless saturated, and returns the new value. One compare-and-exchange, which knows whether it succeeded.
    pub(super) fn debit_mmap_miss(&self) -> u32 {
        let mut misses = self.mmap_miss.load_then_write(Ordering::Relaxed);
        while misses < MMAP_MISS_MAX {
            match self.mmap_miss.compare_exchange(misses, misses + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return misses + 1,
                Err(found) => misses = found,
            }
        }
        misses
    }

    /// Credits `entries` hits, after they were published. A counter of zero is not written.
    #[inline]
    pub(crate) fn credit_mmap_miss(&self, entries: u32, pattern: Pattern) {
        if pattern == Pattern::Random || self.ra_pages() == 0 {
            return;
        }
        let mut misses = self.mmap_miss.load_then_write(Ordering::Relaxed);
        while misses > 0 {
            let left = misses.saturating_sub(entries);
            match self.mmap_miss.compare_exchange(misses, left, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(found) => misses = found,
            }
        }
    }
}

/// How many pins were made through one open and have not ended. One word, so that each pin either is seen by the close of the
/// handle, which then fails, or sees that close.
#[derive(Debug)]
pub(super) struct Pins(AtomicU64);

/// Beyond any number of pins: the handle is closed.
const CLOSED: u64 = 1 << 63;

impl Pins {
    fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts one; false if the handle is closed: then the caller ends it at once.
    #[must_use]
    pub(super) fn begin(&self) -> bool {
        // Relaxed, here and below: which came first is a matter of this word alone, and it guards no other.
        guard!("pin.open", self.0.fetch_add(1, Ordering::Relaxed) & CLOSED == 0)
    }

    /// Uncounts one.
    pub(super) fn end(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Lets no more begin, unless there are some: their number.
    pub(super) fn close(&self) -> Result<(), u64> {
        match self.0.compare_exchange(0, CLOSED, Ordering::Relaxed, Ordering::Relaxed) {
            Err(pins) if guard!("close.pins", pins & CLOSED != 0) => Ok(()),
            Err(pins) => Err(pins),
            Ok(_) => Ok(()),
        }
    }

    /// How many there are.
    #[cfg(all(test, specmm_loom))]
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed) & !CLOSED
    }
}

/// The readahead state of one open file (`struct file_ra_state`); sizes in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadaheadState {
    /// First page of the current window.
    pub start: u64,
    /// Pages in the window.
    pub size: u64,
    /// Pages at the end of the window that are read ahead of need.
    pub async_size: u64,
    /// The maximum window: as configured, but at most a quarter of the cache.
    pub ra_pages: u32,
    /// Faults that missed, minus those that hit; 0 to 1000.
    pub mmap_miss: u32,
    /// Position of the byte after the last one read, by reads that were not pure hits; -1 at first.
    pub prev_pos: i64,
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use crate::{File, Io, PAGE_SIZE, PageCache, StoreOptions};

    fn open(frames: u64, ra_pages: u32) -> (PageCache, File, Arc<OpenFile>) {
        let cache = PageCache::new(frames * PAGE_SIZE as u64, Io::Inline).unwrap();
        let options = StoreOptions::default().ra_pages(ra_pages);
        let file = cache.open_store_with(Arc::new(MemoryStore::default()), 0, options).unwrap();
        let open = file.open_file().unwrap();
        (cache, file, open)
    }

    #[test]
    fn advice_sets_the_maximum_window_which_is_a_quarter_of_the_cache_at_most() {
        for (frames, ra_pages, normal, sequential) in [
            (1024, 32, 32, 64),
            (256, 32, 32, 64),
            (255, 32, 32, 63),
            (64, 32, 16, 16),
            (3, 32, 0, 0),
            (1024, 0, 0, 0),
        ] {
            let (_cache, file, open) = open(frames, ra_pages);
            let is = |advice, most: u64| {
                let again = open.again(Arc::clone(&open.mapping), Arc::clone(open.store()));
                for open in [&*open, &again] {
                    assert_eq!((open.advice(), open.ra_pages()), (advice, most), "{frames} {ra_pages}");
                }
                assert_eq!(u64::from(file.readahead_state().unwrap().ra_pages), most);
            };
            is(Advice::Normal, normal);
            open.set_advice(Advice::Sequential);
            is(Advice::Sequential, sequential);
            // Random reads keep the window for when they end.
            open.set_advice(Advice::Random);
            is(Advice::Random, sequential);
            open.set_advice(Advice::Normal);
            is(Advice::Normal, normal);
            open.set_advice(Advice::Random);
            is(Advice::Random, normal);
        }
    }

    #[test]
    fn misses_saturate_and_hits_pay_them_back() {
        let (_cache, _file, open) = open(1024, 32);
        for misses in 1..=MMAP_MISS_MAX {
            assert_eq!((open.debit_mmap_miss(), open.misses()), (misses, misses));
        }
        assert_eq!((open.debit_mmap_miss(), open.misses()), (1000, 1000));
        for (entries, pattern, left) in [
            (16, Pattern::Normal, 984),
            (4, Pattern::Random, 984),
            (0, Pattern::Normal, 984),
            (4, Pattern::Sequential, 980),
            (979, Pattern::Normal, 1),
            (3, Pattern::Normal, 0),
            (3, Pattern::Normal, 0),
        ] {
            open.credit_mmap_miss(entries, pattern);
            assert_eq!(open.misses(), left);
        }
    }

    #[test]
    fn without_readahead_nothing_is_paid_back() {
        let (_cache, _file, open) = open(1024, 0);
        open.debit_mmap_miss();
        open.credit_mmap_miss(1, Pattern::Normal);
        assert_eq!(open.misses(), 1);
    }

    #[test]
    fn the_position_is_that_of_the_byte_after_the_last_one_read() {
        let (_cache, file, open) = open(1024, 0);
        assert_eq!((open.prev_index(), file.readahead_state().unwrap().prev_pos), (u64::MAX, -1));
        for (position, index) in [(0_i64, 0), (1, 0), (4095, 0), (4096, 1), (8191, 1), (1 << 44, 1 << 32)] {
            open.set_prev_pos(position.unsigned_abs());
            let state = file.readahead_state().unwrap();
            assert_eq!((open.prev_index(), state.prev_pos), (index, position));
        }
    }

    #[test]
    fn pins_and_the_close_of_their_handle_exclude_each_other() {
        let pins = Pins::new();
        assert!(pins.begin() && pins.begin());
        assert_eq!(pins.close(), Err(2));
        pins.end();
        assert_eq!(pins.close(), Err(1));
        pins.end();
        assert_eq!((pins.close(), pins.close()), (Ok(()), Ok(())));
        assert!(!pins.begin());
        // One that came too late is still to end.
        assert_eq!(pins.close(), Ok(()));
        pins.end();
        assert_eq!(pins.close(), Ok(()));
    }
}
