//! Slices of the page table: the leaf lock, entries against accesses through them, tables against their freeing. Most
//! are small enough to have no preemption bound.

use super::Mm;
use super::leaf::{LeafLocked, Pte};
use super::memory::Fault;
use super::mmap::Prot;
use super::models::{PAGE, load_byte, mapped, one_page};
use super::page_table::{Owner, PageTable, TABLE_BYTES};
use crate::cache::MmuGather;
use crate::cache::{Io, MappedRange, Shared};
use crate::loom_harness::{History, Model, Protected, reach, spawn};
use crate::page::{PAGE_SIZE, PageHandle, Use};
use crate::rcu;
use std::sync::Arc;

const OURS: u8 = 0x66;
const STRANGERS: u8 = 0x55;

/// Tables that reach address 0, without an address space around them.
fn tables() -> Arc<PageTable> {
    let tables = PageTable::new(Shared::new(2, Io::Inline).unwrap()).unwrap();
    tables.walk_alloc(0, &rcu::read()).expect("memory");
    Arc::new(tables)
}

/// The lock of the leaf that maps `address`, as the classic fault takes it.
fn with_leaf<R>(mm: &Mm, address: u64, work: impl FnOnce(&LeafLocked<'_>) -> R) -> R {
    let section = rcu::read();
    work(&mm.inner.tables.lock_alloc(address, &section).expect("memory"))
}

/// A frame of no file, filled with `byte`.
fn frame(mm: &Mm, purpose: Use, byte: u8) -> PageHandle<'_> {
    let frame = mm.inner.shared.frames.alloc(purpose).expect("a frame is free");
    frame.page().bytes().write(0, &[byte; PAGE_SIZE]);
    frame
}

/// Fills every free frame with a stranger's bytes.
fn reuse(mm: &Mm) {
    let strangers: Vec<_> = std::iter::from_fn(|| mm.inner.shared.frames.alloc(Use::File)).collect();
    for stranger in &strangers {
        stranger.page().bytes().write(0, &[STRANGERS; 8]);
    }
}

/// An address space whose first page is mapped to a frame of ours that only the entry holds. The entry of the second page keeps
/// their table.
fn mapped_frame(purpose: Use, bits: u64) -> (Mm, u64) {
    let (mm, _, at) = mapped(2, Prot::ReadWrite, false);
    set(&mm, at + PAGE);
    with_leaf(&mm, at, |leaf| leaf.set(at, frame(&mm, purpose, OURS), bits));
    (mm, at)
}

/// Loads a byte through the entry, if it is there.
fn load(mm: &Mm, at: u64) -> Option<u8> {
    let mut byte = [0];
    let loaded = mm.inner.through_entry(at, false, &mut |bytes, within| bytes.read(within, &mut byte));
    reach(if loaded { "loaded" } else { "no entry" });
    loaded.then_some(byte[0])
}

/// Clears the entries of the first page and drops their references.
fn zap(mm: &Mm, at: u64) {
    let mut gather = MmuGather::new(mm.inner.tables.frames());
    mm.inner.tables.zap(at, at + PAGE, Owner::Any, &mut gather);
    gather.finish();
}

/// One thread takes the leaf lock, one tries it. Claim: they exclude each other and see what the other did. Premise: only
/// these two functions write the word.
fn leaf_lock() {
    let tables = tables();
    let protected = Arc::new(Protected::new());
    let history = History::new(0);
    let count = |protected: &Protected| {
        let before = protected.get();
        protected.increment();
        before
    };
    let counted = |total: &mut u32, before: &Option<u32>| {
        let right = before.is_none_or(|before| before == *total);
        *total += u32::from(before.is_some());
        right
    };
    let locker = {
        let (tables, protected, history) = (Arc::clone(&tables), Arc::clone(&protected), history.clone());
        spawn(move || {
            let lock = || {
                let section = rcu::read();
                let _leaf = tables.walk(0, &section).unwrap().lock().expect("nobody takes it out");
                Some(count(&protected))
            };
            history.call("lock", lock, counted);
        })
    };
    let try_lock = || {
        let section = rcu::read();
        let leaf = tables.walk(0, &section).unwrap().try_lock();
        reach(if leaf.is_some() { "free" } else { "busy" });
        leaf.map(|_held| count(&protected))
    };
    history.call("try", try_lock, counted);
    locker.join().unwrap();
    history.settle();
    history.call("try at rest", try_lock, move |total, before| *before == Some(*total));
    history.check();
}

#[test]
fn the_leaf_lock_excludes() {
    Model {
        name: "leaf lock against a try",
        rows: &[8, 17],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: leaf_lock,
        reaches: &["free", "busy"],
        needs: &["leaf.lock.acquire", "leaf.trylock.acquire", "leaf.trylock.was_free", "leaf.unlock.release"],
    }
    .check();
}

