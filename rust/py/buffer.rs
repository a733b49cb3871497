//! Memory that Python owns: what a caller gives to be filled, and what a store or a caller gives to be read.
#![allow(unsafe_code)]

use crate::args;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyMemoryView};

/// A writable, contiguous buffer. Its exporter can neither free nor resize it while this lives.
pub(crate) struct Writable(PyUntypedBuffer);

impl Writable {
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(object)?;
        if buffer.readonly() || !buffer.is_c_contiguous() {
            let kind = args::type_name(object);
            return Err(PyTypeError::new_err(format!(
                "buffer must be writable and contiguous: {kind} is not"
            )));
        }
        Ok(Self(buffer))
    }

    /// The bytes to fill; also while detached, as with `readinto` of Python's own files.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let length = self.0.len_bytes();
        if length == 0 {
            return &mut [];
        }
        // SAFETY: the buffer is contiguous, writable and pinned by its exporter while `self` lives, and `&mut self`
        // makes this the only slice from here. Python's contract for a buffer under `readinto` is that nobody else
        // touches it; a program that does gets torn bytes.
        unsafe { std::slice::from_raw_parts_mut(self.0.buf_ptr().cast(), length) }
    }
}

/// The bytes of a bytes-like object: those of `bytes` themselves, of anything else a copy that nobody changes.
pub(crate) fn bytes_of(object: &Bound<'_, PyAny>) -> PyResult<PyBackedBytes> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(bytes.clone().into());
    }
    let copy = PyMemoryView::from(object)?.call_method0("tobytes")?;
    Ok(copy.cast_into::<PyBytes>()?.into())
}
