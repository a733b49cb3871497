//! How old a shadow is, how many there may be, and which go first.

use super::super::mmu_gather::MmuGather;
use super::super::registry::{CachedFile, Findings};
use super::*;
use crate::page::{LockedPage, PageHandle, Use};
use crate::sync::Tally;
use std::sync::Arc;

/// A file that notes what is asked of it: its shadows are of these ages, and the nodes in `gone` have got a page.
#[derive(Default)]
pub(in crate::cache) struct File {
    ages: Vec<u64>,
    gone: Vec<u64>,
    forgotten: Mutex<Vec<u64>>,
    asked: Tally,
}

impl CachedFile for File {
    fn id(&self) -> u64 {
        FILE
    }
    fn referenced(&self, _index: u64) -> u32 {
        0
    }
    fn unmap_page(&self, _index: u64, _gather: &mut MmuGather<'_>) {}
    fn remove_locked<'f>(&self, lock: LockedPage<'f>, _shadow: Entry) -> Result<(), LockedPage<'f>> {
        Err(lock)
    }
    fn drop_idle_pages(&self) -> u64 {
        0
    }
    fn forget_shadows(&self, old: &dyn Fn(u64) -> bool) {
        self.forgotten.lock().extend(self.ages.iter().filter(|age| old(**age)));
    }
    fn has_shadows_only(&self, index: u64, number: u32) -> bool {
        assert_ne!(number, 0, "a node that is not noted has 0");
        self.asked.add(1);
        !self.gone.contains(&index)
    }
    fn forget_node(&self, index: u64, _number: u32) {
        self.forgotten.lock().push(index);
    }
    fn audit(&self, _found: &mut Findings) -> crate::Result<()> {
        Ok(())
    }
}

const FILE: u64 = 3;

/// A cache's files: this one.
fn registered(file: File) -> (Registry, Arc<File>) {
    let (files, file) = (Registry::default(), Arc::new(file));
    let weak = Arc::downgrade(&file);
    files.insert(FILE, weak);
    (files, file)
}

/// An index whose nodes hold one shadow each, noted in this order; their indices.
fn noted(set: &Workingset, nodes: u64) -> (XArray, Vec<u64>) {
    let pages = XArray::new(Arc::new(Tally::new()));
    let indices: Vec<_> = (1..=nodes).map(|node| node * FANOUT as u64 + node % 5).collect();
    for &index in &indices {
        let mut pages = pages.lock();
        pages.store(index, Entry::value(1)).unwrap();
        set.note_node(FILE, &mut pages, index);
    }
    (pages, indices)
}

#[test]
fn there_are_as_many_shadows_as_frames_and_each_has_its_age() {
    let set = Workingset::new();
    let shadows = [(); 3].map(|()| set.eviction(2));
    assert_eq!(shadows.map(Entry::as_value), [Some(1), Some(2), None]);
    assert_eq!(set.shadows(), 2);
    for (entry, left) in [(shadows[2], 2), (Entry::page(5), 2), (shadows[0], 1), (shadows[1], 0)] {
        set.forget(entry);
        assert_eq!(set.shadows(), left);
    }
    // The cache grew older by each eviction, the one without a shadow too, and does by each activation.
    set.activation();
    assert_eq!((set.eviction(1).as_value(), set.eviction(1).as_value(), set.shadows()), (Some(5), None, 1));
}

#[test]
fn a_page_comes_back_active_if_the_active_pages_frames_would_have_kept_it() {
    for (evictions, active, is_active) in
        [(0, 0, true), (1, 0, false), (1, 1, true), (2, 1, false), (2, 2, true), (3, 2, false)]
    {
        let (set, frames) = (Workingset::new(), Frames::new(8).unwrap());
        let others: Vec<PageHandle<'_>> = (0..active).map(|_| frames.alloc(Use::File).unwrap()).collect();
        for page in &others {
            frames.move_to(page.page(), List::Active);
        }
        let old = set.eviction(8);
        for _ in 0..evictions {
            set.activation();
        }
        let (page, age) = (frames.alloc(Use::File).unwrap(), set.age.get());
        let counted = Mutex::new([0, 0]);
        let count = |stat| counted.lock()[usize::from(matches!(stat, Stat::RefaultsActivated))] += 1;
        set.refault(page.page(), Entry::EMPTY, &frames, count);
        assert_eq!((*counted.lock(), set.shadows()), ([0, 0], 1), "nothing was there");
        set.refault(page.page(), old, &frames, count);
        let what = format!("{evictions} evictions later, {active} active");
        assert_eq!((*counted.lock(), set.shadows()), ([1, u64::from(is_active)], 0), "{what}");
        assert_eq!(frames.usage().active, active + usize::from(is_active), "{what}");
        assert_eq!(page.page().usage().get() & usage::ACTIVE != 0, is_active, "{what}");
        assert_eq!(set.age.get() - age, u64::from(is_active), "{what}");
    }
}

#[test]
fn shadows_older_than_half_the_frames_make_room_when_there_is_none() {
    let (set, (files, file)) =
        (Workingset::new(), registered(File { ages: (1..=9).collect(), ..File::default() }));
    for _ in 0..9 {
        let _counted = set.eviction(10);
    }
    set.make_room_for(1, 10, &files);
    assert_eq!(*file.forgotten.lock(), [0; 0], "there is room for one");
    set.make_room_for(2, 10, &files);
    assert_eq!(*file.forgotten.lock(), [1, 2, 3]);
    file.forgotten.lock().clear();
    set.make_room_for(0, 8, &files);
    assert_eq!(*file.forgotten.lock(), [1, 2, 3, 4]);
}

