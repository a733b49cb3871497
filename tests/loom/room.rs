//! Models of making room, beyond one idle page of the inactive list: active pages, the wait for a frame, references that await a
//! grace period, background reclaim, and how much evicted pages leave behind.

use super::super::PageCache;
use super::super::in_flight::InFlight;
use super::super::vmscan::{alloc_page, put_after_grace_period, reclaim, shrink_active, wait_for_frame};
use super::*;
use crate::page::{List, usage};
use crate::sync::clock::{advance, let_time_pass};
use std::time::Duration;

/// Makes our page active.
fn activate(ours: &AddressSpace) {
    let page = ours.frames().page(0);
    page.usage().set(usage::ACTIVE);
    ours.frames().move_to(page, List::Active);
}

/// One thread scans the active pages, of which ours is one; one, which has found it, truncates it away. Claim: its frame is freed once,
/// and is then on no list. Premise: a scan has a reference until the page is back.
fn truncate_against_aging() {
    let (ours, _) = two_files(1);
    activate(&ours);
    let history = History::new(true);
    let found = hold(&ours).into_pfn();
    let truncater = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            history.call(
                "truncate",
                || truncate_found(&ours, found),
                |there, &truncated| truncated && std::mem::replace(there, false),
            );
        })
    };
    let look = || {
        let looked = shrink_active(&ours.shared);
        reach(if looked > 0 { "scanned" } else { "gone" });
        looked
    };
    history.call("scan", look, |_, &looked| looked <= 1);
    truncater.join().unwrap();
    history.settle();
    history.call("frames", || ours.frames().usage().in_use, |_, &used| used == 0);
    history.check();
    ours.frames().audit(&[]).unwrap();
    assert!(cache_page(&ours, 0, OURS), "the frame is free");
}

#[test]
fn truncation_against_the_scan_of_active_pages() {
    Model {
        name: "truncation of a page against the scan of active pages",
        rows: &[14],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: truncate_against_aging,
        reaches: &["scanned", "gone"],
        needs: &["shrink_active.put_back_first"],
    }
    .check();
}

/// Our page is active and the only one. One thread makes room: the page becomes inactive and is evicted in the same call; one looks it
/// up. Claims: what it reads is ours; a page that stayed is evicted by the next call.
fn lookup_against_aging() {
    let (ours, _) = two_files(1);
    activate(&ours);
    let history = History::new(Some(OURS));
    let reclaimer = {
        let (shared, history) = (Arc::clone(&ours.shared), history.clone());
        spawn(move || {
            let right = |page: &mut Option<u8>, &freed: &bool| !freed || page.take().is_some();
            history.call("reclaim", || make_room(&shared), right);
        })
    };
    let right =
        |page: &mut Option<u8>, answer: &Result<Option<u8>, ()>| answer.is_err() || *answer == Ok(*page);
    history.call("look up", || look_up(&ours), right);
    reclaimer.join().unwrap();
    history.settle();
    let right = |page: &mut Option<u8>, &freed: &bool| freed == page.is_some();
    history.call("reclaim at rest", || make_room(&ours.shared), right);
    history.check();
    ours.frames().audit(&[]).unwrap();
}

/// Reclaims one frame, from either list.
fn make_room(shared: &Shared) -> bool {
    let freed = reclaim(shared, 1) > 0;
    reach(if freed { "freed" } else { "kept" });
    freed
}

#[test]
fn a_lookup_against_reclaim_of_an_active_page() {
    Model {
        name: "lookup against reclaim of an active page",
        rows: &[14, 15],
        preemption_bound: Some(6),
        grace_periods: false,
        twin: false,
        body: lookup_against_aging,
        reaches: &["found", "absent", "freed", "kept"],
        needs: &["shrink_active.put_back"],
    }
    .check();
}

/// How long a thread waits for a frame; its naps are no match for it.
const LONG: Duration = Duration::from_secs(60);

/// The only frame is in use. One thread waits for it; one frees it, and then the time is over. Claim: the wait ends with a frame,
/// because one was free before it was over.
fn wait_against_free() {
    let_time_pass();
    let shared = Shared::with_timeout(1, Io::Inline, LONG).unwrap();
    let held = shared.frames.alloc(Use::File).unwrap().into_pfn();
    // Whether the frame is free, and whether the time is over.
    let history = History::new((false, false));
    let owner = {
        let (shared, history) = (Arc::clone(&shared), history.clone());
        spawn(move || {
            history.call(
                "free",
                || drop(shared.frames.page(held).adopt()),
                |(free, _), ()| {
                    *free = true;
                    true
                },
            );
            history.call(
                "time passes",
                || advance(LONG),
                |(_, over), ()| {
                    *over = true;
                    true
                },
            );
        })
    };
    let wait = || {
        if shared.frames.available() == 0 {
            reach("waits");
        }
        wait_for_frame(&shared)
    };
    history.call("wait", wait, |&mut (free, over), &had| if had { free } else { over && !free });
    owner.join().unwrap();
    history.check();
}

