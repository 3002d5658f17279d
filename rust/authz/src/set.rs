//! A compiled policy set, and one version of it with its entities: what a check reads.

use crate::annotation::{Marks, marks};
use crate::entities::{Entities, Facts, Hierarchy, Place};
use crate::eval::Scene;
use crate::index::{ActionLimit, Index, Limit, Scope};
use crate::program::{NodeId, Numbers, Program};
use crate::shape::{Action, Shapes};
use crate::source::Parsed;
use crate::value::{Ent, Stored};
use cedar_policy::PolicySet;
use cedar_policy_core::ast::{self, ActionConstraint, EntityReference, EntityUID, PrincipalOrResourceConstraint, SlotId};
use creto_enablement_common::ports::AuditWhen;
use creto_enablement_common::{Error, Fields, Result};
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One policy, ready to run.
#[derive(Debug)]
pub struct Policy {
    pub forbid: bool,
    pub after: bool,
    /// The oversight policy that can lift this forbid.
    pub oversight: Option<Arc<str>>,
    pub id: Arc<str>,
    scope: Scope,
    condition: Option<NodeId>,
}

/// A compiled policy set; entities are apart from it.
#[derive(Debug)]
pub struct Set {
    /// Unlike that of every other set of this process.
    pub epoch: u64,
    pub parsed: Arc<Parsed>,
    pub shapes: Option<Arc<Shapes>>,
    pub agent_kind: u32,
    pub approver_kind: u32,
    pub action_kind: u32,
    program: Arc<Program>,
    policies: Arc<[Policy]>,
    index: Index,
}

static EPOCHS: AtomicU64 = AtomicU64::new(1);

/// Who or what a request names: its type and its number where they have one, and its name.
#[derive(Clone, Copy, Debug)]
pub struct Party<'a> {
    pub kind: Option<u32>,
    pub number: Option<u32>,
    pub kind_name: &'a str,
    pub id: &'a str,
}

impl<'a> Party<'a> {
    fn ent(&self) -> Ent<'a> {
        self.number.map_or(Ent::Named(self.kind_name, self.id), Ent::Known)
    }
}

/// What the policies said: numbers of policies, each list in no order.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub permits: SmallVec<[u32; 8]>,
    pub forbids: SmallVec<[u32; 4]>,
    pub erring: SmallVec<[u32; 4]>,
}

struct Interning<'a>(&'a mut Entities);

impl Numbers for Interning<'_> {
    fn entity(&mut self, kind: &str, id: &str) -> Stored {
        Stored::Known(self.0.intern(kind, id))
    }

    fn kind(&mut self, name: &str) -> Option<u32> {
        Some(self.0.intern_type(name))
    }
}

struct Foreign<'a>(&'a Entities);

