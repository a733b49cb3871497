//! `specmm.File`.

use crate::args;
use crate::buffer::Writable;
use crate::cache::PageCache;
use crate::caller::CacheId;
use crate::errors::raise;
use crate::gather;
use crate::handle::{Handle, Origin};
use crate::imported::Imported;
use crate::pin::Pinned;
use crate::results;
use crate::slices::{self, BYTES, PAGES};
use crate::store::PyStore;
use crate::unclosed;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use specmm::{Advice, Out, Verdict};
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest read that is tried without releasing the GIL. For a longer copy it is worth releasing.
const ATTACHED: usize = 64 << 10;

/// A file read through a cache.
#[pyclass(module = "specmm", frozen, weakref)]
pub(crate) struct File {
    handle: Arc<Handle<Opened>>,
    /// The same file as another object, which stands for it in the warning that it was never closed: an object that is being
    /// dropped cannot be handed out. Created together with it, so that `tracemalloc` knows where. None in the twin itself.
    twin: Option<Py<File>>,
}

/// What a file is opened from, in a forked child once more.
pub(crate) struct Opened {
    /// So that a cache with open files is still closed at exit.
    cache: Py<PageCache>,
    source: Source,
    /// The path as str or bytes, or the name.
    name: Py<PyAny>,
    /// Whether nobody is expected to close it. Set with the GIL, before anybody else has the file.
    may_stay_open: AtomicBool,
}

/// What a file was opened from.
pub(crate) enum Source {
    /// As given to `open`, the path made absolute.
    Path { path: OsString, ra_pages: u32 },
    /// The object given to `open_store`, and its method `before_waiting` if it has one.
    Store { object: Py<PyAny>, before_waiting: Option<Py<PyAny>>, timeout: Option<Duration> },
}

impl Origin for Opened {
    type Core = specmm::File;

    /// The same file in this process's cache: through the inherited descriptor, or the same store.
    fn inherit(&self, py: Python<'_>, parents: &specmm::File) -> PyResult<(specmm::File, CacheId)> {
        let handle = self.cache.get().handle();
        let id = handle.cache()?;
        let file = match &self.source {
            Source::Path { .. } => handle.detached(py, |cache| cache.adopt(parents)),
            Source::Store { object, timeout, .. } => {
                let size = parents.size().map_err(|error| raise(py, &error))?;
                let store = Arc::new(PyStore::new(object.bind(py), size, id, *timeout)?);
                handle.detached(py, |cache| cache.adopt_through(parents, store))
            }
        };
        Ok((file?, id))
    }

    fn given(&self) -> Option<&Py<PyAny>> {
        Some(&self.name)
    }

    fn before_waiting(&self, py: Python<'_>) -> PyResult<()> {
        match &self.source {
            Source::Store { before_waiting: Some(method), .. } => method.call0(py).map(drop),
            _ => Ok(()),
        }
    }

    fn name(&self, file: &specmm::File) -> String {
        format!("file {:?}", file.name())
    }
}

impl File {
    pub(crate) fn new(
        file: specmm::File,
        id: CacheId,
        cache: &Bound<'_, PageCache>,
        source: Source,
        name: Py<PyAny>,
    ) -> PyResult<Self> {
        let opened =
            Opened { cache: cache.clone().unbind(), source, name, may_stay_open: AtomicBool::new(false) };
        let handle = Arc::new(Handle::new(file, id, opened));
        let twin = Py::new(cache.py(), Self { handle: Arc::clone(&handle), twin: None })?;
        Ok(Self { handle, twin: Some(twin) })
    }

    /// Marks it as a file that nobody is expected to close: its last user closes it.
    pub(crate) fn may_stay_open(&self) {
        self.handle.origin.may_stay_open.store(true, Ordering::Relaxed);
    }

    /// Whether its user should have closed it: not a file that somebody else has to close, such as a parent's.
    pub(crate) fn is_unclosed(&self) -> bool {
        !self.closed()
            && self.handle.is_made_here()
            && !self.handle.origin.may_stay_open.load(Ordering::Relaxed)
    }

    pub(crate) fn handle(&self) -> &Handle<Opened> {
        &self.handle
    }

