//! May fault-around map pages with no page lock?
//!
//! In December 2020 Linus Torvalds argued that it may, under the leaf lock: raise the page's mapcount, then see the page
//! unlocked, then see its mapping still set; a truncation that locks the page later must see the mapcount, and then block on
//! the leaf lock inside its unmap. In September 2020 Matthew Wilcox had found a hole in holding the `i_mmap` lock instead.
//! docs/open-question.md has both messages and the results.
//!
//! Here one thread maps a page that it has found (it holds a reference) by one of these protocols, and one takes the page out of
//! the cache: lock, unmap if the mapcount is raised, clear slot and mapping, unlock. Claim, row 20 of docs/invariants.md: when
//! both are done, a page without a mapping has no entry. All functions called are those that ship, composed as the protocol
//! prescribes; only the order of the checks and the full fences, which the shipped code does not need, belong to the model.

use super::models::{PAGE, cached_page, one_page};
use super::{Mm, Prot};
use crate::cache::File;
use crate::cache::models::{take_out, under_i_mmap, unmap_page};
use crate::loom_harness::{Failure, History, Model, reach, spawn};
use crate::page::{PageFlags, PageHandle};
use crate::rcu;
use crate::sync::model::{Pass, full_fence};
use std::sync::Arc;

/// What fault-around does before it sets an entry, under the leaf lock.
#[derive(Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is a step that a protocol has or has not")]
struct Protocol {
    /// Tries the page lock and keeps it until the entry is set.
    page_lock: bool,
    /// Holds the lock of the file's list of mappings throughout.
    i_mmap: bool,
    /// Raises the mapcount before it looks, not after.
    counts_first: bool,
    looks_at_lock: bool,
    looks_at_mapping: bool,
    /// A full fence between raising the mapcount and checking the page.
    mapper_fence: bool,
    /// A full fence between locking the page and reading the mapcount.
    truncater_fence: bool,
    /// The truncating thread asserts that a page that it has unmapped under the page lock is not mapped, as Linux does ("still
    /// mapped when deleted").
    truncater_asserts: bool,
}

/// The protocol that ships (and that of Linux 5.12).
const PAGE_LOCK: Protocol = Protocol {
    page_lock: true,
    i_mmap: false,
    counts_first: false,
    looks_at_lock: false,
    looks_at_mapping: true,
    mapper_fence: false,
    truncater_fence: false,
    truncater_asserts: true,
};
const I_MMAP: Protocol = Protocol { page_lock: false, i_mmap: true, truncater_asserts: false, ..PAGE_LOCK };
const I_MMAP_AND_LOOK: Protocol = Protocol { looks_at_lock: true, ..I_MMAP };
/// As argued, with the meaning of "then" made explicit.
const MAPCOUNT: Protocol = Protocol {
    page_lock: false,
    i_mmap: false,
    counts_first: true,
    looks_at_lock: true,
    looks_at_mapping: true,
    mapper_fence: true,
    truncater_fence: true,
    truncater_asserts: false,
};
const MAPCOUNT_ASSERTED: Protocol = Protocol { truncater_asserts: true, ..MAPCOUNT };
const NO_MAPPER_FENCE: Protocol = Protocol { mapper_fence: false, ..MAPCOUNT };
const NO_TRUNCATER_FENCE: Protocol = Protocol { truncater_fence: false, ..MAPCOUNT };
const LOOKS_FIRST: Protocol = Protocol { counts_first: false, ..MAPCOUNT };
const NO_LOOK_AT_LOCK: Protocol = Protocol { looks_at_lock: false, ..MAPCOUNT };
const NO_LOOK_AT_MAPPING: Protocol = Protocol { looks_at_mapping: false, ..MAPCOUNT };

/// The state of the page: whether the file still has it, and how many entries map it.
#[derive(Debug, Clone, Copy)]
struct Fate {
    cached: bool,
    entries: usize,
}

