//! One node: 64 slots and, for each mark, one bit per slot.

use super::entry::Entry;
use crate::error::Result;
use crate::rcu::{self, Carries};
use crate::reserve;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, LifeCell, Ordering, Tally};
use std::sync::Arc;

/// Bits of the index that one level decides.
pub const SHIFT: u32 = if cfg!(specmm_loom) {
    1
} else if cfg!(specmm_shuttle) {
    2
} else {
    6
};
/// Slots per node.
pub const FANOUT: usize = 1 << SHIFT;

/// A bit beside each entry, found without visiting the entries that lack it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The page holds bytes that the store does not have yet.
    Dirty = 0,
    /// The page belongs to the write-back pass under way.
    ToWrite = 1,
    /// Free for the caller.
    Extra = 2,
}

/// Marks a node has room for.
pub(super) const MARKS: usize = 3;

#[derive(Debug)]
#[repr(C)]
pub struct Node {
    /// For deferring its end.
    room: rcu::Room,
    /// Where this node's bits of the index begin; 0 for a leaf.
    pub(super) shift: u32,
    /// Under the lock: the number under which it was noted as one without pages, or 0.
    pub(super) noted: AtomicU32,
    /// Slot in the parent. Written before publication only.
    pub(super) offset: usize,
    /// Under the lock: the parent, or null at the head.
    pub(super) parent: AtomicPtr<Node>,
    /// Under the lock: slots in use.
    pub(super) count: AtomicU64,
    /// Under the lock for writing; one word a mark.
    pub(super) marks: [AtomicU64; MARKS],
    pub(super) slots: [AtomicPtr<Node>; FANOUT],
    /// Counts the nodes that live.
    nodes: Arc<Tally>,
    pub(super) life: LifeCell,
}

// SAFETY: the room is first; a node holds no thread-bound data.
unsafe impl rcu::Carries for Node {
    unsafe fn end(this: *mut Self) {
        // SAFETY: the caller gives it up; nodes came from Box::into_raw (`Spares::take`). Children were unlinked or moved
        // before.
        let node = unsafe { Box::from_raw(this) };
        node.life.kill();
        node.nodes.sub(1);
    }
}

impl Node {
    /// The slot that decides `index` at this level.
    #[inline]
    pub(super) fn offset_of(&self, index: u64) -> usize {
        (index >> self.shift) as usize & (FANOUT - 1)
    }

    /// Under the lock: the node of the next level on the way to `index`.
    #[inline]
    pub(super) fn below(&self, index: u64) -> Option<*mut Self> {
        Entry::from_raw(self.slots[self.offset_of(index)].load_then_write(Ordering::Relaxed)).as_node()
    }

    /// Whether a tree that has this node as its head has room for `index`.
    #[inline]
    pub(super) fn covers(&self, index: u64) -> bool {
        index >> self.shift >> SHIFT == 0
    }
}

/// Memory for the nodes of one store, allocated before the tree is touched: a store that cannot get them all changes nothing.
pub(super) struct Spares<'t> {
    rooms: [Vec<Node>; MOST],
    left: usize,
    nodes: &'t Arc<Tally>,
}

/// Nodes from the root to a leaf.
const LEVELS: usize = u64::BITS.div_ceil(SHIFT) as usize;
/// Most nodes that one store creates: for a lone entry and for one far from it.
const MOST: usize = 2 * LEVELS - 1;

/// How many levels a tree with `index` has.
pub(super) fn levels(index: u64) -> usize {
    (u64::BITS - index.leading_zeros()).div_ceil(SHIFT).max(1) as usize
}

impl<'t> Spares<'t> {
    /// Memory for `count` nodes, which are counted in `nodes` once they are created.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(super) fn new(count: usize, nodes: &'t Arc<Tally>) -> Result<Self> {
        let mut rooms = [const { Vec::new() }; MOST];
        for room in &mut rooms[..count] {
            *room = reserve::vec(1, "a node of a file's index")?;
        }
        Ok(Self { rooms, left: count, nodes })
    }

    /// One node, empty.
    ///
    /// # Panics
    /// When none is left.
    pub(super) fn take(&mut self, shift: u32, offset: usize, parent: *mut Node) -> *mut Node {
        self.left = self.left.checked_sub(1).expect("the nodes were counted");
        self.nodes.add(1);
        let mut room = std::mem::take(&mut self.rooms[self.left]);
        room.push(Node {
            room: rcu::Room::new(),
            shift,
            noted: AtomicU32::new(0),
            offset,
            parent: AtomicPtr::new(parent),
            count: AtomicU64::new(0),
            marks: std::array::from_fn(|_| AtomicU64::new(0)),
            slots: std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut())),
            nodes: Arc::clone(self.nodes),
            life: LifeCell::new(),
        });
        // A boxed slice of one is a box of one.
        Box::into_raw(room.into_boxed_slice()).cast()
    }

    /// Whether all were taken.
    pub(super) fn is_empty(&self) -> bool {
        self.left == 0
    }
}

/// Frees a node and all below it.
///
/// # Safety
/// No other thread can reach the tree any more.
pub(super) unsafe fn free_tree(top: *mut Node) {
    // SAFETY: the caller owns the tree.
    let node = unsafe { &*top };
    for slot in &node.slots {
        node.life.assert_alive();
        if let Some(child) = Entry::from_raw(slot.load(Ordering::Relaxed)).as_node() {
            // SAFETY: as above; a child has one parent.
            unsafe { free_tree(child) };
        }
    }
    // SAFETY: as above.
    unsafe { Node::end(top) };
}
