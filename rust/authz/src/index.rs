//! Which policies can concern a request: sliced by action, then principal, then resource, so that a check never sees the others.
//!
//! Every policy lies in exactly one slice of principals and one of resources; an entity belongs to the slices of itself, its type, its
//! ancestors and of everybody, of those that exist. Actions that select the same policies share a row.

use crate::entities::{Entities, Place};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// What a scope says about the principal or the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    Any,
    Equal(u32),
    In(u32),
    Is(u32),
    /// A type, which the condition still has to be asked about, under an entity.
    IsIn(u32, u32),
}

/// What a scope says about the action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionLimit {
    Any,
    Equal(u32),
    In(Vec<u32>),
}

/// The scope of one policy.
#[derive(Clone, Debug)]
pub struct Scope {
    pub principal: Limit,
    pub action: ActionLimit,
    pub resource: Limit,
}

type Map<K, V> = HashMap<K, V, RandomState>;
const NONE: u32 = u32::MAX;

/// The slices of principals, or those of resources.
#[derive(Debug, Default)]
struct Side {
    any: Option<u32>,
    equal: Map<u32, u32>,
    within: Map<u32, u32>,
    kinds: Map<u32, u32>,
    count: u32,
}

impl Side {
    fn slice(&mut self, limit: Limit) -> u32 {
        let next = self.count;
        let slot = match limit {
            Limit::Any => self.any.get_or_insert(next),
            Limit::Equal(n) => self.equal.entry(n).or_insert(next),
            Limit::In(n) | Limit::IsIn(_, n) => self.within.entry(n).or_insert(next),
            Limit::Is(kind) => self.kinds.entry(kind).or_insert(next),
        };
        if *slot == next {
            self.count += 1;
        }
        *slot
    }

    fn of(&self, kind: Option<u32>, number: Option<u32>, ancestors: &[u32]) -> SmallVec<[u32; 6]> {
        let mut slices: SmallVec<[u32; 6]> = self.any.into_iter().collect();
        slices.extend(kind.and_then(|kind| self.kinds.get(&kind).copied()));
        if let Some(number) = number {
            slices.extend(self.equal.get(&number).copied());
            slices.extend(self.within.get(&number).copied());
        }
        if !self.within.is_empty() {
            slices.extend(ancestors.iter().filter_map(|ancestor| self.within.get(ancestor).copied()));
        }
        slices
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Policies for every resource.
    start: u32,
    len: u32,
    /// One bit for each slice of resources that has policies here, folded to 64.
    resources: u64,
}

/// Policies by what they apply to.
#[derive(Debug, Default)]
pub struct Index {
    principals: Side,
    resources: Side,
    actions_equal: Map<u32, u32>,
    actions_within: Map<u32, u32>,
    rows: Map<SmallVec<[u32; 6]>, u32>,
    /// Slots by row and slice of principals.
    table: Vec<u32>,
    slots: Vec<Slot>,
    /// Runs of `policies` by slot and slice of resources.
    specific: Map<u64, (u32, u32)>,
    policies: Vec<u32>,
}

impl Index {
    /// Slices the policies; `entities` says which actions there are.
    pub fn new(scopes: &[Scope], entities: &Entities) -> Self {
        let mut index = Self::default();
        let mut by_action: Vec<Vec<u32>> = Vec::new();
        let mut any_action = Vec::new();
        let mut next = 0_u32;
        let mut slices = Vec::with_capacity(scopes.len());
        for (number, scope) in scopes.iter().enumerate() {
            slices.push((index.principals.slice(scope.principal), index.resources.slice(scope.resource)));
            let mut file = |map: &mut Map<u32, u32>, action: u32| {
                let key = *map.entry(action).or_insert(next);
                if key == next {
                    next += 1;
                    by_action.push(Vec::new());
                }
                if let Some(list) = by_action.get_mut(key as usize) {
                    list.push(number as u32);
                }
            };
            match &scope.action {
                ActionLimit::Any => any_action.push(number as u32),
                ActionLimit::Equal(action) => file(&mut index.actions_equal, *action),
                ActionLimit::In(actions) => actions.iter().for_each(|action| file(&mut index.actions_within, *action)),
            }
        }
        let mut signatures: Vec<SmallVec<[u32; 6]>> = vec![SmallVec::new()];
        index.rows.insert(SmallVec::new(), 0);
        for number in 0..entities.count() {
            let signature = index.signature(number, &[], entities);
            if !index.rows.contains_key(&signature) {
                index.rows.insert(signature.clone(), signatures.len() as u32);
                signatures.push(signature);
            }
        }
        index.table = vec![NONE; signatures.len() * index.principals.count as usize];
        for (row, signature) in signatures.iter().enumerate() {
            let mut selected = any_action.clone();
            for key in signature {
                selected.extend(by_action.get(*key as usize).into_iter().flatten());
            }
            selected.sort_unstable();
            selected.dedup();
            index.fill(row, &selected, &slices);
        }
        index
    }

