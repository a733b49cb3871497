//! Models of the address space: the sequence, the last check against zapping, twins, truncation against a fault.

use super::mmap::Prot;
use super::vma::{VmFlags, Vma};
use super::{Locking, Mm, MmOptions};
use crate::cache::{File, Io, OpenFile, Shared, VmFault};
use crate::loom_harness::{Model, reach, spawn};
use crate::page::{PAGE_SIZE, PageRef};
use crate::rcu;
use crate::store::MemoryStore;
use std::sync::Arc;

const PAGE: u64 = PAGE_SIZE as u64;

/// A file of one cached page, mapped where the page tables exist already.
fn one_page(prot: Prot, shared_mapping: bool) -> (Mm, File, u64) {
    let shared = Shared::new(3, Io::Inline).unwrap();
    let file = File::in_memory(&shared, Arc::new(MemoryStore::new(vec![0xAA; PAGE_SIZE])), PAGE);
    let open: Arc<OpenFile> = file.open_file().unwrap();
    crate::cache::models::cache_page(&open.mapping, 0, 0xAA);
    let options = MmOptions { locking: Locking::Speculative, fault_around_bytes: PAGE };
    let mm = Mm::over(shared, options).unwrap();
    let at = mm.mmap(&file, Some(PAGE), 0, prot, shared_mapping).unwrap();
    mm.inner.tables.walk_alloc(at, &rcu::read());
    (mm, file, at)
}

/// The only page there is.
fn cached_page(mm: &Mm) -> PageRef<'_> {
    let frames = &mm.inner.shared.frames;
    (0..3).map(|pfn| frames.page(pfn)).find(|page| page.is_cached()).expect("one page is cached")
}

/// What a speculative attempt came to, as a coverage point.
fn attempt(mm: &Mm, at: u64, write: bool) {
    match mm.inner.fault_speculatively(at, write) {
        Ok(result) if result.has(VmFault::NOPAGE) => reach("twin"),
        Ok(_) => reach("commit"),
        Err(cause) => reach(cause),
    }
}

/// One thread faults speculatively, one unmaps. Claim: afterwards no entry names the page and no reference is left but the
/// cache's. Premise: munmap bumps the sequence before it takes the leaf lock.
fn fault_against_munmap() {
    let (mm, file, at) = one_page(Prot::Read, true);
    let unmapper = {
        let mm = mm.clone();
        spawn(move || mm.munmap(at, PAGE).unwrap())
    };
    attempt(&mm, at, false);
    unmapper.join().unwrap();
    assert_eq!(mm.pagemap(at, PAGE).unwrap(), [0], "an entry outlives its mapping");
    let page = cached_page(&mm);
    assert_eq!((page.mapcount(), page.refcount()), (0, 1), "{page:?}");
    drop((mm, file));
}

#[test]
fn the_last_sequence_check_against_zap() {
    Model {
        name: "last sequence check against zap",
        preemption_bound: Some(3),
        grace_periods: false,
        body: fault_against_munmap,
        reaches: &[
            "commit",
            "ODD",
            "UNMAPPED",
            "VMA_COPY",
            "FAULT",
            "PTE_MAP_LOCK_SEQ1",
            "PTE_MAP_LOCK_SEQ2",
        ],
        needs: &["pte_map_lock.seq2"],
    }
    .check();
}

/// Two threads fault on one page. Claims: one entry, one reference for it; the loser's is given back.
fn twins() {
    let (mm, file, at) = one_page(Prot::Read, true);
    let twin = {
        let mm = mm.clone();
        spawn(move || attempt(&mm, at, false))
    };
    attempt(&mm, at, false);
    twin.join().unwrap();
    let page = cached_page(&mm);
    assert_eq!(page.refcount(), 1 + page.mapcount(), "{page:?}");
    assert!(page.mapcount() <= 1);
    drop((mm, file));
}

#[test]
fn two_faults_on_one_page() {
    Model {
        name: "two speculative faults on one page",
        preemption_bound: Some(3),
        grace_periods: false,
        body: twins,
        reaches: &["commit", "twin", "FILE_LOCKED"],
        needs: &["finish_fault.pte_none"],
    }
    .check();
}

/// One thread faults speculatively, one truncates the file to nothing. Claim: a page without a mapping has no entry (row 20).
/// Premise: truncation sets the size, unmaps, locks, unmaps again what is mapped.
fn fault_against_truncate() {
    let (mm, file, at) = one_page(Prot::Read, true);
    let truncater = {
        let file = file.open_file().unwrap();
        spawn(move || file.mapping.shrink_pages(0))
    };
    attempt(&mm, at, false);
    truncater.join().unwrap();
    assert_eq!(mm.pagemap(at, PAGE).unwrap(), [0], "an entry names a truncated page");
    assert_eq!(mm.inner.shared.frames.in_use().0, 0);
    drop((mm, file));
}

#[test]
fn a_fault_against_truncate() {
    Model {
        name: "speculative fault against truncate",
        preemption_bound: Some(3),
        grace_periods: false,
        body: fault_against_truncate,
        reaches: &["commit", "FILE_MISS", "FILE_LOCKED", "FILE_MAPPING"],
        needs: &["truncate.unmap_locked"],
    }
    .check();
}

/// One thread copies a mapping's fields and looks at the sequence; one moves the mapping. Claim: a copy that is accepted is
/// one version of the mapping, never parts of two. Premise: fields change only inside an odd sequence.
fn copy_against_adjust() {
    let (mm, file, _) = one_page(Prot::Read, true);
    let open = file.open_file().unwrap();
    let vma = Vma::new((0, PAGE, 0), VmFlags::SHARED, open, Arc::clone(&mm.inner.tables));
    let writer = {
        let (mm, vma) = (mm.clone(), Arc::clone(&vma));
        spawn(move || {
            let lock = mm.inner.lock.write();
            vma.adjust(PAGE, 3 * PAGE, 1, &lock);
        })
    };
    if let Some(start) = mm.inner.lock.sequence.read_start() {
        let copy = vma.copy();
        if mm.inner.lock.sequence.read_check(start) {
            reach("copied");
            let version = (copy.start, copy.end, copy.pgoff);
            assert!([(0, PAGE, 0), (PAGE, 3 * PAGE, 1)].contains(&version), "torn: {version:?}");
        } else {
            reach("changed");
        }
    } else {
        reach("odd");
    }
    writer.join().unwrap();
    vma.unlink();
    drop((mm, file));
}

#[test]
fn a_copied_mapping_is_one_version() {
    Model {
        name: "copy of a mapping against a writer",
        preemption_bound: None,
        grace_periods: false,
        body: copy_against_adjust,
        reaches: &["copied", "changed", "odd"],
        needs: &[
            "seq.start.acquire",
            "seq.start.even",
            "seq.check.fence",
            "seq.begin.fence",
            "seq.end.release",
        ],
    }
    .check();
}
