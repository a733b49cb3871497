//! The driver: runs a plan's rounds, one after the other, and collects their results.

use super::faulter::{self, Faulter, Part};
use super::kernel::Kernel;
use super::latency::{Latencies, clock_cost};
use super::plan::{Plan, Rate, Row, Sizes, Workload};
use super::report::{Report, Round, Run};
use super::space::{Kind, Space, Specmm};
use super::writer;
use crate::cache::{Io, PageCache};
use crate::error::{Error, IoError, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How often the caller is asked whether to continue.
const TICK: Duration = Duration::from_millis(50);

/// The progress of a run.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Rounds finished, over all cells.
    pub done: u32,
    /// Rounds in total.
    pub total: u32,
    /// What serves the faults now.
    pub row: Row,
    /// The writer's rate now.
    pub rate: Rate,
}

/// The parameters of one round.
struct Setting<'a> {
    plan: &'a Plan,
    length: u64,
    clock: u64,
    cpus: &'a [usize],
    rate: Rate,
    stop: &'a AtomicBool,
}

/// The results of one round.
struct Outcome {
    round: Round,
    latencies: Latencies,
}

/// Runs a plan. `go_on` is called with the progress about every 50 ms; when it returns false the run ends with `None`.
///
/// # Errors
/// [`Error::InvalidArgument`] for a plan that cannot work; the errors of mapping and faulting the file; [`Error::Invariant`] if
/// the counters or the cache are inconsistent at the end of a round.
pub fn run(plan: &Plan, go_on: &mut dyn FnMut(Progress) -> bool) -> Result<Option<Report>> {
    let sizes = plan.check()?;
    let kernel = Kernel::new(&plan.path)?;
    let cache = PageCache::new(sizes.capacity, Io::Threads)?;
    let cpus = allowed_cpus();
    let mut report = begin(plan, sizes, cpus.len());
    let total = plan.rounds * u32::try_from(report.runs.len()).unwrap_or(u32::MAX);
    let mut done = 0;
    for _ in 0..plan.rounds {
        for run in &mut report.runs {
            let stop = AtomicBool::new(false);
            let (clock, length) = (report.clock_ns, sizes.length);
            let setting = Setting { plan, length, clock, cpus: &cpus, rate: run.rate, stop: &stop };
            let progress = Progress { done, total, row: run.row, rate: run.rate };
            let mut tick = || go_on(progress);
            let (outcome, events) = match run.row {
                Row::Kernel => (setting.round(&kernel, &mut tick)?, Vec::new()),
                Row::Specmm(locking) => {
                    let space = Specmm::new(&cache, &plan.path, locking)?;
                    let outcome = setting.round(&space, &mut tick)?;
                    let events = space.mm.vm_events();
                    check_identities(&events)?;
                    space.close()?;
                    cache.check()?;
                    (outcome, events)
                }
            };
            let Some(outcome) = outcome else { return Ok(None) };
            run.add(outcome.round, &outcome.latencies, &events);
            done += 1;
        }
    }
    Ok(Some(report))
}

fn begin(plan: &Plan, sizes: Sizes, cpus: usize) -> Report {
    let cells = plan.rates.iter().flat_map(|&rate| plan.rows.iter().map(move |&row| Run::new(row, rate)));
    Report {
        workload: plan.workload,
        threads: plan.threads,
        cpus: cpus.max(1),
        pinned: cpus > 0,
        file_size: sizes.file,
        length: sizes.length,
        capacity: sizes.capacity,
        stride: plan.workload.stride(),
        clock_ns: clock_cost(),
        runs: cells.collect(),
    }
}

