//! Models of reclaim as an address space sees it: a page is unmapped through the reverse map and its frame reused, concurrently
//! with faults and accesses.

use super::Mm;
use super::mmap::Prot;
use super::models::{PAGE, around, attempt, cached_page, load_byte, one_page};
use crate::cache::File;
use crate::cache::models::shrink;
use crate::loom_harness::{History, Model, reach, spawn};
use crate::page::Use;

const OURS: u8 = 0xAA;
const STRANGERS: u8 = 0x55;

/// An address space whose first page is mapped to the file's only page; no program has used it since reclaim last looked.
fn unused() -> (Mm, File, u64) {
    let (mm, file, at) = one_page(Prot::Read, true);
    attempt(&mm, at, false).unwrap();
    assert_eq!(mm.inner.tables.test_and_clear_young(at, at + PAGE), 1);
    (mm, file, at)
}

/// Fills every free frame with a stranger's bytes.
fn reuse(mm: &Mm) {
    let strangers: Vec<_> = std::iter::from_fn(|| mm.inner.shared.frames.alloc(Use::File)).collect();
    for stranger in &strangers {
        stranger.page().bytes().write(0, &[STRANGERS; 8]);
    }
    reach("reused");
}

/// One thread loads through an entry; one reclaims its page and gives the frame to another user. Claim: the load gets our bytes,
/// or there is no entry. Premise: reclaim waits for a grace period between clearing the entry and freeing the frame.
fn load_against_reclaim() {
    let (mm, file, at) = unused();
    let history = History::new(Some(OURS));
    let reclaimer = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            let reclaim = || shrink(&mm.inner.shared);
            if history.ask("reclaim", reclaim, |byte, &freed| !freed || byte.take().is_some()) {
                reuse(&mm);
            }
        })
    };
    let load = || {
        let mut byte = [0];
        let loaded = mm.inner.through_entry(at, false, &mut |bytes, within| bytes.read(within, &mut byte));
        reach(if loaded { "loaded" } else { "no entry" });
        loaded.then_some(byte[0])
    };
    // Reclaim clears the entry before it knows that the page can go.
    history.call("load", load, |byte, loaded| loaded.is_none() || loaded == byte);
    reclaimer.join().unwrap();
    history.settle();
    history.call("load at rest", || load_byte(&mm, at), |_, &byte| byte == OURS);
    history.check();
    drop(file);
}

#[test]
fn a_load_against_reclaim() {
    Model {
        name: "load through an entry against reclaim and reuse",
        rows: &[54],
        preemption_bound: Some(4),
        grace_periods: true,
        twin: false,
        body: load_against_reclaim,
        reaches: &["loaded", "no entry", "freed", "kept", "reused"],
        needs: &["gather.flush", "rcu.scan.waits"],
    }
    .check();
}

/// One thread reclaims the page, which is mapped; one truncates the file to nothing. Claims: neither waits for the other forever;
/// afterwards there is no entry, and no page. Premise: reclaim waits for a grace period while it has the page locked.
fn truncation_against_reclaim() {
    let (mm, file, at) = unused();
    let history = History::new(true);
    let truncater = {
        let (file, history) = (file.open_file().unwrap(), history.clone());
        spawn(move || {
            let truncate = || file.mapping.shrink_pages(0);
            history.call("truncate", truncate, |there, ()| {
                *there = false;
                true
            });
        })
    };
    let reclaim = || shrink(&mm.inner.shared);
    history.call("reclaim", reclaim, |there, &freed| !freed || std::mem::replace(there, false));
    truncater.join().unwrap();
    history.settle();
    let look = || (mm.pagemap(at, PAGE).unwrap()[0] != 0, mm.inner.shared.frames.usage().in_use);
    history.call("look", look, |_, &seen| seen == (false, 0));
    history.check();
    drop((mm, file));
}

#[test]
fn big_truncation_against_reclaim_of_a_mapped_page() {
    Model {
        name: "truncation against reclaim of a mapped page",
        rows: &[20],
        preemption_bound: Some(3),
        grace_periods: true,
        twin: false,
        body: truncation_against_reclaim,
        reaches: &["freed", "kept"],
        needs: &["truncate.section_ends_first"],
    }
    .check();
}

