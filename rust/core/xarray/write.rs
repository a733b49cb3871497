//! Writing: under the one mutex.

use super::XArray;
use super::entry::Entry;
use super::node::{FANOUT, MARKS, Mark, Node, SHIFT, Spares, levels};
use crate::rcu;
use crate::sync::{MutexGuard, Ordering, duty, guard, in_order, ord, seeded};

/// The map with its writers' mutex held.
#[must_use = "dropping this gives the mutex back"]
#[derive(Debug)]
pub struct Locked<'x> {
    array: &'x XArray,
    _guard: MutexGuard<'x, ()>,
}

impl XArray {
    /// Takes the writers' mutex (`xa_lock`).
    pub fn lock(&self) -> Locked<'_> {
        Locked { array: self, _guard: self.lock.lock() }
    }
}

/// What a check found in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Nodes.
    pub nodes: u64,
    /// How many of them hold only values.
    pub of_values: u64,
}

/// A node and the slot in it. Nodes stay allocated while the mutex is held: only its owner retires them.
#[derive(Clone, Copy)]
struct Place<'x> {
    raw: *mut Node,
    node: &'x Node,
    offset: usize,
}

impl<'x> Locked<'x> {
    fn head(&self) -> Entry {
        // Relaxed: every store to the tree is made under the mutex held here.
        Entry::from_raw(self.array.head.load_then_write(Ordering::Relaxed))
    }

