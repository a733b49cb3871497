//! What is freed, and who may still look at it.

/// Dies when its owner is freed: loom reports a reader that is not ordered before that. Copies are the same cell, so a reader
/// that took one can check without touching the owner; cells are leaked for that.
#[derive(Debug, Clone, Copy)]
pub struct LifeCell(&'static loom::cell::UnsafeCell<bool>);

// SAFETY: loom checks every access of the cell for races; that is what it is for.
unsafe impl Send for LifeCell {}
// SAFETY: as above.
unsafe impl Sync for LifeCell {}

impl Default for LifeCell {
    fn default() -> Self {
        Self::new()
    }
}

impl LifeCell {
    /// A living object.
    #[must_use]
    pub fn new() -> Self {
        Self(Box::leak(Box::new(loom::cell::UnsafeCell::new(true))))
    }
    /// A reader asserts that the object is alive and that no free races with it.
    #[track_caller]
    pub fn assert_alive(&self) {
        // SAFETY: loom checks the access; the pointer is valid while the cell is borrowed.
        self.0.with(|alive| assert!(unsafe { *alive }, "used after it was freed"));
    }
    /// The freer declares the object dead.
    #[track_caller]
    pub fn kill(&self) {
        // SAFETY: as above.
        self.0.with_mut(|alive| unsafe { *alive = false });
    }
}
