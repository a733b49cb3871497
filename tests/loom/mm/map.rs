//! Models of `mmap` against what may run beside it: a truncation of the file, faults, other changes of the mappings.

use super::*;

/// An address space without mappings where tables exist already, and a file of one cached page.
pub(super) fn unmapped() -> (Mm, File) {
    let (mm, file, at) = one_page(Prot::Read, true);
    mm.munmap(at, PAGE).unwrap();
    rcu::model::drain();
    mm.inner.tables.walk_alloc(at, &rcu::read()).expect("memory");
    (mm, file)
}

pub(super) fn map(mm: &Mm, file: &File) -> u64 {
    mm.mmap(file, Some(PAGE), 0, Prot::Read, true).unwrap()
}

/// One thread maps a file, one faults where it is mapped and then truncates the file to nothing. Claims: the fault finds the
/// mapping or none; no entry is left. Premise: a mapping is on its file's list before a fault can find it.
fn map_against_truncate() {
    let (mm, file) = unmapped();
    // Whether the place is mapped, whether its page is cached, whether it has an entry.
    let history = History::new((false, true, false));
    let mapper = {
        let (mm, file, history) = (mm.clone(), file.clone(), history.clone());
        spawn(move || {
            history.call(
                "mmap",
                || map(&mm, &file),
                |state, at| *at == 0 && !std::mem::replace(&mut state.0, true),
            );
        })
    };
    let fault = || attempt(&mm, 0, false).is_ok();
    history.call("fault", fault, |state, &set| {
        state.2 |= set;
        !set || (state.0 && state.1)
    });
    let truncate = || file.open_file().unwrap().mapping.shrink_pages(0);
    history.call("truncate", truncate, |state, ()| {
        (state.1, state.2) = (false, false);
        true
    });
    mapper.join().unwrap();
    history.settle();
    let entry = || mm.pagemap(0, PAGE).unwrap() != [0];
    history.call("look for the entry", entry, |state, seen| state.2 == *seen);
    history.check();
    assert_eq!(mm.inner.shared.frames.usage().in_use, 0);
}

#[test]
fn big_mapping_against_truncate() {
    Model {
        name: "mmap against a fault and truncate",
        rows: &[20],
        preemption_bound: Some(8),
        grace_periods: false,
        twin: false,
        body: map_against_truncate,
        reaches: &["commit", "ODD", "UNMAPPED", "VMA_COPY"],
        needs: &["mmap.link_first"],
    }
    .check();
}

/// One thread maps a file, one faults there on the classic path. Claim: the fault finds the mapping or none.
fn map_against_classic_fault() {
    let (mm, file) = unmapped();
    let history = History::new(Place { mapped: false, entry: false });
    let mapper = {
        let (mm, file, history) = (mm.clone(), file.clone(), history.clone());
        spawn(move || {
            history.call(
                "mmap",
                || map(&mm, &file),
                |place, at| *at == 0 && !std::mem::replace(&mut place.mapped, true),
            );
        })
    };
    let fault = || {
        let failed = classic(&mm, 0, false).has(VmFault::ERROR);
        reach(if failed { "failed" } else { "mapped" });
        !failed
    };
    history.call("fault", fault, |place, mapped| {
        place.entry |= mapped;
        *mapped == place.mapped
    });
    mapper.join().unwrap();
    look(&history, &mm, 0);
    drop(file);
}

#[test]
fn mapping_against_a_classic_fault() {
    Model {
        name: "mmap against a classic fault",
        rows: &[45],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: map_against_classic_fault,
        reaches: &["failed", "mapped"],
        needs: &["rwsem.unlock_write.release"],
    }
    .check();
}

/// Two threads map a file. Claim: each gets a range of its own, the lowest that is free.
fn map_against_map() {
    let (mm, file) = unmapped();
    let history = History::new(0_u64);
    let next = |mapped: &mut u64, at: &u64| *at == std::mem::replace(mapped, *mapped + 1) * PAGE;
    let other = {
        let (mm, file, history) = (mm.clone(), file.clone(), history.clone());
        spawn(move || {
            history.call("mmap", || map(&mm, &file), next);
        })
    };
    let map = || {
        let at = map(&mm, &file);
        reach(if at == 0 { "the first" } else { "the second" });
        at
    };
    history.call("mmap", map, next);
    other.join().unwrap();
    history.settle();
    let mappings = || mm.inner.vmas.load(&rcu::read()).len() as u64;
    history.call("count the mappings", mappings, |mapped, seen| seen == mapped);
    history.check();
}

#[test]
fn big_mapping_against_mapping() {
    Model {
        name: "mmap against mmap",
        rows: &[2],
        preemption_bound: Some(6),
        grace_periods: false,
        twin: false,
        body: map_against_map,
        reaches: &["the first", "the second"],
        needs: &["mmap_lock.seed.unlock_first", "rwsem.write.acquire"],
    }
    .check();
}

/// One thread unmaps a page that has an entry, one maps the file again and faults there. Claims: the second mapping gets a range
/// that is free; its entry stays, even where the first one's was. Premise: munmap clears entries before another writer is let in.
fn map_against_unmap() {
    let (mm, file, at) = one_page(Prot::Read, true);
    attempt(&mm, at, false).unwrap();
    // Whether the lower page is mapped.
    let history = History::new(true);
    let unmapper = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call(
                "munmap",
                || mm.munmap(at, PAGE).unwrap(),
                |lower, ()| std::mem::replace(lower, false),
            );
        })
    };
    let again = || {
        let again = map(&mm, &file);
        reach(if again == at { "the same" } else { "another" });
        assert!(!classic(&mm, again, false).has(VmFault::ERROR));
        again
    };
    let again = history.ask("mmap", again, move |lower, &again| again == if *lower { at + PAGE } else { at });
    unmapper.join().unwrap();
    history.settle();
    let look = || mm.pagemap(at, 2 * PAGE).unwrap();
    history.call("look for the entries", look, move |_, seen| {
        *seen == [u8::from(again == at), u8::from(again != at)]
    });
    history.check();
    let page = cached_page(&mm);
    assert_eq!((page.mapcount(), page.refcount()), (1, 2), "{page:?}");
}

#[test]
fn big_mapping_against_munmap() {
    Model {
        name: "mmap and a fault against munmap",
        rows: &[45],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: map_against_unmap,
        reaches: &["the same", "another"],
        needs: &["leaf.lock.current", "zap.empty"],
    }
    .check();
}
