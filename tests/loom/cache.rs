//! Models of the cache. This file: what they share, and lookups against removal and reuse. Faults, copies, truncation, reclaim
//! and pins are in files next to it.

use super::address_space::{Created, Lookup};
use super::copy_out::{CopyOut, Marked, Short};
use super::eviction::evict;
use super::files::new_mapping;
use super::truncate::{drop_partial_page, shrink_pages, truncate_page};
use super::vmscan::shrink_inactive;
use super::{AddressSpace, File, Io, OpenFile, Shared};
use crate::loom_harness::{History, Model, reach, spawn};
use crate::page::{LockedPage, PAGE_SIZE, PageHandle, PageRef, Use};
use crate::rcu;
use crate::store::{MemoryStore, Store};
use crate::xarray::Entry;
use std::sync::Arc;

#[path = "close.rs"]
mod close;
#[path = "coherence.rs"]
mod coherence;
#[path = "copy_out.rs"]
mod copy_out;
#[path = "ends.rs"]
mod ends;
#[path = "filemap.rs"]
mod filemap;
#[path = "pin.rs"]
mod pin;
#[path = "reads.rs"]
mod reads;
#[path = "room.rs"]
mod room;
#[path = "sizes.rs"]
mod sizes;
#[path = "truncate.rs"]
mod truncate;
#[path = "vmscan.rs"]
mod vmscan;

const PAGE: u64 = PAGE_SIZE as u64;
const OURS: u8 = 0xAA;
const STRANGERS: u8 = 0x55;

/// Two files of one page over this many frames; the first caches its page in frame 0.
fn two_files(frames: usize) -> (Arc<AddressSpace>, Arc<AddressSpace>) {
    let shared = Shared::new(frames, Io::Inline).unwrap();
    let file = |byte| {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(vec![byte; PAGE_SIZE]));
        new_mapping(&shared, &store, PAGE, "model".as_ref())
    };
    let (ours, strangers) = (file(OURS), file(STRANGERS));
    cache_page(&ours, 0, OURS);
    (ours, strangers)
}

/// An open file of one page over two frames.
fn open_file(store: Arc<dyn Store>) -> Arc<OpenFile> {
    let shared = Shared::new(2, Io::Inline).unwrap();
    File::in_memory(&shared, store, PAGE).open_file().unwrap()
}

/// Caches a page, up to date, if a frame is free.
pub(crate) fn cache_page(file: &AddressSpace, index: u64, byte: u8) -> bool {
    let Some(handle) = file.frames().alloc(Use::File) else { return false };
    let held = file.insert(index, handle).expect("memory").expect("the slot is empty");
    held.handle.page().bytes().write(0, &[byte; PAGE_SIZE]);
    held.lock.set_uptodate();
    drop(held);
    true
}

/// Counts misses against a file.
pub(crate) fn count_misses(file: &super::File, misses: u32) {
    file.open_file().unwrap().mmap_miss.swap(misses, crate::sync::Ordering::Relaxed);
}

/// Takes a locked page out of the cache and puts the cache's reference.
pub(crate) fn take_out(file: &AddressSpace, lock: &LockedPage<'_>) {
    drop(file.delete(lock));
}

/// Clears the entries of one page.
pub(crate) fn unmap_page(file: &AddressSpace, index: u64) {
    file.unmap(index, index, false);
}

/// Runs `body` while no thread can walk the file's mappings.
pub(crate) fn under_i_mmap<R>(file: &AddressSpace, body: impl FnOnce() -> R) -> R {
    file.i_mmap.while_not_unmapping(body)
}

/// What a reclaimer does to the oldest inactive page; returns whether its frame was freed.
pub(crate) fn shrink(shared: &Shared) -> bool {
    let (_, freed) = shrink_inactive(shared, 1);
    reach(if freed > 0 { "freed" } else { "kept" });
    freed > 0
}

/// What truncation does to the first page, once the size has changed.
pub(crate) fn truncate_first_page(file: &AddressSpace) {
    let handle = hold(file);
    let lock = handle.page().lock();
    truncate_page(file, &lock);
    drop(lock);
}

