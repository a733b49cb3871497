//! The floors of `cache/`: a module names modules of lower floors only.
//!
//! The table in `rust/core/cache/mod.rs` is the only place that says which module is on which floor. A method call names no
//! module, so two further rules make checking names sufficient: a type has methods only in the file that defines it, and nothing
//! is imported by `*`.

use super::source::{code, words};
use std::collections::BTreeMap;
use std::path::Path;

/// Types that may have methods on floors above their own: users look for methods there, and no lower floor has such a value.
const HANDLES: [&str; 2] = ["File", "PageCache"];

/// One room: the floor of each module, and the module that each re-exported name comes from.
struct Room {
    floors: BTreeMap<String, u32>,
    exports: BTreeMap<String, String>,
}

/// The first names of a path's continuation: `a` for `a::b`, and `a` and `c` for `{a::b, c as d}`.
fn heads<'t>(words: &[&'t str]) -> Vec<&'t str> {
    if words.first() != Some(&"{") {
        return words.first().copied().into_iter().collect();
    }
    let (mut depth, mut heads, mut fresh) = (0, Vec::new(), false);
    for word in words {
        match *word {
            "{" => {
                depth += 1;
                fresh = depth == 1;
            }
            "}" => depth -= 1,
            "," => fresh = depth == 1,
            name if fresh => {
                heads.push(name);
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

impl Room {
    /// Reads the table and the re-exports of a room's `mod.rs`.
    fn new(text: &str) -> Self {
        let mut floors = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("//! | ")) {
            let cells: Vec<&str> = line.split(" | ").collect();
            let (Ok(floor), Some(modules)) = (cells[0].parse(), cells.get(2)) else { continue };
            for module in modules.split('`').skip(1).step_by(2) {
                let before = floors.insert(module.to_owned(), floor);
                assert!(before.is_none(), "{module} is on two floors");
            }
        }
        let mut exports = BTreeMap::new();
        let code = code(text);
        let words = words(&code);
        for (at, _) in words.iter().enumerate().filter(|(_, word)| **word == "use") {
            let module = words[at + 1];
            if words.get(at + 2) == Some(&"::") && floors.contains_key(module) {
                for name in heads(&words[at + 3..]) {
                    exports.insert(name.to_owned(), module.to_owned());
                }
            }
        }
        Self { floors, exports }
    }

    /// What is wrong with one module.
    fn complaints(&self, module: &str, text: &str) -> Vec<String> {
        let Some(floor) = self.floors.get(module) else { return vec![format!("{module} is on no floor")] };
        let code = code(text);
        let words = words(&code);
        let mut complaints = Vec::new();
        for at in 0..words.len() {
            // The crate's root has the rooms, and the names they export.
            let (names, are_modules) = match words[at..] {
                ["super", "::", ..] => (heads(&words[at + 2..]), true),
                ["crate", "::", "cache", "::", ..] => (heads(&words[at + 4..]), true),
                ["crate", "::", ..] => (heads(&words[at + 2..]), false),
                _ => continue,
            };
            for name in names {
                if name == "*" || name == "super" {
                    complaints.push(format!("{module} names {name}, which hides what it names"));
                }
                let inside =
                    self.floors.get_key_value(name).filter(|_| are_modules).map(|(module, _)| module);
                let Some(target) = inside.or_else(|| self.exports.get(name)) else { continue };
                if target != module && self.floors[target] >= *floor {
                    complaints.push(format!(
                        "{module}, on floor {floor}, names {target}, on floor {}",
                        self.floors[target]
                    ));
                }
            }
        }
        complaints.extend(foreign_methods(module, &words));
        complaints.sort();
        complaints.dedup();
        complaints
    }
}

/// Inherent methods of types that another file defines.
fn foreign_methods(module: &str, words: &[&str]) -> Vec<String> {
    let mut complaints = Vec::new();
    let defined = |name: &str| {
        words.windows(2).any(|pair| matches!(pair[0], "struct" | "enum" | "union") && pair[1] == name)
    };
    for at in (0..words.len()).filter(|&at| words[at] == "impl" && (at == 0 || "};]".contains(words[at - 1])))
    {
        let header: Vec<&str> = words[at + 1..].iter().copied().take_while(|word| *word != "{").collect();
        if header.contains(&"for") {
            continue;
        }
        // In `<'a, T> path::Type<'a>`, the type's own name.
        let mut depth = 0;
        let mut own = None;
        for word in header {
            match word {
                "<" => depth += 1,
                ">" => depth -= 1,
                "where" => break,
                "::" | "'" | "(" | ")" | "&" => {}
                name if depth == 0 => own = Some(name),
                _ => {}
            }
        }
        let Some(own) = own.filter(|name| !defined(name)) else { continue };
        if !HANDLES.contains(&own) {
            complaints.push(format!("{module} has methods of {own}, which it does not define"));
        }
    }
    complaints
}

fn room() -> Room {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("rust/core/cache");
    Room::new(&std::fs::read_to_string(folder.join("mod.rs")).unwrap())
}

/// Every module of `cache/`, by its name. Folders below contain tests.
fn modules() -> BTreeMap<String, String> {
    let sources = super::sources("rust/core/cache").into_iter().filter_map(|(path, text)| {
        let name = path.file_stem()?.to_str()?.to_owned();
        let is_module = path.parent()?.ends_with("cache") && name != "mod";
        if !is_module {
            assert_eq!(name == "tests", name != "mod", "{} is neither module nor tests", path.display());
        }
        is_module.then_some((name, text))
    });
    sources.collect()
}

#[test]
fn modules_of_the_cache_name_lower_floors_only() {
    let room = room();
    let modules = modules();
    assert!(!modules.is_empty(), "the search finds what is there");
    let on_floors: Vec<_> = room.floors.keys().collect();
    assert_eq!(modules.keys().collect::<Vec<_>>(), on_floors, "the table has every module and no other");
    let complaints: Vec<_> =
        modules.iter().flat_map(|(module, text)| room.complaints(module, text)).collect();
    assert_eq!(complaints, [""; 0]);
}

#[test]
fn an_arrow_up_is_found() {
    let room = room();
    let modules = modules();
    let planted = |module: &str, line: &str| {
        let text = modules[module].replacen("\nuse ", &format!("\n{line}\nuse "), 1);
        assert_ne!(text, modules[module], "{module} uses nothing, so nothing was planted");
        room.complaints(module, &text)
    };
    // The arrows that once formed a cycle, in every form of a path.
    for (module, line) in [
        ("shared", "use super::address_space::AddressSpace;"),
        ("shared", "use super::AddressSpace;"),
        ("shared", "use crate::cache::AddressSpace;"),
        ("shared", "use crate::{Error, PageCache};"),
        ("io", "use super::{patience::NAP, shared::Shared};"),
        ("io", "use crate::cache::{Abort, Shared};"),
        ("workingset", "type Up = super::file::File;"),
        ("address_space", "use super::{version::Version, coherence as followed};"),
        ("vmscan", "fn up() { super::eviction::invalidate() }"),
        ("copy_out", "use super::fill::read_page;"),
        ("address_space", "use super::*;"),
        ("address_space", "use super::super::cache::read;"),
        ("vmscan", "impl Shared { fn up(&self) {} }"),
        ("filemap", "impl<'f> super::open_file::OpenFile { fn up(&self) {} }"),
        ("readahead", "impl OpenFile { fn up(&self) {} }"),
    ] {
        assert_eq!(planted(module, line).len(), 1, "{line:?} in {module}");
    }
    // Arrows down, names inside the module, names in comments and strings, and methods of a handle.
    for (module, line) in [
        ("address_space", "use super::shared::Shared as Below;"),
        ("version", "use crate::stats::Sharded;"),
        ("address_space", "// use super::file::File;"),
        ("address_space", "const SAID: &str = \"super::file::File\";"),
        ("vmscan", "impl MakesRoom for Down {}"),
        ("gather", "impl File { fn more(&self) {} }"),
    ] {
        assert_eq!(planted(module, line), [""; 0], "{line:?} in {module}");
    }
    assert_eq!(room.complaints("attic", "").len(), 1, "a module without a floor");
}