/// Maps the page at `at` if the protocol lets it.
fn map_around(mm: &Mm, at: u64, protocol: Protocol, handle: PageHandle<'_>) -> bool {
    let section = rcu::read();
    let vma = mm.inner.vmas.load(&section)[0].copy();
    let mapping = &vma.file().mapping;
    let walk = mm.inner.tables.walk(at, &section).unwrap();
    let body = || {
        let page = handle.page();
        let locked = walk.lock().expect("a leaf that nobody has emptied");
        let lock = protocol.page_lock.then(|| page.try_lock());
        if let Some(None) = lock {
            return false;
        }
        if protocol.counts_first {
            page.add_mapping();
        }
        if protocol.mapper_fence {
            full_fence();
        }
        let may = !(protocol.looks_at_lock && page.flags().has(PageFlags::LOCKED))
            && (!protocol.looks_at_mapping || page.is_at(mapping.id(), 0));
        if may {
            locked.set(at, handle, 0);
        }
        if protocol.counts_first {
            // The entry has its own count now, or there is none.
            page.remove_mapping();
        }
        drop(lock);
        may
    };
    let mapped = if protocol.i_mmap { under_i_mmap(mapping, body) } else { body() };
    reach(if mapped { "mapped" } else { "skipped" });
    mapped
}

/// Takes the page out of its file, as truncation does with each page and reclaim with one that is mapped. Returns whether it
/// would report the page as still mapped.
fn take_page_out(mm: &Mm, file: &File, pfn: u32, protocol: Protocol) -> bool {
    let open = file.open_file().unwrap();
    let page = mm.inner.shared.frames.page(pfn);
    let _found = page.get(); // dropped after the lock
    let lock = page.lock();
    if protocol.truncater_fence {
        full_fence();
    }
    if page.mapcount() != 0 {
        reach("unmapped");
        unmap_page(&open.mapping, 0);
    }
    let alarm = protocol.truncater_asserts && page.mapcount() != 0;
    take_out(&open.mapping, &lock);
    alarm
}

fn race(protocol: Protocol) {
    race_with(protocol, 1);
}

/// One page, mapped by `mappers` address spaces of which each has its thread, and taken out by one more thread.
fn race_with(protocol: Protocol, mappers: usize) {
    let (mm, file, at) = one_page(Prot::Read, true);
    let mut spaces = vec![(mm.clone(), at)];
    for _ in 1..mappers {
        let other = Mm::over(Arc::clone(&mm.inner.shared), mm.inner.options).unwrap();
        let at = other.mmap(&file, Some(PAGE), 0, Prot::Read, true).unwrap();
        other.inner.tables.walk_alloc(at, &rcu::read()).expect("memory");
        spaces.push((other, at));
    }
    let frames = &mm.inner.shared.frames;
    let page = cached_page(&mm);
    let pfn = page.pfn();
    let found = || page.get().into_pfn(); // the reference of whoever found it
    let history = History::new(Fate { cached: true, entries: 0 });
    let map = move |mm: &Mm, at, pfn, history: &History<Fate>| {
        let map = || map_around(mm, at, protocol, mm.inner.shared.frames.page(pfn).adopt());
        history.call("map around", map, |fate, &mapped| {
            fate.entries += usize::from(mapped);
            !mapped || fate.cached
        });
    };
    let mut others = Vec::new();
    for (mm, at) in spaces[1..].iter().cloned() {
        let (pfn, history) = (found(), history.clone());
        others.push(spawn(move || map(&mm, at, pfn, &history)));
    }
    let first = found();
    let truncater = {
        let (mm, file, history) = (mm.clone(), file.clone(), history.clone());
        spawn(move || {
            history.call(
                "take out",
                || take_page_out(&mm, &file, pfn, protocol),
                |fate, &alarm| {
                    *fate = Fate { cached: false, entries: 0 };
                    !alarm
                },
            );
        })
    };
    map(&mm, at, first, &history);
    for other in others {
        other.join().unwrap();
    }
    truncater.join().unwrap();
    history.settle();
    let entries = || spaces.iter().filter(|(mm, at)| mm.pagemap(*at, PAGE).unwrap() != [0]).count();
    history.call("count the entries", entries, |fate, entries| fate.entries == *entries);
    history.check();
    assert_eq!(frames.page(pfn).mapcount(), 0);
}

fn model(name: &'static str, body: fn()) -> Model {
    Model {
        name,
        rows: &[20],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body,
        reaches: &["mapped", "skipped", "unmapped"],
        needs: &[],
    }
}