    /// The capacity of its cache, in bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.handle.origin.cache.get().capacity()
    }

    /// How much of a request lies in the file, so that no more than that is allocated. If that is not all of it, the file is
    /// checked: it may have grown.
    fn available(&self, py: Python<'_>, n: u64, offset: u64) -> PyResult<usize> {
        let mut size = self.size(py)?;
        if n > size.saturating_sub(offset) && offset <= specmm::store::MAX_SIZE {
            size = self.handle.detached(py, specmm::File::look)?;
        }
        Ok(n.min(size.saturating_sub(offset)) as usize)
    }

    /// Fills the buffer from the file: a short hit with the GIL, anything else without, in slices.
    fn fill(&self, py: Python<'_>, mut out: Out<'_>, offset: u64) -> PyResult<usize> {
        let length = out.len();
        // For an empty request only the arguments are checked, which a hit does not do.
        if length <= ATTACHED {
            let file = self.handle.get()?;
            let hit = if out.is_empty() { None } else { file.read_cached_into(out.part(0..length), offset) };
            return hit.map_or_else(|| self.handle.detached(py, |file| file.pread_into(out, offset)), Ok);
        }
        if length <= BYTES {
            py.check_signals()?;
            return self.handle.detached(py, |file| file.pread_into(out, offset));
        }
        self.fill_in_slices(py, out, offset)
    }

    /// All slices are of one version.
    fn fill_in_slices(&self, py: Python<'_>, mut out: Out<'_>, offset: u64) -> PyResult<usize> {
        let length = out.len();
        let mut call = self.handle.detached(py, specmm::File::one_version)?;
        loop {
            let (mut done, mut changed) = (0, false);
            while done < length {
                py.check_signals()?;
                let wanted = BYTES.min(length - done);
                let slice = out.part(done..done + wanted);
                let part =
                    self.handle.detached(py, |file| file.pread_part(&call, slice, offset + done as u64))?;
                changed = part.is_none();
                done += part.unwrap_or(0);
                if part != Some(wanted) {
                    break;
                }
            }
            match self.handle.detached(py, |file| file.judge(&mut call, !changed))? {
                Verdict::OneVersion => return Ok(done),
                Verdict::ReadTwice => {
                    let (call, all) = (&mut call, out.part(0..length));
                    let read =
                        self.handle.detached(py, |file| file.read_twice(call, &[offset], length, all))?;
                    if let Some(n) = read {
                        return Ok(n);
                    }
                }
                Verdict::Again => {}
            }
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let Some(twin) = self.twin.take().filter(|_| self.is_unclosed()) else { return };
        Python::try_attach(|py| unclosed::warn(twin.bind(py), 1));
    }
}

#[pymethods]
impl File {
    /// Size in bytes.
    #[getter]
    fn size(&self, py: Python<'_>) -> PyResult<u64> {
        self.handle.get()?.size().map_err(|error| raise(py, &error))
    }

    /// The path as given, a str or bytes, or the name of the store.
    #[getter]
    fn name(&self, py: Python<'_>) -> Py<PyAny> {
        self.handle.origin.name.clone_ref(py)
    }

    /// "rb", "r+b", "w+b" or "x+b".
    #[getter]
    fn mode(&self) -> String {
        self.handle.inner().mode().to_string()
    }

    /// Whether `close` was called, of the file or of its cache.
    #[getter]
    fn closed(&self) -> bool {
        self.handle.is_closed(specmm::File::is_closed) || self.handle.origin.cache.get().is_closed()
    }

