//! Python objects as stores: anything with `read_at(offset, n) -> bytes`.

use crate::args;
use crate::buffer::Readable;
use crate::caller::CacheId;
use crate::imported::name;
use crate::interrupt;
use crate::later::Held;
use crate::worker;
use pyo3::exceptions::{PyException, PyOSError, PyTypeError};
use pyo3::prelude::*;
use specmm::store::{ReadBy, Store};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A user's store. Its methods are called with the GIL, from any thread, holding only the locks of the pages being read.
pub(crate) struct PyStore {
    object: Held,
    cache: CacheId,
    /// Its current size. Relaxed everywhere: a read that races with a truncation may be judged by either size.
    size: AtomicU64,
    timeout: Option<Duration>,
    has_truncate: bool,
}

impl PyStore {
    /// Takes an object with `read_at`; looks up now whether it has `truncate`.
    pub(crate) fn new(
        object: &Bound<'_, PyAny>,
        size: u64,
        cache: CacheId,
        timeout: Option<Duration>,
    ) -> PyResult<Self> {
        let callable =
            |name| object.getattr_opt(name).map(|found| found.is_some_and(|method| method.is_callable()));
        if !callable("read_at")? {
            let kind = args::type_name(object);
            return Err(PyTypeError::new_err(format!(
                "store must have a method read_at(offset, n): {kind} has none"
            )));
        }
        let has_truncate = callable("truncate")?;
        let object = Held::new(object.clone().unbind());
        Ok(Self { object, cache, size: AtomicU64::new(size), timeout, has_truncate })
    }

    /// Calls into Python; the thread that gets here is detached, and may be one of the core's workers.
    fn attached<R>(&self, call: impl FnOnce(&Bound<'_, PyAny>) -> io::Result<R>) -> io::Result<R> {
        worker::attached(|py| {
            let _serving = self.cache.serve();
            call(self.object.get().bind(py))
        })
    }
}

impl Store for PyStore {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let wanted = buf.len();
        // After Ctrl-C the core would try once more, and then continue.
        if interrupt::is_pending() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.attached(|store| {
            let read_at = || {
                let method = store.getattr(name!(store.py(), "read_at"))?;
                worker::call(&method, &(offset, wanted).into_pyobject(store.py())?)
            };
            let raised = |cause| failed(store.py(), &format!("read_at({offset}, {wanted})"), cause);
            let data = read_at().and_then(|data| Readable::new(&data)).map_err(raised)?;
            let got = data.len();
            let at_end = offset + got as u64 >= self.size.load(Ordering::Relaxed);
            if got > wanted || (got < wanted && !at_end) {
                return Err(io::Error::other(format!(
                    "read_at({offset}, {wanted}) returned {got} bytes: it must return exactly {wanted}"
                )));
            }
            data.copy_to(&mut buf[..got]).map_err(raised)?;
            Ok(got)
        })
    }

    /// Python code may do anything, including sleeping forever.
    fn read_by(&self) -> ReadBy {
        ReadBy::Workers { timeout: self.timeout }
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        if !self.has_truncate {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the store has no method truncate(size)"));
        }
        // A reader of the already shorter store must not be told that it returned too little.
        let before = self.size.fetch_min(size, Ordering::Relaxed);
        let answer = self.attached(|store| {
            store
                .call_method1(name!(store.py(), "truncate"), (size,))
                .map(drop)
                .map_err(|cause| failed(store.py(), &format!("truncate({size})"), cause))
        });
        self.size.store(if answer.is_ok() { size } else { before }, Ordering::Relaxed);
        answer
    }
}

/// A store's exception on its way through the core, as the inner error of an `io::Error`.
pub(crate) struct StoreFailure {
    message: String,
    errno: Option<i32>,
    cause: Held,
}

impl StoreFailure {
    /// The error number, if the store raised an `OSError` with one.
    pub(crate) fn errno(&self) -> Option<i32> {
        self.errno
    }

    /// Whether it is not a failure at all: `SystemExit` and the like, which nobody catches as an error.
    pub(crate) fn is_exit(&self, py: Python<'_>) -> bool {
        !self.cause.get().bind(py).is_instance_of::<PyException>()
    }

    /// The exception itself: each waiter for the page gets it as the cause of a separate exception.
    pub(crate) fn cause(&self, py: Python<'_>) -> PyErr {
        PyErr::from_value(self.cause.get().bind(py).clone())
    }
}

// The text is created with the GIL: the core may print an error on a thread without it.
impl fmt::Display for StoreFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for StoreFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreFailure").field("message", &self.message).finish_non_exhaustive()
    }
}

impl std::error::Error for StoreFailure {}

fn failed(py: Python<'_>, call: &str, cause: PyErr) -> io::Error {
    if !cause.is_instance_of::<PyException>(py) {
        interrupt::keep(cause.clone_ref(py));
    }
    let value = cause.value(py);
    let errno = if value.is_instance_of::<PyOSError>() {
        value.getattr(name!(py, "errno")).and_then(|errno| errno.extract()).unwrap_or(None)
    } else {
        None
    };
    let message = format!("{call} raised {cause}");
    let cause = Held::new(cause.into_value(py).into_any());
    io::Error::other(StoreFailure { message, errno, cause })
}
