//! Tables all over the address space: which exist, and what visits of ranges find.

use super::super::leaf::LEAF_SPAN;
use super::super::mmap::{Madvise, Prot};
use super::super::tests::{FIRST, PAGE, undisturbed};
use super::super::{Mm, MmOptions};
use super::{OWN, Owner, Pmd, Pud, TABLE_BYTES, TASK_SIZE, Table};
use crate::cache::MmuGather;
use crate::page::Batch;
use crate::store::{MAX_SIZE, Store};
use crate::{Io, PageCache, StoreOptions};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A file of any size, which holds zeros.
struct Zeros;

impl Store for Zeros {
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> std::io::Result<usize> {
        buf.fill(0);
        Ok(buf.len())
    }
}

/// An address space that is mapped from [`FIRST`] to its end, over so many frames.
fn whole(frames: u64) -> (PageCache, Mm) {
    let cache = PageCache::new(frames * PAGE, Io::Inline).unwrap();
    let file = cache.open_store_with(Arc::new(Zeros), MAX_SIZE, StoreOptions::default().ra_pages(0)).unwrap();
    let mm = Mm::new(&cache, MmOptions::default().fault_around_bytes(PAGE)).unwrap();
    let mut left = TASK_SIZE - FIRST;
    while left > 0 {
        let length = left.min(MAX_SIZE);
        mm.mmap(&file, Some(length), 0, Prot::Read, true).unwrap();
        left -= length;
    }
    (cache, mm)
}

/// Addresses of pages near the ends of tables of each level.
fn places() -> impl Strategy<Value = u64> {
    let spans = prop_oneof![Just(LEAF_SPAN), Just(Pmd::SPAN), Just(Pud::SPAN), Just(TASK_SIZE / 2)];
    (spans, 0..4_u64, 0..5_u64).prop_map(|(span, number, near)| {
        let at = span * number + near * PAGE;
        at.saturating_sub(2 * PAGE).clamp(FIRST, TASK_SIZE - PAGE)
    })
}

/// How many tables the pages need, the root included.
fn tables(pages: &BTreeSet<u64>) -> u64 {
    let of = |span: u64| pages.iter().map(|at| at / span).collect::<BTreeSet<_>>().len() as u64;
    1 + of(Pud::SPAN) + of(Pmd::SPAN) + of(LEAF_SPAN)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn there_are_tables_where_there_are_entries(
        steps in prop::collection::vec((places(), places(), 0..3_u8), 1..25),
    ) {
        let (cache, mm) = whole(256);
        let mut pages = BTreeSet::new();
        for (one, other, step) in steps {
            if step < 2 {
                mm.load(one, &mut [1]).unwrap();
                pages.insert(one);
            } else {
                let (from, to) = (one.min(other), one.max(other) + PAGE);
                mm.madvise(from, to - from, Madvise::DontNeed).unwrap();
                pages.retain(|page| !(from..to).contains(page));
            }
            let mut found = BTreeSet::new();
            mm.inner.tables.for_each_leaf(0, TASK_SIZE, |leaf, from, to| {
                assert_eq!((from, to), (leaf.first, leaf.first + LEAF_SPAN));
                found.extend((from..to).step_by(PAGE as usize).filter(|&at| !leaf.get(at).is_none()));
            });
            prop_assert_eq!(&found, &pages);
            let start = other & !(LEAF_SPAN - 1);
            let leaves: Vec<u64> = pages.iter().map(|at| at & !(LEAF_SPAN - 1)).collect::<BTreeSet<_>>().into_iter().collect();
            let (below, above): (Vec<u64>, Vec<u64>) = leaves.iter().partition(|&&at| at < start);
            let turn: Vec<u64> = above.into_iter().chain(below).collect();
            let from: Vec<u64> = mm.inner.tables.leaves_from(start).iter().copied().collect();
            prop_assert_eq!(from, turn, "from {:#x}", start);
        }
        mm.check().unwrap();
        prop_assert_eq!(mm.page_table_bytes(), tables(&pages) * TABLE_BYTES);
        prop_assert_eq!(cache.stats().page_tables, tables(&pages) - 1);
        mm.close().unwrap();
        cache.check().unwrap();
        prop_assert_eq!((mm.page_table_bytes(), cache.stats().page_tables), (TABLE_BYTES, 0));
    }
}

/// Addresses of mappings of two pages each, a table apart at the level above the leaves.
fn far_apart(cache: &PageCache, mm: &Mm, count: usize) -> Vec<u64> {
    let file = cache.open_store_with(Arc::new(Zeros), MAX_SIZE, StoreOptions::default().ra_pages(0)).unwrap();
    let map = |pages: u64, first: u64| {
        mm.mmap(&file, Some(pages * PAGE), first * PAGE, Prot::ReadWrite, false).unwrap()
    };
    let between = Pmd::SPAN / PAGE - 2;
    let places = std::iter::repeat_with(|| (map(between, 3), map(2, 0)).1);
    places.take(count).collect()
}

