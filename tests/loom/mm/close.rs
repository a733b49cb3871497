//! Models of the end of an address space against calls in flight.

use super::map::unmapped;
use super::*;
use crate::error::Error;
use crate::page::Use;

/// After `close` nothing is mapped, and only the cache has the page.
fn nothing_is_left(mm: &Mm) {
    assert!(mm.inner.vmas.load(&rcu::read()).is_empty(), "a mapping is left");
    rcu::model::drain();
    let page = cached_page(mm);
    assert_eq!((page.mapcount(), page.refcount()), (0, 1), "{page:?}");
}

/// One thread maps a file, one closes the address space. Claim: it ends empty. Premise: the flag is set before everything is
/// unmapped, and looked at under the lock.
fn close_against_map() {
    let (mm, file) = unmapped();
    let history = History::new(true);
    let closer = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call("close", || mm.close().unwrap(), |open, ()| std::mem::replace(open, false));
        })
    };
    let map = || match mm.mmap(&file, Some(PAGE), 0, Prot::Read, true) {
        Ok(_) => {
            reach("mapped");
            true
        }
        Err(Error::Closed(_)) => {
            reach("closed");
            false
        }
        Err(error) => panic!("{error}"),
    };
    history.call("mmap", map, |open, mapped| mapped == open);
    closer.join().unwrap();
    history.check();
    nothing_is_left(&mm);
}

#[test]
fn big_closing_against_mmap() {
    Model {
        name: "close against mmap",
        rows: &[13],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: close_against_map,
        reaches: &["mapped", "closed"],
        needs: &["mmap.open_inside", "mm.close.flag_first"],
    }
    .check();
}

/// One thread unmaps the only mapping, one closes the address space. Claim: either there is something to unmap, or the address
/// space is closed. Premise: the flag is set before everything is unmapped.
fn close_against_unmapping() {
    let (mm, file, at) = one_page(Prot::Read, true);
    let history = History::new(true);
    let closer = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call("close", || mm.close().unwrap(), |open, ()| std::mem::replace(open, false));
        })
    };
    let unmap = || match mm.munmap(at, PAGE) {
        Ok(()) => {
            reach("unmapped");
            true
        }
        Err(Error::Closed(_)) => {
            reach("closed");
            false
        }
        Err(error) => panic!("{error}"),
    };
    history.call("munmap", unmap, |open, unmapped| unmapped == open);
    closer.join().unwrap();
    history.check();
    nothing_is_left(&mm);
    drop(file);
}

#[test]
fn closing_against_munmap() {
    Model {
        name: "close against munmap",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: close_against_unmapping,
        reaches: &["unmapped", "closed"],
        needs: &["mm.closed_meanwhile"],
    }
    .check();
}

/// One thread faults, one closes the address space. Claims: the fault ends, with SIGSEGV only once the address space is closed;
/// nothing is left.
fn close_against_fault(fault: fn(&Mm, u64) -> VmFault) {
    let (mm, file, at) = one_page(Prot::Read, true);
    let history = History::new(true);
    let closer = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call("close", || mm.close().unwrap(), |open, ()| std::mem::replace(open, false));
        })
    };
    let end = || {
        let result = fault(&mm, at);
        reach(if result.has(VmFault::ERROR) { "failed" } else { "mapped" });
        result.bits() & VmFault::ERROR.bits()
    };
    history.call("fault", end, |open, &error| error == if *open { 0 } else { VmFault::SIGSEGV.bits() });
    closer.join().unwrap();
    history.check();
    nothing_is_left(&mm);
    drop(file);
}

#[test]
fn closing_against_a_classic_fault() {
    Model {
        name: "close against a classic fault",
        rows: &[45],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || close_against_fault(|mm, at| classic(mm, at, false)),
        reaches: &["mapped", "failed"],
        needs: &["munmap.seed.detach_late", "rwsem.downgrade.release"],
    }
    .check();
}

#[test]
fn big_closing_against_a_fault() {
    Model {
        name: "close against a fault",
        rows: &[9, 44, 45],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: || close_against_fault(|mm, at| mm.fault(at, false).result),
        reaches: &["mapped", "failed"],
        needs: &["pte_map_lock.seq2", "munmap.seed.detach_late"],
    }
    .check();
}

/// One thread loads through an entry, one closes the address space, the last user of the file, and gives the frame to another
/// user. Claims: the load gets the file's byte or an error; the page is free when `close` has returned. Premise: it waits for a
/// grace period.
fn close_against_load() {
    let (mm, file, at) = one_page(Prot::Read, true);
    attempt(&mm, at, false).unwrap();
    drop(file);
    let history = History::new(true);
    let closer = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            let close = || {
                mm.close().unwrap();
                mm.inner.shared.frames.usage().in_use
            };
            history.call("close", close, |open, &used| used == 0 && std::mem::replace(open, false));
            let strangers = mm.inner.shared.frames.alloc(Use::File).expect("all are free");
            strangers.page().bytes().write(0, &[0x55; PAGE_SIZE]);
        })
    };
    let load = || {
        let mut byte = [0];
        let loaded = mm.inner.through_entry(at, false, &mut |bytes, within| bytes.read(within, &mut byte));
        reach(if loaded { "loaded" } else { "no entry" });
        loaded.then_some(byte[0])
    };
    history.call("load", load, |open, byte| *byte == open.then_some(0xAA));
    closer.join().unwrap();
    history.check();
}

#[test]
fn closing_against_a_load() {
    Model {
        name: "close against a load",
        rows: &[13, 54],
        preemption_bound: Some(6),
        grace_periods: true,
        twin: false,
        body: close_against_load,
        reaches: &["loaded", "no entry"],
        needs: &["rcu.scan.waits"],
    }
    .check();
}

/// One thread drops the last handle of an address space, one truncates the file to nothing. Claim: nothing is left of either.
/// Premise: a mapping is on its file's list as long as it may have entries.
fn end_against_truncate(end: fn(Mm)) {
    let (mm, file, at) = one_page(Prot::Read, true);
    attempt(&mm, at, false).unwrap();
    let shared = Arc::clone(&mm.inner.shared);
    let open = file.open_file().unwrap();
    drop(file);
    let history = History::new(true);
    let ender = {
        let history = history.clone();
        spawn(move || {
            history.call("end", || end(mm), |_, ()| true);
        })
    };
    history.call("truncate", || open.mapping.shrink_pages(0), |cached, ()| std::mem::replace(cached, false));
    ender.join().unwrap();
    history.settle();
    rcu::model::drain();
    history.call(
        "count the frames",
        || shared.frames.usage().in_use,
        |cached, used| *used == usize::from(*cached),
    );
    history.check();
    assert_eq!(Arc::strong_count(&open), 1, "the file has another user");
    assert_eq!(shared.page_tables.get(), 0, "a table is left");
}

#[test]
fn big_the_end_against_truncate() {
    Model {
        name: "end of an address space against truncate",
        rows: &[20],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: || end_against_truncate(drop),
        reaches: &[],
        needs: &["munmap.seed.unlink_first"],
    }
    .check();
}
