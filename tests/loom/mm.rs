//! Models of the address space: the sequence, the last check against zapping, twins, truncation against a fault.

use super::gather::Gather;
use super::memory::{Fault, Mode};
use super::mmap::Prot;
use super::page_table::Owner;
use super::vma::{VmFlags, Vma};
use super::{Locking, Mm, MmOptions};
use crate::cache::{Abort, File, Io, OpenFile, Shared, VmFault};
use crate::loom_harness::{History, Model, reach, spawn};
use crate::page::{PAGE_SIZE, PageRef};
use crate::rcu;
use crate::store::MemoryStore;
use std::sync::Arc;

pub(super) const PAGE: u64 = PAGE_SIZE as u64;

const FRAMES: u32 = 6;

/// A file of one cached page, mapped where the page tables exist already.
pub(super) fn one_page(prot: Prot, shared_mapping: bool) -> (Mm, File, u64) {
    mapped(1, prot, shared_mapping)
}

fn mapped(pages: u64, prot: Prot, shared_mapping: bool) -> (Mm, File, u64) {
    let shared = Shared::new(FRAMES as usize, Io::Inline).unwrap();
    let bytes = vec![0xAA; pages as usize * PAGE_SIZE];
    let file = File::in_memory(&shared, Arc::new(MemoryStore::new(bytes)), pages * PAGE);
    let open: Arc<OpenFile> = file.open_file().unwrap();
    for index in 0..pages {
        crate::cache::models::cache_page(&open.mapping, index, 0xAA);
    }
    let options = MmOptions { locking: Locking::Speculative, fault_around_bytes: PAGE };
    let mm = Mm::over(shared, options).unwrap();
    let at = mm.mmap(&file, Some(pages * PAGE), 0, prot, shared_mapping).unwrap();
    mm.inner.tables.walk_alloc(at, &rcu::read());
    (mm, file, at)
}

/// The only page there is.
pub(super) fn cached_page(mm: &Mm) -> PageRef<'_> {
    let frames = &mm.inner.shared.frames;
    (0..FRAMES).map(|pfn| frames.page(pfn)).find(|page| page.is_cached()).expect("one page is cached")
}

/// What one page's place in an address space can be: the specification's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    mapped: bool,
    /// Whether an entry is set.
    entry: bool,
}

const READY: Place = Place { mapped: true, entry: false };

/// A speculative attempt; what it came to is a coverage point too. Row 43: it succeeds or says nothing. Row 44: one attempt,
/// one commit or one abort.
fn attempt(mm: &Mm, at: u64, write: bool) -> Result<(), Abort> {
    match mm.inner.fault_speculatively(at, write) {
        Ok(result) => {
            assert!(!result.has(VmFault::ERROR), "an unvalidated state was judged: {result:?}");
            reach(if result.has(VmFault::NOPAGE) { "twin" } else { "commit" });
            Ok(())
        }
        Err(cause) => {
            reach(cause);
            Err(cause)
        }
    }
}

/// The specification of an attempt: where nothing is mapped it cannot succeed; it may always abort.
fn attempt_is_right(place: &mut Place, result: &Result<(), Abort>) -> bool {
    if result.is_ok() {
        place.entry = true;
    }
    result.is_err() || place.mapped
}

/// Whether an entry is there, which the specification must agree with at rest.
fn look(history: &History<Place>, mm: &Mm, at: u64) {
    history.settle();
    let entry = || mm.pagemap(at, PAGE).unwrap() != [0];
    history.call("look for the entry", entry, |place, seen| place.entry == *seen);
    history.check();
    assert!(mm.inner.events.balance(), "attempts are not commits plus aborts: {:?}", mm.vm_events());
}

/// One thread faults speculatively, one unmaps. Claim: afterwards no entry names the page and no reference is left but the
/// cache's. Premise: munmap bumps the sequence before it takes the leaf lock.
fn fault_against_munmap() {
    let (mm, file, at) = one_page(Prot::Read, true);
    let history = History::new(READY);
    let unmapper = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call(
                "munmap",
                || mm.munmap(at, PAGE).unwrap(),
                |place, ()| {
                    *place = Place { mapped: false, entry: false };
                    true
                },
            );
        })
    };
    history.call("fault", || attempt(&mm, at, false), attempt_is_right);
    unmapper.join().unwrap();
    look(&history, &mm, at);
    let page = cached_page(&mm);
    assert_eq!((page.mapcount(), page.refcount()), (0, 1), "{page:?}");
    drop((mm, file));
}

#[test]
fn the_last_sequence_check_against_zap() {
    Model {
        name: "last sequence check against zap",
        rows: &[3, 9, 17, 43, 44],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: fault_against_munmap,
        reaches: &[
            "commit",
            "ODD",
            "UNMAPPED",
            "VMA_COPY",
            "FAULT",
            "PTE_MAP_LOCK_SEQ1",
            "PTE_MAP_LOCK_PMD",
            "PTE_MAP_LOCK_SEQ2",
        ],
        needs: &["pte_map_lock.seq2"],
    }
    .check();
}

