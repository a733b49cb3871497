//! SIGBUS as an error: if the file behind a real mapping is made shorter, the run must end, not the process.
//!
//! While a [`Guard`] lives, a thread that is inside [`Guard::watch`] and touches a page that the file has lost finds a page of
//! zeros there instead, and `watch` reports it. Every other SIGBUS goes to the handler that was there before.

use crate::page::PAGE_SIZE;
use crate::sync::PerProcess;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::cell::Cell;
use std::ffi::c_void;
use std::mem::zeroed;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering, compiler_fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

thread_local! {
    /// The page that this thread is touching; 0 outside of `watch`.
    static TOUCHING: Cell<usize> = const { Cell::new(0) };
    /// Whether that touch met SIGBUS.
    static MET: Cell<bool> = const { Cell::new(false) };
}

/// Guards that live now; the handler is installed while there are any. A forked child has none of its parent's.
static GUARDS: PerProcess<Mutex<usize>> = PerProcess::new(|| Mutex::new(0));
/// What handled SIGBUS before the guards that live now. Each is leaked: the handler may be reading it at any time.
static BEFORE: AtomicPtr<libc::sigaction> = AtomicPtr::new(null_mut());

/// Makes SIGBUS an error in the threads that use [`Guard::watch`].
#[derive(Debug)]
pub(super) struct Guard {
    /// Those of the process that made this one.
    guards: &'static Mutex<usize>,
}

impl Guard {
    pub(super) fn new() -> Self {
        let of_this_process = GUARDS.get();
        let mut guards = lock(of_this_process);
        *guards += 1;
        if *guards == 1 {
            // SAFETY: all zeros is a valid sigaction: no flags, an empty mask.
            let (mut action, mut before): (libc::sigaction, libc::sigaction) = unsafe { zeroed() };
            // SAFETY: the pointer is to a sigaction; so in what follows.
            unsafe { libc::sigaction(libc::SIGBUS, null(), &raw mut before) };
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            // A forked child may find the one that its parent installed, and `BEFORE` is its as well.
            if before.sa_sigaction != action.sa_sigaction {
                // Pairs with the Acquire in `restore`.
                BEFORE.store(Box::into_raw(Box::new(before)), Ordering::Release);
            }
            // SAFETY: `handle` makes only async-signal-safe calls.
            unsafe { libc::sigaction(libc::SIGBUS, &raw const action, null_mut()) };
        }
        Self { guards: of_this_process }
    }

    /// Runs `touch`, which accesses one byte at `address`. False: there was no page, and the access met zeros.
    #[inline]
    #[allow(clippy::unused_self, reason = "a guard must live")]
    pub(super) fn watch(&self, address: usize, touch: impl FnOnce()) -> bool {
        TOUCHING.set(address & !(PAGE_SIZE - 1));
        // The handler runs on this thread: the compiler must write what it reads beforehand, and read what it writes afterwards.
        compiler_fence(Ordering::SeqCst);
        touch();
        compiler_fence(Ordering::SeqCst);
        TOUCHING.set(0);
        !MET.replace(false)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // What a forked child drops of its parent's is not counted there, and another thread of the parent may hold that lock.
        if !std::ptr::eq(self.guards, GUARDS.get()) {
            return;
        }
        let mut guards = lock(self.guards);
        *guards -= 1;
        if *guards == 0 {
            restore();
        }
    }
}

fn lock(guards: &Mutex<usize>) -> MutexGuard<'_, usize> {
    guards.lock().unwrap_or_else(PoisonError::into_inner)
}

fn restore() {
    // Pairs with the Release in `new`.
    let before = BEFORE.load(Ordering::Acquire);
    if !before.is_null() {
        // SAFETY: leaked in `new`, with the contents that the system returned.
        unsafe { libc::sigaction(libc::SIGBUS, before, null_mut()) };
    }
}

extern "C" fn handle(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the system passes a valid siginfo, and SIGBUS has an address.
    let page = unsafe { (*info).si_addr() } as usize & !(PAGE_SIZE - 1);
    if page == 0 || TOUCHING.get() != page {
        // Not ours: the access is repeated and meets the previous handler.
        restore();
        return;
    }
    MET.set(true);
    let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED);
    // SAFETY: the page lies in a mapping of ours that this thread is touching, and no reference to its bytes exists.
    let mapped = unsafe { mmap_anonymous(page as *mut c_void, PAGE_SIZE, prot, flags) };
    if mapped.is_err() {
        restore();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn a_child_does_not_count_down_what_it_inherits() {
        let guard = Guard::new();
        // SAFETY: the child takes no lock that another thread may hold, and leaves by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let counted = catch_unwind(|| {
                drop(guard);
                let own = Guard::new();
                let counted = *lock(GUARDS.get());
                drop(own);
                counted
            });
            // SAFETY: it ends the process.
            unsafe { libc::_exit(i32::from(!matches!(counted, Ok(1)))) }
        }
        let mut status = -1;
        // SAFETY: the pointer is to an int.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status}");
        assert!(*lock(guard.guards) >= 1, "the parent's still lives");
    }
}
