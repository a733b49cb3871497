//! Threads that use everything the core offers, on real files, for a given time: the program that `tools/tsan` and `tools/asan`
//! watch.
//!
//! ```text
//! stress [--seconds N] [--threads N] [--seed N]     the run; fails if any kind of operation never succeeded
//! stress --plant NAME                               one bug on purpose, see `plant`
//! stress --off NAME [--seconds N] ...               the run with one named guard or ordering of the core switched off
//! ```
//!
//! There is no test harness: its channels and scoped threads are code of the standard library, which no sanitizer sees. The
//! threads share nothing but the core itself, so all ordering between them comes from the core.

mod plant;
mod tally;
#[cfg(specmm_tsan)]
mod watch;
mod words;
mod work;
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};
use tally::Tally;
use world::{PLANS, World};

struct Arguments {
    seconds: f64,
    threads: usize,
    seed: u64,
    plant: Option<String>,
    off: Option<String>,
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments { seconds: 3.0, threads: 6, seed: 1, plant: None, off: None };
    let mut rest = std::env::args().skip(1);
    while let Some(name) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{name} needs a value"))?;
        let bad = || format!("{name} {value:?} is not a value");
        match name.as_str() {
            "--seconds" => parsed.seconds = value.parse().map_err(|_| bad())?,
            "--threads" => parsed.threads = value.parse().map_err(|_| bad())?,
            "--seed" => parsed.seed = value.parse().map_err(|_| bad())?,
            "--plant" => parsed.plant = Some(value),
            "--off" => parsed.off = Some(value),
            _ => return Err(format!("{name} is none of --seconds, --threads, --seed, --plant, --off")),
        }
    }
    if !(2..=16).contains(&parsed.threads) {
        return Err(format!("{} threads are not between 2 (each cuts a file) and 16", parsed.threads));
    }
    if !(0.0..1e6).contains(&parsed.seconds) {
        return Err(format!("{} seconds cannot be", parsed.seconds));
    }
    Ok(parsed)
}

fn main() {
    let arguments = arguments().unwrap_or_else(|why| {
        eprintln!("stress: {why}");
        std::process::exit(2);
    });
    if let Some(name) = &arguments.plant {
        plant::wrong(name);
        println!("stress: the planted bug {name} went unnoticed by the program itself");
        return;
    }
    if let Some(name) = &arguments.off {
        switch_off(name);
    }
    plant::right();
    let total = stress(&arguments);
    total.print();
    let missing = total.missing();
    assert!(missing.is_empty(), "never seen in this run: {}", missing.join(", "));
    println!("stress: passed");
}

#[cfg(specmm_mutants)]
fn switch_off(name: &str) {
    specmm::internals::sync::switch_off(name);
}

#[cfg(not(specmm_mutants))]
fn switch_off(name: &str) {
    eprintln!("stress: {name} stays on: this build has no --cfg specmm_mutants");
    std::process::exit(2);
}

/// Rounds, each with its own cache.
fn stress(arguments: &Arguments) -> Tally {
    let &Arguments { seconds, threads, seed, .. } = arguments;
    println!("stress: seed {seed}, {threads} threads, {seconds} seconds");
    let length = Duration::from_secs_f64(seconds) / PLANS.len() as u32;
    let mut total = Tally::default();
    for (round, plan) in PLANS.iter().enumerate() {
        let world = Arc::new(World::new(plan));
        let deadline = Instant::now() + length;
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let world = Arc::clone(&world);
                let seed = seed ^ ((round * threads + thread + 1) as u64) << 32;
                std::thread::spawn(move || work::run(&world, thread, seed, deadline))
            })
            .collect();
        // All are joined before the first panic is propagated.
        let results: Vec<_> = workers.into_iter().map(std::thread::JoinHandle::join).collect();
        for result in results {
            total.add(&result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        let world = Arc::into_inner(world).expect("every worker has ended");
        world.audit_and_close(&mut total);
    }
    total
}