/// The slice of the model above that the sequence argument rests on, small enough to have no bound. One thread takes the
/// leaf lock as a speculative fault does and sets the entry; one is inside the mmap lock for writing and then clears the
/// entry. Claim: afterwards there is none. Premises: the mapping is gone once the sequence has moved; the page stays locked.
fn set_against_zap() {
    let (mm, file, at) = one_page(Prot::Read, true);
    let history = History::new(READY);
    let zapper = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            let zap = || {
                drop(mm.inner.lock.write());
                let mut gather = Gather::new(&mm.inner.tables);
                mm.inner.tables.zap(at, at + PAGE, Owner::Any, &mut gather);
                gather.finish();
            };
            history.call("unmap", zap, |place, ()| {
                *place = Place { mapped: false, entry: false };
                true
            });
        })
    };
    history.call(
        "set",
        || set_if_unchanged(&mm, at),
        |place, &set| {
            place.entry |= set;
            !set || place.mapped
        },
    );
    zapper.join().unwrap();
    look(&history, &mm, at);
    drop((mm, file));
}

/// The end of a speculative fault: looks at the sequence, takes the leaf lock, looks again, sets the entry.
fn set_if_unchanged(mm: &Mm, at: u64) -> bool {
    let Some(sequence) = mm.inner.lock.sequence.read_start() else {
        reach("odd");
        return false;
    };
    // A snapshot from before the writer stands for a mapping that was there; one from after would not find it.
    if sequence != 2 {
        return false;
    }
    let section = rcu::read();
    let vma = mm.inner.vmas.load(&section)[0].copy();
    let fault = Fault { mm: &mm.inner, vma, address: at, index: 0, write: false, published: 0 };
    let walk = mm.inner.tables.walk(at, &section).unwrap();
    match fault.pte_map_lock(&walk, Mode::Speculative { sequence }) {
        Ok(locked) => {
            locked.set(at, cached_page(mm).get(), 0);
            reach("set");
            true
        }
        Err(cause) => {
            reach(cause);
            false
        }
    }
}

#[test]
fn setting_an_entry_against_zap() {
    Model {
        name: "setting an entry against zap (slice)",
        rows: &[3, 4],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: set_against_zap,
        reaches: &["set", "odd", "PTE_MAP_LOCK_SEQ1", "PTE_MAP_LOCK_SEQ2", "PTE_MAP_LOCK_PTL"],
        needs: &["pte_map_lock.seq2"],
    }
    .check();
}

/// Two threads fault on one page. Claims: one entry, one reference for it; the loser's is given back.
fn twins() {
    let (mm, file, at) = one_page(Prot::Read, true);
    let history = History::new(READY);
    let twin = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call("fault", || attempt(&mm, at, false), attempt_is_right);
        })
    };
    history.call("fault", || attempt(&mm, at, false), attempt_is_right);
    twin.join().unwrap();
    look(&history, &mm, at);
    let page = cached_page(&mm);
    assert_eq!(page.refcount(), 1 + page.mapcount(), "{page:?}");
    assert!(page.mapcount() <= 1);
    drop((mm, file));
}

#[test]
fn two_faults_on_one_page() {
    Model {
        name: "two speculative faults on one page",
        rows: &[24, 44],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: twins,
        reaches: &["commit", "twin", "FILE_LOCKED"],
        needs: &["finish_fault.pte_none"],
    }
    .check();
}

/// Two threads fault on two pages of one leaf table. Claims: both entries or aborts, nothing in between; the leaf lock is
/// free at the end.
fn neighbours() {
    let (mm, file, at) = mapped(2, Prot::Read, true);
    let history = History::new([READY; 2]);
    let other = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call(
                "fault on the second",
                || attempt(&mm, at + PAGE, false),
                |places, result| attempt_is_right(&mut places[1], result),
            );
        })
    };
    history.call(
        "fault on the first",
        || attempt(&mm, at, false),
        |places, result| attempt_is_right(&mut places[0], result),
    );
    other.join().unwrap();
    history.settle();
    history.call(
        "look for the entries",
        || mm.pagemap(at, 2 * PAGE).unwrap(),
        |places, seen| (0..2).all(|at| places[at].entry == (seen[at] != 0)),
    );
    history.check();
    drop(mm.inner.tables.walk(at, &rcu::read()).unwrap().try_lock().expect("the leaf lock is free"));
    mm.close().unwrap();
    mm.inner.shared.frames.audit().unwrap();
    drop(file);
}

#[test]
fn two_faults_in_one_table() {
    Model {
        name: "two speculative faults in one table",
        rows: &[8, 17, 44],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: neighbours,
        reaches: &["commit", "PTE_MAP_LOCK_PTL"],
        needs: &["leaf.trylock.was_free"],
    }
    .check();
}

