//! Models of reclaim: against lookups, faults, copies, the creation of a page, truncation, another reclaimer and the last user of
//! a file. Reclaim is the code that ships, for one page: isolate, judge, unmap, wait, freeze, free.

use super::super::eviction::evict;
use super::super::speculation::filemap_fault_speculative;
use super::super::truncate::shrink_pages;
use super::copy_out::{copied_is_right, copy};
use super::filemap::{around, is_ours};
use super::*;

/// One thread reclaims our page and gives the frame to another file; one does `look`, whose result is right if the page was
/// there, or if it failed. Claims: what it gets is our page; nothing is left at the end.
fn against_reclaim_and_reuse(look: fn(&AddressSpace) -> Option<u8>) {
    let (ours, strangers) = two_files(1);
    let history = History::new(Some(OURS));
    let reclaimer = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            let freed = history.ask(
                "reclaim",
                || shrink(&ours.shared),
                |page, &freed| !freed || page.take().is_some(),
            );
            if freed && cache_page(&strangers, 0, STRANGERS) {
                reach("reused");
            }
        })
    };
    history.call("look", || look(&ours), copied_is_right);
    reclaimer.join().unwrap();
    history.settle();
    history.call("look up at rest", || look_up(&ours), |page, answer| *answer == Ok(*page));
    history.check();
    ours.frames().audit(&[]).unwrap();
}

/// A lookup that takes a reference. Premise: reclaim freezes the count before the slot changes.
#[test]
fn big_a_lookup_against_reclaim() {
    Model {
        name: "lookup against reclaim and reuse",
        rows: &[14, 15, 40],
        preemption_bound: Some(6),
        grace_periods: false,
        twin: false,
        body: || against_reclaim_and_reuse(|ours| look_up(ours).unwrap_or(None)),
        reaches: &["found", "absent", "interfered", "freed", "kept", "reused"],
        needs: &["page.get.unless_zero", "page.get.acquire", "page.unfreeze.release", "filemap.slot_recheck"],
    }
    .check();
}

/// A speculative fault up to the locked page. Premise: reclaim tries the page lock and holds it until the page is out.
#[test]
fn big_a_speculative_fault_against_reclaim() {
    Model {
        name: "speculation against reclaim and reuse",
        rows: &[14, 15, 16, 17, 25],
        preemption_bound: Some(6),
        grace_periods: false,
        twin: false,
        body: || {
            against_reclaim_and_reuse(|ours| match filemap_fault_speculative(ours, 0, &rcu::read()) {
                Ok(held) => Some(is_ours(ours, held)),
                Err(cause) => {
                    reach(cause);
                    None
                }
            });
        },
        reaches: &["locked", "FILE_MISS", "FILE_LOCKED", "freed", "kept", "reused"],
        needs: &["vmscan.keep"],
    }
    .check();
}

/// Fault-around's search for pages that are ready. Premise as above.
#[test]
fn big_fault_around_against_reclaim() {
    Model {
        name: "fault-around against reclaim and reuse",
        rows: &[14, 15, 16, 17, 25],
        preemption_bound: Some(6),
        grace_periods: false,
        twin: false,
        body: || against_reclaim_and_reuse(around),
        reaches: &["locked", "skipped", "freed", "kept", "reused"],
        needs: &["filemap.slot_recheck"],
    }
    .check();
}

/// A copy without a reference. Premise: slot and mapping change before the generation, the generation before any byte.
#[test]
fn big_copy_out_against_reclaim() {
    Model {
        name: "copy-out against reclaim and reuse",
        rows: &[49],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: || against_reclaim_and_reuse(copy),
        reaches: &["copied", "unavailable", "changed", "freed", "reused"],
        needs: &["copy_out.wipe", "page.bytes.fence"],
    }
    .check();
}

/// One thread creates a page in the only frame; one reclaims. Claim: a thread that has not yet published its page finds its lock
/// free. Premise: the mapping is set under the page lock, and a thread with a reference sees how the frame's previous life ended.
fn create_against_reclaim() {
    let (ours, strangers) = two_files(1);
    assert!(remove(&ours));
    let history = History::new(false);
    let reclaimer = {
        let (shared, history) = (Arc::clone(&ours.shared), history.clone());
        spawn(move || {
            let right = |there: &mut bool, &freed: &bool| !freed || std::mem::replace(there, false);
            history.call("reclaim", || shrink(&shared), right);
        })
    };
    let create = || cache_page(&strangers, 0, STRANGERS);
    history.call("create", create, |there, &created| created && !std::mem::replace(there, true));
    reclaimer.join().unwrap();
    history.settle();
    let used = || ours.frames().usage().in_use;
    history.call("frames", used, |there, &used| used == usize::from(*there));
    history.check();
    ours.frames().audit(&[]).unwrap();
}

