//! A call that reads in several places, all of one version of the file.
//!
//! Owns: the tries of such a call. Does not own how changes are found (`coherence`) nor how its parts are read (`read`,
//! `gather`). Linux promises nothing of the kind.
//!
//! A call loads the epoch before its first page and after its last. If it moved, it starts over: at most three times for a file
//! that is being rewritten, and if only its ctime moves, the fourth try reads the store twice, past the cache: what two reads in
//! turn agree on was all there at the moment between them.

use super::address_space::AddressSpace;
use super::coherence::{self, TRIES};
use super::version::Version;
use crate::error::Result;
use crate::store::{Change, Look};
use crate::sync::{guard, pause};

/// How often more if it grew meanwhile. Few looks come in the middle of an append.
const APPENDS: u32 = 32;

/// How often a call reads what no look vouches for, while no change of the file is found. More, and the store never says the same.
const UNVOUCHED: u32 = 100;

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

/// Begins a call.
pub(super) fn one_version(mapping: &AddressSpace) -> Result<OneVersion> {
    loop {
        coherence::settle(mapping, true)?;
        if let Some(call) = one_version_now(mapping) {
            return Ok(call);
        }
    }
}

/// The same, unless it has to be waited for.
pub(super) fn one_version_now(mapping: &AddressSpace) -> Option<OneVersion> {
    let epoch = mapping.version.epoch();
    let rewrites = mapping.version.rewrites();
    let size = mapping.i_size();
    (!Version::is_young(epoch)).then_some(OneVersion {
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
pub(super) fn is_current(mapping: &AddressSpace, call: &OneVersion) -> bool {
    guard!("read.one_version", mapping.version.epoch() == call.epoch)
}

/// What becomes of a try, at its end, which `came` to its end; if it failed, the next one has begun.
pub(super) fn judge(mapping: &AddressSpace, call: &mut OneVersion, came: bool) -> Result<Verdict> {
    if is_current(mapping, call) {
        if came {
            return Ok(Verdict::OneVersion);
        }
        call.unvouched += 1;
        return if call.unvouched < UNVOUCHED { Ok(Verdict::Again) } else { Err(coherence::stale(mapping)) };
    }
    let rewrites = mapping.version.rewrites();
    let next = one_version(mapping)?;
    if mapping.read_by.may_stall() {
        // Nobody reads it but workers, into pages.
        count_rewritten(mapping, call)?;
    } else if rewrites == call.rewrites {
        call.touched += 1;
    } else if next.size > call.size && call.grown < APPENDS {
        // What is looked at in the middle of an append looks rewritten.
        call.grown += 1;
    } else {
        count_rewritten(mapping, call)?;
    }
    (call.epoch, call.rewrites, call.size) = (next.epoch, next.rewrites, next.size);
    Ok(if call.touched < TRIES { Verdict::Again } else { Verdict::ReadTwice })
}

/// A look at a moment at which nobody was writing: the last write began long ago, or was an append that has ended. None: no
/// such moment comes.
pub(super) fn look_at_rest(mapping: &AddressSpace) -> Result<Option<Look>> {
    let mut look = coherence::look(mapping)?;
    for _ in 0..TRIES {
        let Some(left) = look.unsettled() else { return Ok(Some(look)) };
        pause(left);
        let before = std::mem::replace(&mut look, coherence::look(mapping)?);
        if look.since(&before) == Change::Grown {
            return Ok(Some(look));
        }
    }
    Ok(None)
}

/// One of the tries that a file has that is rewritten while it is read.
pub(super) fn count_rewritten(mapping: &AddressSpace, call: &mut OneVersion) -> Result<()> {
    call.rewritten += 1;
    if call.rewritten < TRIES { Ok(()) } else { Err(coherence::stale(mapping)) }
}
