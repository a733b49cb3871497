//! Models of truncation as a whole: against eviction and creation of pages. Against faults it is modelled where page tables are
//! (`tests/loom/mm/truncate.rs`).

use super::super::again::read_again;
use super::super::arrival::{bring, wait_for_answer};
use super::super::creation::{FoundOrCreated, find_or_create};
use super::super::invalidate_lock::quiet;
use super::super::io::Submitted;
use super::super::readahead::will_need;
use super::super::requests::{Answer, Request};
use super::super::size_change::change_size;
use super::super::truncate::shrink_pages;
use super::super::wait::Wait;
use super::*;
use crate::store::{ReadBy, Store};
use crate::sync::Mutex;

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
        let evicted = remove_leaving_a_shadow(&ours, &lock);
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
        entry if entry.as_value().is_some() => Slot::Shadow,
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
fn big_readahead_against_truncate() {
    Model {
        name: "readahead against truncate",
        rows: &[23, 41],
        preemption_bound: Some(5),
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

/// A file of three pages over such a store; two of them have frames, but were not read.
fn stalling() -> (Arc<Stalling>, Arc<OpenFile>) {
    let store = Arc::new(Stalling { reading: Mutex::new(false) });
    let shared = Shared::new(8, Io::Inline).unwrap();
    let file = File::in_memory(&shared, Arc::clone(&store) as Arc<dyn Store>, 3 * PAGE).open_file().unwrap();
    for index in 0..2 {
        assert!(matches!(find_or_create(&file.mapping, index), FoundOrCreated::Page(_)), "there is room");
    }
    (store, file)
}

/// One thread has a page read by a store that may stall; one enters the file as a truncation does. Claim: while it is inside, no
/// thread is in the store: so a truncation, and any thread that waits for it, waits for no store. Premise: nothing else reads
/// pages.
fn read_against_quiet(read: fn(&Arc<OpenFile>) -> bool) {
    let (store, file) = stalling();
    let history = History::new(());
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
    history.call("read", || read(&file), |(), &right| right);
    truncater.join().unwrap();
    history.check();
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
        body: || {
            read_against_quiet(|file| {
                let handle = hold(&file.mapping);
                bring(&file.mapping, handle.page(), 0, None).is_ok_and(|here| here)
            });
        },
        reaches: &["read"],
        needs: &["bring.stable", "quiet.none_began", "bring.submitted_inside"],
    }
    .check();
}

#[test]
fn readahead_that_may_stall_against_truncate() {
    Model {
        name: "readahead that may stall against truncate",
        rows: &[17],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || {
            read_against_quiet(|file| {
                will_need(file, 2, 2);
                true
            });
        },
        reaches: &["read"],
        needs: &["readahead.submitted_inside"],
    }
    .check();
}

#[test]
fn a_window_asked_again_that_may_stall_against_truncate() {
    Model {
        name: "window asked for again that may stall against truncate",
        rows: &[17],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || {
            read_against_quiet(|file| {
                file.mapping.again.note(4, true);
                read_again(file, 0);
                true
            });
        },
        reaches: &["read"],
        needs: &["again.submitted_inside"],
    }
    .check();
}

/// One thread reads a page for another, which waits for it. Claim: who sees the page unlocked has the answer. Premise: none.
fn answer_against_wait() {
    let (_store, file) = stalling();
    let answer = Arc::new(Answer::new());
    let errand = {
        let handle = hold(&file.mapping);
        let pfns = vec![handle.page().lock().into_pfn()];
        let source = Arc::<AddressSpace>::clone(&file.mapping);
        let request = Request { source, first: 0, pfns, answer: Some(Arc::clone(&answer)) };
        match file.mapping.shared.io.submit(request) {
            Submitted::Yours(errand) => errand,
            Submitted::Queued | Submitted::Refused => panic!("there are no workers"),
        }
    };
    let history = History::new(());
    let reader = {
        let history = history.clone();
        spawn(move || history.call("read", || errand.run(), |(), ()| true))
    };
    let wait = || {
        let handle = hold(&file.mapping);
        wait_for_answer(handle.page(), &answer, &Wait::new(&file.mapping, None)) && answer.get().is_some()
    };
    history.call("wait", wait, |(), &answered| answered);
    reader.join().unwrap();
    history.check();
    file.mapping.frames().audit(&[]).unwrap();
}

#[test]
fn an_answer_against_the_wait_for_it() {
    Model {
        name: "answer of a read against the wait for it",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: answer_against_wait,
        reaches: &["read"],
        needs: &["fill.answer_first"],
    }
    .check();
}
