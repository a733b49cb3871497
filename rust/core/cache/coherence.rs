//! One version: following what others do to a file, and never answering with bytes of two.
//!
//! Owns: what the store was last seen to say of itself, the file's epoch, and the tries of a call. Does not own what two looks
//! mean together (`store::Look`) nor how pages leave (`truncate`). Linux has no such thing: there a file has one cache, and
//! who writes goes through it.
//!
//! - A fill looks at the store after its read. If that says what it said when the file's pages were last known to be of one
//!   version, it has said so all the time between, and the bytes are of that version. Otherwise the page stays as it is, not
//!   up to date. (Growth leaves what was there: then the bytes are good.)
//! - Who finds a change takes `invalidate_lock` for writing, takes every page out, then notes the new look, then moves the
//!   epoch. So bytes of a new version can be read only by those who also see the new epoch.
//! - A call over several pages loads the epoch before its first page and after its last. If it moved, it starts over: at most
//!   three times for a file that is being rewritten, and if only its ctime moves, the fourth try reads the store twice, past
//!   the cache: what two reads in turn agree on was all there at the moment between them.
//! - The time of a file moves when a write begins, not when it ends. So a version that was found when it was young is not
//!   trusted: no hits, and calls over several pages wait until it is old, and then all is read again.

use super::AddressSpace;
use super::stats::Stat;
use crate::error::{Error, IoError, Result};
use crate::store::{Change, Look, MAX_SIZE};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, Tally, guard, ord, pause, seeded};
use std::io;

/// How often a call starts over.
pub(super) const TRIES: u32 = 3;

/// How often a call reads what no look vouches for, while no change of the file is found. More, and the store never says the same.
const UNVOUCHED: u32 = 100;

/// The same for faults, which have nothing but fills: so many fills in turn, and if nothing but the ctime moves, which some
/// look will miss, a hundred times as many.
const FILLS: u64 = 100 * TOUCHED_FILLS;
const TOUCHED_FILLS: u64 = 100;

/// How often more if it grew meanwhile. Few looks come in the middle of an append.
const APPENDS: u32 = 32;

/// In the epoch: the version is young.
const YOUNG: u64 = 1;

/// What one file's cache knows of its store.
pub(super) struct Coherence {
    /// Whether the store has anything to say.
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

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// What the store said when its bytes were last known to be those of the cached pages.
    look: Look,
    /// What it said when it was found rewritten, until that is long ago.
    young: Option<Look>,
}

/// One call, of several reads perhaps, whose answer must be of one version: [`File::one_version`](super::File::one_version).
#[derive(Debug)]
pub struct OneVersion {
    epoch: u64,
    rewrites: u64,
    /// Of the file, when the try began.
    size: u64,
    /// Tries that ended because the file was rewritten, because its ctime moved, and because it grew.
    rewritten: u32,
    touched: u32,
    grown: u32,
    /// Those that ended though no change was found.
    unvouched: u32,
}

/// What becomes of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All that was read is of one version.
    OneVersion,
    /// The file changed meanwhile: what was read is to be read again.
    Again,
    /// The same; but nothing else than the ctime has moved for so long that [`File::read_twice`](super::File::read_twice)
    /// is worth its while.
    ReadTwice,
}

impl Coherence {
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
        // Relaxed: the fence of each copy (`copy_out`) comes between. It pairs with the Release in `move_on`: who started with a
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

    /// Moves the epoch. The caller holds `invalidate_lock` for writing, and no page of another version is left.
    fn move_on(&self, young: bool) {
        let next = (self.epoch.load(Ordering::Relaxed) | YOUNG) + 1 + u64::from(young);
        self.epoch.store(next, ord!("epoch.release", Release));
    }
}

impl AddressSpace {
    fn store_says<T>(&self, answer: io::Result<T>) -> Result<T> {
        answer.map_err(|error| Error::Io(IoError::new(error, &self.name)))
    }

    /// What the store says now.
    pub(super) fn look(&self) -> Result<Look> {
        self.store_says(self.store.look())
    }

    /// Looks whether somebody else changed the store, and follows: what is done before pages are read.
    pub(super) fn follow_changes(&self) -> Result<()> {
        let Some(seen) = self.coherence.expected() else { return Ok(()) };
        let look = self.look()?;
        if look == seen { Ok(()) } else { self.revalidate(false).map(drop) }
    }

