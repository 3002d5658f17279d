//! Entities: numbered once, looked up by number or by name, their standing known in advance; one version is immutable and cheap to follow by
//! the next.

use crate::hierarchy::Numbers;
use crate::id::Id;
use crate::names::{Names, Search};
use crate::party::{Party, Spelled};
use crate::standing::Standing;
use crate::tree::Tree;
use crate::value::{Ent, Stored};
use creto_enablement_common::prefetch;
use foldhash::quality::RandomState;
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;
use std::sync::Arc;

/// Entity types by number. Numbers are never reused while a policy set serves.
#[derive(Clone, Debug, Default)]
pub struct Types {
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32, RandomState>,
}

impl Types {
    pub fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn name(&self, number: u32) -> Option<&str> {
        self.names.get(number as usize).map(|name| &**name)
    }
}

/// Values by name, sorted by name. Equal names are one piece of text for all entities, so that a check which compares one finds it in the
/// cache.
pub type Values = SmallVec<[(Arc<str>, Stored); 2]>;

/// What else is known of an entity, in one piece of memory: only conditions ask for it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub attributes: Values,
    pub tags: Values,
    /// Ascending.
    pub ancestors: Numbers,
}

/// One entity: two cache lines, fetched as a pair. The first holds all that finding its policies takes, the second the id.
#[derive(Clone, Debug)]
#[repr(C, align(128))]
pub struct Record {
    pub kind: u32,
    /// False where it is only named: by a policy, as a parent, or until it was removed.
    pub present: bool,
    pub standing: Standing,
    pub facts: Arc<Facts>,
    id: Id,
}

/// A name whose search has begun. Several that are begun before the first is ended wait for memory together.
#[derive(Clone, Copy, Debug)]
pub struct Sought<'a> {
    spelled: Spelled<'a>,
    begun: Option<Search>,
}

/// One version of all entities.
#[derive(Clone, Debug, Default)]
pub struct Entities {
    types: Arc<Types>,
    names: Arc<Names>,
    records: Tree<Record>,
    /// Names of attributes and tags, each kept once.
    words: Arc<HashSet<Arc<str>, RandomState>>,
    /// What is known of an entity that is only named, one for all.
    nothing: Arc<Facts>,
}

impl Entities {
    pub fn types(&self) -> &Types {
        &self.types
    }

    /// How many have a number.
    pub fn count(&self) -> u32 {
        self.records.len() as u32
    }

    #[inline]
    pub fn record(&self, number: u32) -> Option<&Record> {
        self.records.get(number as usize)
    }

    /// The record of an entity that exists.
    #[inline]
    pub fn existing(&self, ent: Ent<'_>) -> Option<&Record> {
        self.record(self.number(ent)?).filter(|record| record.present)
    }

    /// Type and id.
    pub fn name(&self, number: u32) -> Option<(&str, &str)> {
        let record = self.record(number)?;
        Some((self.types.name(record.kind)?, record.id.text()))
    }

    #[inline]
    pub fn number(&self, ent: Ent<'_>) -> Option<u32> {
        match ent {
            Ent::Known(number) => Some(number),
            Ent::Named(kind, id) => self.find(self.types.number(kind)?, id),
        }
    }

    /// The number of an entity, by its type's number and its id.
    #[inline]
    pub fn find(&self, kind: u32, id: &str) -> Option<u32> {
        self.look(kind, id, self.names.begin(kind, id)).map(|(number, _)| number)
    }

    /// Number and record of an entity, whose search has begun.
    #[inline]
    fn look(&self, kind: u32, id: &str, begun: Search) -> Option<(u32, &Record)> {
        self.names.end(begun, |number| {
            // A number that this version does not have belongs to a later one.
            let record = self.record(number).filter(|record| record.kind == kind && record.id.is(id))?;
            Some((number, record))
        })
    }

