//! Python objects that are looked up or created once: classes and functions of the Python side of the package, and strings.
//!
//! A thread that fills a cell keeps the GIL meanwhile, so that no fork can come between: in the child, nobody would finish, and
//! the next to come would wait forever. `PyOnceLock::get_or_init` and `pyo3::intern!` let go of the GIL, so `clippy.toml` forbids
//! them; the cells inside `pyo3` itself are filled while the module is imported.

use pyo3::call::PyCallArgs;
use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::type_object::PyTypeInfo;
use pyo3::types::{PyDict, PySequence, PyString, PyType};

/// Fills the cells of `pyo3` that calls of this module would fill at their first need: the one that guards attaching, and those
/// for the message about an argument of another type.
pub(crate) fn fill_cells(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    py.detach(|| Python::attach(|_| ()));
    PySequence::type_object(py);
    PyType::type_object(py).fully_qualified_name()?;
    let refused = module.getattr("may_stay_open")?.call1((module,));
    refused.map_or(Ok(()), |_| Err(PyImportError::new_err("a module passed for a file")))
}

/// A string for attributes and fields, created at its first use.
pub(crate) struct Name {
    text: &'static str,
    object: PyOnceLock<Py<PyString>>,
}

impl Name {
    pub(crate) const fn new(text: &'static str) -> Self {
        Self { text, object: PyOnceLock::new() }
    }

    pub(crate) fn get<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        if self.object.get(py).is_none() {
            let _somebody_was_faster = self.object.set(py, PyString::intern(py, self.text).unbind());
        }
        self.object.get(py).expect("set above").bind(py)
    }
}

/// A [`Name`] of its own at each place.
macro_rules! name {
    ($py:expr, $text:expr) => {{
        static NAME: $crate::imported::Name = $crate::imported::Name::new($text);
        NAME.get($py)
    }};
}
pub(crate) use name;

/// A class or function of a Python module, looked up at its first use. Every module is loaded by then: the package imports them
/// all.
pub(crate) struct Imported {
    module: &'static str,
    name: &'static str,
    object: PyOnceLock<Py<PyAny>>,
}

impl Imported {
    pub(crate) const fn new(module: &'static str, name: &'static str) -> Self {
        Self { module, name, object: PyOnceLock::new() }
    }

    pub(crate) fn get<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        if self.object.get(py).is_none() {
            // Not while the cell is held: a finalizer that runs here may ask for the same object.
            let object = py.import(self.module)?.getattr(self.name)?.unbind();
            let _somebody_was_faster = self.object.set(py, object);
        }
        Ok(self.object.get(py).expect("set above").bind(py))
    }

    pub(crate) fn call<'py, A>(&self, py: Python<'py>, arguments: A) -> PyResult<Bound<'py, PyAny>>
    where
        A: PyCallArgs<'py>,
    {
        self.get(py)?.call1(arguments)
    }

    pub(crate) fn call_named<'py>(
        &self,
        py: Python<'py>,
        arguments: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.get(py)?.call((), Some(arguments))
    }
}
