//! Compound pages: a run of 2^order frames that is one page.
//!
//! The head's descriptor carries the state (flags, count, lock, mapping); a tail names its head. Mirrors
//! `compound_head` and `prep_compound_page`. The fault path makes none yet, and its lookups take a page for its own head:
//! huge pages come with advice "hugepage".
//!
//! | `compound` word | meaning |
//! |---|---|
//! | even: order << 1 | head of 2^order frames; 0 is a single page |
//! | odd: head pfn << 1 \| 1 | tail |

use super::PageRef;
use crate::sync::Ordering;

impl<'f> PageRef<'f> {
    /// The page that carries the state: itself, or the head of the compound page it belongs to.
    #[inline]
    #[must_use]
    #[allow(dead_code, reason = "lookups of huge pages will ask")]
    pub fn compound_head(self) -> PageRef<'f> {
        // Relaxed: written while the frame was free; the reference or the slot recheck orders it.
        let word = self.page.compound.load(Ordering::Relaxed);
        if word & 1 == 0 { self } else { self.frames.page(word >> 1) }
    }

    /// log2 of the frames in this page; 0 for a tail.
    #[must_use]
    pub fn order(self) -> u32 {
        let word = self.page.compound.load(Ordering::Relaxed);
        if word & 1 == 0 { word >> 1 } else { 0 }
    }

    /// Ties `2^order` free frames into one page with this one as its head (`prep_compound_page`).
    pub(super) fn tie(self, order: u32) {
        let head = self.pfn();
        self.page.compound.store(order << 1, Ordering::Relaxed);
        for tail in 1..1 << order {
            self.frames.page(head + tail).page.compound.store(head << 1 | 1, Ordering::Relaxed);
        }
    }

    /// Makes the frames single again, on their way to the free lists.
    pub(super) fn untie(self) -> u32 {
        let order = self.order();
        if order > 0 {
            for frame in 0..1 << order {
                self.frames.page(self.pfn() + frame).page.compound.store(0, Ordering::Relaxed);
            }
        }
        order
    }
}
