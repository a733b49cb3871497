//! The page-cache half of a speculative fault.
//!
//! Owns: finding the page, locking it, and deciding whether it may be mapped, without waiting: it never sleeps, never allocates,
//! starts no I/O and reports no error. It returns a locked page, or the reason to abort. Mirrors the speculative half of
//! `filemap_fault` in the series, and `next_uptodate_page` of Linux 5.12.

use super::address_space::{AddressSpace, HeldPage, Lookup};
use super::vm_fault::Abort;
use crate::page::{LockedPage, PageFlags, PageHandle, PageRef};
use crate::rcu::ReadSection;
use crate::sync::{give_back, guard, operation, seeded};

/// Speculative `filemap_fault`: the page, locked and with a reference, or the reason to abort. Every abort releases whatever was
/// taken (the series as posted leaked the reference).
#[inline]
pub(crate) fn filemap_fault_speculative<'f>(
    mapping: &'f AddressSpace,
    index: u64,
    section: &ReadSection,
) -> Result<HeldPage<'f>, Abort> {
    operation!("speculative fault");
    // 1. A count of zero or a changed slot counts as absent here: only the locked path may wait for it to settle.
    let Lookup::Found(handle) = mapping.find_get_page_once(index, section) else {
        return Err(Abort::FileMiss);
    };
    hold(mapping, handle, index)
}

/// The steps of a speculative fault after the look-up.
#[inline]
pub(super) fn hold<'f>(
    mapping: &AddressSpace,
    handle: PageHandle<'f>,
    index: u64,
) -> Result<HeldPage<'f>, Abort> {
    operation!("speculative fault");
    let page = handle.page();
    // 2. The marker is left in place: the locked path must meet it and start the window.
    if !guard!("filemap.spec.readahead", !page.flags().has(PageFlags::READAHEAD)) {
        return Err(put_on_abort(handle, Abort::FileReadahead));
    }
    // 3 and 4. From here on truncation and reclaim wait for this lock: what is checked stays true until unlock.
    let lock = seeded!(
        "filemap.seed.mapping_before_lock",
        lock_and_look(mapping, page, index),
        bug = look_and_lock(mapping, page, index)
    );
    let lock = match lock {
        Ok(lock) => lock,
        Err(cause) => return Err(put_on_abort(handle, cause)),
    };
    // 5 and 6.
    let cause = if !guard!("filemap.spec.uptodate", page.flags().has(PageFlags::UPTODATE)) {
        Abort::FileNotUptodate
    } else if !guard!("filemap.spec.eof", index < mapping.pages_in_file()) {
        Abort::FileEof
    } else {
        return Ok(HeldPage { lock, handle });
    };
    give_back!("filemap.spec.unlock", lock);
    Err(put_on_abort(handle, cause))
}

/// Locks the page if it is still the one looked for.
#[inline]
fn lock_and_look<'f>(mapping: &AddressSpace, page: PageRef<'f>, index: u64) -> Result<LockedPage<'f>, Abort> {
    let Some(lock) = page.try_lock() else { return Err(Abort::FileLocked) };
    if guard!("filemap.spec.mapping", page.is_at(mapping.id(), index)) {
        Ok(lock)
    } else {
        give_back!("filemap.spec.mapping.unlock", lock);
        Err(Abort::FileMapping)
    }
}

/// The wrong order, for models: a truncation may come in between.
#[cfg(any(specmm_loom, specmm_shuttle))]
fn look_and_lock<'f>(mapping: &AddressSpace, page: PageRef<'f>, index: u64) -> Result<LockedPage<'f>, Abort> {
    if page.is_at(mapping.id(), index) {
        page.try_lock().ok_or(Abort::FileLocked)
    } else {
        Err(Abort::FileMapping)
    }
}

