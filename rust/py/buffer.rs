//! Memory that Python owns: buffers to fill, and buffers to read from.
#![allow(unsafe_code)]

use crate::args;
use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use specmm::Out;
use std::ffi::{CStr, c_char, c_int};
use std::ptr::NonNull;

/// The order of elements in C, as `PyBuffer_IsContiguous` names it: 'C'.
const ROW_MAJOR: c_char = 67;

/// A buffer of plain bytes. Its exporter can neither free nor resize it while this lives.
struct View {
    /// It may point into itself.
    view: Box<ffi::Py_buffer>,
}

impl View {
    /// A buffer without Python objects, as far as its exporter tells. `told`: flags of a request for it with its format; `plain`:
    /// of one without.
    fn of_plain_bytes(object: &Bound<'_, PyAny>, told: c_int, plain: c_int) -> PyResult<Self> {
        let error = match Self::exported(object, told | ffi::PyBUF_FORMAT) {
            Ok(view) if holds_objects(view.format()) => {
                return Err(objects(&format!("format is '{}'", view.format().escape_ascii())));
            }
            Ok(view) => return Ok(view),
            Err(error) => error,
        };
        if !error.is_instance_of::<PyException>(object.py()) {
            return Err(error);
        }
        // numpy has no format for times, or for records that contain them; its dtype tells whether there are objects.
        let view = Self::exported(object, plain).map_err(|_| error)?;
        if let Some(kind) = object.getattr_opt("dtype")? {
            if kind.getattr_opt("hasobject")?.is_some_and(|answer| answer.is_truthy().unwrap_or(true)) {
                return Err(objects(&format!("dtype is {}", args::repr(&kind))));
            }
        }
        Ok(view)
    }

    fn exported(object: &Bound<'_, PyAny>, flags: c_int) -> PyResult<Self> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: the object is alive and the view is ours to fill. It stays where it is until it is released.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *view, flags) } != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        Ok(Self { view })
    }

    fn len(&self) -> usize {
        usize::try_from(self.view.len).expect("a length")
    }

    /// Whether its bytes are contiguous, in the order of its elements.
    fn is_contiguous(&self) -> bool {
        // SAFETY: the view was filled.
        unsafe { ffi::PyBuffer_IsContiguous(&raw const *self.view, ROW_MAJOR) != 0 }
    }

    /// The format of its elements, as in PEP 3118.
    fn format(&self) -> &[u8] {
        if self.view.format.is_null() {
            return b"B";
        }
        // SAFETY: a format is a string that lives as long as the view.
        unsafe { CStr::from_ptr(self.view.format) }.to_bytes()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // This may run a finalizer of the user's.
        Python::attach(|_| {
            // SAFETY: the view was filled, and is released once.
            unsafe { ffi::PyBuffer_Release(&raw mut *self.view) }
        });
    }
}

/// A writable, contiguous buffer of plain bytes: whatever `readinto` of Python's own files accepts, except memory of objects.
pub(crate) struct Writable(View);

impl Writable {
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        match View::of_plain_bytes(object, ffi::PyBUF_CONTIG, ffi::PyBUF_WRITABLE) {
            Ok(view) if view.is_contiguous() => Ok(Self(view)),
            Err(error) if is_about_the_type(object, &error) => Err(error),
            _ => {
                let kind = args::type_name(object);
                Err(PyTypeError::new_err(format!("buffer must be writable and contiguous: {kind} is not")))
            }
        }
    }

    /// The bytes to fill; also without the GIL, as with `readinto` of Python's own files.
    pub(crate) fn out(&mut self) -> Out<'_> {
        let pointer = NonNull::new(self.0.view.buf.cast()).unwrap_or(NonNull::dangling());
        // SAFETY: the buffer is contiguous and writable, as requested, and its exporter keeps it in place while `self` lives;
        // only an empty one may have no address. A program that reads it meanwhile gets torn bytes, as with `readinto`.
        unsafe { Out::from_raw(pointer, self.0.len()) }
    }

    /// Copies to its beginning; what does not fit is left out.
    pub(crate) fn fill(&mut self, from: &Readable) -> PyResult<usize> {
        let n = from.len().min(self.0.len());
        from.copy(self.0.view.buf.cast(), n)?;
        Ok(n)
    }
}

/// Whether an error says more than that the object has no buffer of the requested kind.
fn is_about_the_type(object: &Bound<'_, PyAny>, error: &PyErr) -> bool {
    // SAFETY: the object is alive.
    let has_buffer = unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) } != 0;
    !has_buffer
        || error.is_instance_of::<PyTypeError>(object.py())
        || !error.is_instance_of::<PyException>(object.py())
}

fn objects(what: &str) -> PyErr {
    PyTypeError::new_err(format!("buffer must hold no Python objects: its {what}"))
}

/// Whether a format contains the code for objects: bytes of a file would become pointers.
fn holds_objects(format: &[u8]) -> bool {
    let mut is_name = false;
    let mut before = 0;
    for &code in format {
        match code {
            b':' => is_name = !is_name,
            // A code follows a byte order, whatever a name before it may look like.
            b'O' if !is_name || b"@=<>!^".contains(&before) => return true,
            _ => {}
        }
        before = code;
    }
    false
}

/// A bytes-like object: any buffer of plain bytes, in the order of its elements.
pub(crate) struct Readable(View);

impl Readable {
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        View::of_plain_bytes(object, ffi::PyBUF_INDIRECT, ffi::PyBUF_INDIRECT).map(Self)
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Copies as many of its first bytes as fit.
    pub(crate) fn copy_to(&self, out: &mut [u8]) -> PyResult<()> {
        self.copy(out.as_mut_ptr(), out.len().min(self.len()))
    }

    /// `to` has room for `n` bytes, and the buffer has at least as many.
    fn copy(&self, to: *mut u8, n: usize) -> PyResult<()> {
        if n == 0 {
            return Ok(());
        }
        Python::attach(|py| {
            if self.0.is_contiguous() {
                // SAFETY: both have that many bytes. A program may write to them meanwhile: hence C's `copy`.
                unsafe { std::ptr::copy(self.0.view.buf.cast::<u8>().cast_const(), to, n) };
                return Ok(());
            }
            let whole = PyBytes::new_with(py, self.len(), |bytes| {
                let length = self.0.view.len;
                // SAFETY: the view was filled, and there is room for all of it.
                let failed = unsafe {
                    ffi::PyBuffer_ToContiguous(
                        bytes.as_mut_ptr().cast(),
                        &raw const *self.0.view,
                        length,
                        ROW_MAJOR,
                    )
                };
                if failed == 0 { Ok(()) } else { Err(PyErr::fetch(py)) }
            })?;
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(whole.as_bytes().as_ptr(), to, n) };
            Ok(())
        })
    }
}

/// The bytes of a bytes-like object: those of a `bytes` itself, and of anything else a copy that nobody changes.
pub(crate) fn bytes_of(object: &Bound<'_, PyAny>) -> PyResult<PyBackedBytes> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(bytes.clone().into());
    }
    let from = Readable::new(object)?;
    Ok(PyBytes::new_with(object.py(), from.len(), |bytes| from.copy_to(bytes))?.into())
}
