//! Models of RCU itself: here sections and grace periods are explored, with full fences in place of membarrier.

use super::{ArcCell, call_rcu, read, synchronize};
use crate::loom_harness::{History, Model, reach, spawn};
use crate::sync::LifeCell;
use std::sync::Arc;

struct Value(LifeCell);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// One thread reads a value in a section; one replaces it and waits a grace period. Claim: the value is alive wherever the
/// reader looks at it, and its death is ordered after the section. Premise: membarrier is a full fence on every running
/// thread.
fn reader_against_free() {
    let cell = Arc::new(ArcCell::new(Arc::new(Value(LifeCell::new()))));
    let history = History::new(true);
    let freer = {
        let (cell, history) = (Arc::clone(&cell), history.clone());
        spawn(move || {
            let free = || {
                cell.replace(None);
                synchronize();
            };
            history.call("free", free, |there, ()| std::mem::replace(there, false));
        })
    };
    let look = || {
        let section = read();
        let value = cell.load(&section);
        if let Some(value) = value {
            reach("alive");
            value.0.assert_alive();
        } else {
            reach("gone");
        }
        value.is_some()
    };
    history.call("look", look, |there, seen| there == seen);
    freer.join().unwrap();
    history.check();
    call_rcu(|| ());
    synchronize();
}

#[test]
fn a_section_against_a_grace_period() {
    Model {
        name: "RCU: a section against a grace period",
        rows: &[10],
        preemption_bound: None,
        grace_periods: true,
        twin: true,
        body: reader_against_free,
        reaches: &["alive", "gone"],
        needs: &["rcu.light", "rcu.heavy", "rcu.scan.waits", "rcu.exit.release", "rcu.scan.again.acquire"],
    }
    .check();
}
