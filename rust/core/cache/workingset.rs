//! What an evicted page leaves behind, and what its return says.
//!
//! Owns: shadows. Mirrors `mm/workingset.c`. A shadow stands in the slot of an evicted page and remembers how far the cache
//! had aged. When the page is read again, the difference is its refault distance: how many frames more would have kept it. If
//! that is less than what the active list holds, the page competes with pages that may be used less than it is, and comes
//! back as an active one.
//!
//! There are never more shadows than frames: when there would be, those that are older than half of that are taken away.

use super::page_cache::Stat;
use super::{AddressSpace, Shared};
use crate::page::{List, PageRef, usage};
use crate::sync::{Tally, guard};
use crate::xarray::{Entry, MAX_VALUE};

/// The age of a cache, and how many shadows it has.
#[derive(Debug, Default)]
pub(crate) struct Workingset {
    /// Evictions and activations so far (`nonresident_age`).
    age: Tally,
    shadows: Tally,
}

impl Workingset {
    /// Shadows in all files.
    pub(crate) fn shadows(&self) -> u64 {
        self.shadows.get()
    }

    /// The shadow of a page that is about to be evicted, if one more is allowed.
    pub(super) fn eviction(&self, capacity: usize) -> Entry {
        let age = self.age.next() & MAX_VALUE;
        // Counted first: of several who evict at once none oversteps.
        if self.shadows.next() > capacity as u64 {
            self.shadows.sub(1);
            return Entry::EMPTY;
        }
        Entry::value(age)
    }

    /// An entry was overwritten or erased, or its page stayed after all.
    pub(super) fn forget(&self, entry: Entry) {
        if entry.as_value().is_some() {
            self.shadows.sub(1);
        }
    }

    /// A page became active: pages that are not resident have grown older by one.
    pub(super) fn activation(&self) {
        self.age.add(1);
    }

    fn distance(&self, shadow: u64) -> u64 {
        self.age.get().wrapping_sub(shadow) & MAX_VALUE
    }

    /// Takes old shadows away if there is no room for so many more.
    pub(super) fn make_room_for(&self, evictions: usize, shared: &Shared) {
        let capacity = shared.frames.capacity() as u64;
        if self.shadows() + evictions as u64 <= capacity {
            return;
        }
        for mapping in shared.living_files() {
            mapping.forget_shadows(|shadow| self.distance(shadow) > capacity / 2);
        }
    }
}

impl Shared {
    /// A page was put where a shadow was (`workingset_refault`).
    pub(super) fn refault(&self, page: PageRef<'_>, old: Entry) {
        let Some(shadow) = old.as_value() else { return };
        self.workingset.forget(old);
        self.count(Stat::Refaults, 1);
        if self.workingset.distance(shadow) <= self.frames.usage().active as u64 {
            page.usage().set(usage::ACTIVE);
            self.frames.move_to(page, List::Active);
            self.workingset.activation();
            self.count(Stat::RefaultsActivated, 1);
        }
    }
}

impl AddressSpace {
    /// Erases the shadows for which `old` holds.
    fn forget_shadows(&self, old: impl Fn(u64) -> bool) {
        let mut next = Some(0);
        loop {
            let section = crate::rcu::read();
            let found = next.and_then(|from| self.pages.next(from, u64::MAX, None, &section));
            drop(section);
            let Some((index, entry)) = found else { return };
            next = index.checked_add(1);
            if entry.as_value().is_some_and(&old) {
                self.forget_shadow(index);
            }
        }
    }

    /// How many shadows the file has.
    pub(super) fn count_shadows(&self) -> u64 {
        let section = crate::rcu::read();
        let mut next = Some(0);
        let all = std::iter::from_fn(|| {
            let (index, entry) = next.and_then(|from| self.pages.next(from, u64::MAX, None, &section))?;
            next = index.checked_add(1);
            Some(entry)
        });
        all.filter(|entry| entry.as_value().is_some()).count() as u64
    }

    /// Erases the shadow at `index`, unless a page has come.
    pub(super) fn forget_shadow(&self, index: u64) {
        let mut pages = self.pages.lock();
        if guard!("forget_shadow.is_one", pages.get(index).as_value().is_some()) {
            self.shared.workingset.forget(pages.erase(index));
        }
    }
}
