//! A planted use after free, for `tools/asan`: if the sanitizer does not report it, its silence elsewhere means nothing.
#![cfg(all(feature = "internals", not(any(specmm_loom, specmm_shuttle))))]
#![allow(missing_docs, unsafe_code, reason = "a bug on purpose")]

use specmm::internals::rcu::{ArcCell, synchronize};
use std::sync::Arc;

#[test]
fn a_value_is_used_after_its_grace_period() {
    if std::env::var_os("SPECMM_PLANT").is_none() {
        return;
    }
    let cell = ArcCell::new(Arc::new([7_u64; 100]));
    // SAFETY: none: the value is replaced below while it is borrowed. That is the bug.
    let value = unsafe { cell.load_unguarded() }.expect("just put there");
    cell.replace(None);
    synchronize();
    assert_eq!(std::hint::black_box(value)[50], 7);
}
