//! The workloads of the `specmm` command: plain figures in, plain figures out.

use crate::args;
use crate::errors::raise;
use crate::slices::{self, PAGES};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use specmm::workload::{
    self, PAIR, Plan, Progress, Quantiles, Rate, Report, Round, Row, Run, SAMPLE_EVERY, Workload,
};

/// Runs a workload on a file without the GIL. A signal handler that raises ends the run.
#[pyfunction]
#[pyo3(signature = (path, *, workload, threads, writer_rates, locking, seconds, rounds=5, length=None, capacity=None,
                    progress=None))]
#[allow(
    clippy::too_many_arguments,
    clippy::needless_pass_by_value,
    reason = "options of a command, from Python"
)]
pub(crate) fn run_faults<'py>(
    py: Python<'py>,
    #[pyo3(from_py_with = args::path)] path: std::path::PathBuf,
    workload: &str,
    threads: usize,
    writer_rates: Vec<String>,
    locking: Vec<String>,
    seconds: f64,
    rounds: u32,
    #[pyo3(from_py_with = args::length)] length: Option<u64>,
    #[pyo3(from_py_with = args::optional_capacity)] capacity: Option<u64>,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let plan = || -> specmm::Result<Plan> {
        let workload = workload.parse()?;
        let rates = writer_rates.iter().map(|rate| rate.parse()).collect::<specmm::Result<_>>()?;
        let rows = locking.iter().map(|row| row.parse()).collect::<specmm::Result<_>>()?;
        Ok(Plan { path, workload, threads, rates, rows, seconds, rounds, length, capacity })
    };
    let plan = plan().map_err(|error| raise(py, &error))?;
    let progress = progress.map(Bound::unbind);
    let (answer, raised) = py.detach(|| {
        let mut raised = None;
        let answer =
            workload::run(&plan, &mut |now| match Python::attach(|py| tell(py, progress.as_ref(), now)) {
                Ok(()) => true,
                Err(error) => {
                    raised = Some(error);
                    false
                }
            });
        (answer, raised)
    });
    match (answer, raised) {
        (_, Some(raised)) => Err(raised),
        (Ok(Some(report)), None) => whole(py, &report),
        (Ok(None), None) => unreachable!("only what was raised stops a run"),
        (Err(error), None) => Err(raise(py, &error)),
    }
}

/// Every workload and what it does.
#[pyfunction]
pub(crate) fn workloads(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    for workload in Workload::ALL {
        dict.set_item(workload.to_string(), workload.gloss())?;
    }
    Ok(dict)
}

/// The rows of a run: the kernel, then each locking mode.
#[pyfunction]
pub(crate) fn rows() -> Vec<String> {
    Row::all().iter().map(ToString::to_string).collect()
}

/// One byte per page of a file, as mincore: 1 = in the kernel's page cache.
#[pyfunction]
#[pyo3(signature = (path, first=0, count=None))]
#[allow(clippy::needless_pass_by_value, reason = "arguments from Python")]
pub(crate) fn kernel_residency(
    py: Python<'_>,
    #[pyo3(from_py_with = args::path)] path: std::path::PathBuf,
    #[pyo3(from_py_with = args::first)] first: u64,
    #[pyo3(from_py_with = args::count)] count: Option<u64>,
) -> PyResult<Bound<'_, PyBytes>> {
    slices::collect(py, count.unwrap_or(u64::MAX), PAGES, |done, slice| {
        py.detach(|| workload::kernel_residency(&path, first.saturating_add(done), slice))
            .map_err(|error| raise(py, &error))
    })
}

fn tell(py: Python<'_>, progress: Option<&Py<PyAny>>, now: Progress) -> PyResult<()> {
    py.check_signals()?;
    if let Some(progress) = progress {
        progress.call1(py, (now.done, now.total, now.row.to_string(), now.rate.to_string()))?;
    }
    Ok(())
}

fn whole<'py>(py: Python<'py>, report: &Report) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("workload", report.workload.to_string())?;
    dict.set_item("threads", report.threads)?;
    dict.set_item("cpus", report.cpus)?;
    dict.set_item("pinned", report.pinned)?;
    dict.set_item("file_size", report.file_size)?;
    dict.set_item("length", report.length)?;
    dict.set_item("capacity", report.capacity)?;
    dict.set_item("stride", report.stride)?;
    dict.set_item("clock_ns", report.clock_ns)?;
    dict.set_item("sample_every", SAMPLE_EVERY)?;
    dict.set_item("pair", PAIR)?;
    let runs = report.runs.iter().map(|run| cell(py, run)).collect::<PyResult<Vec<_>>>()?;
    dict.set_item("runs", PyList::new(py, runs)?)?;
    Ok(dict)
}

fn cell<'py>(py: Python<'py>, run: &Run) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("locking", run.row.to_string())?;
    match run.rate {
        Rate::PerSecond(rate) => dict.set_item("writer_rate", rate)?,
        Rate::Max => dict.set_item("writer_rate", "max")?,
    }
    dict.set_item("faults", run.faults())?;
    dict.set_item("speculative_share", run.speculative_share())?;
    dict.set_item("lock_acquisitions", run.lock_acquisitions())?;
    let spread = run.spread(|round| round.faults_per_s);
    dict.set_item("faults_per_s", (spread.median, spread.min, spread.max))?;
    for (name, cut) in CUTS {
        let spread = run.spread_ns(cut);
        dict.set_item(*name, (spread.median, spread.min, spread.max))?;
    }
    let rounds = run.rounds.iter().map(|round| one(py, round)).collect::<PyResult<Vec<_>>>()?;
    dict.set_item("rounds", PyList::new(py, rounds)?)?;
    dict.set_item("timed", run.latencies.len())?;
    dict.set_item("latency_curve", run.latencies.curve())?;
    let events = PyDict::new(py);
    for (name, count) in &run.events {
        events.set_item(name, count)?;
    }
    dict.set_item("events", events)?;
    Ok(dict)
}

fn one<'py>(py: Python<'py>, round: &Round) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("faults", round.faults)?;
    dict.set_item("touches", round.touches)?;
    dict.set_item("faults_per_s", round.faults_per_s)?;
    dict.set_item("seconds", round.seconds)?;
    for (name, cut) in CUTS {
        dict.set_item(*name, cut(&round.quantiles))?;
    }
    dict.set_item("cold_seconds", round.cold_seconds)?;
    dict.set_item("pairs", round.pairs)?;
    dict.set_item("writer_seconds", round.writer_seconds)?;
    Ok(dict)
}

type Cut = fn(&Quantiles) -> u64;

const CUTS: &[(&str, Cut)] =
    &[("ns_p50", |q| q.p50), ("ns_p99", |q| q.p99), ("ns_p999", |q| q.p999), ("ns_max", |q| q.max)];