    /// The same, for whoever holds `invalidate_lock` for writing.
    pub(super) fn follow_changes_inside(&self) -> Result<()> {
        let Some(seen) = self.coherence.expected() else { return Ok(()) };
        let look = self.look()?;
        if look == seen { Ok(()) } else { self.adopt(false).map(drop) }
    }

    /// The same before a read that reaches beyond the known end; whether it does.
    pub(super) fn look_at_the_end(&self, offset: u64, length: usize) -> Result<bool> {
        let beyond = length > 0 && offset.saturating_add(length as u64) > self.i_size();
        if beyond {
            self.follow_changes()?;
        }
        Ok(beyond)
    }

    /// Follows growth that a fill met.
    #[inline]
    pub(super) fn catch_up(&self) -> Result<()> {
        if self.coherence.behind.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        self.coherence.behind.store(0, Ordering::Relaxed);
        self.follow_changes()
    }

    /// Follows what somebody else did to the store. If it was changed, every cached page goes, and if `drop_all`, in any case;
    /// if only its size is known to have changed, those beyond a smaller one, and a page that was partial, as what follows
    /// its old end is not zeros any more.
    pub(super) fn revalidate(&self, drop_all: bool) -> Result<u64> {
        let says_nothing = || Ok(!self.coherence.says && self.store_says(self.store.size())?.is_none());
        if !drop_all && self.read_by.may_stall() && says_nothing()? {
            // There is nothing to follow, and no read to wait for.
            return Ok(self.i_size());
        }
        let stable = self.quiet(0, None)?;
        let before = self.i_size();
        let after = self.adopt(drop_all)?;
        drop(stable);
        if after != before {
            crate::rcu::barrier();
        }
        Ok(after)
    }

    /// Looks and follows; answers the size. The caller holds `invalidate_lock` for writing.
    pub(super) fn adopt(&self, drop_all: bool) -> Result<u64> {
        // Before any read: what changes later is seen next time.
        let look = self.look()?;
        let size = match look.size {
            None => self.store_says(self.store.size())?,
            size => size,
        };
        let before = self.i_size();
        let after = size.unwrap_or(before).min(MAX_SIZE);
        let seen = *self.coherence.seen.lock();
        let change = look.since(&seen.look);
        let written = drop_all || change == Change::Written;
        if !written && change != Change::Touched {
            self.coherence.seen.lock().look = look;
            self.resize(before, after);
            return Ok(after);
        }
        let found = if change == Change::Written { Some(look) } else { seen.young };
        let young = found.filter(|found| found.unsettled().is_some());
        let drop_pages = || self.shared.count(Stat::Invalidated, self.truncate_pages(0));
        let note = || {
            *self.coherence.seen.lock() = Seen { look, young };
            if written {
                let rewrites = self.coherence.rewrites.load(Ordering::Relaxed);
                self.coherence.rewrites.store(rewrites + 1, Ordering::Relaxed);
            }
            self.coherence.move_on(young.is_some());
        };
        let resize = || self.resize(before, after);
        seeded!("adopt.seed.size_first", resize());
        // Whoever starts with the new epoch finds no page of the old version; whoever sees a page of the new one, or its size,
        // sees the new epoch.
        seeded!(
            "adopt.seed.epoch_first",
            {
                note();
                drop_pages();
            },
            {
                drop_pages();
                note();
            }
        );
        resize();
        Ok(after)
    }

    /// The size that somebody else gave the store.
    fn resize(&self, before: u64, after: u64) {
        if after < before {
            self.shrink_pages(after);
            self.zero_tail(after);
        } else if after > before {
            seeded!("resize.seed.size_first", self.i_size_write(after));
            self.drop_partial_page(before);
            self.i_size_write(after);
        }
    }

    /// Notes what the store says after a change of our own.
    pub(super) fn note_own_change(&self) {
        if self.coherence.says {
            // A store that cannot say now is asked again before the next read.
            if let Ok(look) = self.store.look() {
                self.coherence.seen.lock().look = look;
            }
        }
    }

