//! Numbers of entities by name: one flat table that all versions share.
//!
//! Names are only added while a policy set serves, so whoever reads an older version finds numbers that are too high for it and passes over
//! them. Names come from outside, so they are hashed under a random key, and no run of taken places may grow long: an insertion that meets
//! one moves the names to a larger table under another key. A lookup is bounded by that, whatever is asked for.

use foldhash::quality::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest run of taken places, and so the most steps of a lookup.
const LONGEST: usize = 128;

/// A search that has begun: the hash, and what lies where it leads first.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    hash: u64,
    first: u64,
}

impl Search {
    /// The number that lies there; one of no entity where nothing does.
    #[inline]
    pub fn number(self) -> u32 {
        (self.first as u32).wrapping_sub(1)
    }
}

/// The table; an entry holds the upper half of a hash, and a number plus one.
#[derive(Debug)]
pub struct Names {
    key: RandomState,
    places: Box<[AtomicU64]>,
    /// Places less one: their count is a power of two.
    mask: usize,
    len: AtomicU64,
}

impl Default for Names {
    fn default() -> Self {
        Self::with_room(64)
    }
}

const fn entry(hash: u64, number: u32) -> u64 {
    (hash & 0xffff_ffff_0000_0000) | (number as u64 + 1)
}

impl Names {
    fn with_room(places: usize) -> Self {
        let places = places.next_power_of_two();
        Self {
            key: RandomState::default(),
            places: (0..places).map(|_| AtomicU64::new(0)).collect(),
            mask: places - 1,
            len: AtomicU64::new(0),
        }
    }

    #[inline]
    fn hash(&self, kind: u32, id: &str) -> u64 {
        let mut hasher = self.key.build_hasher();
        hasher.write_u32(kind);
        hasher.write(id.as_bytes());
        hasher.finish()
    }

    /// Where the search for a name begins.
    #[inline]
    pub fn begin(&self, kind: u32, id: &str) -> Search {
        let hash = self.hash(kind, id);
        Search { hash, first: self.held(hash as usize & self.mask) }
    }

    /// What `is` makes of the number of the name, ending a search.
    #[inline]
    pub fn end<T>(&self, Search { hash, first }: Search, is: impl Fn(u32) -> Option<T>) -> Option<T> {
        let (mut at, mut held) = (hash as usize & self.mask, first);
        for _ in 0..=LONGEST {
            if held == 0 {
                return None;
            }
            if (held ^ hash) >> 32 == 0
                && let Some(found) = is((held as u32).wrapping_sub(1))
            {
                return Some(found);
            }
            at = (at + 1) & self.mask;
            held = self.held(at);
        }
        None
    }

    #[inline]
    fn held(&self, at: usize) -> u64 {
        self.places.get(at).map_or(0, |place| place.load(Ordering::Acquire))
    }

    /// Takes a name in that is not there yet; false where there is no room for it, and a larger table has to be made. There is one writer.
    pub fn insert(&self, kind: u32, id: &str, number: u32) -> bool {
        if number == u32::MAX || self.len.load(Ordering::Relaxed) as usize * 2 >= self.places.len() {
            return false;
        }
        let hash = self.hash(kind, id);
        let mut at = hash as usize & self.mask;
        for _ in 0..LONGEST {
            let Some(place) = self.places.get(at) else { return false };
            if place.load(Ordering::Relaxed) == 0 {
                place.store(entry(hash, number), Ordering::Release);
                self.len.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            at = (at + 1) & self.mask;
        }
        false
    }

    /// A larger table under another key with all of these names.
    pub fn grown<'a>(&self, names: impl Iterator<Item = (u32, &'a str)> + Clone) -> Self {
        let mut room = self.places.len() * 2;
        loop {
            let larger = Self::with_room(room);
            if (0_u32..).zip(names.clone()).all(|(number, (kind, id))| larger.insert(kind, id, number)) {
                return larger;
            }
            room *= 2;
        }
    }

    /// Bytes it takes, for reports.
    pub fn bytes(&self) -> usize {
        self.places.len() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_takes_names_until_it_is_half_full_and_its_successor_has_them_all() {
        let mut names = Names::default();
        let ids: Vec<String> = (0..5_000).map(|n| format!("agent-{n}")).collect();
        for (number, id) in (0_u32..).zip(&ids) {
            if !names.insert(number % 3, id, number) {
                names = names.grown(ids.iter().take(number as usize).enumerate().map(|(n, id)| (n as u32 % 3, id.as_str())));
                assert!(names.insert(number % 3, id, number));
            }
        }
        let is = |kind: u32, id: &str| {
            let known = |number: u32| number % 3 == kind && ids.get(number as usize).is_some_and(|known| known == id);
            names.end(names.begin(kind, id), |number| known(number).then_some(number))
        };
        for (number, id) in (0_u32..).zip(&ids) {
            assert_eq!(is(number % 3, id), Some(number));
            assert_eq!(is((number + 1) % 3, id), None);
        }
        assert_eq!(is(0, "stranger"), None);
    }
}