/// Sets the entry at `address` to a frame of ours.
fn set(mm: &Mm, address: u64) {
    with_leaf(mm, address, |leaf| leaf.set(address, frame(mm, Use::File, OURS), Pte::ACCESSED));
}

/// One thread walks to a leaf, locks it and looks at an entry, as a speculative fault does; one takes the leaf out, as a thread
/// that has emptied it does. Claim: what the walker touches is alive until its section ends. Premise: tables are freed only by
/// deferral through their cells.
fn walk_against_free() {
    let tables = tables();
    // The tables above stay, with another leaf.
    tables.walk_alloc(2 * PAGE, &rcu::read()).expect("memory");
    let history = History::new(true);
    let freer = {
        let (tables, history) = (Arc::clone(&tables), history.clone());
        spawn(move || {
            let free = || {
                let section = rcu::read();
                tables.unlink(&tables.walk(0, &section).unwrap().lock().expect("it is there"));
                drop(section);
                rcu::synchronize();
            };
            history.call("free", free, |there, ()| std::mem::replace(there, false));
        })
    };
    let walk = || {
        let section = rcu::read();
        let Ok(walk) = tables.walk(0, &section) else {
            reach("missing");
            return false;
        };
        let Some(leaf) = walk.try_lock() else {
            reach("busy");
            return false;
        };
        assert!(leaf.get(0).is_none());
        let is_current = walk.is_current();
        reach(if is_current { "current" } else { "unlinked" });
        is_current
    };
    // While the other thread holds the lock, the walk gives up.
    history.call("walk", walk, |there, found| !found || *there);
    freer.join().unwrap();
    history.settle();
    history.call("walk at rest", walk, |there, found| found == there);
    history.check();
    assert_eq!(tables.bytes(), 4 * TABLE_BYTES, "the root, two more and the other leaf are left");
}

#[test]
fn big_a_walk_against_freeing_of_tables() {
    Model {
        name: "walk against freeing of tables",
        rows: &[6, 7],
        preemption_bound: Some(8),
        grace_periods: true,
        twin: false,
        body: walk_against_free,
        reaches: &["missing", "busy", "current", "unlinked"],
        needs: &["prune.seed.at_once"],
    }
    .check();
}

/// One thread sets an entry, as the classic fault does; one clears another, `apart` pages on, and with it every table that has
/// become empty. Claim: the entry stays. Premises: a leaf is taken out under its lock, after it was seen empty; a thread that
/// gets the lock of a leaf checks whether it is still in the tree; tables enter and leave the tree under one mutex.
fn set_beside_free(apart: u64) {
    let (mm, _, at) = mapped(apart + 1, Prot::Read, true);
    let other = at + apart * PAGE;
    // Without an entry there is no table, except that of the other entry.
    set(&mm, at);
    zap(&mm, at);
    set(&mm, other);
    let history = History::new(false);
    let freer = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call("zap the other", || zap(&mm, other), |_, ()| true);
        })
    };
    history.call("set", || set(&mm, at), |there, ()| !std::mem::replace(there, true));
    freer.join().unwrap();
    history.settle();
    history.call("load", || load(&mm, at), |there, byte| *there && *byte == Some(OURS));
    history.check();
    rcu::model::drain();
    mm.inner.tables.audit().unwrap();
}

#[test]
fn an_entry_beside_freeing_of_its_leaf() {
    Model {
        name: "entry against freeing of its leaf",
        rows: &[6],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || set_beside_free(1),
        reaches: &["loaded"],
        needs: &["zap.empty", "leaf.lock.current", "zap.seed.unlinks_late"],
    }
    .check();
}

#[test]
fn an_entry_beside_freeing_of_upper_tables() {
    Model {
        name: "entry against freeing of the tables above",
        rows: &[6],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || set_beside_free(2),
        reaches: &["loaded"],
        needs: &["prune.empty", "populate.seed.unlocked"],
    }
    .check();
}

/// One thread sets an entry to a frame that it has filled; one loads through the entry. Claim: a thread that finds the entry
/// finds the bytes. Premise: an entry is set to a page that has its bytes.
fn load_against_set() {
    let (mm, _, at) = one_page(Prot::Read, true);
    let history = History::new(None);
    let setter = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            let set = || with_leaf(&mm, at, |leaf| leaf.set(at, frame(&mm, Use::File, OURS), Pte::ACCESSED));
            history.call("set", set, |byte: &mut Option<u8>, ()| byte.replace(OURS).is_none());
        })
    };
    history.call("load", || load(&mm, at), |byte, loaded| loaded == byte);
    setter.join().unwrap();
    history.settle();
    history.call("load at rest", || load(&mm, at), |byte, loaded| loaded == byte);
    history.check();
}

