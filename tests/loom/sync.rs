//! Models of the reader-writer semaphore.

use super::rwsem::RwSem;
use crate::loom_harness::{History, Model, Protected, spawn};
use std::sync::Arc;

#[derive(Clone)]
struct Shared {
    sem: Arc<RwSem>,
    count: Arc<Protected>,
    history: History<u32>,
}

impl Shared {
    fn new() -> Self {
        Self { sem: Arc::new(RwSem::new()), count: Arc::new(Protected::new()), history: History::new(0) }
    }
    fn write(&self) {
        let section = || {
            let _inside = self.sem.write_guard();
            let before = self.count.get();
            self.count.increment();
            before
        };
        self.history.call("write", section, |count, before| {
            *count += 1;
            *count == before + 1
        });
    }
    fn read(&self) {
        let section = || {
            let _inside = self.sem.read_guard();
            self.count.get()
        };
        self.history.call("read", section, |count, seen| count == seen);
    }
    fn finish(&self) {
        self.history.check();
        assert!(self.sem.try_write(), "not free at the end");
    }
}

/// One thread writes, one reads; loom reports accesses that are not ordered, and a sleeper that is never woken. At the end one
/// try suffices to enter. Premise: every thread that enters leaves.
fn writer_against_reader() {
    let shared = Shared::new();
    let reader = {
        let shared = shared.clone();
        spawn(move || shared.read())
    };
    shared.write();
    reader.join().unwrap();
    shared.finish();
}

#[test]
fn a_writer_against_a_reader() {
    Model {
        name: "semaphore: a writer against a reader",
        rows: &[17],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: writer_against_reader,
        reaches: &[],
        needs: &[
            "rwsem.read.free",
            "rwsem.read.acquire",
            "rwsem.write.acquire",
            "rwsem.unlock_read.release",
            "rwsem.unlock_read.pass_on",
            "rwsem.unlock_write.release",
            "rwsem.unlock_write.pass_on",
            "rwsem.wait.announce",
            "rwsem.wait.grant",
            "rwsem.granted.acquire",
            "rwsem.grant.free",
            "rwsem.grant.acquire",
            "rwsem.grant.release",
            "rwsem.grant.last",
            "rwsem.grant.clear",
        ],
    }
    .check();
}

/// The writer becomes a reader and stays one until another reader was in. Claim: that reader gets in, queued or not, and sees
/// what was written.
fn downgrade_against_reader() {
    let shared = Shared::new();
    shared.sem.lock_write();
    let reader = {
        let shared = shared.clone();
        spawn(move || shared.read())
    };
    let downgrade = || {
        shared.count.increment();
        shared.sem.downgrade();
    };
    shared.history.call("write and downgrade", downgrade, |count, ()| {
        *count += 1;
        true
    });
    reader.join().unwrap();
    shared.sem.unlock_read();
    shared.finish();
}

#[test]
fn a_downgrade_lets_readers_in() {
    Model {
        name: "semaphore: downgrade against a reader",
        rows: &[42],
        preemption_bound: None,
        grace_periods: false,
        twin: true,
        body: downgrade_against_reader,
        reaches: &[],
        needs: &["rwsem.downgrade.release", "rwsem.downgrade.pass_on"],
    }
    .check();
}

/// A writer becomes a reader and looks again while another writer wants in. Claim: there is no write in between.
fn downgrade_against_writer() {
    let shared = Shared::new();
    let writer = {
        let shared = shared.clone();
        spawn(move || shared.write())
    };
    let section = || {
        shared.sem.lock_write();
        let before = shared.count.get();
        shared.count.increment();
        shared.sem.downgrade();
        let after = shared.count.get();
        shared.sem.unlock_read();
        (before, after)
    };
    shared.history.call("write, downgrade and read", section, |count, &(before, after)| {
        *count += 1;
        before + 1 == after && *count == after
    });
    writer.join().unwrap();
    shared.finish();
}

#[test]
fn a_downgrade_keeps_writers_out() {
    Model {
        name: "semaphore: downgrade against a writer",
        rows: &[42],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: downgrade_against_writer,
        reaches: &[],
        needs: &["rwsem.grant.free"],
    }
    .check();
}

/// Two readers and a writer: the last reader out lets the writer in, the writer lets both readers in.
fn two_readers_and_a_writer() {
    let shared = Shared::new();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let shared = shared.clone();
            spawn(move || shared.read())
        })
        .collect();
    shared.write();
    for reader in readers {
        reader.join().unwrap();
    }
    shared.finish();
}

#[test]
fn two_readers_against_a_writer() {
    Model {
        name: "semaphore: two readers and a writer",
        rows: &[17],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: two_readers_and_a_writer,
        reaches: &[],
        needs: &["rwsem.grant.last"],
    }
    .check();
}
