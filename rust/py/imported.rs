//! Names defined by the Python side of the package, looked up once.
//!
//! Every module is loaded by then: the package imports them all.

use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

/// A class or function of a Python module, looked up at its first use.
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
