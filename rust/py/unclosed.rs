//! The warning that a file was never closed, as for Python's own files.
#![allow(unsafe_code)]

use crate::args;
use crate::imported::Imported;
use pyo3::exceptions::PyResourceWarning;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once nothing needs to be closed any more. Relaxed: it orders nothing.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Notes that this process exits or is a forked child, so that nothing needs to be closed.
pub(crate) fn stop_warning() {
    SILENT.store(true, Ordering::Relaxed);
}

/// Warns about an object that is dropped without having been closed.
///
/// `level`: how many frames up the line is that drops it.
pub(crate) fn warn(source: &Bound<'_, PyAny>, level: u32) {
    static WARN: Imported = Imported::new("warnings", "warn");
    let py = source.py();
    if SILENT.load(Ordering::Relaxed) {
        return;
    }
    // It may be dropped while an exception is being raised.
    let (mut kind, mut value, mut trace) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    // SAFETY: attached; the three are ours to be filled.
    unsafe { ffi::PyErr_Fetch(&raw mut kind, &raw mut value, &raw mut trace) };
    let message = format!("unclosed file {}", args::repr(source));
    let category = py.get_type::<PyResourceWarning>();
    if let Err(error) = WARN.call(py, (message, category, level, source)) {
        error.write_unraisable(py, Some(source));
    }
    // SAFETY: attached; the three are what was fetched, and are given back once.
    unsafe { ffi::PyErr_Restore(kind, value, trace) };
}
