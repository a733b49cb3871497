//! Finding a page or creating it.
//!
//! Owns: the creation of single pages, and the wait for a frame or for the end of a truncation. Does not own windows
//! (`readahead`) nor the insertion (`address_space`). Mirrors `pagecache_get_page` and `add_to_page_cache_lru`.
//!
//! `invalidate_lock` is held for reading from the size check to the insertion.

use super::address_space::{AddressSpace, Created, HeldPage};
use super::invalidate_lock::stable;
use super::patience::Closed;
use super::vmscan::wait_for_frame;
use super::wait::Wait;
use crate::error::Error;
use crate::page::PageHandle;
use crate::sync::{operation, seeded};

/// The outcome of [`find_or_create`].
pub(super) enum FoundOrCreated<'f> {
    /// The page, unlocked, with a reference.
    Page(PageHandle<'f>),
    /// The file ends before it, at this size.
    Beyond(u64),
    /// No frame is free.
    NoFrame,
    /// No memory for the index.
    NoMemory(Error),
    /// The file is being truncated; this is not waited for, because the store may stall.
    Unstable,
}

/// Finds the page, or creates it unlocked and not up to date (`pagecache_get_page` with `FGP_FOR_MMAP`).
pub(super) fn find_or_create(mapping: &AddressSpace, index: u64) -> FoundOrCreated<'_> {
    operation!("read");
    loop {
        if let Some(handle) = mapping.find_get_page(index, &crate::rcu::read()) {
            return FoundOrCreated::Page(handle);
        }
        let stable = seeded!("filemap.create.invalidate_lock", stable(mapping).map(Some), bug = Some(None));
        let Some(_stable) = stable else { return FoundOrCreated::Unstable };
        if let Some(size) = seeded!("filemap.create.eof", mapping.ends_before(index), bug = None) {
            return FoundOrCreated::Beyond(size);
        }
        match mapping.add_page(index) {
            Created::New(HeldPage { lock, handle }) => {
                drop(lock);
                return FoundOrCreated::Page(handle);
            }
            Created::Exists => {}
            // Another thread may have used the last frame for this very page.
            Created::NoFrame if mapping.peek(index, &crate::rcu::read()).is_some() => {}
            Created::NoFrame => return FoundOrCreated::NoFrame,
            Created::NoMemory(error) => return FoundOrCreated::NoMemory(error),
        }
    }
}

/// As [`find_or_create`], but waits for a frame when none can be freed; `NoFrame` if the wait failed. If the store may stall,
/// also waits for a truncation to end; `closed` ends that wait.
pub(super) fn find_or_create_waiting<'f>(
    mapping: &'f AddressSpace,
    index: u64,
    closed: Option<&Closed>,
) -> Result<FoundOrCreated<'f>, Error> {
    loop {
        match find_or_create(mapping, index) {
            FoundOrCreated::NoFrame if wait_for_frame(&mapping.shared) => {}
            // Its page may have come meanwhile, even in the frame that was missing here.
            FoundOrCreated::NoFrame => {
                let found = mapping.find_get_page(index, &crate::rcu::read());
                return Ok(found.map_or(FoundOrCreated::NoFrame, FoundOrCreated::Page));
            }
            FoundOrCreated::Unstable => {
                drop(Wait::new(mapping, closed).until(index, || stable(mapping))?);
            }
            other => return Ok(other),
        }
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::cache::patience::tests::soon;
    use crate::page::{PAGE_SIZE, Use};
    use crate::store::MemoryStore;
    use crate::{CacheOptions, Io, PageCache};
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_page_that_comes_while_a_frame_is_waited_for_in_vain_is_had() {
        let options = CacheOptions::default().io(Io::Inline).frame_timeout(Duration::from_millis(500));
        let cache = PageCache::with_options(PAGE_SIZE as u64, options).unwrap();
        let file = cache.open_store(Arc::new(MemoryStore::new(vec![7])), 1).unwrap();
        let mapping = &file.open_file().unwrap().mapping;
        // The only one.
        let frame = mapping.frames().alloc(Use::File).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let found = find_or_create_waiting(mapping, 0, None).unwrap();
                matches!(found, FoundOrCreated::Page(page) if page.page().is_at(mapping.id(), 0))
            });
            soon(|| cache.stats().frame_waits == 1);
            let held = mapping.insert(0, frame).unwrap().expect("the slot is empty");
            assert!(waits.join().unwrap());
            drop(held);
        });
        cache.check().unwrap();
    }
}
