//! The whole system under shuttle: each thread draws a few of the public calls, so that in some execution each runs beside each
//! other (docs/pairs.md). What is drawn is part of the schedule.

#[path = "everything/calls.rs"]
mod calls;
#[path = "everything/store.rs"]
mod store;
#[path = "everything/world.rs"]
mod world;

use crate::page::PAGE_SIZE;
use crate::shuttle_harness::{Search, Test, together};
use crate::sync::imp::draw;
use calls::{Call, Caller, ENDS, FILES, SPACES};
use std::sync::Arc;
use world::World;

const PAGE: u64 = PAGE_SIZE as u64;
/// Words in a page.
const WORDS: u64 = PAGE / 8;
/// Pages of each file.
const PAGES: u64 = 4;

/// All of docs/pairs.md.
const OPERATIONS: &[&str] = &[
    "advise",
    "classic fault",
    "close a file",
    "close an address space",
    "close the cache",
    "evict",
    "fault-around",
    "hit",
    "load or store",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "open",
    "pagemap",
    "pin",
    "read",
    "readahead",
    "reclaim",
    "residency",
    "revalidate",
    "settle",
    "speculative fault",
    "truncate",
    "unpin",
    "wait for a frame",
    "work for I/O",
];

/// So many threads make so many calls each, drawn from these lists; the last call of the first thread is one of the last list.
fn draw_calls(world: World, threads: usize, calls: usize, from: &[&'static [Call]]) {
    let world = Arc::new(world);
    let all: Vec<_> = from.concat();
    let last = from[from.len() - 1];
    let bodies = (0..threads).map(|thread| -> Box<dyn FnOnce() + Send> {
        let (mut caller, all) = (Caller::new(&world), all.clone());
        Box::new(move || {
            for number in 1..=calls {
                let list = if thread == 0 && number == calls { last } else { &all };
                list[draw(list.len())](&mut caller);
                caller.look_at_pin();
            }
            caller.unpin();
        })
    });
    together(bodies.collect());
    Arc::into_inner(world).expect("all threads have ended").finish();
}

#[test]
fn each_call_on_files_against_each() {
    Test {
        name: "calls on files, drawn by 4 threads",
        search: Search::Pct(4_000),
        body: || draw_calls(World::new(3, false, false), 4, 4, &[FILES]),
        reaches: &["hit", "pinned", "dropped", "reclaimed", "beyond the end"],
        needs: &["copy_out.uptodate", "fill.one_version", "zero_tail.pinned", "page.freeze.expected"],
    }
    .check();
}

#[test]
fn each_call_on_address_spaces_against_each() {
    Test {
        name: "calls on files and address spaces, drawn by 5 threads",
        search: Search::Pct(4_000),
        body: || draw_calls(World::new(8, true, false), 5, 4, &[FILES, SPACES]),
        reaches: &["load", "store", "commit", "classic", "nothing mapped"],
        needs: &["access.write", "do_wp_page.pte_same", "truncate.unmap_locked", "adopt.seed.epoch_first"],
    }
    .check();
}

#[test]
fn each_end_against_each_call() {
    Test {
        name: "ends and calls, drawn by 4 threads",
        search: Search::Pct(4_000),
        body: || draw_calls(World::new(4, true, true), 4, 3, &[FILES, SPACES, ENDS]),
        reaches: &["closed", "file closed", "space closed", "cache closed", "not closed while pinned"],
        needs: &["close.flag_first", "pin.open", "refuse_pins.none", "io.seed.stop_first"],
    }
    .check_each_against_each(OPERATIONS);
}
