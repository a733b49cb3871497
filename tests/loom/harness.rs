//! The wrapper around every model: runs it in every pass, counts executions, requires coverage and a specification, and reports.
//! `tools/models.py` compares the report with a committed table; `tools/guards.py` runs models with one name switched off.
//!
//! The models are modules inside the parts whose functions they call (they need private items); their files are in this folder
//! and are compiled only under `--cfg specmm_loom`. A model calls the functions that ship and adds no atomics.

use crate::rcu;
use crate::sync::Numbers;
use crate::sync::model::{
    Pass, begin_execution, begin_pass, counted, coverage, most_alive, mutant, set_pass, trace,
};
use crate::sync::running::take_pairs;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use super::loom_history::Outcomes;
pub(crate) use super::loom_history::{Address, History};

/// If set, each model describes itself in one line and explores nothing.
const LIST: &str = "SPECMM_LOOM_LIST";
/// The name to switch off; the run must fail.
const OFF: &str = "SPECMM_LOOM_OFF";
/// The pass to run first; with something switched off, the only one.
const PASS: &str = "SPECMM_LOOM_PASS";
/// The execution whose steps to print, with something switched off.
const TRACE: &str = "SPECMM_LOOM_TRACE";
/// A file to which each pass of each model adds a line, and each model that passed another.
const REPORT: &str = "SPECMM_LOOM_REPORT";
/// How many preemptions more than usual bounded models allow.
const MORE: &str = "SPECMM_LOOM_MORE";

/// One model.
pub(crate) struct Model {
    pub(crate) name: &'static str,
    /// Rows of docs/invariants.md that it exercises.
    pub(crate) rows: &'static [u32],
    /// Largest number of preemptions explored; `None` is all of them.
    pub(crate) preemption_bound: Option<usize>,
    /// Whether read sections and grace periods are explored; if not, deferred work is kept to the end.
    pub(crate) grace_periods: bool,
    /// Small enough for the twin pass.
    pub(crate) twin: bool,
    /// Runs one execution; it must hold a [`History`] against its specification.
    pub(crate) body: fn(),
    /// Points that some execution of some pass must reach.
    pub(crate) reaches: &'static [&'static str],
    /// Guards, steps and orderings that must not be missing: with one switched off some pass must fail (`make guards`).
    pub(crate) needs: &'static [&'static str],
}

/// The first execution that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) execution: u64,
    pub(crate) why: String,
    pub(crate) steps: Vec<String>,
}

struct Explored {
    executions: u64,
    /// The most threads that were alive at once.
    threads: usize,
    outcomes: Outcomes,
    /// Coverage points, each with the executions that reached it.
    reached: BTreeMap<String, u64>,
}

