//! Reading: no lock, inside a read section.

use super::entry::Entry;
use super::node::{FANOUT, Node, SHIFT};
use super::{Mark, XArray};
use crate::rcu::ReadSection;
use crate::sync::{AtomicPtr, Ordering, guard, ord, seeded};

/// An entry and the slot it was read from, for the recheck after a reference was taken.
#[derive(Debug, Clone, Copy)]
pub struct Found<'s> {
    /// What the slot held.
    pub entry: Entry,
    slot: Option<&'s AtomicPtr<Node>>,
}

impl Found<'_> {
    /// Whether the slot still holds what was read. After a node was retired it does not.
    #[inline]
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        // Acquire: pairs with the Release of the store that replaced the entry, so whoever sees "unchanged" under a
        // reference is ordered against the next user of a recycled frame.
        self.slot.is_none_or(|slot| slot.load(ord!("xarray.reload.acquire", Acquire)) == self.entry.raw())
    }
}

impl XArray {
    /// The entry at `index`, with its slot. Wait-free but for restarts, each caused by a writer that shrank the tree.
    #[inline]
    pub fn find<'s>(&'s self, index: u64, _section: &'s ReadSection) -> Found<'s> {
        loop {
            // Pairs with the Release of the store that published the entry (here and below).
            let mut entry = Entry::from_raw(self.head.load(ord!("xarray.head.acquire", Acquire)));
            let Some(top) = entry.as_node() else {
                let hit = if index == 0 { entry } else { Entry::EMPTY };
                return Found { entry: hit, slot: (index == 0).then_some(&self.head) };
            };
            // SAFETY: nodes are freed only after a grace period and the caller is inside a section.
            let mut node = unsafe { &*top };
            node.life.assert_alive();
            if !guard!("xarray.find.covers", node.covers(index)) {
                return Found { entry: Entry::EMPTY, slot: None };
            }
            let mut slot = &node.slots[node.offset_of(index)];
            // The bits that the levels below decide, uppermost first; at a leaf none are left, nor needed.
            let mut rest = index.wrapping_shl(u64::BITS - node.shift);
            loop {
                entry = Entry::from_raw(slot.load(ord!("xarray.slot.acquire", Acquire)));
                let Some(child) = entry.as_node() else { break };
                // SAFETY: as above.
                node = unsafe { &*child };
                node.life.assert_alive();
                slot = &node.slots[(rest >> (u64::BITS - SHIFT)) as usize];
                rest <<= SHIFT;
            }
            if guard!("xarray.find.retry", entry != Entry::RETRY) {
                return Found { entry, slot: Some(slot) };
            }
            // From the head, not from here: a dead node never changes again.
            seeded!(
                "xarray.seed.spins_in_dead_node",
                bug = while slot.load(Ordering::Relaxed) == entry.raw() {
                    crate::sync::spin_hint();
                }
            );
        }
    }

    /// The entry at `index`.
    #[inline]
    #[must_use]
    pub fn load(&self, index: u64, section: &ReadSection) -> Entry {
        self.find(index, section).entry
    }

    /// The first entry at or after `index` and at or before `last`, skipping empty subtrees. With `mark`, the first that
    /// carries it.
    #[must_use]
    pub fn next(
        &self,
        index: u64,
        last: u64,
        mark: Option<Mark>,
        _section: &ReadSection,
    ) -> Option<(u64, Entry)> {
        'head: loop {
            let entry = Entry::from_raw(self.head.load(ord!("xarray.next.head.acquire", Acquire)));
            let Some(node) = entry.as_node() else {
                // A lone entry at index 0 has no node and so no marks.
                return (index == 0 && !entry.is_empty() && mark.is_none()).then_some((0, entry));
            };
            return match next_below(node, 0, index, last, mark) {
                Ok(found) => found,
                Err(Restart) => continue 'head,
            };
        }
    }
}

struct Restart;

/// Searches the subtree of `node`, whose first index is `base`.
fn next_below(
    node: *mut Node,
    base: u64,
    index: u64,
    last: u64,
    mark: Option<Mark>,
) -> Result<Option<(u64, Entry)>, Restart> {
    // SAFETY: called inside the section of `next`.
    let node = unsafe { &*node };
    let span_bits = node.shift;
    // Beyond the node: no slot at all.
    let first = (index.saturating_sub(base) >> span_bits) as usize;
    for offset in first..FANOUT {
        node.life.assert_alive();
        let at = base + ((offset as u64) << span_bits);
        if at > last {
            return Ok(None);
        }
        // A mark is a hint here: the caller checks again under the page lock.
        if mark.is_some_and(|mark| node.marks[mark as usize].load(Ordering::Relaxed) & (1 << offset) == 0) {
            continue;
        }
        let entry = Entry::from_raw(node.slots[offset].load(ord!("xarray.next.slot.acquire", Acquire)));
        if !guard!("xarray.next.retry", entry != Entry::RETRY) {
            return Err(Restart);
        }
        if node.shift == 0 {
            if !entry.is_empty() {
                return Ok(Some((at, entry)));
            }
        } else if let Some(child) = entry.as_node() {
            let found = next_below(child, at, index, last, mark)?;
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    Ok(None)
}
