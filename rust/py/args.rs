//! Conversion of Python arguments: a bad one raises `ValueError` or `TypeError` and names the value.

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyString};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::imported::Imported;

/// 64 MiB.
pub(crate) const DEFAULT_CAPACITY: u64 = 64 << 20;

/// Seconds.
pub(crate) const FRAME_TIMEOUT: Duration = specmm::DEFAULT_FRAME_TIMEOUT;

pub(crate) fn frame_timeout(value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds: f64 = value.extract().map_err(|_| {
        PyTypeError::new_err(format!("frame_timeout must be a number of seconds: {}", repr(value)))
    })?;
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        PyValueError::new_err(format!(
            "frame_timeout must be a number of seconds, 0 or more: {}",
            repr(value)
        ))
    })
}

/// A store's time-out in seconds, or None.
pub(crate) fn timeout(value: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    if value.is_none() {
        return Ok(None);
    }
    let seconds: f64 = value.extract().map_err(|_| {
        PyTypeError::new_err(format!("timeout must be a number of seconds or None: {}", repr(value)))
    })?;
    let timeout = Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero());
    timeout.map(Some).ok_or_else(|| {
        PyValueError::new_err(format!("timeout must be a number of seconds, more than 0, or None: {seconds}"))
    })
}

/// One function for each integer argument, so that a bad value is reported with the argument's name.
macro_rules! unsigned {
    ($($name:ident)*) => {
        $(pub(crate) fn $name(value: &Bound<'_, PyAny>) -> PyResult<u64> {
            unsigned(stringify!($name), value)
        })*
    };
}

unsigned!(addr first index n offset pages parts size stride);

/// The same for those that may be None.
macro_rules! optional {
    ($($name:ident)*) => {
        $(pub(crate) fn $name(value: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
            if value.is_none() { Ok(None) } else { unsigned(stringify!($name), value).map(Some) }
        })*
    };
}

optional!(count length);

/// And for flags.
macro_rules! flag {
    ($($name:ident)*) => {
        $(pub(crate) fn $name(value: &Bound<'_, PyAny>) -> PyResult<bool> {
            boolean(stringify!($name), value)
        })*
    };
}

flag!(close drop shared speculative write);

/// A bool or one of numpy's. (`extract` takes both too, the latter through a cell that it fills at its first need; see
/// `imported`.)
fn boolean(name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let is_numpys = || {
        value
            .get_type()
            .fully_qualified_name()
            .is_ok_and(|name| name == "numpy.bool" || name == "numpy.bool_")
    };
    if value.is_instance_of::<PyBool>() || is_numpys() {
        return value.is_truthy();
    }
    let kind = type_name(value);
    Err(PyTypeError::new_err(format!("{name} must be a bool, not {kind}: {}", repr(value))))
}

/// A length that must be given.
pub(crate) fn exact_length(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    unsigned("length", value)
}

pub(crate) fn ra_pages(value: &Bound<'_, PyAny>) -> PyResult<u32> {
    let pages = unsigned("ra_pages", value)?;
    u32::try_from(pages).map_err(|_| PyValueError::new_err(format!("ra_pages is out of range: {pages}")))
}

pub(crate) fn capacity(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    size_in_bytes("capacity", value)
}

pub(crate) fn optional_capacity(value: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
    if value.is_none() { Ok(None) } else { capacity(value).map(Some) }
}

pub(crate) fn fault_around(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    size_in_bytes("fault_around", value)
}

/// Bytes, or a size with its unit.
pub(crate) fn size_in_bytes(name: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let Ok(text) = value.cast::<PyString>() else {
        return unsigned(name, value);
    };
    parse_size(text.to_str()?).ok_or_else(|| {
        PyValueError::new_err(format!(
            "{name} must be bytes or a size such as \"64MiB\", \"1GiB\" or \"10MB\": {}",
            repr(text)
        ))
    })
}

/// Digits and a unit: powers of 1024 for KiB and the like, of 1000 for KB.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match text[digits..].trim_start() {
        "" | "B" => 1,
        "KB" => 1000,
        "MB" => 1000 * 1000,
        "GB" => 1000 * 1000 * 1000,
        "TB" => 1000 * 1000 * 1000 * 1000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

/// A path as `open` takes it: str, bytes, or anything with `__fspath__`.
pub(crate) fn path(value: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    given_path(value).map(|(path, _)| path)
}

/// The same, together with the str or bytes that was given.
pub(crate) fn given_path<'py>(value: &Bound<'py, PyAny>) -> PyResult<(PathBuf, Bound<'py, PyAny>)> {
    static FSPATH: Imported = Imported::new("os", "fspath");
    static FSDECODE: Imported = Imported::new("os", "fsdecode");
    let given = FSPATH.call(value.py(), (value,))?;
    let path = FSDECODE.call(value.py(), (&given,))?;
    if path.cast::<PyString>()?.to_cow().is_ok_and(|text| text.contains('\0')) {
        return Err(PyValueError::new_err(format!("path holds a null byte: {}", repr(&path))));
    }
    Ok((path.extract()?, given))
}

/// The name of a store: as it appears in messages, and the str that was given.
#[derive(Default)]
pub(crate) struct Name {
    text: OsString,
    given: Option<Py<PyString>>,
}

impl Name {
    /// As the core stores it, and as it was given.
    pub(crate) fn both(self, py: Python<'_>) -> (OsString, Py<PyAny>) {
        let given = self.given.unwrap_or_else(|| PyString::new(py, "").unbind());
        (self.text, given.into_any())
    }
}

pub(crate) fn name(value: &Bound<'_, PyAny>) -> PyResult<Name> {
    let Ok(given) = value.cast::<PyString>() else {
        return Err(PyTypeError::new_err(format!(
            "name must be a str, not {}: {}",
            type_name(value),
            repr(value)
        )));
    };
    Ok(Name { text: given.extract()?, given: Some(given.clone().unbind()) })
}

/// The name of an object's type, for messages.
pub(crate) fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}

pub(crate) fn unsigned(name: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    match value.extract::<i64>() {
        Ok(number) => u64::try_from(number)
            .map_err(|_| PyValueError::new_err(format!("{name} must not be negative: {number}"))),
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
            Err(PyValueError::new_err(format!("{name} is out of range: {}", repr(value))))
        }
        Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => Err(PyTypeError::new_err(format!(
            "{name} must be an integer, not {}: {}",
            type_name(value),
            repr(value)
        ))),
        Err(error) => Err(error),
    }
}

pub(crate) fn repr(value: &Bound<'_, PyAny>) -> String {
    value.repr().map_or_else(|_| type_name(value), |text| text.to_string())
}
