//! The wrapper around every test under shuttle: runs a body under many schedules, counts them, requires coverage, and shows that
//! the guards it names are needed.
//!
//! The tests are modules inside the parts that they check; their files are in this folder and are compiled only under `--cfg
//! specmm_shuttle`. A body calls the functions that ship and adds no atomics. Schedules are drawn by PCT from fixed seeds (so
//! every run is the same) or enumerated. To repeat a failing one, pass the printed schedule, or a file that holds it, to the test
//! that failed:
//!
//! ```text
//! SPECMM_SHUTTLE_REPLAY=FILE make shuttle SHUTTLE=name_of_the_test
//! ```

use crate::page::WORDS;
use crate::rcu;
use crate::sync::imp::{begin_execution, mutant, switch};
use crate::sync::running::take_pairs;
use crate::sync::thread;
use shuttle::scheduler::{DfsScheduler, PctScheduler, ReplayScheduler, Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, MaxSteps, Runner};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// A schedule to repeat, or a file that holds it.
const REPLAY: &str = "SPECMM_SHUTTLE_REPLAY";
/// The guard to switch off; for the children of [`Test::check`], and to repeat what they found.
const OFF: &str = "SPECMM_SHUTTLE_OFF";
/// A file to which each test adds a line.
const REPORT: &str = "SPECMM_SHUTTLE_REPORT";
/// A mutant that runs longer does not end.
const HANG_SECONDS: u64 = 120;
/// Accesses in one execution beyond which threads only keep each other busy.
const MAX_STEPS: usize = 200_000;
/// A schedule up to this length goes into a variable, a longer one into a file.
const SHORT: usize = 2_000;
/// The deep run (`make deep`) draws this many times more.
const DEEP: usize = 30;
const RAN: &str = "the mutant runs";
const NOT_MET: &str = "is not on the way of this test";

/// How schedules are found.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Search {
    /// This many drawn by PCT with one change of priority, and as many with two.
    Pct(usize),
    /// All.
    Dfs,
}

/// Wakes a parked thread only when another unparks it. Spurious wake-ups are allowed too, and PCT makes them, but with them there
/// are infinitely many schedules.
struct Called(DfsScheduler);

impl Scheduler for Called {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.0.new_execution()
    }
    fn next_task(&mut self, tasks: &[&Task], current: Option<TaskId>, yields: bool) -> Option<TaskId> {
        let called: Vec<_> = tasks.iter().copied().filter(|task| !task.blocked()).collect();
        self.0.next_task(&called, current, yields)
    }
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}

/// One body under many schedules.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) search: Search,
    pub(crate) body: fn(),
    /// Points that some execution must reach.
    pub(crate) reaches: &'static [&'static str],
    /// Guards and duties without which some execution must fail.
    pub(crate) needs: &'static [&'static str],
}

/// The progress of a run.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    executions: u64,
    accesses: u64,
}

