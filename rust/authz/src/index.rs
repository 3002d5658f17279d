//! Which policies can concern a request: sliced by principal, then action, then resource, so that a check never sees the others.
//!
//! Every policy lies in exactly one slice of principals and one of resources; an entity belongs to the slices of itself, its type, its
//! ancestors and of everybody, of those that exist. Actions that select the same policies share a row. A short slice is one run of heads,
//! each with the rows that it is for; a long one is divided by row, what is for every row apart, and each run sorted by resource.

use crate::entities::Entities;
use crate::hierarchy::Numbers;
use crate::program::NodeId;
use crate::standing::{NONE, Run, Standing};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

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
type Signature = SmallVec<[u32; 4]>;

/// The most heads of a slice that are not worth dividing by row.
const SHORT: usize = 12;
/// The most heads that are looked at one by one.
const SCAN: u32 = 24;
/// Marks the number of a divided slice where a length stands.
const DIVIDED: u32 = NONE;

/// The slices of principals, or those of resources; 0 is everybody's, whether or not any policy is for everybody.
#[derive(Debug, Default)]
struct Side {
    equal: Map<u32, u32>,
    within: Map<u32, u32>,
    kinds: Map<u32, u32>,
    count: u32,
}

impl Side {
    fn new() -> Self {
        Self { count: 1, ..Self::default() }
    }

    fn slice(&mut self, limit: Limit) -> u32 {
        let next = self.count;
        let slot = match limit {
            Limit::Any => return 0,
            Limit::Equal(n) => self.equal.entry(n).or_insert(next),
            Limit::In(n) | Limit::IsIn(_, n) => self.within.entry(n).or_insert(next),
            Limit::Is(kind) => self.kinds.entry(kind).or_insert(next),
        };
        if *slot == next {
            self.count += 1;
        }
        *slot
    }

    /// The slices of an entity, but for everybody's.
    fn of(&self, kind: Option<u32>, number: Option<u32>, ancestors: &[u32]) -> SmallVec<[u32; 4]> {
        let mut slices: SmallVec<[u32; 4]> = SmallVec::new();
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

/// What is asked of a policy whose slice fits.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its condition, or `NONE`.
    pub condition: NodeId,
    /// The type that `is .. in` asks for, or `NONE`.
    pub principal_kind: u32,
    pub resource_kind: u32,
    pub forbid: bool,
}

/// One policy as a slice of principals holds it: half a cache line with all that a check reads of it.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// One bit for each row that it is for, folded to 64.
    rows: u64,
    /// Its slice of resources.
    resource: u32,
    pub policy: u32,
    pub rule: Rule,
}

/// Sets of rows, each kept once.
#[derive(Debug, Default)]
struct RowSets {
    /// 64-bit words of one set.
    words: usize,
    bits: Vec<u64>,
    /// The set of each policy.
    of: Vec<u32>,
}

impl RowSets {
    fn contains(&self, policy: u32, row: u32) -> bool {
        let set = self.of.get(policy as usize).copied().unwrap_or(NONE) as usize;
        self.bits.get(set * self.words + row as usize / 64).is_some_and(|word| word >> (row & 63) & 1 == 1)
    }

    fn set(&self, policy: u32) -> &[u64] {
        let set = self.of.get(policy as usize).copied().unwrap_or(NONE) as usize;
        self.bits.get(set * self.words..(set + 1) * self.words).unwrap_or_default()
    }

    fn add(&mut self, set: &[u64], known: &mut Map<Vec<u64>, u32>) {
        let number = *known.entry_ref(set).or_insert_with(|| {
            self.bits.extend_from_slice(set);
            (self.bits.len() / self.words) as u32 - 1
        });
        self.of.push(number);
    }
}

/// Policies by what they apply to. What a check reads stands first.
#[derive(Debug)]
#[repr(C)]
pub struct Index {
    heads: Vec<Head>,
    /// What is for every principal.
    everybody: Run,
    /// How many rows there are.
    row_count: u32,
    /// For each divided slice: the run of what is for every row, then one for each row.
    divided: Vec<Run>,
    /// Where those stand that nothing names, by type, and last who has no type.
    strangers: Vec<Standing>,
    sets: RowSets,
    principals: Side,
    resources: Side,
    actions_equal: Map<u32, u32>,
    actions_within: Map<u32, u32>,
    rows: Map<Signature, u32>,
    /// By slice of principals.
    runs: Vec<Run>,
}

