//! Every ordering stronger than relaxed has a name, and none is sequentially consistent but that of a fence.
//!
//! So the word of such an ordering stands in two places only: after the name in `ord!("room.what", Acquire)` or in
//! `ordered_fence!("room.what", Acquire)`. Whether it is written with its path, imported, renamed, or kept in a constant, the word
//! itself stands somewhere.

use super::source::{code, words};

const STRONG: [&str; 4] = ["Acquire", "Release", "AcqRel", "SeqCst"];

/// The primitives themselves. `rcu/membarrier.rs` names its fences where the model checker sees them; drivers of workloads are users
/// of the protocol.
const FACES: [&str; 5] =
    ["/sync/native.rs", "/sync/watched.rs", "/sync/model/", "/rcu/membarrier.rs", "/core/workload/"];

/// Where a text has an ordering without a name, or one that a named place must not have: line and word.
fn unnamed(text: &str) -> Vec<(usize, String)> {
    let code = code(text);
    let words = words(&code);
    let line = |word: &str| code[..word.as_ptr().addr() - code.as_ptr().addr()].matches('\n').count() + 1;
    let is_strong = |at: &usize| STRONG.contains(&words[*at]);
    let is_named = |at: &usize| {
        // The name itself is between quotes, and so no word of the code.
        let written = at.checked_sub(4).map(|from| &words[from..*at]);
        let followed = matches!(words.get(at + 1), Some(&(")" | ",")));
        let named = match written {
            Some(["ord", "!", "(", ","]) => words[*at] != "SeqCst",
            Some(["ordered_fence", "!", "(", ","]) => true,
            _ => false,
        };
        named && followed
    };
    let found = (0..words.len()).filter(is_strong).filter(|at| !is_named(at));
    found.map(|at| (line(words[at]), words[at].to_owned())).collect()
}

/// The words of orderings in the core, by file.
fn in_the_core(of: impl Fn(&str) -> Vec<(usize, String)>, skipped: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in super::sources("rust/core") {
        let shown = path.display().to_string();
        if !skipped.iter().any(|part| shown.contains(part)) {
            found.extend(of(&text).into_iter().map(|(line, word)| format!("{shown}:{line}: {word}")));
        }
    }
    found
}

#[test]
fn orderings_stronger_than_relaxed_have_names() {
    assert_eq!(in_the_core(unnamed, &FACES), [""; 0], "write ord!(\"room.what\", Acquire)");
    for face in FACES {
        let others: Vec<_> = FACES.iter().copied().filter(|other| *other != face).collect();
        assert!(!in_the_core(unnamed, &others).is_empty(), "{face} has none, so it needs no exception");
    }
}

#[test]
fn sequentially_consistent_accesses_do_not_exist() {
    // Fences and barriers provide sequential consistency, because the model checker treats such accesses as acquire-release. The
    // checker's own version of `sync` matches on the word to weaken fences.
    let accesses = |text: &str| {
        let code = code(text);
        let words = words(&code);
        let fences = ["fence", "compiler_fence", "ordered_fence"];
        let is_fence = |at: usize| {
            let before =
                words[..at].iter().rev().find(|word| !"(,!".contains(**word) && !ORDERING.contains(word));
            before.is_some_and(|word| fences.contains(word))
        };
        let at = (0..words.len()).filter(|&at| words[at] == "SeqCst" && !is_fence(at));
        at.map(|at| (0, words[at.saturating_sub(8)..=at].join(" "))).collect()
    };
    assert_eq!(in_the_core(accesses, &["/sync/model/"]), [""; 0]);
    for (text, count) in [
        ("fence(Ordering::SeqCst)", 0),
        ("atomic::compiler_fence(atomic::Ordering::SeqCst)", 0),
        ("ordered_fence!(\"a.b\", SeqCst)", 0),
        ("fence(Acquire); word.load(Ordering::SeqCst)", 1),
        ("word.load(SeqCst); fence(Ordering::SeqCst);", 1),
        ("word.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst)", 2),
    ] {
        assert_eq!(accesses(text).len(), count, "{text}");
    }
}

/// The path of an ordering.
const ORDERING: [&str; 3] = ["Ordering", "::", "atomic"];

#[test]
fn an_ordering_without_a_name_is_found() {
    for (text, count) in [
        ("word.load(Ordering::Acquire)", 1),
        // Beside a relaxed one, on one line or on several.
        ("word.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed)", 1),
        ("word.compare_exchange(0, 1, ord!(\"a.b\", AcqRel), Ordering::Acquire)", 1),
        ("word.compare_exchange(\n    0,\n    1,\n    Ordering::Release,\n    Ordering::Relaxed,\n)", 1),
        ("word.store(1, Ordering::Relaxed); other.store(1, Ordering::Release);", 1),
        ("word.swap(other.load(Ordering::Relaxed), sync::Ordering::AcqRel)", 1),
        // Written otherwise.
        ("word.load(Ordering :: Acquire)", 1),
        ("word.load(std::sync::atomic::Ordering::\n    Acquire)", 1),
        ("use Ordering::*;\nfn f() { word.load(Acquire); }", 1),
        ("use crate::sync::Ordering::{Acquire, Relaxed};", 1),
        ("use crate::sync::Ordering::Release as Published;", 1),
        ("const ORDER: Ordering = Ordering::Release;", 1),
        ("let order = if loud { Ordering::SeqCst } else { Ordering::Relaxed };", 1),
        ("fence(Ordering::Acquire)", 1),
        // In a named place that is not a name's.
        ("ord!(\"a.b\", SeqCst)", 1),
        ("guard!(\"a.b\", word.load(Ordering::Acquire) == 1)", 1),
        ("duty!(\"a.b\", Acquire)", 1),
        ("ord!(\"a.b\", Acquire.max(Ordering::Release))", 2),
        // Named, or not code.
        ("word.compare_exchange(0, 1, ord!(\"a.b\", AcqRel), ord!(\"a.c\", Acquire))", 0),
        ("word.load(ord!(\n    \"a.b\",\n    Acquire,\n))", 0),
        ("ordered_fence!(\"a.b\", SeqCst)", 0),
        ("word.load(Ordering::Relaxed) // not Ordering::Acquire", 0),
        ("panic!(\"Ordering::Acquire\")", 0),
        ("#[cfg(all(test, not(specmm_loom)))]\nmod tests { fn f() { word.load(Ordering::Acquire); } }", 0),
        // Tests that do not come last.
        ("#[cfg(all(test, specmm_loom))]\nmod models;\nfn f() { word.load(Ordering::Acquire) }", 1),
    ] {
        assert_eq!(unnamed(text).len(), count, "{text}");
    }
}
