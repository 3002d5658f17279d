//! The names of one organisation, each stored once.

use super::rule::Level;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hasher};

#[derive(Clone, Copy, Debug)]
struct Name {
    start: u32,
    length: u16,
    level: Level,
}

/// Names by number, and numbers by name; the hash is keyed, since names come from outside.
#[derive(Debug, Default)]
pub struct Names {
    text: String,
    list: Vec<Name>,
    index: HashTable<u32>,
    hasher: RandomState,
}

impl Names {
    fn hash(hasher: &RandomState, level: Level, name: &str) -> u64 {
        let mut state = hasher.build_hasher();
        state.write_u8(level as u8);
        state.write(name.as_bytes());
        state.finish()
    }

    /// The text of a number that was given out before; empty for one that was not.
    #[inline]
    pub fn text(&self, number: u32) -> &str {
        self.list
            .get(number as usize)
            .and_then(|n| self.text.get(n.start as usize..n.start as usize + usize::from(n.length)))
            .unwrap_or_default()
    }

    /// The floor of a number.
    pub fn level(&self, number: u32) -> Level {
        self.list.get(number as usize).map_or(Level::Agent, |n| n.level)
    }

    /// The number of a name, if it has one.
    pub fn find(&self, level: Level, name: &str) -> Option<u32> {
        let hash = Self::hash(&self.hasher, level, name);
        self.index.find(hash, |n| self.level(*n) == level && self.text(*n) == name).copied()
    }

    /// The number of a name, new where it has none; none when there is no room for more (4 GiB of names, or one beyond 64 KiB).
    pub fn number(&mut self, level: Level, name: &str) -> Option<u32> {
        if let Some(number) = self.find(level, name) {
            return Some(number);
        }
        let number = u32::try_from(self.list.len()).ok()?;
        let start = u32::try_from(self.text.len()).ok()?;
        let length = u16::try_from(name.len()).ok()?;
        start.checked_add(u32::from(length))?;
        self.text.push_str(name);
        self.list.push(Name { start, length, level });
        let Self { text, list, index, hasher } = self;
        index.insert_unique(Self::hash(hasher, level, name), number, |n| {
            list.get(*n as usize).map_or(0, |n| {
                let name = text.get(n.start as usize..n.start as usize + usize::from(n.length)).unwrap_or_default();
                Self::hash(hasher, n.level, name)
            })
        });
        Some(number)
    }
}
