//! What one file's cache knows of its store: which version of it the cached pages are of.
//!
//! Owns: what the store was last seen to say of itself, and the file's epoch. Does not own what two looks mean together
//! (`store::Look`) nor what is done about a change (`coherence`). Linux has no such thing: there a file has one cache, and who
//! writes goes through it.
//!
//! The epoch moves under `invalidate_lock` held for writing, when no page of another version is left; it is read anywhere.

use crate::store::{Change, Look};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, Tally, guard, ord};
use std::fmt;
use std::io;

/// So many fills may fail in turn because the store says something else each time, and if nothing but the ctime moves, which some
/// look will miss, a hundred times as many. After more, faults and others that have nothing but fills give up.
const FILLS: u64 = 100 * TOUCHED_FILLS;
const TOUCHED_FILLS: u64 = 100;

/// In the epoch: the version is young.
const YOUNG: u64 = 1;

/// What one file's cache knows of its store.
pub(super) struct Version {
    /// Whether the store has anything to say of itself.
    says: bool,
    /// Taken last of all locks, and held for a copy. Boxed: with it an `AddressSpace` would be more than a small thing, of which
    /// one is thought to be had always.
    seen: Box<Mutex<Seen>>,
    /// Twice the number of changes, and [`YOUNG`]. Written under `invalidate_lock`.
    epoch: AtomicU64,
    /// Changes that were more than a new ctime. Relaxed: written before the epoch, read after it.
    rewrites: AtomicU64,
    /// A fill found that the file has grown. Relaxed: a hint to look again soon.
    behind: AtomicU32,
    /// Fills in turn for which the store did not vouch, in units of one after which the ctime alone had moved.
    unvouched: Tally,
}

/// What the store said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// What the store said when its bytes were last known to be those of the cached pages.
    pub(super) look: Look,
    /// What it said when it was found rewritten, until that is long ago.
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
            unvouched: Tally::new(),
        }
    }

    /// Of a file that is being opened: which of its sizes is known. It may have grown before it was looked at.
    pub(super) fn start_at(&self, size: u64) {
        if self.says {
            self.seen.lock().look.size = Some(size);
        }
    }

    /// The version now: before the first page of a call is looked for, and after the last was copied.
    #[inline]
    pub(super) fn epoch(&self) -> u64 {
        // Relaxed: the fence of each copy (`copy_out`) comes between. It pairs with the Release in `next_epoch`: who started with a
        // new epoch sees that the generation of an old page moved, and who copied a page of a new version loads a new epoch.
        self.epoch.load(Ordering::Relaxed)
    }

    /// Whether a hit must not be served.
    #[inline]
    pub(super) fn is_young(epoch: u64) -> bool {
        epoch & YOUNG != 0
    }

    /// Whether the store has anything to say of itself.
    pub(super) fn says(&self) -> bool {
        self.says
    }

    /// What a fill is to find after its read; None: the store says nothing.
    pub(super) fn expected(&self) -> Option<Look> {
        self.says.then(|| self.seen.lock().look)
    }

    /// Whether what was read is of the version that was `expected`, by a look after the read.
    pub(super) fn vouches(&self, expected: &Look, now: &Look) -> bool {
        let change = now.since(expected);
        let vouches = self.is_of(change, now);
        let fills = if change == Change::Touched { 1 } else { TOUCHED_FILLS };
        self.unvouched.set(if vouches { 0 } else { self.unvouched.get() + fills });
        vouches
    }

    /// Whether a fault, or whoever has nothing but fills, tries again after a fill for which nobody vouched.
    pub(super) fn may_vouch(&self) -> bool {
        self.unvouched.get() <= FILLS
    }

    fn is_of(&self, change: Change, now: &Look) -> bool {
        match change {
            Change::None => true,
            Change::Grown => {
                self.behind.store(1, Ordering::Relaxed);
                // Growth that was followed since, and a rewrite after it, are together no more than growth.
                let seen = self.seen.lock().look;
                guard!("fill.grown", matches!(now.since(&seen), Change::None | Change::Grown))
            }
            Change::Touched | Change::Written => false,
        }
    }

    /// What the store was last seen to say.
    pub(super) fn seen(&self) -> Seen {
        *self.seen.lock()
    }

    /// Notes what the store says of the same version.
    pub(super) fn note_look(&self, look: Look) {
        self.seen.lock().look = look;
    }

    /// Whether a fill has found since this was asked last that the file has grown.
    #[inline]
    pub(super) fn is_behind(&self) -> bool {
        let is_behind = self.behind.load(Ordering::Relaxed) != 0;
        if is_behind {
            self.behind.store(0, Ordering::Relaxed);
        }
        is_behind
    }

    /// Changes so far that were more than a new ctime.
    pub(super) fn rewrites(&self) -> u64 {
        self.rewrites.load(Ordering::Relaxed)
    }

    /// A new version, rewritten or touched only. The caller holds `invalidate_lock` for writing, and no page of another version
    /// is left.
    pub(super) fn move_on(&self, seen: Seen, rewritten: bool) {
        *self.seen.lock() = seen;
        if rewritten {
            self.rewrites.store(self.rewrites() + 1, Ordering::Relaxed);
        }
        self.next_epoch(seen.young.is_some());
    }

    /// The version is old enough to be trusted, and what was read of it before is gone. The caller holds as above.
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
