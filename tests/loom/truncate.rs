//! Models of truncation as a whole: against mapping, eviction and creation of pages.

use super::super::arrival::bring;
use super::super::creation::{FoundOrCreated, find_or_create};
use super::super::invalidate_lock::quiet;
use super::super::readahead::will_need;
use super::super::size_change::change_size;
use super::super::speculation;
use super::super::truncate::shrink_pages;
use super::super::{MappedRange, MmuGather};
use super::*;
use crate::store::{ReadBy, Store};
use crate::sync::Mutex;
use std::collections::BTreeSet;

/// A substitute for page tables: one place, under its leaf lock.
struct Place {
    shared: Arc<Shared>,
    entry: Mutex<Option<Mapped>>,
}

/// The states of the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mapped {
    File(u32),
    Private,
}

impl MappedRange for Place {
    fn unmap(&self, _first: u64, _last: u64, even_cows: bool, gather: &mut MmuGather<'_>) {
        let mut entry = self.entry.lock();
        match *entry {
            Some(Mapped::File(pfn)) => {
                self.shared.frames.page(pfn).remove_mapping();
                gather.take(pfn);
            }
            Some(Mapped::Private) if even_cows => {}
            _ => return,
        }
        *entry = None;
    }

    fn referenced(&self, _index: u64) -> u32 {
        0
    }

    fn audit_tables(&self, _seen: &mut BTreeSet<usize>) -> Result<u64, String> {
        Ok(0)
    }
}

/// Empties the place.
fn unmap(place: &Place) {
    let mut gather = MmuGather::new(&place.shared.frames);
    place.unmap(0, 0, true, &mut gather);
    gather.finish();
}

/// Our file, mapped at one place.
fn mapped() -> (Arc<AddressSpace>, Arc<Place>) {
    let (ours, _) = two_files(1);
    let place = Arc::new(Place { shared: Arc::clone(&ours.shared), entry: Mutex::new(None) });
    ours.i_mmap.link(1, Arc::clone(&place) as Arc<dyn MappedRange>);
    (ours, place)
}

/// The state of our page's place: whether the page is in the file, and whether there is an entry.
#[derive(Debug, Clone, Copy)]
struct State {
    inside: bool,
    entry: bool,
}

fn no_entry_is_left(history: &History<State>, ours: &AddressSpace, place: &Place) {
    history.settle();
    history.call("look", || place.entry.lock().is_some(), |state, &seen| state.entry == seen);
    history.check();
    ours.i_mmap.unlink(1);
    ours.frames().audit(&[]).unwrap();
}

/// One thread faults: it sets an entry for our page under the page lock. One truncates the page, after the bulk unmap has passed
/// it. Claim: afterwards a page out of the file has no entry. Premises: a fault sets its entry while it holds the page locked;
/// truncation finds every range that maps the file.
fn set_against_truncate() {
    let (ours, place) = mapped();
    let history = History::new(State { inside: true, entry: false });
    let [mine, others] = [(); 2].map(|()| hold(&ours).into_pfn());
    let truncater = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            history.call(
                "truncate",
                || truncate_found(&ours, others),
                |state, &truncated| {
                    if truncated {
                        *state = State { inside: false, entry: false };
                    }
                    true
                },
            );
        })
    };
    let fault = || {
        let Ok(held) = speculation::hold(&ours, ours.frames().page(mine).adopt(), 0) else {
            return false;
        };
        let mut entry = place.entry.lock();
        held.handle.page().add_mapping();
        *entry = Some(Mapped::File(held.handle.into_pfn()));
        drop(entry);
        drop(held.lock);
        reach("set");
        true
    };
    history.call("fault", fault, |state, &set| {
        state.entry |= set;
        !set || state.inside
    });
    truncater.join().unwrap();
    no_entry_is_left(&history, &ours, &place);
    unmap(&place);
}

/// One thread makes a private copy of our page, which it holds locked, and sets an entry for it. One truncates the file to nothing.
/// Claim: afterwards there is no entry. Premises as above.
fn private_copy_against_truncate() {
    let (ours, place) = mapped();
    let history = History::new(State { inside: true, entry: false });
    let held = speculation::hold(&ours, hold(&ours), 0).expect("it is ours");
    let truncater = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            history.call(
                "truncate",
                || shrink_pages(&ours, 0),
                |state, ()| {
                    *state = State { inside: false, entry: false };
                    true
                },
            );
        })
    };
    let fault = || {
        *place.entry.lock() = Some(Mapped::Private);
        drop(held);
    };
    history.call("fault", fault, |state, ()| {
        state.entry = true;
        state.inside
    });
    truncater.join().unwrap();
    no_entry_is_left(&history, &ours, &place);
    assert_eq!(ours.frames().usage().in_use, 0);
}

#[test]
fn a_fault_of_a_page_against_truncate() {
    Model {
        name: "setting an entry against truncate",
        rows: &[18, 20],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: set_against_truncate,
        reaches: &["set", "truncated", "not truncated"],
        needs: &["truncate.unmap_locked"],
    }
    .check();
}

#[test]
fn a_private_copy_against_truncate() {
    Model {
        name: "making a private copy against truncate",
        rows: &[22],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: private_copy_against_truncate,
        reaches: &[],
        needs: &["truncate.unmap_again"],
    }
    .check();
}

/// The contents of a slot of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Page,
    Shadow,
    Nothing,
}

