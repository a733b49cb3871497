//! The one guard, step or ordering that is switched off in this run.

use super::{Ordering, trace};
use std::cell::RefCell;
use std::collections::BTreeSet;

std::thread_local! {
    static OFF: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
    static MET: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
}

/// Switches one name off, or none. `name:acquire` and `name:release` take that half from an acquire-release ordering,
/// `name:seqcst` makes a sequentially consistent fence acquire-release; without a suffix, all of it.
pub fn switch_off(name: Option<&str>) {
    let split = |name: &str| {
        let (name, part) = name.split_once(':').unwrap_or((name, ""));
        (name.to_owned(), part.to_owned())
    };
    OFF.with(|off| *off.borrow_mut() = name.map(split));
}

/// Whether a run on this OS thread has passed `name`.
pub fn has_met(name: &str) -> bool {
    let name = name.split(':').next().unwrap_or(name);
    MET.with(|met| met.borrow().contains(name))
}

fn weakened<R>(name: &'static str, how: impl FnOnce(Option<&str>) -> R) -> R {
    MET.with(|met| met.borrow_mut().insert(name));
    OFF.with(|off| how(off.borrow().as_ref().filter(|(off, _)| off == name).map(|(_, part)| part.as_str())))
}

pub(crate) fn is_off(name: &'static str) -> bool {
    weakened(name, |part| part.is_some())
}

pub(crate) fn ordering(name: &'static str, order: Ordering) -> Ordering {
    weakened(name, |part| match (part, order) {
        (None, _) => order,
        (Some("acquire"), Ordering::AcqRel) => Ordering::Release,
        (Some("release"), Ordering::AcqRel) => Ordering::Acquire,
        (Some(""), Ordering::Acquire | Ordering::Release) => Ordering::Relaxed,
        (Some(part), _) => panic!("{name} is {order:?}: it has no part {part:?}"),
    })
}

pub(crate) fn fence(name: &'static str, order: Ordering) {
    let order = weakened(name, |part| match (part, order) {
        (None, _) => Some(order),
        (Some("seqcst"), Ordering::SeqCst) => Some(Ordering::AcqRel),
        (Some(""), _) => None, // a relaxed fence does not exist
        (Some(part), _) => panic!("{name} is {order:?}: it has no part {part:?}"),
    });
    if let Some(order) = order {
        trace::note(|| format!("{name}: fence {order:?}"));
        loom::sync::atomic::fence(order);
    }
}
