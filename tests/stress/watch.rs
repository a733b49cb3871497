//! Tells `ThreadSanitizer` about fences, which it does not know. Compiled only for `tools/tsan`.
//!
//! The sanitizer ignores fences, and the standard library's `Arc` (as our page count) puts a reference by a Release decrement and
//! the last one passes an Acquire fence. So a decrement that reached zero is remembered, and an Acquire fence that follows it on
//! the same thread acquires that word: the edge that the language gives, and no other. A decrement without Release, or a missing
//! fence, is still reported (`--plant count`, `--plant fence`). The linker's `--wrap` brings both calls here.
#![allow(unsafe_code, reason = "the sanitizer's own interface")]

use std::cell::Cell;
use std::ffi::{c_int, c_void};

unsafe extern "C" {
    fn __real___tsan_atomic64_fetch_sub(word: *mut u64, value: u64, order: c_int) -> u64;
    fn __real___tsan_atomic_thread_fence(order: c_int);
    fn __tsan_acquire(word: *mut c_void);
}

thread_local! {
    static LAST: Cell<*mut u64> = const { Cell::new(std::ptr::null_mut()) };
}

/// The sanitizer's number for a relaxed order; then consume, acquire, release, both, sequentially consistent.
const RELAXED: c_int = 0;
const RELEASE: c_int = 3;

#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___tsan_atomic64_fetch_sub(word: *mut u64, value: u64, order: c_int) -> u64 {
    // SAFETY: passed on unchanged.
    let before = unsafe { __real___tsan_atomic64_fetch_sub(word, value, order) };
    LAST.set(if before == value { word } else { std::ptr::null_mut() });
    before
}

#[unsafe(no_mangle)]
extern "C" fn __wrap___tsan_atomic_thread_fence(order: c_int) {
    // SAFETY: passed on unchanged.
    unsafe { __real___tsan_atomic_thread_fence(order) };
    let last = LAST.replace(std::ptr::null_mut());
    if order != RELAXED && order != RELEASE && !last.is_null() {
        // SAFETY: only the address is looked up; nothing is read through it.
        unsafe { __tsan_acquire(last.cast()) };
    }
}
