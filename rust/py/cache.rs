//! `specmm.PageCache`.

use crate::args::{self, Name};
use crate::caller::CacheId;
use crate::errors::{closed_error, raise};
use crate::file::{File, Source};
use crate::handle::{Handle, Origin};
use crate::imported::Imported;
use crate::results;
use crate::store::PyStore;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use specmm::{CacheOptions, Io, OpenMode, OpenOptions, StoreOptions};
use std::sync::Arc;
use std::time::Duration;

/// A page cache: pages of any number of files under one memory limit.
#[pyclass(module = "specmm", frozen, weakref)]
pub(crate) struct PageCache {
    handle: Handle<Settings>,
}

/// What a cache is created from, in a forked child once more.
pub(crate) struct Settings {
    capacity: u64,
    io: Io,
    frame_timeout: Duration,
}

impl Settings {
    fn make(&self, py: Python<'_>) -> PyResult<(specmm::PageCache, CacheId)> {
        let options = CacheOptions::default().io(self.io).frame_timeout(self.frame_timeout);
        let cache = py.detach(|| specmm::PageCache::with_options(self.capacity, options));
        Ok((cache.map_err(|error| raise(py, &error))?, CacheId::next()))
    }

    fn io(&self) -> &'static str {
        match self.io {
            Io::Threads => "threads",
            Io::Inline => "inline",
        }
    }
}

impl Origin for Settings {
    type Core = specmm::PageCache;

    /// An empty cache of the same size; a closed one stays closed.
    fn inherit(&self, py: Python<'_>, parents: &specmm::PageCache) -> PyResult<(specmm::PageCache, CacheId)> {
        if parents.is_closed() {
            return Err(closed_error(py, &self.name(parents)));
        }
        self.make(py)
    }

    fn name(&self, _: &specmm::PageCache) -> String {
        "the page cache".to_owned()
    }
}