#[test]
fn the_wait_for_a_frame_against_its_end() {
    Model {
        name: "wait for a frame against the end of the time",
        rows: &[],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: wait_against_free,
        reaches: &["waits"],
        needs: &["wait_for_frame.look_last"],
    }
    .check();
}

/// The only frame is in use by an entry that was replaced: its reference awaits a grace period. One thread needs a frame (`get`); one is
/// still reading. Claims: the frame is had; it is not given away before the reader is done.
fn deferred_put_against(get: fn(&Arc<Shared>) -> bool) {
    let shared = Shared::new(1, Io::Inline).unwrap();
    let page = shared.frames.alloc(Use::File).unwrap();
    page.page().bytes().write(0, &[OURS; PAGE_SIZE]);
    let pfn = page.into_pfn();
    let section = rcu::read();
    put_after_grace_period(&shared, pfn);
    drop(section);
    let history = History::new(());
    let reader = {
        let (shared, history) = (Arc::clone(&shared), history.clone());
        spawn(move || {
            let read = || {
                let _section = rcu::read();
                // The entry is gone for who begins now.
                let is_used = shared.frames.page(pfn).refcount() > 0;
                reach(if is_used { "in use" } else { "free" });
            };
            history.call("read", read, |(), ()| true);
        })
    };
    history.call("get a frame", || get(&shared), |(), &had| had);
    reader.join().unwrap();
    history.check();
}

#[test]
fn a_deferred_put_against_an_allocation() {
    Model {
        name: "deferred reference against an allocation",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || deferred_put_against(|shared| alloc_page(shared, Use::File).is_some()),
        reaches: &["in use", "free"],
        needs: &["alloc.look_last", "reclaim.put_deferred"],
    }
    .check();
}

#[test]
fn a_deferred_put_against_the_wait_for_a_frame() {
    Model {
        name: "deferred reference against the wait for a frame",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || deferred_put_against(|shared| wait_for_frame(shared)),
        reaches: &["in use", "free"],
        needs: &["wait_for_frame.barrier"],
    }
    .check();
}

/// A reference to our page awaits a grace period; whoever completes one puts it. One thread does so, one takes idle pages out. Claim: the
/// page is taken out: it is idle. Premise: a barrier waits for what another thread puts.
fn idle_page_against_another_put(take_out: fn(&PageCache) -> u64) {
    let cache = PageCache::new(PAGE, Io::Inline).unwrap();
    let file = cache.open_store(Arc::new(MemoryStore::new(vec![OURS; PAGE_SIZE])), PAGE).unwrap();
    let mapping = Arc::clone(&file.open_file().unwrap().mapping);
    assert!(cache_page(&mapping, 0, OURS));
    put_after_grace_period(&mapping.shared, hold(&mapping).into_pfn());
    let history = History::new(());
    let other = {
        let history = history.clone();
        spawn(move || history.call("wait for a grace period", rcu::synchronize, |(), ()| true))
    };
    history.call("take out", || take_out(&cache), |(), &taken| taken == 1);
    other.join().unwrap();
    history.check();
    assert_eq!(mapping.shared.frames.usage().in_use, 0);
}

#[test]
fn a_drop_of_idle_pages_against_a_deferred_put() {
    Model {
        name: "deferred reference against the drop of idle pages",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || idle_page_against_another_put(|cache| cache.drop_caches().unwrap()),
        reaches: &[],
        needs: &["invalidate.barrier"],
    }
    .check();
}

#[test]
fn a_call_of_reclaim_against_a_deferred_put() {
    Model {
        name: "deferred reference against a call of reclaim",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || idle_page_against_another_put(|cache| cache.reclaim(1).unwrap() as u64),
        reaches: &[],
        needs: &["reclaim.barrier"],
    }
    .check();
}

/// Our page was evicted and has left a shadow; with one frame there may be one. One thread evicts a stranger's page; one forgets the
/// shadow that this leaves. Claims: there are never more shadows than frames; each is counted from before it can be found.
fn shadows_against_their_end() {
    let (ours, strangers) = two_files(1);
    assert!(shrink(&ours.shared));
    assert!(cache_page(&strangers, 0, STRANGERS));
    let history = History::new(());
    let forgetter = {
        let (strangers, history) = (Arc::clone(&strangers), history.clone());
        spawn(move || {
            let forget = || strangers.shared.workingset.forget_shadow(&strangers.pages, 0);
            history.call("forget", forget, |(), ()| true);
        })
    };
    let evict = || {
        assert!(shrink(&ours.shared), "nobody else locks it");
        ours.shared.workingset.shadows()
    };
    history.call("evict", evict, |(), &shadows| shadows <= 1);
    forgetter.join().unwrap();
    history.settle();
    let kept = || {
        let there = |file: &AddressSpace| u64::from(!file.pages.load(0, &rcu::read()).is_empty());
        (there(&ours) + there(&strangers), ours.shared.workingset.shadows())
    };
    history.call("look", kept, |(), &(there, counted)| there == counted);
    history.check();
}

