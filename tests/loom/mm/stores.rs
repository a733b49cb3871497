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
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: unprepared_store,
        reaches: &["commit", "ANON_VMA"],
        needs: &["spf.anon_vma"],
    }
    .check();
}
