//! Names that a model must reach in some execution.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

std::thread_local! {
    static REACHED: RefCell<BTreeMap<String, u64>> = const { RefCell::new(BTreeMap::new()) };
    static THIS_TIME: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

pub(super) fn begin_execution() {
    THIS_TIME.with(|reached| reached.borrow_mut().clear());
}

/// This execution has reached `name`.
pub fn reach(point: impl ToString) {
    let point = point.to_string();
    if THIS_TIME.with(|reached| reached.borrow_mut().insert(point.clone())) {
        REACHED.with(|reached| *reached.borrow_mut().entry(point).or_default() += 1);
    }
}

/// Takes the names reached since the last call, each with the number of executions that reached it.
pub fn take() -> BTreeMap<String, u64> {
    REACHED.with(|reached| std::mem::take(&mut *reached.borrow_mut()))
}
