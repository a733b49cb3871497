//! Models of the address space: the sequence, the last check against zapping, twins, truncation against a fault.

use super::memory::{Fault, Mode};
use super::mmap::Prot;
use super::page_table::Owner;
use super::vma::VmFlags;
use super::{Mm, MmOptions};
use crate::cache::MmuGather;
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

pub(super) fn mapped(pages: u64, prot: Prot, shared_mapping: bool) -> (Mm, File, u64) {
    around(PAGE, pages, pages, 0, prot, shared_mapping)
}

/// A file of which the pages from `first` on are cached, its first `pages` mapped where the tables exist already.
pub(super) fn around(
    fault_around_bytes: u64,
    pages: u64,
    file_pages: u64,
    first: u64,
    prot: Prot,
    shared_mapping: bool,
) -> (Mm, File, u64) {
    let shared = Shared::new(FRAMES as usize, Io::Inline).unwrap();
    let bytes = vec![0xAA; file_pages as usize * PAGE_SIZE];
    let file = File::in_memory(&shared, Arc::new(MemoryStore::new(bytes)), file_pages * PAGE);
    let open: Arc<OpenFile> = file.open_file().unwrap();
    for index in first..file_pages {
        crate::cache::models::cache_page(&open.mapping, index, 0xAA);
    }
    let options = MmOptions::default().fault_around_bytes(fault_around_bytes);
    let mm = Mm::over(shared, options).unwrap();
    let at = mm.mmap(&file, Some(pages * PAGE), 0, prot, shared_mapping).unwrap();
    for page in 0..pages {
        mm.inner.tables.walk_alloc(at + page * PAGE, &rcu::read()).expect("memory");
    }
    (mm, file, at)
}

/// The only page there is.
pub(super) fn cached_page(mm: &Mm) -> PageRef<'_> {
    let frames = &mm.inner.shared.frames;
    (0..FRAMES).map(|pfn| frames.page(pfn)).find(|page| page.is_cached()).expect("one page is cached")
}

/// A byte, by a fault if need be.
pub(super) fn load_byte(mm: &Mm, at: u64) -> u8 {
    let mut byte = [0];
    mm.load(at, &mut byte).unwrap();
    byte[0]
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
pub(super) fn attempt(mm: &Mm, at: u64, write: bool) -> Result<(), Abort> {
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
#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form of a specification")]
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
            "PTE_MAP_LOCK_SEQ2",
        ],
        needs: &["munmap.seed.detach_late"],
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
                let mut gather = MmuGather::new(mm.inner.tables.frames());
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
    let Ok(walk) = mm.inner.tables.walk(at, &section) else {
        reach("missing");
        return false;
    };
    match fault.pte_map_lock(Mode::Speculative { walk: &walk, sequence }) {
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
        needs: &["pte_map_lock.seq2", "pte.set.mapcount", "zap.seed.skips_the_lock"],
    }
    .check();
}

/// One thread sets an entry as a speculative fault does; one clears the other entry of the leaf, as reclaim does, which moves
/// no sequence. Claim: what is set stays. Premise: who has got the lock of a leaf looks whether it is still in the tree.
fn set_against_reclaim() {
    let (mm, file, at) = mapped(2, Prot::Read, true);
    attempt(&mm, at + PAGE, false).unwrap();
    let history = History::new(READY);
    let zapper = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            let zap = || {
                let mut gather = MmuGather::new(mm.inner.tables.frames());
                mm.inner.tables.zap(at + PAGE, at + 2 * PAGE, Owner::File, &mut gather);
                gather.finish();
            };
            history.call("zap the other", zap, |_, ()| true);
        })
    };
    let set = || set_if_unchanged(&mm, at);
    history.call("set", set, |place, &set| {
        place.entry |= set;
        true
    });
    zapper.join().unwrap();
    look(&history, &mm, at);
    drop((mm, file));
}

