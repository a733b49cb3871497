//! Models of frames: which thread may still take a reference, which one frees the frame, which one meets a marker.

use super::{Frames, PageHandle, Use};
use crate::loom_harness::{History, Model, reach, spawn};
use std::sync::Arc;

/// The only frame, in use, with one reference.
fn one_frame() -> Arc<Frames> {
    let frames = Arc::new(Frames::new(1).unwrap());
    let _given_up = frames.alloc(Use::File).unwrap().into_pfn();
    frames
}

/// One thread takes a reference where it can; one takes the page away if no other thread has one, and frees the frame. Claim: a
/// reference is only to a frame in use, and keeps the frame in use. Premise: the count is changed by read-modify-writes only.
fn get_against_freeze() {
    let frames = one_frame();
    // The state is the number of references.
    let history = History::new(1);
    let remover = {
        let (frames, history) = (Arc::clone(&frames), history.clone());
        spawn(move || {
            let page = frames.page(0);
            let remove = || {
                let frozen = page.freeze(1);
                if frozen {
                    page.unfreeze(1);
                    drop(page.adopt());
                }
                frozen
            };
            history.call("remove", remove, |count, &removed| {
                // It may find another user there.
                !removed || std::mem::replace(count, 0) == 1
            });
        })
    };
    let handle = history.ask(
        "get",
        || frames.page(0).try_get().map(PageHandle::into_pfn).is_some(),
        |count, &got| {
            *count += u32::from(got);
            !got || *count == 2
        },
    );
    if handle {
        reach("got");
        history.call("in use", || frames.usage().in_use, |_, &used| used == 1);
        history.call(
            "put",
            || drop(frames.page(0).adopt()),
            |count, ()| {
                *count -= 1;
                true
            },
        );
    } else {
        reach("gone");
    }
    remover.join().unwrap();
    history.settle();
    history.call("in use at rest", || frames.usage().in_use as u32, |count, &used| used == *count);
    history.check();
    frames.audit(&[]).unwrap();
}

#[test]
fn get_against_a_freeze() {
    Model {
        name: "get against freeze",
        rows: &[14],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: get_against_freeze,
        reaches: &["got", "gone"],
        needs: &["page.get.unless_zero", "page.freeze.expected"],
    }
    .check();
}

/// Two owners put their references; one had an entry that it cleared before. Claim: the last one, which frees the frame, sees
/// what the other did to the page before. Premise: an owner changes a page before it puts its reference.
fn put_against_put() {
    let frames = one_frame();
    let page = frames.page(0);
    let _mine = page.get().into_pfn();
    page.add_mapping();
    // The state is the number of references.
    let history = History::new(2);
    let one_less = |count: &mut u32, (): &()| {
        *count -= 1;
        true
    };
    let unmapper = {
        let (frames, history) = (Arc::clone(&frames), history.clone());
        spawn(move || {
            let unmap = || {
                frames.page(0).remove_mapping();
                drop(frames.page(0).adopt());
            };
            history.call("clear the entry and put", unmap, one_less);
        })
    };
    // The freer asserts that nothing maps the page.
    history.call("put", || drop(page.adopt()), one_less);
    unmapper.join().unwrap();
    history.settle();
    history.call("in use", || frames.usage().in_use as u32, |count, &used| *count == 0 && used == 0);
    history.check();
    frames.audit(&[]).unwrap();
}

#[test]
fn put_against_another_put() {
    Model {
        name: "put against put",
        rows: &[16],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: put_against_put,
        reaches: &[],
        needs: &["page.put.release", "page.put.last.fence"],
    }
    .check();
}

/// Two threads meet one marker. Claim: one of them starts the window.
fn one_marker() {
    let frames = one_frame();
    frames.page(0).lock().set_readahead();
    // The state is whether the marker is there.
    let history = History::new(true);
    let taken = |marker: &mut bool, &took: &bool| std::mem::replace(marker, false) == took;
    let other = {
        let (frames, history) = (Arc::clone(&frames), history.clone());
        spawn(move || history.call("take", || frames.page(0).take_readahead(), taken))
    };
    history.call("take", || frames.page(0).take_readahead(), taken);
    other.join().unwrap();
    history.check();
    drop(frames.page(0).adopt());
}

#[test]
fn a_marker_starts_one_window() {
    Model {
        name: "one marker, two readers",
        rows: &[35],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: one_marker,
        reaches: &[],
        needs: &["page.readahead.was_set"],
    }
    .check();
}
