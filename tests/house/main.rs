//! The crate's rules that no compiler checks, checked against the sources.
#![cfg(not(any(specmm_loom, specmm_shuttle)))]
#![allow(missing_docs, reason = "a test suite")]

mod floors;
mod orderings;
mod source;

use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    fn collect(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

/// Lines of code (not comments) that contain one of `needles`, outside the `allowed` paths.
fn offenders(folder: &str, needles: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut offenders = Vec::new();
    for (path, text) in sources(folder) {
        let shown = path.display().to_string();
        if allowed.iter().any(|part| shown.contains(part)) {
            continue;
        }
        for (number, line) in source::code(&text).lines().enumerate() {
            if needles.iter().any(|needle| line.contains(needle)) {
                offenders.push(format!("{shown}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    offenders
}

#[test]
fn only_sync_names_atomics_and_the_model_checker() {
    let needles = ["sync::atomic", "loom::", "shuttle::"];
    // Drivers of workloads are users of the protocol, and one of them is the kernel's own mmap.
    assert_eq!(offenders("rust/core", &needles, &["/core/sync/", "/core/workload/"]), [""; 0]);
    assert!(!offenders("rust/core", &needles, &[]).is_empty(), "the search finds what is there");
}

#[test]
fn models_have_no_atomics_of_their_own() {
    let needles = ["Atomic", "fence("];
    // The canaries test the checker, not a model; the open question needs a fence that shipped code does not have.
    assert_eq!(offenders("tests/loom", &needles, &["/canaries", "/open_question.rs"]), [""; 0]);
    assert_eq!(offenders("tests/shuttle", &needles, &[]), [""; 0]);
}

#[test]
fn rooms_do_not_name_rooms_above_them() {
    // From the bottom up.
    let rooms = ["sync", "rcu", "stats", "store", "xarray", "page", "cache", "mm", "workload"];
    for (at, room) in rooms.iter().enumerate() {
        let above: Vec<String> = rooms[at + 1..].iter().map(|room| format!("crate::{room}::")).collect();
        let needles: Vec<&str> = above.iter().map(String::as_str).collect();
        let prefix = format!("/core/{room}");
        let found = offenders("rust/core", &needles, &[]);
        let mine: Vec<_> = found
            .iter()
            .filter(|line| line.contains(&format!("{prefix}/")) || line.contains(&format!("{prefix}.rs")))
            .collect();
        assert_eq!(mine, [""; 0], "{room} reaches up");
    }
}

#[test]
fn nothing_that_the_crate_depends_on_knows_python() {
    let tree = std::process::Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "tree",
            "--offline",
            "--edges",
            "normal",
            "--all-features",
            "--prefix",
            "none",
            "--package",
            "specmm",
        ])
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).expect("cargo prints text");
    assert!(tree.contains("rustix v"), "the tree names what is there: {tree}");
    let python: Vec<_> =
        tree.lines().filter(|line| line.starts_with("pyo3") || line.contains("python")).collect();
    assert_eq!(python, [""; 0]);
}

#[test]
fn the_core_knows_nothing_of_python() {
    let lock = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(!lock.contains("pyo3"), "the core's manifest names pyo3");
}
