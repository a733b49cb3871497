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

#[test]
fn a_lone_entry_has_a_node_only_for_its_marks() {
    let array = array();
    let section = rcu::read();
    let nodes = || array.lock().audit().unwrap().nodes;
    for entry in [Entry::page(3), Entry::value(3)] {
        assert!(array.lock().store(0, entry).unwrap().is_empty());
        assert_eq!(array.lock().store(0, entry).unwrap(), entry);
        assert_eq!((nodes(), array.nodes.tallied()), (0, 0));
        assert_eq!(array.lock().store(0, Entry::EMPTY).unwrap(), entry);
        assert_eq!(array.lock().erase(0), Entry::EMPTY);
    }
    array.lock().store(0, Entry::page(4)).unwrap();
    assert!(array.lock().set_mark(0, Mark::Dirty).unwrap());
    assert_eq!(array.next(0, u64::MAX, Some(Mark::Dirty), &section), Some((0, Entry::page(4))));
    assert_eq!(array.next(0, u64::MAX, Some(Mark::ToWrite), &section), None);
    assert_eq!((nodes(), array.nodes.tallied()), (1, 1));
    assert_eq!(array.lock().erase(0), Entry::page(4));
    assert_eq!((nodes(), array.next(0, u64::MAX, None, &section)), (0, None));
}

#[test]
fn what_is_absent_is_not_found_and_leaves_all_as_it_was() {
    let indices = [0, 1, 62, 63, 64, 65, 4095, 4096, 1 << 18, 1 << 60, u64::MAX];
    let of_one = indices.iter().map(|&index| vec![index]);
    let of_two = indices.windows(2).map(<[u64]>::to_vec);
    for present in of_one.chain(of_two) {
        let array = array();
        for &index in &present {
            array.lock().store(index, Entry::page(9)).unwrap();
        }
        let before = array.lock().audit().unwrap();
        for absent in indices.into_iter().filter(|index| !present.contains(index)) {
            let at = format!("{absent} beside {present:?}");
            let mut locked = array.lock();
            assert_eq!(locked.get(absent), Entry::EMPTY, "{at}");
            assert_eq!(locked.erase(absent), Entry::EMPTY, "{at}");
            assert_eq!(locked.store(absent, Entry::EMPTY).unwrap(), Entry::EMPTY, "{at}");
            assert!(!locked.set_mark(absent, Mark::Extra).unwrap(), "{at}");
            locked.clear_mark(absent, Mark::Extra);
            assert_eq!(locked.audit(), Ok(before), "{at}");
            drop(locked);
            assert_eq!(array.load(absent, &rcu::read()), Entry::EMPTY, "{at}");
        }
        for &index in &present {
            assert_eq!(array.lock().get(index), Entry::page(9), "{index} of {present:?}");
        }
        assert_eq!(array.nodes.tallied(), before.nodes, "{present:?}");
    }
}

#[test]
fn a_search_stays_between_its_first_and_its_last_index() {
    let present = [3, 5, 64, 130, 4096, 5000, 1 << 20, u64::MAX];
    let around = |index: u64| [index.saturating_sub(1), index, index.saturating_add(1)];
    let bounds: Vec<u64> = [0, 63, 128, 4160].into_iter().chain(present).flat_map(around).collect();
    let array = array();
    let section = rcu::read();
    for index in present {
        array.lock().store(index, Entry::page(7)).unwrap();
        if index % 5 == 0 {
            array.lock().set_mark(index, Mark::ToWrite).unwrap();
        }
    }
    for &first in &bounds {
        for &last in &bounds {
            for (mark, every) in [(None, 1), (Some(Mark::ToWrite), 5), (Some(Mark::Dirty), u64::MAX - 1)] {
                let is_found = |index: &u64| (first..=last).contains(index) && index % every == 0;
                let expected = present.into_iter().find(is_found);
                let found = array.next(first, last, mark, &section).map(|(index, _)| index);
                assert_eq!(found, expected, "{first}..={last} {mark:?}");
            }
        }
    }
}

#[test]
fn a_node_is_noted_once_for_as_long_as_it_has_values_only() {
    let array = array();
    let mut locked = array.lock();
    assert!(!locked.note_values_only(70, 1), "there is none");
    assert!(!locked.still_has_values_only(70, 1));
    locked.store(0, Entry::value(1)).unwrap();
    assert!(!locked.note_values_only(0, 1), "an entry without a node");
    locked.store(70, Entry::value(1)).unwrap();
    locked.store(72, Entry::page(1)).unwrap();
    assert!(!locked.note_values_only(70, 1), "there is a page");
    locked.erase(72);
    assert!(!locked.still_has_values_only(70, 1), "it was not noted");
    assert!(locked.note_values_only(70, 1));
    assert!(!locked.note_values_only(72, 2), "it is noted");
    for (index, number, still) in [(70, 1, true), (127, 1, true), (70, 2, false), (0, 1, false)] {
        assert_eq!(locked.still_has_values_only(index, number), still, "{index} {number}");
    }
    locked.store(72, Entry::page(1)).unwrap();
    assert!(!locked.still_has_values_only(70, 2), "another's note");
    locked.erase(72);
    assert!(locked.still_has_values_only(70, 1), "of the page, nobody who has the number knows");
    locked.store(72, Entry::page(1)).unwrap();
    assert!(!locked.still_has_values_only(70, 1), "there is a page again");
    locked.erase(72);
    assert!(!locked.still_has_values_only(70, 1), "the note is gone");
    assert!(locked.note_values_only(70, 3));
    assert!(locked.still_has_values_only(70, 3));
}

#[test]
fn a_map_that_is_dropped_frees_its_nodes() {
    let nodes = Arc::new(Tally::new());
    for indices in [&[0][..], &[1], &[0, 64, 1 << 30], &[5, 4096, 5000, u64::MAX]] {
        let array = XArray::new(Arc::clone(&nodes));
        for &index in indices {
            array.lock().store(index, Entry::page(1)).unwrap();
        }
        assert_eq!(nodes.tallied(), array.lock().audit().unwrap().nodes);
        drop(array);
        assert_eq!(nodes.tallied(), 0, "{indices:?}");
    }
    assert_eq!(Arc::strong_count(&nodes), 1, "each node has a count of its gauge");
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
    prop_oneof![Just(0), 0..130_u64, 4000..4200_u64, (1_u64 << 20)..(1 << 20) + 3, Just(u64::MAX)]
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
