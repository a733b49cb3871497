//! Which frames are free, in blocks of powers of two.
//!
//! Mirrors the buddy lists of `mm/page_alloc.c`: a block is split to serve a smaller request and joined with its buddy
//! when both are free. Sets keep the lowest frame first, so a run of allocations is deterministic.

use std::collections::BTreeSet;

/// Blocks of up to 2^9 frames (2 MiB).
pub(super) const MAX_ORDER: u32 = 9;

#[derive(Debug)]
pub(super) struct Buddy {
    free: [BTreeSet<u32>; MAX_ORDER as usize + 1],
    frames: u32,
    available: u32,
}

impl Buddy {
    pub(super) fn new(frames: u32) -> Self {
        let mut buddy = Self { free: std::array::from_fn(|_| BTreeSet::new()), frames, available: 0 };
        let mut at = 0;
        while at < frames {
            // The largest aligned block that begins here and fits.
            let order =
                (0..=MAX_ORDER).rev().find(|&o| at % (1 << o) == 0 && at + (1 << o) <= frames).unwrap_or(0);
            buddy.free[order as usize].insert(at);
            buddy.available += 1 << order;
            at += 1 << order;
        }
        buddy
    }

    pub(super) fn available(&self) -> u32 {
        self.available
    }

    /// The lowest block of `order`, splitting a larger one if need be.
    pub(super) fn alloc(&mut self, order: u32) -> Option<u32> {
        let from = (order..=MAX_ORDER).find(|&o| !self.free[o as usize].is_empty())?;
        let block = self.free[from as usize].pop_first()?;
        for split in (order..from).rev() {
            self.free[split as usize].insert(block + (1 << split));
        }
        self.available -= 1 << order;
        Some(block)
    }

    /// Takes a block back and joins it with its buddy as far as that goes.
    pub(super) fn free(&mut self, mut block: u32, mut order: u32) {
        self.available += 1 << order;
        while order < MAX_ORDER {
            let buddy = block ^ (1 << order);
            if buddy + (1 << order) > self.frames || !self.free[order as usize].remove(&buddy) {
                break;
            }
            block = block.min(buddy);
            order += 1;
        }
        let fresh = self.free[order as usize].insert(block);
        debug_assert!(fresh, "frame {block} was freed twice");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn blocks_never_overlap_and_all_come_back(frames in 1..1500_u32, orders in prop::collection::vec(0..=MAX_ORDER, 1..60)) {
            let mut buddy = Buddy::new(frames);
            prop_assert_eq!(buddy.available(), frames);
            let mut used = vec![false; frames as usize];
            let mut blocks = Vec::new();
            for order in orders {
                if let Some(block) = buddy.alloc(order) {
                    prop_assert_eq!(block % (1 << order), 0);
                    for frame in block..block + (1 << order) {
                        prop_assert!(!std::mem::replace(&mut used[frame as usize], true));
                    }
                    blocks.push((block, order));
                }
            }
            let taken: u32 = blocks.iter().map(|b| 1 << b.1).sum();
            prop_assert_eq!(buddy.available(), frames - taken);
            for (block, order) in blocks {
                buddy.free(block, order);
            }
            prop_assert_eq!(&buddy.free, &Buddy::new(frames).free);
        }
    }
}
