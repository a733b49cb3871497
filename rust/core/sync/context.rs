//! What each thread keeps for itself: its slot, and words that the modules above use.
//!
//! Owns: the bond between a thread and its slot. A thread claims one at its first section and gives it back at its end. But
//! foreign code may run after that, because destructors of thread-locals run in any order, and it may enter sections. So a thread
//! whose end has been announced is *late*: each of its outermost sections borrows a slot for as long as it lasts.
//!
//! The context itself has no destructor: it can be used at any moment of a thread's life. A slot records its owner, and a thread
//! checks it each time: what a forked child remembers of its parent's slots is void.

use super::slots::Slot;
use super::{Numbers, Ordering, duty, guard, imp};
use std::cell::Cell;

/// One thread's words.
pub(crate) struct Context {
    /// The slot claimed last, with its number and the ticket of the claim; no thread's slot if it was given back.
    slot: Cell<&'static Slot>,
    number: Cell<usize>,
    ticket: Cell<u64>,
    /// The thread's end has been announced, or cannot be.
    late: Cell<bool>,
    /// Sections that are open (`rcu`).
    pub(crate) nesting: Cell<u32>,
    /// The process in which this thread is running deferred work (`rcu`); 0 for none.
    pub(crate) running: Cell<u64>,
    /// The page touched last and its life (`cache::accessed`).
    pub(crate) last_touched: Cell<(u64, u32)>,
}

impl Context {
    pub(crate) const fn new(nobodys: &'static Slot) -> Self {
        Self {
            slot: Cell::new(nobodys),
            number: Cell::new(0),
            ticket: Cell::new(0),
            late: Cell::new(false),
            nesting: Cell::new(0),
            running: Cell::new(0),
            last_touched: Cell::new((0, 0)),
        }
    }

    /// This thread's slot, if it has one.
    #[inline]
    pub(crate) fn slot(&self) -> Option<&'static Slot> {
        let slot = self.slot.get();
        guard!("context.owned", slot.is_owned_by(self.ticket.get())).then_some(slot)
    }

    /// Claims a slot for a thread that has none, for the rest of its life or, if it is late, for one section. `None`: there is
    /// none.
    #[cold]
    pub(crate) fn claim(&self) -> Option<&'static Slot> {
        static TICKETS: Numbers = Numbers::new();
        duty!("context.claim.forgets", self.slot.set(imp::nobodys_slot()));
        if !self.late.get() && !imp::announces_end() {
            self.late.set(true);
        }
        let ticket = TICKETS.next();
        let (number, slot) = imp::slots().claim(ticket, imp::first_look())?;
        debug_assert!(
            slot.count.load(Ordering::Relaxed) & 1 == 0,
            "slot {number} was given back inside a section"
        );
        self.number.set(number);
        self.ticket.set(ticket);
        self.slot.set(slot);
        Some(slot)
    }

    /// The slot with which the open section began, if it had one.
    #[inline]
    pub(crate) fn slot_of_section(&self) -> Option<&'static Slot> {
        let slot = self.slot.get();
        (!std::ptr::eq(slot, imp::nobodys_slot())).then_some(slot)
    }

    /// The number of this thread's slot, if it has one.
    #[cfg(not(any(specmm_loom, specmm_shuttle)))]
    #[inline]
    pub(super) fn number(&self) -> Option<usize> {
        self.slot().map(|_| self.number.get())
    }

    /// The ticket of the last claim.
    #[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
    pub(super) fn ticket(&self) -> u64 {
        self.ticket.get()
    }

    /// The outermost section has ended.
    #[inline]
    pub(crate) fn section_ended(&self) {
        if self.late.get() {
            self.give_back();
        }
    }

    #[cfg_attr(any(specmm_loom, specmm_shuttle), allow(dead_code, reason = "only models of it end threads"))]
    /// The thread is about to end. A section may be open, in a value that another thread-local holds.
    pub(crate) fn end(&self) {
        self.late.set(true);
        if guard!("context.end.outside", self.nesting.get() == 0) {
            self.give_back();
        }
    }

    #[cold]
    fn give_back(&self) {
        // What another process claimed was wiped.
        let slot = self.slot.replace(imp::nobodys_slot());
        if guard!("context.give_back.owned", slot.is_owned_by(self.ticket.get())) {
            slot.give_back();
        }
    }
}

/// Runs `work` on the calling thread's context.
#[inline]
pub(crate) fn with<R>(work: impl FnOnce(&Context) -> R) -> R {
    imp::with_context(work)
}

/// A number that no other thread has at the moment: small and dense, for counters that threads do not share. `None` where the
/// thread has no slot: before its first section, and outside of sections when it is late.
#[inline]
#[must_use]
pub(crate) fn thread_number() -> Option<usize> {
    imp::thread_number()
}