#[test]
fn setting_an_entry_against_reclaim() {
    Model {
        name: "setting an entry against reclaim (slice)",
        rows: &[6],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: set_against_reclaim,
        reaches: &["set", "missing", "PTE_MAP_LOCK_PMD", "PTE_MAP_LOCK_PTL"],
        needs: &["pte_map_lock.pmd"],
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
    mm.inner.shared.frames.audit(&[]).unwrap();
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
        needs: &[],
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
    history.call("load", || load_byte(&mm, at), |_, &byte| byte == 0xAA);
    history.check();
    mm.close().unwrap();
    rcu::model::drain();
    let page = cached_page(&mm);
    assert_eq!((page.mapcount(), page.refcount()), (0, 1), "{page:?}");
    assert_eq!(mm.inner.shared.frames.usage().in_use, 1);
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
    assert_eq!(mm.inner.shared.frames.usage().in_use, 0);
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

/// One thread finds a mapping, copies it and looks at the sequence, as a speculative fault begins; one moves the mapping.
/// Claim: a copy that is accepted is one version of the mapping and holds the address, never parts of two. Premise: fields
/// change only inside an odd sequence.
fn copy_against_adjust() {
    let (mm, file, _) = one_page(Prot::Read, true);
    let versions = [(0, 3 * PAGE, 0), (PAGE, 2 * PAGE, 5)];
    let [before, after] = versions;
    let vma = Arc::clone(&mm.inner.vmas.load(&rcu::read())[0]);
    vma.adjust(before.0, before.1, before.2, &mm.inner.lock.write());
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
    let copy = |address| {
        let section = rcu::read();
        let found = mm.inner.find_and_copy(address, false, &section);
        let found = found.map(|(vma, _)| (vma.start, vma.end, vma.pgoff));
        match found {
            Ok(_) => reach("copied"),
            Err(cause) => reach(cause),
        }
        found
    };
    // Torn copies are no version at all.
    history.call("copy", || copy(PAGE), |now, copied| copied.is_err() || *copied == Ok(*now));
    writer.join().unwrap();
    history.settle();
    history.call("copy at rest", || copy(PAGE), |now, copied| *copied == Ok(*now));
    history.call("copy below", || copy(0), |_, copied| *copied == Err(Abort::Unmapped));
    history.check();
    drop((mm, file));
}

#[test]
fn big_a_copied_mapping_is_one_version() {
    Model {
        name: "copy of a mapping against a writer",
        rows: &[1, 2, 5],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: copy_against_adjust,
        reaches: &["copied", "VMA_COPY", "ODD", "UNMAPPED"],
        needs: &[
            "seq.start.acquire",
            "seq.start.even",
            "seq.check.fence",
            "seq.begin.fence",
            "seq.end.release",
            "spf.vma_copy",
            "spf.mapped",
            "spf.seed.live_vma",
            "mmap_lock.write.odd",
        ],
    }
    .check();
}

/// Two writers. Claim: the sequence counts both, so no reader between them takes one for the other. Premise: the sequence is
/// even again before the next writer is let in.
fn two_writers() {
    let (mm, file, _) = one_page(Prot::Read, true);
    let start = mm.inner.lock.sequence.read_start();
    let history = History::new(start);
    let write = |history: &History<Option<u64>>, mm: &Mm| {
        history.call(
            "write",
            || drop(mm.inner.lock.write()),
            |sequence, ()| {
                *sequence = sequence.map(|sequence| sequence + 2);
                true
            },
        );
    };
    let other = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || write(&history, &mm))
    };
    write(&history, &mm);
    other.join().unwrap();
    history.settle();
    history.call("read", || mm.inner.lock.sequence.read_start(), |sequence, seen| seen == sequence);
    history.check();
    drop((mm, file));
}

#[test]
fn two_writers_of_the_sequence() {
    Model {
        name: "two writers of the sequence",
        rows: &[2],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: two_writers,
        reaches: &[],
        needs: &["mmap_lock.seed.unlock_first"],
    }
    .check();
}

