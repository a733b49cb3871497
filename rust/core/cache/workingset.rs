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

use super::stats::Stat;
use super::{AddressSpace, Shared};
use crate::page::{List, PageRef, usage};
use crate::sync::{Mutex, Tally, guard};
use crate::xarray::{Entry, FANOUT, Locked, MAX_VALUE};
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
    pub(super) fn make_room_for(&self, evictions: usize, shared: &Shared) {
        let capacity = shared.frames.capacity() as u64;
        if self.shadows() + evictions as u64 <= capacity {
            return;
        }
        for mapping in shared.living_files() {
            mapping.forget_shadows(|shadow| self.distance(shadow) > capacity / 2);
        }
    }
}

impl Shared {
    /// Takes nodes with shadows only away when too many are noted: an eighth of them, so that this is rare. Not inside a read
    /// section: the last use of a file may end here.
    pub(super) fn trim_shadow_nodes(&self) {
        let most = Workingset::most_nodes(self.frames.capacity());
        let noted = self.workingset.noted();
        if cfg!(specmm_loom) || noted <= most {
            return;
        }
        // First those that are not any more what they were noted as; what stays keeps its order.
        for _ in 0..noted {
            let Some(node) = self.workingset.take_node() else { break };
            let mapping = self.mapping_of(node.file);
            if mapping
                .is_some_and(|mapping| mapping.pages.lock().still_has_values_only(node.index, node.number))
            {
                self.workingset.put_node_back(node);
            }
        }
        while self.workingset.noted() > most - most / 8 {
            let Some(node) = self.workingset.take_node() else { break };
            if let Some(mapping) = self.mapping_of(node.file) {
                mapping.forget_node(node);
            }
        }
    }

    /// A page was put where a shadow was (`workingset_refault`).
    pub(super) fn refault(&self, page: PageRef<'_>, old: Entry) {
        let Some(shadow) = old.as_value() else { return };
        self.workingset.forget(old);
        self.count(Stat::Refaults, 1);
        if self.workingset.distance(shadow) <= self.frames.usage().active as u64 {
            page.usage().set(usage::ACTIVE);
            self.frames.move_to(page, List::Active);
            self.workingset.activation();
            self.count(Stat::RefaultsActivated, 1);
        }
    }
}

impl AddressSpace {
    /// As [`Workingset::note_node`], and takes others away that are too many then.
    pub(super) fn note_node(&self, index: u64) {
        if !cfg!(specmm_loom) {
            self.shared.workingset.note_node(self.id(), &mut self.pages.lock(), index);
            self.shared.trim_shadow_nodes();
        }
    }

    /// Erases the shadows for which `old` holds.
    fn forget_shadows(&self, old: impl Fn(u64) -> bool) {
        let mut next = Some(0);
        loop {
            let section = crate::rcu::read();
            let found = next.and_then(|from| self.pages.next(from, u64::MAX, None, &section));
            drop(section);
            let Some((index, entry)) = found else { return };
            next = index.checked_add(1);
            if entry.as_value().is_some_and(&old) {
                self.forget_shadow(index);
            }
        }
    }

    /// Erases the shadows in a node, unless a page has come.
    fn forget_node(&self, node: NotedNode) {
        let mut pages = self.pages.lock();
        if pages.still_has_values_only(node.index, node.number) {
            let first = node.index & !(FANOUT as u64 - 1);
            for at in first..first + FANOUT as u64 {
                self.shared.workingset.forget(pages.erase(at));
            }
        }
    }

    /// How many shadows the file has.
    pub(super) fn count_shadows(&self) -> u64 {
        let section = crate::rcu::read();
        let mut next = Some(0);
        let all = std::iter::from_fn(|| {
            let (index, entry) = next.and_then(|from| self.pages.next(from, u64::MAX, None, &section))?;
            next = index.checked_add(1);
            Some(entry)
        });
        all.filter(|entry| entry.as_value().is_some()).count() as u64
    }

    /// Erases the shadow at `index`, unless a page has come.
    pub(super) fn forget_shadow(&self, index: u64) {
        let mut pages = self.pages.lock();
        if guard!("forget_shadow.is_one", pages.get(index).as_value().is_some()) {
            self.shared.workingset.forget(pages.erase(index));
        }
    }
}
