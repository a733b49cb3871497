//! The reader-writer semaphore under shuttle.

use super::rwsem::RwSem;
use crate::shuttle_harness::{Search, Test, reach, together};
use crate::sync::Tally;
use crate::sync::imp::switch;
use std::sync::Arc;

/// Who is inside.
#[derive(Default)]
struct Room {
    sem: RwSem,
    readers: Tally,
    writers: Tally,
    writes: Tally,
}

impl Room {
    fn as_reader(&self) {
        reach(if self.readers.next() > 1 { "readers together" } else { "a reader alone" });
        let before = self.writes.get();
        switch();
        assert_eq!((self.writers.get(), self.writes.get()), (0, before), "a reader beside a writer");
        self.readers.sub(1);
    }
    fn as_writer(&self) {
        assert_eq!((self.writers.next(), self.readers.get()), (1, 0), "a writer beside others");
        switch();
        assert_eq!(self.readers.get(), 0, "a reader beside a writer");
        self.writes.add(1);
        self.writers.sub(1);
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
        let written = room.writes.get();
        room.sem.downgrade();
        room.as_reader();
        assert_eq!(room.writes.get(), written, "a write after the downgrade");
        room.sem.unlock_read();
    };
    together([read, read, read, write, write, write_and_read].map(thread).into());
    assert_eq!(room.writes.get(), 6);
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