/// One thread finds a mapping and touches its file in a read section; one takes the mapping away and lets it go. Claim:
/// mapping and file are alive until the section ends. Premise: whatever the array held is dropped after a grace period.
fn find_against_free() {
    let (mm, file, at) = one_page(Prot::Read, true);
    drop(file);
    let history = History::new(true);
    let freer = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            let free = || {
                mm.inner.vmas.load(&rcu::read())[0].unlink();
                mm.inner.vmas.publish(Vec::new(), &mm.inner.lock.write());
                rcu::synchronize();
            };
            history.call("free", free, |there, ()| std::mem::replace(there, false));
        })
    };
    let find = || {
        let section = rcu::read();
        let found = mm.inner.find_and_copy(at, false, &section);
        match found {
            Ok((vma, _)) => {
                reach("found");
                assert_eq!(vma.file().mapping.pages_in_file(), 1);
            }
            Err(cause) => reach(cause),
        }
        found.is_ok()
    };
    history.call("find", find, |there, found| !found || *there);
    freer.join().unwrap();
    history.settle();
    history.call("find at rest", find, |there, found| found == there);
    history.check();
}

#[test]
fn a_found_mapping_is_alive() {
    Model {
        name: "finding a mapping against its end",
        rows: &[10, 12],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: find_against_free,
        reaches: &["found", "UNMAPPED"],
        needs: &["vmas.seed.freed_at_once"],
    }
    .check();
}

/// The whole attempt against the whole of munmap, with sections and grace periods. Claims: the file is alive wherever the
/// attempt touches it, and let go when munmap has returned. Premise: one section covers the attempt.
fn file_against_munmap() {
    let (mm, file, at) = one_page(Prot::Read, true);
    let open = Arc::downgrade(&file.open_file().unwrap());
    drop(file);
    let history = History::new(READY);
    let unmapper = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            let unmap = || {
                mm.munmap(at, PAGE).unwrap();
                open.strong_count()
            };
            history.call("munmap", unmap, |place, files| {
                *place = Place { mapped: false, entry: false };
                *files == 0
            });
        })
    };
    history.call("fault", || attempt(&mm, at, false), attempt_is_right);
    unmapper.join().unwrap();
    look(&history, &mm, at);
}

#[test]
fn a_file_outlives_its_fault() {
    Model {
        name: "a fault's file against munmap",
        rows: &[10, 11, 12, 13],
        preemption_bound: Some(2),
        grace_periods: true,
        twin: false,
        body: file_against_munmap,
        reaches: &["commit", "ODD", "UNMAPPED", "VMA_COPY", "FAULT"],
        needs: &["spf.seed.section_lapses", "munmap.barrier"],
    }
    .check();
}

/// What one page's place in a private mapping can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PrivatePlace {
    may_store: bool,
    copied: bool,
}

/// One thread stores (speculatively, or under the lock), one takes the right to store away. Claim: afterwards no entry allows
/// a store. Premise: the right goes from the mapping before it goes from the entries, inside an odd sequence.
fn store_against_mprotect(store: fn(&Mm, u64) -> bool) {
    let (mm, file, at) = one_page(Prot::ReadWrite, false);
    mm.inner.vmas.load(&rcu::read())[0].copy().prepare_anon_vma();
    let history = History::new(PrivatePlace { may_store: true, copied: false });
    let protecter = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call(
                "mprotect",
                || mm.mprotect(at, PAGE, Prot::Read).unwrap(),
                |place, ()| std::mem::replace(&mut place.may_store, false),
            );
        })
    };
    let fault = || {
        let stored = store(&mm, at);
        reach(if stored { "stored" } else { "refused" });
        stored
    };
    history.call("store", fault, |place, stored| {
        place.copied |= stored;
        !stored || place.may_store
    });
    protecter.join().unwrap();
    history.settle();
    // Present, not writable, private: or nothing.
    let right = |place: &mut PrivatePlace, seen: &u8| *seen == if place.copied { 1 | 4 } else { 0 };
    history.call("look for the entry", || mm.pagemap(at, PAGE).unwrap()[0], right);
    history.check();
    drop((mm, file));
}

#[test]
fn a_store_against_mprotect() {
    Model {
        name: "speculative store against mprotect",
        rows: &[3, 43],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: || store_against_mprotect(|mm, at| attempt(mm, at, true).is_ok()),
        reaches: &["stored", "refused", "ACCESS_ERROR"],
        needs: &["spf.access", "mprotect.write_protect"],
    }
    .check();
}

