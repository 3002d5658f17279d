//! The names of one organisation, each stored once.

use super::pages::{Large, List, Table};
use super::rule::Level;
use foldhash::fast::RandomState;
use std::hash::{BuildHasher, Hasher};

/// How many bits say where a name begins: 1 GiB of names.
const START_BITS: u32 = 30;

/// The longest name, in bytes.
const LONGEST: usize = u16::MAX as usize;

/// Where a name begins, and on the two bits above that its level. It ends where the next one begins: a million agents are a million of
/// these.
#[derive(Clone, Copy, Debug)]
struct Name(u32);

impl Name {
    fn new(start: usize, level: Level) -> Option<Self> {
        let start = u32::try_from(start).ok().filter(|start| *start < 1 << START_BITS)?;
        Some(Self(start | (level as u32) << START_BITS))
    }

    const fn start(self) -> usize {
        (self.0 & ((1 << START_BITS) - 1)) as usize
    }

    const fn level(self) -> Level {
        match self.0 >> START_BITS {
            0 => Level::Organisation,
            1 => Level::Team,
            _ => Level::Agent,
        }
    }
}

/// Names by number, and numbers by name; the hash is keyed, since names come from outside.
#[derive(Debug)]
pub struct Names {
    text: String,
    list: List<Name>,
    index: Table<u32>,
    hasher: RandomState,
}

impl Default for Names {
    fn default() -> Self {
        Self { text: String::new(), list: List::new_in(Large), index: Table::new_in(Large), hasher: RandomState::default() }
    }
}

fn text_of<'a>(text: &'a str, list: &[Name], number: u32) -> &'a str {
    let place = number as usize;
    let Some(name) = list.get(place) else { return "" };
    let end = list.get(place + 1).map_or(text.len(), |next| next.start());
    text.get(name.start()..end).unwrap_or_default()
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
        text_of(&self.text, &self.list, number)
    }

    /// The floor of a number.
    pub fn level(&self, number: u32) -> Level {
        self.list.get(number as usize).map_or(Level::Agent, |name| name.level())
    }

    /// The number of a name, if it has one.
    pub fn find(&self, level: Level, name: &str) -> Option<u32> {
        let hash = Self::hash(&self.hasher, level, name);
        self.index.find(hash, |n| self.level(*n) == level && self.text(*n) == name).copied()
    }

    /// The number of a name, new where it has none; none when there is no room for more (1 GiB of names, or one beyond 64 KiB).
    pub fn number(&mut self, level: Level, name: &str) -> Option<u32> {
        if let Some(number) = self.find(level, name) {
            return Some(number);
        }
        if name.len() > LONGEST {
            return None;
        }
        let number = u32::try_from(self.list.len()).ok()?;
        self.list.push(Name::new(self.text.len(), level)?);
        self.text.push_str(name);
        let Self { text, list, index, hasher } = self;
        index.insert_unique(Self::hash(hasher, level, name), number, |n| {
            let level = list.get(*n as usize).map_or(Level::Agent, |name| name.level());
            Self::hash(hasher, level, text_of(text, list, *n))
        });
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_each_level_is_found_again_and_none_is_taken_for_another() {
        let mut names = Names::default();
        let levels = [Level::Organisation, Level::Team, Level::Agent];
        let texts = ["acme", "", "ac", "meacme", "é"];
        let given: Vec<u32> =
            levels.iter().flat_map(|level| texts.map(|text| (*level, text))).map(|(l, t)| names.number(l, t).unwrap()).collect();
        let mut place = given.iter();
        for level in levels {
            for text in texts {
                let number = *place.next().unwrap();
                assert_eq!(names.find(level, text), Some(number));
                assert_eq!((names.level(number), names.text(number)), (level, text));
                assert_eq!(names.number(level, text), Some(number));
            }
        }
        assert_eq!(names.find(Level::Team, "acm"), None);
        assert_eq!(names.text(given.len() as u32), "");
    }

    #[test]
    fn a_name_beyond_64_kib_has_no_number() {
        let mut names = Names::default();
        assert_eq!(names.number(Level::Agent, &"x".repeat(LONGEST)), Some(0));
        assert_eq!(names.number(Level::Agent, &"x".repeat(LONGEST + 1)), None);
        assert_eq!(names.number(Level::Agent, "y"), Some(1));
        assert_eq!(names.text(1), "y");
    }
}
