//! The ranges that map a file.
//!
//! Owns: the list. Does not own entries: `mm/` implements [`MappedRange`], through which truncation and reclaim reach page tables
//! without depending on them. Mirrors `i_mmap` of `struct address_space`, `unmap_mapping_range` and `page_referenced`.
//!
//! One mutex, held throughout a walk as `i_mmap_rwsem` is: no range can split or vanish under it. In the lock order, the page
//! lock comes before it and the leaf locks after it.

use super::mmu_gather::MmuGather;
use crate::sync::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// A range of an address space that maps a file.
pub(crate) trait MappedRange: Send + Sync {
    /// Clears the entries of the file's pages `first..=last` in this range and hands their references to `gather`, which waits
    /// until no program can use them any more. With `even_cows`, private copies are removed too.
    fn unmap(&self, first: u64, last: u64, even_cows: bool, gather: &mut MmuGather<'_>);

    /// Clears the accessed marks in the entries of page `index`; returns how many were set (`page_referenced_one`).
    fn referenced(&self, index: u64) -> u32;

    /// Audits the page tables of an idle address space; returns how many there are, or 0 if it is among `seen`.
    fn audit_tables(&self, seen: &mut BTreeSet<usize>) -> std::result::Result<u64, String>;
}

/// The ranges that map one file, keyed by their numbers.
#[derive(Default)]
pub(crate) struct Ranges(Mutex<BTreeMap<u64, Arc<dyn MappedRange>>>);

impl Ranges {
    /// Registers a range.
    pub(crate) fn link(&self, id: u64, range: Arc<dyn MappedRange>) {
        self.0.lock().insert(id, range);
    }

    /// Removes a range. Afterwards truncation no longer visits it.
    pub(crate) fn unlink(&self, id: u64) {
        let range = self.0.lock().remove(&id);
        drop(range);
    }

    /// Runs `body` while no range is being unmapped: for the open question, whose protocol has no page lock.
    #[cfg(all(test, specmm_loom))]
    pub(super) fn while_not_unmapping<R>(&self, body: impl FnOnce() -> R) -> R {
        let _still = self.0.lock();
        body()
    }

    /// Clears every entry of pages `first..=last` (`unmap_mapping_range`); the caller waits when it finishes `gather`.
    pub(super) fn unmap(&self, first: u64, last: u64, even_cows: bool, gather: &mut MmuGather<'_>) {
        if first > last {
            return;
        }
        for range in self.0.lock().values() {
            range.unmap(first, last, even_cows, gather);
        }
    }

    /// Number of entries through which programs have used a page since the last call (`page_referenced`). Clears their marks.
    pub(super) fn referenced(&self, index: u64) -> u32 {
        self.0.lock().values().map(|range| range.referenced(index)).sum()
    }

    /// Audits the page tables of every address space that maps the file and is not among `seen`; returns how many tables they
    /// have.
    pub(super) fn audit_tables(&self, seen: &mut BTreeSet<usize>) -> Result<u64, String> {
        self.0.lock().values().map(|range| range.audit_tables(seen)).sum()
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ranges").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::page::Frames;
    use crate::sync::Tally;

    /// A range that notes the walks that come to it.
    #[derive(Default)]
    struct Range {
        unmapped: Mutex<Vec<(u64, u64, bool)>>,
        asked: Tally,
    }

    impl MappedRange for Range {
        fn unmap(&self, first: u64, last: u64, even_cows: bool, _gather: &mut MmuGather<'_>) {
            self.unmapped.lock().push((first, last, even_cows));
        }
        fn referenced(&self, index: u64) -> u32 {
            self.asked.add(1);
            index as u32
        }
        fn audit_tables(&self, seen: &mut BTreeSet<usize>) -> Result<u64, String> {
            seen.insert(seen.len());
            if seen.len() < 5 { Ok(10) } else { Err("too many".into()) }
        }
    }

    #[test]
    fn a_walk_comes_to_every_range_that_is_linked() {
        let frames = Frames::new(1).unwrap();
        let (ranges, mut gather) = (Ranges::default(), MmuGather::new(&frames));
        let all: Vec<_> = (0..3).map(|_| Arc::new(Range::default())).collect();
        assert_eq!(ranges.referenced(7), 0);
        for (id, range) in (0..).zip(&all) {
            let range = Arc::clone(range);
            ranges.link(id, range);
        }
        assert_eq!(ranges.referenced(7), 21);
        let mut seen = BTreeSet::new();
        assert_eq!((ranges.audit_tables(&mut seen), seen.len()), (Ok(30), 3));
        assert_eq!(ranges.audit_tables(&mut seen), Err("too many".into()));
        ranges.unlink(1);
        ranges.unlink(9);
        assert_eq!(Arc::strong_count(&all[1]), 1);
        for (first, last) in [(3, 5), (4, 4), (5, 4)] {
            ranges.unmap(first, last, last == 4, &mut gather);
        }
        let walks = [vec![(3, 5, false), (4, 4, true)], vec![], vec![(3, 5, false), (4, 4, true)]];
        assert_eq!(all.iter().map(|range| range.unmapped.lock().clone()).collect::<Vec<_>>(), walks);
        assert_eq!(all.iter().map(|range| range.asked.tallied()).collect::<Vec<_>>(), [1, 1, 1]);
        gather.finish();
    }
}
