//! The engine: the policy set that serves, swapped whole.

use crate::annotation::{Marks, marks};
use crate::answer::{Answer, Ruling};
use crate::finding::Finding;
use crate::limits::Limits;
use crate::reference;
use crate::source::{Parsed, Sources, as_error, parse};
use arc_swap::ArcSwapOption;
use cedar_policy::Effect;
use creto_enablement_common::ports::{AuditWhen, Authorizer, Verdict};
use creto_enablement_common::{CheckRef, Decision, Digest, Error, Result};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// A change to the entities that policies see.
#[derive(Clone, Copy, Debug)]
pub enum EntityChange<'a> {
    /// Entities in Cedar's JSON (an array), added or replaced.
    Upsert(&'a str),
    /// Uids to remove.
    Remove(&'a [(&'a str, &'a str)]),
}

/// What a delegation hop was narrowed to: policies of another agent, compiled once.
#[derive(Debug)]
pub struct Attenuation {
    policies: cedar_policy::PolicySet,
}

struct Snapshot {
    parsed: Parsed,
    marks: HashMap<Arc<str>, (Effect, Marks)>,
}

/// Decides by the installed policy set; with none installed, everything is denied.
#[derive(Default)]
pub struct Engine {
    current: ArcSwapOption<Snapshot>,
    install: Mutex<()>,
    limits: Limits,
}

impl Engine {
    /// An engine with no policy set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses, validates and installs a policy set; the one before it serves until then, and stays where this one is refused.
    ///
    /// # Errors
    /// `InvalidInput` with what was found.
    pub fn install(&self, sources: &Sources<'_>) -> Result<(Digest, Vec<Finding>)> {
        let _one_at_a_time = self.install.lock();
        let mut parsed = parse(sources, &self.limits).map_err(|found| as_error(&found, sources.policies))?;
        let warnings = std::mem::take(&mut parsed.warnings);
        let digest = parsed.digest;
        self.current.store(Some(Arc::new(Snapshot::new(parsed))));
        Ok((digest, warnings))
    }

    /// Changes entities; policies are not compiled again.
    ///
    /// # Errors
    /// `InvalidInput` where an entity does not fit the schema or closes a cycle; nothing is changed then.
    pub fn change_entities(&self, change: EntityChange<'_>) -> Result<()> {
        let _one_at_a_time = self.install.lock();
        let Some(old) = self.current.load_full() else {
            return Err(Error::invalid("no policy set is installed; install one before changing its entities"));
        };
        let refuse = |e: cedar_policy::entities_errors::EntitiesError| Error::invalid(format!("entities: {e}"));
        let entities = old.parsed.entities.clone();
        let schema = old.parsed.schema.as_ref();
        let entities = match change {
            EntityChange::Upsert(json) => {
                let fresh = crate::source::parse_entities(json, schema, &self.limits).map_err(|found| as_error(&found, json))?;
                entities.upsert_entities(fresh, schema).map_err(refuse)?
            }
            EntityChange::Remove(uids) => {
                let uids = uids.iter().map(|(kind, id)| reference::uid(kind, id)).collect::<Result<Vec<_>>>()?;
                entities.remove_entities(uids).map_err(refuse)?
            }
        };
        let parsed = Parsed {
            policies: old.parsed.policies.clone(),
            schema: old.parsed.schema.clone(),
            open: old.parsed.open.clone(),
            entities,
            digest: old.parsed.digest,
            warnings: Vec::new(),
        };
        self.current.store(Some(Arc::new(Snapshot::new(parsed))));
        Ok(())
    }

    /// Digest of the installed set.
    pub fn digest(&self) -> Option<Digest> {
        self.current.load().as_ref().map(|s| s.parsed.digest)
    }

    /// Cedar's answer, with nothing of ours added: no schema check of the request, no oversight.
    ///
    /// # Errors
    /// `InvalidInput` where the request cannot be read.
    pub fn answer(&self, check: &CheckRef<'_>) -> Result<Answer> {
        let snapshot = self.current.load();
        let Some(snapshot) = &*snapshot else {
            return Ok(Answer { allowed: false, determining: Vec::new(), erring: Vec::new() });
        };
        let request = reference::request(check, &snapshot.parsed, false)?;
        Ok(reference::answer(&snapshot.parsed, &request).0)
    }

    /// What is to be done about the act; every doubt is a denial.
    pub fn rule(&self, check: &CheckRef<'_>) -> Ruling {
        let snapshot = self.current.load();
        match &*snapshot {
            None => Ruling::denied("no policy set is installed".to_owned(), [0; 32]),
            Some(snapshot) => snapshot.rule(check),
        }
    }

    /// Compiles the text of a delegation hop. Its policies see the acting agent as principal; it must permit what the main set permits.
    ///
    /// # Errors
    /// `InvalidInput` where it is too long, nested too deep, or not Cedar.
    pub fn attenuation(&self, text: &str) -> Result<Arc<Attenuation>> {
        let limits = Limits { policy_bytes: self.limits.attenuation_bytes, ..self.limits };
        let policies =
            crate::source::on_large_stack(|| crate::source::parse_policies(text, &limits))?.map_err(|found| as_error(&found, text))?;
        Ok(Arc::new(Attenuation { policies }))
    }

    /// What a delegation hop says about an act.
    pub fn rule_attenuation(&self, attenuation: &Attenuation, check: &CheckRef<'_>) -> Ruling {
        let snapshot = self.current.load();
        let Some(snapshot) = &*snapshot else {
            return Ruling::denied("no policy set is installed".to_owned(), [0; 32]);
        };
        let parsed = Parsed {
            policies: attenuation.policies.clone(),
            schema: snapshot.parsed.schema.clone(),
            open: snapshot.parsed.open.clone(),
            entities: snapshot.parsed.entities.clone(),
            digest: snapshot.parsed.digest,
            warnings: Vec::new(),
        };
        Snapshot::new(parsed).rule(check)
    }
}

impl Snapshot {
    fn new(parsed: Parsed) -> Self {
        let marks = parsed
            .policies
            .policies()
            .map(|policy| {
                let id = policy.id().to_string();
                let said = marks(&id, policy.effect(), |key| policy.annotation(key));
                (Arc::from(id), (policy.effect(), said))
            })
            .collect();
        Self { parsed, marks }
    }

    fn rule(&self, check: &CheckRef<'_>) -> Ruling {
        let digest = self.parsed.digest;
        let request = match reference::request(check, &self.parsed, true) {
            Ok(request) => request,
            Err(error) => return Ruling::denied(error.to_string(), digest),
        };
        let (answer, _) = reference::answer(&self.parsed, &request);
        let effect = |id: &Arc<str>| self.marks.get(id).map_or(Effect::Forbid, |(effect, _)| *effect);
        if let Some(id) = answer.erring.iter().find(|id| effect(id) == Effect::Forbid) {
            return Ruling::denied(format!("policy `{id}` forbids by a condition that erred"), digest);
        }
        if answer.allowed {
            return self.allowed(&answer.determining, Vec::new());
        }
        let mut oversight = Vec::new();
        for id in &answer.determining {
            match self.marks.get(id).and_then(|(_, marks)| marks.oversight.clone()) {
                Some(policy) => oversight.push(policy),
                None => return Ruling::denied(format!("policy `{id}` forbids it"), digest),
            }
        }
        if oversight.is_empty() {
            return Ruling::denied("no policy permits it".to_owned(), digest);
        }
        oversight.sort_unstable();
        oversight.dedup();
        // Only oversight forbids stood in the way: asked again without them, what would the permits say?
        let mut without = self.parsed.policies.clone();
        for (id, _) in self.marks.iter().filter(|(_, (_, marks))| marks.oversight.is_some()) {
            let id = cedar_policy::PolicyId::new(id);
            if without.remove_static(id.clone()).is_err() && without.unlink(id).is_err() {
                return Ruling::denied("internal fault: an oversight policy could not be set aside".to_owned(), digest);
            }
        }
        let response = cedar_policy::Authorizer::new().is_authorized(&request, &without, &self.parsed.entities);
        if response.decision() == cedar_policy::Decision::Deny {
            return Ruling::denied("no policy permits it".to_owned(), digest);
        }
        let mut permits: Vec<Arc<str>> = response.diagnostics().reason().map(|id| Arc::from(id.to_string())).collect();
        permits.sort_unstable();
        self.allowed(&permits, oversight)
    }

    fn allowed(&self, permits: &[Arc<str>], oversight: Vec<Arc<str>>) -> Ruling {
        let after = |id: &Arc<str>| self.marks.get(id).is_some_and(|(_, marks)| marks.audit == AuditWhen::After);
        let audit = if permits.iter().any(after) { AuditWhen::After } else { AuditWhen::Before };
        let decision = match oversight.first() {
            Some(first) => Decision::RequiresOversight { policy_id: first.to_string() },
            None => Decision::Allow,
        };
        Ruling { decision, oversight, permit: permits.first().cloned(), audit, policy_set: self.parsed.digest }
    }
}

impl Ruling {
    /// A denial.
    pub fn denied(reason: String, policy_set: Digest) -> Self {
        Self { decision: Decision::Deny { reason }, oversight: Vec::new(), permit: None, audit: AuditWhen::Before, policy_set }
    }
}

impl Authorizer for Engine {
    fn decide(&self, check: &CheckRef<'_>) -> Result<Verdict> {
        let ruling = self.rule(check);
        Ok(Verdict { decision: ruling.decision, oversight: ruling.oversight, policy_set: ruling.policy_set, audit: ruling.audit })
    }
}