std::thread_local! {
    static PROGRESS: Cell<Progress> = const { Cell::new(Progress { executions: 0, accesses: 0 }) };
    static SEARCH: Cell<&'static str> = const { Cell::new("") };
    static REACHED: RefCell<BTreeMap<String, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// This execution has reached the named point.
#[allow(clippy::needless_pass_by_value, reason = "so that literals and numbers read alike")]
pub(crate) fn reach(point: impl ToString) {
    REACHED.with(|reached| *reached.borrow_mut().entry(point.to_string()).or_default() += 1);
}

/// Runs each body in its own thread and waits for all.
pub(crate) fn together(bodies: Vec<Box<dyn FnOnce() + Send>>) {
    let threads: Vec<_> = bodies.into_iter().map(thread::spawn).collect();
    for thread in threads {
        thread.join().expect("its panic ended the run");
    }
}

/// The word at `at` (counted in words) of file number `file`: all differ, none is zero.
pub(crate) fn word(file: u64, at: u64) -> u64 {
    (file + 1) << 32 | at
}

/// A file of this many pages.
pub(crate) fn contents(file: u64, pages: u64) -> Vec<u8> {
    (0..pages * WORDS as u64).flat_map(|at| word(file, at).to_ne_bytes()).collect()
}

/// The words of a buffer.
pub(crate) fn words(buf: &[u8]) -> impl Iterator<Item = u64> {
    buf.chunks_exact(8).map(|bytes| u64::from_ne_bytes(bytes.try_into().expect("eight bytes")))
}

/// What a lock protects: reports two threads that are inside at once.
#[derive(Default)]
pub(crate) struct Protected {
    inside: crate::sync::Tally,
    entered: crate::sync::Tally,
}

impl Protected {
    /// Enters, lets other threads run, leaves.
    pub(crate) fn enter(&self) {
        assert_eq!(self.inside.next(), 1, "two are inside");
        switch();
        self.inside.sub(1);
        self.entered.add(1);
    }
    pub(crate) fn entered(&self) -> u64 {
        self.entered.get()
    }
}

impl Test {
    /// Runs the body under every schedule, then with each name in `needs` switched off.
    pub(crate) fn check(&self) {
        // It would replace the fixed seeds.
        assert!(std::env::var_os("SHUTTLE_RANDOM_SEED").is_none(), "SHUTTLE_RANDOM_SEED is set");
        let off = std::env::var(OFF).ok();
        let replay = std::env::var(REPLAY).ok();
        mutant::switch_off(off.map(|name| &*Box::leak(name.into_boxed_str())));
        if let Some(schedule) = replay {
            return self.replay(&schedule);
        }
        if std::env::var_os(OFF).is_some() {
            return self.run_mutant();
        }
        for (label, scheduler) in self.searches() {
            let started = Instant::now();
            let Progress { executions, accesses } = self.run(label, scheduler);
            assert!(executions > 1, "{}: one execution explores nothing", self.name);
            println!(
                "shuttle | {} | {label} | {executions} executions | {} accesses each | {:.2} s",
                self.name,
                accesses / executions,
                started.elapsed().as_secs_f64()
            );
        }
        self.report_pairs();
        let reached = REACHED.with(RefCell::take);
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

    /// Which operations ran at the same time as which (`sync/running.rs`).
    fn report_pairs(&self) {
        let pairs: Vec<_> = take_pairs().into_iter().map(<[_; 2]>::from).collect();
        let Some(path) = std::env::var_os(REPORT) else { return };
        let line = format!("{{\"model\": {:?}, \"pairs\": {pairs:?}}}\n", self.name);
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("a report");
    }

    fn searches(&self) -> Vec<(&'static str, Box<dyn Scheduler + Send>)> {
        match self.search {
            Search::Dfs => vec![("every schedule", Box::new(Called(DfsScheduler::new(None, false))))],
            Search::Pct(executions) => {
                let executions =
                    executions * if std::env::var_os("SPECMM_DEEP").is_some() { DEEP } else { 1 };
                let draw = |seed, depth| Box::new(PctScheduler::new_from_seed(seed, depth, executions));
                vec![("PCT, depth 2, seed 2", draw(2, 2)), ("PCT, depth 3, seed 3", draw(3, 3))]
            }
        }
    }

    fn run(&self, label: &'static str, scheduler: Box<dyn Scheduler + Send>) -> Progress {
        PROGRESS.take();
        SEARCH.set(label);
        let mut config = Config::new();
        config.max_steps = MaxSteps::FailAfter(MAX_STEPS);
        config.stack_size = 1 << 18;
        config.silence_warnings = true;
        config.ungraceful_shutdown_config.immediately_return_on_panic = true;
        let body = self.body;
        Runner::new(scheduler, config).run(move || {
            count(|progress| progress.executions += 1);
            begin_execution();
            // The domain is made before threads could race to make it.
            drop(rcu::read());
            body();
            rcu::barrier();
            assert_eq!(rcu::waiting(), 0, "deferred work is left");
            count(|progress| progress.accesses += shuttle::current::context_switches() as u64);
        });
        PROGRESS.get()
    }

    /// Repeats one schedule.
    fn replay(&self, schedule: &str) {
        let schedule = if Path::new(schedule).is_file() {
            std::fs::read_to_string(schedule).expect("a readable schedule")
        } else {
            schedule.to_owned()
        };
        eprintln!("{RAN}");
        let mut scheduler = ReplayScheduler::new_from_encoded(schedule.trim());
        // A failure there may pass here: then the schedule ends before the body does.
        scheduler.set_allow_incomplete();
        self.run("replay", Box::new(scheduler));
        eprintln!("{}: the schedule does not fail", self.name);
    }

    fn run_mutant(&self) {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            eprintln!("{DIED}{}, execution {}", SEARCH.get(), PROGRESS.get().executions);
            report(panic);
        }));
        eprintln!("{RAN}");
        for (label, scheduler) in self.searches() {
            self.run(label, scheduler);
        }
        assert!(mutant::was_met(), "{NOT_MET}");
    }

    /// Some execution must fail without the named guard, and again when its schedule is replayed. Each try is a separate process:
    /// a broken protocol may abort or hang.
    fn check_needed(&self, name: &str) {
        let found = Died::of(&child(name, None));
        let Some(died) = found else { panic!("{}: nothing fails with {name} switched off", self.name) };
        println!("shuttle | {} | {name} off | dies: {} | {}", self.name, died.at, died.why);
        let file = std::env::temp_dir().join(format!("specmm-shuttle-{}-{name}", std::process::id()));
        let again = if died.schedule.len() <= SHORT {
            child(name, Some(&died.schedule))
        } else {
            std::fs::write(&file, &died.schedule).expect("room for a schedule");
            child(name, Some(file.to_str().expect("a printable path")))
        };
        let again = Died::of(&again).map(|again| again.why);
        assert_eq!(again.as_ref(), Some(&died.why), "{}: {name} off: the replay ends otherwise", self.name);
        let _may_be_absent = std::fs::remove_file(file);
    }
}

