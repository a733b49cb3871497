//! The records and flags that Python gets as results; `specmm._types` defines them.

use crate::imported::{Imported, name};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use specmm::{Abort, CacheStats, CounterValue, VmFault};

static VM_FAULT: Imported = Imported::new("specmm._types", "VmFault");
static ABORT: Imported = Imported::new("specmm._types", "Abort");
static FAULT_OUTCOME: Imported = Imported::new("specmm._types", "FaultOutcome");
static FILEMAP_FAULT: Imported = Imported::new("specmm._types", "FilemapFault");
static READAHEAD_STATE: Imported = Imported::new("specmm._types", "ReadaheadState");
static TOUCH_REPORT: Imported = Imported::new("specmm._types", "TouchReport");
static CACHE_STATS: Imported = Imported::new("specmm._types", "CacheStats");

type Answer<'py> = PyResult<Bound<'py, PyAny>>;

/// Calls a record's class with these fields of `$value` by their names; one that Python wants in another form says how.
macro_rules! record {
    ($py:ident, $class:ident, $value:ident { $($field:ident $(as $convert:ident)?),* $(,)? }) => {{
        let fields = PyDict::new($py);
        $(
            let value = $value.$field;
            $(let value = $convert($py, value)?;)?
            fields.set_item(name!($py, stringify!($field)), value)?;
        )*
        $class.call_named($py, &fields)
    }};
}

pub(crate) fn fault_outcome<'py>(py: Python<'py>, outcome: &specmm::FaultOutcome) -> Answer<'py> {
    record!(py, FAULT_OUTCOME, outcome { result as vm_fault, abort as cause, major })
}

pub(crate) fn filemap_fault(py: Python<'_>, fault: specmm::FilemapFault) -> Answer<'_> {
    record!(py, FILEMAP_FAULT, fault { result as vm_fault, abort as cause })
}

pub(crate) fn readahead_state<'py>(py: Python<'py>, ra: &specmm::ReadaheadState) -> Answer<'py> {
    record!(py, READAHEAD_STATE, ra { start, size, async_size, ra_pages, mmap_miss, prev_pos })
}

pub(crate) fn touch_report<'py>(py: Python<'py>, report: &specmm::TouchReport) -> Answer<'py> {
    record!(py, TOUCH_REPORT, report { touches, faults, major, aborts })
}

/// Every event of `Mm.vm_events` with what it counts, abort causes included.
#[pyfunction]
pub(crate) fn event_glosses(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let glosses = PyDict::new(py);
    for (name, gloss) in specmm::Mm::vm_event_glosses() {
        glosses.set_item(name, gloss)?;
    }
    Ok(glosses)
}

pub(crate) fn cache_stats<'py>(py: Python<'py>, stats: &CacheStats) -> Answer<'py> {
    let fields = PyDict::new(py);
    for (counter, value) in CacheStats::COUNTERS.iter().zip(stats.values()) {
        match value {
            CounterValue::Count(count) => fields.set_item(counter.name, count)?,
            CounterValue::Seconds(seconds) => fields.set_item(counter.name, seconds)?,
        }
    }
    CACHE_STATS.call_named(py, &fields)
}

/// Every counter of `CacheStats` with what it counts, by what moves it.
#[pyfunction]
pub(crate) fn counter_glosses(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let groups = PyDict::new(py);
    for group in CacheStats::COUNTERS.chunk_by(|one, other| one.group == other.group) {
        let glosses = PyDict::new(py);
        for counter in group {
            glosses.set_item(counter.name, counter.gloss)?;
        }
        groups.set_item(group[0].group, glosses)?;
    }
    Ok(groups)
}

fn vm_fault(py: Python<'_>, result: VmFault) -> Answer<'_> {
    VM_FAULT.call(py, (result.bits(),))
}

fn cause(py: Python<'_>, cause: Option<Abort>) -> Answer<'_> {
    match cause {
        Some(cause) => ABORT.get(py)?.getattr(PyString::intern(py, cause.name())),
        None => Ok(py.None().into_bound(py)),
    }
}