#[test]
fn a_classic_store_against_mprotect() {
    Model {
        name: "classic store against mprotect",
        rows: &[45],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || store_against_mprotect(|mm, at| !classic(mm, at, true).has(VmFault::SIGSEGV)),
        reaches: &["stored", "refused"],
        needs: &["classic.access"],
    }
    .check();
}

/// A fault on the classic path, whatever comes of it.
fn classic(mm: &Mm, at: u64, write: bool) -> VmFault {
    let result = mm.inner.fault_classically(at, write).result;
    assert!(!result.has(VmFault::RETRY), "a retry is not for the caller: {result:?}");
    result
}

/// One thread faults, one unmaps the first of two pages. Claims: the fault ends, with SIGSEGV only where nothing is mapped;
/// afterwards no entry is left there. Premise: the mmap lock.
fn ending_against_munmap(fault: fn(&Mm, u64) -> VmFault) {
    let (mm, file, at) = mapped(2, Prot::Read, true);
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
    let end = || {
        let result = fault(&mm, at);
        reach(if result.has(VmFault::ERROR) { "failed" } else { "mapped" });
        result.bits() & VmFault::ERROR.bits()
    };
    history.call("fault", end, |place, &error| {
        place.entry |= place.mapped;
        error == if place.mapped { 0 } else { VmFault::SIGSEGV.bits() }
    });
    unmapper.join().unwrap();
    look(&history, &mm, at);
    drop((mm, file));
}

#[test]
fn a_classic_fault_against_munmap() {
    Model {
        name: "classic fault against munmap",
        rows: &[45],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || ending_against_munmap(|mm, at| classic(mm, at, false)),
        reaches: &["mapped", "failed"],
        needs: &["classic.mapped"],
    }
    .check();
}

#[test]
fn a_fault_ends_beside_munmap() {
    Model {
        name: "speculative, then classic fault against munmap",
        rows: &[44, 45],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: || ending_against_munmap(|mm, at| mm.fault(at, false).result),
        reaches: &["mapped", "failed"],
        needs: &[],
    }
    .check();
}

/// One thread faults on the classic path, one truncates the file to nothing. Claims: the fault ends, with SIGBUS only if the
/// file ends before the page; afterwards there is no entry. Premise: the size changes before page locks are taken.
fn ending_against_truncate() {
    let (mm, file, at) = one_page(Prot::Read, true);
    let history = History::new(READY);
    let truncater = {
        let (file, history) = (file.open_file().unwrap(), history.clone());
        spawn(move || {
            history.call(
                "truncate",
                || crate::cache::models::shrink_to_nothing(&file.mapping),
                |place, ()| {
                    *place = Place { mapped: false, entry: false };
                    true
                },
            );
        })
    };
    let end = || {
        let result = classic(&mm, at, false);
        reach(if result.has(VmFault::ERROR) { "failed" } else { "mapped" });
        result.bits() & VmFault::ERROR.bits()
    };
    history.call("fault", end, |place, &error| {
        place.entry |= place.mapped;
        error == if place.mapped { 0 } else { VmFault::SIGBUS.bits() }
    });
    truncater.join().unwrap();
    look(&history, &mm, at);
    assert_eq!(mm.inner.shared.frames.usage().in_use, 0);
    drop((mm, file));
}

#[test]
fn big_a_classic_fault_against_truncate() {
    Model {
        name: "classic fault against truncate, whole",
        rows: &[20, 21, 45],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: ending_against_truncate,
        reaches: &["mapped", "failed"],
        needs: &[],
    }
    .check();
}

/// One thread faults speculatively, one on the classic path, on one page. Claims as for two speculative faults.
fn mixed_twins() {
    let (mm, file, at) = one_page(Prot::Read, true);
    let history = History::new(READY);
    let twin = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call(
                "classic fault",
                || classic(&mm, at, false).bits(),
                |place, &result| {
                    place.entry = true;
                    result & VmFault::ERROR.bits() == 0
                },
            );
        })
    };
    history.call("fault", || attempt(&mm, at, false), attempt_is_right);
    twin.join().unwrap();
    look(&history, &mm, at);
    let page = cached_page(&mm);
    assert_eq!((page.mapcount(), page.refcount()), (1, 2), "{page:?}");
    drop((mm, file));
}

