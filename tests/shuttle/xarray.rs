//! The index under shuttle: a tree that grows and shrinks under its readers.

use super::{Entry, XArray};
use crate::rcu;
use crate::shuttle_harness::{Search, Test, reach, together};
use crate::sync::Tally;
use std::sync::Arc;

/// Two writers raise the tree to three levels, lower it again and wait for a grace period; three threads read. Claims: an entry
/// that is never changed is found by every lookup; any other is right or absent; a node is never used after it was freed; at the
/// end the tree is sound and no node is left.
fn growth_and_shrinking() {
    let nodes = Arc::new(Tally::new());
    let array = Arc::new(XArray::new(Arc::clone(&nodes)));
    array.lock().store(0, Entry::page(0)).unwrap();
    let mut threads: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for indices in [[5_u32, 60, 1], [17, 2, 33]] {
        let array = Arc::clone(&array);
        threads.push(Box::new(move || {
            for index in indices {
                array.lock().store(u64::from(index), Entry::page(index)).unwrap();
            }
            for index in indices {
                assert_eq!(array.lock().erase(u64::from(index)), Entry::page(index));
            }
            rcu::synchronize();
        }));
    }
    for wanted in [5_u32, 17, 60] {
        let array = Arc::clone(&array);
        threads.push(Box::new(move || {
            for _ in 0..2 {
                let section = rcu::read();
                let always = array.find(0, &section);
                assert_eq!(always.entry, Entry::page(0), "a look-up lost its way");
                let found = array.load(u64::from(wanted), &section);
                assert!(found.is_empty() || found == Entry::page(wanted), "{wanted} is {found:?}");
                reach(if found.is_empty() { "absent" } else { "found" });
                if let Some((index, entry)) = array.next(1, 60, None, &section) {
                    assert_eq!(entry.as_page().map(u64::from), Some(index));
                }
                reach(if always.is_unchanged() { "unchanged" } else { "moved" });
            }
        }));
    }
    together(threads);
    array.lock().audit().unwrap();
    let section = rcu::read();
    assert_eq!(array.next(0, u64::MAX, None, &section), Some((0, Entry::page(0))));
    assert_eq!(array.next(1, u64::MAX, None, &section), None);
    drop(section);
    rcu::barrier();
    assert_eq!(nodes.tallied(), 0, "a lone entry at index 0 needs no node");
}

#[test]
fn a_tree_grows_and_shrinks_under_its_readers() {
    Test {
        name: "index: growth and shrinking, 2 writers, 3 readers",
        search: Search::Pct(2_000),
        body: growth_and_shrinking,
        reaches: &["absent", "found", "unchanged", "moved"],
        needs: &["xarray.find.retry", "rcu.scan.waits"],
    }
    .check();
}
