//! Models of the reader-writer semaphore, and of what threads sleep on.

use super::Mutex;
use super::parker::Parker;
use super::rwsem::RwSem;
use crate::loom_harness::{History, Model, Protected, reach, spawn};
use std::sync::Arc;
use std::time::Duration;

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
            "rwsem.wait.queued_first",
            "rwsem.wait.announced_first",
            "rwsem.grant.told_first",
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

/// A writer becomes a reader and stays one until two others, who may have queued up, were in. Claim: neither waits for the other
/// or for this one to leave.
fn downgrade_against_two_readers() {
    let shared = Shared::new();
    shared.sem.lock_write();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let shared = shared.clone();
            spawn(move || shared.read())
        })
        .collect();
    shared.sem.downgrade();
    for reader in readers {
        reader.join().unwrap();
    }
    shared.sem.unlock_read();
    shared.finish();
}

#[test]
fn big_a_downgrade_lets_all_readers_in() {
    Model {
        name: "semaphore: downgrade against two readers",
        rows: &[42],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: downgrade_against_two_readers,
        reaches: &[],
        needs: &["rwsem.grant.one"],
    }
    .check();
}

/// A reader is inside, a writer and another reader come, and the first leaves: the queue holds both kinds, in either order. Claim:
/// all get in, and the write is whole.
fn reader_and_writer_behind_a_reader() {
    let shared = Shared::new();
    shared.sem.lock_read();
    let writer = {
        let shared = shared.clone();
        spawn(move || shared.write())
    };
    let reader = {
        let shared = shared.clone();
        spawn(move || shared.read())
    };
    shared.sem.unlock_read();
    writer.join().unwrap();
    reader.join().unwrap();
    shared.finish();
}

#[test]
fn big_a_reader_and_a_writer_queue_behind_a_reader() {
    Model {
        name: "semaphore: a writer and a reader behind a reader",
        rows: &[17],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: reader_and_writer_behind_a_reader,
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
fn big_two_readers_against_a_writer() {
    Model {
        name: "semaphore: two readers and a writer",
        rows: &[17],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: two_readers_and_a_writer,
        reaches: &[],
        needs: &["rwsem.grant.last"],
    }
    .check();
}

/// Two threads take turns twice, each asleep while the other works; loom reports a sleeper that is not woken, and work of both at
/// once. Claim: a wake-up that comes before the sleep is kept, and ends one sleep only.
fn sleep_in_turns() {
    let (mine, others) = (Parker::new(), Parker::new());
    let (count, history) = (Arc::new(Protected::new()), History::new(0));
    let turn = |count: &Protected, history: &History<u32>| {
        let turn = || {
            count.increment();
            count.get()
        };
        history.call("turn", turn, |turns, seen| {
            *turns += 1;
            turns == seen
        });
    };
    let other = {
        let (mine, others) = (mine.clone(), others.clone());
        let (count, history) = (Arc::clone(&count), history.clone());
        spawn(move || {
            for _ in 0..2 {
                others.park();
                turn(&count, &history);
                mine.unpark();
            }
        })
    };
    for _ in 0..2 {
        turn(&count, &history);
        others.unpark();
        mine.park();
    }
    other.join().unwrap();
    history.check();
}

#[test]
fn threads_sleep_in_turns() {
    Model {
        name: "sleep: two threads in turns",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: sleep_in_turns,
        reaches: &[],
        needs: &["park.woken", "park.forgets", "park.told_first"],
    }
    .check();
}

/// One thread does something and wakes another, which looks whether it is done before each sleep. Claim: no sleep misses the
/// wake-up; it may end without one. Premise: no time limit ends it.
fn sleep_with_a_limit() {
    let (parker, done, history) = (Parker::new(), Arc::new(Mutex::new(false)), History::new(0_u32));
    let other = {
        let (parker, done, history) = (parker.clone(), Arc::clone(&done), history.clone());
        spawn(move || {
            let act = || {
                *done.lock() = true;
                parker.unpark();
            };
            history.call("act", act, |acts, ()| {
                *acts += 1;
                true
            });
        })
    };
    let wait = || {
        while !*done.lock() {
            reach("asleep");
            parker.park_for(Duration::MAX);
        }
    };
    history.call("wait", wait, |acts, ()| *acts == 1);
    other.join().unwrap();
    history.check();
}

#[test]
fn a_thread_sleeps_with_a_limit() {
    Model {
        name: "sleep: with a time limit",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: sleep_with_a_limit,
        reaches: &["asleep"],
        needs: &["park.told_first"],
    }
    .check();
}
