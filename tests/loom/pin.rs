//! Models of pins: against the truncation that cuts their page in two, and against reclaim.

use super::super::Pinned;
use super::super::size_change::change_size;
use super::*;
use crate::error::Error;

/// Pins our page whole, if the file still has it.
fn pin(file: &Arc<OpenFile>) -> Option<Pinned> {
    match super::super::pin::pin(file, 0, 0..PAGE_SIZE) {
        Ok(pinned) => {
            reach("pinned");
            Some(pinned)
        }
        Err(Error::Bus { .. }) => {
            reach("beyond");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn bytes(pinned: &Pinned) -> [u8; PAGE_SIZE] {
    let mut bytes = [0; PAGE_SIZE];
    pinned.read(&mut bytes);
    bytes
}

/// Each life of a page is all of one byte here.
fn whole(bytes: [u8; PAGE_SIZE]) -> u8 {
    assert_eq!(bytes, [bytes[0]; PAGE_SIZE], "a pin of no moment of the file");
    bytes[0]
}

/// One thread pins the whole page; one truncates the file to half of it, which zeroes the rest. Claims: a pin shows a moment at
/// which the file had the whole page; its bytes do not change. Premises: truncation sets the size, then locks the page; pins are
/// made under the page lock.
fn pin_against_cut() {
    let file = open_file(Arc::new(MemoryStore::new(vec![OURS; PAGE_SIZE])));
    cache_page(&file.mapping, 0, OURS);
    let history = History::new(PAGE);
    let truncater = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || {
            let truncate = || change_size(&file.mapping, PAGE / 2, None, |_| Ok(())).unwrap();
            history.call("truncate", truncate, |size, ()| {
                *size = PAGE / 2;
                true
            });
        })
    };
    let mut pinned = None;
    let take = || {
        pinned = pin(&file);
        pinned.as_ref().map(|pinned| whole(bytes(pinned)))
    };
    history.call("pin", take, |&mut size, byte| *byte == (size == PAGE).then_some(OURS));
    truncater.join().unwrap();
    history.settle();
    let again = || pinned.as_ref().map(|pinned| whole(bytes(pinned)));
    history.call("look again", again, |_, byte| byte.is_none_or(|byte| byte == OURS));
    history.check();
    file.mapping.frames().audit(&[]).unwrap();
    // The page is in no file any more: the pin is its last owner.
    drop(pinned);
    file.mapping.frames().audit(&[]).unwrap();
    assert_eq!(file.pins.get(), 0);
}

#[test]
fn a_pin_against_a_cut() {
    Model {
        name: "pin against truncation in its page",
        rows: &[56],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: pin_against_cut,
        reaches: &["pinned", "beyond"],
        needs: &["zero_tail.pinned", "pin.size", "pin.seed.after_unlock", "unpin.seed.put_first"],
    }
    .check();
}

/// One thread pins our page; one reclaims it and gives the frame to another file, if it can. Claims: the bytes of a pin are the
/// file's and stay so; the page is reclaimed before it is pinned, or not at all. Premise: a pin keeps its reference.
fn pin_against_reclaim() {
    let (file, strangers) = {
        let shared = Shared::new(2, Io::Inline).unwrap();
        let file = |byte| {
            let store = Arc::new(MemoryStore::new(vec![byte; PAGE_SIZE]));
            File::in_memory(&shared, store, PAGE).open_file().unwrap()
        };
        (file(OURS), file(STRANGERS))
    };
    let shared = Arc::clone(&file.mapping.shared);
    cache_page(&file.mapping, 0, OURS);
    // The state is whether a pin is held.
    let history = History::new(false);
    let reclaimer = {
        let (shared, history) = (Arc::clone(&shared), history.clone());
        spawn(move || {
            let freed = history.ask("reclaim", || shrink(&shared), |pinned, &freed| !freed || !*pinned);
            if freed && cache_page(&strangers.mapping, 0, STRANGERS) {
                reach("reused");
            }
        })
    };
    let mut pinned = None;
    let take = || {
        pinned = pin(&file);
        pinned.as_ref().map(|pinned| whole(bytes(pinned)))
    };
    history.call("pin", take, |pinned, byte| {
        *pinned = true;
        *byte == Some(OURS)
    });
    reclaimer.join().unwrap();
    history.settle();
    let again = || (pinned.as_ref().map(|pinned| whole(bytes(pinned))), shared.frames.usage().pinned);
    history.call("look again", again, |_, &seen| seen == (Some(OURS), 1));
    history.call("reclaim at rest", || shared.frames.usage().inactive, |_, _| true);
    history.check();
    shared.frames.audit(&[]).unwrap();
    drop(pinned);
    shared.frames.audit(&[]).unwrap();
}

#[test]
fn a_pin_against_reclaim() {
    Model {
        name: "pin against reclaim and reuse",
        rows: &[14, 56],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: pin_against_reclaim,
        reaches: &["pinned", "freed", "kept", "reused"],
        needs: &[],
    }
    .check();
}
