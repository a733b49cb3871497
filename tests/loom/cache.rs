//! Models of the cache room: lookups and copies against removal, reuse and truncation.

use super::address_space::{HeldPage, Lookup};
use super::copy_out::{CopyOut, Marked};
use super::{Abort, AddressSpace, Io, Shared};
use crate::loom_harness::{History, Model, reach, spawn};
use crate::page::{LockedPage, PAGE_SIZE, Use};
use crate::rcu;
use crate::store::MemoryStore;
use crate::xarray::Entry;
use std::sync::Arc;

const OURS: u8 = 0xAA;
const STRANGERS: u8 = 0x55;

/// Two files over one frame; the first caches its page 0 there.
fn two_files() -> (Arc<AddressSpace>, Arc<AddressSpace>) {
    let shared = Shared::new(1, Io::Inline).unwrap();
    let file = |byte| {
        let store = Arc::new(MemoryStore::new(vec![byte; PAGE_SIZE]));
        Arc::new(AddressSpace::new(store, PAGE_SIZE as u64, "model", Arc::clone(&shared)))
    };
    let (ours, strangers) = (file(OURS), file(STRANGERS));
    cache_page(&ours, 0, OURS);
    (ours, strangers)
}

/// Caches a page, up to date, if a frame is free.
pub(crate) fn cache_page(file: &AddressSpace, index: u64, byte: u8) -> bool {
    let Some(handle) = file.frames().alloc(Use::File) else { return false };
    let held = file.insert(index, handle).expect("the slot is empty");
    held.handle.page().bytes().write(0, &[byte; PAGE_SIZE]);
    held.lock.set_uptodate();
    drop(held);
    true
}

/// Counts misses against a file.
pub(crate) fn count_misses(file: &super::File, misses: u32) {
    file.open_file().unwrap().mmap_miss.swap(misses, crate::sync::Ordering::Relaxed);
}

/// Takes our page out if nobody uses it, which is the answer.
fn remove(ours: &AddressSpace) -> bool {
    let page = ours.frames().page(0);
    let lock = page.try_lock().expect("nobody else locks it");
    let removed = ours.remove_mapping(&lock, Entry::value(7));
    if removed {
        let reference = page.adopt();
        drop(lock);
        drop(reference);
    } else {
        reach("busy");
    }
    removed
}

/// Looks our page up and reads it: its first byte, nothing, or interference.
fn look_up(ours: &AddressSpace) -> Result<Option<u8>, ()> {
    let section = rcu::read();
    match ours.find_get_page_once(0, &section) {
        Lookup::Found(handle) => {
            reach("found");
            assert!(handle.page().is_at(ours.id(), 0), "a stranger's page: {handle:?}");
            let mut byte = [0];
            handle.page().bytes().read(0, &mut byte);
            Ok(Some(byte[0]))
        }
        Lookup::Absent => {
            reach("absent");
            Ok(None)
        }
        Lookup::Interfered => {
            reach("interfered");
            Err(())
        }
    }
}

/// One thread looks our page up and reads it; one removes it and gives the frame away. Claim: who has a reference after an
/// unchanged slot has our page, and reads our bytes. Premise: frames are type-stable.
fn lookup_against_reuse() {
    let (ours, strangers) = two_files();
    let history = History::new(Some(OURS));
    let remover = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            // Somebody's reference may keep the page; else it is gone.
            let removed =
                history.ask("remove", || remove(&ours), |page, &removed| !removed || page.take().is_some());
            if removed && cache_page(&strangers, 0, STRANGERS) {
                reach("reused");
            }
        })
    };
    let right =
        |page: &mut Option<u8>, answer: &Result<Option<u8>, ()>| answer.is_err() || *answer == Ok(*page);
    history.call("look up", || look_up(&ours), right);
    remover.join().unwrap();
    history.settle();
    history.call("look up at rest", || look_up(&ours), |page, answer| *answer == Ok(*page));
    history.check();
    crate::page::Frames::audit(ours.frames()).unwrap();
}