/// A reference to the page at index 0.
fn hold(file: &AddressSpace) -> PageHandle<'_> {
    file.find_get_page(0, &rcu::read()).expect("the page is cached")
}

/// Locks the page of a reference if it is free, works on it, unlocks, puts. (Waiting for a page lock is left to the models of the
/// page lock; here its interleavings would hide the rest.)
fn try_locked<R>(handle: PageHandle<'_>, work: impl FnOnce(&LockedPage<'_>) -> R) -> Option<R> {
    let lock = handle.page().try_lock();
    let result = lock.as_ref().map(work);
    drop(lock);
    drop(handle);
    result
}

/// What truncation does to one page that it has found and locked; returns whether it could be locked.
pub(crate) fn truncate_found(ours: &AddressSpace, found: u32) -> bool {
    let truncated = try_locked(ours.frames().page(found).adopt(), |lock| truncate_page(ours, lock));
    reach(if truncated.is_some() { "truncated" } else { "not truncated" });
    truncated.is_some()
}

fn first_byte(page: PageRef<'_>) -> u8 {
    let mut byte = [0];
    page.bytes().read(0, &mut byte);
    byte[0]
}

/// Takes a locked page out if it is unused, and leaves a shadow; returns whether it was.
fn remove_leaving_a_shadow(ours: &AddressSpace, lock: &LockedPage<'_>) -> bool {
    let workingset = &ours.shared.workingset;
    let shadow = workingset.eviction(ours.frames().capacity());
    let removed = ours.remove_mapping(lock, shadow);
    if !removed {
        workingset.forget(shadow);
    }
    removed
}

/// Takes our page, which no other thread locks, out if it is unused; returns whether it was.
fn remove(ours: &AddressSpace) -> bool {
    let page = ours.frames().page(0);
    let lock = page.try_lock().expect("nobody else locks it");
    let removed = remove_leaving_a_shadow(ours, &lock);
    let reference = removed.then(|| page.adopt());
    drop(lock);
    drop(reference);
    if !removed {
        reach("busy");
    }
    removed
}

