//! Drivers of the workloads that `specmm faults` and the benchmarks run, and the query for the kernel's pages of a file.
//!
//! Owns: the faulting threads, the thread that maps and unmaps at the same time, the timing of both, and the results as plain
//! structs. Does no locking: it uses address spaces as any program would, and so does the `kernel` row, which makes the same
//! touches and the same mappings with the real mmap(2).
//!
//! A run is a grid of rows (the kernel, each locking mode) and writer rates. Rounds of all cells are interleaved, so that a
//! change in the machine's load affects every cell. One round of a specmm row:
//!
//! 1. *Cold*: an empty cache and a fresh address space. Each thread faults its part of the mapping in, page by page, which
//!    reads the file. It is counted in the events and timed separately.
//! 2. *Warm*: each thread zaps its part (`madvise(DONTNEED)`; the page cache keeps the pages) and faults it in again,
//!    repeatedly. The zapping is not timed. The writer works at the same time, at its rate.
//! 3. *Quiescence*: the identities of the events hold and the cache's audit passes, or the run fails.
//!
//! What counts as a fault: after a zap, threads touch one byte in each fault-around window, so each touch is exactly one fault,
//! in the kernel as here, and no touch hits an entry that a neighbour's fault has set. A row's threads count faults, not touches:
//! specmm returns how many a touch took, and the kernel counts them for each thread (`getrusage`).

#![allow(clippy::cast_precision_loss, reason = "counts become figures for people")]

mod driver;
mod faulter;
#[allow(unsafe_code, reason = "the kernel row uses the real mmap(2)")]
mod kernel;
mod latency;
#[allow(unsafe_code, reason = "mmap(2) and mincore(2)")]
mod mincore;
mod plan;
mod report;
#[allow(unsafe_code, reason = "a signal handler for the kernel row")]
mod sigbus;
mod space;
mod writer;

pub use driver::{Progress, run};
pub use latency::{Latencies, Quantiles};
pub use mincore::kernel_residency;
pub use plan::{MAX_LENGTH, Plan, Rate, Row, Workload};
pub use report::{Report, Round, Run, Spread};
pub use writer::{PAIR, REGION};

/// One touch in this many is timed, on average: the gaps are random, so that no pattern of the walk is favoured.
pub const SAMPLE_EVERY: u64 = 64;
