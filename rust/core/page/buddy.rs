//! Which frames are free, in blocks of powers of two.
//!
//! Mirrors the buddy lists of `mm/page_alloc.c`: a block is split for a smaller request and joined with its buddy when both are
//! free. Free blocks are bits, one set per order, lowest first, so a run of allocations is deterministic. Frames that were never
//! allocated are in none of the sets: they begin at a mark, and are taken last.

use super::bit_set::BitSet;
use super::memory::Zeroed;
use crate::error::Result;
use crate::reserve;

/// Blocks of up to 2^9 frames (2 MiB).
pub(super) const MAX_ORDER: u32 = 9;

#[derive(Debug)]
pub(super) struct Buddy {
    words: Zeroed<u64>,
    /// For each order, the free blocks, numbered in blocks of that size.
    free: Box<[[BitSet; MAX_ORDER as usize + 1]; 1]>,
    /// A bit for each order with free blocks.
    orders: u32,
    /// Frames from here on were never allocated.
    fresh: u32,
    frames: u32,
    available: u32,
}

impl Buddy {
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(super) fn new(frames: u32) -> Result<Self> {
        let mut length = 0;
        let free = std::array::from_fn(|order| BitSet::new(frames as usize >> order, &mut length));
        let free = reserve::boxed(free, "the free lists")?;
        let words = Zeroed::new(length, "the free lists")?;
        Ok(Self { words, free, orders: 0, fresh: 0, frames, available: frames })
    }

    pub(super) fn available(&self) -> u32 {
        self.available
    }

    /// How many frames, counted from the first, may have been allocated.
    pub(super) fn touched(&self) -> u32 {
        self.fresh
    }

    /// The lowest of the smallest free blocks that have `order`, split if it is larger.
    pub(super) fn alloc(&mut self, order: u32) -> Option<u32> {
        let large_enough = self.orders >> order << order;
        let (block, from) = if large_enough == 0 {
            self.take_fresh(order)?
        } else {
            let from = large_enough.trailing_zeros();
            let number = self.free[0][from as usize].lowest(&self.words)?;
            self.remove(from, number << from);
            (number << from, from)
        };
        for split in (order..from).rev() {
            self.insert(split, block + (1 << split));
        }
        self.available -= 1 << order;
        Some(block)
    }

    /// The largest aligned block that begins at the mark and fits, and its order. Those that follow it are no larger.
    fn take_fresh(&mut self, order: u32) -> Option<(u32, u32)> {
        let block = self.fresh;
        let fits = (self.frames - block).checked_ilog2()?;
        let found = block.trailing_zeros().min(MAX_ORDER).min(fits);
        if found < order {
            return None;
        }
        self.fresh += 1 << found;
        Some((block, found))
    }

    /// Frees a block and joins it with its buddies as far as possible.
    pub(super) fn free(&mut self, mut block: u32, mut order: u32) {
        self.available += 1 << order;
        while order < MAX_ORDER {
            // If it begins beyond the last frame, its bit is in the same word as the block's, and never set.
            let buddy = block ^ (1 << order);
            if !self.remove(order, buddy) {
                break;
            }
            (block, order) = (block.min(buddy), order + 1);
        }
        let fresh = self.insert(order, block);
        debug_assert!(fresh, "frame {block} was freed twice");
    }

    fn insert(&mut self, order: u32, block: u32) -> bool {
        self.orders |= 1 << order;
        self.free[0][order as usize].insert(&mut self.words, block >> order)
    }

    fn remove(&mut self, order: u32, block: u32) -> bool {
        let set = &self.free[0][order as usize];
        let removed = set.remove(&mut self.words, block >> order);
        if set.is_empty(&self.words) {
            self.orders &= !(1 << order);
        }
        removed
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The same with sets of blocks, and frames that were never handed out as one more list.
    struct Model {
        free: [BTreeSet<u32>; MAX_ORDER as usize + 1],
        fresh: Vec<(u32, u32)>,
    }

    impl Model {
        fn new(frames: u32) -> Self {
            let mut fresh = Vec::new();
            let mut at = 0;
            while at < frames {
                let order =
                    (0..=MAX_ORDER).rev().find(|&o| at % (1 << o) == 0 && at + (1 << o) <= frames).unwrap();
                fresh.push((at, order));
                at += 1 << order;
            }
            fresh.reverse();
            Self { free: Default::default(), fresh }
        }

        fn alloc(&mut self, order: u32) -> Option<u32> {
            let (block, from) = match (order..=MAX_ORDER).find(|&o| !self.free[o as usize].is_empty()) {
                Some(from) => (self.free[from as usize].pop_first()?, from),
                None if self.fresh.last()?.1 >= order => self.fresh.pop()?,
                None => return None,
            };
            for split in order..from {
                self.free[split as usize].insert(block + (1 << split));
            }
            Some(block)
        }

        fn free(&mut self, block: u32, order: u32) {
            let buddy = block ^ (1 << order);
            if order < MAX_ORDER && self.free[order as usize].remove(&buddy) {
                self.free(block.min(buddy), order + 1);
            } else {
                self.free[order as usize].insert(block);
            }
        }
    }

    fn blocks(buddy: &Buddy) -> Vec<BTreeSet<u32>> {
        let is_free = |order: u32, block: u32| {
            let mut words = buddy.words.to_vec();
            buddy.free[0][order as usize].remove(&mut words, block >> order)
        };
        (0..=MAX_ORDER)
            .map(|order| {
                (0..buddy.frames >> order)
                    .map(|number| number << order)
                    .filter(|&at| is_free(order, at))
                    .collect()
            })
            .collect()
    }

    proptest! {
        #[test]
        fn blocks_are_those_of_sets(
            frames in 1..1500_u32,
            steps in prop::collection::vec((0..=MAX_ORDER, any::<prop::sample::Index>(), any::<bool>()), 1..60),
        ) {
            let mut buddy = Buddy::new(frames).unwrap();
            let mut model = Model::new(frames);
            let mut taken: Vec<(u32, u32)> = Vec::new();
            let mut used = vec![false; frames as usize];
            for (order, which, free) in steps {
                if free && !taken.is_empty() {
                    let (block, order) = taken.swap_remove(which.index(taken.len()));
                    buddy.free(block, order);
                    model.free(block, order);
                    used[block as usize..][..1 << order].fill(false);
                } else {
                    let block = buddy.alloc(order);
                    prop_assert_eq!(block, model.alloc(order));
                    if let Some(block) = block {
                        prop_assert_eq!(block % (1 << order), 0);
                        prop_assert!(!used[block as usize..][..1 << order].iter().any(|&used| used));
                        used[block as usize..][..1 << order].fill(true);
                        taken.push((block, order));
                    }
                }
                prop_assert_eq!(buddy.available() as usize, used.iter().filter(|used| !**used).count());
                prop_assert!(used.iter().rposition(|&used| used).is_none_or(|last| last < buddy.touched() as usize));
            }
            for (block, order) in taken {
                buddy.free(block, order);
                model.free(block, order);
            }
            prop_assert_eq!(buddy.available(), frames);
            prop_assert_eq!(blocks(&buddy), model.free.to_vec());
            // All came back and was joined: no two buddies are free apart.
            let apart = |order: u32, block: &u32| model.free[order as usize].contains(&(block ^ (1 << order)));
            prop_assert!((0..MAX_ORDER).all(|order| !model.free[order as usize].iter().any(|block| apart(order, block))));
        }
    }
}
