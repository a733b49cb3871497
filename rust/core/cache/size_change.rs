//! Making a file shorter or longer while it is in use.
//!
//! Owns: the order of the steps: the store changes between the two halves of the cache's change. Does not own how pages leave
//! (`truncate`). Mirrors `do_truncate` and a file system's `setattr`.
//!
//! All of it runs under `invalidate_lock`, so no page is created from a state of the store that is about to end.

use super::address_space::{AddressSpace, index_of};
use super::invalidate_lock::quiet;
use super::patience::Closed;
use super::{coherence, truncate};
use crate::error::{Error, IoError, Result};
use crate::store::MAX_SIZE;
use crate::sync::rwsem::WriteGuard;
use crate::sync::{duty, in_order, operation, seeded};
use std::io;

/// Changes the size; `change_store` changes the store's. If that fails, the old size is restored; nothing is lost, because the
/// pages are clean. `closed` ends the wait for reads.
pub(super) fn change_size(
    mapping: &AddressSpace,
    size: u64,
    closed: Option<&Closed>,
    change_store: impl FnOnce(u64) -> io::Result<()>,
) -> Result<()> {
    operation!("truncate");
    if size > MAX_SIZE {
        return Err(Error::InvalidArgument(format!("size {size} exceeds {MAX_SIZE} bytes (16 TiB)")));
    }
    // A thread that waits for reads here may give up, because nothing has changed yet.
    let first = if mapping.version.says() { 0 } else { index_of(size) };
    let quiet = || quiet(mapping, first, closed);
    // Changes made by others come first, lest they be taken for this one. (If the store cannot be examined now, it is examined
    // before the next read.)
    let follow = || {
        let _met_again = coherence::follow_changes_inside(mapping);
    };
    let stable;
    in_order!(
        "truncate.followed_inside",
        stable = seeded!("truncate.invalidate_lock", Some(quiet()?), bug = None),
        duty!("truncate.follow", follow())
    );
    let result;
    in_order!(
        "truncate.barrier_last",
        result = change_inside(mapping, size, stable, change_store),
        // What was taken out is given back.
        duty!("truncate.barrier", crate::rcu::barrier())
    );
    result.map_err(|error| Error::Io(IoError::new(error, &mapping.name)))
}

/// The change itself, under `invalidate_lock`, which ends with it.
fn change_inside(
    mapping: &AddressSpace,
    size: u64,
    stable: Option<WriteGuard<'_>>,
    change_store: impl FnOnce(u64) -> io::Result<()>,
) -> io::Result<()> {
    let before = mapping.i_size();
    let shrink = || {
        if size < before {
            truncate::shrink_pages(mapping, size);
        }
    };
    seeded!("truncate.grown_after_store", bug = mapping.i_size_write(before.max(size)));
    let result;
    // A read that the store cuts short asks for the size again (`fill`).
    in_order!("truncate.shrunk_before_store", shrink(), result = change_store(size));
    let end =
        || if result.is_ok() { set_size(mapping, before, size) } else { restore_size(mapping, before, size) };
    // What a store did that reports a failure is found by the next look at it.
    let note = || {
        if result.is_ok() {
            duty!("truncate.noted", coherence::note_own_change(mapping));
        }
    };
    in_order!("truncate.ended_inside", end(), in_order!("truncate.noted_inside", note(), drop(stable)));
    result
}

fn set_size(mapping: &AddressSpace, before: u64, size: u64) {
    if size < before {
        truncate::zero_tail(mapping, size);
    } else {
        mapping.i_size_write(size);
    }
}

