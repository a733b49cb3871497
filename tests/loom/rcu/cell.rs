//! Models of a cell under RCU: a thread that gets, drops or counts a value sees it whole.

use super::*;
use crate::loom_harness::Address;

/// One thread puts a new value in; one looks, then takes out what it finds and drops it. Claim: a thread that sees a value sees
/// it whole, and so does the thread that drops it.
fn replace_against_replace() {
    let cell: Slot = Arc::new(ArcCell::empty());
    let history = History::new(false);
    let other = {
        let (cell, history) = (Arc::clone(&cell), history.clone());
        spawn(move || {
            let put = || cell.replace(Some(fresh()));
            history.call("put", put, |there, was| std::mem::replace(there, true) == *was);
        })
    };
    look(&cell, &history);
    history.call("take out", || cell.replace(None), |there, was| std::mem::replace(there, false) == *was);
    synchronize();
    other.join().unwrap();
    history.check();
}

#[test]
fn a_value_is_published_whole() {
    Model {
        name: "RCU: a cell replaced by two",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: replace_against_replace,
        reaches: &["alive", "gone"],
        needs: &["rcu.cell.acquire", "rcu.cell.swap:release"],
    }
    .check();
}

/// Two threads replace the value that both expect, one of them by nothing. Claim: one of them does; who sees the new value sees it
/// whole. Premise: both keep the value that they expect.
fn replace_where_expected() {
    let first = fresh();
    let cell: Slot = Arc::new(ArcCell::new(Arc::clone(&first)));
    // Whether the first value is there, and whether any is.
    let history = History::new((true, true));
    let other = {
        let (cell, first, history) = (Arc::clone(&cell), Arc::clone(&first), history.clone());
        spawn(move || {
            let put = || cell.replace_if(&first, Some(fresh()));
            history.call("put", put, |state, put| std::mem::replace(&mut state.0, false) == *put);
        })
    };
    history.call("look", || look_inside(&cell, &read()), |state, seen| state.1 == *seen);
    let take_out = || cell.replace_if(&first, None);
    history.call("take out", take_out, |state, &out| {
        let right = std::mem::replace(&mut state.0, false) == out;
        state.1 &= !out;
        right
    });
    other.join().unwrap();
    history.settle();
    history.call("look at rest", || look_inside(&cell, &read()), |state, seen| state.1 == *seen);
    history.check();
}

#[test]
fn a_value_is_replaced_where_it_is_expected() {
    Model {
        name: "RCU: a cell replaced where two expect its value",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: replace_where_expected,
        reaches: &["alive", "gone"],
        needs: &["rcu.cell.replace_if.release", "rcu.cell.is_expected"],
    }
    .check();
}

/// Two threads fill an empty cell. Claim: one value wins, and both see it whole; the cell has the one count of it, until the cell
/// ends, and no other value has one.
fn insert_against_insert() {
    let cell: Slot = Arc::new(ArcCell::empty());
    let history = History::new(None);
    let insert = |cell: &ArcCell<Value>, history: &History<Option<Address>>| {
        let mut made = None;
        let insert = || {
            let section = read();
            let value = cell.load_or_insert(&section, || Arc::clone(made.insert(fresh())));
            value.0.assert_alive();
            Address::of(value)
        };
        history.call("insert", insert, |value, seen| *value.get_or_insert(*seen) == *seen);
        made
    };
    let other = {
        let (cell, history) = (Arc::clone(&cell), history.clone());
        spawn(move || insert(&cell, &history))
    };
    let made = [insert(&cell, &history), other.join().unwrap()];
    history.check();
    let counts = || made.iter().flatten().map(|value| Arc::strong_count(value) - 1).sum::<usize>();
    assert_eq!(counts(), 1, "counts that the cell has");
    drop(cell);
    assert_eq!(counts(), 0, "counts that nobody has");
}