    #[allow(clippy::unused_self, reason = "the mutex is what keeps the node")]
    fn node(&self, node: *mut Node) -> &'x Node {
        // SAFETY: reachable nodes are freed only by the owner of the mutex, through RCU, after unlinking them.
        unsafe { &*node }
    }

    /// The leaf slot of `index`, if its node exists.
    fn place(&self, index: u64) -> Option<Place<'x>> {
        let mut raw = self.head().as_node()?;
        if !self.node(raw).covers(index) {
            return None;
        }
        loop {
            let node = self.node(raw);
            if node.shift == 0 {
                return Some(Place { raw, node, offset: node.offset_of(index) });
            }
            raw = node.below(index)?;
        }
    }

    /// The entry at `index`.
    #[must_use]
    pub fn get(&self, index: u64) -> Entry {
        match self.place(index) {
            Some(place) => Entry::from_raw(place.node.slots[place.offset].load_then_write(Ordering::Relaxed)),
            None if self.is_lone(index) => self.head(),
            None => Entry::EMPTY,
        }
    }

    /// Stores `entry` at `index` and returns the previous entry. Storing [`Entry::EMPTY`] erases, prunes empty nodes and shrinks
    /// the tree. Marks of the slot are kept for an overwrite and cleared by an erase.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) if it needs nodes and there is no memory; then nothing has changed.
    pub fn store(&mut self, index: u64, entry: Entry) -> crate::Result<Entry> {
        if entry.is_empty() || self.is_lone(index) {
            return Ok(self.replace(index, entry));
        }
        let place = match self.place(index) {
            Some(place) => place,
            None => self.make_place(index)?,
        };
        Ok(self.put(place, entry))
    }

    /// As [`Locked::store`] over an existing entry, which needs no node.
    ///
    /// # Panics
    /// When nothing is there.
    pub fn replace(&mut self, index: u64, entry: Entry) -> Entry {
        if entry.is_empty() {
            return self.erase(index);
        }
        if self.is_lone(index) {
            let old = self.head();
            // Pairs with the Acquire of `find`: the page's identity is written before it can be found.
            self.array.head.store(entry.raw(), ord!("xarray.store.head.release", Release));
            return old;
        }
        let place = self.place(index).expect("there is an entry");
        self.put(place, entry)
    }

    /// Whether an entry at `index` is in the head, without a node.
    fn is_lone(&self, index: u64) -> bool {
        index == 0 && self.head().as_node().is_none()
    }

    #[allow(clippy::unused_self, reason = "the mutex is what keeps the node")]
    fn put(&mut self, place: Place<'x>, entry: Entry) -> Entry {
        let slot = &place.node.slots[place.offset];
        let old = Entry::from_raw(slot.load_then_write(Ordering::Relaxed));
        slot.store(entry.raw(), ord!("xarray.store.release", Release));
        if old.is_empty() {
            place.node.count.fetch_add(1, Ordering::Relaxed);
        }
        old
    }

    /// Creates the nodes that lead to `index`, all or none.
    fn make_place(&mut self, index: u64) -> crate::Result<Place<'x>> {
        let mut spares = Spares::new(self.missing(index), &self.array.nodes)?;
        self.grow(index, &mut spares);
        let place = self.create(index, &mut spares);
        debug_assert!(spares.is_empty(), "more nodes were counted than made");
        Ok(place)
    }

    /// How many nodes are missing on the way to `index`.
    fn missing(&self, index: u64) -> usize {
        let head = self.head();
        let Some(top) = head.as_node() else {
            // A lone entry moves into its own leaf, beside the path or at its end.
            return levels(index) + if head.is_empty() { 0 } else { levels(index) - 1 };
        };
        let mut node = self.node(top);
        if !node.covers(index) {
            let raises = levels(index) - (node.shift / SHIFT) as usize - 1;
            return raises + levels(index) - 1;
        }
        while let Some(child) = node.below(index) {
            node = self.node(child);
        }
        (node.shift / SHIFT) as usize
    }

    /// Raises the head until it covers `index`.
    fn grow(&mut self, index: u64, spares: &mut Spares<'_>) {
        let mut head = self.head();
        if head.as_node().is_none() {
            let is_empty = head.is_empty();
            // If there is nothing to keep, as high as necessary at once.
            let shift = if is_empty { (levels(index) as u32 - 1) * SHIFT } else { 0 };
            let first = spares.take(shift, 0, std::ptr::null_mut());
            let node = self.node(first);
            let lone = head;
            head = Entry::node(first);
            in_order!(
                "xarray.grow.leaf.filled",
                if !is_empty {
                    node.slots[0].store(lone.raw(), Ordering::Relaxed);
                    node.count.store(1, Ordering::Relaxed);
                },
                self.array.head.store(head.raw(), ord!("xarray.grow.leaf.release", Release)),
            );
        }
        loop {
            let old = head.as_node().expect("the head is a node here");
            let old_node = self.node(old);
            if old_node.covers(index) {
                return;
            }
            let raised = spares.take(old_node.shift + SHIFT, 0, std::ptr::null_mut());
            let node = self.node(raised);
            let lowered = head;
            head = Entry::node(raised);
            old_node.parent.store(raised, Ordering::Relaxed);
            // Release: the new head's slot 0 and marks are written before a reader can pass through it.
            let publish = || self.array.head.store(head.raw(), ord!("xarray.grow.release", Release));
            in_order!(
                "xarray.grow.filled",
                {
                    node.slots[0].store(lowered.raw(), Ordering::Relaxed);
                    node.count.store(1, Ordering::Relaxed);
                },
                in_order!("xarray.grow.marked", raise_marks(old_node, node), publish()),
            );
        }
    }

    /// Walks to the leaf of `index`, linking nodes in on the way.
    fn create(&mut self, index: u64, spares: &mut Spares<'_>) -> Place<'x> {
        let mut raw = self.head().as_node().expect("grow made a node");
        loop {
            let node = self.node(raw);
            let offset = node.offset_of(index);
            if node.shift == 0 {
                return Place { raw, node, offset };
            }
            let slot = &node.slots[offset];
            let child = Entry::from_raw(slot.load_then_write(Ordering::Relaxed)).as_node();
            raw = child.unwrap_or_else(|| {
                let child = spares.take(node.shift - SHIFT, offset, raw);
                // Release: the child's empty slots are written before a reader can find it.
                slot.store(Entry::node(child).raw(), ord!("xarray.create.release", Release));
                node.count.fetch_add(1, Ordering::Relaxed);
                child
            });
        }
    }

    /// Empties the slot of `index`.
    pub fn erase(&mut self, index: u64) -> Entry {
        let Some(place) = self.place(index) else {
            if self.is_lone(index) {
                let old = self.head();
                self.array.head.store(std::ptr::null_mut(), Ordering::Relaxed);
                return old;
            }
            return Entry::EMPTY;
        };
        let slot = &place.node.slots[place.offset];
        let old = Entry::from_raw(slot.load_then_write(Ordering::Relaxed));
        if old.is_empty() {
            return old;
        }
        for mark in [Mark::Dirty, Mark::ToWrite, Mark::Extra] {
            self.clear_mark(index, mark);
        }
        // Relaxed, like every store of an empty entry: it leads nowhere.
        slot.store(std::ptr::null_mut(), Ordering::Relaxed);
        place.node.count.fetch_sub(1, Ordering::Relaxed);
        self.prune(place.raw);
        self.shrink();
        old
    }

    /// Unlinks a node and its ancestors as far as they are empty.
    fn prune(&mut self, mut raw: *mut Node) {
        loop {
            let node = self.node(raw);
            if !guard!("xarray.prune.empty", node.count.load_then_write(Ordering::Relaxed) == 0) {
                return;
            }
            let above = node.parent.load_then_write(Ordering::Relaxed);
            if above.is_null() {
                in_order!(
                    "xarray.prune.head_first",
                    self.array.head.store(std::ptr::null_mut(), Ordering::Relaxed),
                    retire(raw),
                );
                return;
            }
            let parent = self.node(above);
            in_order!(
                "xarray.prune.slot_first",
                parent.slots[node.offset].store(std::ptr::null_mut(), Ordering::Relaxed),
                retire(raw),
            );
            parent.count.fetch_sub(1, Ordering::Relaxed);
            raw = above;
        }
    }

    /// Lowers the head while everything hangs under its slot 0.
    fn shrink(&mut self) {
        while let Some(raw) = self.head().as_node() {
            let node = self.node(raw);
            let child = Entry::from_raw(node.slots[0].load_then_write(Ordering::Relaxed));
            let count = node.count.load_then_write(Ordering::Relaxed);
            if !guard!("xarray.shrink.lone", count == 1 && !child.is_empty()) {
                return;
            }
            match child.as_node() {
                Some(child) => self.node(child).parent.store(std::ptr::null_mut(), Ordering::Relaxed),
                // A lone entry has no marks in the head, so one that carries any keeps its node.
                None if !guard!("xarray.shrink.unmarked", is_unmarked(node)) => return,
                None => {}
            }
            in_order!(
                "xarray.shrink.unlinked_first",
                in_order!(
                    "xarray.shrink.head_first",
                    self.array.head.store(child.raw(), ord!("xarray.shrink.release", Release)),
                    duty!("xarray.shrink.retry", send_back(node)),
                ),
                retire(raw),
            );
        }
    }

    /// Sets `mark` on the entry at `index`. False when nothing is there.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) when a lone entry needs a node for it.
    #[allow(dead_code, reason = "pages that were written to will carry it")]
    pub fn set_mark(&mut self, index: u64, mark: Mark) -> crate::Result<bool> {
        if self.get(index).is_empty() {
            return Ok(false);
        }
        // A lone entry in the head gets a node, which has room for marks.
        let place = match self.place(index) {
            Some(place) => place,
            None => self.make_place(index)?,
        };
        let (mut node, mut offset) = (place.node, place.offset);
        loop {
            let before = node.marks[mark as usize].fetch_or(1 << offset, Ordering::Relaxed);
            let parent = node.parent.load_then_write(Ordering::Relaxed);
            // A node with marks has told those above.
            if before != 0 || parent.is_null() {
                return Ok(true);
            }
            (node, offset) = (self.node(parent), node.offset);
        }
    }

    /// Clears `mark` from the entry at `index`.
    pub fn clear_mark(&mut self, index: u64, mark: Mark) {
        let Some(place) = self.place(index) else { return };
        let (mut node, mut offset) = (place.node, place.offset);
        loop {
            let left =
                node.marks[mark as usize].fetch_and(!(1 << offset), Ordering::Relaxed) & !(1 << offset);
            let parent = node.parent.load_then_write(Ordering::Relaxed);
            if left != 0 || parent.is_null() {
                return;
            }
            (node, offset) = (self.node(parent), node.offset);
        }
    }

    /// Notes the node of `index` under `number`, which is not 0, if it holds only values and is not noted yet. False for an entry
    /// without a node.
    #[must_use]
    pub fn note_values_only(&mut self, index: u64, number: u32) -> bool {
        let Some(Place { node, .. }) = self.place(index) else { return false };
        let is_news = node.noted.load_then_write(Ordering::Relaxed) == 0 && has_values_only(node);
        if is_news {
            node.noted.store(number, Ordering::Relaxed);
        }
        is_news
    }

    /// Whether the node noted under `number` at `index` is still there and holds only values. If it holds pages by now, the note
    /// is removed.
    #[must_use]
    pub fn still_has_values_only(&mut self, index: u64, number: u32) -> bool {
        let Some(Place { node, .. }) = self.place(index) else { return false };
        if node.noted.load_then_write(Ordering::Relaxed) != number {
            return false;
        }
        if has_values_only(node) {
            return true;
        }
        node.noted.store(0, Ordering::Relaxed);
        false
    }

    /// Walks the whole tree and checks counts, parents, shifts, marks and that no node could go; returns what is in it.
    ///
    /// # Errors
    /// A sentence about the first inconsistency.
    pub fn audit(&self) -> Result<Census, String> {
        fn visit(node: &Node, parent: *mut Node, census: &mut Census) -> Result<[bool; MARKS], String> {
            census.nodes += 1;
            if node.parent.load(Ordering::Relaxed) != parent {
                return Err(format!("a node at shift {} names a wrong parent", node.shift));
            }
            let mut used = 0;
            let mut values = 0;
            let mut marked = [false; MARKS];
            for offset in 0..FANOUT {
                let entry = Entry::from_raw(node.slots[offset].load(Ordering::Relaxed));
                let mut below =
                    std::array::from_fn(|mark| node.marks[mark].load(Ordering::Relaxed) & (1 << offset) != 0);
                if entry == Entry::RETRY {
                    return Err("a reachable node holds RETRY".into());
                }
                if let Some(child) = entry.as_node() {
                    // SAFETY: reachable, and the mutex is held by the caller of `audit`.
                    let child = unsafe { &*child };
                    if node.shift == 0 || child.shift + SHIFT != node.shift || child.offset != offset {
                        return Err(format!("a child at shift {} hangs wrongly", child.shift));
                    }
                    let found = visit(child, std::ptr::from_ref(node).cast_mut(), census)?;
                    if found != below {
                        return Err(format!("marks at shift {} differ from the node below", node.shift));
                    }
                    below = found;
                } else if node.shift != 0 && !entry.is_empty() {
                    return Err(format!("an entry hangs at shift {}", node.shift));
                }
                for (all, one) in marked.iter_mut().zip(below) {
                    *all |= one && !entry.is_empty();
                }
                used += u64::from(!entry.is_empty());
                values += u64::from(entry.as_value().is_some());
            }
            if used == 0 {
                return Err(format!("a node at shift {} is empty", node.shift));
            }
            census.of_values += u64::from(values == used);
            if used != node.count.load(Ordering::Relaxed) {
                return Err(format!("a node at shift {} counts {used} slots wrongly", node.shift));
            }
            Ok(marked)
        }
        let mut census = Census::default();
        if let Some(raw) = self.head().as_node() {
            let head = self.node(raw);
            visit(head, std::ptr::null_mut(), &mut census)?;
            let lowest = Entry::from_raw(head.slots[0].load(Ordering::Relaxed));
            if lowest.as_node().is_some() && head.count.load(Ordering::Relaxed) == 1 {
                return Err(format!("a head at shift {} has its only child in slot 0", head.shift));
            }
        }
        Ok(census)
    }
}