#[test]
fn creation_against_reclaim() {
    Model {
        name: "creation of a page against reclaim",
        rows: &[14],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: create_against_reclaim,
        reaches: &["freed", "kept"],
        needs: &["vmscan.published"],
    }
    .check();
}

/// As above, but the frame first holds our page, which the creator drops. Claim and premise as above, with the frame's previous
/// life visible to the reclaimer.
fn next_life_against_reclaim() {
    let (ours, strangers) = two_files(1);
    // The state: whether our page is there, and whether the other file's is.
    let history = History::new((true, false));
    let reclaimer = {
        let (shared, history) = (Arc::clone(&ours.shared), history.clone());
        spawn(move || {
            let right = |(ours, strangers): &mut (bool, bool), &freed: &bool| {
                !freed || std::mem::replace(ours, false) || std::mem::replace(strangers, false)
            };
            history.call("reclaim", || shrink(&shared), right);
        })
    };
    let drop_ours = || evict(&ours, 0, Entry::EMPTY, &rcu::read());
    history.call("drop", drop_ours, |(ours, _), &dropped| !dropped || std::mem::replace(ours, false));
    let create = || cache_page(&strangers, 0, STRANGERS);
    history.call("create", create, |(ours, strangers), &created| {
        reach(if created { "created" } else { "no frame" });
        *strangers = created;
        !created || !*ours
    });
    reclaimer.join().unwrap();
    history.settle();
    let used = || ours.frames().usage().in_use;
    history.call("frames", used, |there, &used| used == usize::from(there.0) + usize::from(there.1));
    history.check();
    ours.frames().audit(&[]).unwrap();
}

#[test]
fn big_the_frames_next_life_against_reclaim() {
    Model {
        name: "next life of a frame against reclaim",
        rows: &[14, 15],
        preemption_bound: Some(5),
        grace_periods: false,
        twin: false,
        body: next_life_against_reclaim,
        reaches: &["freed", "kept", "created", "no frame"],
        needs: &["page.freeze.expected", "page.get.unless_zero"],
    }
    .check();
}

/// One thread reclaims our page; one, which has found it, truncates it away. Claims: it is taken out once; its frame is freed once and
/// not under its lock. Premise: a page's mapping changes under its lock.
fn truncate_against_reclaim() {
    let (ours, _) = two_files(1);
    let history = History::new(true);
    let found = hold(&ours).into_pfn();
    let truncater = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            history.call(
                "truncate",
                || truncate_found(&ours, found),
                |there, &truncated| !truncated || std::mem::replace(there, false),
            );
        })
    };
    let reclaim = || shrink(&ours.shared);
    history.call("reclaim", reclaim, |there, &freed| !freed || std::mem::replace(there, false));
    truncater.join().unwrap();
    history.settle();
    let used = || ours.frames().usage().in_use;
    history.call("frames", used, |there, &used| used == usize::from(*there));
    history.call("reclaim at rest", reclaim, |there, &freed| freed == *there);
    history.check();
    ours.frames().audit(&[]).unwrap();
}

#[test]
fn truncation_against_reclaim() {
    Model {
        name: "truncation of a page against reclaim",
        rows: &[18, 41],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: truncate_against_reclaim,
        reaches: &["freed", "kept", "truncated", "not truncated"],
        needs: &[
            "vmscan.seed.mapping_before_lock",
            "vmscan.busy",
            "vmscan.busy.put_back_first",
            "vmscan.keep.put_back_first",
        ],
    }
    .check();
}

/// One thread reclaims our page, which leaves a shadow; one truncates the file to nothing. Claim: nothing is left in the file,
/// page or shadow, and no shadow is counted. Premise: no pages are created meanwhile.
fn final_truncate_against_reclaim() {
    let (ours, _) = two_files(1);
    let history = History::new(true);
    let truncater = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            let truncate = || shrink_pages(&ours, 0);
            history.call("truncate", truncate, |there, ()| {
                *there = false;
                true
            });
        })
    };
    let reclaim = || shrink(&ours.shared);
    history.call("reclaim", reclaim, |there, &freed| !freed || std::mem::replace(there, false));
    truncater.join().unwrap();
    history.settle();
    let look = || {
        let entry = ours.pages.load(0, &rcu::read());
        (!entry.is_empty(), ours.shared.workingset.shadows(), ours.frames().usage().in_use)
    };
    history.call("look", look, |_, seen| *seen == (false, 0, 0));
    history.check();
    ours.frames().audit(&[]).unwrap();
}