    /// Begins the search for who or what a name stands for.
    #[inline]
    pub fn seek<'a>(&self, spelled: Spelled<'a>) -> Sought<'a> {
        Sought { spelled, begun: spelled.kind.map(|kind| self.names.begin(kind, spelled.id)) }
    }

    /// Ends it.
    #[inline]
    pub fn found<'a>(&'a self, Sought { spelled, begun }: &Sought<'a>) -> Party<'a> {
        let Spelled { kind, kind_name, id } = *spelled;
        match kind.zip(*begun).and_then(|(kind, begun)| self.look(kind, id, begun)) {
            Some((number, record)) => Party { kind, ent: Ent::Known(number), record: Some(record) },
            None => Party { kind, ent: Ent::Named(kind_name, id), record: None },
        }
    }

    /// Asks for the record that a search leads to first, which is most often the one it ends at.
    #[inline]
    pub fn prefetch(&self, sought: &Sought<'_>) {
        if let Some(record) = sought.begun.and_then(|begun| self.record(begun.number())) {
            prefetch(record);
            prefetch(&record.id);
        }
    }

    /// An entity of this version by its number.
    #[inline]
    pub fn party(&self, number: u32) -> Option<Party<'_>> {
        let record = self.record(number)?;
        Some(Party { kind: Some(record.kind), ent: Ent::Known(number), record: Some(record) })
    }

    /// The number of a type, given one if it has none.
    pub fn intern_type(&mut self, name: &str) -> u32 {
        if let Some(number) = self.types.number(name) {
            return number;
        }
        let types = Arc::make_mut(&mut self.types);
        let number = types.names.len() as u32;
        let name: Arc<str> = name.into();
        types.names.push(Arc::clone(&name));
        types.numbers.insert(name, number);
        number
    }

    /// The number of an entity, given one if it has none.
    pub fn intern(&mut self, kind: &str, id: &str) -> u32 {
        let kind = self.intern_type(kind);
        self.intern_id(kind, id)
    }

    /// The same, by the number of its type.
    pub fn intern_id(&mut self, kind: u32, id: &str) -> u32 {
        if let Some(number) = self.find(kind, id) {
            return number;
        }
        let number = self.count();
        if !self.names.insert(kind, id, number) {
            let taken = (0..number).filter_map(|n| self.record(n)).map(|record| (record.kind, record.id.text()));
            self.names = Arc::new(self.names.grown(taken.chain(std::iter::once((kind, id)))));
        }
        let nothing = &self.nothing;
        let vacant =
            |kind: u32, id: &str| Record { kind, present: false, standing: Standing::default(), facts: Arc::clone(nothing), id: id.into() };
        self.records.push(vacant(kind, id), || vacant(0, ""));
        number
    }

    /// The one piece of text for all attributes of a name.
    pub fn word(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.words.get(name) {
            return Arc::clone(known);
        }
        let word: Arc<str> = name.into();
        Arc::make_mut(&mut self.words).insert(Arc::clone(&word));
        word
    }

    pub fn record_mut(&mut self, number: u32) -> Option<&mut Record> {
        self.records.get_mut(number as usize)
    }

    /// An entity is there, with these attributes and tags in place of those that it had.
    pub fn put(&mut self, number: u32, attributes: Values, tags: Values) {
        if let Some(record) = self.record_mut(number) {
            record.present = true;
            record.facts = Arc::new(Facts { attributes, tags, ancestors: record.facts.ancestors.clone() });
        }
    }

    /// An entity is there no more, and only named.
    pub fn take_out(&mut self, number: u32) {
        let nothing = Arc::clone(&self.nothing);
        if let Some(record) = self.record_mut(number) {
            (record.present, record.facts) = (false, nothing);
        }
    }

    /// Who or what an entity belongs to, in place of what it did; nothing, where it is not there.
    pub fn set_ancestors(&mut self, number: u32, ancestors: Numbers) {
        if let Some(record) = self.record_mut(number)
            && record.present
            && record.facts.ancestors != ancestors
        {
            Arc::make_mut(&mut record.facts).ancestors = ancestors;
        }
    }

    /// Bytes of the records and of the table of names, without the names and attributes themselves.
    pub fn bytes(&self) -> usize {
        self.records.len() * size_of::<Record>() + self.names.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_two_cache_lines_and_slicing_reads_one() {
        assert_eq!(size_of::<Record>(), 128);
        assert_eq!(std::mem::offset_of!(Record, standing) + size_of::<Standing>(), 64);
    }
}