/// One thread puts a value in; one takes out what it finds and drops it, and nothing else orders the two: no fence of a grace
/// period (loom's acquire fences cover more than C11's), no join. Claim: the thread that drops the value sees it whole.
fn dropped_by_another() {
    let cell: Slot = Arc::new(ArcCell::empty());
    let history = History::new(false);
    {
        let (cell, history) = (Arc::clone(&cell), history.clone());
        spawn(move || {
            let put = || cell.replace(Some(fresh()));
            history.call("put", put, |there, was| std::mem::replace(there, true) == *was);
            std::mem::forget(cell);
        });
    }
    for _ in 0..2 {
        let take_out = || cell.replace(None);
        history.call("take out", take_out, |there, was| std::mem::replace(there, false) == *was);
    }
    history.check();
    // A value that is still inside stays there: its end would not be ordered after its beginning.
    std::mem::forget(cell);
}

#[test]
fn a_value_is_dropped_whole() {
    Model {
        name: "RCU: a value dropped by another",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: dropped_by_another,
        reaches: &[],
        needs: &["rcu.cell.swap:acquire"],
    }
    .check();
}

#[test]
fn two_fill_an_empty_cell() {
    Model {
        name: "RCU: an empty cell filled by two",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: insert_against_insert,
        reaches: &[],
        needs: &["rcu.cell.insert.release", "rcu.cell.lost"],
    }
    .check();
}

/// One thread puts a value in; another takes a reference to what it finds, and uses it outside any section. Claim: a thread with
/// a reference sees the value whole.
fn counted_by_another() {
    let cell: Slot = Arc::new(ArcCell::empty());
    let history = History::new(false);
    let other = {
        let (cell, history) = (Arc::clone(&cell), history.clone());
        spawn(move || {
            let put = || cell.replace(Some(fresh()));
            history.call("put", put, |there, was| std::mem::replace(there, true) == *was);
        })
    };
    let get = || {
        let value = cell.get();
        reach(if value.is_some() { "alive" } else { "gone" });
        value.inspect(|value| value.0.assert_alive()).is_some()
    };
    history.call("get", get, |there, got| there == got);
    other.join().unwrap();
    history.check();
}

#[test]
fn a_value_is_counted_whole() {
    Model {
        name: "RCU: a value counted by another",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: counted_by_another,
        reaches: &["alive", "gone"],
        needs: &["rcu.cell.get.acquire"],
    }
    .check();
}

/// One thread counts itself in on what it finds, and keeps it; one takes the value out and, after a grace period, ends it unless
/// it was counted. Claim: what was found is alive when it is counted. Premise: the count that the cell held goes after a grace
/// period.
fn counted_against_free() {
    let cell: Slot = Arc::new(ArcCell::new(fresh()));
    // Declared dead, and never freed: a late count finds that, and not what the allocator put in its place.
    let kept = cell.get().unwrap();
    let history = History::new(true);
    let freer = {
        let (cell, history, kept) = (Arc::clone(&cell), history.clone(), Arc::clone(&kept));
        spawn(move || {
            let free = || {
                cell.replace(None);
                synchronize();
                if Arc::strong_count(&kept) == 2 {
                    kept.0.kill();
                }
            };
            history.call("free", free, |there, ()| std::mem::replace(there, false));
            std::mem::forget(kept);
        })
    };
    let get = || {
        let value = cell.get();
        reach(if value.is_some() { "alive" } else { "gone" });
        let got = value.is_some();
        if let Some(value) = value {
            value.0.assert_alive();
            std::mem::forget(value);
        }
        got
    };
    history.call("get", get, |there, got| there == got);
    freer.join().unwrap();
    history.check();
    std::mem::forget(kept);
}

#[test]
fn a_value_is_counted_inside_a_section() {
    Model {
        name: "RCU: a count against a grace period",
        rows: &[10],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: counted_against_free,
        reaches: &["alive", "gone"],
        needs: &["rcu.cell.get.one_section"],
    }
    .check();
}
