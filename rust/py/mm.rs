//! `specmm.mm.Mm`.

use crate::args;
use crate::buffer;
use crate::cache::PageCache;
use crate::caller::CacheId;
use crate::errors::{out_of_memory, raise, specmm_error};
use crate::file::File;
use crate::handle::{Handle, Origin};
use crate::results;
use crate::slices::{self, BYTES, FIRST, PAGES, Pace};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use specmm::{Error, Locking, Madvise, MmOptions, Prot, TouchReport};

/// An address space: mappings of files, a page table and a lock.
#[pyclass(module = "specmm.mm", frozen, weakref)]
pub(crate) struct Mm {
    handle: Handle<Over>,
}

/// What an address space is created from.
struct Over {
    /// So that a cache with address spaces is still closed at exit.
    _cache: Py<PageCache>,
}

impl Origin for Over {
    type Core = specmm::Mm;

    fn inherit(&self, py: Python<'_>, _: &specmm::Mm) -> PyResult<(specmm::Mm, CacheId)> {
        Err(specmm_error(py, "an address space does not survive a fork: create one in the child"))
    }

    fn name(&self, _: &specmm::Mm) -> String {
        "the address space".to_owned()
    }
}

#[pymethods]
impl Mm {
    #[new]
    #[pyo3(signature = (cache, *, locking="speculative", fault_around=MmOptions::FAULT_AROUND_BYTES),
           text_signature = "(cache, *, locking='speculative', fault_around='64KiB')")]
    fn new(
        cache: &Bound<'_, PageCache>,
        locking: &str,
        #[pyo3(from_py_with = args::fault_around)] fault_around: u64,
    ) -> PyResult<Self> {
        let handle = cache.get().handle();
        let id = handle.cache()?;
        let mm = handle.detached(cache.py(), |cache| {
            let locking = locking.parse::<Locking>()?;
            specmm::Mm::new(cache, MmOptions::default().locking(locking).fault_around_bytes(fault_around))
        })?;
        Ok(Self { handle: Handle::new(mm, id, Over { _cache: cache.clone().unbind() }) })
    }

    /// Maps a file and returns the address; the mapping may be longer than the file, as in Linux.
    #[pyo3(signature = (f, length=None, offset=0, *, prot="r", shared=true))]
    fn mmap(
        &self,
        py: Python<'_>,
        f: &Bound<'_, File>,
        #[pyo3(from_py_with = args::length)] length: Option<u64>,
        #[pyo3(from_py_with = args::offset)] offset: u64,
        prot: &str,
        #[pyo3(from_py_with = args::shared)] shared: bool,
    ) -> PyResult<u64> {
        let file = f.get().handle().get()?;
        self.handle.detached(py, |mm| mm.mmap(file, length, offset, prot.parse::<Prot>()?, shared))
    }

    /// Unmaps whatever is mapped in a range.
    fn munmap(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = args::addr)] addr: u64,
        #[pyo3(from_py_with = args::exact_length)] length: u64,
    ) -> PyResult<()> {
        self.handle.detached(py, |mm| mm.munmap(addr, length))
    }

    /// Sets what accesses a mapped range allows: "r" or "rw".
    fn mprotect(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = args::addr)] addr: u64,
        #[pyo3(from_py_with = args::exact_length)] length: u64,
        prot: &str,
    ) -> PyResult<()> {
        self.handle.detached(py, |mm| mm.mprotect(addr, length, prot.parse::<Prot>()?))
    }

    /// Says how a mapped range will be used: "normal", "random", "sequential", "dontneed" or "willneed".
    fn madvise(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = args::addr)] addr: u64,
        #[pyo3(from_py_with = args::exact_length)] length: u64,
        advice: &str,
    ) -> PyResult<()> {
        self.handle.detached(py, |mm| mm.madvise(addr, length, advice.parse::<Madvise>()?))
    }

    /// Reads `n` bytes at an address, faulting where needed.
    fn load<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = args::addr)] addr: u64,
        #[pyo3(from_py_with = args::n)] n: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        if n <= BYTES as u64 {
            return PyBytes::new_with(py, n as usize, |buf| {
                self.handle.detached(py, |mm| mm.load(addr, buf))
            });
        }
        self.handle.detached(py, |mm| mm.check_range(addr, n))?;
        slices::collect(py, n, BYTES as u64, |done, wanted| {
            let mut bytes = Vec::new();
            bytes
                .try_reserve_exact(wanted as usize)
                .map_err(|_| out_of_memory(&format!("{wanted} bytes")))?;
            bytes.resize(wanted as usize, 0);
            self.handle.detached(py, |mm| mm.load(addr + done, &mut bytes))?;
            Ok(bytes)
        })
    }

    /// Writes bytes at an address, faulting where needed.
    fn store(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = args::addr)] addr: u64,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let data = buffer::bytes_of(data)?;
        if data.is_empty() {
            return self.handle.detached(py, |mm| mm.store(addr, &[]));
        }
        if data.len() > BYTES {
            self.handle.detached(py, |mm| mm.check_range(addr, data.len() as u64))?;
        }
        for (number, slice) in data.chunks(BYTES).enumerate() {
            py.check_signals()?;
            self.handle.detached(py, |mm| mm.store(addr + (number * BYTES) as u64, slice))?;
        }
        Ok(())
    }

    /// One fault at an address, step by step. Failures are returned, not raised.
    #[pyo3(signature = (addr, *, write=false))]
    fn fault<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = args::addr)] addr: u64,
        #[pyo3(from_py_with = args::write)] write: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let outcome = self.handle.detached(py, |mm| Ok(mm.fault(addr, write)))?;
        if let Some(error @ Error::Closed(_)) = &outcome.error {
            return Err(raise(py, error));
        }
        results::fault_outcome(py, &outcome)
    }

    /// Accesses one byte in each `stride` of a range.
    #[pyo3(signature = (addr, length, *, stride=specmm::PAGE_SIZE as u64, write=false),
           text_signature = "($self, addr, length, *, stride=4096, write=False)")]
    fn touch<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = args::addr)] addr: u64,
        #[pyo3(from_py_with = args::exact_length)] length: u64,
        #[pyo3(from_py_with = args::stride)] stride: u64,
        #[pyo3(from_py_with = args::write)] write: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        if length.checked_div(stride).is_some_and(|touches| touches >= FIRST) {
            self.handle.detached(py, |mm| mm.check_range(addr, length))?;
        }
        let mut sum = TouchReport::default();
        let mut pace = Pace::new();
        let mut done = 0;
        loop {
            let (slice, report) = pace.paced(|touches| {
                let slice = stride.saturating_mul(touches).min(length - done);
                (slice, self.handle.detached(py, |mm| mm.touch(addr + done, slice, stride, write)))
            });
            sum.add(report?);
            done += slice;
            if done >= length {
                return results::touch_report(py, &sum);
            }
            py.check_signals()?;
        }
    }

    /// One byte per page: 0 = no entry, else the sum of 1 = present, 2 = writable, 4 = private copy.
    fn pagemap<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = args::addr)] addr: u64,
        #[pyo3(from_py_with = args::exact_length)] length: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let page = specmm::PAGE_SIZE as u64;
        // An unaligned address is refused by the first slice.
        if addr % page == 0 {
            self.handle.detached(py, |mm| mm.check_range(addr, length))?;
        }
        slices::collect(py, length.div_ceil(page), PAGES, |done, wanted| {
            self.handle.detached(py, |mm| mm.pagemap(addr + done * page, wanted * page))
        })
    }

    /// Events since the address space was created, named as in /proc/vmstat.
    fn vm_events<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let events = self.handle.detached(py, |mm| Ok(mm.vm_events()))?;
        let dict = PyDict::new(py);
        for (name, count) in events {
            dict.set_item(name, count)?;
        }
        Ok(dict)
    }

    /// How faults lock: `mmap_lock` or `speculative`.
    #[getter]
    fn locking(&self) -> String {
        self.handle.inner().locking().to_string()
    }

    /// Unmaps everything and closes. May be called twice.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.handle.close_unused() {
            return Ok(());
        }
        self.handle.detached(py, specmm::Mm::close)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exc_info), text_signature = "($self, *exc_info)")]
    fn __exit__(&self, py: Python<'_>, _exc_info: &Bound<'_, PyAny>) -> PyResult<()> {
        self.close(py)
    }

    fn __repr__(&self) -> String {
        format!("<specmm.mm.Mm locking='{}'>", self.handle.inner().locking())
    }
}
