//! Loads and stores as a program makes them: through the entry if it allows the access, else by a fault first.
//!
//! Owns: the accesses. A load or store through an entry is one read section that takes no lock, waits for nothing and
//! allocates nothing; the grace period of an unmapping waits for it as a TLB flush would.

use super::leaf::Pte;
use super::page_table::TASK_SIZE;
use super::{Mm, MmInner};
use crate::error::{Error, Result};
use crate::page::PAGE_SIZE;
use crate::rcu;
use crate::reserve;
use crate::sync::{guard, in_order, operation};

/// The result of a run of touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TouchReport {
    /// Accesses made.
    pub touches: u64,
    /// Faults that the accesses took.
    pub faults: u64,
    /// Faults that read or waited.
    pub major: u64,
    /// Faults whose speculative attempt gave up.
    pub aborts: u64,
}

impl TouchReport {
    /// Adds another run.
    pub fn add(&mut self, other: Self) {
        self.touches += other.touches;
        self.faults += other.faults;
        self.major += other.major;
        self.aborts += other.aborts;
    }
}

impl Mm {
    /// Loads `buf.len()` bytes from `address`, faulting as needed.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a range that leaves the address space, before any of it is loaded; [`Error::Segmentation`]
    /// where nothing is mapped, [`Error::Bus`] beyond the end of the file or where it cannot be read, [`Error::OutOfFrames`],
    /// [`Error::Closed`]. Earlier pages may have been copied.
    pub fn load(&self, address: u64, buf: &mut [u8]) -> Result<()> {
        self.inner.require_open()?;
        let mut rest = buf;
        for (at, n) in pages(address, rest.len() as u64)? {
            let (now, later) = rest.split_at_mut(n);
            self.inner
                .access(at, false, &mut TouchReport::default(), |bytes, within| bytes.read(within, now))?;
            rest = later;
        }
        Ok(())
    }

    /// Stores `data` at `address`, faulting as needed.
    ///
    /// # Errors
    /// As [`Mm::load`], and [`Error::Segmentation`] where the mapping is read-only. Earlier pages may have been stored.
    pub fn store(&self, address: u64, data: &[u8]) -> Result<()> {
        self.inner.require_open()?;
        let mut rest = data;
        for (at, n) in pages(address, rest.len() as u64)? {
            let (now, later) = rest.split_at(n);
            self.inner
                .access(at, true, &mut TouchReport::default(), |bytes, within| bytes.write(within, now))?;
            rest = later;
        }
        Ok(())
    }

    /// Touches one byte every `stride` bytes of a range: loads it, and with `write` stores it back.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a stride of 0; otherwise as [`Mm::load`] and [`Mm::store`], at the first touch that fails.
    pub fn touch(&self, address: u64, length: u64, stride: u64, write: bool) -> Result<TouchReport> {
        if stride == 0 {
            return Err(Error::InvalidArgument("stride 0: the touches would never end".into()));
        }
        self.inner.require_open()?;
        let end = end_of(address, length)?;
        let mut report = TouchReport::default();
        let mut at = address;
        while at < end {
            self.inner.access(at, write, &mut report, |bytes, within| {
                let mut byte = [0];
                bytes.read(within, &mut byte);
                std::hint::black_box(byte);
                if write {
                    bytes.write(within, &byte);
                }
            })?;
            report.touches += 1;
            at = at.saturating_add(stride);
        }
        Ok(report)
    }

    /// Refuses a range that leaves the address space, as every access to it would: for callers that split one long access.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], [`Error::Closed`].
    pub fn check_range(&self, address: u64, length: u64) -> Result<()> {
        self.inner.require_open()?;
        end_of(address, length).map(drop)
    }

    /// The entries of a range, one byte per page (`/proc/pid/pagemap`): 0 none, else 1 present plus 2 writable plus 4 private.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an unaligned address or a range that leaves the address space;
    /// [`Error::OutOfMemory`] for the answer, [`Error::Closed`].
    pub fn pagemap(&self, address: u64, length: u64) -> Result<Vec<u8>> {
        operation!("pagemap");
        self.inner.require_open()?;
        if address % PAGE_SIZE as u64 != 0 {
            return Err(Error::InvalidArgument(format!("address {address:#x} is not page-aligned")));
        }
        let end = end_of(address, length)?;
        let pages = (end - address).div_ceil(PAGE_SIZE as u64) as usize;
        let mut map = reserve::zeros(pages, "the entries of a range")?;
        self.inner.tables.for_each_leaf(address, end, |leaf, from, to| {
            for at in (from..to).step_by(PAGE_SIZE) {
                let pte = leaf.get(at);
                let bit = |bit, value| if pte.has(bit) { value } else { 0 };
                if !pte.is_none() {
                    map[((at - address) / PAGE_SIZE as u64) as usize] =
                        1 | bit(Pte::WRITE, 2) | bit(Pte::PRIVATE, 4);
                }
            }
        });
        Ok(map)
    }
}

fn end_of(address: u64, length: u64) -> Result<u64> {
    address.checked_add(length).filter(|&end| end <= TASK_SIZE).ok_or_else(|| {
        Error::InvalidArgument(format!(
            "{length} bytes at {address:#x} leave the address space of {TASK_SIZE:#x}"
        ))
    })
}

/// The parts of a range that lie in one page each: address and length.
fn pages(address: u64, length: u64) -> Result<impl Iterator<Item = (u64, usize)>> {
    let end = end_of(address, length)?;
    let mut at = address;
    Ok(std::iter::from_fn(move || {
        let n = (PAGE_SIZE as u64 - at % PAGE_SIZE as u64).min(end - at);
        let part = (n > 0).then_some((at, n as usize));
        at += n;
        part
    }))
}

impl MmInner {
    /// Runs `body` on the bytes at `address`, once an entry allows the access.
    fn access(
        &self,
        address: u64,
        write: bool,
        report: &mut TouchReport,
        mut body: impl FnMut(crate::page::PageBytes<'_>, usize),
    ) -> Result<()> {
        loop {
            if self.through_entry(address, write, &mut body) {
                return Ok(());
            }
            let outcome = self.fault(address, write);
            report.faults += 1;
            report.major += u64::from(outcome.major);
            report.aborts += u64::from(outcome.abort.is_some());
            if let Some(error) = outcome.error {
                return Err(error);
            }
        }
    }

    /// One try through the entry, in one read section.
    pub(super) fn through_entry(
        &self,
        address: u64,
        write: bool,
        body: &mut impl FnMut(crate::page::PageBytes<'_>, usize),
    ) -> bool {
        operation!("load or store");
        let section = rcu::read();
        let Ok(walk) = self.tables.walk(address, &section) else { return false };
        let pte = walk.get(address);
        let allowed =
            guard!("access.present", !pte.is_none()) && guard!("access.write", !write || pte.has(Pte::WRITE));
        if !allowed {
            return false;
        }
        // Sets accessed and dirty as the processor would, from the present entry that was seen: a cleared entry stays cleared,
        // and the access is tried again.
        let bits = if write { Pte::ACCESSED | Pte::DIRTY } else { Pte::ACCESSED };
        in_order!(
            "access.mark_first",
            if !walk.mark(address, pte, bits) {
                return false;
            },
            body(self.shared.frames.page(pte.pfn()).bytes(), (address % PAGE_SIZE as u64) as usize)
        );
        true
    }
}