impl Model {
    /// Explores the whole model, in every pass.
    pub(crate) fn check(&self) {
        // These two make loom stop early and call it success.
        for name in ["LOOM_MAX_DURATION", "LOOM_MAX_PERMUTATIONS"] {
            assert!(std::env::var_os(name).is_none(), "{name} is set: loom would stop early and say nothing");
        }
        if std::env::var_os(LIST).is_some() {
            return self.list();
        }
        if let (Ok(name), Ok(pass)) = (std::env::var(OFF), std::env::var(PASS)) {
            return self.run_mutant(&name, &pass);
        }
        let (mut reached, mut most, mut all) = (BTreeMap::new(), 0, 0);
        for pass in self.passes() {
            let started = Instant::now();
            let explored = self.explore(pass);
            most = most.max(explored.executions);
            all += explored.executions;
            self.report(pass, &explored, started.elapsed().as_secs_f64());
            for (point, times) in explored.reached {
                *reached.entry(point).or_insert(0) += times;
            }
        }
        self.report_pairs();
        // Only pass A may find that there is nothing to interleave.
        assert!(most > 1, "{}: one execution explores nothing", self.name);
        for point in self.reaches {
            assert!(
                reached.contains_key(*point),
                "{} never reaches {point}; it reaches {reached:?}",
                self.name
            );
        }
        // A point of every execution says nothing.
        assert!(
            !self.needs.is_empty() || self.reaches.iter().any(|point| reached[*point] < all),
            "{} cannot fail: it needs no name, and each execution reaches all of {:?}",
            self.name,
            self.reaches
        );
        self.append(r#""passed": true"#);
    }

    fn passes(&self) -> impl Iterator<Item = Pass> + use<> {
        let first = std::env::var(PASS).ok();
        let mut passes: Vec<_> = Pass::ALL.into_iter().chain(self.twin.then_some(Pass::Twin)).collect();
        passes.sort_by_key(|pass| first.as_deref() != Some(&format!("{pass:?}")));
        passes.into_iter()
    }

    /// One pass with something switched off. It should not return.
    fn run_mutant(&self, name: &str, pass: &str) {
        let pass = self.passes().find(|known| format!("{known:?}") == pass).expect("a pass of this model");
        mutant::switch_off(Some(name));
        println!("loom: {} without {name}", self.name);
        let explored = self.explore(pass);
        assert!(mutant::has_met(name), "{name} is not on the way of {}", self.name);
        println!("loom: survived {} executions", explored.executions);
    }

    /// How far one pass gets with `off` switched off: all executions, or the first that fails. For questions whose answer need
    /// not be yes.
    pub(crate) fn verdict(&self, pass: Pass, off: Option<&str>) -> Result<u64, Failure> {
        mutant::switch_off(off);
        let explore = |traced| {
            let executions = Arc::new(Numbers::new());
            let explored = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.explore_counting(pass, &executions, traced);
            }));
            rcu::model::forget();
            (executions.drawn(), explored)
        };
        let (number, explored) = explore(None);
        let verdict = explored.map(|()| number).map_err(|panic| {
            let _ = explore(Some(number));
            let text = panic.downcast_ref::<String>().cloned();
            let why =
                text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
            Failure { execution: number, why, steps: trace::take() }
        });
        mutant::switch_off(None);
        verdict
    }

    fn explore(&self, pass: Pass) -> Explored {
        let executions = Arc::new(Numbers::new());
        report_death(&executions);
        let traced = std::env::var(TRACE).ok().map(|number| number.parse().expect("a number"));
        begin_pass();
        let _what_came_before = (coverage::take(), History::take_outcomes());
        self.explore_counting(pass, &executions, traced);
        Explored {
            executions: executions.drawn(),
            threads: most_alive(),
            outcomes: History::take_outcomes(),
            reached: coverage::take(),
        }
    }

    /// Records the steps of the execution numbered `traced`.
    fn explore_counting(&self, pass: Pass, executions: &Arc<Numbers>, traced: Option<u64>) {
        let (body, grace_periods) = (self.body, self.grace_periods);
        set_pass(pass);
        rcu::model::set_real(grace_periods);
        let counted = Arc::clone(executions);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = self.bound();
        builder.max_branches = 10_000;
        builder.check(move || {
            if traced == Some(counted.next()) {
                trace::restart();
            }
            begin_execution();
            let checked = History::<()>::checked();
            body();
            rcu::model::drain();
            assert!(History::<()>::checked() > checked, "this execution was held against no specification");
        });
    }

    /// The deep run (`make deep`) explores without a bound.
    fn bound(&self) -> Option<usize> {
        if std::env::var_os("SPECMM_DEEP").is_some() {
            return None;
        }
        let more = std::env::var(MORE).map_or(0, |more| more.parse().expect("a number"));
        self.preemption_bound.map(|bound: usize| bound + more)
    }

    fn report(&self, pass: Pass, explored: &Explored, seconds: f64) {
        let Explored { executions, threads, outcomes: Outcomes { count, hash }, reached } = explored;
        let bound = self.bound().map_or("unbounded".into(), |n| format!("at most {n} preemptions"));
        println!(
            "loom | {} | pass {pass:?} | {bound} | {threads} threads | {executions} executions | {count} outcomes | {seconds:.2} s",
            self.name
        );
        self.append(&format!(
            r#""pass": "{pass:?}", "executions": {executions}, "threads": {threads}, "outcomes": {count}, "outcomes_hash": "{hash:016x}", "reached": {reached:?}, "seconds": {seconds:.2}"#
        ));
    }

    /// Which operations ran at the same time as which, in some pass (`sync/running.rs`).
    fn report_pairs(&self) {
        let pairs: Vec<_> = take_pairs().into_iter().map(<[_; 2]>::from).collect();
        self.append(&format!(r#""pairs": {pairs:?}"#));
    }

    fn list(&self) {
        let passes: Vec<_> = self.passes().map(|pass| format!("{pass:?}")).collect();
        self.append(&format!(r#""passes": {passes:?}"#));
    }

    /// Adds a line of JSON to the report. Names here are plain words, which Rust and JSON quote alike.
    fn append(&self, more: &str) {
        let Some(path) = std::env::var_os(REPORT) else { return };
        let test = std::thread::current().name().expect("the test harness names its threads").to_owned();
        assert_ne!(test, "main", "with --test-threads=1 a test does not know its name: use 2");
        let bound = self.bound().map_or("null".into(), |bound| bound.to_string());
        let line = format!(
            "{{\"model\": {:?}, \"test\": {test:?}, \"rows\": {:?}, \"needs\": {:?}, \"bound\": {bound}, {more}}}\n",
            self.name, self.rows, self.needs
        );
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("a report");
    }
}

/// Makes a run with something switched off report in which execution it failed and, on request, by which steps.
fn report_death(executions: &Arc<Numbers>) {
    if std::env::var_os(OFF).is_none() {
        return;
    }
    let executions = Arc::clone(executions);
    std::panic::set_hook(Box::new(move |panic| {
        let mut text = format!("loom: died in execution {}\nloom: {panic}\n", executions.drawn());
        for step in trace::take() {
            let _ = writeln!(text, "step: {step}");
        }
        print!("{text}");
    }));
}

/// Data that a lock protects: loom reports two accesses that no lock orders.
pub(crate) struct Protected(loom::cell::UnsafeCell<u32>);

// SAFETY: loom checks every access for races; that is what the cell is for.
#[allow(unsafe_code, reason = "a race detector must be shareable")]
unsafe impl Send for Protected {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "a race detector must be shareable")]
unsafe impl Sync for Protected {}

impl Protected {
    pub(crate) fn new() -> Self {
        Self(loom::cell::UnsafeCell::new(0))
    }
    #[allow(unsafe_code, reason = "loom cells hand out raw pointers")]
    pub(crate) fn increment(&self) {
        // SAFETY: loom checks the access; the pointer is valid while the cell is borrowed.
        self.0.with_mut(|value| unsafe { *value += 1 });
    }
    #[allow(unsafe_code, reason = "loom cells hand out raw pointers")]
    pub(crate) fn get(&self) -> u32 {
        // SAFETY: as above.
        self.0.with(|value| unsafe { *value })
    }
}

/// A thread of the model.
pub(crate) fn spawn<T: 'static>(body: impl FnOnce() -> T + 'static) -> loom::thread::JoinHandle<T> {
    loom::thread::spawn(counted(body))
}

/// This execution has reached the named point.
#[allow(clippy::needless_pass_by_value, reason = "so that literals and causes read alike")]
pub(crate) fn reach(point: impl ToString) {
    trace::note(|| format!("reaches {}", point.to_string()));
    coverage::reach(point);
}
