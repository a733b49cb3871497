//! Threads and processes of the operating system: where each thread's context is, and what announces its end.
//!
//! The end is announced by a key of `pthread_key_create`, whose destructors run after those of thread-locals of Rust and C++.
//! Code that runs after it, or begins in the last of the rounds in which these destructors run, is late.

use super::context::Context;
use super::slots::{Slot, Slots};
use super::{AtomicU64, Ordering, wiped};
use std::ffi::c_void;
use std::os::unix::thread::JoinHandleExt;
use std::ptr::NonNull;

pub(crate) use super::wiped::epoch;

static SLOTS: Slots = Slots::new();

pub(crate) fn slots() -> &'static Slots {
    &SLOTS
}

static NOBODYS: Slot = Slot::nobodys();

#[inline]
pub(crate) fn nobodys_slot() -> &'static Slot {
    &NOBODYS
}

thread_local! {
    static CONTEXT: Context = const { Context::new(&NOBODYS) };
}

#[inline]
pub(crate) fn with_context<R>(work: impl FnOnce(&Context) -> R) -> R {
    CONTEXT.with(work)
}

#[inline]
pub(crate) fn thread_number() -> Option<usize> {
    CONTEXT.with(Context::number)
}

/// The lowest slot that is free.
pub(crate) fn first_look() -> usize {
    0
}

pub(crate) fn chunk_of_slots(length: usize) -> Option<*mut Slot> {
    // Zeroed slots are free, with no thread inside.
    wiped::map(length * size_of::<Slot>(), wipe_slots).map(|start| start.as_ptr().cast())
}

/// # Safety
/// They were made by [`chunk_of_slots`] with this length, and no other thread has their address.
pub(crate) unsafe fn drop_chunk_of_slots(slots: *mut Slot, length: usize) {
    if let Some(start) = NonNull::new(slots.cast()) {
        wiped::unmap(start, length * size_of::<Slot>());
    }
}

extern "C" fn wipe_slots() {
    SLOTS.wipe();
}

/// The key, plus one; 0 before there is one. Relaxed: a key is a number.
static KEY: AtomicU64 = AtomicU64::new(0);

/// Arranges that the context is told of the thread's end. False: that is impossible.
#[cold]
pub(crate) fn announces_end() -> bool {
    let Some(key) = key() else { return false };
    // Any value but null makes the destructor run.
    let value = (&raw const KEY).cast();
    // SAFETY: the key has not been deleted.
    unsafe { libc::pthread_setspecific(key, value) == 0 }
}

fn key() -> Option<libc::pthread_key_t> {
    let known = |key: u64| libc::pthread_key_t::try_from(key - 1).ok();
    let key = KEY.load(Ordering::Relaxed);
    if key != 0 {
        return known(key);
    }
    let mut fresh = 0;
    // SAFETY: the destructor may be called on any thread at its end.
    if unsafe { libc::pthread_key_create(&raw mut fresh, Some(thread_ends)) } != 0 {
        return None;
    }
    match KEY.compare_exchange(0, u64::from(fresh) + 1, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => Some(fresh),
        Err(faster) => {
            // SAFETY: it has not been used.
            unsafe { libc::pthread_key_delete(fresh) };
            known(faster)
        }
    }
}

/// Whether the calling thread is the one that this handle denotes. (The standard library cannot tell for a thread whose end has
/// begun.)
pub(crate) fn is_this_thread<T>(thread: &std::thread::JoinHandle<T>) -> bool {
    // SAFETY: it only returns a number.
    thread.as_pthread_t() == unsafe { libc::pthread_self() }
}