/// Gives the node above a head the marks that belong to its slot 0.
fn raise_marks(head: &Node, above: &Node) {
    for (above, below) in above.marks.iter().zip(&head.marks) {
        above.store(u64::from(below.load_then_write(Ordering::Relaxed) != 0), Ordering::Relaxed);
    }
}

/// Tells readers inside a head that has shrunk away to start again: its slot 0 will not be updated any more.
fn send_back(node: &Node) {
    node.life.assert_alive();
    // Release: whoever sees it finds the new head.
    node.slots[0].store(Entry::RETRY.raw(), ord!("xarray.shrink.retry.release", Release));
}

fn has_values_only(node: &Node) -> bool {
    let entries = node.slots.iter().map(|slot| slot.load_then_write(Ordering::Relaxed));
    entries.map(Entry::from_raw).all(|entry| entry.is_empty() || entry.as_value().is_some())
}

fn is_unmarked(node: &Node) -> bool {
    node.marks.iter().all(|mark| mark.load_then_write(Ordering::Relaxed) == 0)
}

/// Frees an unlinked node once no reader can hold it.
fn retire(node: *mut Node) {
    // SAFETY: unlinked under the mutex, so this is its only owner, once the readers are gone.
    unsafe {
        seeded!("xarray.seed.freed_now", rcu::end_later(node), bug = <Node as rcu::Carries>::end(node));
    };
}