/// How each pass ends: the executions of a whole exploration, or the number of the one that fails.
fn verdicts(name: &'static str, body: fn(), off: Option<&str>) -> Vec<(Pass, Result<u64, Failure>)> {
    let verdicts: Vec<_> =
        Pass::ALL.into_iter().map(|pass| (pass, model(name, body).verdict(pass, off))).collect();
    for (pass, verdict) in &verdicts {
        match verdict {
            Ok(executions) => {
                println!("open question | {name} | pass {pass:?} | holds in {executions} executions");
            }
            Err(failure) => {
                println!("open question | {name} | pass {pass:?} | fails in execution {}", failure.execution);
                println!("    {}", failure.why.lines().next().unwrap_or_default());
            }
        }
    }
    // A failure without stale reads is the easiest to follow.
    let failures = |(pass, verdict): &'_ (Pass, Result<u64, Failure>)| match verdict {
        Err(failure) => Some((*pass, failure.steps.clone())),
        Ok(_) => None,
    };
    let mut failures: Vec<_> = verdicts.iter().filter_map(failures).collect();
    failures.sort_by_key(|(pass, _)| *pass != Pass::B);
    if let Some((pass, steps)) = failures.first() {
        println!("open question | {name} | the steps of pass {pass:?}:");
        for step in steps.iter().skip_while(|step| !step.contains("begins")) {
            println!("    {step}");
        }
    }
    verdicts
}

fn fails_in(name: &'static str, body: fn(), off: Option<&str>) -> Vec<Pass> {
    verdicts(name, body, off)
        .into_iter()
        .filter(|(_, verdict)| verdict.is_err())
        .map(|(pass, _)| pass)
        .collect()
}

#[test]
fn the_page_lock_suffices() {
    Model { needs: &["pte.set.mapcount"], ..model("open question: page lock", || race(PAGE_LOCK)) }.check();
}

#[test]
fn the_mapcount_suffices_with_two_full_fences() {
    Model { needs: &["page.flags.acquire"], ..model("open question: mapcount", || race(MAPCOUNT)) }.check();
}

/// Two address spaces map the page while it is taken out: a mapcount that the other mapper has raised for a moment.
#[test]
fn big_the_mapcount_suffices_for_two_mappers() {
    let body = || race_with(MAPCOUNT, 2);
    let needs = &["page.flags.acquire", "pte.clear.mapcount"];
    Model { preemption_bound: Some(2), needs, ..model("open question: mapcount, two mappers", body) }.check();
}

/// The mapcount is then no longer the number of entries: a thread that has unmapped a page under its lock may still see it
/// raised.
#[test]
fn a_raised_mapcount_alarms_the_truncater() {
    assert_eq!(fails_in("mapcount, asserted zero", || race(MAPCOUNT_ASSERTED), None), Pass::ALL);
}

#[test]
fn the_i_mmap_lock_does_not_suffice() {
    assert_eq!(fails_in("i_mmap lock", || race(I_MMAP), None), Pass::ALL);
    assert_eq!(
        fails_in("i_mmap lock and a look at the page lock", || race(I_MMAP_AND_LOOK), None),
        Pass::ALL
    );
}

#[test]
fn the_mapcount_needs_every_look_and_both_fences() {
    const STALE: [Pass; 3] = [Pass::A, Pass::C, Pass::StaleCas];
    assert_eq!(fails_in("mapcount raised after the looks", || race(LOOKS_FIRST), None), Pass::ALL);
    assert_eq!(fails_in("mapcount, no look at the page lock", || race(NO_LOOK_AT_LOCK), None), Pass::ALL);
    assert_eq!(fails_in("mapcount, no look at the mapping", || race(NO_LOOK_AT_MAPPING), None), Pass::ALL);
    assert_eq!(fails_in("mapcount, no fence in the mapper", || race(NO_MAPPER_FENCE), None), STALE);
    assert_eq!(fails_in("mapcount, no fence in the truncater", || race(NO_TRUNCATER_FENCE), None), STALE);
    let off = Some("page.flags.acquire");
    assert_eq!(fails_in("mapcount, flags read relaxed", || race(MAPCOUNT), off), STALE);
}
