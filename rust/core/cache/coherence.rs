//! Following what others do to a file, so that no result mixes bytes of two versions.
//!
//! Owns: examining the store, and the reaction to a change. Does not own what is remembered (`version`), the removal of pages
//! (`truncate`), nor the attempts of a call (`one_version`).
//!
//! - A fill looks at the store after its read. If the store reports the same state as when the file's pages were last known to be
//!   of one version, it was in that state all the time between, and the bytes are of that version. Otherwise the page stays not
//!   up to date. (Growth leaves existing bytes alone: then they are good.)
//! - A thread that finds a change takes `invalidate_lock` for writing, takes every page out, notes the new look, and then
//!   advances the epoch. So any thread that can read bytes of the new version also sees the new epoch.
//! - A file's timestamps move when a write begins, not when it ends. So a version that was young when found is not trusted: there
//!   are no hits, calls over several pages wait until it is old, and then everything is read again.

use super::address_space::AddressSpace;
use super::invalidate_lock::quiet;
use super::stats::Stat;
use super::truncate;
use super::version::{Seen, Version};
use crate::error::{Error, IoError, Result};
use crate::store::{Change, Look, MAX_SIZE};
use crate::sync::{duty, in_order, operation, pause, seeded};
use std::io;

/// How often a call starts over.
pub(super) const TRIES: u32 = 3;

fn store_says<T>(mapping: &AddressSpace, answer: io::Result<T>) -> Result<T> {
    answer.map_err(|error| Error::Io(IoError::new(error, &mapping.name)))
}

/// The store's present state.
pub(super) fn look(mapping: &AddressSpace) -> Result<Look> {
    store_says(mapping, mapping.store.look())
}

/// Checks whether the store was changed by others and follows; called before pages are read.
pub(super) fn follow_changes(mapping: &AddressSpace) -> Result<()> {
    operation!("revalidate");
    let Some(seen) = mapping.version.expected() else { return Ok(()) };
    let look = look(mapping)?;
    if look == seen { Ok(()) } else { revalidate(mapping, false).map(drop) }
}

/// The same for a caller that holds `invalidate_lock` for writing.
pub(super) fn follow_changes_inside(mapping: &AddressSpace) -> Result<()> {
    let Some(seen) = mapping.version.expected() else { return Ok(()) };
    let look = look(mapping)?;
    if look == seen { Ok(()) } else { adopt(mapping, false).map(drop) }
}

/// The same, but only before a read past the known end; returns whether it is one.
pub(super) fn look_at_the_end(mapping: &AddressSpace, offset: u64, length: usize) -> Result<bool> {
    let beyond = length > 0 && offset.saturating_add(length as u64) > mapping.i_size();
    if beyond {
        follow_changes(mapping)?;
    }
    Ok(beyond)
}

/// Follows growth that a fill has found.
#[inline]
pub(super) fn catch_up(mapping: &AddressSpace) -> Result<()> {
    if mapping.version.is_behind() { follow_changes(mapping) } else { Ok(()) }
}

/// Follows what others did to the store. If it was changed, or with `drop_all`, every cached page is dropped. If only its size is
/// known to have changed, the pages past a smaller size are dropped, and so is a page that was partial, because the bytes after
/// its old end are no longer zeros.
pub(super) fn revalidate(mapping: &AddressSpace, drop_all: bool) -> Result<u64> {
    operation!("revalidate");
    let says_nothing = || Ok(!mapping.version.says() && store_says(mapping, mapping.store.size())?.is_none());
    if !drop_all && mapping.read_by.may_stall() && says_nothing()? {
        // Nothing to follow, and so no reads to wait for.
        return Ok(mapping.i_size());
    }
    let stable = quiet(mapping, 0, None)?;
    let before = (mapping.i_size(), mapping.version.epoch());
    let after = adopt(mapping, drop_all)?;
    drop(stable);
    if (after, mapping.version.epoch()) != before {
        // What was taken out is given back.
        duty!("revalidate.barrier", crate::rcu::barrier());
    }
    Ok(after)
}

/// Looks at the store, follows, and returns the size. The caller holds `invalidate_lock` for writing.
pub(super) fn adopt(mapping: &AddressSpace, drop_all: bool) -> Result<u64> {
    operation!("revalidate");
    let seen = mapping.version.seen();
    // Before any read: a later change is seen next time.
    let look = look(mapping)?.past_an_append(&seen.look, || mapping.store.look());
    let look = store_says(mapping, look)?;
    let size = match look.size {
        None => store_says(mapping, mapping.store.size())?,
        size => size,
    };
    let before = mapping.i_size();
    let after = size.unwrap_or(before).min(MAX_SIZE);
    let change = look.since(&seen.look);
    let written = drop_all || change == Change::Written;
    if !written && change != Change::Touched {
        // Whoever finds the look noted takes the size for followed.
        in_order!("adopt.grown.noted_last", resize(mapping, before, after), mapping.version.note_look(look));
        return Ok(after);
    }
    let found = if change == Change::Written { Some(look) } else { seen.young };
    let young = found.filter(|found| found.unsettled().is_some());
    let drop_pages = || mapping.shared.count(Stat::Invalidated, truncate::truncate_pages(mapping, 0));
    let move_on = || mapping.version.move_on(young.is_some(), written);
    let resize = || resize(mapping, before, after);
    seeded!("adopt.seed.size_first", bug = resize());
    // A thread that starts with the new epoch finds no page of the old version; one that sees a page of the new version, or its
    // size, sees the new epoch.
    in_order!("adopt.seed.epoch_first", drop_pages(), move_on());
    in_order!("adopt.noted_last", resize(), mapping.version.note(Seen { look, young }));
    Ok(after)
}

/// Takes over a size that others gave the store.
fn resize(mapping: &AddressSpace, before: u64, after: u64) {
    if after < before {
        in_order!(
            "resize.shrunk_first",
            truncate::shrink_pages(mapping, after),
            truncate::zero_tail(mapping, after)
        );
    } else if after > before {
        in_order!(
            "resize.seed.size_first",
            truncate::drop_partial_page(mapping, before),
            mapping.i_size_write(after)
        );
    }
}

/// Notes the store's state after a change made through this cache.
pub(super) fn note_own_change(mapping: &AddressSpace) {
    if mapping.version.says() {
        // If the store cannot be examined now, it is examined before the next read.
        if let Ok(look) = mapping.store.look() {
            mapping.version.note_look(look);
        }
    }
}

/// Starts trusting a version that was young when found, once it is old, and drops what was read of it meanwhile. With `wait`,
/// waits until it is old.
pub(super) fn settle(mapping: &AddressSpace, wait: bool) -> Result<()> {
    let (mut waits, mut size) = (0, mapping.i_size());
    while Version::is_young(mapping.version.epoch()) {
        // If it was written again, it is young again.
        follow_changes(mapping)?;
        // An append moves the timestamps first and the size last: this look, or the previous one, came between.
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
        let drop_pages = || mapping.shared.count(Stat::Invalidated, truncate::truncate_pages(mapping, 0));
        in_order!("trust.epoch_last", drop_pages(), mapping.version.trust());
    }
    Ok(())
}

pub(super) fn stale(mapping: &AddressSpace) -> Error {
    Error::Io(IoError::changed(&mapping.name))
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests;