/// One thread faults speculatively; one reclaims the page, which may be mapped, and fills the free frames. Claims: an entry maps
/// a page of the file, with a reference for it; a reclaimed page is mapped nowhere. Premise: reclaim has the page locked from the
/// unmapping to the end.
fn fault_against_reclaim(mapped: bool) {
    let (mm, file, at) = if mapped { unused() } else { one_page(Prot::Read, true) };
    // The state is whether the page is cached.
    let history = History::new(true);
    let reclaimer = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            let reclaim = || shrink(&mm.inner.shared);
            if history.ask("reclaim", reclaim, |there, &freed| !freed || std::mem::replace(there, false)) {
                reuse(&mm);
            }
        })
    };
    history.call("fault", || attempt(&mm, at, false).is_ok(), |there, &set| !set || *there);
    reclaimer.join().unwrap();
    history.settle();
    let look = || {
        let entry = mm.pagemap(at, PAGE).unwrap()[0] != 0;
        let resident = file.residency(0, None).unwrap()[0] != 0;
        if resident {
            let page = cached_page(&mm);
            assert_eq!(
                (page.mapcount(), page.refcount()),
                (u32::from(entry), 1 + u32::from(entry)),
                "{page:?}"
            );
        }
        (entry, resident)
    };
    history.call("look", look, |there, &(entry, resident)| resident == *there && (resident || !entry));
    history.call("load", || load_byte(&mm, at), |_, &byte| byte == OURS);
    history.check();
    mm.close().unwrap();
    mm.inner.shared.frames.audit(&[]).unwrap();
}

#[test]
fn big_a_fault_against_reclaim() {
    Model {
        name: "speculative fault against reclaim, whole",
        rows: &[14, 15, 18, 25],
        preemption_bound: Some(5),
        grace_periods: false,
        twin: false,
        body: || fault_against_reclaim(false),
        reaches: &["commit", "FILE_MISS", "FILE_LOCKED", "freed", "kept", "reused"],
        needs: &["remove_mapping.clear_mapping", "page.freeze.expected", "page.get.unless_zero"],
    }
    .check();
}

#[test]
fn big_a_fault_against_reclaim_of_a_mapped_page() {
    Model {
        name: "speculative fault against reclaim of a mapped page",
        rows: &[14, 15, 18, 25],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: || fault_against_reclaim(true),
        reaches: &["commit", "FILE_MISS", "FILE_LOCKED", "freed", "reused"],
        needs: &["pte_map_lock.pmd", "pte.clear.mapcount", "page.freeze.expected", "page.get.unless_zero"],
    }
    .check();
}

/// One thread maps two pages by one fault; one reclaims the older. Claim: an entry names the file's page at its index. Premise as above.
fn around_against_reclaim() {
    let (mm, file, at) = around(2 * PAGE, 2, 2, 0, Prot::Read, true);
    let history = History::new([true; 2]);
    let reclaimer = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            let reclaim = || shrink(&mm.inner.shared);
            history
                .call("reclaim", reclaim, |there, &freed| !freed || std::mem::replace(&mut there[0], false));
        })
    };
    // The fault is on the younger page.
    history.call("fault", || attempt(&mm, at + PAGE, false).is_ok(), |there, &set| !set || there[1]);
    reclaimer.join().unwrap();
    history.settle();
    let look = || {
        let entries = mm.pagemap(at, 2 * PAGE).unwrap();
        reach(if entries[0] == 0 { "one is mapped" } else { "both are mapped" });
        (entries, file.residency(0, None).unwrap())
    };
    history.call("look", look, |there, (entries, resident)| {
        (0..2).all(|at| there[at] == (resident[at] != 0) && (there[at] || entries[at] == 0))
    });
    history.check();
    drop(file);
    mm.close().unwrap();
    mm.inner.shared.frames.audit(&[]).unwrap();
}

#[test]
fn big_fault_around_against_reclaim() {
    Model {
        name: "fault-around against reclaim, whole",
        rows: &[18, 25, 38],
        preemption_bound: Some(5),
        grace_periods: false,
        twin: false,
        body: around_against_reclaim,
        reaches: &["twin", "freed", "kept", "one is mapped", "both are mapped"],
        needs: &["pte.set.mapcount", "page.freeze.expected"],
    }
    .check();
}
