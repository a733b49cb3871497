//! A few pages at a time, on the stack: making room allocates nothing.

/// Up to [`Batch::MOST`] things.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    things: [Option<T>; MOST],
    length: usize,
}

const MOST: usize = 32;

impl<T> Batch<T> {
    /// Capacity of a batch (`SWAP_CLUSTER_MAX`).
    pub(crate) const MOST: usize = MOST;

    pub(crate) fn new() -> Self {
        Self { things: [const { None }; MOST], length: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Adds one and returns its index.
    ///
    /// # Panics
    /// When the batch is full.
    pub(crate) fn push(&mut self, thing: T) -> usize {
        self.things[self.length] = Some(thing);
        self.length += 1;
        self.length - 1
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.things.iter().flatten()
    }
}

impl<T> std::ops::Index<usize> for Batch<T> {
    type Output = T;

    fn index(&self, number: usize) -> &T {
        self.things[number].as_ref().expect("a number that push answered")
    }
}

impl<T> IntoIterator for Batch<T> {
    type Item = T;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<T>, MOST>>;

    fn into_iter(self) -> Self::IntoIter {
        self.things.into_iter().flatten()
    }
}

/// Takes as many as a batch holds; the rest stays in the iterator.
impl<T> FromIterator<T> for Batch<T> {
    fn from_iter<I: IntoIterator<Item = T>>(things: I) -> Self {
        let mut batch = Self::new();
        for thing in things.into_iter().take(MOST) {
            batch.push(thing);
        }
        batch
    }
}
