//! The wrapper around every model: runs it in every pass, counts executions, demands coverage, and shows that the guards it
//! names are needed.
//!
//! The models are modules of the rooms whose functions they call (they need what is private there); they live in this folder
//! and are compiled only under `--cfg specmm_loom`. A model calls the functions that ship and has no atomics of its own.

use crate::rcu;
use crate::sync::Tally;
use crate::sync::model::{Pass, begin_execution, coverage, mutant, set_pass};
use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

pub(crate) use loom::thread::spawn;

/// Names the guard to switch off, for a child process.
const OFF: &str = "SPECMM_LOOM_OFF";
/// Names the pass to run, for a child process.
const PASS: &str = "SPECMM_LOOM_PASS";
/// A mutant that runs longer does not end.
const HANG_SECONDS: u64 = 120;
const RAN: &str = "the mutant runs";
const NOT_MET: &str = "is not on the model's way";

/// One model.
pub(crate) struct Model {
    pub(crate) name: &'static str,
    /// Largest number of preemptions explored; `None` is all of them.
    pub(crate) preemption_bound: Option<usize>,
    /// Whether read sections and grace periods are explored, or deferred work is kept to the end.
    pub(crate) grace_periods: bool,
    /// Small enough for the twin pass.
    pub(crate) twin: bool,
    pub(crate) body: fn(),
    /// Points that some execution of every complete pass must reach.
    pub(crate) reaches: &'static [&'static str],
    /// Guards, duties and orderings that must not be missing: with one switched off some pass must fail.
    pub(crate) needs: &'static [&'static str],
}

struct Explored {
    executions: u64,
    reached: BTreeMap<String, u64>,
}

impl Model {
    /// Explores the model whole, then once for each name in `needs` with that name switched off.
    pub(crate) fn check(&self) {
        // These two make loom stop early and call it success.
        for name in ["LOOM_MAX_DURATION", "LOOM_MAX_PERMUTATIONS"] {
            assert!(std::env::var_os(name).is_none(), "{name} is set: loom would stop early and say nothing");
        }
        if let (Ok(name), Ok(pass)) = (std::env::var(OFF), std::env::var(PASS)) {
            return self.run_mutant(&name, &pass);
        }
        let mut reached = BTreeMap::new();
        for pass in self.passes() {
            let started = Instant::now();
            let explored = self.explore(pass, None);
            assert!(explored.executions > 1, "{}: one execution explores nothing", self.name);
            self.report(pass, explored.executions, started.elapsed().as_secs_f64());
            for (point, times) in explored.reached {
                *reached.entry(point).or_insert(0) += times;
            }
        }
        for point in self.reaches {
            assert!(
                reached.contains_key(*point),
                "{} never reaches {point}; it reaches {reached:?}",
                self.name
            );
        }
        for name in self.needs {
            self.check_needed(name);
        }
    }

    /// Some pass must fail without the named guard. Each try is a process of its own: a broken protocol may abort or hang.
    fn check_needed(&self, name: &str) {
        let test = std::thread::current().name().expect("the test harness names its threads").to_owned();
        assert_ne!(test, "main", "with --test-threads=1 a test does not know its name: use 2");
        for pass in [Pass::B, Pass::A, Pass::C, Pass::StaleCas, Pass::Twin] {
            if pass == Pass::Twin && !self.twin {
                continue;
            }
            let mut child = Command::new(std::env::current_exe().expect("the test binary"))
                .args([&test, "--exact", "--nocapture"])
                .env(OFF, name)
                .env(PASS, format!("{pass:?}"))
                .env("RUST_BACKTRACE", "0")
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the test binary runs");
            let started = Instant::now();
            let status = loop {
                match child.try_wait().expect("a child to wait for") {
                    Some(status) => break Some(status),
                    None if started.elapsed().as_secs() > HANG_SECONDS => {
                        child.kill().expect("a child to kill");
                        break None;
                    }
                    None => std::thread::sleep(std::time::Duration::from_millis(5)),
                }
            };
            let mut text = String::new();
            child.stderr.take().expect("piped").read_to_string(&mut text).expect("text");
            assert!(!text.contains(NOT_MET), "{}: {name} {NOT_MET}", self.name);
            assert!(text.contains(RAN), "{}: the run without {name} did not begin", self.name);
            if status.is_some_and(|status| status.success()) {
                continue;
            }
            let why =
                text.lines().skip_while(|line| !line.contains("panicked")).nth(1).unwrap_or("does not end");
            println!("loom | {} | {name} off | dies in pass {pass:?} | {why}", self.name);
            return;
        }
        panic!("{}: nothing fails with {name} switched off", self.name);
    }

    fn passes(&self) -> impl Iterator<Item = Pass> + use<> {
        Pass::ALL.into_iter().chain(self.twin.then_some(Pass::Twin))
    }

    fn run_mutant(&self, name: &str, pass: &str) {
        let pass = self.passes().find(|known| format!("{known:?}") == pass).expect("a pass");
        eprintln!("{RAN}");
        self.explore(pass, Some(name));
        assert!(mutant::met().iter().any(|met| *met == name), "{NOT_MET}");
    }

    fn explore(&self, pass: Pass, off: Option<&str>) -> Explored {
        let (body, grace_periods) = (self.body, self.grace_periods);
        set_pass(pass);
        mutant::switch_off(off);
        rcu::model::set_real(grace_periods);
        let executions = Arc::new(Tally::new());
        let counted = Arc::clone(&executions);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = self.bound();
        builder.max_branches = 10_000;
        builder.check(move || {
            counted.add(1);
            begin_execution();
            body();
            rcu::model::drain();
        });
        Explored { executions: executions.get(), reached: coverage::take() }
    }

    /// The deep run (`make deep`) explores without a bound.
    fn bound(&self) -> Option<usize> {
        if std::env::var_os("SPECMM_DEEP").is_some() { None } else { self.preemption_bound }
    }

    fn report(&self, pass: Pass, executions: u64, seconds: f64) {
        let bound = self.bound().map_or("unbounded".into(), |n| format!("at most {n} preemptions"));
        println!("loom | {} | pass {pass:?} | {bound} | {executions} executions | {seconds:.2} s", self.name);
    }
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

/// This execution came here.
#[allow(clippy::needless_pass_by_value, reason = "so that literals and causes read alike")]
pub(crate) fn reach(point: impl ToString) {
    coverage::reach(point);
}