/// The store has refused to change. Whoever read the page at the refused end meanwhile took what follows for zeros.
fn restore_size(mapping: &AddressSpace, before: u64, refused: u64) {
    if refused < before {
        in_order!(
            "truncate.refused.page_first",
            duty!("truncate.refused.page", truncate::drop_partial_page(mapping, refused)),
            mapping.i_size_write(before)
        );
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use crate::store::{Look, Store};
    use crate::sync::Mutex;
    use crate::{Io, PAGE_SIZE, PageCache};
    use std::io;
    use std::sync::Arc;

    const PAGE: u64 = PAGE_SIZE as u64;

    /// A store that others make longer, and that refuses to be shortened.
    struct Growing(Mutex<u64>);

    impl Store for Growing {
        fn read_at(&self, buf: &mut [u8], _offset: u64) -> io::Result<usize> {
            buf.fill(7);
            Ok(buf.len())
        }

        fn truncate(&self, _size: u64) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }

        fn look(&self) -> io::Result<Look> {
            Ok(Look { size: Some(*self.0.lock()), version: Some(1), changed: None })
        }
    }

    /// A store that is shortened and then reports a failure.
    struct HalfDone(Mutex<u64>);

    impl Store for HalfDone {
        fn read_at(&self, buf: &mut [u8], _offset: u64) -> io::Result<usize> {
            buf.fill(*self.0.lock() as u8);
            Ok(buf.len())
        }

        fn truncate(&self, size: u64) -> io::Result<()> {
            *self.0.lock() = size;
            Err(io::ErrorKind::Interrupted.into())
        }

        fn look(&self) -> io::Result<Look> {
            let size = *self.0.lock();
            Ok(Look { size: Some(size), version: Some(size), changed: None })
        }
    }

    #[test]
    fn a_truncation_that_failed_half_done_is_found_by_the_next_look() {
        let (size, half) = (2 * PAGE - 1, PAGE + 50);
        let store = Arc::new(HalfDone(Mutex::new(size)));
        let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
        let file = cache.open_store(store as Arc<dyn Store>, size).unwrap();
        let mut bytes = vec![0; 2 * PAGE_SIZE];
        assert_eq!(file.pread(&mut bytes, 0).unwrap() as u64, size);
        assert!(bytes[..size as usize].iter().all(|&byte| byte == size as u8));
        assert!(file.truncate(half).is_err());
        assert_eq!((file.revalidate().unwrap(), file.pread(&mut bytes, 0).unwrap() as u64), (half, half));
        assert!(
            bytes[..half as usize].iter().all(|&byte| byte == half as u8),
            "the version that is there now"
        );
        cache.check().unwrap();
    }

    #[test]
    fn a_change_that_is_refused_costs_only_the_page_that_it_cut() {
        let store = Arc::new(Growing(Mutex::new(100)));
        let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
        let file = cache.open_store(store as Arc<dyn Store>, 100).unwrap();
        let mut reads = 0;
        for (size, cut) in [(50, 1), (100, 0), (150, 0), (99, 1), (50, 1)] {
            assert_eq!(file.pread(&mut [0; 100], 0).unwrap(), 100);
            reads += 1;
            assert!(file.truncate(size).is_err());
            let mut bytes = [0; 200];
            assert_eq!((file.size().unwrap(), file.pread(&mut bytes, 0).unwrap()), (100, 100));
            assert_eq!((&bytes[..100], &bytes[100..]), (&[7; 100][..], &[0; 100][..]));
            reads += cut;
            assert_eq!(cache.stats().reads, reads, "{size}");
            cache.drop_caches().unwrap();
        }
        cache.check().unwrap();
    }

    #[test]
    fn a_refused_truncation_leaves_the_size_that_others_made() {
        let store = Arc::new(Growing(Mutex::new(100)));
        let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
        let file = cache.open_store(Arc::clone(&store) as Arc<dyn Store>, 100).unwrap();
        assert_eq!(file.pread(&mut [0; 100], 0).unwrap(), 100);
        *store.0.lock() = 200;
        assert!(file.truncate(50).is_err());
        let mut bytes = [0; 300];
        assert_eq!((file.size().unwrap(), file.pread(&mut bytes, 0).unwrap()), (200, 200));
        assert_eq!((&bytes[..200], &bytes[200..]), (&[7; 200][..], &[0; 100][..]));
        cache.check().unwrap();
    }
}
