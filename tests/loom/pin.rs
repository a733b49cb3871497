//! Models of pins: against the truncation that cuts their page in two, and against reclaim.

use super::super::coherence::revalidate;
use super::super::size_change::change_size;
use super::super::vmscan::reclaim;
use super::super::{PageCache, Pinned};
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
    assert_eq!(file.pins.count(), 0);
}

#[test]
fn big_a_pin_against_a_cut() {
    Model {
        name: "pin against truncation in its page",
        rows: &[56],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: pin_against_cut,
        reaches: &["pinned", "beyond"],
        needs: &["zero_tail.pinned", "pin.size", "pin.seed.after_unlock", "unpin.seed.put_first"],
    }
    .check();
}

/// What a close did: whether it succeeded.
fn closed(result: crate::Result<()>) -> bool {
    match result {
        Ok(()) => {
            reach("closed");
            true
        }
        Err(Error::Pinned(_)) => {
            reach("refused");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// One thread pins our page, one closes. Claims: a close succeeds if there are no pins and fails if there is one; after it, no
/// pin begins. Premise: one word, or one mutex, has both the pins and whether more may begin.
fn pin_against_close(file: &File, close: impl FnOnce() -> bool + 'static) {
    // The state: whether it is open, and how many pins there are.
    let history = History::new((true, 0));
    let closer = {
        let history = history.clone();
        spawn(move || {
            history.call("close", close, |(open, pins), &closed| {
                *open &= !closed;
                closed == (*pins == 0)
            });
        })
    };
    let mut pinned = None;
    let take = || match file.pin(0, PAGE_SIZE) {
        Ok(pin) => pinned.insert(pin).len() == PAGE_SIZE,
        Err(Error::Closed(_)) => false,
        Err(error) => panic!("{error}"),
    };
    history.call("pin", take, |(open, pins), &pinned| {
        *pins += u32::from(pinned);
        pinned == *open
    });
    closer.join().unwrap();
    history.check();
    reach(if pinned.is_some() { "pinned" } else { "too late" });
}

/// A cache of two frames, and a file of one page in it.
fn cache_and_file() -> (PageCache, File) {
    let cache = PageCache::new(2 * PAGE, Io::Inline).unwrap();
    let file = cache.open_store(Arc::new(MemoryStore::new(vec![OURS; PAGE_SIZE])), PAGE).unwrap();
    cache_page(&file.open_file().unwrap().mapping, 0, OURS);
    (cache, file)
}

#[test]
fn a_pin_against_the_close_of_its_file() {
    Model {
        name: "pin against the close of its file",
        rows: &[56],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || {
            let (_cache, file) = cache_and_file();
            let closing = file.clone();
            pin_against_close(&file, move || closed(closing.close()));
        },
        reaches: &["pinned", "too late", "closed", "refused"],
        needs: &["pin.open", "close.pins"],
    }
    .check();
}

#[test]
fn a_pin_against_the_close_of_its_cache() {
    Model {
        name: "pin against the close of its cache",
        rows: &[56],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || {
            let (cache, file) = cache_and_file();
            pin_against_close(&file, move || closed(cache.close()));
        },
        reaches: &["pinned", "too late", "closed", "refused"],
        needs: &["pin.accepted", "refuse_pins.none"],
    }
    .check();
}

/// The file ends within its page, and has grown since. One thread follows that; one pins the whole page. Claim: a pin is of the
/// whole page or fails: it never shows the zeros after the old end. Premise: the page goes before the size that shows more of it.
fn pin_against_growth() {
    let store = Arc::new(MemoryStore::new(vec![OURS; PAGE_SIZE]));
    let shared = Shared::new(2, Io::Inline).unwrap();
    let file = File::in_memory(&shared, Arc::clone(&store) as Arc<dyn Store>, PAGE / 2).open_file().unwrap();
    let mut half = [OURS; PAGE_SIZE];
    half[PAGE_SIZE / 2..].fill(0);
    cache_page(&file.mapping, 0, OURS);
    hold(&file.mapping).page().bytes().write(0, &half);
    let history = History::new(PAGE / 2);
    let follower = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || {
            let follow = || revalidate(&file.mapping, false).unwrap();
            history.call("follow", follow, |size, &after| std::mem::replace(size, PAGE) < after);
        })
    };
    let take = || pin(&file).map(|pinned| whole(bytes(&pinned)));
    history.call("pin", take, |&mut size, byte| *byte == (size == PAGE).then_some(OURS));
    follower.join().unwrap();
    history.settle();
    history.call("pin at rest", take, |_, byte| *byte == Some(OURS));
    history.check();
    file.mapping.frames().audit(&[]).unwrap();
    assert_eq!(file.pins.count(), 0);
}

#[test]
fn a_pin_against_growth() {
    Model {
        name: "pin against growth by others in its page",
        rows: &[56],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: pin_against_growth,
        reaches: &["pinned", "beyond"],
        needs: &["resize.seed.size_first"],
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
    // The state is whether a pin is held, and whether another file has a page.
    let history = History::new((false, false));
    let reclaimer = {
        let (shared, strangers, history) = (Arc::clone(&shared), Arc::clone(&strangers), history.clone());
        spawn(move || {
            if !history.ask("reclaim", || shrink(&shared), |(pinned, _), &freed| !freed || !*pinned) {
                return;
            }
            let reuse = || {
                let reused = cache_page(&strangers.mapping, 0, STRANGERS);
                reach(if reused { "reused" } else { "no frame" });
                reused
            };
            history.call("reuse", reuse, |(_, is_reused), &reused| !std::mem::replace(is_reused, reused));
        })
    };
    let mut pinned = None;
    let take = || {
        pinned = pin(&file);
        pinned.as_ref().map(|pinned| whole(bytes(pinned)))
    };
    history.call("pin", take, |(pinned, _), byte| {
        *pinned = true;
        *byte == Some(OURS)
    });
    reclaimer.join().unwrap();
    history.settle();
    history.call("reclaim at rest", || shrink(&shared), |(_, reused), &freed| freed == *reused);
    let again = || (pinned.as_ref().map(|pinned| whole(bytes(pinned))), shared.frames.usage().pinned);
    history.call("look again", again, |_, &seen| seen == (Some(OURS), 1));
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
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: pin_against_reclaim,
        reaches: &["pinned", "freed", "kept", "reused"],
        needs: &["put_back.pinned", "pin.unlink", "page.freeze.expected"],
    }
    .check();
}

/// Two threads pin our page, and one ends its pin. Claims: both see the file; the page stays pinned as long as there is a pin, and is
/// reclaimed afterwards. Premise: the mutex that counts pins also has the lists.
fn pin_against_pin() {
    let file = open_file(Arc::new(MemoryStore::new(vec![OURS; PAGE_SIZE])));
    cache_page(&file.mapping, 0, OURS);
    let shared = Arc::clone(&file.mapping.shared);
    // The pins.
    let history = History::new(0);
    let take = |file: &Arc<OpenFile>, history: &History<u32>| {
        let mut pinned = None;
        let take = || whole(bytes(pinned.insert(pin(file).expect("it is in the file"))));
        history.call("pin", take, |pins, &byte| {
            *pins += 1;
            byte == OURS
        });
        pinned
    };
    let other = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || {
            let pinned = take(&file, &history);
            history.call(
                "unpin",
                || drop(pinned),
                |pins, ()| {
                    *pins -= 1;
                    true
                },
            );
        })
    };
    let pinned = take(&file, &history);
    let count = |shared: &Shared| (shared.frames.pins(shared.frames.page(0)), shared.frames.usage().pinned);
    history.call(
        "count",
        || count(&shared),
        |pins, &seen| {
            reach(if seen.0 == 2 { "two" } else { "one" });
            seen == (*pins, 1)
        },
    );
    other.join().unwrap();
    history.settle();
    let at_rest = || {
        let seen = (count(&shared), reclaim(&shared, 1));
        drop(pinned);
        (seen, reclaim(&shared, 1))
    };
    history.call("reclaim at rest", at_rest, |_, &seen| seen == (((1, 1), 0), 1));
    history.check();
    shared.frames.audit(&[]).unwrap();
    assert_eq!(file.pins.count(), 0);
}

