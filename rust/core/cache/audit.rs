//! Invariants of a cache that no thread is using.
//!
//! Owns: the audits of a file and of a whole cache, and so what [`PageCache::check`](super::PageCache::check) guarantees. Changes
//! nothing, and relies on nothing else running. Linux spreads such checks over `CONFIG_DEBUG_VM`.

use super::address_space::AddressSpace;
use super::registry::Findings;
use super::shared::Shared;
use super::workingset::Workingset;
use crate::error::{Error, Result};
use crate::page::FrameUsage;
use crate::xarray::Census;

/// Audits a cache in which nothing is being read and no reference waits for a grace period.
pub(super) fn check(shared: &Shared) -> Result<()> {
    shared.frames.audit(&shared.io.abandoned_frames())?;
    let mut found = Findings::default();
    for file in shared.files.iter() {
        file.audit(&mut found)?;
    }
    audit_growth(shared, found.census, found.page_tables)?;
    let Findings { cached, shadows, .. } = found;
    let FrameUsage { in_use, private, pinned, .. } = shared.frames.usage();
    // A page that was truncated while pinned belongs to no file any more.
    let rest = (in_use - private) as u64;
    if rest < cached || rest - cached > pinned as u64 {
        return Err(Error::Invariant(format!(
            "{in_use} frames are in use, but files cache {cached} and {private} are private copies"
        )));
    }
    if shadows != shared.workingset.shadows() || shadows > shared.frames.capacity() as u64 {
        return Err(Error::Invariant(format!(
            "{shadows} shadows, {} by the count, for {} frames",
            shared.workingset.shadows(),
            shared.frames.capacity()
        )));
    }
    Ok(())
}

/// Checks what grows beside the frames against its count and its limit.
fn audit_growth(shared: &Shared, census: Census, page_tables: u64) -> Result<()> {
    let counted = (shared.xarray_nodes.tallied(), shared.page_tables.get(), shared.in_flight.bytes());
    // Buffers of abandoned reads are still in use.
    let in_flight = if shared.io.abandoned() > 0 { counted.2 } else { 0 };
    if counted != (census.nodes, page_tables, in_flight) {
        return Err(Error::Invariant(format!(
            "{} index nodes and {page_tables} page tables, {} and {} by their counts, and {} bytes in flight",
            census.nodes, counted.0, counted.1, counted.2
        )));
    }
    let most = Workingset::most_nodes(shared.frames.capacity()) as u64;
    if census.of_values > most {
        return Err(Error::Invariant(format!(
            "{} index nodes hold shadows only, more than {most}",
            census.of_values
        )));
    }
    Ok(())
}

/// Audits one file's pages and page tables, and adds them to `sum`.
pub(super) fn audit(mapping: &AddressSpace, sum: &mut Findings) -> Result<()> {
    let found = mapping.pages.lock().audit().map_err(Error::Invariant)?;
    sum.census.nodes += found.nodes;
    sum.census.of_values += found.of_values;
    let section = crate::rcu::read();
    let mut next = Some(0);
    while let Some((index, entry)) = next.and_then(|from| mapping.pages.next(from, u64::MAX, None, &section))
    {
        next = index.checked_add(1);
        sum.shadows += u64::from(entry.as_value().is_some());
        let Some(pfn) = entry.as_page() else { continue };
        let page = mapping.frames().page(pfn);
        sum.cached += 1;
        if !page.is_at(mapping.id(), index) {
            return Err(Error::Invariant(format!(
                "slot {index} of {} holds a stranger: {page:?}",
                mapping.name.to_string_lossy()
            )));
        }
        if page.refcount() != 1 + page.mapcount() + mapping.frames().pins(page) {
            return Err(Error::Invariant(format!(
                "page {index} of {} has references that neither the cache nor an entry holds: {page:?}",
                mapping.name.to_string_lossy()
            )));
        }
    }
    sum.page_tables += mapping.i_mmap.audit_tables(&mut sum.seen).map_err(Error::Invariant)?;
    Ok(())
}
