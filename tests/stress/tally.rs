//! What a run did. An empty row is a failure: a check that covered nothing proves nothing.

use crate::words::Met;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Tally {
    /// By operation: done, and refused with an allowed error.
    ops: BTreeMap<&'static str, (u64, u64)>,
    /// By error, and by counter of the core.
    seen: BTreeMap<&'static str, u64>,
    pub met: Met,
}

/// Kinds of errors and counters that every run must meet.
const EXPECTED: &[&str] = &[
    "bus errors",
    "segmentation errors",
    "out of frames",
    "cached reads that hit",
    "filemap faults, speculative",
    "filemap faults, classic",
    "pgfault",
    "maj_flt",
    "min_flt",
    "spf_commit",
    "spf_abort",
    "mmap_lock_read",
    "mmap_lock_write",
    "hits",
    "misses",
    "evictions",
    "evictions_background",
    "refaults",
    "pages reclaimed on request",
    "readahead_pages",
];

impl Tally {
    pub fn op(&mut self, name: &'static str, done: bool) {
        let row = self.ops.entry(name).or_default();
        if done { row.0 += 1 } else { row.1 += 1 }
    }

    pub fn see(&mut self, name: &'static str, n: u64) {
        *self.seen.entry(name).or_default() += n;
    }

    pub fn add(&mut self, other: &Self) {
        for (name, (done, refused)) in &other.ops {
            let row = self.ops.entry(name).or_default();
            row.0 += done;
            row.1 += refused;
        }
        for (name, n) in &other.seen {
            self.see(name, *n);
        }
        self.met.whole += other.met.whole;
        self.met.cut += other.met.cut;
        self.met.marked += other.met.marked;
    }

    pub fn print(&self) {
        for (name, (done, refused)) in &self.ops {
            println!("{name:>22} {done:>9} done {refused:>9} refused");
        }
        for (name, n) in self.seen.iter().filter(|(_, n)| **n > 0) {
            println!("{name:>32} {n:>12}");
        }
        println!("{:?}", self.met);
    }

    /// Everything that should have happened and did not.
    pub fn missing(&self) -> Vec<&'static str> {
        let never_done = self.ops.iter().filter(|(_, (done, _))| *done == 0).map(|(name, _)| *name);
        let never_run = crate::work::OPS.iter().map(|op| op.name).filter(|name| !self.ops.contains_key(name));
        let never_seen = EXPECTED.iter().copied().filter(|name| self.seen.get(name).is_none_or(|n| *n == 0));
        let words =
            [("whole words", self.met.whole), ("cut words", self.met.cut), ("stored words", self.met.marked)];
        let never_met = words.into_iter().filter(|(_, n)| *n == 0).map(|(name, _)| name);
        never_done.chain(never_run).chain(never_seen).chain(never_met).collect()
    }
}
