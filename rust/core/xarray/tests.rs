use super::*;
use crate::rcu;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn array() -> XArray {
    XArray::new(Arc::new(Tally::new()))
}

#[test]
fn grows_shrinks_and_keeps_every_entry() {
    let array = array();
    let section = rcu::read();
    for index in [0, 1, 63, 64, 4095, 4096, 1 << 32, u64::MAX] {
        assert!(array.load(index, &section).is_empty());
        assert!(array.lock().store(index, Entry::page(7)).unwrap().is_empty());
        assert_eq!(array.load(index, &section).as_page(), Some(7));
        array.lock().audit().unwrap();
    }
    assert_eq!(array.next(65, u64::MAX, None, &section).unwrap().0, 4095);
    assert_eq!(array.next(4097, u64::MAX, None, &section).unwrap().0, 1 << 32);
    for index in [u64::MAX, 1 << 32, 4096, 4095, 64, 63, 1] {
        assert_eq!(array.lock().erase(index).as_page(), Some(7));
        array.lock().audit().unwrap();
    }
    assert_eq!(array.load(0, &section).as_page(), Some(7));
    drop(section);
    rcu::barrier();
    assert_eq!(array.nodes.tallied(), 0, "a lone entry at index 0 needs no node");
}

#[test]
fn a_reader_in_a_retired_head_sees_that_it_is_stale() {
    let array = array();
    array.lock().store(0, Entry::page(1)).unwrap();
    array.lock().store(1, Entry::page(2)).unwrap();
    let section = rcu::read();
    let found = array.find(0, &section);
    assert!(found.is_unchanged());
    array.lock().erase(1);
    assert!(!found.is_unchanged(), "the leaf was retired by shrinking: its slot must not look current");
    assert_eq!(array.load(0, &section).as_page(), Some(1));
}

#[test]
fn values_are_not_pages() {
    let array = array();
    array.lock().store(9, Entry::value(MAX_VALUE)).unwrap();
    let section = rcu::read();
    let entry = array.load(9, &section);
    assert_eq!((entry.as_page(), entry.as_value()), (None, Some(MAX_VALUE)));
}

#[derive(Debug, Clone)]
enum Step {
    Store(u64, u32),
    Value(u64, u64),
    Erase(u64),
    Mark(u64),
    Unmark(u64),
}

fn index() -> impl Strategy<Value = u64> {
    prop_oneof![0..130_u64, 4000..4200_u64, (1_u64 << 20)..(1 << 20) + 3, Just(u64::MAX)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (index(), 0..1000_u32).prop_map(|(i, p)| Step::Store(i, p)),
        (index(), 0..1000_u64).prop_map(|(i, v)| Step::Value(i, v)),
        index().prop_map(Step::Erase),
        index().prop_map(Step::Mark),
        index().prop_map(Step::Unmark),
    ]
}

proptest! {
    #[test]
    fn behaves_as_an_ordered_map(steps in prop::collection::vec(step(), 1..120)) {
        let array = array();
        let mut model: BTreeMap<u64, (Entry, bool)> = BTreeMap::new();
        for step in steps {
            let mut locked = array.lock();
            match step {
                Step::Store(i, p) => {
                    let old = locked.store(i, Entry::page(p)).unwrap();
                    let entry = model.entry(i).or_insert((Entry::EMPTY, false));
                    prop_assert_eq!(old, entry.0);
                    entry.0 = Entry::page(p);
                }
                Step::Value(i, v) => {
                    let old = locked.store(i, Entry::value(v)).unwrap();
                    let entry = model.entry(i).or_insert((Entry::EMPTY, false));
                    prop_assert_eq!(old, entry.0);
                    entry.0 = Entry::value(v);
                }
                Step::Erase(i) => {
                    let old = locked.erase(i);
                    prop_assert_eq!(old, model.remove(&i).map_or(Entry::EMPTY, |e| e.0));
                }
                Step::Mark(i) => {
                    let there = locked.set_mark(i, Mark::Dirty).unwrap();
                    prop_assert_eq!(there, model.get_mut(&i).map(|e| e.1 = true).is_some());
                }
                Step::Unmark(i) => {
                    locked.clear_mark(i, Mark::Dirty);
                    if let Some(e) = model.get_mut(&i) { e.1 = false; }
                }
            }
            if let Err(why) = locked.audit() { prop_assert!(false, "{}", why); }
            drop(locked);
            let section = rcu::read();
            for (&i, &(entry, _)) in &model {
                prop_assert_eq!(array.load(i, &section), entry);
            }
            let marked: Vec<u64> = model.iter().filter(|(_, e)| e.1).map(|(&i, _)| i).collect();
            for (mark, expected) in [(None, model.keys().copied().collect::<Vec<_>>()), (Some(Mark::Dirty), marked)] {
                let mut found = Vec::new();
                let mut from = Some(0_u64);
                while let Some((i, _)) = from.and_then(|at| array.next(at, u64::MAX, mark, &section)) {
                    found.push(i);
                    from = i.checked_add(1);
                }
                prop_assert_eq!(found, expected);
            }
        }
    }
}