/// One thread, which has our page locked, evicts it and leaves its shadow; one truncates the file to nothing. Claim: nothing is
/// left, page or shadow. Premise: no pages are created meanwhile.
fn evict_against_truncate() {
    let (ours, _) = two_files(1);
    let lock = ours.frames().page(0).lock();
    let history = History::new(Slot::Page);
    let truncater = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            history.call(
                "truncate",
                || shrink_pages(&ours, 0),
                |slot, ()| {
                    *slot = Slot::Nothing;
                    true
                },
            );
        })
    };
    let evict = || {
        let evicted = ours.remove_mapping(&lock, shadow());
        let reference = evicted.then(|| lock.page().adopt());
        drop(lock);
        drop(reference);
        reach(if evicted { "evicted" } else { "busy" });
        evicted
    };
    history.call("evict", evict, |slot, &evicted| {
        !evicted || std::mem::replace(slot, Slot::Shadow) == Slot::Page
    });
    truncater.join().unwrap();
    history.settle();
    let look = || match ours.pages.load(0, &rcu::read()) {
        entry if entry.is_empty() => Slot::Nothing,
        entry if entry == shadow() => Slot::Shadow,
        _ => Slot::Page,
    };
    history.call("look", look, |slot, seen| slot == seen);
    history.check();
    assert_eq!(ours.frames().usage().in_use, 0);
    ours.frames().audit(&[]).unwrap();
}

#[test]
fn eviction_against_truncate() {
    Model {
        name: "eviction against truncate",
        rows: &[41],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: evict_against_truncate,
        reaches: &["evicted", "busy"],
        needs: &["truncate.shadow"],
    }
    .check();
}

#[derive(Clone, Copy)]
enum Creator {
    Fault,
    Readahead,
}

/// One thread creates a page; one truncates the file to nothing. Claim: no page is left beyond the end. Premise: nothing else
/// creates pages.
fn create_against_truncate(creator: Creator) {
    let file = open_file(Arc::new(MemoryStore::new(vec![OURS; PAGE_SIZE])));
    // The state: whether the file has its page, and whether that is cached.
    let history = History::new((true, false));
    let truncater = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || {
            history.call(
                "truncate",
                || change_size(&file.mapping, 0, None, |_| Ok(())).unwrap(),
                |state, ()| {
                    *state = (false, false);
                    true
                },
            );
        })
    };
    match creator {
        Creator::Fault => {
            let create = || match find_or_create(&file.mapping, 0) {
                FoundOrCreated::Page(_) => {
                    reach("created");
                    true
                }
                FoundOrCreated::Beyond(_) => {
                    reach("beyond");
                    false
                }
                FoundOrCreated::NoFrame | FoundOrCreated::NoMemory(_) | FoundOrCreated::Unstable => {
                    panic!("a frame is free")
                }
            };
            history.call("create", create, |(inside, cached), &created| {
                *cached |= created;
                created == *inside
            });
        }
        Creator::Readahead => history.call(
            "read ahead",
            || will_need(&file, 0, 0),
            |(inside, cached), ()| {
                *cached |= *inside;
                true
            },
        ),
    }
    truncater.join().unwrap();
    history.settle();
    let frames = || file.mapping.frames().usage().in_use;
    history.call("frames", frames, |(_, cached), &used| used == usize::from(*cached));
    history.check();
    file.mapping.frames().audit(&[]).unwrap();
}

#[test]
fn creation_against_truncate() {
    Model {
        name: "creation of a page against truncate",
        rows: &[23, 41],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || create_against_truncate(Creator::Fault),
        reaches: &["created", "beyond"],
        needs: &["filemap.create.invalidate_lock", "filemap.create.eof", "truncate.invalidate_lock"],
    }
    .check();
}

#[test]
fn readahead_against_truncate() {
    Model {
        name: "readahead against truncate",
        rows: &[23, 41],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: || create_against_truncate(Creator::Readahead),
        reaches: &[],
        needs: &["readahead.invalidate_lock"],
    }
    .check();
}

/// A store that may stall.
struct Stalling {
    reading: Mutex<bool>,
}

impl Store for Stalling {
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> std::io::Result<usize> {
        *self.reading.lock() = true;
        reach("read");
        // Here it may stall forever.
        *self.reading.lock() = false;
        Ok(buf.len())
    }

    fn read_by(&self) -> ReadBy {
        ReadBy::Workers { timeout: None }
    }
}

/// One thread has a page read by a store that may stall; one enters the file as a truncation does. Claim: while it is inside, no
/// thread is in the store: so a truncation, and any thread that waits for it, waits for no store. Premise: nothing else reads
/// pages.
fn read_against_quiet() {
    let store = Arc::new(Stalling { reading: Mutex::new(false) });
    let file = open_file(Arc::clone(&store) as Arc<dyn Store>);
    let history = History::new(());
    let FoundOrCreated::Page(handle) = find_or_create(&file.mapping, 0) else { panic!("there is room") };
    let truncater = {
        let (file, history, store) = (Arc::clone(&file), history.clone(), Arc::clone(&store));
        spawn(move || {
            let enter = || {
                let inside = quiet(&file.mapping, 0, None).expect("nobody gives up");
                // Twice: no read is under way, and none begins.
                let reading = [(); 2].map(|()| *store.reading.lock());
                drop(inside);
                reading
            };
            history.call("enter", enter, |(), reading| *reading == [false; 2]);
        })
    };
    let bring = || bring(&file.mapping, handle.page(), 0, None).is_ok_and(|here| here);
    history.call("bring", bring, |(), &brought| brought);
    truncater.join().unwrap();
    history.check();
    drop(handle);
    file.mapping.frames().audit(&[]).unwrap();
}

#[test]
fn a_read_that_may_stall_against_truncate() {
    Model {
        name: "a read that may stall against truncate",
        rows: &[17],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: read_against_quiet,
        reaches: &["read"],
        needs: &["bring.stable", "quiet.none_began"],
    }
    .check();
}