#[test]
fn shadows_against_the_end_of_one() {
    Model {
        name: "shadow of an eviction against its end",
        rows: &[40],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: shadows_against_their_end,
        reaches: &["freed"],
        needs: &["shadows.bounded"],
    }
    .check();
}

/// A node of the index holds two shadows. One thread frees it, as when there are too many; one brings a page back. Claims: the page
/// stays; shadows are counted out once.
fn node_against_return() {
    const NOTE: u32 = 1;
    let (ours, _) = two_files(2);
    assert!(cache_page(&ours, 1, OURS));
    assert!(shrink(&ours.shared) && shrink(&ours.shared));
    assert!(ours.pages.lock().note_values_only(1, NOTE));
    let history = History::new(false);
    let trimmer = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            let forget = || ours.shared.workingset.forget_node(&ours.pages, 1, NOTE);
            history.call("free the node", forget, |_, ()| true);
        })
    };
    let back = || cache_page(&ours, 0, OURS);
    history.call("bring back", back, |there, &cached| cached && !std::mem::replace(there, true));
    trimmer.join().unwrap();
    history.settle();
    let look = || {
        let other = ours.pages.load(1, &rcu::read()).as_value().is_some();
        reach(if other { "page first" } else { "node first" });
        (look_up(&ours), ours.shared.workingset.shadows() == u64::from(other))
    };
    history.call("look", look, |there, seen| *seen == (Ok(there.then_some(OURS)), true));
    history.check();
    ours.frames().audit(&[]).unwrap();
}

#[test]
fn a_node_of_shadows_against_the_return_of_a_page() {
    Model {
        name: "node of shadows against the return of a page",
        rows: &[40],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: node_against_return,
        reaches: &["page first", "node first"],
        needs: &["forget_node.shadows_only"],
    }
    .check();
}

/// Two threads take buffers for as much as all may have. Claims: together they have no more than that, and the least; nothing is left
/// when both are gone.
fn two_buffers() {
    let in_flight = InFlight::new(1);
    let most = in_flight.most() as usize;
    // The state is what was given out.
    let history = History::new(0);
    let right = move |all: &mut usize, &own: &usize| {
        reach(if own == most { "whole" } else { "part" });
        *all += own;
        own <= most && *all <= most + InFlight::LEAST
    };
    let take = move |history: &History<usize>, in_flight: &Arc<InFlight>| {
        let mut buffer = None;
        let take = || buffer.insert(in_flight.buffer(most).unwrap()).bytes.len();
        history.call("take", take, right);
        buffer
    };
    let other = {
        let (in_flight, history) = (Arc::clone(&in_flight), history.clone());
        spawn(move || take(&history, &in_flight))
    };
    let buffers = (take(&history, &in_flight), other.join().unwrap());
    history.settle();
    drop(buffers);
    history.call("look", || in_flight.bytes(), |_, &left| left == 0);
    history.check();
}

#[test]
fn two_buffers_for_windows() {
    Model {
        name: "two buffers for windows",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: two_buffers,
        reaches: &["whole", "part"],
        needs: &["in_flight.bounded"],
    }
    .check();
}

/// A cache of three frames, all in use. One thread takes a frame, which starts background reclaim, and looks a page up; then it waits
/// for everything. Claims: what it reads is right; then a frame is free, or two if the look-up kept no page, so that the next ones need
/// not make room; the worker ends.
fn background_reclaim() {
    let shared = Shared::with_timeout(3, Io::Threads, Duration::ZERO).unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(vec![OURS; 3 * PAGE_SIZE]));
    let ours = new_mapping(&shared, &store, 3 * PAGE, "model".as_ref());
    for index in [1, 2, 0] {
        assert!(cache_page(&ours, index, OURS));
    }
    // Whether page 0, which is evicted last, is there.
    let history = History::new(Some(OURS));
    let mut taken = None;
    history.call("take a frame", || taken.insert(alloc_page(&shared, Use::File)).is_some(), |_, &had| had);
    let right = |page: &mut Option<u8>, answer: &Result<Option<u8>, ()>| {
        *answer == Ok(None) || answer.is_err() || *answer == Ok(*page)
    };
    history.call("look up", || look_up(&ours), right);
    let settle = || (shared.io.settle(), shared.frames.available());
    history.call("settle", settle, |_, &(settled, free)| {
        reach(if free > 1 { "both" } else { "one" });
        settled && free >= 1
    });
    history.call("stop", || shared.io.stop(), |_, ()| true);
    history.check();
    drop(taken);
    shared.frames.audit(&[]).unwrap();
}

#[test]
fn a_lookup_against_background_reclaim() {
    Model {
        name: "lookup against background reclaim",
        rows: &[14, 15],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: background_reclaim,
        reaches: &["found", "absent", "one", "both"],
        needs: &["alloc.wake"],
    }
    .check();
}