#[test]
fn lookup_against_removal_and_reuse() {
    Model {
        name: "lookup against removal and reuse",
        rows: &[14, 15],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: lookup_against_reuse,
        reaches: &["found", "absent", "interfered", "reused", "busy"],
        needs: &["filemap.slot_recheck", "page.get.unless_zero", "page.freeze.expected"],
    }
    .check();
}

/// One thread looks our page up; one removes it and caches it again, in the same frame and slot. Claim: who finds the slot
/// unchanged sees the identity of the life that it has a reference to.
fn lookup_against_return() {
    let (ours, _) = two_files();
    let history = History::new(true);
    let reader = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            let look_up = || match ours.find_get_page_once(0, &rcu::read()) {
                Lookup::Found(handle) => {
                    reach("found");
                    assert!(handle.page().is_at(ours.id(), 0), "a page of an earlier life: {handle:?}");
                    Some(true)
                }
                Lookup::Absent => Some(false),
                Lookup::Interfered => None,
            };
            history.call("look up", look_up, |there, found| found.is_none_or(|found| found == *there));
        })
    };
    let removed = history.ask(
        "remove",
        || remove(&ours),
        |there, &removed| {
            *there = !removed;
            true
        },
    );
    let again = || removed && cache_page(&ours, 0, OURS);
    history.call("cache again", again, |there, &again| {
        if again {
            reach("again");
        }
        !again || !std::mem::replace(there, true)
    });
    reader.join().unwrap();
    history.check();
}

#[test]
fn lookup_against_removal_and_return() {
    Model {
        name: "lookup against removal and return",
        rows: &[15],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: lookup_against_return,
        reaches: &["found", "again"],
        needs: &["xarray.reload.acquire"],
    }
    .check();
}

/// One thread copies our page out without a reference; one removes it, overwrites the frame as its next owner does, and
/// caches it again in the same slot with other bytes. Claim: a copy that is accepted is all of one life of the page.
/// Premise: a remover changes slot and mapping, then the generation, then bytes. (With a slot that stays different the second
/// look at the slot would be enough; only the generation tells that it changed twice.)
fn copy_against_reuse() {
    let (ours, _) = two_files();
    let history = History::new(Some(OURS));
    let remover = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            history.call("remove", || remove(&ours), |page, &removed| removed && page.take().is_some());
            history.call(
                "cache",
                || cache_page(&ours, 0, STRANGERS),
                |page, &cached| cached && page.replace(STRANGERS).is_none(),
            );
        })
    };
    // An attempt may always fail.
    history.call("copy", || copy(&ours), |page, copied| copied.is_none() || copied == page);
    remover.join().unwrap();
    history.settle();
    history.call("copy at rest", || copy(&ours), |page, copied| copied == page);
    history.check();
}

/// Copies our page out: the byte that all of it is, unless the attempt failed.
fn copy(ours: &AddressSpace) -> Option<u8> {
    let mut buf = [0; PAGE_SIZE];
    match ours.copy_out(0, 0, &mut buf, Marked::Refuse, &rcu::read()) {
        CopyOut::Copied => {
            reach("copied");
            assert_eq!(buf, [buf[0]; PAGE_SIZE], "two lives in one copy");
            Some(buf[0])
        }
        CopyOut::Unavailable => {
            reach("unavailable");
            None
        }
        CopyOut::Changed => {
            reach("changed");
            assert_eq!(buf, [0; PAGE_SIZE], "a failed attempt leaves nothing");
            None
        }
    }
}

#[test]
fn big_copy_out_against_removal_and_reuse() {
    Model {
        name: "copy-out against removal and reuse",
        rows: &[49, 52],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: copy_against_reuse,
        reaches: &["copied", "unavailable", "changed"],
        needs: &["page.generation.check"],
    }
    .check();
}

