//! What an evicted page leaves behind, and what its refault shows.
//!
//! Owns: shadows. Mirrors `mm/workingset.c`. A shadow replaces an evicted page in its slot and records the age of the cache. When
//! the page is read again, the difference in age is its refault distance: how many more frames would have kept it in the cache.
//! If that is less than the length of the active list, the page competes with active pages that may be used less often, and so it
//! becomes active at once.
//!
//! There are never more shadows than frames: at that limit, those older than half the number of frames are erased. Nor do shadows
//! keep many index nodes alive: a node with only shadows is noted, and when the noted nodes exceed an eighth of the number of
//! frames (Linux: `count_shadow_nodes`), the one noted first is freed along with its shadows. A mutex guards the notes; the rest
//! is single words.

use super::registry::Registry;
use super::stats::Stat;
use crate::page::{Frames, List, PageRef, usage};
use crate::sync::{AtomicU64, Guess, Mutex, Numbers, Ordering, guard};
use crate::xarray::{Entry, FANOUT, Locked, MAX_VALUE, XArray};
use std::collections::VecDeque;

/// Number of nodes with only shadows that any cache may have.
const FEW_NODES: usize = 64;

/// The age of a cache, and its shadows.
#[derive(Debug)]
pub(crate) struct Workingset {
    /// Evictions and activations so far (`nonresident_age`).
    age: Guess,
    /// Shadows in all files. Relaxed: it bounds itself, and orders nothing.
    shadows: AtomicU64,
    /// Nodes that came to hold only shadows, in that order. Since then a node may have got a page, or have been freed.
    nodes: Mutex<VecDeque<NotedNode>>,
    notes: Numbers,
}

/// A noted index node.
#[derive(Debug, Clone, Copy)]
struct NotedNode {
    file: u64,
    /// The index of any of its slots.
    index: u64,
    /// Also stored in the node, so that a node that was freed and allocated again is not taken for it.
    number: u32,
}

impl Workingset {
    pub(super) fn new() -> Self {
        Self {
            age: Guess::new(),
            shadows: AtomicU64::new(0),
            nodes: Mutex::new(VecDeque::new()),
            notes: Numbers::new(),
        }
    }

    /// Number of shadows in all files.
    pub(crate) fn shadows(&self) -> u64 {
        self.shadows.load(Ordering::Relaxed)
    }

    /// Called when a page has just left `index`: notes its node if it now holds only shadows. If there is no memory for the note,
    /// the node stays until its shadows are old.
    pub(super) fn note_node(&self, file: u64, pages: &mut Locked<'_>, index: u64) {
        // The model checker does not explore policy.
        if cfg!(specmm_loom) {
            return;
        }
        let number = (self.notes.next() % u64::from(u32::MAX)) as u32 + 1;
        let mut nodes = self.nodes.lock();
        if reserve(&mut nodes) && pages.note_values_only(index, number) {
            nodes.push_back(NotedNode { file, index, number });
        }
    }

    /// How many nodes may hold only shadows.
    pub(super) fn most_nodes(capacity: usize) -> usize {
        (capacity / 8).max(FEW_NODES)
    }

    fn noted(&self) -> usize {
        self.nodes.lock().len()
    }

    fn take_node(&self) -> Option<NotedNode> {
        self.nodes.lock().pop_front()
    }

    fn put_node_back(&self, node: NotedNode) {
        let mut nodes = self.nodes.lock();
        if reserve(&mut nodes) {
            nodes.push_back(node);
        }
    }

    /// The shadow of a page that is about to be evicted, if another is allowed.
    pub(super) fn eviction(&self, capacity: usize) -> Entry {
        let age = self.age.add(1) & MAX_VALUE;
        // Counted first, so that concurrent evictions cannot exceed the limit, and whoever forgets a shadow finds it counted.
        let others = self.shadows.fetch_add(1, Ordering::Relaxed);
        if !guard!("shadows.bounded", others < capacity as u64) {
            self.uncount();
            return Entry::EMPTY;
        }
        Entry::value(age)
    }

