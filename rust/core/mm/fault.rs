//! The entry of a fault: speculation first, then the classic path (`do_user_addr_fault`, `handle_mm_fault`).
//!
//! Owns: the order in which the sequence is checked up to the copy of the mapping, the retry of the classic path, and the
//! accounting. A fault is counted once, however often it is tried.

use super::events::Event;
use super::memory::{End, Fault};
use super::vma::{VmFlags, Vma, VmaCopy};
use super::{Locking, Mm, MmInner};
use crate::cache::filemap::{Pass, Pattern, unblock};
use crate::cache::judge_read_error;
use crate::cache::wait_for_frame;
use crate::cache::{Abort, NotRead, OpenFile, ReadError, VmFault};
use crate::error::{Error, IoError};
use crate::page::PAGE_SIZE;
use crate::rcu::{self, ReadSection};
use crate::sync::{guard, operation, seeded};

/// The result of one fault.
#[derive(Debug, Clone)]
pub struct FaultOutcome {
    /// The last pass's result, with MAJOR from any pass.
    pub result: VmFault,
    /// Why the speculative attempt gave up, if it did.
    pub abort: Option<Abort>,
    /// Whether the fault had to read or wait (`maj_flt`).
    pub major: bool,
    /// Why the result is SIGBUS, SIGSEGV or OOM.
    pub error: Option<Error>,
}

/// The classic path's result.
pub(super) struct Classic {
    pub(super) result: VmFault,
    tried: bool,
    error: Option<Error>,
}

impl Mm {
    /// One fault at `address`, step by step: speculative if the mode says so, then classic if that aborted. Failures are in the
    /// result, not errors of this call.
    pub fn fault(&self, address: u64, write: bool) -> FaultOutcome {
        self.inner.fault(address, write)
    }
}

impl MmInner {
    pub(super) fn fault(&self, address: u64, write: bool) -> FaultOutcome {
        if let Err(error) = self.require_open() {
            return FaultOutcome { result: VmFault::SIGSEGV, abort: None, major: false, error: Some(error) };
        }
        self.count(Event::Pgfault);
        let mut abort = None;
        if self.options.locking == Locking::Speculative {
            match self.fault_speculatively(address, write) {
                Ok(result) => {
                    self.count(Event::MinFlt);
                    return FaultOutcome { result, abort: None, major: false, error: None };
                }
                Err(cause) => abort = Some(cause),
            }
        }
        let Classic { result, tried, error } = self.fault_classically(address, write);
        let failed = result.has(VmFault::ERROR);
        let major = !failed && (tried || result.has(VmFault::MAJOR));
        if !failed {
            self.count(if major { Event::MajFlt } else { Event::MinFlt });
        }
        FaultOutcome { result, abort, major, error }
    }

    /// One attempt without the mmap lock. Every exit passes here, so attempts are commits plus aborts.
    pub(super) fn fault_speculatively(&self, address: u64, write: bool) -> Result<VmFault, Abort> {
        self.count(Event::SpfAttempt);
        let result = self.attempt(address, write);
        if let Err(cause) = result {
            self.events.add_abort(cause);
        }
        result
    }

    /// The attempt: one read section from the first read of the sequence to the credit.
    fn attempt(&self, address: u64, write: bool) -> Result<VmFault, Abort> {
        operation!("speculative fault");
        let section = rcu::read();
        let (vma, sequence) = self.find_and_copy(address, write, &section)?;
        if write && !guard!("spf.access", vma.flags.has(VmFlags::WRITE)) {
            return Err(Abort::AccessError);
        }
        let page = address & !(PAGE_SIZE as u64 - 1);
        let index = vma.index_at(page);
        let mut fault = Fault { mm: self, vma, address: page, index, write, published: 0 };
        let result = fault.handle_speculatively(sequence, &section)?;
        // After the entry is set: an attempt that aborts credits nothing.
        if fault.published > 0 {
            vma.file().credit_mmap_miss(fault.published, vma.flags.pattern());
        }
        Ok(result)
    }

