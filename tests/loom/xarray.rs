//! Models of the index: readers without a lock against its one writer, with two slots per node.

use super::{Entry, Mark, XArray};
use crate::loom_harness::{History, Model, Protected, spawn};
use crate::rcu;
use crate::sync::Tally;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the index holds, by page frame number.
type Map = BTreeMap<u64, u32>;

#[derive(Clone)]
struct Shared {
    array: Arc<XArray>,
    /// The data that an entry denotes, written before the entry is stored.
    identity: Arc<Protected>,
    history: History<Map>,
}

impl Shared {
    /// An index with `entries`; the frame of index i is i + 1.
    fn new(entries: &[u64]) -> Self {
        let array = XArray::new(Arc::new(Tally::new()));
        for &index in entries {
            array.lock().store(index, Entry::page(index as u32 + 1)).unwrap();
        }
        let map = entries.iter().map(|&index| (index, index as u32 + 1)).collect();
        Self { array: Arc::new(array), identity: Arc::new(Protected::new()), history: History::new(map) }
    }
    fn store(&self, index: u64) {
        let pfn = index as u32 + 1;
        let store = || self.array.lock().store(index, Entry::page(pfn)).unwrap().as_page();
        self.history.call("store", store, move |map, old| map.insert(index, pfn) == *old);
    }
    fn erase(&self, index: u64) {
        let erase = || self.array.lock().erase(index).as_page();
        self.history.call("erase", erase, move |map, old| map.remove(&index) == *old);
    }
    fn find(&self, index: u64) -> Option<u32> {
        let find = || self.array.load(index, &rcu::read()).as_page();
        self.history.ask("find", find, move |map, found| map.get(&index) == found.as_ref())
    }
    fn next(&self, mark: Option<Mark>) -> Option<(u64, Option<u32>)> {
        let next =
            || self.array.next(0, u64::MAX, mark, &rcu::read()).map(|(at, entry)| (at, entry.as_page()));
        let right = |map: &mut Map, found: &Option<(u64, Option<u32>)>| {
            map.first_key_value().map(|(&index, &pfn)| (index, Some(pfn))) == *found
        };
        self.history.ask("next", next, right)
    }
    /// Two threads: `reader`, and `writer` in this one.
    fn race(&self, writer: impl FnOnce(&Self), reader: impl FnOnce(&Self) + 'static) {
        let other = {
            let shared = self.clone();
            spawn(move || reader(&shared))
        };
        writer(self);
        other.join().unwrap();
        self.history.check();
        self.array.lock().audit().unwrap();
    }
}

/// A page is prepared and stored at `index` into an index with `entries`. Claim: a thread that finds it sees it prepared, and
/// every node on the way initialised. Premise: an entry is prepared before it is stored.
fn store_against(entries: &[u64], index: u64, reader: fn(&Shared) -> bool) {
    let prepare_and_store = move |shared: &Shared| {
        shared.identity.increment();
        shared.store(index);
    };
    Shared::new(entries).race(prepare_and_store, move |shared| {
        if reader(shared) {
            assert_eq!(shared.identity.get(), 1);
        }
    });
}

#[test]
fn find_against_the_first_entry() {
    Model {
        name: "index: find against a store into the head",
        rows: &[15],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: || store_against(&[], 0, |shared| shared.find(0).is_some()),
        reaches: &[],
        needs: &["xarray.store.head.release", "xarray.head.acquire"],
    }
    .check();
}

#[test]
fn find_against_growth() {
    Model {
        name: "index: find against growth and a store",
        rows: &[15],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: || store_against(&[0], 2, |shared| shared.find(2).is_some()),
        reaches: &[],
        needs: &[
            "xarray.grow.leaf.release",
            "xarray.grow.release",
            "xarray.create.release",
            "xarray.slot.acquire",
            "xarray.find.covers",
        ],
    }
    .check();
}