impl Numbers for Foreign<'_> {
    fn entity(&mut self, kind: &str, id: &str) -> Stored {
        Stored::Named(kind.into(), id.into())
    }

    fn kind(&mut self, name: &str) -> Option<u32> {
        self.0.types().number(name)
    }
}

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
        let mut program = Program::default();
        let mut policies = Vec::with_capacity(parsed.policies.num_of_policies());
        for policy in parsed.policies.policies() {
            let said = marks(policy.id().as_ref(), policy.effect(), |key| policy.annotation(key));
            policies.push(compile(policy.as_ref(), said, &mut program, &mut entities)?);
        }
        let mut hierarchy = Hierarchy::default();
        let cedar = parsed.entities.as_ref();
        for entity in cedar.iter() {
            let (number, parents, facts) = take_in(entity, &mut entities)?;
            hierarchy.set_parents(number, &parents);
            if let Some(record) = entities.record_mut(number) {
                record.present = true;
                record.facts = Arc::new(facts);
            }
        }
        // Ancestors first: the rows of actions are made from them.
        for number in 0..entities.count() {
            let present = entities.record(number).is_some_and(|record| record.present);
            let ancestors = if present { hierarchy.ancestors(number) } else { SmallVec::new() };
            if !ancestors.is_empty()
                && let Some(record) = entities.record_mut(number)
            {
                record.place = Arc::new(Place { ancestors, ..Place::default() });
            }
        }
        let scopes: Vec<Scope> = policies.iter().map(|policy| policy.scope.clone()).collect();
        let index = Index::new(&scopes, &entities);
        let set = Self {
            epoch: EPOCHS.fetch_add(1, Ordering::Relaxed),
            parsed: Arc::new(parsed),
            shapes,
            agent_kind,
            approver_kind,
            action_kind,
            program: Arc::new(program),
            policies: policies.into(),
            index,
        };
        for number in 0..entities.count() {
            set.settle(number, &hierarchy, &mut entities)?;
        }
        Ok((set, entities, hierarchy))
    }

    /// The same set, its policies sliced for the actions that there are now, and every entity put in its place.
    ///
    /// # Errors
    /// As `settle`.
    pub fn sliced_again(&self, hierarchy: &Hierarchy, entities: &mut Entities) -> Result<Self> {
        for number in 0..entities.count() {
            let present = entities.record(number).is_some_and(|record| record.present);
            let ancestors = if present { hierarchy.ancestors(number) } else { SmallVec::new() };
            if let Some(record) = entities.record_mut(number) {
                record.place = Arc::new(Place { ancestors, ..Place::default() });
            }
        }
        let scopes: Vec<Scope> = self.policies.iter().map(|policy| policy.scope.clone()).collect();
        let set = Self {
            epoch: self.epoch,
            parsed: Arc::clone(&self.parsed),
            shapes: self.shapes.clone(),
            agent_kind: self.agent_kind,
            approver_kind: self.approver_kind,
            action_kind: self.action_kind,
            program: Arc::clone(&self.program),
            policies: Arc::clone(&self.policies),
            index: Index::new(&scopes, entities),
        };
        for number in 0..entities.count() {
            set.settle(number, hierarchy, entities)?;
        }
        Ok(set)
    }

    /// Works out anew where an entity stands.
    ///
    /// # Errors
    /// `NotFound` where it is an action unlike all that the policies were sliced for: then the set has to be compiled anew.
    pub fn settle(&self, number: u32, hierarchy: &Hierarchy, entities: &mut Entities) -> Result<()> {
        let Some(record) = entities.record(number) else { return Ok(()) };
        let (kind, present) = (record.kind, record.present);
        let ancestors = if present { hierarchy.ancestors(number) } else { SmallVec::new() };
        let place = self
            .index
            .place(kind, number, ancestors, entities)
            .ok_or_else(|| Error::new(creto_enablement_common::ErrorKind::NotFound).with_context("an action of a new kind"))?;
        if let Some(record) = entities.record_mut(number) {
            record.place = Arc::new(place);
        }
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
        self.program.bytes() + self.index.bytes() + self.policies.len() * size_of::<Policy>()
    }

    /// Asks every policy that can concern the request.
    #[inline]
    pub fn tally(&self, entities: &Entities, principal: Party<'_>, action: Party<'_>, resource: Party<'_>, context: Fields<'_>) -> Tally {
        let mut tally = Tally::default();
        let scene =
            Scene { program: &self.program, entities, principal: principal.ent(), action: action.ent(), resource: resource.ent(), context };
        let place = |party: &Party<'_>| party.number.and_then(|number| entities.record(number)).map(|record| &*record.place);
        let (strange_principal, strange_resource);
        let of_principal = match place(&principal) {
            Some(place) => place,
            None => {
                strange_principal = self.index.place_of_stranger(principal.kind);
                &strange_principal
            }
        };
        let of_resource = match place(&resource) {
            Some(place) => place,
            None => {
                strange_resource = self.index.place_of_stranger(resource.kind);
                &strange_resource
            }
        };
        let row = place(&action).map_or(0, |place| place.as_action);
        self.index.visit(&of_principal.as_principal, row, &of_resource.as_resource, |number| {
            let Some(policy) = self.policy(number) else { return };
            if !kind_holds(policy.scope.principal, principal.kind) || !kind_holds(policy.scope.resource, resource.kind) {
                return;
            }
            match policy.condition.map_or(Ok(true), |condition| scene.truth(condition)) {
                Ok(true) if policy.forbid => tally.forbids.push(number),
                Ok(true) => tally.permits.push(number),
                Ok(false) => {}
                Err(_) => tally.erring.push(number),
            }
        });
        tally
    }
}

#[inline]
fn kind_holds(limit: Limit, kind: Option<u32>) -> bool {
    match limit {
        Limit::IsIn(wanted, _) => kind == Some(wanted),
        _ => true,
    }
}

/// Policies of a delegation hop: few, tried one by one, their names not taken into the engine.
#[derive(Debug)]
pub struct Hop {
    epoch: u64,
    kinds: usize,
    program: Program,
    policies: Vec<Policy>,
    scopes: Vec<NodeId>,
}

impl Hop {
    /// Compiles the policies of a hop for the set that serves.
    ///
    /// # Errors
    /// `InvalidInput` where a condition is too deep.
    pub fn new(policies: &PolicySet, epoch: u64, entities: &Entities) -> Result<Self> {
        let mut hop = Self { epoch, kinds: entities.types().len(), program: Program::default(), policies: Vec::new(), scopes: Vec::new() };
        for policy in policies.policies() {
            let id: Arc<str> = policy.id().to_string().into();
            let Marks { oversight, audit } = marks(&id, policy.effect(), |key| policy.annotation(key));
            let policy: &ast::Policy = policy.as_ref();
            // The whole condition, scope and all: there is nothing to slice.
            hop.scopes.push(hop.program.compile(&policy.condition(), &mut Foreign(entities))?);
            hop.policies.push(Policy {
                forbid: policy.effect() == ast::Effect::Forbid,
                after: audit == AuditWhen::After,
                oversight,
                id,
                scope: Scope { principal: Limit::Any, action: ActionLimit::Any, resource: Limit::Any },
                condition: None,
            });
        }
        Ok(hop)
    }

