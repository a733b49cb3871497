//! Time under the model checkers: it passes while a thread naps, and when a model says so.
//!
//! Owns: the time of an execution. A real clock would make an execution depend on how fast the machine is. Under loom, models that
//! let time pass ([`let_time_pass`]) see it as data behind a mutex, so that whatever was done before a moment is visible after it;
//! for all others it stands still, which costs no exploration.

use std::cell::Cell;
use std::ops::Add;
use std::time::Duration;

/// A moment of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

#[allow(missing_docs, reason = "each method is the standard one of that name")]
impl Instant {
    #[must_use]
    pub fn now() -> Self {
        Self(read(|now| *now))
    }
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().saturating_duration_since(self)
    }
    #[must_use]
    pub fn duration_since(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
    #[must_use]
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
    #[must_use]
    pub fn checked_add(self, time: Duration) -> Option<Self> {
        self.0.checked_add(time).map(Self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, time: Duration) -> Self {
        Self(self.0 + time)
    }
}

std::thread_local! {
    static PASSES: Cell<bool> = const { Cell::new(false) };
}

/// Called first in every execution.
pub(super) fn begin_execution() {
    PASSES.set(false);
}

/// From now on, time passes in this execution.
pub fn let_time_pass() {
    PASSES.set(true);
}

/// Whether it does.
pub(super) fn passes() -> bool {
    PASSES.get()
}

/// Time passes, if it does in this execution.
pub fn advance(time: Duration) {
    read(|now| *now += time);
}

fn read<R: Default>(read: impl FnOnce(&mut Duration) -> R) -> R {
    if !passes() {
        return R::default();
    }
    super::imp::lazy_static! {
        static ref NOW: super::Mutex<Duration> = super::Mutex::new(Duration::ZERO);
    }
    read(&mut NOW.lock())
}
