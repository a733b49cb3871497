//! `specmm._core`: a thin binding of the `specmm` crate to Python. It holds no logic of its own.

use pyo3::prelude::*;

/// The extension module behind the `specmm` package.
#[pymodule(gil_used = true)]
mod _core {
    /// Bytes in a page.
    #[pymodule_export]
    const PAGE_SIZE: usize = specmm::PAGE_SIZE;
}