#[test]
fn a_speculative_and_a_classic_fault() {
    Model {
        name: "a speculative and a classic fault on one page",
        rows: &[24, 45],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: mixed_twins,
        reaches: &["commit"],
        needs: &[],
    }
    .check();
}

/// One thread stores speculatively in a mapping that no copy was prepared for, one stores on the classic path. Claim: a
/// private copy is only in a mapping that was prepared for it.
fn unprepared_store() {
    let (mm, file, at) = one_page(Prot::ReadWrite, false);
    attempt(&mm, at, false).unwrap();
    let history = History::new(false);
    let other = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call(
                "classic store",
                || !classic(&mm, at, true).has(VmFault::ERROR),
                |copied, stored| {
                    *copied = true;
                    *stored
                },
            );
        })
    };
    let store = || attempt(&mm, at, true);
    history.call("store", store, |copied, result| {
        *copied |= result.is_ok();
        true
    });
    other.join().unwrap();
    history.settle();
    history.call("look", || mm.pagemap(at, PAGE).unwrap()[0] & 4 != 0, |copied, seen| copied == seen);
    let prepared = || mm.inner.vmas.load(&rcu::read())[0].copy().flags.has(VmFlags::ANON_VMA);
    history.call("was it prepared", prepared, |copied, prepared| copied == prepared);
    history.check();
    rcu::model::drain();
    drop((mm, file));
}

#[test]
fn copies_are_prepared_for() {
    Model {
        name: "store where no copy was prepared for",
        rows: &[43, 45],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: unprepared_store,
        reaches: &["commit", "ANON_VMA"],
        needs: &["spf.anon_vma"],
    }
    .check();
}

/// One thread stores speculatively to a private mapping, one truncates the file to nothing. Claim: no private copy is left
/// beyond the end (row 22). Premise: truncation unmaps once more after it has taken the pages.
fn store_against_truncate() {
    let (mm, file, at) = one_page(Prot::ReadWrite, false);
    mm.inner.vmas.load(&rcu::read())[0].copy().prepare_anon_vma();
    let history = History::new(READY);
    let truncater = {
        let (file, history) = (file.open_file().unwrap(), history.clone());
        spawn(move || {
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
    history.call("store", || attempt(&mm, at, true), attempt_is_right);
    truncater.join().unwrap();
    look(&history, &mm, at);
    assert_eq!(mm.inner.shared.frames.usage().in_use, 0);
    drop((mm, file));
}

#[test]
fn big_a_store_against_truncate() {
    Model {
        name: "speculative store against truncate",
        rows: &[18, 22, 43],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: store_against_truncate,
        reaches: &["commit", "FILE_MISS", "FILE_LOCKED", "FILE_MAPPING"],
        needs: &["truncate.unmap_again"],
    }
    .check();
}

/// Every entry of the first `pages` pages of the mapping at 0 names the file's page of that index, and none is beyond.
fn entries_are_right(mm: &Mm, pages: u64) {
    let section = rcu::read();
    for page in 0..4 {
        let Ok(walk) = mm.inner.tables.walk(page * PAGE, &section) else { continue };
        let pte = walk.get(page * PAGE);
        if !pte.is_none() {
            let named = mm.inner.shared.frames.page(pte.pfn()).index();
            assert!(page < pages, "an entry beyond the mapping, for page {named}");
            assert_eq!(named, page, "the entry of page {page} names another");
        }
    }
}

/// Two threads fault with fault-around in neighbouring tables of a mapping that is shorter than its file and whose first page
/// is not cached. Claim: what is mapped around a fault lies in its table, its mapping and its file, each page at its address.
fn around_borders() {
    let (mm, file, at) = around(4 * PAGE, 3, 4, 1, Prot::Read, true);
    let history = History::new([READY; 2]);
    let other = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call(
                "fault in the second table",
                || attempt(&mm, at + 2 * PAGE, false),
                |places, result| attempt_is_right(&mut places[1], result),
            );
        })
    };
    history.call(
        "fault in the first table",
        || attempt(&mm, at + PAGE, false),
        |places, result| attempt_is_right(&mut places[0], result),
    );
    other.join().unwrap();
    history.settle();
    history.call(
        "look for the entries",
        || mm.pagemap(at + PAGE, 2 * PAGE).unwrap(),
        |places, seen| (0..2).all(|at| !places[at].entry || seen[at] != 0),
    );
    history.check();
    entries_are_right(&mm, 3);
    drop((mm, file));
}

