//! Threads of a model: their numbers, their contexts and slots, and where each looks for a slot first.

use super::super::context::Context;
pub(crate) use super::super::slots::boxed::{chunk_of_slots, drop_chunk_of_slots};
use super::super::slots::{Slot, Slots};
pub(crate) use loom::thread::ThreadId;
use loom::{lazy_static, thread, thread_local};
use std::cell::Cell;

std::thread_local! {
    static NEXT_THREAD: Cell<usize> = const { Cell::new(0) };
}

pub(super) fn begin_execution() {
    NEXT_THREAD.with(|cell| cell.set(0));
    ALIVE.set(1);
    EPOCH.set(1);
    set_claims_meet(false);
    set_first_chunk(ALL_THREADS);
    set_ends_are_told(true);
}

std::thread_local! {
    static ALIVE: Cell<usize> = const { Cell::new(1) };
    static MOST_ALIVE: Cell<usize> = const { Cell::new(1) };
}

/// Called first in every pass.
pub fn begin_pass() {
    MOST_ALIVE.set(1);
}

/// The most threads that were alive at once in this pass.
pub fn most_alive() -> usize {
    MOST_ALIVE.get()
}

/// What a thread runs that is about to be spawned: it counts as alive until it ends.
pub fn counted<T>(body: impl FnOnce() -> T) -> impl FnOnce() -> T {
    ALIVE.set(ALIVE.get() + 1);
    MOST_ALIVE.set(MOST_ALIVE.get().max(ALIVE.get()));
    move || {
        let answer = body();
        ALIVE.set(ALIVE.get() - 1);
        answer
    }
}

/// Starts a thread of the core ([`thread::Builder`]).
#[derive(Debug)]
pub struct Builder(thread::Builder);

#[allow(missing_docs, reason = "each method is the standard one of that name")]
#[allow(clippy::new_without_default, reason = "as what ships")]
impl Builder {
    #[must_use]
    pub fn new() -> Self {
        Self(thread::Builder::new())
    }
    #[must_use]
    pub fn name(self, name: String) -> Self {
        Self(self.0.name(name))
    }
    #[must_use]
    pub fn stack_size(self, size: usize) -> Self {
        Self(self.0.stack_size(size))
    }
    pub fn spawn<T: Send + 'static>(
        self,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<thread::JoinHandle<T>> {
        self.0.spawn(counted(body))
    }
}

/// A number for each model thread.
pub(crate) fn thread_index() -> usize {
    thread_local! {
        static INDEX: usize = NEXT_THREAD.with(|next| next.replace(next.get() + 1));
    }
    INDEX.with(|index| *index)
}

/// The calling thread of the model.
pub(crate) fn this_thread() -> ThreadId {
    loom::thread::current().id()
}

thread_local! {
    static CONTEXT: Context = Context::new(&NOBODYS);
}
lazy_static! {
    static ref SLOTS: Slots = Slots::new();
    static ref NOBODYS: Slot = Slot::nobodys();
}

pub(crate) fn slots() -> &'static Slots {
    &SLOTS
}

pub(crate) fn nobodys_slot() -> &'static Slot {
    &NOBODYS
}

pub(crate) fn with_context<R>(work: impl FnOnce(&Context) -> R) -> R {
    CONTEXT.with(work)
}

/// The number is for counters, which the checker does not see; it does see claims.
#[allow(clippy::unnecessary_wraps, reason = "as what ships")]
pub(crate) fn thread_number() -> Option<usize> {
    Some(thread_index())
}

/// Whether the calling thread is the one that this handle denotes.
pub(crate) fn is_this_thread<T>(handle: &thread::JoinHandle<T>) -> bool {
    handle.thread().id() == thread::current().id()
}

std::thread_local! {
    static ENDS_ARE_TOLD: Cell<bool> = const { Cell::new(true) };
}

/// Whether threads can be told of their end, until the execution ends.
pub fn set_ends_are_told(told: bool) {
    ENDS_ARE_TOLD.set(told);
}

/// A test's threads end when the test says so ([`Context::end`]).
pub(crate) fn announces_end() -> bool {
    ENDS_ARE_TOLD.get()
}

std::thread_local! {
    static EPOCH: Cell<u64> = const { Cell::new(1) };
}

/// As if the process were a child of a fork.
pub fn become_a_child() {
    EPOCH.set(2);
}

pub(crate) fn epoch() -> u64 {
    EPOCH.get()
}

/// Loom has five threads at most.
const ALL_THREADS: usize = 5;

std::thread_local! {
    static FIRST_CHUNK: Cell<usize> = const { Cell::new(ALL_THREADS) };
}

/// How many slots the first chunk has, until the execution ends: with less than all threads need, there are several chunks.
pub fn set_first_chunk(slots: usize) {
    FIRST_CHUNK.with(|cell| cell.set(slots));
}

pub(crate) fn first_chunk() -> usize {
    FIRST_CHUNK.with(Cell::get)
}

std::thread_local! {
    static FIRST_LOOK_IS_THE_SAME: Cell<bool> = const { Cell::new(false) };
}

/// Whether all threads search for a slot from the first one on, as in the code that ships, or each from a different one: then
/// claims do not collide, which keeps models small that are not about claims.
pub fn set_claims_meet(meet: bool) {
    FIRST_LOOK_IS_THE_SAME.with(|cell| cell.set(meet));
}

pub(crate) fn first_look() -> usize {
    if FIRST_LOOK_IS_THE_SAME.with(Cell::get) { 0 } else { thread_index() }
}
