//! The wrapper around every test under shuttle: runs a body under many schedules, counts them, requires coverage, and shows that
//! the guards it names are needed.
//!
//! The tests are modules inside the parts that they check; their files are in this folder and are compiled only under `--cfg
//! specmm_shuttle`. A body calls the functions that ship and adds no atomics. Schedules are drawn by PCT from fixed seeds (so
//! every run is the same) or enumerated. What must be found (a coverage point, a failure without some guard) may need one schedule of
//! thousands, and a harmless change of the code moves it; so the search for it goes on with further seeds, up to [`ROUNDS`] times as
//! many schedules as the test draws for itself. To repeat a failing one, pass the printed schedule, or a file that holds it, to the test
//! that failed:
//!
//! ```text
//! SPECMM_SHUTTLE_REPLAY=FILE make shuttle SHUTTLE=name_of_the_test
//! ```

use crate::page::WORDS;
use crate::rcu;
use crate::sync::imp::{begin_execution, mutant, switch};
use crate::sync::running::{Pair, take_pairs};
use crate::sync::thread;
use shuttle::scheduler::{DfsScheduler, PctScheduler, ReplayScheduler, Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, MaxSteps, Runner};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A schedule to repeat, or a file that holds it.
const REPLAY: &str = "SPECMM_SHUTTLE_REPLAY";
/// The guard to switch off; for the children of [`Test::check`], and to repeat what they found.
const OFF: &str = "SPECMM_SHUTTLE_OFF";
/// A file to which each test adds a line.
const REPORT: &str = "SPECMM_SHUTTLE_REPORT";
/// If set, nothing is switched off: for runs of edited sources (tools/mutants), which must fail by themselves.
const AS_IS: &str = "SPECMM_SHUTTLE_AS_IS";
/// A mutant that runs longer without a new search does not end.
const HANG_SECONDS: u64 = 120;
/// How many times a test's own number of schedules is drawn before what must be found counts as absent.
const ROUNDS: u64 = 20;
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
    /// This many drawn by PCT with one change of priority, and as many with two: one round.
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
    static SEARCH: RefCell<String> = const { RefCell::new(String::new()) };
    /// Executions of the searches before this one.
    static EARLIER: Cell<u64> = const { Cell::new(0) };
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

