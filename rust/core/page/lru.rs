//! Which page to consider next when room is needed: two lists of frames, the newest first.
//!
//! Owns: the links. Does not own the policy (`cache::vmscan`). Mirrors `struct lruvec`: a page starts on the inactive list and
//! moves to the active one when it is used again; pages that are pinned or being scanned are on neither. Everything here happens
//! under the mutex of the free lists, so a free frame is on no list and no atomics are needed. Links start as zeros, so that
//! those of unused frames are never touched.

use super::memory::Zeroed;
use crate::error::Result;

/// A list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// Used once, as far as is known: reclaim takes from it.
    Inactive = 0,
    /// Used again.
    Active = 1,
}

/// A frame's neighbours; all zeros while it is on no list.
///
/// | word | bits 0 to 30 | bit 31 |
/// |---|---|---|
/// | `newer` | the next newer frame plus one, or 0 at the new end | the frame is on a list |
/// | `older` | the next older frame plus one, or 0 at the old end | that list is the active one |
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Link {
    newer: u32,
    older: u32,
}

const FLAG: u32 = 1 << 31;

/// The frame that a word names.
fn named(word: u32) -> Option<u32> {
    (word & !FLAG).checked_sub(1)
}

/// The part of a word that names a frame.
fn name(pfn: Option<u32>) -> u32 {
    pfn.map_or(0, |pfn| pfn + 1)
}

#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    newest: Option<u32>,
    oldest: Option<u32>,
    length: u32,
}

/// Both lists.
#[derive(Debug)]
pub(super) struct Lru {
    links: Zeroed<Link>,
    ends: [Ends; 2],
}

impl Lru {
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(super) fn new(frames: usize) -> Result<Self> {
        Ok(Self { links: Zeroed::new(frames, "the lists of pages")?, ends: [Ends::default(); 2] })
    }

    pub(super) fn length(&self, list: List) -> u32 {
        self.ends[list as usize].length
    }

    /// The list that a frame is on.
    pub(super) fn list_of(&self, pfn: u32) -> Option<List> {
        let Link { newer, older } = self.links[pfn as usize];
        let list = if older & FLAG == 0 { List::Inactive } else { List::Active };
        (newer & FLAG != 0).then_some(list)
    }

    /// Puts a frame that is on no list at the new end of one.
    pub(super) fn push(&mut self, list: List, pfn: u32) {
        debug_assert_eq!(self.list_of(pfn), None, "frame {pfn} is on a list already");
        let ends = &mut self.ends[list as usize];
        let older = ends.newest.replace(pfn);
        ends.length += 1;
        self.links[pfn as usize] = Link { newer: FLAG, older: (list as u32 * FLAG) | name(older) };
        match older {
            Some(older) => self.set_newer(older, Some(pfn)),
            None => self.ends[list as usize].oldest = Some(pfn),
        }
    }

    /// Takes a frame off its list, if it is on one.
    pub(super) fn unlink(&mut self, pfn: u32) -> Option<List> {
        let list = self.list_of(pfn)?;
        let link = std::mem::take(&mut self.links[pfn as usize]);
        let (newer, older) = (named(link.newer), named(link.older));
        self.ends[list as usize].length -= 1;
        match newer {
            Some(newer) => self.set_older(newer, older),
            None => self.ends[list as usize].newest = older,
        }
        match older {
            Some(older) => self.set_newer(older, newer),
            None => self.ends[list as usize].oldest = newer,
        }
        Some(list)
    }

    /// The frames of a list, the oldest first.
    pub(super) fn oldest_first(&self, list: List) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(self.ends[list as usize].oldest, |&pfn| named(self.links[pfn as usize].newer))
    }

    fn set_newer(&mut self, pfn: u32, newer: Option<u32>) {
        let word = &mut self.links[pfn as usize].newer;
        *word = *word & FLAG | name(newer);
    }

    fn set_older(&mut self, pfn: u32, older: Option<u32>) {
        let word = &mut self.links[pfn as usize].older;
        *word = *word & FLAG | name(older);
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const FRAMES: u32 = 6;

    #[test]
    fn the_last_frame_of_the_largest_cache_has_a_name() {
        let last = (1 << 30) - 1;
        assert_eq!(
            (named(name(Some(last))), named(FLAG | name(Some(last))), named(FLAG)),
            (Some(last), Some(last), None)
        );
    }

    proptest! {
        #[test]
        fn the_lists_are_two_queues(steps in prop::collection::vec((0..FRAMES, 0..3_u8), 1..200)) {
            let mut lru = Lru::new(FRAMES as usize).unwrap();
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