#[test]
fn a_pin_against_a_pin() {
    Model {
        name: "pin against pin",
        rows: &[56],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: pin_against_pin,
        reaches: &["one", "two"],
        needs: &["unpin.last"],
    }
    .check();
}

/// One thread drops what the cache does not need; one uses our page. Claims: it gets the file's bytes; no reference, lock or pin is left.
/// Premise: a page that somebody uses is not idle.
fn drop_against(use_it: fn(&File) -> bool) {
    let (cache, file) = cache_and_file();
    let cache = Arc::new(cache);
    let history = History::new(());
    let dropper = {
        let (cache, history) = (Arc::clone(&cache), history.clone());
        spawn(move || {
            let drop = || cache.drop_caches().unwrap();
            history.call("drop", drop, |(), &dropped| {
                reach(if dropped > 0 { "dropped" } else { "kept" });
                dropped <= 1
            });
        })
    };
    history.call("use", || use_it(&file), |(), &right| right);
    dropper.join().unwrap();
    history.settle();
    let again = || {
        let there = file.open_file().unwrap().mapping.peek(0, &rcu::read()).is_some();
        reach(if there { "cached" } else { "not cached" });
        cache.drop_caches().unwrap() == u64::from(there)
    };
    history.call("drop at rest", again, |(), &right| right);
    history.check();
    cache.check().unwrap();
}

fn check_drop_against(name: &'static str, bound: usize, body: fn(), reaches: &'static [&'static str]) {
    Model {
        name,
        rows: &[14, 15],
        preemption_bound: Some(bound),
        grace_periods: false,
        twin: false,
        body,
        reaches,
        needs: &[],
    }
    .check();
}

#[test]
fn big_a_drop_of_idle_pages_against_a_read() {
    let body = || {
        drop_against(|file| {
            let mut bytes = [0; PAGE_SIZE];
            file.pread(&mut bytes, 0).unwrap() == PAGE_SIZE && bytes == [OURS; PAGE_SIZE]
        });
    };
    check_drop_against("drop of idle pages against a read", 4, body, &["dropped", "cached", "not cached"]);
}

#[test]
fn big_a_drop_of_idle_pages_against_a_fault() {
    let body = || drop_against(|file| file.filemap_fault(0, false).is_ok());
    check_drop_against("drop of idle pages against a fault", 5, body, &["dropped", "kept"]);
}

#[test]
fn big_a_drop_of_idle_pages_against_a_pin() {
    let body =
        || drop_against(|file| file.pin(0, PAGE_SIZE).is_ok_and(|pinned| whole(bytes(&pinned)) == OURS));
    check_drop_against("drop of idle pages against a pin", 5, body, &["dropped", "kept"]);
}
