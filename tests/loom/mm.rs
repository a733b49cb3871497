//! Models of the address space. This file: what they share; each subject has a file in `mm/`. Rows are those of
//! docs/invariants.md.

use super::mmap::Prot;
use super::{Mm, MmOptions};
use crate::cache::{Abort, File, Io, OpenFile, Shared, VmFault};
use crate::loom_harness::{History, Model, reach, spawn};
use crate::page::{PAGE_SIZE, PageRef};
use crate::rcu;
use crate::store::MemoryStore;
use std::sync::Arc;

#[path = "mm/around.rs"]
mod around_models;
#[path = "mm/close.rs"]
mod close;
#[path = "mm/map.rs"]
mod map;
#[path = "mm/spaces.rs"]
mod spaces;
#[path = "mm/stores.rs"]
mod stores;
#[path = "mm/truncate.rs"]
mod truncate;
#[path = "mm/twins.rs"]
mod twins;
#[path = "mm/unmap.rs"]
mod unmap;
#[path = "mm/vma.rs"]
mod vma;

pub(super) const PAGE: u64 = PAGE_SIZE as u64;

const FRAMES: u32 = 6;

/// A file of one cached page, mapped where the page tables exist already.
pub(super) fn one_page(prot: Prot, shared_mapping: bool) -> (Mm, File, u64) {
    mapped(1, prot, shared_mapping)
}

pub(super) fn mapped(pages: u64, prot: Prot, shared_mapping: bool) -> (Mm, File, u64) {
    around(PAGE, pages, pages, 0, prot, shared_mapping)
}

/// A file of which the pages from `first` on are cached, its first `pages` mapped where the tables exist already.
pub(super) fn around(
    fault_around_bytes: u64,
    pages: u64,
    file_pages: u64,
    first: u64,
    prot: Prot,
    shared_mapping: bool,
) -> (Mm, File, u64) {
    let shared = Shared::new(FRAMES as usize, Io::Inline).unwrap();
    let bytes = vec![0xAA; file_pages as usize * PAGE_SIZE];
    let file = File::in_memory(&shared, Arc::new(MemoryStore::new(bytes)), file_pages * PAGE);
    let open: Arc<OpenFile> = file.open_file().unwrap();
    for index in first..file_pages {
        crate::cache::models::cache_page(&open.mapping, index, 0xAA);
    }
    let options = MmOptions::default().fault_around_bytes(fault_around_bytes);
    let mm = Mm::over(shared, options).unwrap();
    let at = mm.mmap(&file, Some(pages * PAGE), 0, prot, shared_mapping).unwrap();
    for page in 0..pages {
        mm.inner.tables.walk_alloc(at + page * PAGE, &rcu::read()).expect("memory");
    }
    (mm, file, at)
}

/// The only page there is.
pub(super) fn cached_page(mm: &Mm) -> PageRef<'_> {
    let frames = &mm.inner.shared.frames;
    (0..FRAMES).map(|pfn| frames.page(pfn)).find(|page| page.is_cached()).expect("one page is cached")
}

/// A byte, by a fault if needed.
pub(super) fn load_byte(mm: &Mm, at: u64) -> u8 {
    let mut byte = [0];
    mm.load(at, &mut byte).unwrap();
    byte[0]
}

/// What one page's place in an address space can be: the specification's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    mapped: bool,
    /// Whether an entry is set.
    entry: bool,
}

const READY: Place = Place { mapped: true, entry: false };

/// A speculative attempt; its outcome is a coverage point too. Row 43: it succeeds or reports nothing. Row 44: one attempt, one
/// commit or one abort.
pub(super) fn attempt(mm: &Mm, at: u64, write: bool) -> Result<(), Abort> {
    match mm.inner.fault_speculatively(at, write) {
        Ok(result) => {
            assert!(!result.has(VmFault::ERROR), "an unvalidated state was judged: {result:?}");
            reach(if result.has(VmFault::NOPAGE) { "twin" } else { "commit" });
            Ok(())
        }
        Err(cause) => {
            reach(cause);
            Err(cause)
        }
    }
}

/// The specification of an attempt: where nothing is mapped it cannot succeed; it may always abort.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form of a specification")]
fn attempt_is_right(place: &mut Place, result: &Result<(), Abort>) -> bool {
    if result.is_ok() {
        place.entry = true;
    }
    result.is_err() || place.mapped
}

/// Whether an entry is there, which the specification must agree with at rest.
fn look(history: &History<Place>, mm: &Mm, at: u64) {
    history.settle();
    let entry = || mm.pagemap(at, PAGE).unwrap() != [0];
    history.call("look for the entry", entry, |place, seen| place.entry == *seen);
    history.check();
    assert!(mm.inner.events.balance(), "attempts are not commits plus aborts: {:?}", mm.vm_events());
}

/// A fault on the classic path, whatever its result.
fn classic(mm: &Mm, at: u64, write: bool) -> VmFault {
    let result = mm.inner.fault_classically(at, write).result;
    assert!(!result.has(VmFault::RETRY), "a retry is not for the caller: {result:?}");
    result
}

/// Every entry of the first `pages` pages of the mapping at 0 names the file's page of that index, and none is beyond.
fn entries_are_right(mm: &Mm, pages: u64) {
    let section = rcu::read();
    for page in 0..4 {
        let Ok(walk) = mm.inner.tables.walk(page * PAGE, &section) else { continue };
        let pte = walk.get(page * PAGE);
        if !pte.is_none() {
            let named = mm.inner.shared.frames.page(pte.pfn()).index();
            assert!(page < pages, "an entry beyond the mapping, for page {named}");
            assert_eq!(named, page, "the entry of page {page} names another");
        }
    }
}