impl Index {
    /// Slices the policies; `entities` says which actions there are.
    pub fn new<'a>(scopes: impl Iterator<Item = &'a Scope> + Clone, rules: &[Rule], entities: &Entities) -> Self {
        let mut index = Self {
            principals: Side::new(),
            resources: Side::new(),
            actions_equal: Map::default(),
            actions_within: Map::default(),
            rows: Map::default(),
            sets: RowSets::default(),
            runs: Vec::new(),
            heads: Vec::new(),
            everybody: Run::default(),
            row_count: 0,
            divided: Vec::new(),
            strangers: Vec::new(),
        };
        let mut keys = 0_u32;
        for scope in scopes.clone() {
            let mut key = |map: &mut Map<u32, u32>, action: u32| {
                if *map.entry(action).or_insert(keys) == keys {
                    keys += 1;
                }
            };
            match &scope.action {
                ActionLimit::Any => {}
                ActionLimit::Equal(action) => key(&mut index.actions_equal, *action),
                ActionLimit::In(actions) => actions.iter().for_each(|action| key(&mut index.actions_within, *action)),
            }
        }
        let rows_of = index.number_rows(keys, entities);
        let slices = index.take_sets(scopes, &rows_of);
        index.row_count = index.rows.len() as u32;
        index.lay(&slices, rules);
        index.everybody = index.runs.first().copied().unwrap_or_default();
        index.strangers =
            (0..entities.types().len() as u32).map(Some).chain([None]).map(|kind| index.standing(kind, None, 0, &[])).collect();
        index
    }

    /// Gives every signature of an action a row; tells the rows of each key.
    fn number_rows(&mut self, keys: u32, entities: &Entities) -> Vec<Vec<u32>> {
        let mut rows_of: Vec<Vec<u32>> = vec![Vec::new(); keys as usize];
        self.rows.insert(Signature::new(), 0);
        for number in 0..entities.count() {
            let ancestors = entities.record(number).map(|record| &*record.facts.ancestors).unwrap_or_default();
            let signature = self.signature(number, ancestors);
            let next = self.rows.len() as u32;
            if !self.rows.contains_key(&signature) {
                for key in &signature {
                    if let Some(rows) = rows_of.get_mut(*key as usize) {
                        rows.push(next);
                    }
                }
                self.rows.insert(signature, next);
            }
        }
        rows_of
    }

    /// Notes the rows of each policy; gives its slices of principals and of resources.
    fn take_sets<'a>(&mut self, scopes: impl Iterator<Item = &'a Scope>, rows_of: &[Vec<u32>]) -> Vec<(u32, u32)> {
        self.sets.words = self.rows.len().div_ceil(64);
        let mut known = Map::default();
        let mut set = vec![0_u64; self.sets.words];
        let mut slices = Vec::new();
        for scope in scopes {
            slices.push((self.principals.slice(scope.principal), self.resources.slice(scope.resource)));
            let fill = if scope.action == ActionLimit::Any { u64::MAX } else { 0 };
            set.iter_mut().for_each(|word| *word = fill);
            let mut include = |key: Option<&u32>| {
                for row in key.and_then(|key| rows_of.get(*key as usize)).into_iter().flatten() {
                    if let Some(word) = set.get_mut(*row as usize / 64) {
                        *word |= bit(*row);
                    }
                }
            };
            match &scope.action {
                ActionLimit::Any => {}
                ActionLimit::Equal(action) => include(self.actions_equal.get(action)),
                ActionLimit::In(actions) => actions.iter().for_each(|action| include(self.actions_within.get(action))),
            }
            self.sets.add(&set, &mut known);
        }
        slices
    }

    fn lay(&mut self, slices: &[(u32, u32)], rules: &[Rule]) {
        let mut by_principal: Vec<Vec<Head>> = vec![Vec::new(); self.principals.count as usize];
        for (((principal, resource), rule), policy) in slices.iter().zip(rules).zip(0_u32..) {
            let rows = self.sets.set(policy).iter().fold(0, |folded, word| folded | word);
            if let Some(heads) = by_principal.get_mut(*principal as usize) {
                heads.push(Head { rows, resource: *resource, policy, rule: *rule });
            }
        }
        for heads in by_principal {
            let run = if heads.len() <= SHORT { self.lay_run(heads) } else { self.divide(&heads) };
            self.runs.push(run);
        }
        self.heads.shrink_to_fit();
    }

    fn lay_run(&mut self, mut heads: Vec<Head>) -> Run {
        heads.sort_unstable_by_key(|head| (head.resource, head.policy));
        let run = Run { start: self.heads.len() as u32, len: heads.len() as u32 };
        self.heads.extend(heads);
        run
    }

    fn divide(&mut self, heads: &[Head]) -> Run {
        let rows = self.rows.len() as u32;
        let every = |head: &Head| self.sets.set(head.policy).iter().all(|word| *word == u64::MAX);
        let (everywhere, somewhere): (Vec<Head>, Vec<Head>) = heads.iter().copied().partition(every);
        let mut by_row: Vec<Vec<Head>> = vec![Vec::new(); rows as usize];
        for head in somewhere {
            for (row, heads) in (0_u32..).zip(&mut by_row) {
                if self.sets.contains(head.policy, row) {
                    heads.push(head);
                }
            }
        }
        let number = (self.divided.len() / (rows as usize + 1)) as u32;
        let run = self.lay_run(everywhere);
        self.divided.push(run);
        for heads in by_row {
            let run = self.lay_run(heads);
            self.divided.push(run);
        }
        Run { start: number, len: DIVIDED }
    }

    fn signature(&self, number: u32, ancestors: &[u32]) -> Signature {
        let mut signature = Signature::new();
        signature.extend(self.actions_equal.get(&number).copied());
        if !self.actions_within.is_empty() {
            signature.extend(self.actions_within.get(&number).copied());
            signature.extend(ancestors.iter().filter_map(|ancestor| self.actions_within.get(ancestor).copied()));
        }
        signature.sort_unstable();
        signature
    }

    /// Where an entity stands, but for its place in the schema; none where it is an action unlike all that were there when the policies were
    /// sliced.
    pub fn place(&self, kind: u32, number: u32, ancestors: &Numbers) -> Option<Standing> {
        let row = *self.rows.get(&self.signature(number, ancestors))?;
        Some(self.standing(Some(kind), Some(number), row, ancestors))
    }

    fn standing(&self, kind: Option<u32>, number: Option<u32>, row: u32, ancestors: &[u32]) -> Standing {
        let as_resource = self.resources.of(kind, number, ancestors);
        let mine = self.principals.of(kind, number, ancestors);
        let runs = mine.iter().filter_map(|slice| self.runs.get(*slice as usize).copied());
        Standing {
            row,
            shape: NONE,
            // Everybody's slice is everyone's.
            resource_bits: as_resource.iter().fold(bit(0), |bits, slice| bits | bit(*slice)),
            as_principal: runs.filter(|run| run.len != 0).collect(),
            as_resource: as_resource.iter().copied().collect(),
        }
    }

    /// Where an entity stands that nothing names.
    #[inline]
    pub fn stranger(&self, kind: Option<u32>) -> Option<&Standing> {
        // A type that was named later than the policies were sliced is in no slice.
        kind.and_then(|kind| self.strangers.get(kind as usize)).or(self.strangers.last())
    }

    /// Every policy whose scope, but for the types of `is .. in`, is fulfilled; each once.
    #[inline]
    pub fn visit(&self, principal: &Standing, row: u32, resource: &Standing, mut policy: impl FnMut(&Head)) {
        for run in principal.as_principal.iter().chain(std::iter::once(&self.everybody)) {
            if run.len == DIVIDED {
                let base = run.start as usize * (self.row_count as usize + 1);
                for part in [base, base + 1 + row as usize] {
                    if let Some(run) = self.divided.get(part) {
                        self.scan(*run, row, resource, &mut policy);
                    }
                }
            } else {
                self.scan(*run, row, resource, &mut policy);
            }
        }
    }

    #[inline]
    fn scan(&self, run: Run, row: u32, resource: &Standing, policy: &mut impl FnMut(&Head)) {
        let heads = self.heads.get(run.start as usize..(run.start + run.len) as usize).unwrap_or_default();
        if run.len > SCAN {
            return self.search(heads, row, resource, policy);
        }
        for head in heads {
            if head.rows & bit(row) != 0 && resource.resource_bits & bit(head.resource) != 0 {
                self.fulfilled(head, row, resource, policy);
            }
        }
    }

    #[inline]
    fn fulfilled(&self, head: &Head, row: u32, resource: &Standing, policy: &mut impl FnMut(&Head)) {
        // The bits are folded: a hit has to be confirmed.
        if (head.resource == 0 || resource.as_resource.contains(&head.resource))
            && (self.row_count <= 64 || self.sets.contains(head.policy, row))
        {
            policy(head);
        }
    }

    /// A long run, by halving: it is sorted by resource.
    #[inline(never)]
    fn search(&self, heads: &[Head], row: u32, resource: &Standing, policy: &mut impl FnMut(&Head)) {
        for slice in [0].iter().chain(&*resource.as_resource) {
            let from = heads.partition_point(|head| head.resource < *slice);
            for head in heads.iter().skip(from).take_while(|head| head.resource == *slice) {
                if head.rows & bit(row) != 0 {
                    self.fulfilled(head, row, resource, policy);
                }
            }
        }
    }

    /// Bytes it takes, for reports.
    pub fn bytes(&self) -> usize {
        (self.runs.len() + self.divided.len()) * size_of::<Run>()
            + self.heads.len() * size_of::<Head>()
            + self.sets.bits.len() * 8
            + self.sets.of.len() * 4
            + [&self.principals, &self.resources].iter().map(|side| side.count as usize * 18).sum::<usize>()
    }
}

const fn bit(number: u32) -> u64 {
    1 << (number & 63)
}
