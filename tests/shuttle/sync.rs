//! The reader-writer semaphore under shuttle.

use super::rwsem::RwSem;
use crate::shuttle_harness::{Search, Test, reach, together};
use crate::sync::imp::switch;
use std::sync::{Arc, Mutex};

/// Who is inside.
#[derive(Default)]
struct Room {
    sem: RwSem,
    inside: Mutex<Inside>,
}

/// The standard library's mutex, which never waits here: one thread runs at a time, and none is switched from inside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Inside {
    readers: u32,
    writers: u32,
    writes: u32,
}

impl Room {
    fn change(&self, change: impl FnOnce(&mut Inside)) -> Inside {
        let mut inside = self.inside.lock().expect("no panic inside");
        change(&mut inside);
        *inside
    }
    fn as_reader(&self) {
        let before = self.change(|inside| inside.readers += 1);
        reach(if before.readers > 1 { "readers together" } else { "a reader alone" });
        switch();
        let after = self.change(|inside| inside.readers -= 1);
        assert_eq!((after.writers, after.writes), (0, before.writes), "a reader beside a writer");
    }
    fn as_writer(&self) {
        let before = self.change(|inside| inside.writers += 1);
        assert_eq!((before.writers, before.readers), (1, 0), "a writer beside others");
        switch();
        let after = self.change(|inside| {
            inside.writers -= 1;
            inside.writes += 1;
        });
        assert_eq!(after.readers, 0, "a reader beside a writer");
    }
}

/// Three readers, two writers, and one who writes and becomes a reader, each of them twice. Claims: a writer is alone, nobody
/// writes while one who wrote goes on reading, everybody gets in, and at the end one try suffices.
fn readers_and_writers() {
    let room = Arc::new(Room::default());
    let thread = |work: fn(&Room)| -> Box<dyn FnOnce() + Send> {
        let room = Arc::clone(&room);
        Box::new(move || (0..2).for_each(|_| work(&room)))
    };
    let read: fn(&Room) = |room| {
        let _inside = room.sem.read_guard();
        room.as_reader();
    };
    let write: fn(&Room) = |room| {
        let _inside = room.sem.write_guard();
        room.as_writer();
    };
    let write_and_read: fn(&Room) = |room| {
        room.sem.lock_write();
        room.as_writer();
        let written = room.change(|_| ()).writes;
        room.sem.downgrade();
        room.as_reader();
        assert_eq!(room.change(|_| ()).writes, written, "a write after the downgrade");
        room.sem.unlock_read();
    };
    together([read, read, read, write, write, write_and_read].map(thread).into());
    assert_eq!(room.change(|_| ()).writes, 6);
    assert!(room.sem.try_write(), "not free at the end");
}

#[test]
fn many_readers_and_writers() {
    Test {
        name: "semaphore: many readers and writers",
        search: Search::Pct(1_000),
        body: readers_and_writers,
        reaches: &["a reader alone", "readers together"],
        needs: &["rwsem.read.free", "rwsem.grant.free", "rwsem.grant.last"],
    }
    .check();
}