/// The index grows around a lone entry. Claim: a reader finds it throughout.
#[test]
fn find_against_a_leaf_for_a_lone_entry() {
    Model {
        name: "index: find of a lone entry against growth",
        rows: &[46],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: || {
            Shared::new(&[0]).race(
                |shared| shared.store(1),
                |shared| {
                    shared.find(0);
                },
            );
        },
        reaches: &[],
        needs: &["xarray.grow.leaf.filled"],
    }
    .check();
}

/// The head is raised. Claim: a reader finds what hangs below it throughout.
#[test]
fn find_against_a_higher_head() {
    Model {
        name: "index: find against a higher head",
        rows: &[46],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: || {
            Shared::new(&[0, 1]).race(
                |shared| shared.store(2),
                |shared| {
                    shared.find(0);
                },
            );
        },
        reaches: &[],
        needs: &["xarray.grow.filled"],
    }
    .check();
}

/// The same with a mark. Claim: a search for marks finds it throughout.
#[test]
fn next_with_a_mark_against_a_higher_head() {
    Model {
        name: "index: next with a mark against a higher head",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: || {
            let shared = Shared::new(&[0, 1]);
            assert!(shared.array.lock().set_mark(0, Mark::Dirty).unwrap());
            shared.race(
                |shared| shared.store(2),
                |shared| {
                    shared.next(Some(Mark::Dirty));
                },
            );
        },
        reaches: &[],
        needs: &["xarray.grow.marked"],
    }
    .check();
}

#[test]
fn find_against_a_store() {
    Model {
        name: "index: find against a store into a node",
        rows: &[15],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: || store_against(&[1], 0, |shared| shared.find(0).is_some()),
        reaches: &[],
        needs: &["xarray.store.release"],
    }
    .check();
}

#[test]
fn next_against_growth() {
    Model {
        name: "index: next against growth and a store",
        rows: &[15],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: || store_against(&[], 2, |shared| shared.next(None).is_some()),
        reaches: &[],
        needs: &["xarray.next.head.acquire", "xarray.next.slot.acquire"],
    }
    .check();
}

/// A writer that also built the tree takes an entry out, which lowers the head to a node that readers knew from below. Claim: a
/// reader that comes through the new head finds the node initialised.
#[test]
fn find_against_building_and_shrinking() {
    Model {
        name: "index: find against building and shrinking",
        rows: &[46],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || {
            let build_and_shrink = |shared: &Shared| {
                shared.store(1);
                shared.store(2);
                shared.erase(2);
            };
            Shared::new(&[]).race(build_and_shrink, |shared| {
                shared.find(1);
            });
        },
        reaches: &[],
        needs: &["xarray.shrink.release"],
    }
    .check();
}

/// Taking one of two entries out lowers the head while a reader is inside the old one. Claim: the reader finds the entry that
/// stayed; it starts again from the head, once.
#[test]
fn find_against_shrinking() {
    Model {
        name: "index: find against shrinking",
        rows: &[46],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: || {
            Shared::new(&[0, 1]).race(
                |shared| shared.erase(1),
                |shared| {
                    shared.find(0);
                },
            );
        },
        reaches: &[],
        needs: &[
            "xarray.find.retry",
            "xarray.seed.spins_in_dead_node",
            "xarray.shrink.head_first",
            "xarray.shrink.retry.release",
        ],
    }
    .check();
}

/// The same of a search.
#[test]
fn next_against_shrinking() {
    Model {
        name: "index: next against shrinking",
        rows: &[46],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: || {
            Shared::new(&[0, 1]).race(
                |shared| shared.erase(1),
                |shared| {
                    shared.next(None);
                },
            );
        },
        reaches: &[],
        needs: &["xarray.next.retry"],
    }
    .check();
}

