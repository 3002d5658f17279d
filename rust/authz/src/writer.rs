//! Makes the next version: entities added, changed and removed, and where they then stand.

use crate::entities::Entities;
use crate::hierarchy::Hierarchy;
use crate::intake::{Numbering, Taken, take_in};
use crate::set::Set;
use cedar_policy::Entity;
use creto_enablement_common::{Error, ErrorKind, Result};
use foldhash::quality::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::sync::Arc;

/// Numbers of entities whose standing has to be worked out anew.
pub type Touched = SmallVec<[u32; 8]>;

/// Where the entities that are taken in together lie, by number.
type Places = HashMap<u32, usize, RandomState>;

/// What the next version is made from; one at a time writes.
pub struct Writer {
    pub set: Arc<Set>,
    pub entities: Entities,
    hierarchy: Hierarchy,
    /// How many entities have had their standing worked out.
    settled: u32,
}

impl Writer {
    pub fn new(set: Arc<Set>, entities: Entities, hierarchy: Hierarchy) -> Self {
        let settled = entities.count();
        Self { set, entities, hierarchy, settled }
    }

    /// Takes entities in; gives those whose standing has to be worked out anew.
    pub fn upsert(&mut self, entities: &[Entity]) -> Result<Touched> {
        let mut taken: SmallVec<[Taken; 2]> = SmallVec::new();
        let mut places: Places = HashMap::with_capacity_and_hasher(entities.len(), RandomState::default());
        let mut numbering = Numbering::new(&mut self.entities);
        for entity in entities {
            let fresh = take_in(entity.as_ref(), &mut numbering)?;
            if places.insert(fresh.number, taken.len()).is_some() {
                return Err(Error::invalid(format!("entities: `{}` stands twice", entity.uid())));
            }
            taken.push(fresh);
        }
        self.refuse_cycles(&taken, &places)?;
        let mut touched = Touched::new();
        for Taken { number, parents, attributes, tags } in taken {
            if self.hierarchy.parents(number) != &*parents || !self.entities.record(number).is_some_and(|record| record.present) {
                self.hierarchy.set_parents(number, &parents);
                touched.push(number);
                touched.extend(self.hierarchy.descendants(number));
            }
            self.entities.put(number, attributes, tags);
        }
        Ok(touched)
    }

    /// Walks up from each new entity along the new edges, where there are new ones, and the old ones elsewhere.
    fn refuse_cycles(&self, taken: &[Taken], places: &Places) -> Result<()> {
        for Taken { number: start, parents, .. } in taken {
            let mut seen: SmallVec<[u32; 16]> = SmallVec::new();
            let mut open: SmallVec<[u32; 16]> = parents.iter().copied().collect();
            while let Some(number) = open.pop() {
                if number == *start {
                    let (kind, id) = self.entities.name(number).unwrap_or_default();
                    return Err(Error::invalid(format!("entities: `{kind}::\"{id}\"` would descend from itself")));
                }
                if seen.contains(&number) {
                    continue;
                }
                seen.push(number);
                match places.get(&number).and_then(|place| taken.get(*place)) {
                    Some(other) => open.extend(other.parents.iter().copied()),
                    None => open.extend(self.hierarchy.parents(number).iter().copied()),
                }
            }
        }
        Ok(())
    }

    pub fn remove(&mut self, uids: &[(&str, &str)]) -> Touched {
        let mut touched = Touched::new();
        for (kind, id) in uids {
            let Some(number) = self.entities.types().number(kind).and_then(|kind| self.entities.find(kind, id)) else { continue };
            // What is only named, as somebody's parent, is not there to be removed: its children keep it, as in cedar-policy.
            if !self.entities.record(number).is_some_and(|record| record.present) {
                continue;
            }
            touched.push(number);
            touched.extend(self.hierarchy.descendants(number));
            self.hierarchy.set_parents(number, &[]);
            self.hierarchy.orphan(number);
            self.entities.take_out(number);
        }
        touched
    }

    /// Works out anew where the entities stand. An action unlike all before has the policies sliced again.
    pub fn settle(&mut self, touched: &[u32]) -> Result<()> {
        // What was only named so far (a parent, a value) has no standing yet.
        let fresh = self.settled..self.entities.count();
        for number in touched.iter().copied().chain(fresh) {
            self.entities.set_ancestors(number, self.hierarchy.ancestors(number));
            match self.set.settle(number, &mut self.entities) {
                Err(error) if *error.kind() == ErrorKind::NotFound => {
                    let set = self.set.sliced_again(&self.hierarchy, &mut self.entities)?;
                    self.set = Arc::new(set);
                    break;
                }
                other => other?,
            }
        }
        self.settled = self.entities.count();
        Ok(())
    }
}
