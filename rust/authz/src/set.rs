//! A compiled policy set: policies, their slices and their conditions. Entities are apart from it.

use crate::annotation::{Marks, marks};
use crate::compile::{Compiler, Numbers};
use crate::entities::Entities;
use crate::eval::Scene;
use crate::hierarchy::Hierarchy;
use crate::index::{ActionLimit, Index, Limit, Rule, Scope};
use crate::intake::{Numbering, take_in};
use crate::party::Party;
use crate::program::Program;
use crate::shape::{Action, Shapes};
use crate::source::Parsed;
use crate::standing::{NONE, Standing};
use crate::tally::Tally;
use crate::value::Stored;
use cedar_policy_core::ast::{self, ActionConstraint, EntityReference, PrincipalOrResourceConstraint, SlotId};
use creto_enablement_common::ports::AuditWhen;
use creto_enablement_common::{Digest, Error, Fields, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is said of one policy once it applies.
#[derive(Debug)]
pub struct Policy {
    pub forbid: bool,
    pub after: bool,
    /// The oversight policy that can lift this forbid.
    pub oversight: Option<Arc<str>>,
    pub id: Arc<str>,
}

/// A compiled policy set. What a check reads stands first, close together.
#[derive(Debug)]
#[repr(C)]
pub struct Set {
    /// Unlike that of every other set of this process.
    pub epoch: u64,
    pub agent_kind: u32,
    pub approver_kind: u32,
    pub action_kind: u32,
    program: Program,
    index: Index,
    policies: Arc<[Policy]>,
    pub shapes: Option<Arc<Shapes>>,
    pub digest: Digest,
    /// What is said where no policy permits.
    pub unpermitted: Arc<str>,
    pub parsed: Arc<Parsed>,
    scopes: Arc<[Scope]>,
    rules: Arc<[Rule]>,
}

static EPOCHS: AtomicU64 = AtomicU64::new(1);

impl Set {
    /// Compiles a parsed set, and numbers its entities.
    ///
    /// # Errors
    /// `InvalidInput` where a condition is too deep.
    pub fn new(parsed: Parsed) -> Result<(Self, Entities, Hierarchy)> {
        let mut entities = Entities::default();
        let agent_kind = entities.intern_type("Agent");
        let approver_kind = entities.intern_type("Approver");
        let action_kind = entities.intern_type("Action");
        let shapes = parsed.schema.as_ref().map(|schema| Arc::new(Shapes::new(schema, &parsed.open, &mut entities)));
        let mut numbering = Numbering::new(&mut entities);
        let (mut policies, mut scopes, mut rules) = (Vec::new(), Vec::new(), Vec::new());
        let mut compiler = Compiler::default();
        // INVARIANT: numbers go by the order of the ids, so that of several policies the least number is the first id.
        for policy in by_id(&parsed.policies) {
            let Marks { oversight, audit } = marks(policy.id().as_ref(), policy.effect(), |key| policy.annotation(key));
            let policy: &ast::Policy = policy.as_ref();
            let scope = scope_of(policy, &mut numbering)?;
            let condition = policy
                .non_scope_constraints()
                .map(|condition| compiler.compile(condition, &mut numbering))
                .transpose()
                .map_err(|error| error.with_context(format!("policy `{}`", policy.id())))?;
            let kind = |limit: Limit| if let Limit::IsIn(kind, _) = limit { kind } else { NONE };
            let forbid = policy.effect() == ast::Effect::Forbid;
            rules.push(Rule {
                condition: condition.unwrap_or(NONE),
                principal_kind: kind(scope.principal),
                resource_kind: kind(scope.resource),
                forbid,
            });
            scopes.push(scope);
            policies.push(Policy { forbid, after: audit == AuditWhen::After, oversight, id: policy.id().to_string().into() });
        }
        let mut hierarchy = Hierarchy::default();
        let cedar = parsed.entities.as_ref();
        for entity in cedar.iter() {
            let taken = take_in(entity, &mut numbering)?;
            hierarchy.set_parents(taken.number, &taken.parents);
            numbering.entities.put(taken.number, taken.attributes, taken.tags);
        }
        let index = slice(&scopes, &rules, &hierarchy, &mut entities);
        let set = Self {
            epoch: EPOCHS.fetch_add(1, Ordering::Relaxed),
            digest: parsed.digest,
            unpermitted: "no policy permits it".into(),
            parsed: Arc::new(parsed),
            shapes,
            agent_kind,
            approver_kind,
            action_kind,
            program: compiler.finish(),
            policies: policies.into(),
            scopes: scopes.into(),
            rules: rules.into(),
            index,
        };
        for number in 0..entities.count() {
            set.settle(number, &mut entities)?;
        }
        Ok((set, entities, hierarchy))
    }

    /// The same set, its policies sliced for the actions that there are now, and every entity put in its place.
    ///
    /// # Errors
    /// As `settle`.
    pub fn sliced_again(&self, hierarchy: &Hierarchy, entities: &mut Entities) -> Result<Self> {
        let set = Self {
            epoch: self.epoch,
            digest: self.digest,
            unpermitted: Arc::clone(&self.unpermitted),
            parsed: Arc::clone(&self.parsed),
            shapes: self.shapes.clone(),
            agent_kind: self.agent_kind,
            approver_kind: self.approver_kind,
            action_kind: self.action_kind,
            program: self.program.clone(),
            policies: Arc::clone(&self.policies),
            scopes: Arc::clone(&self.scopes),
            rules: Arc::clone(&self.rules),
            index: slice(&self.scopes, &self.rules, hierarchy, entities),
        };
        for number in 0..entities.count() {
            set.settle(number, entities)?;
        }
        Ok(set)
    }

    /// Works out anew where an entity stands, its ancestors being known.
    ///
    /// # Errors
    /// `NotFound` where it is an action unlike all that the policies were sliced for: then they have to be sliced anew.
    pub fn settle(&self, number: u32, entities: &mut Entities) -> Result<()> {
        let Some(record) = entities.record_mut(number) else { return Ok(()) };
        let mut standing = self
            .index
            .place(record.kind, number, &record.facts.ancestors)
            .ok_or_else(|| Error::new(creto_enablement_common::ErrorKind::NotFound).with_context("an action of a new kind"))?;
        standing.shape = self.shapes.as_ref().map_or(NONE, |shapes| shapes.place_of(number));
        record.standing = standing;
        Ok(())
    }

    /// The policy of a number.
    #[inline]
    pub fn policy(&self, number: u32) -> Option<&Policy> {
        self.policies.get(number as usize)
    }

    /// How many policies there are.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Bytes of the compiled form, without names and entities.
    pub fn bytes(&self) -> usize {
        self.program.bytes() + self.index.bytes() + self.policies.len() * (size_of::<Policy>() + size_of::<Scope>() + size_of::<Rule>())
    }

    /// The action of a request as the schema knows it.
    #[inline]
    pub fn shape_of(&self, action: &Party<'_>) -> Option<&Action> {
        self.shapes.as_ref()?.action(action.record?.standing.shape)
    }

    #[inline]
    fn standing<'a>(&'a self, party: &Party<'a>) -> Option<&'a Standing> {
        match party.record {
            Some(record) => Some(&record.standing),
            None => self.index.stranger(party.kind),
        }
    }

    /// Asks every policy that can concern the request.
    #[inline]
    pub fn tally(&self, entities: &Entities, [principal, action, resource]: [&Party<'_>; 3], context: Fields<'_>) -> Tally {
        let mut tally = Tally::default();
        let (Some(of_principal), Some(of_resource)) = (self.standing(principal), self.standing(resource)) else {
            return tally;
        };
        let row = action.record.map_or(0, |record| record.standing.row);
        let scene =
            Scene { program: &self.program, entities, principal: &principal.ent, action: &action.ent, resource: &resource.ent, context };
        self.index.visit(of_principal, row, of_resource, |head| {
            let rule = &head.rule;
            let is = |wanted: u32, kind: Option<u32>| wanted == NONE || kind == Some(wanted);
            if is(rule.principal_kind, principal.kind) && is(rule.resource_kind, resource.kind) {
                let holds = if rule.condition == NONE { Ok(true) } else { scene.truth(rule.condition) };
                tally.add(head.policy, rule.forbid, holds);
            }
        });
        tally
    }
}

/// The policies, sorted by id.
pub fn by_id(set: &cedar_policy::PolicySet) -> Vec<&cedar_policy::Policy> {
    let mut sorted: Vec<_> = set.policies().collect();
    sorted.sort_by(|a, b| AsRef::<str>::as_ref(a.id()).cmp(b.id().as_ref()));
    sorted
}

/// Slices policies by the actions that there are, every entity's ancestors having been worked out first.
fn slice(scopes: &[Scope], rules: &[Rule], hierarchy: &Hierarchy, entities: &mut Entities) -> Index {
    for number in 0..entities.count() {
        entities.set_ancestors(number, hierarchy.ancestors(number));
    }
    Index::new(scopes.iter(), rules, entities)
}

fn scope_of(policy: &ast::Policy, numbering: &mut Numbering<'_>) -> Result<Scope> {
    let slots = policy.env();
    let mut limit = |constraint: &PrincipalOrResourceConstraint, slot: SlotId| -> Result<Limit> {
        let mut entity = |reference: &EntityReference| match reference {
            EntityReference::EUID(uid) => Ok(numbering.number(uid)),
            EntityReference::Slot(_) => match slots.get(&slot) {
                Some(uid) => Ok(numbering.number(uid)),
                None => Err(Error::invalid(format!("policy `{}` is a template with an open slot", policy.id()))),
            },
        };
        Ok(match constraint {
            PrincipalOrResourceConstraint::Any => Limit::Any,
            PrincipalOrResourceConstraint::Eq(reference) => Limit::Equal(entity(reference)?),
            PrincipalOrResourceConstraint::In(reference) => Limit::In(entity(reference)?),
            PrincipalOrResourceConstraint::Is(kind) => Limit::Is(numbering.type_number(kind)),
            PrincipalOrResourceConstraint::IsIn(kind, reference) => {
                let entity = entity(reference)?;
                Limit::IsIn(numbering.type_number(kind), entity)
            }
        })
    };
    Ok(Scope {
        principal: limit(policy.template().principal_constraint().as_inner(), SlotId::principal())?,
        resource: limit(policy.template().resource_constraint().as_inner(), SlotId::resource())?,
        action: match policy.action_constraint() {
            ActionConstraint::Any => ActionLimit::Any,
            ActionConstraint::Eq(uid) => ActionLimit::Equal(numbering.number(uid)),
            ActionConstraint::In(uids) => ActionLimit::In(uids.iter().map(|uid| numbering.number(uid)).collect()),
        },
    })
}

impl Numbers for Numbering<'_> {
    fn entity(&mut self, uid: &ast::EntityUID) -> Stored {
        Stored::Known(self.number(uid))
    }

    fn kind(&mut self, name: &str) -> Option<u32> {
        Some(self.entities.intern_type(name))
    }
}