    fn uncount(&self) {
        let before = self.shadows.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a shadow was not counted");
    }

    /// Uncounts a shadow that was overwritten or erased, or whose page was not evicted after all.
    pub(super) fn forget(&self, entry: Entry) {
        if entry.as_value().is_some() {
            self.uncount();
        }
    }

    /// Counts a page becoming active: the cache ages by one.
    pub(super) fn activation(&self) {
        self.age.add(1);
    }

    fn distance(&self, shadow: u64) -> u64 {
        self.age.get().wrapping_sub(shadow) & MAX_VALUE
    }

    /// Erases old shadows if there is no room for `evictions` more.
    pub(super) fn make_room_for(&self, evictions: usize, capacity: usize, files: &Registry) {
        let capacity = capacity as u64;
        if self.shadows() + evictions as u64 <= capacity {
            return;
        }
        for file in files.iter() {
            file.forget_shadows(&|shadow| self.distance(shadow) > capacity / 2);
        }
    }

    /// Frees nodes with only shadows when too many are noted: an eighth of them, so that this is rare. Must not be called inside
    /// a read section: the last use of a file may end here.
    pub(super) fn trim_nodes(&self, capacity: usize, files: &Registry) {
        let most = Self::most_nodes(capacity);
        let noted = self.noted();
        if noted <= most {
            return;
        }
        // First drop the notes that no longer apply; the others keep their order.
        for _ in 0..noted {
            let Some(node) = self.take_node() else { break };
            let file = files.get(node.file);
            if file.is_some_and(|file| file.has_shadows_only(node.index, node.number)) {
                self.put_node_back(node);
            }
        }
        while self.noted() > most - most / 8 {
            let Some(node) = self.take_node() else { break };
            if let Some(file) = files.get(node.file) {
                file.forget_node(node.index, node.number);
            }
        }
    }

    /// Handles a page that was put where a shadow was (`workingset_refault`).
    pub(super) fn refault(&self, page: PageRef<'_>, old: Entry, frames: &Frames, count: impl Fn(Stat)) {
        let Some(shadow) = old.as_value() else { return };
        self.forget(old);
        count(Stat::Refaults);
        if self.distance(shadow) <= frames.usage().active as u64 {
            page.usage().set(usage::ACTIVE);
            frames.move_to(page, List::Active);
            self.activation();
            count(Stat::RefaultsActivated);
        }
    }

    /// Erases the shadow at `index`, unless there is a page now.
    pub(super) fn forget_shadow(&self, pages: &XArray, index: u64) {
        let mut pages = pages.lock();
        if guard!("forget_shadow.is_one", pages.get(index).as_value().is_some()) {
            self.forget(pages.erase(index));
        }
    }

    /// Erases the shadows for which `old` holds.
    pub(super) fn forget_shadows(&self, pages: &XArray, old: impl Fn(u64) -> bool) {
        let mut next = Some(0);
        loop {
            let found = next.and_then(|from| pages.next(from, u64::MAX, None, &crate::rcu::read()));
            let Some((index, entry)) = found else { return };
            next = index.checked_add(1);
            if entry.as_value().is_some_and(&old) {
                self.forget_shadow(pages, index);
            }
        }
    }

    /// Erases the shadows in the node that contains `index` and was noted under this number, unless it has got a page.
    pub(super) fn forget_node(&self, pages: &XArray, index: u64, number: u32) {
        let mut pages = pages.lock();
        if guard!("forget_node.shadows_only", pages.still_has_values_only(index, number)) {
            let first = index & !(FANOUT as u64 - 1);
            for at in first..first + FANOUT as u64 {
                self.forget(pages.erase(at));
            }
        }
    }
}

/// Whether there is memory for one more note.
fn reserve(nodes: &mut VecDeque<NotedNode>) -> bool {
    nodes.try_reserve(1).is_ok()
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
pub(super) mod tests;
