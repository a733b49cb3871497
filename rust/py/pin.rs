//! `specmm.Pinned`: bytes of one page as a read-only buffer.
#![allow(unsafe_code)]

use crate::caller::CacheId;
use crate::file::File;
use crate::later;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of one page that do not change while this lives: a snapshot.
#[pyclass(module = "specmm", frozen, weakref)]
pub(crate) struct Pinned {
    /// None once it is released.
    pin: Mutex<Option<specmm::Pinned>>,
    /// Views of it that are alive. Relaxed: it changes and is read attached, and once more under the mutex.
    exports: AtomicUsize,
    offset: u64,
    length: usize,
    cache: CacheId,
    /// A file that is pinned stays open.
    file: Py<File>,
}

impl Pinned {
    pub(crate) fn new(pin: specmm::Pinned, offset: u64, cache: CacheId, file: Py<File>) -> Self {
        let length = pin.len();
        Self { pin: Mutex::new(Some(pin)), exports: AtomicUsize::new(0), offset, length, cache, file }
    }

    fn end(&self, py: Python<'_>, pin: Option<specmm::Pinned>) {
        if self.cache.is_ours() {
            py.detach(|| drop(pin));
            later::give_back(py);
        } else {
            // That frame is the parent's.
            std::mem::forget(pin);
        }
    }

    fn pin(&self) -> MutexGuard<'_, Option<specmm::Pinned>> {
        self.pin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Pinned {
    /// Where the bytes begin in the file.
    #[getter]
    fn offset(&self) -> u64 {
        self.offset
    }

    /// The file.
    #[getter]
    fn file(&self, py: Python<'_>) -> Py<File> {
        self.file.clone_ref(py)
    }

    /// Whether `release` was called.
    #[getter]
    fn released(&self) -> bool {
        self.pin().is_none()
    }

    /// Ends the pin; `BufferError` while views of it live. Twice is no error.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        let mut pin = self.pin();
        let views = self.exports.load(Ordering::Relaxed);
        if views > 0 {
            return Err(PyBufferError::new_err(format!("{views} views of the pin are still in use")));
        }
        let ended = pin.take();
        drop(pin);
        self.end(py, ended);
        Ok(())
    }

    fn __len__(&self) -> usize {
        self.length
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exc_info), text_signature = "($self, *exc_info)")]
    fn __exit__(&self, py: Python<'_>, _exc_info: &Bound<'_, PyAny>) -> PyResult<()> {
        self.release(py)
    }

    /// # Safety
    /// Called by the interpreter with a view to fill, as its buffer protocol says.
    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let guard = this.pin();
        let Some(pin) = guard.as_ref() else {
            return Err(PyValueError::new_err("the pin is released"));
        };
        if !this.cache.is_ours() {
            return Err(PyBufferError::new_err(
                "the pin belongs to the parent process: pin again in this one",
            ));
        }
        // SAFETY: `view` is the interpreter's to be filled. The bytes stay where and what they are while the pin lives,
        // which the view keeps: it holds a reference to this object, and `release` refuses while it is counted.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                pin.as_ptr().cast_mut().cast(),
                pin.len().try_into()?,
                1,
                flags,
            )
        };
        if filled != 0 {
            return Err(PyErr::fetch(slf.py()));
        }
        this.exports.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// # Safety
    /// Called by the interpreter with a view that `__getbuffer__` filled.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.exports.fetch_sub(1, Ordering::Relaxed);
    }

    fn __repr__(&self) -> String {
        let state = if self.pin().is_none() { ", released" } else { "" };
        format!("<specmm.Pinned {} bytes at {}{state}>", self.length, self.offset)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let pin = self.pin().take();
        // Without an interpreter to attach to, the closure is dropped, and what it holds with it.
        if self.cache.is_ours() {
            Python::try_attach(move |py| self.end(py, pin));
        } else {
            std::mem::forget(pin);
        }
    }
}
