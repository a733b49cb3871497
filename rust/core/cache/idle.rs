//! When a worker that has nothing to do ends.
//!
//! Workers wait for work until their cache is closed. In a child of fork nobody may be there to close it: if another thread
//! than the main one forked, the process ends when its function has returned and no thread is left. So there a worker that
//! was idle for a moment ends, and the next request starts another.

use crate::sync::{Condvar, MutexGuard, process_epoch};
use std::time::{Duration, Instant};

/// How long a worker of a child is idle before it ends: a child may outlive the thread that forked by so much.
const MOMENT: Duration = Duration::from_millis(100);

/// Waits until there may be work. True: there was none for so long that the worker, unless it finds some now, should end.
pub(super) fn wait_for_work<'a, T>(work: &Condvar, guard: MutexGuard<'a, T>) -> (MutexGuard<'a, T>, bool) {
    // The first process of a family has the number 1.
    if process_epoch() <= 1 {
        return (work.wait(guard), false);
    }
    let began = Instant::now();
    let guard = work.wait_for(guard, MOMENT);
    (guard, began.elapsed() >= MOMENT)
}
