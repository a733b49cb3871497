//! `filemap_fault` alone, without an address space: for showing and comparing its two forms.
//!
//! Owns: the result of such a call. Does not own the two forms (`filemap`, `speculation`). Waits as the classic form does between
//! its passes.

use super::advice::{Advice, Pattern};
use super::coherence::follow_changes;
use super::filemap::{Pass, Step, filemap_fault, unblock};
use super::open_file::OpenFile;
use super::read_error::may_come;
use super::speculation::filemap_fault_speculative;
use super::vm_fault::{Abort, VmFault};
use super::wait::NotRead;
use crate::error::Result;
use crate::sync::operation;
use std::sync::Arc;

/// The result of [`File::filemap_fault`](super::File::filemap_fault).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilemapFault {
    /// LOCKED, possibly with MAJOR; RETRY if speculation aborted; SIGBUS or OOM.
    pub result: VmFault,
    /// Why speculation aborted.
    pub abort: Option<Abort>,
}

/// The speculative form alone; the page is unlocked and put before this returns.
pub(super) fn fault_speculatively(open: &OpenFile, index: u64) -> FilemapFault {
    operation!("speculative fault");
    let section = crate::rcu::read();
    match filemap_fault_speculative(&open.mapping, index, &section) {
        Ok(held) => {
            drop(held);
            FilemapFault { result: VmFault::LOCKED, abort: None }
        }
        Err(abort) => FilemapFault { result: VmFault::RETRY, abort: Some(abort) },
    }
}

/// The classic form alone, repeated until it is LOCKED or fails.
pub(super) fn fault_classically(open: &Arc<OpenFile>, index: u64) -> Result<FilemapFault> {
    operation!("classic fault");
    let pattern = match open.advice() {
        Advice::Random => Pattern::Random,
        Advice::Sequential => Pattern::Sequential,
        _ => Pattern::Normal,
    };
    let mut pass = Pass::First;
    let mut result = VmFault::NONE;
    loop {
        let answer = filemap_fault(open, index, pattern, pass);
        let missed = if answer.missed { VmFault::MAJOR } else { VmFault::NONE };
        // As in Linux, an error adds no MAJOR of its own pass: only earlier passes contribute it.
        let end = match answer.step {
            Step::Locked(held) => {
                drop(held);
                VmFault::LOCKED | missed
            }
            Step::Unreadable(error) if may_come(&open.mapping, &error) => {
                follow_changes(&open.mapping)?;
                continue;
            }
            Step::Beyond(_) | Step::Unreadable(_) => VmFault::SIGBUS,
            Step::NoMemory(_) => VmFault::OOM,
            Step::Blocked(blocked) => {
                let unblocked = unblock(open, index, blocked, pass);
                if unblocked.is_ok() {
                    result |= missed;
                }
                match unblocked {
                    Ok(true) => {
                        pass = Pass::Tried;
                        continue;
                    }
                    Ok(false) => VmFault::OOM,
                    Err(NotRead::Failed(error)) if may_come(&open.mapping, &error) => {
                        follow_changes(&open.mapping)?;
                        continue;
                    }
                    Err(NotRead::Failed(_)) => VmFault::SIGBUS,
                    Err(NotRead::Left(error)) => return Err(error),
                }
            }
        };
        return Ok(FilemapFault { result: result | end, abort: None });
    }
}