// Tables that were taken out count until they are freed.
#[test]
fn leaves_go_in_turn_where_tables_outnumber_frames() {
    undisturbed(|| {
        let cache = PageCache::new(71 * PAGE, Io::Inline).unwrap();
        let mm = Mm::new(&cache, MmOptions::default().fault_around_bytes(PAGE)).unwrap();
        let places = far_apart(&cache, &mm, 110);
        let (mut mapped, mut hand) = (BTreeSet::new(), 0);
        for (number, &at) in places.iter().enumerate().chain(places.iter().enumerate().rev()) {
            // A leaf and the table above it for each, and one that points to those.
            if !mapped.contains(&number) && 1 + 2 * mapped.len() >= 71 {
                let turn = mapped.range(hand..).chain(mapped.range(..hand)).copied();
                let gone: Vec<usize> = turn.take(Batch::<u64>::MOST).collect();
                hand = gone.last().unwrap() + 1;
                mapped.retain(|number| !gone.contains(number));
            }
            mapped.insert(number);
            mm.load(at, &mut [1]).unwrap();
            let is_mapped = |number: &usize| mm.pagemap(places[*number], PAGE).unwrap() != [0];
            let found: BTreeSet<_> = (0..places.len()).filter(is_mapped).collect();
            if found != mapped {
                return Err(format!("after a fault at {number}: {found:?}, not {mapped:?}"));
            }
        }
        mm.check().unwrap();
        cache.check().unwrap();
        Ok(())
    });
}

#[test]
fn private_copies_keep_their_leaves() {
    let cache = PageCache::new(80 * PAGE, Io::Inline).unwrap();
    let mm = Mm::new(&cache, MmOptions::default().fault_around_bytes(PAGE)).unwrap();
    let places = far_apart(&cache, &mm, 41);
    for &at in &places[..40] {
        mm.store(at, &[1]).unwrap();
        mm.load(at + PAGE, &mut [1]).unwrap();
    }
    let entries = |at: u64| mm.pagemap(at, 2 * PAGE).unwrap();
    mm.load(places[40], &mut [1]).unwrap();
    assert!(
        places[..40].iter().all(|&at| entries(at) == [7, 0]),
        "pages of the file are mapped again when they are used"
    );
    assert_eq!(entries(places[40]), [1, 0]);
    mm.check().unwrap();
    cache.check().unwrap();
}

#[test]
fn few_tables_stay_however_small_the_cache_is() {
    let cache = PageCache::new(8 * PAGE, Io::Inline).unwrap();
    let options = MmOptions::default().fault_around_bytes(PAGE);
    let [other, mm] = [0; 2].map(|_| Mm::new(&cache, options).unwrap());
    let places = far_apart(&cache, &mm, 513);
    let (few, last) = (&places[..30], places[512]);
    assert_ne!(few[29] / Pud::SPAN, last / Pud::SPAN);
    let is_mapped = |at: &u64| mm.pagemap(*at, PAGE).unwrap() != [0];
    few.iter().chain([&last]).for_each(|&at| mm.load(at, &mut [1]).unwrap());
    mm.check().unwrap();
    assert_eq!(mm.page_table_bytes(), (1 + OWN) * TABLE_BYTES);
    assert!(few.iter().chain([&last]).all(is_mapped));
    // So many that there is no room for another, but for an address space that has few.
    let theirs = far_apart(&cache, &other, 20);
    for &at in &theirs {
        other.load(at, &mut [1]).unwrap();
    }
    assert!(theirs.iter().all(|&at| other.pagemap(at, PAGE).unwrap() == [1]));
    mm.load(places[40], &mut [1]).unwrap();
    assert!(is_mapped(&places[40]) && !few.iter().chain([&last]).any(is_mapped));
    mm.check().unwrap();
    other.check().unwrap();
    cache.check().unwrap();
}

#[test]
fn a_check_counts_tables() {
    let (_cache, mm) = whole(16);
    mm.load(FIRST, &mut [1]).unwrap();
    mm.check().unwrap();
    let count = &mm.inner.tables.tables.own;
    count.add(1);
    assert!(matches!(mm.check(), Err(crate::Error::Invariant(_))));
    count.sub(1);
    mm.check().unwrap();
    // Those that were taken out and wait for a grace period count too, so it waits for them.
    let mut gather = MmuGather::new(mm.inner.tables.frames());
    mm.inner.tables.zap(FIRST, FIRST + PAGE, Owner::Any, &mut gather);
    mm.check().unwrap();
    assert_eq!(mm.page_table_bytes(), TABLE_BYTES);
    gather.finish();
}

#[test]
fn many_entries_are_cleared_at_once() {
    let (cache, mm) = whole(1300);
    let entries =
        |mm: &Mm| mm.pagemap(FIRST, 1200 * PAGE).unwrap().iter().filter(|&&entry| entry != 0).count();
    mm.touch(FIRST, 1200 * PAGE, PAGE, false).unwrap();
    assert_eq!(entries(&mm), 1200);
    mm.madvise(FIRST + PAGE, 1198 * PAGE, Madvise::DontNeed).unwrap();
    assert_eq!(entries(&mm), 2);
    mm.check().unwrap();
    cache.check().unwrap();
}