    fn fill(&mut self, row: usize, selected: &[u32], slices: &[(u32, u32)]) {
        let everybody = self.resources.any;
        let mut grouped: BTreeMap<(u32, u32), Vec<u32>> = BTreeMap::new();
        for policy in selected {
            if let Some((principal, resource)) = slices.get(*policy as usize) {
                grouped.entry((*principal, *resource)).or_default().push(*policy);
            }
        }
        for ((principal, resource), policies) in grouped {
            let at = row * self.principals.count as usize + principal as usize;
            let Some(cell) = self.table.get_mut(at) else { continue };
            if *cell == NONE {
                *cell = self.slots.len() as u32;
                self.slots.push(Slot { start: 0, len: 0, resources: 0 });
            }
            let slot_id = *cell;
            let run = (self.policies.len() as u32, policies.len() as u32);
            self.policies.extend(policies);
            let Some(slot) = self.slots.get_mut(slot_id as usize) else { continue };
            if Some(resource) == everybody {
                (slot.start, slot.len) = run;
            } else {
                slot.resources |= bit(resource);
                self.specific.insert(pair(slot_id, resource), run);
            }
        }
    }

    fn signature(&self, number: u32, ancestors: &[u32], entities: &Entities) -> SmallVec<[u32; 6]> {
        let mut signature: SmallVec<[u32; 6]> = SmallVec::new();
        signature.extend(self.actions_equal.get(&number).copied());
        if !self.actions_within.is_empty() {
            signature.extend(self.actions_within.get(&number).copied());
            let known = entities.record(number).map(|record| &*record.place.ancestors).unwrap_or_default();
            let ancestors = if ancestors.is_empty() { known } else { ancestors };
            signature.extend(ancestors.iter().filter_map(|ancestor| self.actions_within.get(ancestor).copied()));
        }
        signature.sort_unstable();
        signature
    }

    /// Where an entity stands; none where it is an action unlike all that were there when the policies were sliced.
    pub fn place(&self, kind: u32, number: u32, ancestors: SmallVec<[u32; 6]>, entities: &Entities) -> Option<Place> {
        let signature = self.signature(number, &ancestors, entities);
        Some(Place {
            as_principal: self.principals.of(Some(kind), Some(number), &ancestors),
            as_resource: self.resources.of(Some(kind), Some(number), &ancestors),
            as_action: *self.rows.get(&signature)?,
            ancestors,
        })
    }

    /// Where an entity stands that nothing names.
    pub fn place_of_stranger(&self, kind: Option<u32>) -> Place {
        Place {
            as_principal: self.principals.of(kind, None, &[]),
            as_resource: self.resources.of(kind, None, &[]),
            as_action: 0,
            ancestors: SmallVec::new(),
        }
    }

    /// Every policy whose scope, but for the types of `is .. in`, is fulfilled; each once.
    #[inline]
    pub fn visit(&self, principal: &[u32], row: u32, resource: &[u32], mut policy: impl FnMut(u32)) {
        let wanted = resource.iter().fold(0, |mask, slice| mask | bit(*slice));
        let row = row as usize * self.principals.count as usize;
        for slice in principal {
            let slot_id = self.table.get(row + *slice as usize).copied().unwrap_or(NONE);
            let Some(slot) = self.slots.get(slot_id as usize) else { continue };
            self.run(slot.start, slot.len, &mut policy);
            if slot.resources & wanted != 0 {
                for slice in resource {
                    if slot.resources & bit(*slice) != 0
                        && let Some((start, len)) = self.specific.get(&pair(slot_id, *slice))
                    {
                        self.run(*start, *len, &mut policy);
                    }
                }
            }
        }
    }

    #[inline]
    fn run(&self, start: u32, len: u32, policy: &mut impl FnMut(u32)) {
        for number in self.policies.get(start as usize..(start + len) as usize).unwrap_or(&[]) {
            policy(*number);
        }
    }

    /// Bytes it takes, for reports.
    pub fn bytes(&self) -> usize {
        self.table.len() * 4 + self.slots.len() * size_of::<Slot>() + self.specific.capacity() * 17 + self.policies.len() * 4
    }
}

const fn bit(slice: u32) -> u64 {
    1 << (slice & 63)
}

const fn pair(slot: u32, slice: u32) -> u64 {
    ((slot as u64) << 32) | slice as u64
}
