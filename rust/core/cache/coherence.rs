//! Following what others do to a file, so that nothing is answered with bytes of two versions.
//!
//! Owns: the look at the store, and what is done when it says something else. Does not own what is remembered (`version`), how
//! pages leave (`truncate`), nor the tries of a call (`one_version`).
//!
//! - A fill looks at the store after its read. If that says what it said when the file's pages were last known to be of one
//!   version, it has said so all the time between, and the bytes are of that version. Otherwise the page stays as it is, not
//!   up to date. (Growth leaves what was there: then the bytes are good.)
//! - Who finds a change takes `invalidate_lock` for writing, takes every page out, then notes the new look, then moves the
//!   epoch. So bytes of a new version can be read only by those who also see the new epoch.
//! - The time of a file moves when a write begins, not when it ends. So a version that was found when it was young is not
//!   trusted: no hits, and calls over several pages wait until it is old, and then all is read again.

use super::address_space::AddressSpace;
use super::invalidate_lock::quiet;
use super::stats::Stat;
use super::truncate;
use super::version::{Seen, Version};
use crate::error::{Error, IoError, Result};
use crate::store::{Change, Look, MAX_SIZE};
use crate::sync::{in_order, pause, seeded};
use std::io;

/// How often a call starts over.
pub(super) const TRIES: u32 = 3;

fn store_says<T>(mapping: &AddressSpace, answer: io::Result<T>) -> Result<T> {
    answer.map_err(|error| Error::Io(IoError::new(error, &mapping.name)))
}

/// What the store says now.
pub(super) fn look(mapping: &AddressSpace) -> Result<Look> {
    store_says(mapping, mapping.store.look())
}

/// Looks whether somebody else changed the store, and follows: what is done before pages are read.
pub(super) fn follow_changes(mapping: &AddressSpace) -> Result<()> {
    let Some(seen) = mapping.version.expected() else { return Ok(()) };
    let look = look(mapping)?;
    if look == seen { Ok(()) } else { revalidate(mapping, false).map(drop) }
}

/// The same, for whoever holds `invalidate_lock` for writing.
pub(super) fn follow_changes_inside(mapping: &AddressSpace) -> Result<()> {
    let Some(seen) = mapping.version.expected() else { return Ok(()) };
    let look = look(mapping)?;
    if look == seen { Ok(()) } else { adopt(mapping, false).map(drop) }
}

/// The same before a read that reaches beyond the known end; whether it does.
pub(super) fn look_at_the_end(mapping: &AddressSpace, offset: u64, length: usize) -> Result<bool> {
    let beyond = length > 0 && offset.saturating_add(length as u64) > mapping.i_size();
    if beyond {
        follow_changes(mapping)?;
    }
    Ok(beyond)
}

/// Follows growth that a fill met.
#[inline]
pub(super) fn catch_up(mapping: &AddressSpace) -> Result<()> {
    if mapping.version.is_behind() { follow_changes(mapping) } else { Ok(()) }
}

/// Follows what somebody else did to the store. If it was changed, every cached page goes, and if `drop_all`, in any case;
/// if only its size is known to have changed, those beyond a smaller one, and a page that was partial, as what follows
/// its old end is not zeros any more.
pub(super) fn revalidate(mapping: &AddressSpace, drop_all: bool) -> Result<u64> {
    let says_nothing = || Ok(!mapping.version.says() && store_says(mapping, mapping.store.size())?.is_none());
    if !drop_all && mapping.read_by.may_stall() && says_nothing()? {
        // There is nothing to follow, and no read to wait for.
        return Ok(mapping.i_size());
    }
    let stable = quiet(mapping, 0, None)?;
    let before = mapping.i_size();
    let after = adopt(mapping, drop_all)?;
    drop(stable);
    if after != before {
        crate::rcu::barrier();
    }
    Ok(after)
}

/// Looks and follows; answers the size. The caller holds `invalidate_lock` for writing.
pub(super) fn adopt(mapping: &AddressSpace, drop_all: bool) -> Result<u64> {
    // Before any read: what changes later is seen next time.
    let look = look(mapping)?;
    let size = match look.size {
        None => store_says(mapping, mapping.store.size())?,
        size => size,
    };
    let before = mapping.i_size();
    let after = size.unwrap_or(before).min(MAX_SIZE);
    let seen = mapping.version.seen();
    let change = look.since(&seen.look);
    let written = drop_all || change == Change::Written;
    if !written && change != Change::Touched {
        mapping.version.note_look(look);
        resize(mapping, before, after);
        return Ok(after);
    }
    let found = if change == Change::Written { Some(look) } else { seen.young };
    let young = found.filter(|found| found.unsettled().is_some());
    let drop_pages = || mapping.shared.count(Stat::Invalidated, truncate::truncate_pages(mapping, 0));
    let note = || mapping.version.move_on(Seen { look, young }, written);
    let resize = || resize(mapping, before, after);
    seeded!("adopt.seed.size_first", bug = resize());
    // Whoever starts with the new epoch finds no page of the old version; whoever sees a page of the new one, or its size,
    // sees the new epoch.
    in_order!("adopt.seed.epoch_first", drop_pages(), note());
    resize();
    Ok(after)
}

/// The size that somebody else gave the store.
fn resize(mapping: &AddressSpace, before: u64, after: u64) {
    if after < before {
        truncate::shrink_pages(mapping, after);
        truncate::zero_tail(mapping, after);
    } else if after > before {
        in_order!(
            "resize.seed.size_first",
            truncate::drop_partial_page(mapping, before),
            mapping.i_size_write(after)
        );
    }
}

/// Notes what the store says after a change of our own.
pub(super) fn note_own_change(mapping: &AddressSpace) {
    if mapping.version.says() {
        // A store that cannot say now is asked again before the next read.
        if let Ok(look) = mapping.store.look() {
            mapping.version.note_look(look);
        }
    }
}

/// Trusts a version that was found when it was young, once it is old: what was read of it meanwhile goes. Waits for that
/// if `wait`.
pub(super) fn settle(mapping: &AddressSpace, wait: bool) -> Result<()> {
    let (mut waits, mut size) = (0, mapping.i_size());
    while Version::is_young(mapping.version.epoch()) {
        // Written again: young again.
        follow_changes(mapping)?;
        // An append moves the time first and the size last: this look, or the last one, came between.
        if mapping.i_size() > size {
            (waits, size) = (0, mapping.i_size());
        }
        let left = mapping.version.seen().young.and_then(|found| found.unsettled());
        match left {
            None => trust(mapping)?,
            Some(_) if !wait => break,
            Some(_) if waits == TRIES => return Err(stale(mapping)),
            Some(left) => pause(left),
        }
        waits += 1;
    }
    Ok(())
}

fn trust(mapping: &AddressSpace) -> Result<()> {
    let _stable = quiet(mapping, 0, None)?;
    let is_old = |young: Option<Look>| young.is_none_or(|found| found.unsettled().is_none());
    let young = mapping.version.seen().young;
    if Version::is_young(mapping.version.epoch()) && is_old(young) {
        mapping.shared.count(Stat::Invalidated, truncate::truncate_pages(mapping, 0));
        mapping.version.trust();
    }
    Ok(())
}

pub(super) fn stale(mapping: &AddressSpace) -> Error {
    Error::Io(IoError::changed(&mapping.name))
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests;
