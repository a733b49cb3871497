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

    /// How many it has, those without users included.
    #[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
    pub(super) fn known(&self) -> usize {
        self.0.lock().len()
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

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::super::workingset::tests::File;
    use super::*;

    #[test]
    fn each_file_that_has_users_has_its_turn_even_if_others_go_meanwhile() {
        let files = Registry::default();
        let mut all: Vec<_> = [1, 2, 3, 7, 8].map(|id| Some((id, Arc::new(File::default())))).into();
        for (id, file) in all.iter().flatten() {
            let file = Arc::downgrade(file);
            files.insert(*id, file);
        }
        let named = |file: &Arc<dyn CachedFile>| {
            let is =
                |(_, known): &&(u64, Arc<File>)| std::ptr::addr_eq(Arc::as_ptr(known), Arc::as_ptr(file));
            all.iter().flatten().find(is).map(|(id, _)| *id)
        };
        assert_eq!(files.iter().map(|file| named(&file).unwrap()).collect::<Vec<_>>(), [1, 2, 3, 7, 8]);
        assert_eq!(files.get(7).as_ref().and_then(named), Some(7));
        assert!(files.get(4).is_none());
        let mut turns = files.iter();
        assert_eq!(turns.next().as_ref().and_then(named), Some(1));
        files.remove(2);
        assert!(files.get(2).is_none());
        let third = all[2].take();
        drop(third);
        assert!(files.get(3).is_none(), "its last user is gone");
        assert_eq!(turns.count(), 2);
    }
}
