//! The files of a cache, by the identity that their pages carry.
//!
//! Owns: the way from a page back to its file, and what may be asked of one there ([`CachedFile`]). Does not own the files: it
//! keeps none alive. In Linux a page points to its `address_space` (`page->mapping`); here it has a number, so that one that is
//! stale finds nothing.
//!
//! One mutex, not held while a file is asked anything: the last user of a file takes it.

use super::mmu_gather::MmuGather;
use crate::error::Result;
use crate::page::LockedPage;
use crate::sync::Mutex;
use crate::xarray::{Census, Entry};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Weak};

/// A file, as far as those know it who have come to it by one of its pages: reclaim, shadows and audits.
pub(super) trait CachedFile: Send + Sync {
    /// The identity that its pages carry.
    fn id(&self) -> u64;

    /// How often programs used a page through their entries since the last look. Ends a use's mark.
    fn referenced(&self, index: u64) -> u32;

    /// Clears every entry of a page; the wait is left to whoever finishes `gather`.
    fn unmap_page(&self, index: u64, gather: &mut MmuGather<'_>);

    /// Takes a locked page out, leaving `shadow`, and frees its frame; gives the lock back if somebody uses the page.
    fn remove_locked<'f>(
        &self,
        lock: LockedPage<'f>,
        shadow: Entry,
    ) -> std::result::Result<(), LockedPage<'f>>;

    /// Drops the clean, unmapped, unlocked pages; returns how many.
    fn drop_idle_pages(&self) -> u64;

    /// Erases the shadows for which `old` holds.
    fn forget_shadows(&self, old: &dyn Fn(u64) -> bool);

    /// Whether the node of the index that `index` lies in has shadows only, since it was noted under this number.
    fn has_shadows_only(&self, index: u64, number: u32) -> bool;

    /// Erases the shadows in that node, unless a page has come.
    fn forget_node(&self, index: u64, number: u32);

    /// Audits the pages at quiescence, and adds up what there is.
    fn audit(&self, found: &mut Findings) -> Result<()>;
}

/// What an audit has found in the files so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Pages.
    pub(super) cached: u64,
    /// Shadows.
    pub(super) shadows: u64,
    /// Nodes of the indices.
    pub(super) census: Census,
    /// Page tables of the address spaces in `seen`.
    pub(super) page_tables: u64,
    pub(super) seen: BTreeSet<usize>,
}

/// The files of one cache.
#[derive(Default)]
pub(super) struct Registry(Mutex<BTreeMap<u64, Weak<dyn CachedFile>>>);

impl Registry {
    pub(super) fn insert(&self, id: u64, file: Weak<dyn CachedFile>) {
        self.0.lock().insert(id, file);
    }

    /// The file is gone.
    pub(super) fn remove(&self, id: u64) {
        self.0.lock().remove(&id);
    }

    /// The file whose pages carry this identity, unless its last user is gone.
    pub(super) fn get(&self, id: u64) -> Option<Arc<dyn CachedFile>> {
        self.0.lock().get(&id).and_then(Weak::upgrade)
    }

    /// The files that have users, one after the other, each held while it is looked at.
    pub(super) fn iter(&self) -> impl Iterator<Item = Arc<dyn CachedFile>> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let files = self.0.lock();
            let (id, file) = files.range(from..).find_map(|(&id, file)| Some((id, file.upgrade()?)))?;
            from = id + 1;
            Some(file)
        })
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}
