//! A map from page index to entry: readers take no lock, writers hold one mutex.
//!
//! Owns: the nodes and their reclamation through RCU. Does not own what entries mean (`cache::address_space` does) nor the pages
//! they name. Mirrors `lib/xarray.c`: 64 slots per node, a head that grows and shrinks with the greatest index, value entries
//! (shadows of evicted pages), three marks per slot.
//!
//! A reader walks from the head inside a read section. A node that leaves the tree while its content moves elsewhere (shrinking)
//! gets RETRY in slot 0: a reader that finds it starts again *from the head*, never from the dead node, where it would spin
//! forever without ending its own section (regression1 of the kernel's radix-tree tests).

mod entry;
mod node;
mod walk;
mod write;

pub use entry::{Entry, MAX_VALUE};
pub use node::{FANOUT, Mark};
pub use write::{Census, Locked};

use crate::sync::{AtomicPtr, Mutex, Tally};
use node::Node;
use std::sync::Arc;

/// The map. One mutex (`i_pages` lock) serialises its writers.
#[derive(Debug)]
pub struct XArray {
    head: AtomicPtr<Node>,
    lock: Mutex<()>,
    /// Nodes of all trees that share this gauge, until RCU has freed them.
    nodes: Arc<Tally>,
}

impl XArray {
    /// An empty map that counts its nodes in `nodes`.
    #[must_use]
    pub fn new(nodes: Arc<Tally>) -> Self {
        Self { head: AtomicPtr::new(std::ptr::null_mut()), lock: Mutex::new(()), nodes }
    }
}

impl Drop for XArray {
    fn drop(&mut self) {
        let head = Entry::from_raw(self.head.load(crate::sync::Ordering::Relaxed));
        if let Some(node) = head.as_node() {
            // SAFETY: the exclusive borrow says that no reader or writer is left; every node is reachable once.
            unsafe { node::free_tree(node) };
        }
    }
}

#[cfg(all(test, specmm_shuttle))]
#[path = "../../../tests/shuttle/xarray.rs"]
mod shuttle_tests;
#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests;

#[cfg(all(test, specmm_loom))]
#[path = "../../../tests/loom/xarray.rs"]
mod models;
