//! Entities: numbered once, looked up by number or by name, their ancestors known in advance; one version is immutable and cheap to follow by
//! the next.
//!
//! Records lie in chunks that versions share. Names lie in a large map that versions share and a small one that each new name copies; the
//! small one is folded into the large one before it grows.

use crate::value::{Ent, Stored};
use foldhash::quality::RandomState;
use hashbrown::{Equivalent, HashMap};
use smallvec::SmallVec;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

const CHUNK: usize = 128;
/// New names that are copied with each version, at most.
const FRESH_NAMES: usize = 512;

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

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    kind: u32,
    id: Arc<str>,
}

struct Query<'a> {
    kind: u32,
    id: &'a str,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Query { kind: self.kind, id: &self.id }.hash(state);
    }
}

impl Hash for Query<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.kind);
        state.write(self.id.as_bytes());
    }
}

impl Equivalent<Key> for Query<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.kind == key.kind && *self.id == *key.id
    }
}

type Names = HashMap<Key, u32, RandomState>;

/// Attributes and tags, sorted by name.
#[derive(Debug, Default)]
pub struct Facts {
    pub attributes: Box<[(Box<str>, Stored)]>,
    pub tags: Box<[(Box<str>, Stored)]>,
}

/// Where an entity stands: what it descends from, and which slices of the policies can concern it.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Ascending.
    pub ancestors: SmallVec<[u32; 6]>,
    /// Slices it belongs to as a principal.
    pub as_principal: SmallVec<[u32; 6]>,
    /// Slices it belongs to as a resource.
    pub as_resource: SmallVec<[u32; 6]>,
    /// The row of the policies it selects as an action.
    pub as_action: u32,
}

/// One entity.
#[derive(Clone, Debug)]
pub struct Record {
    pub kind: u32,
    /// False where it is only named: by a policy, as a parent, or until it was removed.
    pub present: bool,
    id: Arc<str>,
    pub place: Arc<Place>,
    pub facts: Arc<Facts>,
}

/// One version of all entities.
#[derive(Clone, Debug, Default)]
pub struct Entities {
    types: Arc<Types>,
    names: Arc<Names>,
    fresh: Arc<Names>,
    chunks: Vec<Arc<Vec<Record>>>,
    count: u32,
    no_facts: Arc<Facts>,
    no_place: Arc<Place>,
}

impl Entities {
    pub fn types(&self) -> &Types {
        &self.types
    }

    /// How many have a number.
    pub fn count(&self) -> u32 {
        self.count
    }

    #[inline]
    pub fn record(&self, number: u32) -> Option<&Record> {
        self.chunks.get(number as usize / CHUNK)?.get(number as usize % CHUNK)
    }

    /// The record of an entity that exists.
    #[inline]
    pub fn existing(&self, ent: Ent<'_>) -> Option<&Record> {
        self.record(self.number(ent)?).filter(|record| record.present)
    }

    /// Type and id.
    pub fn name(&self, number: u32) -> Option<(&str, &str)> {
        let record = self.record(number)?;
        Some((self.types.name(record.kind)?, &record.id))
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
        let query = Query { kind, id };
        if let Some(number) = self.names.get(&query) {
            return Some(*number);
        }
        if self.fresh.is_empty() { None } else { self.fresh.get(&query).copied() }
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
        if let Some(number) = self.find(kind, id) {
            return number;
        }
        let number = self.count;
        self.count += 1;
        let id: Arc<str> = id.into();
        let record =
            Record { kind, present: false, id: Arc::clone(&id), place: Arc::clone(&self.no_place), facts: Arc::clone(&self.no_facts) };
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => Arc::make_mut(chunk).push(record),
            _ => self.chunks.push(Arc::new(vec![record])),
        }
        let key = Key { kind, id };
        // While a set is being built nobody shares the large map, and it takes the name at once.
        if let Some(names) = Arc::get_mut(&mut self.names) {
            names.insert(key, number);
            return number;
        }
        if self.fresh.len() >= FRESH_NAMES {
            let mut names: Names = (*self.names).clone();
            names.extend(self.fresh.iter().map(|(key, number)| (key.clone(), *number)));
            self.names = Arc::new(names);
            self.fresh = Arc::default();
        }
        Arc::make_mut(&mut self.fresh).insert(key, number);
        number
    }

    pub fn record_mut(&mut self, number: u32) -> Option<&mut Record> {
        Arc::make_mut(self.chunks.get_mut(number as usize / CHUNK)?).get_mut(number as usize % CHUNK)
    }
}

/// The edges between entities, kept by whoever writes; readers only see what follows from them.
#[derive(Debug, Default)]
pub struct Hierarchy {
    parents: Vec<SmallVec<[u32; 2]>>,
    children: Vec<SmallVec<[u32; 2]>>,
}

impl Hierarchy {
    fn reach(&mut self, number: u32) {
        let len = number as usize + 1;
        if self.parents.len() < len {
            self.parents.resize_with(len, SmallVec::new);
            self.children.resize_with(len, SmallVec::new);
        }
    }

    pub fn parents(&self, number: u32) -> &[u32] {
        self.parents.get(number as usize).map_or(&[], |list| list)
    }

    fn children(&self, number: u32) -> &[u32] {
        self.children.get(number as usize).map_or(&[], |list| list)
    }

    /// Gives an entity these parents in place of those it had.
    pub fn set_parents(&mut self, number: u32, parents: &[u32]) {
        self.reach(number);
        for parent in parents {
            self.reach(*parent);
        }
        for old in self.parents.get_mut(number as usize).map(std::mem::take).unwrap_or_default() {
            if let Some(list) = self.children.get_mut(old as usize) {
                list.retain(|child| *child != number);
            }
        }
        for parent in parents {
            if let Some(list) = self.children.get_mut(*parent as usize) {
                list.push(number);
            }
        }
        if let Some(list) = self.parents.get_mut(number as usize) {
            list.extend_from_slice(parents);
        }
    }

    /// Cuts every edge to the children of an entity; gives those children.
    pub fn orphan(&mut self, number: u32) -> SmallVec<[u32; 2]> {
        let children = self.children.get_mut(number as usize).map(std::mem::take).unwrap_or_default();
        for child in &children {
            if let Some(list) = self.parents.get_mut(*child as usize) {
                list.retain(|parent| *parent != number);
            }
        }
        children
    }

    /// All ancestors, ascending.
    pub fn ancestors(&self, number: u32) -> SmallVec<[u32; 6]> {
        self.closure(number, |n| self.parents(n))
    }

    /// All descendants, ascending.
    pub fn descendants(&self, number: u32) -> SmallVec<[u32; 6]> {
        self.closure(number, |n| self.children(n))
    }

    fn closure<'a>(&self, number: u32, next: impl Fn(u32) -> &'a [u32]) -> SmallVec<[u32; 6]> {
        let mut found: SmallVec<[u32; 6]> = SmallVec::new();
        let mut open: SmallVec<[u32; 16]> = next(number).iter().copied().collect();
        while let Some(n) = open.pop() {
            if let Err(at) = found.binary_search(&n) {
                found.insert(at, n);
                open.extend(next(n).iter().copied());
            }
        }
        found
    }
}
