//! Checks and orderings with names.
//!
//! Every check the protocol relies on is written `guard!("room.what", condition)` and every ordering stronger than
//! relaxed `ord!("room.what", Release)` or `ordered_fence!("room.what", Acquire)`; a step that must not be left out is
//! `duty!("room.what", step)` or, where it gives something back, `give_back!("room.what", value)`. A bug of history that is
//! more than a missing check stands beside the right code as `seeded!("room.seed.what", wrong, right)`. In what ships these
//! are the condition, the ordering, the fence, the step and the right code themselves. Under the model checker one name at a
//! time can be switched off (see `model::mutant`), which must make some model fail: that is how a guard earns its place. The
//! sanitizers' controls do so too (see `mutant`).
//! `tests/loom/guards.toml` says of each name what Linux calls it and which premise it rests on; `make guards` tries them all.

#[cfg(not(any(specmm_loom, specmm_shuttle, specmm_mutants)))]
macro_rules! guard {
    ($name:literal, $condition:expr) => {
        $condition
    };
}
#[cfg(any(specmm_loom, specmm_shuttle, specmm_mutants))]
macro_rules! guard {
    ($name:literal, $condition:expr) => {
        $crate::sync::imp::mutant::is_off($name) || $condition
    };
}

#[cfg(not(any(specmm_loom, specmm_shuttle, specmm_mutants)))]
macro_rules! ord {
    ($name:literal, $order:ident) => {
        $crate::sync::Ordering::$order
    };
}
#[cfg(any(specmm_loom, specmm_shuttle, specmm_mutants))]
macro_rules! ord {
    ($name:literal, $order:ident) => {
        $crate::sync::imp::mutant::ordering($name, $crate::sync::Ordering::$order)
    };
}

#[cfg(not(any(specmm_loom, specmm_shuttle, specmm_mutants)))]
macro_rules! ordered_fence {
    ($name:literal, $order:ident) => {
        $crate::sync::fence($crate::sync::Ordering::$order)
    };
}
#[cfg(any(specmm_loom, specmm_shuttle, specmm_mutants))]
macro_rules! ordered_fence {
    ($name:literal, $order:ident) => {
        $crate::sync::imp::mutant::fence($name, $crate::sync::Ordering::$order)
    };
}

#[cfg(not(any(specmm_loom, specmm_shuttle, specmm_mutants)))]
macro_rules! duty {
    ($name:literal, $step:expr) => {
        $step
    };
}
#[cfg(any(specmm_loom, specmm_shuttle, specmm_mutants))]
macro_rules! duty {
    ($name:literal, $step:expr) => {
        if !$crate::sync::imp::mutant::is_off($name) {
            $step
        }
    };
}

/// Drops a value; switched off, forgets it: for duties that consist in giving something back.
#[cfg(not(any(specmm_loom, specmm_shuttle, specmm_mutants)))]
macro_rules! give_back {
    ($name:literal, $value:expr) => {
        drop($value)
    };
}
#[cfg(any(specmm_loom, specmm_shuttle, specmm_mutants))]
macro_rules! give_back {
    ($name:literal, $value:expr) => {
        if $crate::sync::imp::mutant::is_off($name) { std::mem::forget($value) } else { drop($value) }
    };
}

/// The right expression; switched off, the wrong one, which is how some real code had it. Without a right one: a step that
/// is wrong. Only the model checkers have the wrong ways.
#[cfg(not(any(specmm_loom, specmm_shuttle)))]
macro_rules! seeded {
    ($name:literal, $wrong:expr) => {};
    ($name:literal, $wrong:expr, $right:expr) => {
        $right
    };
}
#[cfg(any(specmm_loom, specmm_shuttle))]
macro_rules! seeded {
    ($name:literal, $wrong:expr) => {
        if $crate::sync::imp::mutant::is_off($name) {
            $wrong
        }
    };
    ($name:literal, $wrong:expr, $right:expr) => {
        if $crate::sync::imp::mutant::is_off($name) { $wrong } else { $right }
    };
}

#[allow(unused_imports, reason = "not every build plants every kind")]
pub(crate) use {duty, give_back, guard, ord, ordered_fence, seeded};
