//! What a slot holds: nothing, a page frame, a value, a node, or RETRY, in one pointer-sized word.
//!
//! | low bits | meaning |
//! |---|---|
//! | all zero | nothing |
//! | `01` | a value (shadow), 62 bits |
//! | `10` | a node's address plus two |
//! | `00` | a page frame number plus one, shifted; or RETRY, a bit beyond those |
//!
//! So one bit tells a node from all else: a walk asks at every level.

use super::node::Node;

/// The greatest number that [`Entry::value`] keeps.
pub const MAX_VALUE: u64 = (1 << 62) - 1;

const VALUE: usize = 1;
const NODE: usize = 2;
/// Beyond every shifted page frame number, which has 34 bits at most.
const RETRY: usize = 1 << 40;

/// One decoded slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry(*mut Node);

impl Entry {
    /// Nothing there.
    pub const EMPTY: Self = Self(std::ptr::null_mut());
    /// The content moved: start again from the head.
    pub(super) const RETRY: Self = Self(std::ptr::without_provenance_mut(RETRY));

    /// The entry of page frame `pfn`.
    #[must_use]
    pub fn page(pfn: u32) -> Self {
        Self(std::ptr::without_provenance_mut((pfn as usize + 1) << 2))
    }

    /// A value entry (the shadow of an evicted page).
    ///
    /// # Panics
    /// When `value` exceeds `MAX_VALUE`.
    #[must_use]
    pub fn value(value: u64) -> Self {
        assert!(value <= MAX_VALUE, "value {value} does not fit an entry");
        Self(std::ptr::without_provenance_mut(((value as usize) << 2) | VALUE))
    }

    pub(super) fn node(node: *mut Node) -> Self {
        Self(node.map_addr(|address| address | NODE))
    }

    pub(super) fn from_raw(raw: *mut Node) -> Self {
        Self(raw)
    }

    pub(super) fn raw(self) -> *mut Node {
        self.0
    }

    /// Whether the slot is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_null()
    }

    /// The page frame number, if this is a page.
    #[inline]
    #[must_use]
    pub fn as_page(self) -> Option<u32> {
        // A tag turned to the top, nothing (minus one) and RETRY are all beyond any frame number.
        u32::try_from(self.0.addr().rotate_right(2).wrapping_sub(1)).ok()
    }

    /// The value, if this is one.
    #[must_use]
    pub fn as_value(self) -> Option<u64> {
        (self.0.addr() & VALUE != 0).then(|| (self.0.addr() >> 2) as u64)
    }

    pub(super) fn as_node(self) -> Option<*mut Node> {
        (self.0.addr() & NODE != 0).then(|| self.0.map_addr(|address| address & !NODE))
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            f.write_str("Empty")
        } else if let Some(pfn) = self.as_page() {
            write!(f, "Page({pfn})")
        } else if let Some(value) = self.as_value() {
            write!(f, "Value({value})")
        } else if *self == Self::RETRY {
            f.write_str("Retry")
        } else {
            f.write_str("Node")
        }
    }
}