/// Attempts are commits plus aborts, and aborts are the sum of their causes.
fn check_identities(events: &[(&'static str, u64)]) -> Result<()> {
    let event = |name| events.iter().find(|(event, _)| *event == name).map_or(0, |(_, count)| *count);
    let causes: u64 =
        events.iter().filter(|(name, _)| name.starts_with("spf_abort_")).map(|(_, count)| count).sum();
    let (attempts, commits, aborts) = (event("spf_attempt"), event("spf_commit"), event("spf_abort"));
    if attempts == commits + aborts && aborts == causes {
        return Ok(());
    }
    Err(Error::Invariant(format!(
        "{attempts} attempts are not {commits} commits plus {aborts} aborts, or those are not {causes} by cause"
    )))
}

/// Processors that this process may use, as far as the system reports them.
fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

impl Setting<'_> {
    /// One round on a fresh address space. `None`: the caller wants to stop.
    fn round<S: Space>(&self, space: &S, tick: &mut dyn FnMut() -> bool) -> Result<Option<Outcome>> {
        let common = match self.plan.workload {
            Workload::FaultVsMmap => Some(space.map(0, self.length, Kind::SharedRead)?),
            Workload::FaultReadShared | Workload::PageFault2 => None,
        };
        let gate = Gate::default();
        let (faulters, writer, went_on) = std::thread::scope(|scope| {
            // A thread that cannot start ends the round for all.
            let no_thread = |error| {
                self.stop.store(true, Ordering::Relaxed);
                Error::Io(IoError::new(error, "a thread of the workload"))
            };
            let faulters: Vec<_> = (0..self.plan.threads)
                .map(|number| {
                    let faulter = self.faulter(space, common.as_ref(), number);
                    let gate = &gate;
                    let thread = std::thread::Builder::new().spawn_scoped(scope, move || {
                        let done = faulter.run(|| {
                            gate.arrive(self.stop);
                            self.pin(number);
                        });
                        // A thread that fails ends the round for all.
                        self.stop.fetch_or(done.is_err(), Ordering::Relaxed);
                        done
                    });
                    thread.map_err(no_thread)
                })
                .collect();
            let writer = (self.rate != Rate::PerSecond(0)).then(|| {
                let thread = std::thread::Builder::new().spawn_scoped(scope, || {
                    gate.wait(self.stop);
                    // If there is a spare processor, the writer is bound to it; otherwise the system places it.
                    if self.plan.threads < self.cpus.len() {
                        self.pin(self.plan.threads);
                    }
                    let done = writer::write(space, self.length, self.rate, self.stop);
                    self.stop.fetch_or(done.is_err(), Ordering::Relaxed);
                    done
                });
                thread.map_err(no_thread)
            });
            let went_on = self.conduct(&gate, tick);
            self.stop.store(true, Ordering::Relaxed);
            let faulters: Vec<_> =
                faulters.into_iter().map(|thread| thread?.join().expect("no thread panics")).collect();
            let writer = writer.map(|thread| thread?.join().expect("no thread panics"));
            (faulters, writer, went_on)
        });
        let faulters = faulters.into_iter().collect::<Result<Vec<_>>>()?;
        let writer = writer.transpose()?.unwrap_or_default();
        if let Some(mapping) = common {
            space.unmap(mapping)?;
        }
        Ok(went_on.then(|| gather(&faulters, writer)))
    }

    fn faulter<'s, S: Space>(
        &'s self,
        space: &'s S,
        common: Option<&'s S::Mapping>,
        number: usize,
    ) -> Faulter<'s, S> {
        let whole = Part { offset: 0, length: self.length };
        let part = if self.plan.workload == Workload::FaultReadShared { whole } else { self.slice(number) };
        Faulter {
            space,
            common,
            part,
            workload: self.plan.workload,
            stop: self.stop,
            clock: self.clock,
            number,
        }
    }

    /// The slice of thread `number`: whole fault-around windows, as equal as they can be. Threads share slices if there
    /// are fewer windows than threads.
    fn slice(&self, number: usize) -> Part {
        let stride = self.plan.workload.stride();
        let windows = self.length.div_ceil(stride);
        let slices = windows.min(self.plan.threads as u64);
        let border = |slice: u64| (windows * slice / slices * stride).min(self.length);
        let slice = number as u64 % slices;
        Part { offset: border(slice), length: border(slice + 1) - border(slice) }
    }

    /// Opens the gate when all threads have arrived, and waits until the round is over. False: the caller wants to stop.
    fn conduct(&self, gate: &Gate, tick: &mut dyn FnMut() -> bool) -> bool {
        let mut asked = Instant::now();
        let mut go_on = |now: Instant| {
            if now - asked < TICK {
                return true;
            }
            asked = now;
            tick()
        };
        while gate.arrived.load(Ordering::Relaxed) < self.plan.threads {
            // A thread that failed before it came here.
            if self.stop.load(Ordering::Relaxed) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
            if !go_on(Instant::now()) {
                return false;
            }
        }
        gate.open.store(true, Ordering::Release);
        let round = Duration::from_secs_f64(self.plan.seconds / f64::from(self.plan.rounds));
        let end = Instant::now() + round;
        loop {
            let now = Instant::now();
            if now >= end || self.stop.load(Ordering::Relaxed) {
                return true;
            }
            std::thread::sleep((end - now).min(TICK));
            if !go_on(Instant::now()) {
                return false;
            }
        }
    }

    /// Binds the calling thread to its own processor, where that is allowed. Not before the cold pass: threads that the cache
    /// starts then would be bound as well.
    fn pin(&self, number: usize) {
        if self.cpus.is_empty() {
            return;
        }
        let mut set = CpuSet::new();
        set.set(self.cpus[number % self.cpus.len()]);
        let _best_effort = sched_setaffinity(None, &set);
    }
}

/// Where the threads wait until the last has finished its cold pass.
#[derive(Default)]
struct Gate {
    arrived: AtomicUsize,
    open: AtomicBool,
}

impl Gate {
    fn arrive(&self, stop: &AtomicBool) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
        self.wait(stop);
    }

    fn wait(&self, stop: &AtomicBool) {
        // Polled, so that no thread waits forever for one that failed. Pairs with the Release in `conduct`.
        while !self.open.load(Ordering::Acquire) && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

fn gather(faulters: &[faulter::Done], writer: writer::Done) -> Outcome {
    let mut latencies = Latencies::new();
    let (mut faults, mut touches, mut faults_per_s, mut busy) = (0, 0, 0.0, 0.0);
    let mut cold = Duration::ZERO;
    for done in faulters {
        latencies.add(&done.latencies);
        faults += done.faults;
        touches += done.touches;
        let seconds = done.busy.as_secs_f64();
        busy += seconds;
        if seconds > 0.0 {
            faults_per_s += done.faults as f64 / seconds;
        }
        cold = cold.max(done.cold);
    }
    let round = Round {
        faults,
        touches,
        faults_per_s,
        seconds: busy / faulters.len() as f64,
        quantiles: latencies.quantiles(),
        cold_seconds: cold.as_secs_f64(),
        pairs: writer.pairs,
        writer_seconds: writer.seconds,
    };
    Outcome { round, latencies }
}
