//! Starting a worker where memory may be short.
//!
//! A thread that begins takes memory before it runs a line of ours, for the C library and for Rust's, which end the process if
//! there is none. So where memory is short a worker is started only if there is room for all of that, and whoever starts it
//! waits until it has begun: what the caller takes next must not be what the new thread needs.

use crate::page::has_room;
use crate::rcu;
use crate::sync::thread;
use std::io;
use std::sync::{Arc, Barrier};

const STACK: usize = 2 << 20;
/// What a thread takes first beside its stack, with room to spare: thread-locals, a heap, an entry in lists of the C library's.
const BEGINNING: usize = 2 << 20;
/// With so much, nobody else takes what a thread needs in the time in which it begins. (glibc's heap for a thread begins as a
/// reservation of 128 MiB.)
const PLENTY: usize = 512 << 20;

/// A thread that runs `work`.
///
/// # Errors
/// As [`thread::Builder::spawn`], also where a thread would find no memory to begin with.
pub(super) fn hire(work: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    let builder = thread::Builder::new().name("specmm-io".into()).stack_size(STACK);
    if has_room(PLENTY) {
        return builder.spawn(work);
    }
    if !has_room(STACK + BEGINNING) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let begun = Arc::new(Barrier::new(2));
    let told = Arc::clone(&begun);
    let worker = builder.spawn(move || {
        // Its slot, which a section claims.
        drop(rcu::read());
        told.wait();
        drop(told);
        work();
    })?;
    begun.wait();
    Ok(worker)
}
