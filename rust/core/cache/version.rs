//! What is known about a file's store: which version the cached pages are of.
//!
//! Owns: the store's last known state, and the file's epoch. Does not own how two states compare (`store::Look`) nor the reaction
//! to a change (`coherence`). Linux has no counterpart: there a file has one cache, through which every write goes.
//!
//! The epoch advances under `invalidate_lock` held for writing, when no page of another version is left; it may be read anywhere.

use crate::store::{Change, Look};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, guard, ord};
use std::fmt;
use std::io;

/// Limit on consecutive fills that fail because the store's state differs each time. It is a hundred times higher if only the
/// ctime moves, because some look will miss that. Beyond it, faults and other callers that depend on fills alone give up.
const FILLS: u64 = 100 * TOUCHED_FILLS;
const TOUCHED_FILLS: u64 = 100;

/// Flag in the epoch: the version is young.
const YOUNG: u64 = 1;

/// What is known about one file's store.
pub(super) struct Version {
    /// Whether the store reports a state at all.
    says: bool,
    /// Innermost of all locks, held only while copying. Boxed to keep `AddressSpace` small: allocating a small object is assumed
    /// never to fail.
    seen: Box<Mutex<Seen>>,
    /// Twice the number of changes, plus [`YOUNG`]. Written under `invalidate_lock`.
    epoch: AtomicU64,
    /// Changes of more than the ctime. Relaxed: written before the epoch, read after it.
    rewrites: AtomicU64,
    /// Set when a fill found that the file has grown. Relaxed: a hint to look again soon.
    behind: AtomicU32,
    /// Consecutive unconfirmed fills. One after which only the ctime had moved counts as one, any other as [`TOUCHED_FILLS`].
    unvouched: AtomicU64,
}

/// States of the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Its state when its bytes were last known to match the cached pages.
    pub(super) look: Look,
    /// Its state when it was found rewritten, until that is long ago.
    pub(super) young: Option<Look>,
}

impl Version {
    pub(super) fn new(look: io::Result<Look>) -> Self {
        let says = !matches!(look, Ok(look) if look == Look::default());
        Self {
            says,
            seen: Box::new(Mutex::new(Seen { look: look.unwrap_or_default(), young: None })),
            epoch: AtomicU64::new(0),
            rewrites: AtomicU64::new(0),
            behind: AtomicU32::new(0),
            unvouched: AtomicU64::new(0),
        }
    }

    /// Sets the known size of a file that is being opened: it may have grown before the store was examined.
    pub(super) fn start_at(&self, size: u64) {
        if self.says {
            self.seen.lock().look.size = Some(size);
        }
    }

    /// The current version; loaded before the first page of a call is looked up, and after the last was copied.
    #[inline]
    pub(super) fn epoch(&self) -> u64 {
        // Relaxed: the fence of each copy (`copy_out`) comes between. It pairs with the Release in `next_epoch`: a thread that
        // started with a new epoch sees that an old page's generation has moved, and one that copied a page of a new version
        // loads a new epoch.
        self.epoch.load(Ordering::Relaxed)
    }

    /// Whether hits must not be served.
    #[inline]
    pub(super) fn is_young(epoch: u64) -> bool {
        epoch & YOUNG != 0
    }

    /// Whether the store reports a state at all.
    pub(super) fn says(&self) -> bool {
        self.says
    }

    /// The state that a fill must find after its read. None: the store reports no state.
    pub(super) fn expected(&self) -> Option<Look> {
        self.says.then(|| self.seen.lock().look)
    }

    /// Whether a look after the read (`now`) confirms that the bytes are of the `expected` version.
    pub(super) fn vouches(&self, expected: &Look, now: &Look) -> bool {
        let change = now.since(expected);
        let vouches = self.is_of(change, now);
        if !vouches {
            let fills = if change == Change::Touched { 1 } else { TOUCHED_FILLS };
            self.unvouched.fetch_add(fills, Ordering::Relaxed);
        } else if self.unvouched.load_then_write(Ordering::Relaxed) != 0 {
            // A read-modify-write, as the other: two threads may be here.
            self.unvouched.swap(0, Ordering::Relaxed);
        }
        vouches
    }

    /// Whether a fault, or another caller that depends on fills alone, should retry after an unconfirmed fill.
    pub(super) fn may_vouch(&self) -> bool {
        self.unvouched.load(Ordering::Relaxed) <= FILLS
    }

    fn is_of(&self, change: Change, now: &Look) -> bool {
        match change {
            Change::None => true,
            Change::Grown => {
                self.behind.store(1, Ordering::Relaxed);
                // The file may have grown, been followed, and then been rewritten: against `expected` alone that looks like
                // growth.
                let seen = self.seen.lock().look;
                guard!("fill.grown", matches!(now.since(&seen), Change::None | Change::Grown))
            }
            Change::Touched | Change::Written => false,
        }
    }

    /// The store's last known state.
    pub(super) fn seen(&self) -> Seen {
        *self.seen.lock()
    }

    /// Notes the store's state; the version is the same.
    pub(super) fn note_look(&self, look: Look) {
        self.seen.lock().look = look;
    }

