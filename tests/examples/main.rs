//! The examples do what they say.
#![cfg(not(any(specmm_loom, specmm_shuttle)))]
#![allow(missing_docs, reason = "a test suite")]

use std::process::Command;

/// Runs an example as a reader would, with the features of this build so that little is built anew.
fn example(name: &str, arguments: &[&str]) -> String {
    let features: &[&str] = if cfg!(feature = "workload") { &["--all-features"] } else { &[] };
    let run = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["run", "--quiet", "--example", name])
        .args(features)
        .arg("--")
        .args(arguments)
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{name}: {errors}");
    String::from_utf8(run.stdout).expect("examples print text")
}

#[test]
fn read_counts_every_page_once() {
    let shown = example("read", &["Cargo.lock"]);
    let line = shown.lines().find(|line| line.contains("were in the cache")).expect("a line of counts");
    let counts: Vec<u64> =
        line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    assert_eq!(counts.iter().sum::<u64>(), 8_000, "{shown}");
    assert!(counts[0] > counts[1], "the file is smaller than the cache: {shown}");
}

#[test]
fn read_names_a_file_that_is_not_there() {
    let run = std::panic::catch_unwind(|| example("read", &["no-such-file"]));
    let message = *run.expect_err("it fails").downcast::<String>().expect("a message");
    assert!(message.contains("no-such-file"), "{message}");
}

#[test]
fn store_makes_few_requests() {
    let shown = example("store", &[]);
    let requests: u64 =
        shown.lines().next().and_then(|line| line.split(' ').rev().nth(1)).unwrap().parse().unwrap();
    assert!(requests < 200, "9124 reads: {shown}");
    assert!(shown.contains(" 3711105 "), "every byte was read once: {shown}");
    assert!(shown.contains("the second time none"));
}

#[test]
fn faults_take_the_lock_or_do_not() {
    let shown = example("faults", &[]);
    let count = |part: &str, event: &str| -> u64 {
        let from = shown.find(part).unwrap_or_else(|| panic!("no {part} in {shown}"));
        let line = shown[from..].lines().find(|line| line.contains(event)).expect("the event");
        line.split_whitespace().last().unwrap().parse().unwrap()
    };
    assert_eq!(shown.matches(": 256 faults").count(), 2, "{shown}");
    assert!(count("MmapLock", "mmap_lock_read") >= 256);
    assert!(count("Speculative", "spf_commit") > 200);
    assert!(shown.contains("after the truncation: offset 100000"), "{shown}");
}