extern "C" fn thread_ends(_: *mut c_void) {
    CONTEXT.with(Context::end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rcu;
    use std::cell::{Cell, RefCell};
    use std::sync::{Mutex, OnceLock};

    type Claims = Mutex<Vec<(&'static Slot, u64)>>;

    thread_local! {
        /// Where this thread's claims are noted; without a destructor, as it is used to the very end.
        static CLAIMS: Cell<Option<&'static Claims>> = const { Cell::new(None) };
    }

    fn note_claim() {
        if let Some(claims) = CLAIMS.get() {
            let claim = with_context(|thread| (thread.slot_of_section().unwrap(), thread.ticket()));
            claims.lock().unwrap().push(claim);
        }
    }

    fn section_and_number() {
        let outer = rcu::read();
        note_claim();
        assert!(thread_number().is_some());
        drop(rcu::read());
        drop(outer);
        let _counted = thread_number();
    }

    /// A destructor of C code. It is run again until it has run `rounds` times, and works in the last of these.
    fn in_round(rounds: usize, work: Box<dyn FnOnce()>) {
        static ROUND_KEY: OnceLock<libc::pthread_key_t> = OnceLock::new();
        type Value = (usize, Box<dyn FnOnce()>);
        extern "C" fn come(value: *mut c_void) {
            // SAFETY: made by `set`, and the system hands it out once.
            let (rounds, work) = *unsafe { Box::from_raw(value.cast::<Value>()) };
            if rounds > 1 { set(rounds - 1, work) } else { work() }
        }
        fn set(rounds: usize, work: Box<dyn FnOnce()>) {
            let value: *mut Value = Box::into_raw(Box::new((rounds, work)));
            // SAFETY: the key has not been deleted.
            assert_eq!(unsafe { libc::pthread_setspecific(*ROUND_KEY.get().unwrap(), value.cast()) }, 0);
        }
        ROUND_KEY.get_or_init(|| {
            // The destructors of a round run in the order of their keys: ours must be first.
            section_and_number();
            let mut key = 0;
            // SAFETY: the destructor takes what `set` gives.
            assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(come)) }, 0);
            key
        });
        set(rounds, work);
    }

    struct AtTheEnd(fn());

    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    thread_local! {
        static BEFORE: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) };
        static AFTER: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) };
    }

    /// How many of the slots that a thread claims while it does `work`, and afterwards, are not given back.
    fn slots_kept_by(work: impl FnOnce() + Send + 'static) -> usize {
        let claims = Box::into_raw(Box::new(Claims::default()));
        // SAFETY: not freed before the thread has ended.
        let noted: &'static Claims = unsafe { &*claims };
        std::thread::spawn(move || {
            CLAIMS.set(Some(noted));
            work();
        })
        .join()
        .unwrap();
        rcu::synchronize();
        // SAFETY: made above, and the thread has ended.
        let claims = unsafe { Box::from_raw(claims) }.into_inner().unwrap();
        claims.iter().filter(|(slot, ticket)| slot.is_owned_by(*ticket)).count()
    }

    /// Every order in which a thread's sections, its thread-locals and the destructors of C code can run.
    #[test]
    fn slots_come_back_whenever_the_last_section_was() {
        for first_section in [false, true] {
            for local in [0, 1, 2] {
                for round in 0..=4 {
                    let kept = slots_kept_by(move || {
                        if local == 1 {
                            BEFORE.set(Some(AtTheEnd(section_and_number)));
                        }
                        if first_section {
                            section_and_number();
                        }
                        if local == 2 {
                            AFTER.set(Some(AtTheEnd(section_and_number)));
                        }
                        if round > 0 {
                            in_round(round, Box::new(section_and_number));
                        }
                    });
                    // Nothing runs after the last round that could report a first section in it.
                    let untold = !first_section && local == 0 && round == 4;
                    assert_eq!(kept, usize::from(untold), "{first_section} {local} {round}");
                }
            }
        }
    }

    #[test]
    fn a_section_may_be_open_when_the_end_is_announced() {
        for round in 1..=3 {
            let kept = slots_kept_by(move || {
                let open = rcu::read();
                note_claim();
                in_round(round, Box::new(move || drop(open)));
            });
            assert_eq!(kept, 0, "{round}");
        }
    }

    #[test]
    fn numbers_are_low_and_one_thread_s_at_a_time() {
        const THREADS: usize = 300;
        let barrier = std::sync::Barrier::new(THREADS);
        let numbers = Mutex::new(std::collections::BTreeSet::new());
        for _ in 0..2 {
            numbers.lock().unwrap().clear();
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        section_and_number();
                        let number = thread_number().expect("a slot");
                        assert!(numbers.lock().unwrap().insert(number), "two threads are number {number}");
                        barrier.wait();
                    });
                }
            });
            // Other tests run beside this one.
            let greatest = *numbers.lock().unwrap().last().unwrap();
            assert!(greatest < 2 * THREADS + 64, "{greatest}");
        }
    }
}