#[test]
fn fault_around_keeps_within_its_borders() {
    Model {
        name: "two fault-arounds at borders",
        rows: &[38, 39],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: around_borders,
        reaches: &["twin"],
        needs: &["map_pages.seed.below_table", "map_pages.seed.beyond_vma", "map_pages.seed.beyond_table"],
    }
    .check();
}

/// Two threads fault with fault-around on two pages of one table. Claims: each entry is set once and owns one reference.
fn around_twins() {
    let (mm, file, at) = around(2 * PAGE, 2, 2, 0, Prot::Read, true);
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
        |places, seen| (0..2).all(|at| !places[at].entry || seen[at] != 0),
    );
    history.check();
    entries_are_right(&mm, 2);
    for pfn in 0..FRAMES {
        let page = mm.inner.shared.frames.page(pfn);
        assert!(!page.is_cached() || page.refcount() == 1 + page.mapcount(), "{page:?}");
    }
    drop((mm, file));
}

#[test]
fn two_fault_arounds() {
    Model {
        name: "two fault-arounds in one table",
        rows: &[24, 44],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: around_twins,
        reaches: &["twin", "FILE_LOCKED"],
        needs: &["map_pages.pte_none"],
    }
    .check();
}

/// One thread faults with fault-around, one truncates the file to nothing. Claim: no entry is beyond the end, and counting
/// pages up to the end never goes below zero. Premise: the end is looked at once, before the lookup.
fn around_against_truncate() {
    let (mm, file, at) = around(2 * PAGE, 2, 2, 0, Prot::Read, true);
    let history = History::new(READY);
    let truncater = {
        let (file, history) = (file.open_file().unwrap(), history.clone());
        spawn(move || {
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
    entries_are_right(&mm, 0);
    assert_eq!(mm.inner.shared.frames.usage().in_use, 0);
    drop((mm, file));
}

#[test]
fn big_a_fault_around_against_truncate() {
    Model {
        name: "fault-around against truncate, whole",
        rows: &[20, 38],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: around_against_truncate,
        reaches: &["twin", "FILE_MISS"],
        needs: &["map_pages.seed.eof_after_lookup"],
    }
    .check();
}

/// Two threads fault on two pages of one table; a file's misses were counted before. Claim: each attempt that commits takes
/// one back, an attempt that aborts none. Premise: hits are credited after the entry is set.
fn credits() {
    let (mm, file, at) = mapped(2, Prot::Read, true);
    crate::cache::models::count_misses(&file, 5);
    let history = History::new(5);
    let fault = |history: &History<u32>, mm: &Mm, at| {
        history.call(
            "fault",
            || attempt(mm, at, false),
            |misses, result| {
                *misses -= u32::from(result.is_ok());
                true
            },
        );
    };
    let other = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || fault(&history, &mm, at + PAGE))
    };
    fault(&history, &mm, at);
    other.join().unwrap();
    history.settle();
    history.call("misses", || file.readahead_state().unwrap().mmap_miss, |misses, left| misses == left);
    history.check();
    drop((mm, file));
}

#[test]
fn hits_are_credited_once() {
    Model {
        name: "two credits of hits",
        rows: &[33, 34, 44],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: credits,
        reaches: &["commit", "PTE_MAP_LOCK_PTL"],
        needs: &["finish_fault.seed.credited_early"],
    }
    .check();
}
