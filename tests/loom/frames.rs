//! Models of frames: which thread may still take a reference, which one frees the frame, which one meets a marker.

use super::{Frames, PageFlags, PageHandle, Use};
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

/// One thread puts the last reference to a page of both frames; one takes them for its own, if they are free, and makes a page that
/// is up to date of them. Claim: what the first owner left behind, and how it was cleared, does not touch the second's. Premise:
/// a frame is taken from the free lists under their mutex.
fn free_against_alloc() {
    let frames = Arc::new(Frames::new(2).unwrap());
    let fill = |frames: &Frames| {
        let handle = frames.alloc_compound(1)?;
        handle.page().try_lock().expect("nobody else knows a fresh page").set_uptodate();
        Some(handle.into_pfn())
    };
    let first = fill(&frames).expect("both are free");
    // The state is whether the frames are taken.
    let history = History::new(true);
    let freer = {
        let (frames, history) = (Arc::clone(&frames), history.clone());
        spawn(move || {
            history.call(
                "put",
                || drop(frames.page(first).adopt()),
                |taken, ()| std::mem::replace(taken, false),
            );
        })
    };
    let second = history.ask(
        "take",
        || fill(&frames),
        |taken, second| second.is_none() || !std::mem::replace(taken, true),
    );
    freer.join().unwrap();
    history.settle();
    let look = || frames.usage().in_use;
    history.call("look", look, |&mut taken, &used| used == if taken { 2 } else { 0 });
    history.check();
    frames.audit(&[]).unwrap();
    if let Some(second) = second {
        reach("taken again");
        let page = frames.page(second);
        assert!(page.flags().has(PageFlags::UPTODATE), "its flags were cleared by another");
        assert_eq!(page.order(), 1, "its frames were untied by another");
        drop(page.adopt());
        frames.audit(&[]).unwrap();
    }
}

#[test]
fn a_free_against_the_next_alloc() {
    Model {
        name: "free against the frame's next life",
        rows: &[14],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: free_against_alloc,
        reaches: &["taken again"],
        needs: &["free.forgotten_first"],
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