#[test]
fn a_load_against_setting_an_entry() {
    Model {
        name: "load against setting an entry",
        rows: &[19],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: load_against_set,
        reaches: &["loaded", "no entry"],
        needs: &["pte.set.release", "pte.get.acquire", "access.present"],
    }
    .check();
}

/// One thread loads through an entry, which marks it accessed; one clears the entry. Claim: a cleared entry stays clear.
/// Premise: an accessed bit is set by an exchange from the present entry that was seen.
fn load_against_zap() {
    let (mm, at) = mapped_frame(Use::File, 0);
    let history = History::new(Some(OURS));
    let zapper = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call("zap", || zap(&mm, at), |byte, ()| byte.take().is_some());
        })
    };
    // While the entry changes the attempt may give up.
    history.call("load", || load(&mm, at), |byte, loaded| loaded.is_none() || loaded == byte);
    zapper.join().unwrap();
    history.settle();
    let look = || mm.pagemap(at, PAGE).unwrap()[0] != 0;
    history.call("look for the entry", look, |byte, there| *there == byte.is_some());
    history.check();
}

#[test]
fn a_cleared_entry_stays_clear() {
    Model {
        name: "accessed bit against zap",
        rows: &[55],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: load_against_zap,
        reaches: &["loaded", "no entry"],
        needs: &["pte.mark.seed.unseen", "pte.clear.mapcount"],
    }
    .check();
}

/// One thread loads through an entry; one clears the entry, frees its frame and gives it to another user. Claim: the load gets
/// our bytes. Premise: a frame whose entry was cleared is put after a grace period.
fn load_against_reuse() {
    let (mm, at) = mapped_frame(Use::File, Pte::ACCESSED);
    let history = History::new(Some(OURS));
    let zapper = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call("zap", || zap(&mm, at), |byte, ()| byte.take().is_some());
            reuse(&mm);
        })
    };
    history.call("load", || load(&mm, at), |byte, loaded| loaded == byte);
    zapper.join().unwrap();
    history.settle();
    history.call("load at rest", || load(&mm, at), |byte, loaded| loaded == byte);
    history.check();
}

#[test]
fn a_load_against_zap_and_reuse() {
    Model {
        name: "load through an entry against zap and reuse",
        rows: &[54],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: load_against_reuse,
        reaches: &["loaded", "no entry"],
        needs: &["gather.flush"],
    }
    .check();
}

/// One thread loads through an entry and looks, in the same section, how many frames are in use; one clears the entry. Claim: the
/// frame that was loaded from is in use as long as the section. Premise as above.
fn section_against_zap() {
    let (mm, at) = mapped_frame(Use::File, Pte::ACCESSED);
    let used = |mm: &Mm| mm.inner.shared.frames.usage().in_use;
    let before = used(&mm);
    let history = History::new(Some(OURS));
    let zapper = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || history.call("zap", || zap(&mm, at), |byte, ()| byte.take().is_some()))
    };
    let load = || {
        let _section = rcu::read();
        (load(&mm, at), used(&mm))
    };
    history.call("load", load, move |byte, (loaded, used)| {
        loaded == byte && (loaded.is_none() || *used == before)
    });
    zapper.join().unwrap();
    history.settle();
    history.call("frames at rest", || used(&mm), move |_, &used| used == before - 1);
    history.check();
}

#[test]
fn a_section_against_zap() {
    Model {
        name: "frame of an entry in a section against zap",
        rows: &[54],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: section_against_zap,
        reaches: &["loaded", "no entry"],
        needs: &["gather.waits_first"],
    }
    .check();
}

/// One thread stores through a writable entry; one makes it read-only and then reads the bytes twice. Claim: no store lands after
/// that. Premise: the flush of a write-protection waits for sections, like that of a zap.
fn store_against_protect(used: u64) {
    let (mm, at) = mapped_frame(Use::Private, Pte::PRIVATE | Pte::WRITE | used);
    // The byte, and whether stores are allowed.
    let history = History::new((OURS, true));
    let protecter = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            let protect = || {
                let mut gather = MmuGather::new(mm.inner.tables.frames());
                mm.inner.tables.write_protect(at, at + PAGE, &mut gather);
                gather.finish();
            };
            history.call("protect", protect, |now, ()| std::mem::replace(&mut now.1, false));
            history.call("load", || load(&mm, at), |now, byte| *byte == Some(now.0));
        })
    };
    let store = || {
        let mut write = |bytes: crate::page::PageBytes<'_>, _| bytes.write(0, &[STRANGERS; PAGE_SIZE]);
        let stored = mm.inner.through_entry(at, true, &mut write);
        reach(if stored { "stored" } else { "refused" });
        stored
    };
    history.call("store", store, |now, stored| {
        if *stored {
            now.0 = STRANGERS;
        }
        *stored == now.1
    });
    protecter.join().unwrap();
    history.settle();
    history.call("load at rest", || load(&mm, at), |now, byte| *byte == Some(now.0));
    history.check();
}