/// One thread copies the whole page out; one truncates the file to half of it and zeroes the tail. Claim: a copy that is
/// accepted is the page as it was: never half zeros. Premise: a zeroer changes the size, then the generation, then bytes.
fn copy_against_zeroing() {
    let (ours, _) = two_files();
    let history = History::new(Some(OURS));
    let truncater = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            let truncate = || {
                let half = (PAGE_SIZE / 2) as u64;
                ours.i_size_write(half);
                ours.zero_tail(half);
            };
            history.call("truncate", truncate, |page, ()| page.take().is_some());
        })
    };
    history.call("copy", || copy(&ours), |page, copied| copied.is_none() || copied == page);
    truncater.join().unwrap();
    history.settle();
    history.call("copy at rest", || copy(&ours), |page, copied| copied == page);
    history.check();
}

#[test]
fn copy_out_against_zeroing() {
    Model {
        name: "copy-out against zeroing of the tail",
        rows: &[50],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: copy_against_zeroing,
        reaches: &["copied", "unavailable", "changed"],
        needs: &[
            "copy_out.size",
            "page.generation.check",
            "page.generation.fence",
            "page.generation.acquire",
            "page.advance.release",
        ],
    }
    .check();
}

/// One thread runs the speculative `filemap_fault`; one truncates the page away and grows the file back. Claims: a page that is returned is the
/// file's as long as it is locked; after everything no reference and no lock is left, whichever way the attempt ended.
/// Premise: truncation sets the size, then takes the page lock.
fn fault_against_truncate() {
    let (ours, _) = two_files();
    let history = History::new(true);
    let truncater = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            let truncate = || {
                ours.i_size_write(0);
                let lock = ours.frames().page(0).lock();
                ours.truncate_page(&lock);
                drop(lock);
                ours.i_size_write(PAGE_SIZE as u64);
            };
            history.call("truncate", truncate, |there, ()| std::mem::replace(there, false));
        })
    };
    let fault = || {
        let section = rcu::read();
        match ours.filemap_fault_speculative(0, &section) {
            Ok(HeldPage { lock, handle }) => {
                reach("locked");
                assert!(lock.page().is_at(ours.id(), 0), "a truncated page: {handle:?}");
                drop(lock);
                drop(handle);
                None
            }
            Err(cause) => {
                reach(cause);
                Some(cause)
            }
        }
    };
    // An attempt may abort for any cause; at rest a page that is gone is missing.
    history.call("fault", fault, |there, abort| abort.is_some() || *there);
    truncater.join().unwrap();
    history.settle();
    history.call("fault at rest", fault, |there, abort| !*there && *abort == Some(Abort::FileMiss));
    history.check();
    assert_eq!(ours.frames().in_use().0, 0, "a reference is left: {:?}", ours.frames().page(0));
    ours.frames().audit().unwrap();
}

#[test]
fn big_trylock_and_mapping_check_against_truncate() {
    Model {
        name: "trylock and mapping check against truncate",
        rows: &[16, 17, 18],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: fault_against_truncate,
        reaches: &["locked", "FILE_MISS", "FILE_LOCKED", "FILE_MAPPING", "FILE_EOF"],
        // The last one is the patch as posted: it leaks a reference on every abort after the lookup.
        needs: &["filemap.spec.mapping", "filemap.spec.put"],
    }
    .check();
}

/// Takes a locked page out of the cache and puts the cache's reference.
pub(crate) fn take_out(file: &AddressSpace, lock: &LockedPage<'_>) {
    drop(file.delete(lock));
}

/// Clears the entries of one page.
pub(crate) fn unmap_page(file: &AddressSpace, index: u64) {
    file.unmap(index, index, false);
}

/// Runs `body` while nobody can walk the file's mappings.
pub(crate) fn under_i_mmap<R>(file: &AddressSpace, body: impl FnOnce() -> R) -> R {
    let _lock = file.i_mmap.lock();
    body()
}

/// Truncation to nothing, without a store: creators of pages are kept out throughout.
pub(crate) fn shrink_to_nothing(file: &AddressSpace) {
    let _alone = file.invalidate_lock.write_guard();
    file.shrink_pages(0);
}
