//! A value that a process has once, and a child of fork has anew: any lock of its parent's may be taken for ever.

use std::sync::OnceLock;

pub(crate) struct PerProcess<T: 'static> {
    value: T,
    /// Set in the child before it has a second thread.
    in_child: OnceLock<Box<PerProcess<T>>>,
}

impl<T> PerProcess<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { value, in_child: OnceLock::new() }
    }

    /// The value of this process.
    pub(crate) fn here(&'static self) -> &'static T {
        &self.last().value
    }

    /// In a child: from now on this one.
    pub(crate) fn renew(&'static self, value: T) {
        let _nobody_else_is_here = self.last().in_child.set(Box::new(Self::new(value)));
    }

    fn last(&'static self) -> &'static Self {
        let mut last = self;
        while let Some(next) = last.in_child.get() {
            last = next;
        }
        last
    }
}
