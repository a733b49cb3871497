//! Slices of the lists from which reclaim takes pages: a page that it has isolated against a pin of it.

use super::{Frames, List, Use};
use crate::loom_harness::{History, Model, reach, spawn};
use std::sync::Arc;

/// Where the only page is: the specification's state.
#[derive(Debug, Clone, Copy)]
struct Place {
    listed: bool,
    pinned: bool,
}

/// One thread takes the page off its list and puts it back, as reclaim does with pages that stay; one pins it and, in some
/// models, ends the pin. Claims: a page is on one list or none, once; a pinned page is on none; one that is not pinned is found
/// again. Premise: both have references.
fn isolate_against_pin(unpins: bool) {
    let frames = Arc::new(Frames::new(1).unwrap());
    let handle = frames.alloc(Use::File).unwrap();
    let history = History::new(Place { listed: true, pinned: false });
    let reclaimer = {
        let (frames, history) = (Arc::clone(&frames), history.clone());
        spawn(move || {
            let mut taken = None;
            history.call(
                "isolate",
                || {
                    taken = frames.isolate(List::Inactive, 1).into_iter().next();
                    reach(if taken.is_none() { "not there" } else { "isolated" });
                    taken.is_some()
                },
                |place, &taken| taken == std::mem::replace(&mut place.listed, false),
            );
            let Some(page) = taken else { return };
            history.call(
                "put back",
                || frames.put_back(page.page(), List::Inactive),
                |place, ()| {
                    place.listed = !place.pinned;
                    true
                },
            );
        })
    };
    history.call(
        "pin",
        || assert!(frames.pin(handle.page())),
        |place, ()| {
            *place = Place { listed: false, pinned: true };
            true
        },
    );
    if unpins {
        history.call(
            "unpin",
            || frames.unpin(handle.page()),
            |place, ()| {
                *place = Place { listed: true, pinned: false };
                true
            },
        );
    }
    reclaimer.join().unwrap();
    history.settle();
    let look = || (frames.usage().inactive, frames.usage().pinned);
    history.call("look", look, |place, &seen| seen == (usize::from(place.listed), usize::from(place.pinned)));
    history.check();
    frames.audit(&[]).unwrap();
    if !unpins {
        frames.unpin(handle.page());
    }
    drop(handle);
    assert_eq!(frames.usage().inactive, 0, "a free frame is on a list");
    drop(frames.alloc(Use::File).expect("the frame is free"));
}

#[test]
fn a_page_in_hand_against_a_pin() {
    Model {
        name: "page in reclaim's hands against a pin",
        rows: &[56],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || isolate_against_pin(false),
        reaches: &["isolated", "not there"],
        needs: &["put_back.pinned", "pin.unlink"],
    }
    .check();
}

#[test]
fn a_page_in_hand_against_a_pin_that_ends() {
    Model {
        name: "page in reclaim's hands against a pin that ends",
        rows: &[56],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || isolate_against_pin(true),
        reaches: &["isolated", "not there"],
        needs: &["put_back.once", "free.unlink"],
    }
    .check();
}
