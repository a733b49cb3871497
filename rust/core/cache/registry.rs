//! The files of a cache, by the identity stored in their pages.
//!
//! Owns: the map from a page's identity to its file, and the operations that such a file offers ([`CachedFile`]). Does not own
//! the files: it keeps none alive. In Linux a page points to its `address_space` (`page->mapping`); here it holds a number, so
//! that a stale one finds nothing.
//!
//! One mutex, not held while a method of a file is called, because the last user of a file takes it.

use super::mmu_gather::MmuGather;
use crate::error::Result;
use crate::page::LockedPage;
use crate::sync::Mutex;
use crate::xarray::{Census, Entry};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Weak};

/// A file as seen by code that reaches it through its pages: reclaim, shadows and audits.
pub(super) trait CachedFile: Send + Sync {
    /// The identity stored in its pages.
    fn id(&self) -> u64;

    /// Number of entries through which programs have used a page since the last call. Clears their marks.
    fn referenced(&self, index: u64) -> u32;

    /// Clears every entry of a page; the caller waits when it finishes `gather`.
    fn unmap_page(&self, index: u64, gather: &mut MmuGather<'_>);

    /// Takes a locked page out, leaving `shadow`, and frees its frame; returns the lock if the page is in use.
    fn remove_locked<'f>(
        &self,
        lock: LockedPage<'f>,
        shadow: Entry,
    ) -> std::result::Result<(), LockedPage<'f>>;

    /// Drops the clean, unmapped, unlocked pages; returns how many.
    fn drop_idle_pages(&self) -> u64;

    /// Erases the shadows for which `old` holds.
    fn forget_shadows(&self, old: &dyn Fn(u64) -> bool);

    /// Whether the index node that contains `index`, noted under this number, still holds only shadows.
    fn has_shadows_only(&self, index: u64, number: u32) -> bool;

    /// Erases the shadows in that node, unless it has got a page.
    fn forget_node(&self, index: u64, number: u32);

    /// Audits the pages of an idle cache, and adds them to `found`.
    fn audit(&self, found: &mut Findings) -> Result<()>;
}

/// Totals of an audit over the files so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Pages.
    pub(super) cached: u64,
    /// Shadows.
    pub(super) shadows: u64,
    /// Index nodes.
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

    /// Removes a file that is being dropped.
    pub(super) fn remove(&self, id: u64) {
        self.0.lock().remove(&id);
    }

    /// The file with this identity, unless its last user is gone.
    pub(super) fn get(&self, id: u64) -> Option<Arc<dyn CachedFile>> {
        self.0.lock().get(&id).and_then(Weak::upgrade)
    }

    /// The files that have users, one after the other, each kept alive during its turn.
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
