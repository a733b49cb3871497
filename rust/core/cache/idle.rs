//! When an idle worker ends.
//!
//! Workers wait for work until their cache is closed. In a forked child, there may be nothing left to close it: if a thread other
//! than the main one forked, the process ends when that thread's function has returned and no thread is left. So in a child, a
//! worker that was idle for a moment ends, and the next request starts another.

use crate::sync::{Condvar, Instant, MutexGuard, process_epoch};
use std::time::Duration;

/// How long a child's worker is idle before it ends, and so how much longer than the forking thread a child may live.
const MOMENT: Duration = Duration::from_millis(100);

/// Waits until there may be work. True: there was none for so long that the worker should end, unless it finds some now.
pub(super) fn wait_for_work<'a, T>(work: &Condvar, guard: MutexGuard<'a, T>) -> (MutexGuard<'a, T>, bool) {
    // The first process has epoch 1.
    if process_epoch() <= 1 {
        return (work.wait(guard), false);
    }
    let began = Instant::now();
    let guard = work.wait_for(guard, MOMENT);
    (guard, began.elapsed() >= MOMENT)
}