#[test]
fn big_a_store_against_protection() {
    Model {
        name: "store through an entry against write-protection",
        rows: &[53],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || store_against_protect(Pte::ACCESSED | Pte::DIRTY),
        reaches: &["stored", "refused"],
        needs: &["gather.note_change", "access.write"],
    }
    .check();
}

#[test]
fn big_a_first_store_against_protection() {
    Model {
        name: "first store through an entry against write-protection",
        rows: &[53],
        preemption_bound: Some(7),
        grace_periods: true,
        twin: false,
        body: || store_against_protect(0),
        reaches: &["stored", "refused"],
        needs: &["access.mark_first"],
    }
    .check();
}

/// One thread loads through an entry; one replaces the entry by a private copy, drops its source and reuses free frames. Claims:
/// the load gets the bytes, of the source or of the copy; each page counts the entries that map it. Premise: the source is put
/// after a grace period.
fn load_against_copy() {
    let (mm, at) = mapped_frame(Use::File, Pte::ACCESSED);
    let history = History::new(OURS);
    let copier = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call(
                "copy",
                || replace_by_copy(&mm, at),
                |_, (source, copy)| {
                    // Not mapped, and mapped by the entry.
                    (*source, *copy) == (0, 1)
                },
            );
            // What was deferred has not run: the source is not among the free frames.
            reuse(&mm);
        })
    };
    history.call("load", || load(&mm, at), |now, byte| *byte == Some(*now));
    copier.join().unwrap();
    history.settle();
    history.call("load at rest", || load(&mm, at), |now, byte| *byte == Some(*now));
    history.check();
}

/// What a store to a read-only entry does under the leaf lock; returns the map counts of source and copy afterwards.
fn replace_by_copy(mm: &Mm, at: u64) -> (u32, u32) {
    let section = rcu::read();
    let walk = mm.inner.tables.walk(at, &section).unwrap();
    let vma = mm.inner.vmas.load(&section)[0].copy();
    let fault = Fault { mm: &mm.inner, vma, address: at, index: 0, write: true, published: 0 };
    let seen = walk.get(at);
    let copy = mm.inner.shared.frames.alloc(Use::Private).expect("a frame is free");
    let (source, page) = (mm.inner.shared.frames.page(seen.pfn()), copy.page());
    let leaf = walk.lock().expect("it has an entry");
    assert!(fault.upgrade(&leaf, seen, Some(copy)), "nobody else changes the entry");
    drop(leaf);
    (source.mapcount(), page.mapcount())
}

#[test]
fn a_load_against_a_private_copy() {
    Model {
        name: "load through an entry against a private copy",
        rows: &[54],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: load_against_copy,
        reaches: &["loaded"],
        needs: &[
            "do_wp_page.copy_first",
            "do_wp_page.seed.put_at_once",
            "do_wp_page.mapcount.new",
            "do_wp_page.mapcount.old",
            "pte.replace.release",
        ],
    }
    .check();
}

/// One thread loads through an entry of a private copy; one unmaps the file's page, as reclaim and the truncation of one
/// page do. Claim: the copy is left alone. Premise: the entry says whose page it is.
fn private_copy_against_unmap() {
    let (mm, at) = mapped_frame(Use::Private, Pte::PRIVATE | Pte::WRITE | Pte::ACCESSED);
    let history = History::new(OURS);
    let unmapper = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            let vma = Arc::clone(&mm.inner.vmas.load(&rcu::read())[0]);
            let unmap = || {
                let mut gather = MmuGather::new(mm.inner.tables.frames());
                vma.unmap(0, 0, false, &mut gather);
                gather.finish();
            };
            history.call("unmap the file's page", unmap, |_, ()| true);
        })
    };
    history.call("load", || load(&mm, at), |now, byte| *byte == Some(*now));
    unmapper.join().unwrap();
    history.settle();
    history.call("load at rest", || load_byte(&mm, at), |now, byte| byte == now);
    history.check();
}

#[test]
fn private_copies_outlive_the_files_page() {
    Model {
        name: "private copy against unmapping the file's page",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: private_copy_against_unmap,
        reaches: &["loaded"],
        needs: &["zap.owner"],
    }
    .check();
}