    /// A copy of the mapping at `address`, in one version, and the sequence number of that version.
    #[inline]
    pub(super) fn find_and_copy<'s>(
        &'s self,
        address: u64,
        write: bool,
        section: &'s ReadSection,
    ) -> Result<(VmaCopy<'s>, u64), Abort> {
        let sequence = self.lock.sequence.read_start().ok_or(Abort::Odd)?;
        let vma = self.vmas.find(address, section).map(Vma::copy);
        let Some(vma) = vma.filter(|vma| guard!("spf.mapped", vma.start <= address)) else {
            return Err(Abort::Unmapped);
        };
        if write && !guard!("spf.no_speculate", !vma.flags.has(VmFlags::SHARED)) {
            return Err(Abort::NoSpeculate);
        }
        if !guard!("spf.vma_copy", self.lock.sequence.read_check(sequence)) {
            return Err(Abort::VmaCopy);
        }
        // From here on only the copy is used.
        Ok((seeded!("spf.seed.live_vma", vma, bug = vma.live()), sequence))
    }

    /// The classic path from scratch, with the mmap lock, as often as it returns RETRY.
    pub(super) fn fault_classically(&self, address: u64, write: bool) -> Classic {
        operation!("classic fault");
        let page = address & !(PAGE_SIZE as u64 - 1);
        let mut pass = Pass::First;
        let (mut major, mut missed, mut published) = (VmFault::NONE, false, 0);
        loop {
            let lock = self.lock.read();
            let tried = pass == Pass::Tried;
            let segv = |reason| Error::Segmentation { address, write, reason };
            let refused = |error| Classic { result: VmFault::SIGSEGV | major, tried, error: Some(error) };
            let vma = self.vmas.find_locked(address, &lock).map(Vma::copy);
            let Some(vma) = vma.filter(|vma| guard!("classic.mapped", vma.start <= address)) else {
                return refused(self.unmapped(segv("nothing is mapped there")));
            };
            if write && !guard!("classic.access", vma.flags.has(VmFlags::WRITE)) {
                return refused(segv("the mapping is read-only"));
            }
            let mut fault =
                Fault { mm: self, vma, address: page, index: vma.index_at(page), write, published };
            let answer = fault.handle_classically(pass);
            published = fault.published;
            missed |= answer.missed;
            let (result, bus) = match answer.end {
                End::Done(result) => (if missed { result | VmFault::MAJOR } else { result }, None),
                End::Beyond(size) => (VmFault::SIGBUS | major, Some(NoBytes::Beyond(size))),
                End::Unreadable(error) => (VmFault::SIGBUS | major, Some(NoBytes::Unreadable(error))),
                End::NoMemory(error) => {
                    return Classic { result: VmFault::OOM | major, tried, error: Some(error) };
                }
                End::NoFrame => {
                    drop(lock);
                    // Freeing pages of files does not allow more private copies than the limit.
                    if self.shared.frames.is_private_full() || !wait_for_frame(&self.shared) {
                        return self.out_of_memory("a private copy", address, major, tried);
                    }
                    pass = Pass::Tried;
                    continue;
                }
                End::Blocked(blocked, copy) => {
                    // The file outlives the mapping while we wait.
                    let (file, index) = (std::sync::Arc::clone(vma.file()), fault.index);
                    let pattern = vma.flags.pattern();
                    drop(lock);
                    let unblocked = unblock(&file, index, blocked, pass);
                    drop(copy);
                    let error = match unblocked {
                        Err(NotRead::Left(error)) => Some(error),
                        // As below, for a pass that must not read.
                        Err(NotRead::Failed(cause)) => {
                            credit(&file, &mut published, missed, pattern);
                            bus_error(&file, index, address, NoBytes::Unreadable(cause))
                        }
                        Ok(had) => {
                            if answer.missed {
                                major = VmFault::MAJOR;
                            }
                            if !had {
                                return self.out_of_memory("a page", address, major, tried);
                            }
                            pass = Pass::Tried;
                            None
                        }
                    };
                    match error {
                        Some(_) => return Classic { result: VmFault::SIGBUS | major, tried, error },
                        None => continue,
                    }
                }
            };
            credit(vma.file(), &mut published, missed, vma.flags.pattern());
            if !result.has(VmFault::ERROR) {
                return Classic { result, tried, error: None };
            }
            let (file, index) = (std::sync::Arc::clone(vma.file()), fault.index);
            drop(lock);
            let bus = bus.expect("of the errors only SIGBUS comes here");
            let error = bus_error(&file, index, address, bus);
            if error.is_some() {
                return Classic { result, tried, error };
            }
        }
    }

    /// Ends a fault for which there was no frame.
    fn out_of_memory(&self, what: &str, address: u64, major: VmFault, tried: bool) -> Classic {
        let error = self.shared.out_of_frames(format!("{what} at {address:#x}"));
        Classic { result: VmFault::OOM | major, tried, error: Some(error) }
    }
}

/// Credits the entries that a fault has set so far, once, and not if it missed.
fn credit(file: &OpenFile, published: &mut u32, missed: bool, pattern: Pattern) {
    let published = std::mem::take(published);
    if !missed {
        file.credit_mmap_miss(published, pattern);
    }
}

/// Why a fault ends with SIGBUS.
enum NoBytes {
    /// The file ends before the page, at this size.
    Beyond(u64),
    /// The page cannot be read.
    Unreadable(IoError),
}

/// The error of a fault that ends with SIGBUS; None if the file changed, so that the fault should be tried again.
fn bus_error(file: &OpenFile, index: u64, address: u64, why: NoBytes) -> Option<Error> {
    let (size, cause) = match why {
        NoBytes::Beyond(size) => (size, None),
        NoBytes::Unreadable(cause) => match judge_read_error(&file.mapping, index, cause) {
            ReadError::Beyond(size) => (size, None),
            ReadError::Unreadable(size, cause) => (size, Some(cause)),
            ReadError::Changed => return None,
        },
    };
    let offset = index * PAGE_SIZE as u64 + address % PAGE_SIZE as u64;
    Some(Error::Bus { index, offset, size, cause })
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests;
