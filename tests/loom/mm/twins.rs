//! Models of two faults at once, on one page or in one table.

use super::*;

/// Two threads fault on one page. Claims: one entry, one reference for it; the loser's is put.
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
fn big_two_faults_on_one_page() {
    Model {
        name: "two speculative faults on one page",
        rows: &[24, 44],
        preemption_bound: Some(4),
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
fn big_two_faults_in_one_table() {
    Model {
        name: "two speculative faults in one table",
        rows: &[8, 17, 44],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: neighbours,
        reaches: &["commit", "PTE_MAP_LOCK_PTL"],
        needs: &["leaf.trylock.was_free"],
    }
    .check();
}

/// Two threads store through a read-only entry: each would make a private copy. Claims: one copy is mapped; the other is freed;
/// the file's page loses its entry's reference once.
fn two_stores() {
    let (mm, file, at) = one_page(Prot::ReadWrite, false);
    attempt(&mm, at, false).unwrap();
    mm.inner.vmas.load(&rcu::read())[0].copy().prepare_anon_vma();
    // The state is whether the entry maps a private copy.
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
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: two_stores,
        reaches: &["commit", "PTE_CHANGED", "PTE_MAP_LOCK_PTL"],
        needs: &["do_wp_page.pte_same"],
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
fn big_a_speculative_and_a_classic_fault() {
    Model {
        name: "a speculative and a classic fault on one page",
        rows: &[24, 45],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: mixed_twins,
        reaches: &["commit"],
        needs: &["finish_fault.pte_none", "leaf.trylock.was_free"],
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
fn big_hits_are_credited_once() {
    Model {
        name: "two credits of hits",
        rows: &[33, 34, 44],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: credits,
        reaches: &["commit", "PTE_MAP_LOCK_PTL"],
        needs: &["finish_fault.seed.credited_early"],
    }
    .check();
}