    /// Trusts a version that was found when it was young, once it is old: what was read of it meanwhile goes. Waits for that
    /// if `wait`.
    pub(super) fn settle(&self, wait: bool) -> Result<()> {
        let (mut waits, mut size) = (0, self.i_size());
        while Coherence::is_young(self.coherence.epoch()) {
            // Written again: young again.
            self.follow_changes()?;
            // An append moves the time first and the size last: this look, or the last one, came between.
            if self.i_size() > size {
                (waits, size) = (0, self.i_size());
            }
            let left = self.coherence.seen.lock().young.and_then(|found| found.unsettled());
            match left {
                None => self.trust()?,
                Some(_) if !wait => break,
                Some(_) if waits == TRIES => return Err(self.stale()),
                Some(left) => pause(left),
            }
            waits += 1;
        }
        Ok(())
    }

    fn trust(&self) -> Result<()> {
        let _stable = self.quiet(0, None)?;
        let is_old = |young: Option<Look>| young.is_none_or(|found| found.unsettled().is_none());
        let young = self.coherence.seen.lock().young;
        if Coherence::is_young(self.coherence.epoch()) && is_old(young) {
            self.shared.count(Stat::Invalidated, self.truncate_pages(0));
            self.coherence.seen.lock().young = None;
            self.coherence.move_on(false);
        }
        Ok(())
    }

    /// Begins a call.
    pub(super) fn one_version(&self) -> Result<OneVersion> {
        loop {
            self.settle(true)?;
            if let Some(call) = self.one_version_now() {
                return Ok(call);
            }
        }
    }

    /// The same, unless it has to be waited for.
    pub(super) fn one_version_now(&self) -> Option<OneVersion> {
        let epoch = self.coherence.epoch();
        let rewrites = self.coherence.rewrites.load(Ordering::Relaxed);
        let size = self.i_size();
        (!Coherence::is_young(epoch)).then_some(OneVersion {
            epoch,
            rewrites,
            size,
            rewritten: 0,
            touched: 0,
            grown: 0,
            unvouched: 0,
        })
    }

    /// Whether no change was found since the try began.
    #[inline]
    pub(super) fn is_current(&self, call: &OneVersion) -> bool {
        guard!("read.one_version", self.coherence.epoch() == call.epoch)
    }

    /// What becomes of a try, at its end, which `came` to its end; if it failed, the next one has begun.
    pub(super) fn judge(&self, call: &mut OneVersion, came: bool) -> Result<Verdict> {
        if self.is_current(call) {
            if came {
                return Ok(Verdict::OneVersion);
            }
            call.unvouched += 1;
            return if call.unvouched < UNVOUCHED { Ok(Verdict::Again) } else { Err(self.stale()) };
        }
        let rewrites = self.coherence.rewrites.load(Ordering::Relaxed);
        let next = self.one_version()?;
        if self.read_by.may_stall() {
            // Nobody reads it but workers, into pages.
            self.count_rewritten(call)?;
        } else if rewrites == call.rewrites {
            call.touched += 1;
        } else if next.size > call.size && call.grown < APPENDS {
            // What is looked at in the middle of an append looks rewritten.
            call.grown += 1;
        } else {
            self.count_rewritten(call)?;
        }
        (call.epoch, call.rewrites, call.size) = (next.epoch, next.rewrites, next.size);
        Ok(if call.touched < TRIES { Verdict::Again } else { Verdict::ReadTwice })
    }

    /// A look at a moment at which nobody was writing: the last write began long ago, or was an append that has ended. None: no
    /// such moment comes.
    pub(super) fn look_at_rest(&self) -> Result<Option<Look>> {
        let mut look = self.look()?;
        for _ in 0..TRIES {
            let Some(left) = look.unsettled() else { return Ok(Some(look)) };
            pause(left);
            let before = std::mem::replace(&mut look, self.look()?);
            if look.since(&before) == Change::Grown {
                return Ok(Some(look));
            }
        }
        Ok(None)
    }

    /// One of the tries that a file has that is rewritten while it is read.
    pub(super) fn count_rewritten(&self, call: &mut OneVersion) -> Result<()> {
        call.rewritten += 1;
        if call.rewritten < TRIES { Ok(()) } else { Err(self.stale()) }
    }

    fn stale(&self) -> Error {
        Error::Io(IoError::changed(&self.name))
    }
}

impl std::fmt::Debug for Coherence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coherence").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests;
