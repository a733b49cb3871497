//! Names that a model must reach in some execution.

use std::cell::RefCell;
use std::collections::BTreeMap;

std::thread_local! {
    static REACHED: RefCell<BTreeMap<String, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// This execution has reached `name`.
pub fn reach(point: impl ToString) {
    REACHED.with(|reached| *reached.borrow_mut().entry(point.to_string()).or_default() += 1);
}

/// Takes the names reached since the last call.
pub fn take() -> BTreeMap<String, u64> {
    REACHED.with(|reached| std::mem::take(&mut *reached.borrow_mut()))
}
