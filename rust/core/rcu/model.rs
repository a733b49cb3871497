//! What the model checker sets: most models leave RCU out and drop deferred work at their end.
//!
//! Owns: whether sections and grace periods are explored, and the work that is kept back if they are not; both per OS thread,
//! which runs one model at a time.

use super::deferred::Work;
use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;

std::thread_local! {
    static REAL: Cell<bool> = const { Cell::new(false) };
    // Never dropped with the thread: after an execution that failed, the memory that this would free is gone with it.
    static KEPT: RefCell<ManuallyDrop<Vec<Work>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

/// Whether sections and grace periods are explored.
pub fn set_real(real: bool) {
    REAL.with(|cell| cell.set(real));
}

pub(super) fn is_real() -> bool {
    REAL.with(Cell::get)
}

pub(super) fn keep(work: Work) {
    KEPT.with(|kept| kept.borrow_mut().push(work));
}

/// Runs the work kept back, at the end of an execution.
pub fn drain() {
    for work in take() {
        work.run();
    }
}

/// Leaks the work kept back by an execution that failed.
pub fn forget() {
    std::mem::forget(take());
}

fn take() -> Vec<Work> {
    KEPT.with(|kept| std::mem::take(&mut **kept.borrow_mut()))
}
