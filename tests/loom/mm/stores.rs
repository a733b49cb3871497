//! Models of stores to private mappings: the permission to store, and the preparation for a copy.

use super::super::vma::VmFlags;
use super::*;

/// The states of one page's place in a private mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PrivatePlace {
    may_store: bool,
    copied: bool,
}

/// One thread stores (speculatively, or under the lock), one makes the mapping read-only. Claim: afterwards no entry allows a
/// store. Premise: the mapping becomes read-only before the entries do, inside an odd sequence.
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
fn big_a_store_against_mprotect() {
    Model {
        name: "speculative store against mprotect",
        rows: &[3, 43],
        preemption_bound: Some(5),
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

/// One thread stores speculatively in a mapping that is not prepared for a copy, one stores on the classic path. Claim: a private
/// copy exists only in a mapping that was prepared for it.
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
        preemption_bound: Some(5),
        grace_periods: false,
        twin: false,
        body: unprepared_store,
        reaches: &["commit", "ANON_VMA"],
        needs: &["spf.anon_vma"],
    }
    .check();
}

/// One thread stores to a page without an entry, one loads through the entry. Claim: a load that finds the entry finds the file's
/// bytes. Premise: a private copy is filled before its entry is set.
fn load_against_copy() {
    let (mm, file, at) = one_page(Prot::ReadWrite, false);
    mm.inner.vmas.load(&rcu::read())[0].copy().prepare_anon_vma();
    let history = History::new(false);
    let storer = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            let fault = || attempt(&mm, at, true).is_ok();
            history.call("fault", fault, |there, set| *set && !std::mem::replace(there, true));
        })
    };
    let load = || {
        let mut byte = [0];
        let loaded = mm.inner.through_entry(at, false, &mut |bytes, within| bytes.read(within, &mut byte));
        reach(if loaded { "loaded" } else { "no entry" });
        loaded.then_some(byte[0])
    };
    history.call("load", load, |there, byte| *byte == there.then_some(0xAA));
    storer.join().unwrap();
    history.settle();
    history.call("load at rest", load, |there, byte| *byte == there.then_some(0xAA));
    history.check();
    drop(file);
}

#[test]
fn a_load_against_a_copy() {
    Model {
        name: "load against a private copy being made",
        rows: &[19],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: load_against_copy,
        reaches: &["loaded", "no entry"],
        needs: &["do_cow.copy_first"],
    }
    .check();
}

/// One thread makes two pages read-only of which the first has a writable entry; one stores to the second and then through that
/// entry. Claim: once a store was refused, none is allowed. Premise: entries are made read-only under the mmap lock.
fn stores_against_mprotect() {
    let (mm, file, at) = mapped(2, Prot::ReadWrite, false);
    assert!(!classic(&mm, at, true).has(VmFault::ERROR));
    let history = History::new(true);
    let protecter = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call(
                "mprotect",
                || mm.mprotect(at, 2 * PAGE, Prot::Read).unwrap(),
                |may_store, ()| std::mem::replace(may_store, false),
            );
        })
    };
    let fault = || !classic(&mm, at + PAGE, true).has(VmFault::ERROR);
    history.call("store to the second", fault, |may_store, stored| stored == may_store);
    let through = || {
        let stored = mm.inner.through_entry(at, true, &mut |bytes, within| bytes.write(within, &[1; 8]));
        reach(if stored { "stored" } else { "refused" });
        stored
    };
    history.call("store to the first", through, |may_store, stored| stored == may_store);
    protecter.join().unwrap();
    history.settle();
    let look = || mm.pagemap(at, 2 * PAGE).unwrap();
    history.call("look for the right", look, |_, seen| seen.iter().all(|entry| entry & 2 == 0));
    history.check();
    drop(file);
}

#[test]
fn two_stores_against_mprotect() {
    Model {
        name: "stores to two pages against mprotect",
        rows: &[53],
        preemption_bound: Some(7),
        grace_periods: false,
        twin: false,
        body: stores_against_mprotect,
        reaches: &["stored", "refused"],
        needs: &["mprotect.entries_inside"],
    }
    .check();
}

/// One thread makes a private copy read-only, one loads from it. Claim: the load gets the copy's bytes; afterwards the entry is
/// there and allows no store. Premise: rights change by an exchange that fails, and is tried again, if a program has set a bit.
fn load_against_mprotect() {
    let (mm, file, at) = one_page(Prot::ReadWrite, false);
    assert!(!classic(&mm, at, true).has(VmFault::ERROR));
    // As if nobody had used it yet.
    let section = rcu::read();
    let walk = mm.inner.tables.walk(at, &section).unwrap();
    assert!(walk.age(at, walk.get(at)));
    drop(section);
    let history = History::new(true);
    let protecter = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call(
                "mprotect",
                || mm.mprotect(at, PAGE, Prot::Read).unwrap(),
                |may_store, ()| std::mem::replace(may_store, false),
            );
        })
    };
    let load = || {
        let mut byte = [0];
        if !mm.inner.through_entry(at, false, &mut |bytes, within| bytes.read(within, &mut byte)) {
            reach("again");
            mm.load(at, &mut byte).unwrap();
        }
        byte[0]
    };
    history.call("load", load, |_, &byte| byte == 0xAA);
    protecter.join().unwrap();
    history.settle();
    history.call("look for the entry", || mm.pagemap(at, PAGE).unwrap(), |_, seen| *seen == [1 | 4]);
    history.check();
    drop(file);
}

#[test]
fn a_load_against_mprotect() {
    Model {
        name: "load against mprotect",
        rows: &[53, 55],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: load_against_mprotect,
        reaches: &["again"],
        needs: &["mprotect.write_protect"],
    }
    .check();
}