/// Looks our page up and reads it: returns its first byte, nothing, or interference.
fn look_up(ours: &AddressSpace) -> Result<Option<u8>, ()> {
    let section = rcu::read();
    match ours.find_get_page_once(0, &section) {
        Lookup::Found(handle) => {
            reach("found");
            assert!(handle.page().is_at(ours.id(), 0), "a stranger's page: {handle:?}");
            Ok(Some(first_byte(handle.page())))
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

/// One thread looks our page up and reads it; one removes it and gives the frame away. Claim: a thread that has a reference and
/// then finds the slot unchanged has our page, and reads our bytes. Premise: frames are type-stable.
fn lookup_against_reuse() {
    let (ours, strangers) = two_files(1);
    let history = History::new(Some(OURS));
    let remover = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            // Another thread's reference may keep the page; otherwise it is gone.
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
    ours.frames().audit(&[]).unwrap();
}

#[test]
fn lookup_against_removal_and_reuse() {
    Model {
        name: "lookup against removal and reuse",
        rows: &[14, 15, 40],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: lookup_against_reuse,
        reaches: &["found", "absent", "interfered", "reused", "busy"],
        needs: &[
            "filemap.slot_recheck",
            "filemap.seed.shadow",
            "page.get.acquire",
            "page.unfreeze.release",
            "remove_mapping.clear_mapping",
            "remove_mapping.unfreeze_last",
        ],
    }
    .check();
}

/// One thread looks our page up; one removes it and caches it again, in the same frame and slot. Claim: a thread that finds the
/// slot unchanged sees the identity of the life to which it has a reference.
fn lookup_against_return() {
    let (ours, _) = two_files(1);
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
        preemption_bound: Some(5),
        grace_periods: false,
        twin: false,
        body: lookup_against_return,
        reaches: &["found", "again"],
        needs: &["xarray.reload.acquire", "insert.identity_first"],
    }
    .check();
}

/// One thread evicts our page; one truncates the page away and gives the frame to another file. Claims: it is taken out once; the
/// stranger's page is left alone. Premise: a page's mapping changes under its lock.
fn evict_against_truncate_and_reuse() {
    let (ours, strangers) = two_files(1);
    // The state: whether our page is there, and whether the stranger's is.
    let history = History::new((true, false));
    let found = hold(&ours).into_pfn();
    let truncater = {
        let (ours, strangers, history) = (Arc::clone(&ours), Arc::clone(&strangers), history.clone());
        spawn(move || {
            history.call(
                "truncate",
                || truncate_found(&ours, found),
                |(there, _), &truncated| !truncated || std::mem::replace(there, false),
            );
            history.call(
                "reuse",
                || cache_page(&strangers, 0, STRANGERS),
                |state, &cached| {
                    state.1 = cached;
                    true
                },
            );
        })
    };
    let evict = || evict(&ours, 0, Entry::EMPTY, &rcu::read());
    history.call("evict", evict, |(there, _), &evicted| !evicted || std::mem::replace(there, false));
    truncater.join().unwrap();
    history.settle();
    history.call(
        "look at the stranger's",
        || look_up(&strangers),
        |state, answer| *answer == Ok(state.1.then_some(STRANGERS)),
    );
    history.call("evict at rest", evict, |(there, _), &evicted| evicted == *there);
    history.check();
    assert_eq!(ours.frames().usage().in_use, usize::from(strangers.peek(0, &rcu::read()).is_some()));
    ours.frames().audit(&[]).unwrap();
}

#[test]
fn big_eviction_against_reuse() {
    Model {
        name: "eviction against reuse",
        rows: &[14, 15],
        preemption_bound: Some(8),
        grace_periods: false,
        twin: false,
        body: evict_against_truncate_and_reuse,
        reaches: &["found", "absent", "truncated", "not truncated"],
        needs: &["evict.mapping", "evict.put", "evict.unlock_first"],
    }
    .check();
}

/// Two threads create one page. Claim: one page is created, and the other thread's frame is returned. Premise: slots change under
/// the index's mutex.
fn twins() {
    let shared = Shared::new(2, Io::Inline).unwrap();
    let store = Arc::new(MemoryStore::new(vec![OURS; PAGE_SIZE]));
    let ours = Arc::new(AddressSpace::new(store, PAGE, "model".as_ref(), shared));
    let history = History::new(false);
    let create = |ours: &AddressSpace| match ours.add_page(0) {
        Created::New(held) => {
            drop(held);
            true
        }
        Created::Exists => {
            reach("exists");
            false
        }
        Created::NoFrame | Created::NoMemory(_) => panic!("there are two frames"),
    };
    let right = |there: &mut bool, &created: &bool| created != std::mem::replace(there, true);
    let twin = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || history.call("create", || create(&ours), right))
    };
    history.call("create", || create(&ours), right);
    twin.join().unwrap();
    history.settle();
    history.call("frames", || ours.frames().usage().in_use, |_, &used| used == 1);
    history.check();
}

#[test]
fn two_creators_of_one_page() {
    Model {
        name: "two creators of one page",
        rows: &[16],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: twins,
        reaches: &["exists"],
        needs: &["insert.slot_free", "insert.lost.clear_mapping", "insert.lost.unlock_first"],
    }
    .check();
}

/// Truncation to nothing, without a store: creators of pages are kept out throughout.
pub(crate) fn shrink_to_nothing(file: &AddressSpace) {
    let _alone = file.invalidate_lock.write_guard();
    shrink_pages(file, 0);
}

impl AddressSpace {
    /// The same without the lock, for models in which no thread creates pages.
    pub(crate) fn shrink_pages(&self, size: u64) {
        shrink_pages(self, size);
    }

    /// Takes out the page that was the last before the file grew.
    pub(crate) fn drop_partial_page(&self, size: u64) {
        drop_partial_page(self, size);
    }
}
