//! Memory that Python owns: what a caller gives to be filled, and what a store or a caller gives to be read.
#![allow(unsafe_code)]

use crate::args;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyMemoryView};
use specmm::Out;
use std::ffi::{CStr, c_int};
use std::ptr::NonNull;

/// A writable, contiguous buffer of plain bytes. Its exporter can neither free nor resize it while this lives.
pub(crate) struct Writable {
    /// It may point into itself.
    view: Box<ffi::Py_buffer>,
}

impl Writable {
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let target = Self::exported(object, ffi::PyBUF_CONTIG | ffi::PyBUF_FORMAT).map_err(|error| {
            // SAFETY: the object is alive.
            let has_buffer = unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) } != 0;
            if !has_buffer || Self::exported(object, ffi::PyBUF_CONTIG).is_ok() {
                return error;
            }
            let kind = args::type_name(object);
            PyTypeError::new_err(format!("buffer must be writable and contiguous: {kind} is not"))
        })?;
        let format = target.format();
        if holds_objects(format) {
            return Err(PyTypeError::new_err(format!(
                "buffer must hold no Python objects: its format is '{}'",
                format.escape_ascii()
            )));
        }
        Ok(target)
    }

    fn exported(object: &Bound<'_, PyAny>, flags: c_int) -> PyResult<Self> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: the object is alive and the view is ours to be filled. It stays where it is until it is released.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *view, flags) } != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        Ok(Self { view })
    }

    /// What its elements are, as PEP 3118 has it.
    fn format(&self) -> &[u8] {
        if self.view.format.is_null() {
            return b"B";
        }
        // SAFETY: a format is a string that lives as long as the view.
        unsafe { CStr::from_ptr(self.view.format) }.to_bytes()
    }

    /// The bytes to fill; also while detached, as with `readinto` of Python's own files.
    pub(crate) fn out(&mut self) -> Out<'_> {
        let pointer = NonNull::new(self.view.buf.cast()).unwrap_or(NonNull::dangling());
        let length = usize::try_from(self.view.len).expect("a length");
        // SAFETY: the buffer is contiguous and writable, as was asked for, and its exporter keeps it where it is while `self`
        // lives; only one of no bytes may be nowhere. A program that looks at it meanwhile gets torn bytes, as under
        // `readinto`.
        unsafe { Out::from_raw(pointer, length) }
    }
}

impl Drop for Writable {
    fn drop(&mut self) {
        // What runs here may be a finalizer of the user's.
        Python::attach(|_| {
            // SAFETY: the view was filled, and is released once.
            unsafe { ffi::PyBuffer_Release(&raw mut *self.view) }
        });
    }
}

/// Whether a format has the code of objects in it: bytes of a file would become pointers.
fn holds_objects(format: &[u8]) -> bool {
    let mut is_name = false;
    let mut before = 0;
    for &code in format {
        match code {
            b':' => is_name = !is_name,
            // After an order of bytes comes a code, whatever a name before it may look like.
            b'O' if !is_name || b"@=<>!^".contains(&before) => return true,
            _ => {}
        }
        before = code;
    }
    false
}

/// The bytes of a bytes-like object: those of `bytes` themselves, of anything else a copy that nobody changes.
pub(crate) fn bytes_of(object: &Bound<'_, PyAny>) -> PyResult<PyBackedBytes> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(bytes.clone().into());
    }
    let copy = PyMemoryView::from(object)?.call_method0("tobytes")?;
    Ok(copy.cast_into::<PyBytes>()?.into())
}
