//! A shared pointer that readers follow without touching its count.

use super::{Carried, ReadSection, call_rcu, end_later};
use crate::sync::{AtomicPtr, Ordering, ord, seeded};
use std::marker::PhantomData;
use std::sync::Arc;

/// An optional `Arc` that can be replaced while readers use it (`rcu_dereference`, `rcu_assign_pointer`).
#[derive(Debug)]
pub struct ArcCell<T: Send + Sync + 'static> {
    pointer: AtomicPtr<T>,
    _owns: PhantomData<Arc<T>>,
}

impl<T: Send + Sync + 'static> ArcCell<T> {
    /// A cell that holds `value`.
    #[must_use]
    pub fn new(value: Arc<T>) -> Self {
        Self { pointer: AtomicPtr::new(Arc::into_raw(value).cast_mut()), _owns: PhantomData }
    }

    /// A cell that holds nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self { pointer: AtomicPtr::new(std::ptr::null_mut()), _owns: PhantomData }
    }

    /// The value, for as long as the section is open.
    #[inline]
    pub fn load<'s>(&'s self, _section: &'s ReadSection) -> Option<&'s T> {
        // Pairs with the Release in `replace`: the value is initialised.
        let pointer = self.pointer.load(ord!("rcu.cell.acquire", Acquire));
        // SAFETY: a non-null pointer came from Arc::into_raw; the count it stands for is given up only after a grace
        // period, and the caller is inside a section.
        unsafe { pointer.as_ref() }
    }

    /// The value, without a section.
    ///
    /// # Safety
    /// Nobody replaces the value while the borrow lives: the caller holds a lock that every replacer needs.
    pub unsafe fn load_unguarded(&self) -> Option<&T> {
        // Relaxed: the lock orders this after the replacer, or the replacer after this.
        let pointer = self.pointer.load(Ordering::Relaxed);
        // SAFETY: as in `load`, with the caller's lock in place of the section.
        unsafe { pointer.as_ref() }
    }

    /// The value, or the result of `make` if the cell is empty. If several find it empty, one wins.
    pub fn load_or_insert<'s>(&'s self, section: &'s ReadSection, make: impl FnOnce() -> Arc<T>) -> &'s T {
        if let Some(value) = self.load(section) {
            return value;
        }
        let fresh = Arc::into_raw(make()).cast_mut();
        // Release publishes the fresh value; Acquire for the winner's value when this one lost. Null carries nothing, so finding
        // it acquires nothing.
        let value = match self.pointer.compare_exchange(
            std::ptr::null_mut(),
            fresh,
            ord!("rcu.cell.insert.release", Release),
            ord!("rcu.cell.lost", Acquire),
        ) {
            Ok(_) => fresh,
            Err(winner) => {
                // SAFETY: never published, so the count is still ours.
                drop(unsafe { Arc::from_raw(fresh) });
                winner
            }
        };
        // SAFETY: as in `load`.
        unsafe { &*value }
    }

    /// The value with its own count, raised inside a section: the borrow from [`ArcCell::load`] cannot outlive the section.
    pub fn get(&self) -> Option<Arc<T>> {
        self.get_inside(&super::read())
    }

    fn get_inside(&self, _section: &ReadSection) -> Option<Arc<T>> {
        // Pairs as in `load`.
        let pointer = self.pointer.load(ord!("rcu.cell.get.acquire", Acquire)).cast_const();
        if pointer.is_null() {
            return None;
        }
        seeded!("rcu.cell.get.one_section", bug = super::lapse());
        // SAFETY: it came from Arc::into_raw, and the section keeps the count it stands for; the new one is the result's. Counts
        // lie beside the value: a shared reference to the value would not do.
        unsafe {
            Arc::increment_strong_count(pointer);
            Some(Arc::from_raw(pointer))
        }
    }

    /// Replaces the value; the old one is dropped after a grace period. Returns whether there was one.
    pub fn replace(&self, value: Option<Arc<T>>) -> bool {
        self.swap(value, |old| call_rcu(move || drop(old)))
    }

    /// Replaces the value if it is `expected`, which the caller keeps; the old one is dropped after a grace period. Returns whether
    /// it was.
    pub fn replace_if(&self, expected: &T, value: Option<Arc<T>>) -> bool {
        let fresh = value.map_or(std::ptr::null_mut(), |value| Arc::into_raw(value).cast_mut());
        let expected = std::ptr::from_ref(expected).cast_mut();
        // Release publishes the new value. The caller's own load has acquired the old one.
        let order = ord!("rcu.cell.replace_if.release", Release);
        let replaced = seeded!(
            "rcu.cell.is_expected",
            self.pointer.compare_exchange(expected, fresh, order, Ordering::Relaxed),
            bug = Ok(self.pointer.swap(fresh, order))
        );
        if let Ok(old) = replaced {
            // SAFETY: the exchange took over the count that the cell held, if it held a value.
            let old = (!old.is_null()).then(|| unsafe { Arc::from_raw(old) });
            call_rcu(move || drop(old));
            return true;
        }
        if !fresh.is_null() {
            // SAFETY: never published, so the count is still ours.
            drop(unsafe { Arc::from_raw(fresh) });
        }
        false
    }

    fn swap(&self, value: Option<Arc<T>>, drop_later: impl FnOnce(Arc<T>)) -> bool {
        let fresh = value.map_or(std::ptr::null_mut(), |value| Arc::into_raw(value).cast_mut());
        // Release publishes the new value; Acquire because the old one is dropped by whoever runs the deferred work.
        let old = self.pointer.swap(fresh, ord!("rcu.cell.swap", AcqRel));
        if old.is_null() {
            return false;
        }
        // SAFETY: the swap took over the count that the cell held.
        let old = unsafe { Arc::from_raw(old) };
        // Readers may still follow the old pointer.
        seeded!("rcu.seed.dropped_now", drop_later(old), bug = drop(old));
        true
    }
}