    /// Current state of readahead.
    #[getter]
    fn readahead_state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let state = self.handle.detached(py, specmm::File::readahead_state)?;
        results::readahead_state(py, &state)
    }

    /// Closes this file; mappings of it stay valid. May be called twice.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.handle.close_unused() {
            return Ok(());
        }
        // A caller that must not wait for bytes may still close.
        self.handle.detached_naming(py, self.handle.origin.given(), specmm::File::close)
    }

    /// Checks whether others have changed the file, follows the change, and returns the size.
    #[pyo3(signature = (*, drop=false))]
    fn revalidate(&self, py: Python<'_>, #[pyo3(from_py_with = args::drop)] drop: bool) -> PyResult<u64> {
        let revalidate = if drop { specmm::File::revalidate_dropping } else { specmm::File::revalidate };
        self.handle.detached(py, revalidate)
    }

    /// The size, checked now: for streams.
    fn _look(&self, py: Python<'_>) -> PyResult<u64> {
        self.handle.detached(py, specmm::File::look)
    }

    /// Reads `n` bytes at `offset`; fewer only at the end of the file.
    fn pread<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = args::n)] n: u64,
        #[pyo3(from_py_with = args::offset)] offset: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let n = self.available(py, n, offset)?;
        let mut got = 0;
        let bytes = PyBytes::new_with(py, n, |buf| {
            got = self.fill(py, buf.into(), offset)?;
            Ok(())
        })?;
        // Somebody truncated the file meanwhile.
        if got < n { slices::bytes_from(py, &bytes.as_bytes()[..got]) } else { Ok(bytes) }
    }

    /// Reads into a writable buffer; returns the number of bytes, fewer than fit only at the end of the file.
    fn preadinto(
        &self,
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = args::offset)] offset: u64,
    ) -> PyResult<usize> {
        let mut buffer = Writable::new(buffer)?;
        let mut out = buffer.out();
        let n = self.available(py, out.len() as u64, offset)?;
        self.fill(py, out.part(0..n), offset)
    }

    /// Reads `length` bytes at each offset, in order, into `out` or a new bytearray.
    #[pyo3(signature = (offsets, length, *, out=None))]
    fn gather<'py>(
        &self,
        py: Python<'py>,
        offsets: &Bound<'py, PyAny>,
        #[pyo3(from_py_with = args::exact_length)] length: u64,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        gather::gather(py, &self.handle, offsets, length, out)
    }

    /// Pins bytes of one page: a read-only buffer whose bytes do not change while it lives.
    fn pin(
        slf: &Bound<'_, Self>,
        #[pyo3(from_py_with = args::offset)] offset: u64,
        #[pyo3(from_py_with = args::exact_length)] length: u64,
    ) -> PyResult<Pinned> {
        let handle = &slf.get().handle;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let pin = handle.detached(slf.py(), |file| file.pin(offset, length))?;
        Ok(Pinned::new(pin, offset, handle.cache()?, slf.clone().unbind()))
    }

    /// Makes the file `size` bytes long.
    fn truncate(&self, py: Python<'_>, #[pyo3(from_py_with = args::size)] size: u64) -> PyResult<()> {
        self.handle.detached(py, |file| file.truncate(size))
    }

    /// Says how the file will be read, or that a range will be needed or not.
    #[pyo3(signature = (advice, offset=0, length=None))]
    fn advise(
        &self,
        py: Python<'_>,
        advice: &str,
        #[pyo3(from_py_with = args::offset)] offset: u64,
        #[pyo3(from_py_with = args::length)] length: Option<u64>,
    ) -> PyResult<()> {
        self.handle.detached(py, |file| file.advise(advice.parse::<Advice>()?, offset, length))
    }

    /// One byte per page, as mincore: 1 = in the cache and up to date.
    #[pyo3(signature = (first=0, count=None))]
    fn residency<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = args::first)] first: u64,
        #[pyo3(from_py_with = args::count)] count: Option<u64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        slices::collect(py, count.unwrap_or(u64::MAX), PAGES, |done, slice| {
            self.handle.detached(py, |file| file.residency(first + done, Some(slice)))
        })
    }

    /// The fault function of a file mapping alone: looks for a page, without a page table or an address space.
    #[pyo3(signature = (index, *, speculative=true))]
    fn filemap_fault<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = args::index)] index: u64,
        #[pyo3(from_py_with = args::speculative)] speculative: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let fault = self.handle.detached(py, |file| file.filemap_fault(index, speculative))?;
        results::filemap_fault(py, fault)
    }

    /// A read-only `io.RawIOBase` over this file, with its own position.
    #[pyo3(signature = (*, close=false))]
    fn as_raw<'py>(
        slf: &Bound<'py, Self>,
        #[pyo3(from_py_with = args::close)] close: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        static RAW_FILE: Imported = Imported::new("specmm._raw", "RawFile");
        slf.get().handle.get()?;
        RAW_FILE.call(slf.py(), (slf, close))
    }

    /// Raises `TypeError`: numpy would make an array of one object.
    #[pyo3(signature = (dtype=None, *, copy=None))]
    #[allow(unused_variables, reason = "as numpy calls it")]
    fn __array__(
        &self,
        py: Python<'_>,
        dtype: Option<&Bound<'_, PyAny>>,
        copy: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        Err(PyTypeError::new_err(format!(
            "a File is not an array: read it into one with preadinto, or index specmm.numpy.Records(file, dtype): {}",
            self.__repr__(py)
        )))
    }

    /// Pickles as path, mode, readahead, advice and cache.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static REDUCE: Imported = Imported::new("specmm._pickling", "reduce_file");
        let (py, handle) = (slf.py(), &slf.get().handle);
        let advice = handle.get()?.advice().map_err(|error| raise(py, &error))?.to_string();
        let (path, ra_pages) = match &handle.origin.source {
            Source::Path { path, ra_pages } => (Some(path), *ra_pages),
            Source::Store { .. } => (None, 0),
        };
        REDUCE.call(py, (slf, &handle.origin.cache, path, ra_pages, advice))
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exc_info), text_signature = "($self, *exc_info)")]
    fn __exit__(&self, py: Python<'_>, _exc_info: &Bound<'_, PyAny>) -> PyResult<()> {
        self.close(py)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let file = self.handle.inner();
        let name = args::repr(self.handle.origin.name.bind(py));
        let size = file.size().ok().filter(|_| !self.closed());
        let state = size.map_or_else(|| "closed".to_owned(), |size| format!("{size} bytes"));
        format!("<specmm.File {name} mode='{}', {state}>", self.mode())
    }

    /// What a notebook shows: which parts of the file are in the cache.
    fn _repr_html_<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static FILE: Imported = Imported::new("specmm._report", "file_html");
        FILE.call(slf.py(), (slf,))
    }
}
