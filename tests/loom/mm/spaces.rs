//! Models of two address spaces that map one file: whoever takes a page out of the cache unmaps it in both.

use super::*;
use crate::cache::models::shrink;

/// Two address spaces that map a file's only page, where tables exist; the first has an entry that no program has used since
/// reclaim last looked.
fn two_spaces() -> ([Mm; 2], File, u64) {
    let (mm, file, at) = one_page(Prot::Read, true);
    attempt(&mm, at, false).unwrap();
    assert_eq!(mm.inner.tables.test_and_clear_young(at, at + PAGE), 1);
    let other = Mm::over(Arc::clone(&mm.inner.shared), mm.inner.options).unwrap();
    assert_eq!(other.mmap(&file, Some(PAGE), 0, Prot::Read, true).unwrap(), at);
    other.inner.tables.walk_alloc(at, &rcu::read()).expect("memory");
    ([mm, other], file, at)
}

/// Whether the page is cached, and whether each address space has an entry.
type Fate = (bool, [bool; 2]);

fn fault(history: &History<Fate>, mm: &Mm, at: u64) {
    let fault = || attempt(mm, at, false).is_ok();
    history.call("fault in the second", fault, |(cached, entries), &set| {
        entries[1] |= set;
        !set || *cached
    });
}

/// The entries, which the specification must agree with at rest.
fn look_at_both(history: &History<Fate>, spaces: &[Mm; 2], at: u64) {
    history.settle();
    let look = || spaces.each_ref().map(|mm| mm.pagemap(at, PAGE).unwrap() != [0]);
    history.call("look for the entries", look, |(_, entries), seen| entries == seen);
    history.check();
}

/// One thread faults in one address space while the other has an entry, one truncates the file to nothing. Claim: no entry is left
/// in either.
fn against_truncate() {
    let (spaces, file, at) = two_spaces();
    let history = History::new((true, [true, false]));
    let truncater = {
        let (file, history) = (file.open_file().unwrap(), history.clone());
        spawn(move || {
            let truncate = || file.mapping.shrink_pages(0);
            history.call("truncate", truncate, |fate, ()| std::mem::take(fate).0);
        })
    };
    fault(&history, &spaces[1], at);
    truncater.join().unwrap();
    look_at_both(&history, &spaces, at);
    assert_eq!(spaces[0].inner.shared.frames.usage().in_use, 0);
}

#[test]
fn big_two_spaces_against_truncate() {
    Model {
        name: "two address spaces against truncate",
        rows: &[18, 20],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: against_truncate,
        reaches: &["commit", "FILE_MISS", "FILE_LOCKED", "FILE_MAPPING"],
        needs: &["truncate.unmap_locked"],
    }
    .check();
}

/// One thread faults in one address space while the other has an entry, one reclaims the page. Claim: a page that was reclaimed has
/// an entry in neither; one that was kept is counted as often as it is mapped.
fn against_reclaim() {
    let (spaces, file, at) = two_spaces();
    let history = History::new((true, [true, false]));
    let reclaimer = {
        let (mm, history) = (spaces[0].clone(), history.clone());
        spawn(move || {
            // The entry of the first goes even if the page stays, because the other has a reference.
            let reclaim = || (shrink(&mm.inner.shared), mm.pagemap(at, PAGE).unwrap() != [0]);
            history.call("reclaim", reclaim, |fate, &(freed, entry)| {
                fate.1[0] = entry;
                !freed || std::mem::take(fate).0
            });
        })
    };
    fault(&history, &spaces[1], at);
    reclaimer.join().unwrap();
    look_at_both(&history, &spaces, at);
    if file.residency(0, None).unwrap() != [0] {
        let page = cached_page(&spaces[0]);
        assert_eq!(page.refcount(), 1 + page.mapcount(), "{page:?}");
    }
}

#[test]
fn big_two_spaces_against_reclaim() {
    Model {
        name: "two address spaces against reclaim",
        rows: &[18, 25],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: against_reclaim,
        reaches: &["commit", "FILE_MISS", "FILE_LOCKED", "freed", "kept"],
        needs: &["remove_mapping.clear_mapping"],
    }
    .check();
}
