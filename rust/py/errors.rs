//! The core's errors as Python exceptions.

use crate::imported::Imported;
use crate::store::StoreFailure;
use pyo3::call::PyCallArgs;
use pyo3::exceptions::{PyBufferError, PyMemoryError, PyOSError, PyValueError};
use pyo3::prelude::*;
use specmm::Error;
use specmm::error::IoError;
use std::ffi::OsStr;
use std::io::ErrorKind;

static SPECMM: Imported = Imported::new("specmm._errors", "SpecmmError");
static BUS: Imported = Imported::new("specmm._errors", "BusError");
static SEGMENTATION: Imported = Imported::new("specmm._errors", "SegmentationError");
static OUT_OF_FRAMES: Imported = Imported::new("specmm._errors", "OutOfFramesError");
static CLOSED: Imported = Imported::new("specmm._errors", "ClosedError");
static INVARIANT: Imported = Imported::new("specmm._errors", "InvariantError");
static UNSUPPORTED: Imported = Imported::new("io", "UnsupportedOperation");
static STRERROR: Imported = Imported::new("os", "strerror");

/// Linux's numbers, from which Python picks `InterruptedError` and `TimeoutError`.
const EINTR: i32 = 4;
const ETIMEDOUT: i32 = 110;

/// A new exception for an error of the core.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    raise_naming(py, error, None)
}

/// The same for a file with this name, as its opener spelled it: the core knows a file by the first of its names.
pub(crate) fn raise_naming(py: Python<'_>, error: &Error, name: Option<&Py<PyAny>>) -> PyErr {
    if let Error::Io(io) | Error::Bus { cause: Some(io), .. } = error {
        if let Some(exit) = failure(io).filter(|failure| failure.is_exit(py)) {
            return exit.cause(py);
        }
    }
    match error {
        Error::InvalidArgument(message) => PyValueError::new_err(message.clone()),
        Error::Bus { index, offset, size, cause } => {
            let bus = exception(py, &BUS, (*index, *offset, *size));
            if let Some(cause) = cause {
                bus.set_cause(py, Some(os_error(py, cause, name)));
            }
            bus
        }
        Error::Segmentation { .. } => exception(py, &SEGMENTATION, (error.to_string(),)),
        Error::OutOfMemory { .. } => PyMemoryError::new_err(error.to_string()),
        Error::OutOfFrames { .. } => exception(py, &OUT_OF_FRAMES, (error.to_string(),)),
        Error::Closed(_) => exception(py, &CLOSED, (error.to_string(),)),
        Error::Invariant(_) => exception(py, &INVARIANT, (error.to_string(),)),
        Error::Unsupported(message) => exception(py, &UNSUPPORTED, (message.clone(),)),
        Error::Io(io) if io.source.kind() == ErrorKind::Unsupported && io.source.raw_os_error().is_none() => {
            exception(py, &UNSUPPORTED, (io.to_string(),))
        }
        Error::Io(io) => os_error(py, io, name),
        Error::TimedOut { file, offset, timeout } => {
            let text = format!("the store did not return offset {offset} within {} s", timeout.as_secs_f64());
            coded(py, ETIMEDOUT, &text, file, name)
        }
        Error::Interrupted(file) => coded(py, EINTR, "the wait for the store was interrupted", file, name),
        Error::Pinned(message) => PyBufferError::new_err(message.clone()),
        _ => specmm_error(py, &error.to_string()),
    }
}

/// A `BusError` for a read that goes past the end of the file.
pub(crate) fn past_the_end(py: Python<'_>, offset: u64, size: u64) -> PyErr {
    exception(py, &BUS, (offset / specmm::PAGE_SIZE as u64, offset, size))
}

/// A `MemoryError` that says what the memory was for.
pub(crate) fn out_of_memory(what: &str) -> PyErr {
    PyMemoryError::new_err(format!("the system has no memory for {what}"))
}

/// A `ClosedError` like the core's.
pub(crate) fn closed_error(py: Python<'_>, what: &str) -> PyErr {
    raise(py, &Error::Closed(what.to_owned()))
}

/// A plain `SpecmmError`.
pub(crate) fn specmm_error(py: Python<'_>, message: &str) -> PyErr {
    exception(py, &SPECMM, (message,))
}

/// The exception that a user's store raised.
fn failure(error: &IoError) -> Option<&StoreFailure> {
    error.source.get_ref()?.downcast_ref()
}

/// `OSError(errno, text, file name)`, of which Python picks the subclass. A user's store's exception becomes the cause.
fn os_error(py: Python<'_>, error: &IoError, name: Option<&Py<PyAny>>) -> PyErr {
    let failure = failure(error);
    let errno = failure.and_then(StoreFailure::errno).unwrap_or_else(|| error.errno());
    let text = match error.source.raw_os_error() {
        Some(errno) => STRERROR.call(py, (errno,)).and_then(|text| text.extract()),
        None => Ok(error.source.to_string()),
    };
    let text: String = match text {
        Ok(text) => text,
        Err(instead) => return instead,
    };
    let raised = coded(py, errno, &text, &error.file, name);
    if let Some(failure) = failure {
        raised.set_cause(py, Some(failure.cause(py)));
    }
    raised
}

fn coded(py: Python<'_>, errno: i32, text: &str, file: &OsStr, name: Option<&Py<PyAny>>) -> PyErr {
    let class = py.get_type::<PyOSError>();
    let raised = match name {
        _ if file.is_empty() => class.call1((errno, text)),
        Some(name) => class.call1((errno, text, name)),
        None => class.call1((errno, text, file)),
    };
    raised.map_or_else(|instead| instead, PyErr::from_value)
}

fn exception<'py, A: PyCallArgs<'py>>(py: Python<'py>, class: &Imported, arguments: A) -> PyErr {
    class.call(py, arguments).map_or_else(|instead| instead, PyErr::from_value)
}
