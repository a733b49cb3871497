//! What a store reports of itself, and what two such reports mean together.
//!
//! Owns: the table of `docs/changes.md`.

use crate::sync::pause;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A write that began this long ago has ended, and a later one gets another time: some ticks of the clock that files' times are
/// taken from (1 to 10 ms each).
pub(crate) const SETTLED: Duration = Duration::from_millis(20);

/// How long an append is given, step by step, to move the size after it has moved the time. It takes microseconds, unless its
/// thread is preempted.
const APPENDING: [Duration; 3] =
    [Duration::from_micros(50), Duration::from_micros(200), Duration::from_millis(1)];

/// What a store reports of itself at one moment (fstat(2), an etag). Two equal reports, before a read and after it, confirm what
/// was read. A store that reports nothing is assumed not to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// Bytes.
    pub size: Option<u64>,
    /// What changes when somebody writes to it: for a file, the modification time in nanoseconds.
    pub version: Option<u64>,
    /// For a store that has times, as a file does, the time of the last change of any kind (ctime), in nanoseconds. If it is
    /// given, growth counts as appending, whatever the `version`.
    pub changed: Option<u64>,
}

/// What happened between two checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// It became longer; the bytes before are unchanged.
    Grown,
    /// Something other than size and modification time: chmod(2), or a write after which the time was set back.
    Touched,
    /// Its bytes.
    Written,
}

impl Look {
    pub(crate) fn since(&self, before: &Self) -> Change {
        if self == before {
            return Change::None;
        }
        let same_version = self.version == before.version;
        match (before.size, self.size) {
            (Some(was), Some(is)) if is > was && (self.changed.is_some() || same_version) => Change::Grown,
            (was, is) if was == is && same_version => Change::Touched,
            _ => Change::Written,
        }
    }

    /// This look, or one a moment later if this one may have come in the middle of an append: a new time, and the size of `before`.
    ///
    /// # Errors
    /// What `again` returns.
    pub(crate) fn past_an_append(
        self,
        before: &Self,
        again: impl Fn() -> io::Result<Self>,
    ) -> io::Result<Self> {
        let mut look = self;
        for nap in APPENDING {
            let may_append = look.size == before.size && look.since(before) == Change::Written;
            // Models have no clock, and no such moment.
            if !may_append || look.unsettled().is_none() || cfg!(specmm_loom) {
                break;
            }
            pause(nap);
            look = again()?;
        }
        Ok(look)
    }

    /// How long to wait until the last write to the file must have ended, and a later one would be noticed; None: no longer.
    /// Times set by utime(2) say nothing about that.
    pub(crate) fn unsettled(&self) -> Option<Duration> {
        // Models have no clock: a store with times was written just now.
        if cfg!(specmm_loom) {
            return self.changed.map(|_| SETTLED);
        }
        let written = UNIX_EPOCH.checked_add(Duration::from_nanos(self.changed.and(self.version)?))?;
        match SystemTime::now().duration_since(written) {
            Ok(age) => SETTLED.checked_sub(age).filter(|left| !left.is_zero()),
            // The clock of the file may be a little ahead of this one.
            Err(ahead) => (ahead.duration() < SETTLED).then_some(SETTLED),
        }
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn each_combination_means_what_the_table_says() {
        let before = Look { size: Some(100), version: Some(5), changed: Some(7) };
        for size in [90, 100, 110] {
            for version in [4, 5, 6] {
                for changed in [7, 8] {
                    let now = Look { size: Some(size), version: Some(version), changed: Some(changed) };
                    let expected = match (size, version, changed) {
                        (100, 5, 7) => Change::None,
                        (100, 5, _) => Change::Touched,
                        (110, ..) => Change::Grown,
                        _ => Change::Written,
                    };
                    assert_eq!(now.since(&before), expected, "{now:?}");
                }
            }
        }
    }

    #[test]
    fn a_version_is_taken_at_its_word() {
        let look = |size, version| Look { size, version, changed: None };
        for (before, now, expected) in [
            (look(Some(1), None), look(Some(2), None), Change::Grown),
            (look(Some(2), None), look(Some(1), None), Change::Written),
            (look(Some(1), Some(1)), look(Some(2), Some(2)), Change::Written),
            (look(None, Some(1)), look(None, Some(2)), Change::Written),
            (look(None, Some(1)), look(Some(4), Some(1)), Change::Written),
        ] {
            assert_eq!(now.since(&before), expected, "{before:?} {now:?}");
        }
        assert_eq!(look(Some(1), Some(u64::MAX)).unsettled(), None);
    }

    #[test]
    fn an_append_is_given_a_moment_to_move_the_size() {
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        let look = |size, version| Look { size: Some(size), version: Some(version), changed: Some(version) };
        let before = look(100, 5);
        for (moves_at, found) in [(0, 1), (1, 1), (2, 2), (3, 3), (4, 3)] {
            let looks = std::cell::Cell::new(0);
            let again = || {
                looks.set(looks.get() + 1);
                Ok(look(if looks.get() >= moves_at { 110 } else { 100 }, now))
            };
            let first = look(if moves_at == 0 { 110 } else { 100 }, now);
            let last = first.past_an_append(&before, again).unwrap();
            assert_eq!(looks.get(), if moves_at == 0 { 0 } else { found }, "{moves_at}");
            let expected = if moves_at <= 3 { Change::Grown } else { Change::Written };
            assert_eq!(last.since(&before), expected, "{moves_at}");
        }
        // Long ago, or shorter: no append is under way.
        for written in [look(100, 6), look(90, now)] {
            assert_eq!(written.past_an_append(&before, || unreachable!()).unwrap(), written);
        }
    }

    #[test]
    fn a_time_settles() {
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        let at = |version| Look { size: Some(1), version: Some(version), changed: Some(now) };
        assert!(at(now).unsettled().is_some_and(|left| left <= SETTLED));
        assert!(at(now + 10_000_000).unsettled().is_some());
        assert_eq!(at(now - 1_000_000_000).unsettled(), None);
        assert_eq!(at(now + 3_600_000_000_000).unsettled(), None);
        assert_eq!(at(0).unsettled(), None);
    }
}