/// Two threads store through an entry that lacks the right: each would make a private copy. Claims: one copy is mapped; the
/// other is given back; the file's page loses its entry's reference once.
fn two_stores() {
    let (mm, file, at) = one_page(Prot::ReadWrite, false);
    attempt(&mm, at, false).unwrap();
    mm.inner.vmas.load(&rcu::read())[0].copy().prepare_anon_vma();
    // The state is whether the entry names a private copy.
    let history = History::new(false);
    let right = |private: &mut bool, result: &Result<(), Abort>| {
        *private |= result.is_ok();
        true
    };
    let other = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call("store", || attempt(&mm, at, true), right);
        })
    };
    history.call("store", || attempt(&mm, at, true), right);
    other.join().unwrap();
    history.settle();
    history.call("look", || mm.pagemap(at, PAGE).unwrap()[0] & 4 != 0, |private, seen| private == seen);
    let load = || {
        let mut byte = [0];
        mm.load(at, &mut byte).unwrap();
        byte[0]
    };
    history.call("load", load, |_, &byte| byte == 0xAA);
    history.check();
    mm.close().unwrap();
    rcu::model::drain();
    let page = cached_page(&mm);
    assert_eq!((page.mapcount(), page.refcount()), (0, 1), "{page:?}");
    assert_eq!(mm.inner.shared.frames.in_use(), (1, 0));
    drop(file);
}

#[test]
fn two_stores_through_one_entry() {
    Model {
        name: "two speculative stores through one entry",
        rows: &[24, 43],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: two_stores,
        reaches: &["commit", "PTE_CHANGED", "PTE_MAP_LOCK_PTL"],
        needs: &["do_wp_page.pte_same"],
    }
    .check();
}

/// One thread faults speculatively, one truncates the file to nothing. Claim: a page without a mapping has no entry (row 20).
/// Premise: truncation sets the size, unmaps, locks, unmaps again what is mapped.
fn fault_against_truncate() {
    let (mm, file, at) = one_page(Prot::Read, true);
    let history = History::new(READY);
    let truncater = {
        let (file, history) = (file.open_file().unwrap(), history.clone());
        spawn(move || {
            // Truncated, a place is as good as unmapped.
            history.call(
                "truncate",
                || file.mapping.shrink_pages(0),
                |place, ()| {
                    *place = Place { mapped: false, entry: false };
                    true
                },
            );
        })
    };
    history.call("fault", || attempt(&mm, at, false), attempt_is_right);
    truncater.join().unwrap();
    look(&history, &mm, at);
    assert_eq!(mm.inner.shared.frames.in_use().0, 0);
    drop((mm, file));
}

#[test]
fn a_fault_against_truncate() {
    Model {
        name: "speculative fault against truncate",
        rows: &[18, 20, 43, 44],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: fault_against_truncate,
        reaches: &["commit", "FILE_MISS", "FILE_LOCKED", "FILE_MAPPING"],
        needs: &["truncate.unmap_locked"],
    }
    .check();
}

/// One thread copies a mapping's fields and looks at the sequence; one moves the mapping. Claim: a copy that is accepted is
/// one version of the mapping, never parts of two. Premise: fields change only inside an odd sequence.
fn copy_against_adjust() {
    let (mm, file, _) = one_page(Prot::Read, true);
    let open = file.open_file().unwrap();
    let versions = [(0, PAGE, 0), (PAGE, 3 * PAGE, 1)];
    let [before, after] = versions;
    let vma = Vma::new(before, VmFlags::SHARED, open, Arc::clone(&mm.inner.tables));
    let history = History::new(before);
    let writer = {
        let (mm, vma, history) = (mm.clone(), Arc::clone(&vma), history.clone());
        spawn(move || {
            let adjust = || {
                let lock = mm.inner.lock.write();
                vma.adjust(after.0, after.1, after.2, &lock);
            };
            history.call("adjust", adjust, move |now, ()| std::mem::replace(now, after) == before);
        })
    };
    let copy = || {
        let Some(start) = mm.inner.lock.sequence.read_start() else {
            reach("odd");
            return None;
        };
        let copy = vma.copy();
        let unchanged = mm.inner.lock.sequence.read_check(start);
        reach(if unchanged { "copied" } else { "changed" });
        unchanged.then_some((copy.start, copy.end, copy.pgoff))
    };
    // Torn copies are no version at all.
    history.call("copy", copy, |now, copied| copied.is_none() || *copied == Some(*now));
    writer.join().unwrap();
    history.settle();
    history.call("copy at rest", copy, |now, copied| *copied == Some(*now));
    history.check();
    vma.unlink();
    drop((mm, file));
}

#[test]
fn a_copied_mapping_is_one_version() {
    Model {
        name: "copy of a mapping against a writer",
        rows: &[1, 2, 5],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: copy_against_adjust,
        reaches: &["copied", "changed", "odd"],
        needs: &[
            "seq.start.acquire",
            "seq.start.even",
            "seq.check.fence",
            "seq.begin.fence",
            "seq.end.release",
        ],
    }
    .check();
}
