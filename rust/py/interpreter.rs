//! The main interpreter, the only one in which the extension module runs.
//!
//! Classes are looked up once per process, caches are closed when one interpreter ends, and workers attach to the main one:
//! objects of one interpreter would reach another.
#![allow(unsafe_code)]

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Refuses to be imported anywhere else.
pub(crate) fn require_main(_py: Python<'_>) -> PyResult<()> {
    // SAFETY: the thread is attached, so there is an interpreter that it is attached to.
    let number = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    if number == 0 { Ok(()) } else { Err(PyImportError::new_err("specmm does not run in subinterpreters")) }
}