#[test]
fn big_the_final_truncation_against_reclaim() {
    Model {
        name: "truncation to nothing against reclaim",
        rows: &[41],
        preemption_bound: Some(6),
        grace_periods: false,
        twin: false,
        body: final_truncate_against_reclaim,
        reaches: &["freed", "kept"],
        needs: &["truncate.shadow"],
    }
    .check();
}

/// Our page was evicted. One thread removes its shadow, as a reclaimer does when there are too many; one brings the page back.
/// Claims: the page stays; the shadow is counted out once. Premise: slots change under the index's mutex.
fn shadow_against_return() {
    let (ours, _) = two_files(1);
    assert!(shrink(&ours.shared));
    assert_eq!(ours.shared.workingset.shadows(), 1);
    let history = History::new(false);
    let remover = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            history.call(
                "forget the shadow",
                || ours.shared.workingset.forget_shadow(&ours.pages, 0),
                |_, ()| true,
            );
        })
    };
    let back = || cache_page(&ours, 0, OURS);
    history.call("bring back", back, |there, &cached| cached && !std::mem::replace(there, true));
    remover.join().unwrap();
    history.settle();
    let look = || (look_up(&ours), ours.shared.workingset.shadows());
    history.call("look", look, |there, seen| *seen == (Ok(there.then_some(OURS)), 0));
    history.check();
    ours.frames().audit(&[]).unwrap();
}

#[test]
fn a_shadow_against_the_pages_return() {
    Model {
        name: "shadow against the return of its page",
        rows: &[40],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: shadow_against_return,
        reaches: &["found"],
        needs: &["forget_shadow.is_one"],
    }
    .check();
}

/// Two threads reclaim; there are two pages, and one of the threads looks ours up before. Claims: each page is reclaimed at most once
/// and leaves one shadow; a page that stays, because the other had a reference, is found again.
fn two_reclaimers() {
    let (ours, strangers) = two_files(2);
    cache_page(&strangers, 0, STRANGERS);
    let history = History::new(2);
    let right = |pages: &mut usize, &freed: &bool| {
        *pages -= usize::from(freed);
        true
    };
    let other = {
        let (shared, history) = (Arc::clone(&ours.shared), history.clone());
        spawn(move || history.call("reclaim", || shrink(&shared), right))
    };
    history.call(
        "look up",
        || look_up(&ours).unwrap_or(None),
        |_, &found| found.is_none_or(|byte| byte == OURS),
    );
    history.call("reclaim", || shrink(&ours.shared), right);
    other.join().unwrap();
    history.settle();
    let used = || (ours.frames().usage().inactive, ours.shared.workingset.shadows() as usize);
    history.call("look", used, |pages, &seen| seen == (*pages, 2 - *pages));
    history.check();
    ours.frames().audit(&[]).unwrap();
}

#[test]
fn big_reclaim_against_reclaim() {
    Model {
        name: "reclaim against reclaim",
        rows: &[14],
        preemption_bound: Some(5),
        grace_periods: false,
        twin: false,
        body: two_reclaimers,
        reaches: &["freed", "kept", "found", "absent", "interfered"],
        needs: &["page.freeze.expected"],
    }
    .check();
}

/// One thread, the last user of our file, drops it; one reclaims. Claims: neither waits for the other forever, and no page is
/// left. Premise: reclaim keeps the files of its batch until it has released all their page locks.
fn last_user_against_reclaim() {
    let (ours, strangers) = two_files(1);
    let shared = Arc::clone(&strangers.shared);
    // The state is whether the page is there. The reclaimer may be the last to drop the file.
    let history = History::new(true);
    let reclaimer = {
        let (shared, history) = (Arc::clone(&shared), history.clone());
        spawn(move || {
            let right = |there: &mut bool, &freed: &bool| !freed || std::mem::replace(there, false);
            history.call("reclaim", || shrink(&shared), right);
        })
    };
    let right = |there: &mut bool, answer: &Result<Option<u8>, ()>| {
        answer.is_err() || *answer == Ok(there.then_some(OURS))
    };
    history.call("look up", || look_up(&ours), right);
    history.call("let go", || drop(ours), |_, ()| true);
    reclaimer.join().unwrap();
    history.settle();
    history.call(
        "look",
        || (shared.frames.usage().in_use, shared.workingset.shadows()),
        |_, &seen| seen == (0, 0),
    );
    history.check();
    shared.frames.audit(&[]).unwrap();
}

#[test]
fn big_the_last_user_against_reclaim() {
    Model {
        name: "last user of a file against reclaim",
        rows: &[14],
        preemption_bound: Some(6),
        grace_periods: false,
        twin: false,
        body: last_user_against_reclaim,
        reaches: &["found", "absent", "freed", "kept"],
        needs: &["drop.unlock_first", "vmscan.seed.files_let_go"],
    }
    .check();
}
