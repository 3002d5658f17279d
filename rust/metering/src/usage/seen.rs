//! Which events were taken: 12 bytes each and a control byte, however long their ids.

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hasher};

const PARTS: usize = 256;

/// 96 bits of two keyed hashes of source and id. The keys are random, so nobody can aim at a collision, and none is to be expected: among
/// 100 million events two agree with a chance of 6 in 10^14.
type Mark = [u32; 3];

/// Which events, by source and id, were taken.
#[derive(Debug)]
pub struct Seen {
    /// Many small tables, so that one that grows stops nobody for long and never needs twice the memory of all.
    parts: Vec<HashTable<Mark>>,
    keys: [RandomState; 2],
    count: usize,
}

impl Default for Seen {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| HashTable::new()).collect(), keys: [RandomState::default(), RandomState::default()], count: 0 }
    }
}

const fn place(mark: &Mark) -> u64 {
    mark[0] as u64 | (mark[1] as u64) << 32
}

impl Seen {
    fn mark(&self, source: &str, id: &str) -> (usize, Mark) {
        let [one, two] = self.keys.each_ref().map(|key| {
            let mut state = key.build_hasher();
            state.write_usize(source.len());
            state.write(source.as_bytes());
            state.write(id.as_bytes());
            state.finish()
        });
        ((two >> 32) as usize % PARTS, [one as u32, (one >> 32) as u32, two as u32])
    }

    /// Notes an event; false where it was noted before.
    pub fn add(&mut self, source: &str, id: &str) -> bool {
        let (part, mark) = self.mark(source, id);
        let Some(part) = self.parts.get_mut(part) else { return false };
        match part.entry(place(&mark), |other| *other == mark, place) {
            hashbrown::hash_table::Entry::Occupied(_) => false,
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                vacant.insert(mark);
                self.count += 1;
                true
            }
        }
    }

    /// True where an event was noted.
    pub fn has(&self, source: &str, id: &str) -> bool {
        let (part, mark) = self.mark(source, id);
        self.parts.get(part).is_some_and(|part| part.find(place(&mark), |other| *other == mark).is_some())
    }

    /// Forgets an event.
    pub fn remove(&mut self, source: &str, id: &str) {
        let (part, mark) = self.mark(source, id);
        if let Some(part) = self.parts.get_mut(part)
            && let Ok(found) = part.find_entry(place(&mark), |other| *other == mark)
        {
            found.remove();
            self.count -= 1;
        }
    }

    /// How many events.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// True where there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn it_knows_what_a_set_knows(steps in prop::collection::vec(("[ab]{0,3}", "[ab]{0,3}", any::<bool>()), 0..200)) {
            let (mut seen, mut set) = (Seen::default(), HashSet::new());
            for (source, id, remove) in steps {
                prop_assert_eq!(seen.has(&source, &id), set.contains(&(source.clone(), id.clone())));
                if remove {
                    seen.remove(&source, &id);
                    set.remove(&(source, id));
                } else {
                    prop_assert_eq!(seen.add(&source, &id), set.insert((source, id)));
                }
                prop_assert_eq!(seen.len(), set.len());
            }
        }
    }
}
