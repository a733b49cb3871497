//! A call that reads at several offsets, all from one version of the file.
//!
//! Owns: the attempts of such a call. Does not own how changes are detected (`coherence`) nor how the parts are read (`read`,
//! `gather`). Linux makes no such guarantee.
//!
//! A call loads the epoch before its first page and after its last. If the epoch has moved, it starts over: at most three times
//! for a file that is being rewritten. If only its ctime moves, the fourth attempt bypasses the cache and reads the store twice:
//! if both reads agree, all of it was in the file at the moment between them.

use super::address_space::AddressSpace;
use super::coherence::{self, TRIES};
use super::version::Version;
use crate::error::Result;
use crate::store::{Change, Look};
use crate::sync::{guard, pause};

/// Additional attempts if the file grew meanwhile. Few looks fall in the middle of an append.
const APPENDS: u32 = 32;

/// How often a call reads pages that no look at the store can confirm, although no change of the file is found. Beyond that, the
/// store apparently never reports the same state twice.
const UNVOUCHED: u32 = 100;

/// One call, perhaps of several reads, whose result must come from one version of the file:
/// [`File::one_version`](super::File::one_version).
#[derive(Debug)]
pub struct OneVersion {
    epoch: u64,
    rewrites: u64,
    /// The file's size when the attempt began.
    size: u64,
    /// Attempts that failed because the file was rewritten, because its ctime moved, and because it grew.
    rewritten: u32,
    touched: u32,
    grown: u32,
    /// Attempts that failed although no change was found.
    unvouched: u32,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Everything read is from one version.
    OneVersion,
    /// The file changed meanwhile: read everything again.
    Again,
    /// The same, but only the ctime keeps moving, so that [`File::read_twice`](super::File::read_twice) is worthwhile.
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

/// The same, or None if that would have to wait.
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

/// Whether no change was found since the attempt began.
#[inline]
pub(super) fn is_current(mapping: &AddressSpace, call: &OneVersion) -> bool {
    guard!("read.one_version", mapping.version.epoch() == call.epoch)
}

/// Judges an attempt at its end, where `came` says whether it read everything. If it failed, the next attempt has begun.
pub(super) fn judge(mapping: &AddressSpace, call: &mut OneVersion, came: bool) -> Result<Verdict> {
    if is_current(mapping, call) {
        if came {
            return Ok(Verdict::OneVersion);
        }
        call.unvouched += 1;
        return if call.unvouched < UNVOUCHED { Ok(Verdict::Again) } else { Err(coherence::stale(mapping)) };
    }
    let next = one_version(mapping)?;
    if mapping.read_by.may_stall() {
        // Only workers read it, and only into pages.
        count_rewritten(mapping, call)?;
    } else if next.rewrites == call.rewrites {
        call.touched += 1;
    } else if next.size > call.size && call.grown < APPENDS {
        // In the middle of an append, a file looks rewritten.
        call.grown += 1;
    } else {
        count_rewritten(mapping, call)?;
    }
    (call.epoch, call.rewrites, call.size) = (next.epoch, next.rewrites, next.size);
    Ok(if call.touched < TRIES { Verdict::Again } else { Verdict::ReadTwice })
}

/// A look at the store while nothing was being written: the last write began long ago, or was an append that has ended. None: no
/// such moment came.
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

/// Counts one of the attempts allowed for a file that is rewritten while it is read.
pub(super) fn count_rewritten(mapping: &AddressSpace, call: &mut OneVersion) -> Result<()> {
    call.rewritten += 1;
    if call.rewritten < TRIES { Ok(()) } else { Err(coherence::stale(mapping)) }
}