impl<T: Send + Sync + 'static> ArcCell<Carried<T>> {
    /// Empties the cell; the value is dropped after a grace period, which allocates nothing. It must be in no other cell. Returns
    /// whether there was one.
    pub fn clear(&self) -> bool {
        // SAFETY: the count that the cell held is given up here, and only here: the value is never in a cell again.
        self.swap(None, |old| unsafe { end_later(Arc::into_raw(old).cast_mut()) })
    }
}

impl<T: Send + Sync + 'static> Drop for ArcCell<T> {
    fn drop(&mut self) {
        let pointer = self.pointer.load(Ordering::Relaxed);
        if !pointer.is_null() {
            // SAFETY: exclusive access: no reader is left, and the cell's count is given up once.
            drop(unsafe { Arc::from_raw(pointer) });
        }
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::rcu::{barrier, read};

    /// How many hold the value, beside the test.
    fn others<T>(value: &Arc<T>) -> usize {
        Arc::strong_count(value) - 1
    }

    #[test]
    fn a_value_is_held_by_its_cell_until_it_is_replaced_and_readers_are_gone() {
        let [first, second] = [1, 2].map(Arc::new);
        let cell = ArcCell::new(Arc::clone(&first));
        let section = read();
        let seen = cell.load(&section);
        assert_eq!(cell.get(), Some(Arc::clone(&first)));
        assert!(cell.replace(Some(Arc::clone(&second))));
        assert_eq!((seen, others(&first)), (Some(&1), 1), "a reader may have it");
        assert_eq!((cell.load(&section), others(&second)), (Some(&2), 1));
        drop(section);
        barrier();
        assert_eq!(others(&first), 0);
        assert!(cell.replace(None));
        assert!(!cell.replace(None), "it is empty");
        assert_eq!(cell.get(), None);
        // SAFETY: no other thread has the cell.
        assert_eq!(unsafe { cell.load_unguarded() }, None);
        barrier();
        assert_eq!(others(&second), 0);
    }

    #[test]
    fn a_value_is_replaced_only_if_it_is_the_one_expected() {
        let [first, second, third] = [1, 2, 3].map(Arc::new);
        let cell = ArcCell::new(Arc::clone(&first));
        let section = read();
        assert!(!cell.replace_if(&second, Some(Arc::clone(&third))));
        assert_eq!((cell.load(&section), others(&first), others(&third)), (Some(&1), 1, 0));
        assert!(!cell.replace_if(&second, None));
        assert!(cell.replace_if(&first, Some(Arc::clone(&second))));
        assert_eq!((cell.load(&section), others(&first), others(&second)), (Some(&2), 1, 1));
        drop(section);
        barrier();
        assert_eq!(others(&first), 0);
        assert!(cell.replace_if(&second, None));
        assert!(!cell.replace_if(&second, Some(Arc::clone(&third))), "it is empty");
        barrier();
        assert_eq!((cell.get(), others(&second), others(&third)), (None, 0, 0));
    }

    #[test]
    fn an_empty_cell_is_filled_once() {
        let [first, second] = [1, 2].map(Arc::new);
        let cell = ArcCell::empty();
        let section = read();
        let slower = || {
            assert_eq!(cell.load_or_insert(&section, || Arc::clone(&first)), &1);
            Arc::clone(&second)
        };
        assert_eq!(cell.load_or_insert(&section, slower), &1);
        assert_eq!((others(&first), others(&second)), (1, 0), "who was slower drops its value");
        assert_eq!(cell.load_or_insert(&section, || unreachable!("there is a value")), &1);
        drop(section);
        drop(cell);
        assert_eq!(others(&first), 0, "no reader can be left");
        drop(ArcCell::<u32>::empty());
    }
}
