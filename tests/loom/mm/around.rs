//! Models of fault-around: its borders, and two of them in one table.

use super::*;

/// Two threads fault with fault-around in neighbouring tables of a mapping that is shorter than its file and whose first page
/// is not cached. Claim: what is mapped around a fault lies in its table, its mapping and its file, each page at its address.
fn around_borders() {
    let (mm, file, at) = around(4 * PAGE, 3, 4, 1, Prot::Read, true);
    let history = History::new([READY; 2]);
    let other = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call(
                "fault in the second table",
                || attempt(&mm, at + 2 * PAGE, false),
                |places, result| attempt_is_right(&mut places[1], result),
            );
        })
    };
    history.call(
        "fault in the first table",
        || attempt(&mm, at + PAGE, false),
        |places, result| attempt_is_right(&mut places[0], result),
    );
    other.join().unwrap();
    history.settle();
    history.call(
        "look for the entries",
        || mm.pagemap(at + PAGE, 2 * PAGE).unwrap(),
        |places, seen| (0..2).all(|at| !places[at].entry || seen[at] != 0),
    );
    history.check();
    entries_are_right(&mm, 3);
    drop((mm, file));
}

#[test]
fn big_fault_around_keeps_within_its_borders() {
    Model {
        name: "two fault-arounds at borders",
        rows: &[38, 39],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: around_borders,
        reaches: &["twin"],
        needs: &["map_pages.seed.below_table", "map_pages.seed.beyond_vma", "map_pages.seed.beyond_table"],
    }
    .check();
}

/// Two threads fault with fault-around on two pages of one table. Claims: each entry is set once and owns one reference.
fn around_twins() {
    let (mm, file, at) = around(2 * PAGE, 2, 2, 0, Prot::Read, true);
    let history = History::new([READY; 2]);
    let other = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            history.call(
                "fault on the second",
                || attempt(&mm, at + PAGE, false),
                |places, result| attempt_is_right(&mut places[1], result),
            );
        })
    };
    history.call(
        "fault on the first",
        || attempt(&mm, at, false),
        |places, result| attempt_is_right(&mut places[0], result),
    );
    other.join().unwrap();
    history.settle();
    history.call(
        "look for the entries",
        || mm.pagemap(at, 2 * PAGE).unwrap(),
        |places, seen| (0..2).all(|at| !places[at].entry || seen[at] != 0),
    );
    history.check();
    entries_are_right(&mm, 2);
    for pfn in 0..FRAMES {
        let page = mm.inner.shared.frames.page(pfn);
        assert!(!page.is_cached() || page.refcount() == 1 + page.mapcount(), "{page:?}");
    }
    drop((mm, file));
}

#[test]
fn big_two_fault_arounds() {
    Model {
        name: "two fault-arounds in one table",
        rows: &[24, 44],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: around_twins,
        reaches: &["twin", "FILE_LOCKED"],
        needs: &["map_pages.pte_none"],
    }
    .check();
}
