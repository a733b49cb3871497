//! A set of numbers below a bound that finds its lowest at once.
//!
//! One bit per number; above them, in levels, one bit per nonzero word, up to a single word. Words start as zeros, the empty set,
//! and are touched only where numbers come and go. Several sets share one array of words.

/// Levels that a bound of 2^30 has.
const LEVELS: usize = 5;

/// Where a set's words are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BitSet {
    levels: [usize; LEVELS],
    depth: usize,
}

impl BitSet {
    /// A set of numbers below `bound`, whose words follow `words`.
    pub(super) fn new(bound: usize, words: &mut usize) -> Self {
        let mut set = Self::default();
        let mut bits = bound;
        loop {
            set.levels[set.depth] = *words;
            set.depth += 1;
            let length = bits.div_ceil(64).max(1);
            *words += length;
            if length == 1 {
                return set;
            }
            bits = length;
        }
    }

    pub(super) fn is_empty(&self, words: &[u64]) -> bool {
        words[self.levels[self.depth - 1]] == 0
    }

    /// The lowest number, at one word per level.
    pub(super) fn lowest(&self, words: &[u64]) -> Option<u32> {
        let mut at = 0;
        for &level in self.levels[..self.depth].iter().rev() {
            let word = words[level + at];
            if word == 0 {
                return None;
            }
            at = at * 64 + word.trailing_zeros() as usize;
        }
        Some(at as u32)
    }

    /// False if it was there.
    pub(super) fn insert(&self, words: &mut [u64], number: u32) -> bool {
        let mut at = number as usize;
        for &level in &self.levels[..self.depth] {
            let word = &mut words[level + at / 64];
            let (before, bit) = (*word, 1 << (at % 64));
            *word |= bit;
            if before != 0 {
                // Above the lowest level the bit is new: the word below was zero.
                return before & bit == 0;
            }
            at /= 64;
        }
        true
    }

    /// False if it was not there.
    pub(super) fn remove(&self, words: &mut [u64], number: u32) -> bool {
        let mut at = number as usize;
        if words[self.levels[0] + at / 64] & 1 << (at % 64) == 0 {
            return false;
        }
        for &level in &self.levels[..self.depth] {
            let word = &mut words[level + at / 64];
            *word &= !(1 << (at % 64));
            if *word != 0 {
                break;
            }
            at /= 64;
        }
        true
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn two_sets_are_two_sets(
            bounds in (1..20_000_usize, 1..300_usize),
            steps in prop::collection::vec((any::<bool>(), any::<bool>(), any::<u32>()), 1..300),
        ) {
            let mut length = 0;
            let sets = [BitSet::new(bounds.0, &mut length), BitSet::new(bounds.1, &mut length)];
            let mut words = vec![0; length];
            let mut models = [BTreeSet::new(), BTreeSet::new()];
            for (second, insert, number) in steps {
                let (set, model) = (sets[usize::from(second)], &mut models[usize::from(second)]);
                // Few enough numbers that they meet, some of them at the upper end.
                let bound = if second { bounds.1 } else { bounds.0 } as u32;
                let number = if number % 2 == 0 { number / 2 % bound.min(200) } else { bound - 1 - number / 2 % bound.min(200) };
                if insert {
                    prop_assert_eq!(set.insert(&mut words, number), model.insert(number));
                } else {
                    prop_assert_eq!(set.remove(&mut words, number), model.remove(&number));
                }
                for (set, model) in sets.iter().zip(&models) {
                    prop_assert_eq!(set.lowest(&words), model.first().copied());
                    prop_assert_eq!(set.is_empty(&words), model.is_empty());
                }
            }
        }
    }

    #[test]
    fn the_largest_bound_fits_its_levels() {
        let mut length = 0;
        let set = BitSet::new(1 << 30, &mut length);
        assert_eq!((set.depth, length), (LEVELS, (1 << 24) + (1 << 18) + (1 << 12) + (1 << 6) + 1));
    }
}
