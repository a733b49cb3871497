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

/// Who reads a word that the model checker does not see: reports of statistics, and audits, which hold them against what is there.
const REPORTS: [&str; 6] = [
    "/core/sync/tally.rs",
    "/core/stats.rs",
    "/core/cache/audit.rs",
    "/core/cache/shared.rs",
    "/core/store/faulty.rs",
    "/tests.rs",
];

#[test]
fn nothing_is_decided_on_a_statistic() {
    let readers = [".tallied()", ".drawn()"];
    assert_eq!(
        offenders("rust/core", &readers, &REPORTS),
        [""; 0],
        "what decides is an atomic of the facade"
    );
    for report in REPORTS.iter().filter(|file| **file != "/core/sync/tally.rs") {
        let found = offenders("rust/core", &readers, &[]);
        assert!(found.iter().any(|line| line.contains(report)), "{report} reads none any more");
    }
    // In a file that also does other things, only in a function that reports.
    let functions = [
        ("cache/shared.rs", "fn snapshot("),
        ("stats.rs", "fn sum("),
        ("store/faulty.rs", "fn reads("),
        ("store/faulty.rs", "fn fired("),
    ];
    for file in ["cache/shared.rs", "stats.rs", "store/faulty.rs"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("rust/core").join(file);
        let text = std::fs::read_to_string(path).unwrap();
        let mut function = "";
        for line in text.lines().take_while(|line| !line.starts_with("#[cfg(all(test")) {
            if line.contains(" fn ") {
                function = line;
            }
            if readers.iter().any(|reader| line.contains(reader)) {
                let reports = functions.iter().any(|(there, name)| *there == file && function.contains(name));
                assert!(reports, "{file}: {} reads a statistic", function.trim());
            }
        }
    }
}

/// Words that steer a policy, which the model checker does not see either: where they are, and why any value of them is right.
const GUESSES: [(&str, &str); 5] = [
    ("/core/page/mod.rs", "usage: which pages reclaim takes first"),
    ("/core/cache/window.rs", "again: how much of a failed window one request asks for"),
    ("/core/cache/workingset.rs", "age: whether a page that came back is active, and which shadows go first"),
    (
        "/core/cache/shared.rs",
        "page_tables: whether a fault reclaims tables first, which the next access makes again",
    ),
    ("/core/mm/leaf.rs", "own, all: as above"),
];

#[test]
fn every_guess_has_a_reason() {
    let fields = |allowed: &[&str]| -> Vec<String> {
        let found = offenders("rust/core", &["Hint,", "Guess,", "Guess>,", "(Guess)", "(Hint)"], allowed);
        found.into_iter().filter(|line| !line.contains(": use ") && !line.contains("pub use")).collect()
    };
    let allowed: Vec<&str> = GUESSES.iter().map(|(file, _)| *file).collect();
    assert_eq!(fields(&allowed), [""; 0], "why is any value right?");
    for file in allowed {
        assert!(fields(&[]).iter().any(|line| line.contains(file)), "{file} guesses nothing any more");
    }
}

#[test]
fn results_of_models_are_the_same_in_every_run() {
    // Else the table of models would differ too: addresses are `Address`.
    let needles = [".addr()", ":p}", "HashMap", "HashSet", "ThreadId"];
    assert_eq!(offenders("tests/loom", &needles, &["/history.rs", "/canaries"]), [""; 0]);
    assert!(!offenders("tests/loom", &needles, &[]).is_empty(), "the search finds what is there");
}

/// Specifications of operations (`History::call`) that say of whatever they are given that it is right.
fn blind_specifications(text: &str) -> usize {
    let code = source::code(text);
    let words = source::words(&code);
    let is_blind = |at: usize| matches!(words[at..], [",", "_", "|", "true", ..]);
    (0..words.len()).filter(|&at| is_blind(at)).count()
}

#[test]
fn specifications_look_at_what_was_returned() {
    for (path, text) in sources("tests/loom") {
        assert_eq!(blind_specifications(&text), 0, "{}", path.display());
    }
    for (text, count) in [
        ("history.call(\"a\", || a(), |_, _| true)", 1),
        ("history.ask(\n\"a\",\n|| a(),\n|state, _| true,\n)", 1),
        // What returns nothing cannot return what is wrong, and a change of the state is for later results.
        ("history.call(\"a\", || a(), |_, ()| true)", 0),
        ("history.call(\"a\", || a(), |state, _| { *state = 1; true })", 0),
        ("history.call(\"a\", || a(), |_, &seen| seen)", 0),
    ] {
        assert_eq!(blind_specifications(text), count, "{text}");
    }
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