#[test]
fn an_eighth_of_the_frames_may_be_nodes_with_only_shadows() {
    for (frames, nodes) in [(1, 64), (512, 64), (519, 64), (520, 65), (800, 100)] {
        assert_eq!(Workingset::most_nodes(frames), nodes);
    }
}

#[test]
fn only_a_node_with_nothing_but_shadows_is_noted_and_only_once() {
    let (set, pages) = (Workingset::new(), XArray::new(Arc::new(Tally::new())));
    let mut pages = pages.lock();
    for index in [1, 2, 70, 71] {
        pages.store(index, Entry::value(1)).unwrap();
    }
    pages.store(72, Entry::page(1)).unwrap();
    for (index, notes) in [(70, 0), (1, 1), (2, 1)] {
        set.note_node(FILE, &mut pages, index);
        assert_eq!(set.noted(), notes);
    }
    let note = set.take_node().unwrap();
    assert_eq!((note.file, note.index), (FILE, 1));
    assert!(note.number != 0 && pages.still_has_values_only(1, note.number));
}

#[test]
fn a_note_has_room_before_it_is_needed() {
    let mut notes = VecDeque::new();
    for index in 0..40 {
        assert!(reserve(&mut notes) && notes.capacity() > notes.len());
        notes.push_back(NotedNode { file: FILE, index, number: 1 });
    }
}

#[test]
fn the_nodes_noted_first_go_when_there_are_too_many() {
    // Of 64 that may be there, an eighth goes at a time.
    for (nodes, goes) in [(63, 0), (64, 0), (65, 9), (70, 14)] {
        let (set, (files, file)) = (Workingset::new(), registered(File::default()));
        let (_pages, indices) = noted(&set, nodes);
        assert_eq!(set.noted() as u64, nodes);
        set.trim_nodes(8, &files);
        assert_eq!(*file.forgotten.lock(), indices[..goes], "of {nodes}");
        assert_eq!(set.noted() as u64, nodes - goes as u64, "of {nodes}");
        assert_eq!(file.asked.tallied() == 0, goes == 0, "few nodes cost nothing");
        let left: Vec<_> = std::iter::from_fn(|| set.take_node()).map(|note| note.index).collect();
        assert_eq!(left, indices[goes..], "the others keep their order");
    }
}

#[test]
fn notes_that_no_longer_apply_go_first() {
    let set = Workingset::new();
    let (_pages, indices) = noted(&set, 70);
    let gone: Vec<_> = indices.iter().copied().step_by(7).collect();
    let (files, file) = registered(File { gone: gone.clone(), ..File::default() });
    set.trim_nodes(8, &files);
    let there: Vec<_> = indices.into_iter().filter(|index| !gone.contains(index)).collect();
    assert_eq!((*file.forgotten.lock()).clone(), there[..4], "60 of 70 are left, of which 56 may stay");
    assert_eq!(set.noted(), 56);
    // Nor do those of a file that is gone.
    let set = Workingset::new();
    let (_pages, _) = noted(&set, 65);
    set.trim_nodes(8, &Registry::default());
    assert_eq!(set.noted(), 0);
}

/// Shadows and a page in two nodes, counted.
fn filled(set: &Workingset) -> XArray {
    let pages = XArray::new(Arc::new(Tally::new()));
    for index in [0, 1, 5, 63, 64, 127, 128] {
        let _ = pages.lock().store(index, set.eviction(100)).unwrap();
    }
    let _ = pages.lock().store(6, Entry::page(1)).unwrap();
    pages
}

fn there(pages: &XArray) -> Vec<u64> {
    (0..200).filter(|&index| !pages.load(index, &crate::rcu::read()).is_empty()).collect()
}

#[test]
fn shadows_are_erased_one_by_one_or_by_age_and_pages_never() {
    let set = Workingset::new();
    let pages = filled(&set);
    set.forget_shadow(&pages, 6);
    set.forget_shadow(&pages, 2);
    assert_eq!((there(&pages), set.shadows()), (vec![0, 1, 5, 6, 63, 64, 127, 128], 7));
    set.forget_shadow(&pages, 5);
    assert_eq!((there(&pages), set.shadows()), (vec![0, 1, 6, 63, 64, 127, 128], 6));
    // The ages are 1 to 7, in order.
    set.forget_shadows(&pages, |age| age % 2 == 1);
    assert_eq!((there(&pages), set.shadows()), (vec![1, 6, 63, 127], 3));
    set.forget_shadows(&pages, |_| true);
    assert_eq!((there(&pages), set.shadows()), (vec![6], 0));
}

#[test]
fn a_noted_node_goes_with_all_its_shadows_unless_it_has_got_a_page() {
    let set = Workingset::new();
    let pages = filled(&set);
    // Any of its indices names it.
    assert!(pages.lock().note_values_only(101, 9));
    set.forget_node(&pages, 101, 8);
    assert_eq!(set.shadows(), 7, "it was noted under another number");
    set.forget_node(&pages, 101, 9);
    assert_eq!((there(&pages), set.shadows()), (vec![0, 1, 5, 6, 63, 128], 5));
    let _ = pages.lock().erase(6);
    assert!(pages.lock().note_values_only(6, 10));
    let _ = pages.lock().store(7, Entry::page(1)).unwrap();
    set.forget_node(&pages, 6, 10);
    assert_eq!(set.shadows(), 5, "it has got a page");
}
