//! Starting a worker when memory may be short.
//!
//! Before a new thread runs any code of this crate, the C library and Rust's standard library allocate memory for it, and end the
//! process if there is none. So when memory is short, a worker is started only if there is room for all of that, and the caller
//! waits until the worker has begun, lest the caller's next allocation take the memory that the thread needs.

use crate::page::has_room;
use crate::rcu;
use crate::sync::thread;
use std::io;
use std::sync::{Arc, Barrier};

const STACK: usize = 2 << 20;
/// Generous estimate of a new thread's first allocations beside its stack: thread-locals, a heap, entries in the C library's
/// lists.
const BEGINNING: usize = 2 << 20;
/// With this much free, other threads cannot use up the memory a new thread needs while it begins. (glibc's heap for a thread
/// starts as a reservation of 128 MiB.)
const PLENTY: usize = 512 << 20;

/// Starts a thread that runs `work`.
///
/// # Errors
/// As [`thread::Builder::spawn`], and also if there is not enough memory for a thread to begin.
pub(super) fn hire(work: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    let builder = thread::Builder::new().name("specmm-io".into()).stack_size(STACK);
    if has_room(PLENTY) {
        return builder.spawn(work);
    }
    if !has_room(STACK + BEGINNING) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    begin(builder, work)
}

/// Starts a thread and waits until it has begun.
fn begin(
    builder: thread::Builder,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    let begun = Arc::new(Barrier::new(2));
    let told = Arc::clone(&begun);
    let worker = builder.spawn(move || {
        // Claims the thread's slot, as any read section does.
        drop(rcu::read());
        told.wait();
        drop(told);
        work();
    })?;
    begun.wait();
    Ok(worker)
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::sync::Tally;

    #[test]
    fn who_is_hired_works_with_much_memory_and_with_little() {
        let done = Arc::new(Tally::new());
        for number in 1..=10 {
            let told = Arc::clone(&done);
            let work = move || told.add(1);
            let worker = if number % 2 == 0 { hire(work) } else { begin(thread::Builder::new(), work) };
            worker.unwrap().join().unwrap();
            assert_eq!(done.tallied(), number);
        }
    }
}
