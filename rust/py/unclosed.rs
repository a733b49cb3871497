//! The warning that a file was never closed, as Python's own files give it.
#![allow(unsafe_code)]

use crate::args;
use crate::imported::Imported;
use pyo3::exceptions::PyResourceWarning;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set where nothing needs to be closed any more. Relaxed: it orders nothing.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Says that this process exits, or is a child of a fork, and leaves what it has to its end.
pub(crate) fn stop_warning() {
    SILENT.store(true, Ordering::Relaxed);
}

/// Warns of something that goes without having been closed.
///
/// `level`: how many frames up the line is that lets go of it.
pub(crate) fn warn(source: &Bound<'_, PyAny>, level: u32) {
    static WARN: Imported = Imported::new("warnings", "warn");
    let py = source.py();
    if SILENT.load(Ordering::Relaxed) {
        return;
    }
    // It may go while an exception is on its way.
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
