//! What an evicted page leaves behind, and what its return says.
//!
//! Owns: shadows. Mirrors `mm/workingset.c`. A shadow stands in the slot of an evicted page and remembers how far the cache
//! had aged. When the page is read again, the difference is its refault distance: how many frames more would have kept it. If
//! that is less than what the active list holds, the page competes with pages that may be used less than it is, and comes
//! back as an active one.
//!
//! There are never more shadows than frames: when there would be, those that are older than half of that are taken away. Nor do
//! they keep many nodes of the index: one that holds shadows only is noted, and when more than an eighth as many as frames are
//! noted (Linux: `count_shadow_nodes`), the shadows of the one noted first go, and it with them.

use super::registry::Registry;
use super::stats::Stat;
use crate::page::{Frames, List, PageRef, usage};
use crate::sync::{Mutex, Tally, guard};
use crate::xarray::{Entry, FANOUT, Locked, MAX_VALUE, XArray};
use std::collections::VecDeque;

/// Nodes with shadows only that any cache may have.
const FEW_NODES: usize = 64;

/// The age of a cache, and how many shadows it has.
#[derive(Debug, Default)]
pub(crate) struct Workingset {
    /// Evictions and activations so far (`nonresident_age`).
    age: Tally,
    shadows: Tally,
    /// Nodes that came to hold shadows only, those first that did so first. A page may have come since, or the node have gone.
    nodes: Mutex<VecDeque<NotedNode>>,
    notes: Tally,
}

/// A node of the index that was noted.
#[derive(Debug, Clone, Copy)]
struct NotedNode {
    file: u64,
    /// Of any of its slots.
    index: u64,
    /// The node carries it too: one that was freed and made again is another.
    number: u32,
}

impl Workingset {
    /// Shadows in all files.
    pub(crate) fn shadows(&self) -> u64 {
        self.shadows.get()
    }

    /// A page has just gone from `index`: notes its node if that holds shadows only now. Without memory for the note the node
    /// stays until its shadows are old.
    pub(super) fn note_node(&self, file: u64, pages: &mut Locked<'_>, index: u64) {
        // Policy is no business of the model checker.
        if cfg!(specmm_loom) {
            return;
        }
        let number = (self.notes.next() % u64::from(u32::MAX)) as u32 + 1;
        let mut nodes = self.nodes.lock();
        if nodes.try_reserve(1).is_ok() && pages.note_values_only(index, number) {
            nodes.push_back(NotedNode { file, index, number });
        }
    }

    /// How many nodes may hold shadows only.
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
        if nodes.try_reserve(1).is_ok() {
            nodes.push_back(node);
        }
    }

    /// The shadow of a page that is about to be evicted, if one more is allowed.
    pub(super) fn eviction(&self, capacity: usize) -> Entry {
        let age = self.age.next() & MAX_VALUE;
        // Counted first: of several who evict at once none oversteps.
        if self.shadows.next() > capacity as u64 {
            self.shadows.sub(1);
            return Entry::EMPTY;
        }
        Entry::value(age)
    }

    /// An entry was overwritten or erased, or its page stayed after all.
    pub(super) fn forget(&self, entry: Entry) {
        if entry.as_value().is_some() {
            self.shadows.sub(1);
        }
    }

    /// A page became active: pages that are not resident have grown older by one.
    pub(super) fn activation(&self) {
        self.age.add(1);
    }

    fn distance(&self, shadow: u64) -> u64 {
        self.age.get().wrapping_sub(shadow) & MAX_VALUE
    }

    /// Takes old shadows away if there is no room for so many more.
    pub(super) fn make_room_for(&self, evictions: usize, capacity: usize, files: &Registry) {
        let capacity = capacity as u64;
        if self.shadows() + evictions as u64 <= capacity {
            return;
        }
        for file in files.iter() {
            file.forget_shadows(&|shadow| self.distance(shadow) > capacity / 2);
        }
    }

    /// Takes nodes with shadows only away when too many are noted: an eighth of them, so that this is rare. Not inside a read
    /// section: the last use of a file may end here.
    pub(super) fn trim_nodes(&self, capacity: usize, files: &Registry) {
        let most = Self::most_nodes(capacity);
        let noted = self.noted();
        if cfg!(specmm_loom) || noted <= most {
            return;
        }
        // First those that are not any more what they were noted as; what stays keeps its order.
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

    /// A page was put where a shadow was (`workingset_refault`).
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

    /// Erases the shadow at `index` of a file's index, unless a page has come.
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
            let section = crate::rcu::read();
            let found = next.and_then(|from| pages.next(from, u64::MAX, None, &section));
            drop(section);
            let Some((index, entry)) = found else { return };
            next = index.checked_add(1);
            if entry.as_value().is_some_and(&old) {
                self.forget_shadow(pages, index);
            }
        }
    }

    /// Erases the shadows in the node that `index` lies in, noted under this number, unless a page has come.
    pub(super) fn forget_node(&self, pages: &XArray, index: u64, number: u32) {
        let mut pages = pages.lock();
        if pages.still_has_values_only(index, number) {
            let first = index & !(FANOUT as u64 - 1);
            for at in first..first + FANOUT as u64 {
                self.forget(pages.erase(at));
            }
        }
    }
}