/// Each of these operations with each.
fn pairs_of(operations: &[&'static str]) -> BTreeSet<Pair> {
    let with_each =
        |&one: &&'static str| operations.iter().map(move |&other| (one.min(other), one.max(other)));
    operations.iter().flat_map(with_each).collect()
}

/// What a lock protects: reports two threads that are inside at once.
#[derive(Default)]
pub(crate) struct Protected {
    // The standard library's mutexes, which never wait here: one thread runs at a time, and none is switched from inside them.
    inside: std::sync::Mutex<u64>,
    entered: std::sync::Mutex<u64>,
}

impl Protected {
    /// Enters, lets other threads run, leaves.
    pub(crate) fn enter(&self) {
        let before = std::mem::replace(&mut *self.inside.lock().expect("no panic inside"), 1);
        assert_eq!(before, 0, "two are inside");
        switch();
        *self.inside.lock().expect("no panic inside") = 0;
        *self.entered.lock().expect("no panic inside") += 1;
    }
    pub(crate) fn entered(&self) -> u64 {
        *self.entered.lock().expect("no panic inside")
    }
}

impl Test {
    /// Runs the body under every schedule, then with each name in `needs` switched off.
    pub(crate) fn check(&self) {
        self.check_each_against_each(&[]);
    }

    /// The same, and each of these operations must run against each (`sync/running.rs`).
    pub(crate) fn check_each_against_each(&self, operations: &[&'static str]) {
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
        let times = if std::env::var_os("SPECMM_DEEP").is_some() { DEEP } else { 1 };
        let mut apart = pairs_of(operations);
        let mut met = BTreeSet::new();
        let mut run = |search| {
            self.run_and_tell(search);
            met.append(&mut take_pairs());
            apart.retain(|pair| !met.contains(pair));
            self.never_reached().is_none() && apart.is_empty()
        };
        let mut is_done = false;
        for search in self.searches(0, times) {
            is_done = run(search);
        }
        for search in (1..ROUNDS).flat_map(|round| self.searches(round, 1)) {
            if is_done {
                break;
            }
            is_done = run(search);
        }
        self.report_pairs(&met);
        if let Some(point) = self.never_reached() {
            panic!("{} never reaches {point}; it reaches {:?}", self.name, REACHED.with(RefCell::take));
        }
        assert!(apart.is_empty(), "{} never runs these against each other: {apart:?}", self.name);
        for name in self.needs.iter().filter(|_| std::env::var_os(AS_IS).is_none()) {
            self.check_needed(name);
        }
    }

    fn run_and_tell(&self, (label, scheduler): Labelled) {
        let started = Instant::now();
        let Progress { executions, accesses } = self.run(&label, scheduler);
        assert!(executions > 1, "{}: one execution explores nothing", self.name);
        println!(
            "shuttle | {} | {label} | {executions} executions | {} accesses each | {:.2} s",
            self.name,
            accesses / executions,
            started.elapsed().as_secs_f64()
        );
    }

    fn never_reached(&self) -> Option<&'static str> {
        REACHED
            .with_borrow(|reached| self.reaches.iter().copied().find(|point| !reached.contains_key(*point)))
    }

    /// Which operations ran at the same time as which (`sync/running.rs`).
    fn report_pairs(&self, pairs: &BTreeSet<Pair>) {
        let pairs: Vec<_> = pairs.iter().map(|&pair| <[_; 2]>::from(pair)).collect();
        let Some(path) = std::env::var_os(REPORT) else { return };
        let line = format!("{{\"model\": {:?}, \"pairs\": {pairs:?}}}\n", self.name);
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("a report");
    }

    /// The searches of one round, each with `times` the test's own number of schedules. All schedules are one round.
    fn searches(&self, round: u64, times: usize) -> Vec<Labelled> {
        match self.search {
            Search::Dfs if round > 0 => Vec::new(),
            Search::Dfs => vec![("every schedule".into(), Box::new(Called(DfsScheduler::new(None, false))))],
            Search::Pct(executions) => {
                let draw = |depth| -> Labelled {
                    let seed = 2 * round + depth as u64;
                    let scheduler = PctScheduler::new_from_seed(seed, depth, executions * times);
                    (format!("PCT, depth {depth}, seed {seed}"), Box::new(scheduler))
                };
                vec![draw(2), draw(3)]
            }
        }
    }

    fn run(&self, label: &str, scheduler: Box<dyn Scheduler + Send>) -> Progress {
        EARLIER.set(EARLIER.get() + PROGRESS.take().executions);
        SEARCH.set(label.to_owned());
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
            let (now, earlier) = (PROGRESS.get().executions, EARLIER.get());
            eprintln!(
                "{DIED}{}, execution {now}, schedule {}",
                SEARCH.with_borrow(String::clone),
                earlier + now
            );
            report(panic);
        }));
        eprintln!("{RAN}");
        for round in 0..ROUNDS {
            for (label, scheduler) in self.searches(round, 1) {
                eprintln!("{label}");
                self.run(&label, scheduler);
            }
            assert!(mutant::was_met(), "{NOT_MET}");
        }
        eprintln!("{SURVIVED}{} schedules", EARLIER.get() + PROGRESS.get().executions);
    }

    /// Some execution must fail without the named guard, and again when its schedule is replayed. Each try is a separate process:
    /// a broken protocol may abort or hang.
    fn check_needed(&self, name: &str) {
        let first = child(name, None);
        let Some(died) = Died::of(&first) else {
            let tried = line_after(&first.1, SURVIVED);
            panic!("{}: nothing fails with {name} switched off, in {tried}", self.name)
        };
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
const SURVIVED: &str = "survived ";

/// A scheduler, and how it draws.
type Labelled = (String, Box<dyn Scheduler + Send>);

/// What follows a mark, to the end of the line.
fn line_after<'t>(text: &'t str, mark: &str) -> &'t str {
    let rest = text.split_once(mark).map_or("", |(_, rest)| rest);
    rest.lines().next().unwrap_or_default().trim()
}

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
        let panic = after(" panicked at ").split_once('\n').map(|(_, rest)| rest.lines().next());
        Some(Self {
            at: line_after(text, DIED).to_owned(),
            // The first panic; a hang or a signal has none.
            why: panic.map_or("no panic", Option::unwrap_or_default).trim().to_owned(),
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
    let text = Arc::new(Mutex::new(Vec::new()));
    let reader = {
        let text = Arc::clone(&text);
        std::thread::spawn(move || {
            let mut part = [0; 1 << 12];
            while let length @ 1.. = pipe.read(&mut part).expect("a pipe") {
                text.lock().expect("no panic").extend_from_slice(&part[..length]);
            }
        })
    };
    let (mut heard, mut since) = (0, Instant::now());
    let lived = loop {
        let length = text.lock().expect("no panic").len();
        if length > heard {
            (heard, since) = (length, Instant::now());
        }
        match child.try_wait().expect("a child to wait for") {
            Some(status) => break status.success(),
            None if since.elapsed().as_secs() > HANG_SECONDS => {
                child.kill().expect("a child to kill");
                break false;
            }
            None => std::thread::sleep(std::time::Duration::from_millis(2)),
        }
    };
    reader.join().expect("its panic");
    let text = text.lock().expect("no panic");
    (lived, String::from_utf8_lossy(&text).into_owned())
}
