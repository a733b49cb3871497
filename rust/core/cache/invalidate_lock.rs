//! Taking `invalidate_lock` for a file whose store may stall.
//!
//! Owns: the order in which readers and writers of the lock wait. Does not own the lock (`address_space`). Creating a page takes
//! it for reading, changing the size for writing. Reads of a store that may stall begin under it, and a writer first waits for
//! those that have begun, so no thread that holds the lock waits for a store. Mirrors `filemap_invalidate_lock` of Linux 5.15.

use super::address_space::AddressSpace;
use super::patience::Closed;
use super::wait::Wait;
use crate::error::Error;
use crate::sync::rwsem::{ReadGuard, WriteGuard};
use crate::sync::{AtomicU64, Ordering, guard};

/// Takes `invalidate_lock` for reading. If the store may stall, only when that is possible at once and no thread waits to
/// truncate.
pub(super) fn stable(mapping: &AddressSpace) -> Option<ReadGuard<'_>> {
    if !mapping.read_by.may_stall() {
        return Some(mapping.invalidate_lock.read_guard());
    }
    // So that successive readers cannot starve a truncation. Missing one that starts right now costs it another round.
    if mapping.truncaters.load(Ordering::Relaxed) > 0 {
        None
    } else {
        mapping.invalidate_lock.try_read_guard()
    }
}

/// Takes `invalidate_lock` for writing, at a moment when no store that may stall is reading pages from `first` on. None starts
/// while the lock is held, because such reads begin under it: so a thread that holds the lock waits for no store. `closed` ends
/// the wait.
pub(super) fn quiet<'f>(
    mapping: &'f AddressSpace,
    first: u64,
    closed: Option<&Closed>,
) -> Result<WriteGuard<'f>, Error> {
    if !mapping.read_by.may_stall() {
        return Ok(mapping.invalidate_lock.write_guard());
    }
    let _waiting = Waiting::new(&mapping.truncaters);
    let wait = Wait::new(mapping, closed);
    let io = &mapping.shared.io;
    loop {
        wait.until(first, || (!io.reads(mapping.id(), first)).then_some(()))?;
        let inside = wait.until(first, || mapping.invalidate_lock.try_write_guard())?;
        if guard!("quiet.none_began", !io.reads(mapping.id(), first)) {
            return Ok(inside);
        }
    }
}

/// Counts a waiting thread while this exists.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::cache::patience::tests::{Gate, cached, soon};
    use crate::cache::{Io, PageCache};
    use crate::page::PAGE_SIZE;
    use crate::store::MemoryStore;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn only_for_a_store_that_may_stall_the_lock_is_tried() {
        let cache = PageCache::new(1 << 20, Io::Threads).unwrap();
        let file = cache.open_store(Arc::new(MemoryStore::new(vec![1])), 1).unwrap();
        let mapping = &file.open_file().unwrap().mapping;
        // Nobody need wait for those who wait.
        mapping.truncaters.fetch_add(1, Ordering::Relaxed);
        assert!(stable(mapping).is_some());
        let inside = quiet(mapping, 0, None).unwrap();
        assert_eq!(mapping.truncaters.load(Ordering::Relaxed), 1);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| stable(mapping).is_some());
            std::thread::sleep(Duration::from_millis(20));
            drop(inside);
            assert!(waits.join().unwrap());
        });
        // Nor does such a wait end with the file.
        let (inside, closed) = (stable(mapping), Closed::new());
        closed.close();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| quiet(mapping, 0, Some(&closed)).is_ok());
            std::thread::sleep(Duration::from_millis(20));
            drop(inside);
            assert!(waits.join().unwrap());
        });
        let (_cache, file) = cached(&Gate::new(None, u64::MAX), 0);
        let mapping = &file.open_file().unwrap().mapping;
        assert!(stable(mapping).is_some());
        let inside = quiet(mapping, 0, None).unwrap();
        assert!(stable(mapping).is_none());
        drop(inside);
        assert!(stable(mapping).is_some());
        mapping.truncaters.fetch_add(1, Ordering::Relaxed);
        assert!(stable(mapping).is_none());
    }

    #[test]
    fn whoever_changes_a_size_waits_for_reads_and_not_in_the_lock() {
        let gate = Gate::new(None, 1);
        let (_cache, file) = cached(&gate, 0);
        let open = file.open_file().unwrap();
        let mapping = &open.mapping;
        let waiting = || mapping.truncaters.load(Ordering::Relaxed);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| file.pread(&mut [0], 5 * PAGE_SIZE as u64));
            gate.until_standing(1);
            drop(quiet(mapping, 6, None).unwrap());
            assert_eq!(waiting(), 0);
            let changes = [(); 2].map(|()| scope.spawn(|| quiet(mapping, 5, None).map(drop)));
            soon(|| waiting() == 2);
            for _ in 0..1000 {
                assert!(mapping.invalidate_lock.try_write_guard().is_some(), "a thread waits in the lock");
                std::thread::yield_now();
            }
            gate.open();
            for change in changes {
                change.join().unwrap().unwrap();
            }
            reader.join().unwrap().unwrap();
        });
        assert_eq!(waiting(), 0);
    }
}
