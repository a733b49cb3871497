//! Models of the address space: the sequence, the last check against zapping, twins, truncation against a fault.

use super::gather::Gather;
use super::memory::{Fault, Mode};
use super::mmap::Prot;
use super::page_table::Owner;
use super::vma::{VmFlags, Vma};
use super::{Locking, Mm, MmOptions};
use crate::cache::{File, Io, OpenFile, Shared, VmFault};
use crate::loom_harness::{Model, reach, spawn};
use crate::page::{PAGE_SIZE, PageRef};
use crate::rcu;
use crate::store::MemoryStore;
use std::sync::Arc;

const PAGE: u64 = PAGE_SIZE as u64;

const FRAMES: u32 = 6;

/// A file of one cached page, mapped where the page tables exist already.
fn one_page(prot: Prot, shared_mapping: bool) -> (Mm, File, u64) {
    mapped(1, prot, shared_mapping)
}

fn mapped(pages: u64, prot: Prot, shared_mapping: bool) -> (Mm, File, u64) {
    let shared = Shared::new(FRAMES as usize, Io::Inline).unwrap();
    let bytes = vec![0xAA; pages as usize * PAGE_SIZE];
    let file = File::in_memory(&shared, Arc::new(MemoryStore::new(bytes)), pages * PAGE);
    let open: Arc<OpenFile> = file.open_file().unwrap();
    for index in 0..pages {
        crate::cache::models::cache_page(&open.mapping, index, 0xAA);
    }
    let options = MmOptions { locking: Locking::Speculative, fault_around_bytes: PAGE };
    let mm = Mm::over(shared, options).unwrap();
    let at = mm.mmap(&file, Some(pages * PAGE), 0, prot, shared_mapping).unwrap();
    mm.inner.tables.walk_alloc(at, &rcu::read());
    (mm, file, at)
}

/// The only page there is.
fn cached_page(mm: &Mm) -> PageRef<'_> {
    let frames = &mm.inner.shared.frames;
    (0..FRAMES).map(|pfn| frames.page(pfn)).find(|page| page.is_cached()).expect("one page is cached")
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
        twin: false,
        body: fault_against_munmap,
        reaches: &[
            "commit",
            "ODD",
            "UNMAPPED",
            "VMA_COPY",
            "FAULT",
            "PTE_MAP_LOCK_SEQ1",
            "PTE_MAP_LOCK_PMD",
            "PTE_MAP_LOCK_SEQ2",
        ],
        needs: &["pte_map_lock.seq2"],
    }
    .check();
}

/// The slice of the model above that the sequence argument rests on, small enough to have no bound. One thread takes the
/// leaf lock as a speculative fault does and sets the entry; one is inside the mmap lock for writing and then clears the
/// entry. Claim: afterwards there is none. Premises: the mapping is gone once the sequence has moved; the page stays locked.
fn set_against_zap() {
    let (mm, file, at) = one_page(Prot::Read, true);
    let zapper = {
        let mm = mm.clone();
        spawn(move || {
            drop(mm.inner.lock.write());
            let mut gather = Gather::new(&mm.inner.tables);
            mm.inner.tables.zap(at, at + PAGE, Owner::Any, &mut gather);
            gather.finish();
        })
    };
    if let Some(sequence) = mm.inner.lock.sequence.read_start() {
        let section = rcu::read();
        let vma = mm.inner.vmas.load(&section)[0].copy();
        let fault = Fault { mm: &mm.inner, vma, address: at, index: 0, write: false, published: 0 };
        let walk = mm.inner.tables.walk(at, &section).unwrap();
        // A snapshot from before the writer stands for a mapping that was there; one from after would not find it.
        if sequence == 2 {
            match fault.pte_map_lock(&walk, Mode::Speculative { sequence }) {
                Ok(locked) => {
                    locked.set(at, cached_page(&mm).get(), 0);
                    reach("set");
                }
                Err(cause) => reach(cause),
            }
        }
    } else {
        reach("odd");
    }
    zapper.join().unwrap();
    assert_eq!(mm.pagemap(at, PAGE).unwrap(), [0], "an entry outlives its mapping");
    drop((mm, file));
}

#[test]
fn setting_an_entry_against_zap() {
    Model {
        name: "setting an entry against zap (slice)",
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: set_against_zap,
        reaches: &["set", "odd", "PTE_MAP_LOCK_SEQ1", "PTE_MAP_LOCK_SEQ2", "PTE_MAP_LOCK_PTL"],
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
        twin: false,
        body: twins,
        reaches: &["commit", "twin", "FILE_LOCKED"],
        needs: &["finish_fault.pte_none"],
    }
    .check();
}

/// Two threads fault on two pages of one leaf table. Claims: both entries or aborts, nothing in between; the leaf lock is
/// free at the end.
fn neighbours() {
    let (mm, file, at) = mapped(2, Prot::Read, true);
    let other = {
        let mm = mm.clone();
        spawn(move || attempt(&mm, at + PAGE, false))
    };
    attempt(&mm, at, false);
    other.join().unwrap();
    drop(mm.inner.tables.walk(at, &rcu::read()).unwrap().try_lock().expect("the leaf lock is free"));
    mm.close().unwrap();
    mm.inner.shared.frames.audit().unwrap();
    drop(file);
}

#[test]
fn two_faults_in_one_table() {
    Model {
        name: "two speculative faults in one table",
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: neighbours,
        reaches: &["commit", "PTE_MAP_LOCK_PTL"],
        needs: &["leaf.trylock.was_free"],
    }
    .check();
}

/// Two threads store through an entry that lacks the right: each would make a private copy. Claims: one copy is mapped; the
/// other is given back; the file's page loses its entry's reference once.
fn two_stores() {
    let (mm, file, at) = one_page(Prot::ReadWrite, false);
    attempt(&mm, at, false);
    mm.inner.vmas.load(&rcu::read())[0].copy().prepare_anon_vma();
    let other = {
        let mm = mm.clone();
        spawn(move || attempt(&mm, at, true))
    };
    attempt(&mm, at, true);
    other.join().unwrap();
    let mut byte = [0];
    mm.load(at, &mut byte).unwrap();
    assert_eq!(byte, [0xAA], "a copy that was never filled");
    mm.close().unwrap();
    rcu::model::drain();
    let page = cached_page(&mm);
    assert_eq!((page.mapcount(), page.refcount()), (0, 1), "{page:?}");
    assert_eq!(mm.inner.shared.frames.in_use(), (1, 0));
    drop(file);
}

#[test]
fn two_stores_through_one_entry() {
    Model {
        name: "two speculative stores through one entry",
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: two_stores,
        reaches: &["commit", "PTE_CHANGED", "PTE_MAP_LOCK_PTL"],
        needs: &["do_wp_page.pte_same"],
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
        twin: false,
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
        twin: false,
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
