//! Models of faults against truncation of their file.

use super::super::mmap::Madvise;
use super::*;

/// One thread faults speculatively, one truncates the file to nothing. Claim: a page without a mapping has no entry (row 20).
/// Premise: truncation sets the size, unmaps, locks, and unmaps again the pages that are mapped.
fn fault_against_truncate() {
    let (mm, file, at) = one_page(Prot::Read, true);
    let history = History::new(READY);
    let truncater = {
        let (file, history) = (file.open_file().unwrap(), history.clone());
        spawn(move || {
            // A truncated place counts as unmapped.
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
fn big_a_fault_against_truncate() {
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

/// One thread faults speculatively, one truncates the page away, after the bulk unmap has passed it. Claim and premise as above.
fn fault_against_truncation_of_its_page() {
    let (mm, file, at) = one_page(Prot::Read, true);
    let history = History::new(READY);
    let truncater = {
        let (file, history) = (file.open_file().unwrap(), history.clone());
        spawn(move || {
            history.call(
                "truncate",
                || crate::cache::models::truncate_first_page(&file.mapping),
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
fn big_a_fault_against_truncation_of_its_page() {
    Model {
        name: "speculative fault against truncation of its page",
        rows: &[18, 20],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: fault_against_truncation_of_its_page,
        reaches: &["commit", "FILE_MISS", "FILE_LOCKED", "FILE_MAPPING"],
        needs: &["truncate.unmap_locked"],
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
        needs: &["truncate.size_first", "finish_fault.unlock_last", "truncate.unmap_locked"],
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
        needs: &["truncate.unmap_again", "truncate.unmap_again_last"],
    }
    .check();
}

/// One thread faults with fault-around, one truncates the file to nothing. Claim: no entry is beyond the end, and the count of
/// pages up to the end never goes below zero. Premise: the end is read once, before the lookup.
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

/// One thread faults on the last page of a file that has grown; one takes that page out, which does not sweep a second time.
/// Claim: what has an entry is in the cache. Premise: a page stays locked until its entry is set.
fn fault_against_drop(around_bytes: u64, fault: fn(&Mm, u64) -> bool) {
    let (mm, file, at) = around(around_bytes, 1, 1, 0, Prot::Read, true);
    // Whether the page is cached, and whether it has an entry.
    let history = History::new((true, false));
    let dropper = {
        let (file, history) = (file.open_file().unwrap(), history.clone());
        spawn(move || {
            let take = || file.mapping.drop_partial_page(PAGE - 1);
            history.call("drop the page", take, |state, ()| std::mem::take(state).0);
        })
    };
    history.call(
        "fault",
        || fault(&mm, at),
        |state, &set| {
            state.1 |= set;
            !set || state.0
        },
    );
    dropper.join().unwrap();
    history.settle();
    let entry = || mm.pagemap(at, PAGE).unwrap() != [0];
    history.call("look for the entry", entry, |state, seen| state.1 == *seen);
    history.check();
    drop(file);
}

#[test]
fn big_a_fault_against_the_drop_of_its_page() {
    Model {
        name: "speculative fault against the drop of its page",
        rows: &[18, 20],
        preemption_bound: Some(5),
        grace_periods: false,
        twin: false,
        body: || fault_against_drop(PAGE, |mm, at| attempt(mm, at, false).is_ok()),
        reaches: &["commit", "FILE_MISS", "FILE_LOCKED", "FILE_MAPPING"],
        needs: &["finish_fault.unlock_last", "truncate.unmap_locked"],
    }
    .check();
}

#[test]
fn big_a_fault_around_against_the_drop_of_a_page() {
    Model {
        name: "fault-around against the drop of a page",
        rows: &[18, 20],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: || fault_against_drop(2 * PAGE, |mm, at| attempt(mm, at, false).is_ok()),
        reaches: &["twin", "FILE_MISS"],
        needs: &["map_pages.unlock_last"],
    }
    .check();
}

/// One thread clears an entry, one takes the page out of its file, whose sweep was before, and then loads through the entry. Claim:
/// a page that is out of its file has no entry. Premise: a page counts an entry until it is cleared.
fn zap_against_removal() {
    let (mm, file, at) = one_page(Prot::Read, true);
    attempt(&mm, at, false).unwrap();
    let open = file.open_file().unwrap();
    let found = cached_page(&mm).get().into_pfn();
    let history = History::new(true);
    let zapper = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call(
                "zap",
                || mm.madvise(at, PAGE, Madvise::DontNeed).unwrap(),
                |there, ()| {
                    *there = false;
                    true
                },
            );
        })
    };
    let remove = || crate::cache::models::truncate_found(&open.mapping, found);
    history.call("take the page out", remove, |there, removed| {
        *there = false;
        *removed
    });
    let load = || mm.inner.through_entry(at, false, &mut |_, _| {});
    history.call("load", load, |there, loaded| there == loaded);
    zapper.join().unwrap();
    history.check();
    assert_eq!(mm.inner.shared.frames.usage().in_use, 0);
}

#[test]
fn a_zap_against_the_removal_of_its_page() {
    Model {
        name: "madvise against the removal of its page",
        rows: &[18, 20],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: zap_against_removal,
        reaches: &["truncated"],
        needs: &["pte.clear.seed.counts_first", "page.mapcount.acquire", "page.mapcount.release"],
    }
    .check();
}