#[pymethods]
impl PageCache {
    #[new]
    #[pyo3(signature = (capacity=args::DEFAULT_CAPACITY, *, io="threads", frame_timeout=args::FRAME_TIMEOUT),
           text_signature = "(capacity='64MiB', *, io='threads', frame_timeout=5.0)")]
    fn new(
        py: Python<'_>,
        #[pyo3(from_py_with = args::capacity)] capacity: u64,
        io: &str,
        #[pyo3(from_py_with = args::frame_timeout)] frame_timeout: Duration,
    ) -> PyResult<Py<Self>> {
        static REGISTER: Imported = Imported::new("specmm._lifetime", "register");
        let io = match io {
            "threads" => Io::Threads,
            "inline" => Io::Inline,
            _ => {
                return Err(PyValueError::new_err(format!("io must be \"threads\" or \"inline\": \"{io}\"")));
            }
        };
        let settings = Settings { capacity, io, frame_timeout };
        let (cache, id) = settings.make(py)?;
        let cache = Py::new(py, Self { handle: Handle::new(cache, id, settings) })?;
        REGISTER.call(py, (&cache,))?;
        Ok(cache)
    }

    /// Opens a file: "rb" to read, "r+b" to resize as well, "w+b" to start empty, "x+b" to create.
    #[pyo3(signature = (path, mode="rb", *, ra_pages=specmm::DEFAULT_RA_PAGES),
           text_signature = "($self, path, mode='rb', *, ra_pages=32)")]
    fn open(
        slf: &Bound<'_, Self>,
        path: &Bound<'_, PyAny>,
        mode: &str,
        #[pyo3(from_py_with = args::ra_pages)] ra_pages: u32,
    ) -> PyResult<File> {
        let (path, given) = args::given_path(path)?;
        let given = given.unbind();
        // Its absolute path: a process that the file is sent to may have another working directory.
        let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let handle = &slf.get().handle;
        let id = handle.cache()?;
        let file = handle.detached_naming(slf.py(), Some(&given), |cache| {
            let options = OpenOptions::default().mode(mode.parse::<OpenMode>()?).ra_pages(ra_pages);
            cache.open_with(&path, options)
        })?;
        let source = Source::Path { path: absolute.into_os_string(), ra_pages };
        File::new(file, id, slf, source, given)
    }

    /// Opens an object with `read_at(offset, n) -> bytes` as a file of `size` bytes.
    #[pyo3(signature = (store, size, *, name=Name::default(), ra_pages=specmm::DEFAULT_RA_PAGES, timeout=None),
           text_signature = "($self, store, size, *, name='', ra_pages=32, timeout=None)")]
    fn open_store(
        slf: &Bound<'_, Self>,
        store: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = args::size)] size: u64,
        #[pyo3(from_py_with = args::name)] name: Name,
        #[pyo3(from_py_with = args::ra_pages)] ra_pages: u32,
        #[pyo3(from_py_with = args::timeout)] timeout: Option<Duration>,
    ) -> PyResult<File> {
        let handle = &slf.get().handle;
        let id = handle.cache()?;
        let own = Arc::new(PyStore::new(store, size, id, timeout)?);
        let (name, given) = name.both(slf.py());
        let options = StoreOptions::default().name(&name).ra_pages(ra_pages);
        let file = handle.detached(slf.py(), move |cache| cache.open_store_with(own, size, options))?;
        let before_waiting = store.getattr_opt("before_waiting")?.map(Bound::unbind);
        let source = Source::Store { object: store.clone().unbind(), before_waiting, timeout };
        File::new(file, id, slf, source, given)
    }

    /// Counters since the cache was created.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let stats = self.handle.detached(py, |cache| Ok(cache.stats()))?;
        results::cache_stats(py, &stats)
    }

    /// Waits until no read is in flight.
    fn settle(&self, py: Python<'_>) -> PyResult<()> {
        self.handle.detached(py, |cache| {
            cache.settle();
            Ok(())
        })
    }

    /// Checks the cache's consistency while nothing uses it; raises `InvariantError` if something is wrong.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.handle.detached(py, specmm::PageCache::check)
    }

    /// Evicts up to `pages` of the least recently used pages; returns how many.
    fn reclaim(&self, py: Python<'_>, #[pyo3(from_py_with = args::pages)] pages: u64) -> PyResult<usize> {
        self.handle.detached(py, |cache| cache.reclaim(usize::try_from(pages).unwrap_or(usize::MAX)))
    }

    /// Drops every page that is neither mapped nor in use; returns how many.
    fn drop_caches(&self, py: Python<'_>) -> PyResult<u64> {
        self.handle.detached(py, specmm::PageCache::drop_caches)
    }

    /// Closes the cache and its files. May be called twice.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.handle.close_unused() {
            return Ok(());
        }
        self.handle.detached(py, specmm::PageCache::close)
    }

    /// Whether `close` was called.
    #[getter]
    fn closed(&self) -> bool {
        self.is_closed()
    }

    /// Pickles as its settings and a name: a process has one cache for each name.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static REDUCE: Imported = Imported::new("specmm._pickling", "reduce_cache");
        let settings = &slf.get().handle.origin;
        if slf.get().is_closed() {
            return Err(closed_error(slf.py(), "the page cache"));
        }
        let timeout = settings.frame_timeout.as_secs_f64();
        REDUCE.call(slf.py(), (slf, settings.capacity, settings.io(), timeout))
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exc_info), text_signature = "($self, *exc_info)")]
    fn __exit__(&self, py: Python<'_>, _exc_info: &Bound<'_, PyAny>) -> PyResult<()> {
        self.close(py)
    }

    fn __repr__(&self) -> String {
        let cache = self.handle.inner();
        let closed = if self.is_closed() { " closed" } else { "" };
        let io = self.handle.origin.io();
        format!("<specmm.PageCache of {} frames, io='{io}'{closed}>", cache.capacity_frames())
    }

    /// What a notebook shows: the capacity, how full it is, and the counters.
    fn _repr_html_<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static CACHE: Imported = Imported::new("specmm._report", "cache_html");
        CACHE.call(slf.py(), (slf,))
    }
}

impl PageCache {
    pub(crate) fn handle(&self) -> &Handle<Settings> {
        &self.handle
    }

    /// The capacity in bytes, in whole pages.
    pub(crate) fn capacity(&self) -> u64 {
        self.handle.inner().capacity_frames() as u64 * specmm::PAGE_SIZE as u64
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.handle.is_closed(specmm::PageCache::is_closed)
    }

    /// A cache that this process's parent created, and that was not used here, is left alone.
    pub(crate) fn close_at_exit(&self, py: Python<'_>) -> PyResult<()> {
        if self.handle.is_ours() { self.close(py) } else { Ok(()) }
    }
}
