//! What a delegation hop was narrowed to: policies of another agent, few, tried one by one, their names not taken into the engine.

use crate::annotation::{Marks, marks};
use crate::compile::{Compiler, Numbers};
use crate::entities::Entities;
use crate::eval::Scene;
use crate::party::Party;
use crate::program::{NodeId, Program};
use crate::set::{Policy, by_id};
use crate::source::on_large_stack;
use crate::tally::Tally;
use crate::value::Stored;
use arc_swap::{ArcSwap, Guard};
use cedar_policy::PolicySet;
use cedar_policy_core::ast;
use creto_enablement_common::ports::AuditWhen;
use creto_enablement_common::{Fields, Result};
use std::sync::Arc;

/// What a delegation hop was narrowed to, compiled once, and again when the set that serves changes.
#[derive(Debug)]
pub struct Attenuation {
    policies: PolicySet,
    compiled: ArcSwap<Hop>,
}

/// The compiled form, for one set of numbers.
#[derive(Debug)]
pub struct Hop {
    epoch: u64,
    kinds: usize,
    /// How many entities had numbers: an older version has fewer, and finds some of them by name only.
    count: u32,
    program: Program,
    policies: Vec<Policy>,
    /// The whole condition of each policy, its scope and all: there is nothing to slice.
    conditions: Vec<NodeId>,
}

struct Foreign<'a>(&'a Entities);

impl Numbers for Foreign<'_> {
    fn entity(&mut self, uid: &ast::EntityUID) -> Stored {
        let (kind, id): (String, &str) = (uid.entity_type().to_string(), uid.eid().as_ref());
        // Who has a number keeps it while the set serves; who has none is compared by name.
        match self.0.types().number(&kind).and_then(|kind| self.0.find(kind, id)) {
            Some(number) => Stored::Known(number),
            None => Stored::Named(kind.into(), id.into()),
        }
    }

    fn kind(&mut self, name: &str) -> Option<u32> {
        self.0.types().number(name)
    }
}

impl Attenuation {
    /// Compiles policies for the version that serves.
    ///
    /// # Errors
    /// `InvalidInput` where a condition is too deep.
    pub(crate) fn new(policies: PolicySet, epoch: u64, entities: &Entities) -> Result<Self> {
        let compiled = ArcSwap::from_pointee(Hop::new(&policies, epoch, entities)?);
        Ok(Self { policies, compiled })
    }

    /// The form that can be asked together with this version.
    ///
    /// # Errors
    /// As `new`.
    pub(crate) fn hop(&self, epoch: u64, entities: &Entities) -> Result<Guard<Arc<Hop>>> {
        let hop = self.compiled.load();
        if hop.epoch == epoch && hop.kinds == entities.types().len() && hop.count <= entities.count() {
            return Ok(hop);
        }
        // Another thread may hold an older version and put its own in place: what was made here is what is asked here.
        let made = on_large_stack(|| Hop::new(&self.policies, epoch, entities)).and_then(|made| made).map(Arc::new)?;
        self.compiled.store(Arc::clone(&made));
        Ok(Guard::from_inner(made))
    }
}

impl Hop {
    fn new(policies: &PolicySet, epoch: u64, entities: &Entities) -> Result<Self> {
        let (mut compiler, mut own, mut conditions) = (Compiler::default(), Vec::new(), Vec::new());
        for policy in by_id(policies) {
            let id: Arc<str> = policy.id().to_string().into();
            let Marks { oversight, audit } = marks(&id, policy.effect(), |key| policy.annotation(key));
            let policy: &ast::Policy = policy.as_ref();
            conditions.push(compiler.compile(&policy.condition(), &mut Foreign(entities))?);
            own.push(Policy { forbid: policy.effect() == ast::Effect::Forbid, after: audit == AuditWhen::After, oversight, id });
        }
        Ok(Self { epoch, kinds: entities.types().len(), count: entities.count(), program: compiler.finish(), policies: own, conditions })
    }

    /// The policy of a number.
    pub fn policy(&self, number: u32) -> Option<&Policy> {
        self.policies.get(number as usize)
    }

    /// Asks every policy.
    pub fn tally(&self, entities: &Entities, [principal, action, resource]: [&Party<'_>; 3], context: Fields<'_>) -> Tally {
        let mut tally = Tally::default();
        let scene =
            Scene { program: &self.program, entities, principal: &principal.ent, action: &action.ent, resource: &resource.ent, context };
        for ((number, policy), condition) in (0..).zip(&self.policies).zip(&self.conditions) {
            tally.add(number, policy.forbid, scene.truth(*condition));
        }
        tally
    }
}