const DIED: &str = "died at ";

fn count(change: impl FnOnce(&mut Progress)) {
    let mut progress = PROGRESS.get();
    change(&mut progress);
    PROGRESS.set(progress);
}

/// How a mutant died.
struct Died {
    at: String,
    why: String,
    schedule: String,
}

impl Died {
    /// From the child's output; `None` if it survived.
    fn of((lived, text): &(bool, String)) -> Option<Self> {
        assert!(text.contains(RAN), "the mutant did not begin: {text}");
        assert!(!text.contains(NOT_MET), "the name {NOT_MET}");
        if *lived {
            return None;
        }
        let after = |mark: &str| text.split_once(mark).map_or("", |(_, rest)| rest);
        let line = |text: &str| text.lines().next().unwrap_or_default().trim().to_owned();
        Some(Self {
            at: line(after(DIED)),
            // The first panic; a hang or a signal has none.
            why: line(after(" panicked at ").split_once('\n').map_or("no panic", |(_, rest)| rest)),
            schedule: after("failing schedule:\n\"").split('"').next().unwrap_or_default().trim().to_owned(),
        })
    }
}

/// Runs this test in a separate process with a name switched off: returns whether it survived, and its output.
fn child(name: &str, replay: Option<&str>) -> (bool, String) {
    let test = std::thread::current().name().expect("the test harness names its threads").to_owned();
    assert_ne!(test, "main", "with --test-threads=1 a test does not know its name: use 2");
    let mut command = Command::new(std::env::current_exe().expect("the test binary"));
    command.args([&test, "--exact", "--nocapture"]).env(OFF, name).env("RUST_BACKTRACE", "0");
    if let Some(schedule) = replay {
        command.env(REPLAY, schedule);
    }
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the test binary runs");
    let mut pipe = child.stderr.take().expect("piped");
    // Read during the wait: a schedule may be longer than a pipe holds.
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).expect("a pipe");
        String::from_utf8_lossy(&text).into_owned()
    });
    let started = Instant::now();
    let lived = loop {
        match child.try_wait().expect("a child to wait for") {
            Some(status) => break status.success(),
            None if started.elapsed().as_secs() > HANG_SECONDS => {
                child.kill().expect("a child to kill");
                break false;
            }
            None => std::thread::sleep(std::time::Duration::from_millis(2)),
        }
    };
    (lived, reader.join().expect("its panic"))
}