    /// True while it can be asked together with this version.
    pub fn fits(&self, epoch: u64, entities: &Entities) -> bool {
        self.epoch == epoch && self.kinds == entities.types().len()
    }

    /// The policy of a number.
    pub fn policy(&self, number: u32) -> Option<&Policy> {
        self.policies.get(number as usize)
    }

    /// Asks every policy.
    pub fn tally(&self, entities: &Entities, principal: Party<'_>, action: Party<'_>, resource: Party<'_>, context: Fields<'_>) -> Tally {
        let mut tally = Tally::default();
        let scene =
            Scene { program: &self.program, entities, principal: principal.ent(), action: action.ent(), resource: resource.ent(), context };
        for ((number, policy), condition) in (0..).zip(&self.policies).zip(&self.scopes) {
            match scene.truth(*condition) {
                Ok(true) if policy.forbid => tally.forbids.push(number),
                Ok(true) => tally.permits.push(number),
                Ok(false) => {}
                Err(_) => tally.erring.push(number),
            }
        }
        tally
    }
}

fn number(uid: &EntityUID, entities: &mut Entities) -> u32 {
    entities.intern(&uid.entity_type().to_string(), AsRef::<str>::as_ref(uid.eid()))
}

fn compile(policy: &ast::Policy, said: Marks, program: &mut Program, entities: &mut Entities) -> Result<Policy> {
    let slots = policy.env();
    let limit = |constraint: &PrincipalOrResourceConstraint, slot: SlotId, entities: &mut Entities| -> Result<Limit> {
        let mut entity = |reference: &EntityReference| match reference {
            EntityReference::EUID(uid) => Ok(number(uid, entities)),
            EntityReference::Slot(_) => match slots.get(&slot) {
                Some(uid) => Ok(number(uid, entities)),
                None => Err(Error::invalid(format!("policy `{}` is a template with an open slot", policy.id()))),
            },
        };
        Ok(match constraint {
            PrincipalOrResourceConstraint::Any => Limit::Any,
            PrincipalOrResourceConstraint::Eq(reference) => Limit::Equal(entity(reference)?),
            PrincipalOrResourceConstraint::In(reference) => Limit::In(entity(reference)?),
            PrincipalOrResourceConstraint::Is(kind) => Limit::Is(entities.intern_type(&kind.to_string())),
            PrincipalOrResourceConstraint::IsIn(kind, reference) => {
                let entity = entity(reference)?;
                Limit::IsIn(entities.intern_type(&kind.to_string()), entity)
            }
        })
    };
    let scope = Scope {
        principal: limit(policy.template().principal_constraint().as_inner(), SlotId::principal(), entities)?,
        action: match policy.action_constraint() {
            ActionConstraint::Any => ActionLimit::Any,
            ActionConstraint::Eq(uid) => ActionLimit::Equal(number(uid, entities)),
            ActionConstraint::In(uids) => ActionLimit::In(uids.iter().map(|uid| number(uid, entities)).collect()),
        },
        resource: limit(policy.template().resource_constraint().as_inner(), SlotId::resource(), entities)?,
    };
    let condition = policy
        .non_scope_constraints()
        .map(|condition| program.compile(condition, &mut Interning(entities)))
        .transpose()
        .map_err(|error| error.with_context(format!("policy `{}`", policy.id())))?;
    Ok(Policy {
        forbid: policy.effect() == ast::Effect::Forbid,
        after: said.audit == AuditWhen::After,
        oversight: said.oversight,
        id: policy.id().to_string().into(),
        scope,
        condition,
    })
}

/// Named values, sorted by name.
type Sorted = Box<[(Box<str>, Stored)]>;

/// An entity's number, parents and facts.
pub fn take_in(entity: &ast::Entity, entities: &mut Entities) -> Result<(u32, SmallVec<[u32; 4]>, Facts)> {
    let own = number(entity.uid(), entities);
    let parents = entity.parents().map(|parent| number(parent, entities)).collect();
    let mut facts = |pairs: &mut dyn Iterator<Item = (&str, &ast::PartialValue)>| -> Result<Sorted> {
        let mut fields = pairs
            .map(|(name, value)| {
                let ast::PartialValue::Value(value) = value else { return None };
                let stored = Stored::from_cedar(value, &mut |uid| Stored::Known(number(uid, entities)))?;
                Some((Box::from(name), stored))
            })
            .collect::<Option<Vec<(Box<str>, Stored)>>>()
            .ok_or_else(|| Error::invalid(format!("entity `{}` holds a value that is not known", entity.uid())))?;
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(fields.into())
    };
    let attributes = facts(&mut entity.attrs().map(|(name, value)| (name.as_str(), value)))?;
    let tags = facts(&mut entity.tags().map(|(name, value)| (name.as_str(), value)))?;
    Ok((own, parents, Facts { attributes, tags }))
}

/// The action of a request as the schema knows it.
pub fn shape_of<'a>(set: &'a Set, action: &Party<'_>) -> Option<&'a Action> {
    set.shapes.as_ref()?.action_numbered(action.number?)
}
