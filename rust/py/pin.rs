//! `specmm.Pinned`: bytes of one page as a read-only buffer.
#![allow(unsafe_code)]

use crate::caller::CacheId;
use crate::file::File;
use crate::later;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

// A pointer to it is used and freed on any thread.
const _: fn() = || {
    fn may_be_anywhere<T: Send + Sync>() {}
    may_be_anywhere::<specmm::Pinned>();
};

/// A value of `views` that is not a count.
const RELEASED: usize = usize::MAX;

/// Bytes of one page that do not change while this lives: a snapshot.
///
/// There is no lock: raising an exception may run a finalizer, which may come back here.
#[pyclass(module = "specmm", frozen, weakref)]
pub(crate) struct Pinned {
    /// Null once it is released. Whoever is counted in `views` may follow it; whoever set `views` to `RELEASED` takes it.
    pin: AtomicPtr<specmm::Pinned>,
    /// Live views of it, or `RELEASED`. Its acquire and release order what was done through the pin before its end.
    views: AtomicUsize,
    offset: u64,
    length: usize,
    cache: CacheId,
    /// A file that is pinned stays open.
    file: Py<File>,
}

impl Pinned {
    pub(crate) fn new(pin: specmm::Pinned, offset: u64, cache: CacheId, file: Py<File>) -> Self {
        let length = pin.len();
        let pin = AtomicPtr::new(Box::into_raw(Box::new(pin)));
        Self { pin, views: AtomicUsize::new(0), offset, length, cache, file }
    }

    fn end(&self, py: Python<'_>, pin: Box<specmm::Pinned>) {
        if self.cache.is_ours() {
            py.detach(|| drop(pin));
            later::give_back(py);
        } else {
            // The frame is the parent's.
            std::mem::forget(pin);
        }
    }

    /// Takes the pin, for the one who set `views` to `RELEASED` or owns `self`.
    fn take(&self) -> Option<Box<specmm::Pinned>> {
        let pin = NonNull::new(self.pin.swap(ptr::null_mut(), Ordering::Relaxed))?;
        // SAFETY: it came from a box, and whoever swaps it out is its only owner.
        Some(unsafe { Box::from_raw(pin.as_ptr()) })
    }

    /// Counts one more view, unless it is released.
    fn add_view(&self) -> bool {
        let more = |views| if views == RELEASED { None } else { Some(views + 1) };
        self.views.fetch_update(Ordering::Acquire, Ordering::Relaxed, more).is_ok()
    }

    fn remove_view(&self) {
        self.views.fetch_sub(1, Ordering::Release);
    }

    fn is_released(&self) -> bool {
        self.views.load(Ordering::Relaxed) == RELEASED
    }
}

#[pymethods]
impl Pinned {
    /// Offset of the bytes in the file.
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
        self.is_released()
    }

    /// Ends the pin; `BufferError` while views of it live. May be called twice.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        match self.views.compare_exchange(0, RELEASED, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => {
                if let Some(pin) = self.take() {
                    self.end(py, pin);
                }
                Ok(())
            }
            Err(RELEASED) => Ok(()),
            Err(views) => Err(PyBufferError::new_err(format!("{views} views of the pin are still in use"))),
        }
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
        // SAFETY: `view` is the interpreter's to be filled; this says that it is not, until it is.
        unsafe { (*view).obj = ptr::null_mut() };
        if this.is_released() {
            return Err(PyValueError::new_err("the pin is released"));
        }
        if !this.cache.is_ours() {
            return Err(PyBufferError::new_err(
                "the pin belongs to the parent process: pin again in this one",
            ));
        }
        // Before anything that may run Python code, which could release it.
        if !this.add_view() {
            return Err(PyValueError::new_err("the pin is released"));
        }
        // SAFETY: the pin is not taken while a view counts.
        let bytes = unsafe { &*this.pin.load(Ordering::Relaxed) };
        let length = bytes.len().try_into().expect("a page's");
        // SAFETY: `view` is the interpreter's to be filled. The bytes stay where and what they are while the pin lives,
        // which the view keeps: it holds a reference to this object, and `release` refuses while it is counted.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), bytes.as_ptr().cast_mut().cast(), length, 1, flags)
        };
        if filled != 0 {
            this.remove_view();
            return Err(PyErr::fetch(slf.py()));
        }
        Ok(())
    }

    /// # Safety
    /// Called by the interpreter with a view that `__getbuffer__` filled.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.remove_view();
    }

    fn __repr__(&self) -> String {
        let state = if self.is_released() { ", released" } else { "" };
        format!("<specmm.Pinned {} bytes at {}{state}>", self.length, self.offset)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let Some(pin) = self.take() else { return };
        // Without an interpreter to attach to, the closure is dropped together with what it holds.
        if self.cache.is_ours() {
            Python::try_attach(move |py| self.end(py, pin));
        } else {
            std::mem::forget(pin);
        }
    }
}
