//! Names for the parts that the protocol relies on, so that each can be switched off.
//!
//! | written | names | switched off |
//! |---|---|---|
//! | `guard!("room.what", condition)` | a check | it passes |
//! | `duty!("room.what", step)` | a step that must not be left out | it is left out |
//! | `give_back!("room.what", value)` | a value that must be dropped | it is leaked |
//! | `ord!("room.what", Release)` | an ordering stronger than relaxed | it is relaxed |
//! | `ordered_fence!("room.what", Acquire)` | a fence | there is none |
//! | `in_order!("room.seed.what", first, then)` | the order of two steps | `then` comes first |
//! | `seeded!("room.seed.what", right, bug = wrong)` | any other bug that real code had | the bug is there |
//!
//! To read the code that ships, read the condition, the step and the ordering, and nothing after `bug =`: a release build
//! compiles to the same assembly without the names (`make free`). Under the model checkers one name at a time is switched off
//! (see `model::mutant`) and some model must fail, which shows that the guard is needed. The sanitizers' controls use checks,
//! steps and orderings too (see `mutant`). `tests/loom/guards.toml` states for each name what Linux calls it and which premise it
//! rests on; `make guards` tries them all.

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

/// Drops a value; switched off, forgets it: for duties that consist of giving something back.
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

/// Two steps; switched off, they run in the opposite order. Only the model checkers have the other order.
#[cfg(not(any(specmm_loom, specmm_shuttle)))]
macro_rules! in_order {
    ($name:literal, $first:expr, $then:expr $(,)?) => {{
        $first;
        $then;
    }};
}
#[cfg(any(specmm_loom, specmm_shuttle))]
macro_rules! in_order {
    ($name:literal, $first:expr, $then:expr $(,)?) => {
        if $crate::sync::imp::mutant::is_off($name) {
            $then;
            $first;
        } else {
            $first;
            $then;
        }
    };
}

/// The right expression; switched off, the wrong one. Without a right one: a step that is wrong. Only the model checkers have
/// the bugs.
#[cfg(not(any(specmm_loom, specmm_shuttle)))]
macro_rules! seeded {
    ($name:literal, bug = $wrong:expr $(,)?) => {};
    ($name:literal, $right:expr, bug = $wrong:expr $(,)?) => {
        $right
    };
}
#[cfg(any(specmm_loom, specmm_shuttle))]
macro_rules! seeded {
    ($name:literal, bug = $wrong:expr $(,)?) => {
        if $crate::sync::imp::mutant::is_off($name) {
            $wrong
        }
    };
    ($name:literal, $right:expr, bug = $wrong:expr $(,)?) => {
        if $crate::sync::imp::mutant::is_off($name) { $wrong } else { $right }
    };
}

/// From here to the end of the block, the calling thread is in one of the public operations. Only the model checkers
/// keep track (see `running`).
#[cfg(not(any(specmm_loom, specmm_shuttle)))]
macro_rules! operation {
    ($name:literal) => {};
}
#[cfg(any(specmm_loom, specmm_shuttle))]
macro_rules! operation {
    ($name:literal) => {
        let _running = $crate::sync::running::Running::new($name);
    };
}

#[allow(unused_imports, reason = "not every build plants every kind")]
pub(crate) use {duty, give_back, guard, in_order, operation, ord, ordered_fence, seeded};