/// The first page in `*next..=last` that fault-around may map, locked and with a reference; `*next` moves past it
/// (`next_uptodate_page`). Skips pages that are not ready.
pub(crate) fn next_uptodate_page<'f>(
    mapping: &'f AddressSpace,
    next: &mut u64,
    last: u64,
    section: &ReadSection,
) -> Option<(u64, HeldPage<'f>)> {
    operation!("fault-around");
    while *next <= last {
        let index = *next;
        *next += 1;
        let Lookup::Found(handle) = mapping.find_get_page_once(index, section) else { continue };
        let page = handle.page();
        let flags = page.flags();
        // A page that is up to date stays so until it is freed, which our reference prevents: one check is enough. The lock is
        // only tried if it looks free.
        if !guard!("filemap.around.uptodate", flags.has(PageFlags::UPTODATE))
            || !guard!("filemap.around.readahead", !flags.has(PageFlags::READAHEAD))
            || flags.has(PageFlags::LOCKED)
        {
            continue;
        }
        let Some(lock) = page.try_lock() else { continue };
        let held = HeldPage { lock, handle };
        if guard!("filemap.around.mapping", page.is_at(mapping.id(), index))
            && guard!("filemap.around.eof", index < mapping.pages_in_file())
        {
            return Some((index, held));
        }
    }
    None
}

/// Puts the reference of an aborting attempt. The patch as posted did not.
fn put_on_abort(handle: PageHandle<'_>, cause: Abort) -> Abort {
    give_back!("filemap.spec.put", handle);
    cause
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::cache::{Io, PageCache, StoreOptions};
    use crate::page::{PAGE_SIZE, Use};
    use crate::store::MemoryStore;
    use std::sync::Arc;

    /// Pages 1 to 8 and 10: 2 has the marker, and is locked at first, 3 is locked, 4 is not up to date, 8 is past the end by now.
    #[test]
    fn only_a_page_that_is_ready_may_be_mapped() {
        let cache = PageCache::new(64 * PAGE_SIZE as u64, Io::Inline).unwrap();
        let store = Arc::new(MemoryStore::new(vec![1; 16 * PAGE_SIZE]));
        let options = StoreOptions::default().ra_pages(0);
        let file = cache.open_store_with(store, 16 * PAGE_SIZE as u64, options).unwrap();
        let open = file.open_file().unwrap();
        let mapping = &*open.mapping;
        for page in [1, 2, 3, 5, 6, 7, 8, 10] {
            file.pread(&mut [0], page * PAGE_SIZE as u64).unwrap();
        }
        let section = crate::rcu::read();
        let page = |index| mapping.peek(index, &section).expect("it is there");
        let marked = page(2).try_lock().unwrap();
        marked.set_readahead();
        let locked = page(3).try_lock().unwrap();
        drop(mapping.insert(4, cache.shared().frames.alloc(Use::File).unwrap()).unwrap().unwrap());
        mapping.i_size_write(8 * PAGE_SIZE as u64);

        for (index, cause) in [
            (0, Some(Abort::FileMiss)),
            (1, None),
            (2, Some(Abort::FileReadahead)),
            (3, Some(Abort::FileLocked)),
            (4, Some(Abort::FileNotUptodate)),
            (7, None),
            (8, Some(Abort::FileEof)),
            (10, Some(Abort::FileEof)),
            (u64::MAX, Some(Abort::FileMiss)),
        ] {
            let held = filemap_fault_speculative(mapping, index, &section);
            if let Ok(held) = &held {
                assert!(held.lock.page().is_at(mapping.id(), index) && held.handle.page().refcount() == 2);
            }
            assert_eq!(held.err(), cause, "page {index}");
        }
        drop(marked);
        let other = page(5).try_get().unwrap();
        assert_eq!(hold(mapping, other, 6).err(), Some(Abort::FileMapping));
        // Nothing is kept.
        for index in [1, 2, 4, 5, 7, 8, 10] {
            assert!(page(index).refcount() == 1 && !page(index).flags().has(PageFlags::LOCKED), "{index}");
        }

        for (first, last, found, then) in [
            (0, 10, &[1, 5, 6, 7][..], 11),
            (0, 0, &[], 1),
            (1, 1, &[1], 2),
            (2, 5, &[5], 6),
            (2, 4, &[], 5),
            (6, 5, &[], 6),
        ] {
            let mut next = first;
            let mut pages = Vec::new();
            while let Some((index, held)) = next_uptodate_page(mapping, &mut next, last, &section) {
                assert!(next == index + 1 && held.lock.page().is_at(mapping.id(), index));
                pages.push(index);
            }
            assert_eq!((&pages[..], next), (found, then), "{first} to {last}");
        }
        for index in [1, 2, 4, 5, 6, 7, 8, 10] {
            assert!(page(index).refcount() == 1 && !page(index).flags().has(PageFlags::LOCKED), "{index}");
        }
        drop(locked);
    }
}