    /// Whether a fill has found, since the last call of this, that the file has grown.
    #[inline]
    pub(super) fn is_behind(&self) -> bool {
        let is_behind = self.behind.load(Ordering::Relaxed) != 0;
        if is_behind {
            self.behind.store(0, Ordering::Relaxed);
        }
        is_behind
    }

    /// Changes so far of more than the ctime.
    pub(super) fn rewrites(&self) -> u64 {
        self.rewrites.load(Ordering::Relaxed)
    }

    /// Notes the store's state, and since when it has been young; everything that follows from it has been done.
    pub(super) fn note(&self, seen: Seen) {
        *self.seen.lock() = seen;
    }

    /// Moves to a new version, rewritten or only touched. The caller holds `invalidate_lock` for writing, and no page of another
    /// version is left.
    pub(super) fn move_on(&self, young: bool, rewritten: bool) {
        if rewritten {
            self.rewrites.store(self.rewrites() + 1, Ordering::Relaxed);
        }
        self.next_epoch(young);
    }

    /// The version is old enough to be trusted, and the pages read before are gone. The caller holds `invalidate_lock` for
    /// writing.
    pub(super) fn trust(&self) {
        self.seen.lock().young = None;
        self.next_epoch(false);
    }

    fn next_epoch(&self, young: bool) {
        let next = (self.epoch.load(Ordering::Relaxed) | YOUNG) + 1 + u64::from(young);
        self.epoch.store(next, ord!("epoch.release", Release));
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Version").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;

    const FOUND: Look = Look { size: Some(100), version: Some(5), changed: Some(7) };
    const GROWN: Look = Look { size: Some(110), version: Some(6), changed: Some(8) };
    const TOUCHED: Look = Look { changed: Some(8), ..FOUND };
    const WRITTEN: Look = Look { version: Some(6), changed: Some(8), ..FOUND };

    #[test]
    fn the_epoch_counts_changes_and_says_whether_the_last_one_is_young() {
        let version = Version::new(Ok(FOUND));
        assert_eq!((version.epoch(), version.rewrites()), (0, 0));
        let mut rewrites = 0;
        for (changes, (young, rewritten)) in
            (1..).zip([(false, true), (true, false), (true, true), (false, false), (false, true)])
        {
            rewrites += u64::from(rewritten);
            version.move_on(young, rewritten);
            assert_eq!((version.epoch(), version.rewrites()), (2 * changes + u64::from(young), rewrites));
            assert_eq!(Version::is_young(version.epoch()), young);
        }
        version.move_on(true, false);
        version.note(Seen { look: GROWN, young: Some(GROWN) });
        version.trust();
        assert_eq!((version.epoch(), version.rewrites()), (2 * 7, rewrites));
        let seen = version.seen();
        assert_eq!((seen.look, seen.young), (GROWN, None));
    }

    #[test]
    fn a_store_that_reports_nothing_is_expected_to_report_nothing() {
        let silent = Version::new(Ok(Look::default()));
        silent.start_at(100);
        assert_eq!((silent.says(), silent.expected(), silent.seen().look), (false, None, Look::default()));
        // One that could not be examined is examined again.
        let failed = Version::new(Err(io::ErrorKind::TimedOut.into()));
        assert_eq!((failed.says(), failed.expected()), (true, Some(Look::default())));
        let file = Version::new(Ok(FOUND));
        file.start_at(90);
        assert_eq!(file.expected(), Some(Look { size: Some(90), ..FOUND }));
        file.note_look(GROWN);
        assert_eq!(file.expected(), Some(GROWN));
    }

    #[test]
    fn a_fill_counts_if_the_bytes_before_its_end_are_the_same() {
        for (now, vouches, is_behind) in
            [(FOUND, true, false), (GROWN, true, true), (TOUCHED, false, false), (WRITTEN, false, false)]
        {
            let version = Version::new(Ok(FOUND));
            assert_eq!(version.vouches(&FOUND, &now), vouches, "{now:?}");
            assert_eq!(version.is_behind(), is_behind, "{now:?}");
            assert!(!version.is_behind(), "said once");
        }
        // It had grown, was followed, and was rewritten: what looks like growth to a fill that began before is none.
        let version = Version::new(Ok(FOUND));
        version.note_look(GROWN);
        assert!(!version.vouches(&FOUND, &Look { version: Some(9), changed: Some(9), ..GROWN }));
        assert!(version.vouches(&FOUND, &GROWN));
        assert!(version.vouches(&FOUND, &Look { size: Some(120), version: Some(9), changed: Some(9) }));
    }

    #[test]
    fn fills_that_fail_in_a_row_are_bounded_and_touches_count_little() {
        for (now, most) in [(WRITTEN, FILLS / TOUCHED_FILLS), (TOUCHED, FILLS)] {
            let version = Version::new(Ok(FOUND));
            for _ in 0..2 {
                for fill in 1..=most {
                    version.vouches(&FOUND, &now);
                    assert!(version.may_vouch(), "{fill} of {most}");
                }
                version.vouches(&FOUND, &now);
                assert!(!version.may_vouch(), "after {most}");
                assert!(version.vouches(&FOUND, &FOUND));
                assert!(version.may_vouch(), "one that counts makes up for all");
                version.vouches(&FOUND, &TOUCHED);
                assert!(version.vouches(&FOUND, &FOUND), "or for one");
            }
        }
    }
}
