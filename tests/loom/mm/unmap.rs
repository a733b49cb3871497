//! Models of faults against operations that remove their mapping or their entry: munmap, zapping, reclaim.

use super::super::events::Event;
use super::super::memory::{Fault, Finish, Mode};
use super::super::mmap::Madvise;
use super::super::page_table::Owner;
use super::*;
use crate::cache::{HeldPage, MmuGather};

/// One thread faults speculatively, one unmaps. Claim: afterwards no entry maps the page, and only the cache's reference is left.
/// Premise: munmap bumps the sequence before it takes the leaf lock.
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
        preemption_bound: Some(5),
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

/// The slice of the model above that the sequence argument rests on, small enough to have no bound. One thread ends a speculative
/// fault: it has the page locked and sets the entry; one unmaps. Claim: afterwards there is no entry.
fn set_against_zap() {
    let (mm, file, at) = one_page(Prot::Read, true);
    let history = History::new(READY);
    let zapper = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call(
                "unmap",
                || mm.inner.unmap_all(),
                |place, ()| {
                    *place = Place { mapped: false, entry: false };
                    true
                },
            );
        })
    };
    history.call(
        "set",
        || end_of_fault(&mm, at),
        |place, &set| {
            place.entry |= set;
            !set || place.mapped
        },
    );
    zapper.join().unwrap();
    look(&history, &mm, at);
    drop((mm, file));
}

/// A speculative fault without its lookup in the page cache: the page is at hand.
fn end_of_fault(mm: &Mm, at: u64) -> bool {
    mm.inner.count(Event::SpfAttempt);
    let section = rcu::read();
    let set = mm.inner.find_and_copy(at, false, &section).and_then(|(vma, sequence)| {
        let Ok(walk) = mm.inner.tables.walk(at, &section) else { return Err(Abort::Pmd) };
        let handle = cached_page(mm).get();
        let held = HeldPage { lock: handle.page().try_lock().expect("only this thread locks it"), handle };
        let mut fault = Fault { mm: &mm.inner, vma, address: at, index: 0, write: false, published: 0 };
        fault.map_page(Mode::Speculative { walk: &walk, sequence }, held)
    });
    match set {
        Ok(Finish::Set) => reach("set"),
        Ok(Finish::Twin) => panic!("only this thread sets it"),
        Err(cause) => {
            mm.inner.events.add_abort(cause);
            reach(cause);
        }
    }
    set.is_ok()
}

#[test]
fn big_setting_an_entry_against_zap() {
    Model {
        name: "setting an entry against zap (slice)",
        rows: &[3, 4],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: set_against_zap,
        reaches: &["set", "ODD", "PTE_MAP_LOCK_SEQ1", "PTE_MAP_LOCK_SEQ2", "PTE_MAP_LOCK_PTL"],
        needs: &["pte_map_lock.seq2", "pte.set.mapcount", "zap.seed.skips_the_lock"],
    }
    .check();
}

/// One thread sets an entry as a speculative fault does; one clears the other entry of the leaf, as reclaim does, which does not
/// change the sequence. Claim: the entry that is set stays. Premise: a thread that gets the lock of a leaf checks whether it is
/// still in the tree.
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
    let set = || end_of_fault(&mm, at);
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
        reaches: &["set", "PMD", "PTE_MAP_LOCK_PMD", "PTE_MAP_LOCK_PTL"],
        needs: &["pte_map_lock.pmd"],
    }
    .check();
}

/// The whole attempt against the whole of munmap, with sections and grace periods. Claims: the file is alive wherever the attempt
/// touches it, and released when munmap has returned. Premise: one section covers the attempt.
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
fn big_a_file_outlives_its_fault() {
    Model {
        name: "a fault's file against munmap",
        rows: &[10, 11, 12, 13],
        preemption_bound: Some(3),
        grace_periods: true,
        twin: false,
        body: file_against_munmap,
        reaches: &["commit", "ODD", "UNMAPPED", "VMA_COPY", "FAULT"],
        needs: &["spf.seed.section_lapses", "munmap.barrier"],
    }
    .check();
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
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: || ending_against_munmap(|mm, at| mm.fault(at, false).result),
        reaches: &["mapped", "failed"],
        needs: &["pte_map_lock.seq2", "classic.mapped"],
    }
    .check();
}

/// One thread faults on a page, one zaps it and the only entry of its table, without changing the mapping. Claims: an entry that was
/// set stays where faults find it, or was cleared; each page counts the entries that map it.
fn fault_against_zap(fault: fn(&Mm, u64) -> bool) {
    let (mm, file, at) = mapped(2, Prot::Read, true);
    attempt(&mm, at + PAGE, false).unwrap();
    let history = History::new(READY);
    let zapper = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            let zap = || mm.madvise(at, 2 * PAGE, Madvise::DontNeed).unwrap();
            history.call("zap", zap, |place, ()| {
                place.entry = false;
                true
            });
        })
    };
    history.call(
        "fault",
        || fault(&mm, at),
        |place, &set| {
            place.entry |= set;
            true
        },
    );
    zapper.join().unwrap();
    look(&history, &mm, at);
    for page in (0..FRAMES).map(|pfn| mm.inner.shared.frames.page(pfn)).filter(|page| page.is_cached()) {
        let entries = u32::from(mm.pagemap(at + page.index() * PAGE, PAGE).unwrap() != [0]);
        assert_eq!((page.mapcount(), page.refcount()), (entries, 1 + entries), "{page:?}");
    }
    drop(file);
}

#[test]
fn a_fault_against_madvise() {
    Model {
        name: "speculative fault against madvise",
        rows: &[6, 44],
        preemption_bound: Some(5),
        grace_periods: false,
        twin: false,
        body: || fault_against_zap(|mm, at| attempt(mm, at, false).is_ok()),
        reaches: &["commit", "PMD", "PTE_MAP_LOCK_PMD", "PTE_MAP_LOCK_PTL"],
        needs: &["pte_map_lock.pmd", "leaf.trylock.was_free"],
    }
    .check();
}

#[test]
fn big_a_classic_fault_against_madvise() {
    Model {
        name: "classic fault against madvise",
        rows: &[6, 45],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: || fault_against_zap(|mm, at| !classic(mm, at, false).has(VmFault::ERROR)),
        reaches: &[],
        needs: &["leaf.lock.current"],
    }
    .check();
}