/// Taking the last entry of a node out unlinks that node, and lowers the head as far as the others allow. Claim: they stay.
#[test]
fn find_against_pruning() {
    Model {
        name: "index: find against pruning",
        rows: &[46],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: || {
            Shared::new(&[0, 1, 2]).race(
                |shared| shared.erase(2),
                |shared| {
                    shared.find(1);
                },
            );
        },
        reaches: &[],
        needs: &["xarray.prune.empty", "xarray.shrink.lone"],
    }
    .check();
}

/// A reader finds an entry and rechecks the slot while the head is lowered and the entry then taken out. Claim: the slot looks
/// unchanged only while the entry is there, even if its node is dead.
#[test]
fn recheck_against_shrinking() {
    Model {
        name: "index: recheck of a slot whose node was retired",
        rows: &[15],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || {
            let erase_both = |shared: &Shared| {
                shared.erase(1);
                shared.erase(0);
            };
            Shared::new(&[0, 1]).race(erase_both, |shared| {
                let section = rcu::read();
                let mut found = None;
                let find = || found.insert(shared.array.find(0, &section)).entry.as_page();
                shared.history.call("find", find, |map, page| map.get(&0) == page.as_ref());
                let found = found.expect("just found");
                let there = !found.entry.is_empty();
                let recheck = || there && found.is_unchanged();
                shared.history.call("recheck", recheck, |map, same| !same || map.contains_key(&0));
            });
        },
        reaches: &[],
        needs: &["xarray.shrink.retry"],
    }
    .check();
}

/// As [`find_against_shrinking`], with a grace period after which the old head is freed. Claim: no reader is inside it then.
/// Premise: readers are inside a read section.
#[test]
fn big_find_against_the_end_of_a_node() {
    Model {
        name: "index: find against the end of a node",
        rows: &[10, 46],
        preemption_bound: Some(6),
        grace_periods: true,
        twin: false,
        body: || {
            let erase = |shared: &Shared| {
                shared.erase(1);
                rcu::synchronize();
            };
            Shared::new(&[0, 1]).race(erase, |shared| {
                shared.find(0);
            });
        },
        reaches: &[],
        needs: &["xarray.seed.freed_now"],
    }
    .check();
}

/// Nodes leave the tree, and a thread that frees what has left begins to read afterwards. Claim: neither it nor the writer meets
/// a node that was freed. Premise: what is deferred may end with any later grace period.
fn find_after_a_grace_period(entries: &[u64], erased: u64, sought: u64) {
    Shared::new(entries).race(
        |shared| shared.erase(erased),
        move |shared| {
            rcu::synchronize();
            shared.find(sought);
        },
    );
}

#[test]
fn big_find_after_a_grace_period_against_pruning() {
    Model {
        name: "index: find after a grace period against pruning",
        rows: &[10, 46],
        preemption_bound: Some(5),
        grace_periods: true,
        twin: false,
        body: || find_after_a_grace_period(&[2], 2, 2),
        reaches: &[],
        needs: &["xarray.prune.head_first", "xarray.prune.slot_first"],
    }
    .check();
}

#[test]
fn big_find_after_a_grace_period_against_shrinking() {
    Model {
        name: "index: find after a grace period against shrinking",
        rows: &[10, 46],
        preemption_bound: Some(8),
        grace_periods: true,
        twin: false,
        body: || find_after_a_grace_period(&[0, 1], 1, 0),
        reaches: &[],
        needs: &["xarray.shrink.unlinked_first"],
    }
    .check();
}

/// The entry that stays carries a mark. Claim: it keeps the mark, so a search for marks finds it throughout.
#[test]
fn next_with_a_mark_against_shrinking() {
    Model {
        name: "index: next with a mark against an erase",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: || {
            let shared = Shared::new(&[0, 1]);
            assert!(shared.array.lock().set_mark(0, Mark::Dirty).unwrap());
            shared.race(
                |shared| shared.erase(1),
                |shared| {
                    shared.next(Some(Mark::Dirty));
                },
            );
        },
        reaches: &[],
        needs: &["xarray.shrink.unmarked"],
    }
    .check();
}
