//! Which page of a file to look at next when room is needed: two lists of frames, the newest first.
//!
//! Owns: the links. Does not own the policy (`cache::vmscan`). Mirrors `struct lruvec`: a page begins on the inactive list,
//! what is used again is moved to the active one, and pages that are pinned or being looked at are on neither. Everything
//! here happens under the mutex of the free lists, so a frame that is free is on no list and no atomics are needed.

/// A list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// Used once, as far as is known: what reclaim takes from.
    Inactive = 0,
    /// Used again.
    Active = 1,
}

const NONE: u32 = u32::MAX >> TAG_BITS;
/// The tag says which list the frame is on: 0 none, else list + 1. Frames are numbered below 2^30.
const TAG_BITS: u32 = 2;
const TAG_SHIFT: u32 = 32 - TAG_BITS;

#[derive(Debug, Clone, Copy)]
struct Link {
    tag_and_newer: u32,
    older: u32,
}

#[derive(Debug, Clone, Copy)]
struct Ends {
    newest: u32,
    oldest: u32,
    length: u32,
}

/// Both lists.
#[derive(Debug)]
pub(super) struct Lru {
    links: Box<[Link]>,
    ends: [Ends; 2],
}

impl Lru {
    pub(super) fn new(frames: usize) -> Self {
        let unlinked = Link { tag_and_newer: NONE, older: NONE };
        let empty = Ends { newest: NONE, oldest: NONE, length: 0 };
        Self { links: vec![unlinked; frames].into(), ends: [empty; 2] }
    }

    pub(super) fn length(&self, list: List) -> u32 {
        self.ends[list as usize].length
    }

    /// The list that a frame is on.
    pub(super) fn list_of(&self, pfn: u32) -> Option<List> {
        match self.links[pfn as usize].tag_and_newer >> TAG_SHIFT {
            0 => None,
            1 => Some(List::Inactive),
            _ => Some(List::Active),
        }
    }

    /// Puts a frame that is on no list at the new end of one.
    pub(super) fn push(&mut self, list: List, pfn: u32) {
        debug_assert_eq!(self.list_of(pfn), None, "frame {pfn} is on a list already");
        let ends = &mut self.ends[list as usize];
        let older = std::mem::replace(&mut ends.newest, pfn);
        ends.length += 1;
        self.links[pfn as usize] = Link { tag_and_newer: (list as u32 + 1) << TAG_SHIFT | NONE, older };
        if older == NONE {
            self.ends[list as usize].oldest = pfn;
        } else {
            self.set_newer(older, pfn);
        }
    }

    /// Takes a frame off its list, if it is on one.
    pub(super) fn unlink(&mut self, pfn: u32) -> Option<List> {
        let list = self.list_of(pfn)?;
        let (newer, older) = (self.newer(pfn), self.links[pfn as usize].older);
        let ends = &mut self.ends[list as usize];
        ends.length -= 1;
        if newer == NONE {
            ends.newest = older;
        }
        if older == NONE {
            ends.oldest = newer;
        }
        if newer != NONE {
            self.links[newer as usize].older = older;
        }
        if older != NONE {
            self.set_newer(older, newer);
        }
        self.links[pfn as usize] = Link { tag_and_newer: NONE, older: NONE };
        Some(list)
    }

    /// The frames of a list, the oldest first.
    pub(super) fn oldest_first(&self, list: List) -> impl Iterator<Item = u32> + '_ {
        let known = |pfn: u32| (pfn != NONE).then_some(pfn);
        std::iter::successors(known(self.ends[list as usize].oldest), move |&pfn| known(self.newer(pfn)))
    }

    fn newer(&self, pfn: u32) -> u32 {
        self.links[pfn as usize].tag_and_newer & NONE
    }

    fn set_newer(&mut self, pfn: u32, newer: u32) {
        let link = &mut self.links[pfn as usize].tag_and_newer;
        *link = *link & !NONE | newer;
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const FRAMES: u32 = 6;

    proptest! {
        #[test]
        fn the_lists_are_two_queues(steps in prop::collection::vec((0..FRAMES, 0..3_u8), 1..200)) {
            let mut lru = Lru::new(FRAMES as usize);
            let mut queues = [VecDeque::new(), VecDeque::new()];
            for (pfn, step) in steps {
                let was = queues.iter().position(|queue| queue.contains(&pfn));
                prop_assert_eq!(lru.unlink(pfn).map(|list| list as usize), was);
                for queue in &mut queues {
                    queue.retain(|&other| other != pfn);
                }
                if let Some(list) = [List::Inactive, List::Active].get(usize::from(step)) {
                    lru.push(*list, pfn);
                    queues[*list as usize].push_back(pfn);
                }
                for list in [List::Inactive, List::Active] {
                    let queue = &queues[list as usize];
                    prop_assert!(lru.oldest_first(list).eq(queue.iter().copied()));
                    prop_assert_eq!(lru.length(list) as usize, queue.len());
                }
            }
        }
    }
}
