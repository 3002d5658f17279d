//! The engine: the policy set that serves, swapped whole.
//!
//! Checks read one immutable version behind an atomic pointer and never wait. Whoever writes (a new set, a changed entity) makes the next
//! version under a lock of its own and puts it in place.

use crate::answer::{Answer, Ruling};
use crate::entities::{Entities, Hierarchy};
use crate::explain::{Explained, explain};
use crate::finding::Finding;
use crate::limits::{Limits, check_json};
use crate::name::parse_entity;
use crate::reference;
use crate::roster::{Role, Roster, code};
use crate::set::{Hop, Party, Policy, Set, Tally, shape_of, take_in};
use crate::source::{Parsed, Sources, as_error, on_large_stack, parse, parse_policies};
use crate::value::Val;
use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use cedar_policy::{Entity, EntityUid, PolicySet};
use creto_enablement_common::ports::{AuditWhen, Authorizer, Verdict};
use creto_enablement_common::{CheckRef, Decision, Digest, Error, ErrorKind, Fields, Result, Value};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A change to the entities that policies see.
#[derive(Clone, Copy, Debug)]
pub enum EntityChange<'a> {
    /// Entities in Cedar's JSON (an array), added or replaced.
    Upsert(&'a str),
    /// Uids to remove.
    Remove(&'a [(&'a str, &'a str)]),
}

/// One version: policies and entities that belong together.
pub(crate) struct Snapshot {
    pub(crate) set: Arc<Set>,
    pub(crate) entities: Entities,
    made: u64,
}

struct Writer {
    set: Arc<Set>,
    entities: Entities,
    hierarchy: Hierarchy,
    /// How many entities have had their standing worked out.
    settled: u32,
}

/// Decides by the installed policy set; with none installed, everything is denied.
#[derive(Default)]
pub struct Engine {
    current: ArcSwapOption<Snapshot>,
    writer: Mutex<Option<Writer>>,
    /// What was changed since the set was installed, for those who explain.
    changed: Mutex<Changes>,
    limits: Limits,
}

/// When an entity was last removed, and its last version with when that was made.
type Last = (Option<u64>, Option<(u64, Entity)>);

/// The last removal and the last version of each entity that changed, in the order in which they were made: as much as there are entities.
#[derive(Default)]
struct Changes {
    made: u64,
    of: HashMap<EntityUid, Last>,
}

impl Changes {
    fn upserted(&mut self, entities: &[Entity]) {
        for entity in entities {
            self.made += 1;
            self.of.entry(entity.uid()).or_default().1 = Some((self.made, entity.clone()));
        }
    }

    fn removed(&mut self, uids: Vec<EntityUid>) {
        for uid in uids {
            self.made += 1;
            self.of.insert(uid, (Some(self.made), None));
        }
    }

    /// The entities as they stand after these changes.
    fn applied_to(&self, mut entities: cedar_policy::Entities) -> Result<cedar_policy::Entities> {
        let refuse =
            |e: cedar_policy::entities_errors::EntitiesError| Error::invalid(format!("entities: {}", crate::finding::with_causes(&e)));
        let removals = self.of.iter().filter_map(|(uid, (removed, _))| removed.map(|at| (at, uid, None)));
        let versions = self.of.iter().filter_map(|(uid, (_, version))| version.as_ref().map(|(at, entity)| (*at, uid, Some(entity))));
        let mut steps: Vec<_> = removals.chain(versions).collect();
        steps.sort_by_key(|(at, _, _)| *at);
        for (_, uid, entity) in steps {
            entities = match entity {
                Some(entity) => entities.upsert_entities([entity.clone()], None).map_err(refuse)?,
                None => entities.remove_entities([uid.clone()]).map_err(refuse)?,
            };
        }
        Ok(entities)
    }
}

/// What a delegation hop was narrowed to: policies of another agent, compiled once, and again when the set that serves changes.
#[derive(Debug)]
pub struct Attenuation {
    policies: PolicySet,
    compiled: ArcSwap<Hop>,
}

/// One version held still, for several questions to the same policies and entities.
pub struct View(Guard<Option<Arc<Snapshot>>>);

/// A principal, an action and a resource looked up beforehand; good as long as it is wanted, whatever is installed.
#[derive(Clone, Debug)]
pub struct Prepared {
    epoch: u64,
    principal: Named,
    action: Named,
    resource: Option<Named>,
}

#[derive(Clone, Debug)]
pub(crate) struct Named {
    kind_name: Arc<str>,
    id: Arc<str>,
    kind: Option<u32>,
    number: Option<u32>,
}

impl Named {
    fn of(party: Party<'_>) -> Self {
        Self { kind_name: party.kind_name.into(), id: party.id.into(), kind: party.kind, number: party.number }
    }
}

/// Cedar's answer by numbers of policies; `View::policy_id` names them.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// True for Allow.
    pub allowed: bool,
    /// The policies that determine the answer, in no order.
    pub determining: SmallVec<[u32; 8]>,
    /// The policies that erred, in no order.
    pub erring: SmallVec<[u32; 4]>,
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
        let mut writer = self.writer.lock();
        let mut parsed = parse(sources, &self.limits).map_err(|found| as_error(&found, sources.policies))?;
        let warnings = std::mem::take(&mut parsed.warnings);
        let digest = parsed.digest;
        let (set, entities, hierarchy) = on_large_stack(|| Set::new(parsed))??;
        let set = Arc::new(set);
        self.publish(&set, &entities);
        let settled = entities.count();
        *self.changed.lock() = Changes::default();
        *writer = Some(Writer { set, entities, hierarchy, settled });
        Ok((digest, warnings))
    }

    fn publish(&self, set: &Arc<Set>, entities: &Entities) {
        let made = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
        self.current.store(Some(Arc::new(Snapshot { set: Arc::clone(set), entities: entities.clone(), made })));
    }

    /// Changes entities; policies are not compiled again, and no check waits.
    ///
    /// # Errors
    /// `InvalidInput` where an entity does not fit the schema or would descend from itself; nothing is changed then.
    pub fn change_entities(&self, change: EntityChange<'_>) -> Result<()> {
        let mut writer = self.writer.lock();
        let Some(writer) = &mut *writer else {
            return Err(Error::invalid("no policy set is installed; install one before changing its entities"));
        };
        let touched = match change {
            EntityChange::Upsert(json) => {
                let parsed = self.parse_entities(json, &writer.set)?;
                let touched = writer.upsert(&parsed)?;
                self.changed.lock().upserted(&parsed);
                touched
            }
            EntityChange::Remove(uids) => {
                let names = uids.iter().map(|(kind, id)| reference::uid(kind, id)).collect::<Result<_>>()?;
                self.changed.lock().removed(names);
                writer.remove(uids)
            }
        };
        writer.settle(&touched)?;
        self.publish(&writer.set, &writer.entities);
        Ok(())
    }

    /// Adds or replaces entities that are parsed already.
    ///
    /// # Errors
    /// As `change_entities`.
    pub fn upsert(&self, entities: &[Entity]) -> Result<()> {
        let mut writer = self.writer.lock();
        let Some(writer) = &mut *writer else {
            return Err(Error::invalid("no policy set is installed; install one before changing its entities"));
        };
        let touched = writer.upsert(entities)?;
        writer.settle(&touched)?;
        self.publish(&writer.set, &writer.entities);
        self.changed.lock().upserted(entities);
        Ok(())
    }

    fn parse_entities(&self, json: &str, set: &Set) -> Result<Vec<Entity>> {
        check_json("entities", json, self.limits.entity_bytes, self.limits.nesting)?;
        let wrong = |what: String| Error::invalid(format!("entities: {what}"));
        let values: Vec<serde_json::Value> = serde_json::from_str(json).map_err(|e| wrong(format!("not a JSON array of entities: {e}")))?;
        let entities: Vec<Entity> = values
            .into_iter()
            .map(|value| Entity::from_json_value(value, set.parsed.schema.as_ref()).map_err(|e| wrong(crate::finding::with_causes(&e))))
            .collect::<Result<_>>()?;
        Ok(entities)
    }

    /// Digest of the installed set.
    pub fn digest(&self) -> Option<Digest> {
        self.current.load().as_ref().map(|s| s.set.parsed.digest)
    }

    /// Compiles the installed set anew, puts it in nobody's way, and tells how long that took.
    ///
    /// # Errors
    /// `InvalidInput` where no set is installed.
    pub fn recompile(&self) -> Result<Duration> {
        let parsed = self.parsed()?;
        let parsed = Parsed {
            policies: parsed.policies.clone(),
            schema: parsed.schema.clone(),
            open: parsed.open.clone(),
            entities: parsed.entities.clone(),
            digest: parsed.digest,
            warnings: Vec::new(),
        };
        let started = Instant::now();
        let compiled = on_large_stack(|| Set::new(parsed))??;
        let took = started.elapsed();
        drop(compiled);
        Ok(took)
    }

    /// The ids of the policies that serve, in the set's order.
    pub fn policy_ids(&self) -> Vec<Arc<str>> {
        let view = self.current.load();
        let Some(snapshot) = &*view else { return Vec::new() };
        (0..snapshot.set.len() as u32).filter_map(|n| snapshot.set.policy(n)).map(|policy| Arc::clone(&policy.id)).collect()
    }

    /// How many policies serve, and the bytes of their compiled form.
    pub fn size(&self) -> (usize, usize) {
        self.current.load().as_ref().map_or((0, 0), |s| (s.set.len(), s.set.bytes()))
    }

    /// The version that serves now, held still.
    #[inline]
    pub fn view(&self) -> View {
        View(self.current.load())
    }

    /// Cedar's answer, with nothing of ours added: no schema check of the request, no oversight.
    ///
    /// # Errors
    /// `InvalidInput` where the request cannot be read.
    pub fn answer(&self, check: &CheckRef<'_>) -> Result<Answer> {
        self.view().answer(check)
    }

    /// Cedar's answer in cedar-policy's own words: each erring policy with its error.
    ///
    /// # Errors
    /// `InvalidInput` where the request cannot be read, or no set is installed.
    pub fn errors_in_words(&self, check: &CheckRef<'_>) -> Result<Vec<(String, String)>> {
        let snapshot = self.current.load();
        let snapshot = snapshot.as_ref().ok_or_else(|| Error::invalid("no policy set is installed"))?;
        let request = reference::request(check, &snapshot.set.parsed, false)?;
        Ok(reference::answer(&snapshot.set.parsed, &request).1)
    }

    /// What is to be done about the act; every doubt is a denial.
    #[inline]
    pub fn rule(&self, check: &CheckRef<'_>) -> Ruling {
        self.view().rule(check)
    }

    /// Looks up an agent and an action, and a resource where it is known beforehand.
    ///
    /// # Errors
    /// `InvalidInput` where a name cannot be read.
    pub fn prepare(&self, agent: &str, action: &str, resource: Option<&str>) -> Result<Prepared> {
        let view = self.current.load();
        let Some(snapshot) = &*view else {
            return Err(Error::invalid("no policy set is installed; install one before preparing checks"));
        };
        let (mut buffers, check) = (Buffers::default(), CheckRef { agent, action, resource: resource.unwrap_or("?"), context: &[] });
        let (principal, action) = snapshot.who(&check, &mut buffers.principal, &mut buffers.action)?;
        let (principal, action_party) = (Named::of(principal), Named::of(action));
        let resource = match resource {
            Some(_) => Some(Named::of(snapshot.what(&check, &action, &mut buffers.resource)?)),
            None => None,
        };
        Ok(Prepared { epoch: snapshot.set.epoch, principal, action: action_party, resource })
    }

    /// What is to be done about a prepared act. `resource` names it where it was not prepared.
    pub fn rule_prepared(&self, prepared: &Prepared, resource: Option<&str>, context: Fields<'_>) -> Ruling {
        let view = self.current.load();
        let Some(snapshot) = &*view else { return Ruling::denied("no policy set is installed".to_owned(), [0; 32]) };
        let same = prepared.epoch == snapshot.set.epoch;
        let (principal, action) = (snapshot.party(&prepared.principal, same), snapshot.party(&prepared.action, same));
        let mut buffer = Cow::Borrowed("");
        let resource = match (&prepared.resource, resource) {
            (_, Some(name)) => {
                let check = CheckRef { agent: principal.id, action: action.id, resource: name, context };
                match snapshot.what(&check, &action, &mut buffer) {
                    Ok(party) => party,
                    Err(error) => return Ruling::denied(error.to_string(), snapshot.set.parsed.digest),
                }
            }
            (Some(named), None) => snapshot.party(named, same),
            (None, None) => return Ruling::denied("no resource was named".to_owned(), snapshot.set.parsed.digest),
        };
        let texts = || (party_text(&principal), party_text(&action), party_text(&resource));
        if !snapshot.fits(&principal, &action, &resource, context) {
            let (agent, action, resource) = texts();
            return snapshot.misfit(&CheckRef { agent: &agent, action: &action, resource: &resource, context });
        }
        snapshot.ruling(&snapshot.set.tally(&snapshot.entities, principal, action, resource, context), |n| snapshot.set.policy(n))
    }

    /// Looks up many names of one role.
    ///
    /// # Errors
    /// `InvalidInput` where a name cannot be read, or no set is installed.
    pub fn roster(&self, role: Role<'_>, names: &[&str]) -> Result<Roster> {
        let view = self.current.load();
        let Some(snapshot) = &*view else { return Err(Error::invalid("no policy set is installed; install one before preparing checks")) };
        let look = |name: &&str| -> Result<Named> {
            let mut buffers = Buffers::default();
            if let Role::Resource(kind_name) = role
                && parse_entity(name)?.is_none()
            {
                let kind = snapshot.entities.types().number(kind_name);
                let number = kind.and_then(|kind| snapshot.entities.find(kind, name));
                return Ok(Named::of(Party { kind, number, kind_name, id: name }));
            }
            let check = CheckRef { agent: name, action: if role == Role::Action { name } else { "?" }, resource: "?", context: &[] };
            let (principal, action) = snapshot.who(&check, &mut buffers.principal, &mut buffers.action)?;
            Ok(Named::of(if role == Role::Action { action } else { principal }))
        };
        Ok(Roster { epoch: snapshot.set.epoch, names: names.iter().map(look).collect::<Result<_>>()? })
    }

    /// Decides many acts without circumstances, each given by the places of its parts in the rosters; answers by `code`, in order, all by one
    /// version. A place outside of its roster is a denial.
    pub fn codes(&self, rosters: [&Roster; 3], places: impl Iterator<Item = [u32; 3]>, mut answer: impl FnMut(u8)) {
        let view = self.current.load();
        let Some(snapshot) = &*view else { return places.for_each(|_| answer(code::DENY)) };
        let [principals, actions, resources] = rosters;
        for [principal, action, resource] in places {
            let named =
                (principals.names.get(principal as usize), actions.names.get(action as usize), resources.names.get(resource as usize));
            let (Some(principal), Some(action), Some(resource)) = named else {
                answer(code::DENY);
                continue;
            };
            let epoch = snapshot.set.epoch;
            let principal = snapshot.party(principal, principals.epoch == epoch);
            let action = snapshot.party(action, actions.epoch == epoch);
            let resource = snapshot.party(resource, resources.epoch == epoch);
            if !snapshot.fits(&principal, &action, &resource, &[]) {
                answer(code::DENY);
                continue;
            }
            answer(snapshot.code(&snapshot.set.tally(&snapshot.entities, principal, action, resource, &[])));
        }
    }

    /// Every policy whose scope fits a request, with its conditions and their values, in cedar-policy's words.
    ///
    /// # Errors
    /// `InvalidInput` where the request cannot be read, or no set is installed.
    pub fn explain(&self, check: &CheckRef<'_>) -> Result<Vec<Explained>> {
        // Entities as they stand now, not as they were installed.
        let parsed = self.parsed()?;
        explain(&parsed, check)
    }

    /// The installed set with its entities as they stand now.
    pub(crate) fn parsed(&self) -> Result<Arc<Parsed>> {
        let snapshot = self.current.load();
        let snapshot = snapshot.as_ref().ok_or_else(|| Error::invalid("no policy set is installed"))?;
        let parsed = Arc::clone(&snapshot.set.parsed);
        let changed = self.changed.lock();
        if changed.of.is_empty() {
            return Ok(parsed);
        }
        let entities = changed.applied_to(parsed.entities.clone())?;
        Ok(Arc::new(Parsed {
            policies: parsed.policies.clone(),
            schema: parsed.schema.clone(),
            open: parsed.open.clone(),
            entities,
            digest: parsed.digest,
            warnings: Vec::new(),
        }))
    }

    /// Compiles the text of a delegation hop. Its policies see the acting agent as principal; it must permit what the main set permits.
    ///
    /// # Errors
    /// `InvalidInput` where it is too long, nested too deep, or not Cedar.
    pub fn attenuation(&self, text: &str) -> Result<Arc<Attenuation>> {
        let limits = Limits { policy_bytes: self.limits.attenuation_bytes, ..self.limits };
        let view = self.current.load();
        let nobody = Entities::default();
        let (epoch, entities) = view.as_ref().map_or((0, &nobody), |snapshot| (snapshot.set.epoch, &snapshot.entities));
        on_large_stack(|| {
            let policies = parse_policies(text, &limits).map_err(|found| as_error(&found, text))?;
            let compiled = ArcSwap::from_pointee(Hop::new(&policies, epoch, entities)?);
            Ok(Arc::new(Attenuation { policies, compiled }))
        })?
    }
}

#[derive(Default)]
struct Buffers<'a> {
    principal: Cow<'a, str>,
    action: Cow<'a, str>,
    resource: Cow<'a, str>,
}

fn party_text(party: &Party<'_>) -> String {
    format!("{}::\"{}\"", party.kind_name, party.id.escape_debug())
}

impl View {
    /// What is to be done about the act; every doubt is a denial.
    #[inline]
    pub fn rule(&self, check: &CheckRef<'_>) -> Ruling {
        match &*self.0 {
            None => Ruling::denied("no policy set is installed".to_owned(), [0; 32]),
            Some(snapshot) => snapshot.rule(check),
        }
    }

    /// What a delegation hop says about an act that the main set was asked about already.
    pub fn rule_attenuation(&self, attenuation: &Attenuation, check: &CheckRef<'_>) -> Ruling {
        let Some(snapshot) = &*self.0 else { return Ruling::denied("no policy set is installed".to_owned(), [0; 32]) };
        let digest = snapshot.set.parsed.digest;
        let mut buffers = Buffers::default();
        let parties = snapshot
            .who(check, &mut buffers.principal, &mut buffers.action)
            .and_then(|(principal, action)| Ok((principal, action, snapshot.what(check, &action, &mut buffers.resource)?)));
        let (principal, action, resource) = match parties {
            Ok(parties) => parties,
            Err(error) => return Ruling::denied(error.to_string(), digest),
        };
        let mut hop = attenuation.compiled.load_full();
        if !hop.fits(snapshot.set.epoch, &snapshot.entities) {
            // Another thread may hold an older version and put its own in place: what was made here is what is asked here.
            match on_large_stack(|| Hop::new(&attenuation.policies, snapshot.set.epoch, &snapshot.entities)).and_then(|made| made) {
                Ok(made) => hop = Arc::new(made),
                Err(error) => return Ruling::denied(error.to_string(), digest),
            }
            attenuation.compiled.store(Arc::clone(&hop));
        }
        let tally = hop.tally(&snapshot.entities, principal, action, resource, check.context);
        snapshot.ruling(&tally, |number| hop.policy(number))
    }
    /// Cedar's answer, with nothing of ours added.
    ///
    /// # Errors
    /// `InvalidInput` where the request cannot be read.
    pub fn answer(&self, check: &CheckRef<'_>) -> Result<Answer> {
        let Some(snapshot) = &*self.0 else {
            return Ok(Answer { allowed: false, determining: Vec::new(), erring: Vec::new() });
        };
        snapshot.readable(check.context)?;
        let mut buffers = Buffers::default();
        let (principal, action) = snapshot.who(check, &mut buffers.principal, &mut buffers.action)?;
        let resource = snapshot.what(check, &action, &mut buffers.resource)?;
        let outcome = outcome(&snapshot.set.tally(&snapshot.entities, principal, action, resource, check.context));
        let names = |numbers: &[u32]| {
            let mut names: Vec<Arc<str>> =
                numbers.iter().filter_map(|n| snapshot.set.policy(*n)).map(|policy| Arc::clone(&policy.id)).collect();
            names.sort_unstable();
            names
        };
        Ok(Answer { allowed: outcome.allowed, determining: names(&outcome.determining), erring: names(&outcome.erring) })
    }

    /// Cedar's answer to borrowed strings, by numbers.
    ///
    /// # Errors
    /// `InvalidInput` where the request cannot be read.
    #[inline]
    pub fn outcome(&self, check: &CheckRef<'_>) -> Result<Outcome> {
        let Some(snapshot) = &*self.0 else { return Ok(outcome(&Tally::default())) };
        let mut buffers = Buffers::default();
        let (principal, action) = snapshot.who(check, &mut buffers.principal, &mut buffers.action)?;
        let resource = snapshot.what(check, &action, &mut buffers.resource)?;
        Ok(outcome(&snapshot.set.tally(&snapshot.entities, principal, action, resource, check.context)))
    }

    /// Cedar's answer to a prepared request, by numbers; none where it was prepared without a resource.
    #[inline]
    pub fn outcome_prepared(&self, prepared: &Prepared, context: Fields<'_>) -> Option<Outcome> {
        let snapshot = self.0.as_ref()?;
        let same = prepared.epoch == snapshot.set.epoch;
        let principal = snapshot.party(&prepared.principal, same);
        let action = snapshot.party(&prepared.action, same);
        let resource = snapshot.party(prepared.resource.as_ref()?, same);
        Some(outcome(&snapshot.set.tally(&snapshot.entities, principal, action, resource, context)))
    }

    /// The id of a policy.
    pub fn policy_id(&self, number: u32) -> Option<&str> {
        Some(&self.0.as_ref()?.set.policy(number)?.id)
    }
}

fn outcome(tally: &Tally) -> Outcome {
    let allowed = tally.forbids.is_empty() && !tally.permits.is_empty();
    let determining = if allowed { tally.permits.clone() } else { SmallVec::from_slice(&tally.forbids) };
    Outcome { allowed, determining, erring: tally.erring.clone() }
}

impl Snapshot {
    /// The principal and the action of a check.
    #[inline]
    fn who<'a>(
        &self,
        check: &CheckRef<'a>,
        principal: &'a mut Cow<'a, str>,
        action: &'a mut Cow<'a, str>,
    ) -> Result<(Party<'a>, Party<'a>)> {
        let set = &self.set;
        let principal = match parse_entity(check.agent)? {
            None => {
                let kind_name = reference::principal_type(check.agent);
                let kind = if kind_name == "Agent" { set.agent_kind } else { set.approver_kind };
                Party { kind: Some(kind), number: self.entities.find(kind, check.agent), kind_name, id: check.agent }
            }
            Some(name) => self.typed(name.kind, name.id, principal),
        };
        let action = match parse_entity(check.action)? {
            None => {
                let known = set.shapes.as_ref().and_then(|shapes| shapes.action(check.action)).map(|action| action.number);
                let number = known.or_else(|| self.entities.find(set.action_kind, check.action));
                Party { kind: Some(set.action_kind), number, kind_name: "Action", id: check.action }
            }
            Some(name) => self.typed(name.kind, name.id, action),
        };
        Ok((principal, action))
    }

    /// The resource of a check.
    #[inline]
    fn what<'a>(&'a self, check: &CheckRef<'a>, action: &Party<'_>, buffer: &'a mut Cow<'a, str>) -> Result<Party<'a>> {
        if let Some(name) = parse_entity(check.resource)? {
            return Ok(self.typed(name.kind, name.id, buffer));
        }
        let sole = shape_of(&self.set, action).and_then(|action| action.sole_resource());
        let Some((kind, kind_name)) = sole.and_then(|kind| Some((kind, self.entities.types().name(kind)?))) else {
            // Cold: cedar-policy's side says why.
            return match reference::request(check, &self.set.parsed, false) {
                Err(error) => Err(error),
                Ok(_) => Err(Error::invalid(format!("`{}` has no type; write `Type::\"{}\"`", check.resource, check.resource))),
            };
        };
        Ok(Party { kind: Some(kind), number: self.entities.find(kind, check.resource), kind_name, id: check.resource })
    }

    fn typed<'a>(&self, kind_name: &'a str, id: Cow<'a, str>, buffer: &'a mut Cow<'a, str>) -> Party<'a> {
        *buffer = id;
        let id: &'a str = buffer;
        let kind = self.entities.types().number(kind_name);
        Party { kind, number: kind.and_then(|kind| self.entities.find(kind, id)), kind_name, id }
    }

    #[inline]
    fn party<'a>(&self, named: &'a Named, same: bool) -> Party<'a> {
        let (mut kind, mut number) = (named.kind, named.number);
        if !same || number.is_none() {
            kind = self.entities.types().number(&named.kind_name);
            number = kind.and_then(|kind| self.entities.find(kind, &named.id));
        }
        Party { kind, number, kind_name: &named.kind_name, id: &named.id }
    }

    #[inline]
    fn fits(&self, principal: &Party<'_>, action: &Party<'_>, resource: &Party<'_>, context: Fields<'_>) -> bool {
        let Some(shapes) = &self.set.shapes else { return self.readable(context).is_ok() };
        match (shape_of(&self.set, action), principal.kind, resource.kind) {
            (Some(shape), Some(principal_kind), Some(resource_kind)) => {
                shapes.fits(shape, (principal_kind, principal.id), (resource_kind, resource.id), context, &self.entities)
            }
            _ => false,
        }
    }

    /// Refuses a context that no request can have: a name that stands twice, or an extension value of no valid form.
    fn readable(&self, context: Fields<'_>) -> Result<()> {
        for (at, (name, value)) in context.iter().enumerate() {
            if context.iter().take(at).any(|(other, _)| other == name) {
                return Err(Error::invalid(format!("the context names `{name}` twice")));
            }
            readable_value(name, value, 0)?;
        }
        Ok(())
    }

    /// The denial of a request that does not fit, in cedar-policy's words.
    #[cold]
    fn misfit(&self, check: &CheckRef<'_>) -> Ruling {
        let why = match reference::request(check, &self.set.parsed, true) {
            Err(error) => match error.kind() {
                ErrorKind::InvalidInput(what) => what.clone(),
                _ => error.to_string(),
            },
            Ok(_) => "the request does not fit the schema".to_owned(),
        };
        Ruling::denied(why, self.set.parsed.digest)
    }

    #[inline]
    fn rule(&self, check: &CheckRef<'_>) -> Ruling {
        let mut buffers = Buffers::default();
        let parties = self
            .who(check, &mut buffers.principal, &mut buffers.action)
            .and_then(|(principal, action)| Ok((principal, action, self.what(check, &action, &mut buffers.resource)?)));
        let Ok((principal, action, resource)) = parties else { return self.misfit(check) };
        if !self.fits(&principal, &action, &resource, check.context) {
            return self.misfit(check);
        }
        self.ruling(&self.set.tally(&self.entities, principal, action, resource, check.context), |number| self.set.policy(number))
    }

    /// The same as `ruling`, without its reasons.
    #[inline]
    fn code(&self, tally: &Tally) -> u8 {
        let policy = |number: &u32| self.set.policy(*number);
        if tally.erring.iter().filter_map(policy).any(|policy| policy.forbid)
            || tally.permits.is_empty()
            || tally.forbids.iter().filter_map(policy).any(|policy| policy.oversight.is_none())
        {
            return code::DENY;
        }
        if tally.forbids.is_empty() { code::ALLOW } else { code::OVERSIGHT }
    }

    /// A plain forbid denies, then the lack of a permit, then oversight asks; a forbid that erred counts as one that forbids.
    #[inline]
    fn ruling<'a>(&self, tally: &Tally, policy: impl Fn(u32) -> Option<&'a Policy>) -> Ruling {
        let digest = self.set.parsed.digest;
        let first = |numbers: &[u32], wanted: &dyn Fn(&Policy) -> bool| {
            numbers.iter().filter_map(|n| policy(*n)).filter(|p| wanted(p)).map(|p| &p.id).min().cloned()
        };
        if !tally.erring.is_empty()
            && let Some(id) = first(&tally.erring, &|policy| policy.forbid)
        {
            return Ruling::denied(format!("policy `{id}` forbids by a condition that erred"), digest);
        }
        let mut oversight = Vec::new();
        if !tally.forbids.is_empty() {
            if let Some(id) = first(&tally.forbids, &|policy| policy.oversight.is_none()) {
                return Ruling::denied(format!("policy `{id}` forbids it"), digest);
            }
            oversight.extend(tally.forbids.iter().filter_map(|n| policy(*n)).filter_map(|policy| policy.oversight.clone()));
            oversight.sort_unstable();
            oversight.dedup();
        }
        let permit = match *tally.permits {
            [only] => policy(only).map(|policy| Arc::clone(&policy.id)),
            _ => first(&tally.permits, &|_| true),
        };
        if permit.is_none() {
            return Ruling::denied("no policy permits it".to_owned(), digest);
        }
        let after = tally.permits.iter().any(|n| policy(*n).is_some_and(|policy| policy.after));
        let decision = match oversight.first() {
            Some(first) => Decision::RequiresOversight { policy_id: first.to_string() },
            None => Decision::Allow,
        };
        Ruling {
            decision,
            oversight,
            permit,
            audit: if after { AuditWhen::After } else { AuditWhen::Before },
            policy_set: digest,
            made: self.made,
        }
    }
}

fn readable_value(name: &str, value: &Value<'_>, depth: usize) -> Result<()> {
    if depth > Limits::DEFAULT.nesting {
        return Err(Error::invalid(format!("the context's `{name}` is nested deeper than {}", Limits::DEFAULT.nesting)));
    }
    match value {
        Value::Extension(..) if Val::asked(value).is_err() => {
            Err(Error::invalid(format!("the context's `{name}` is not of its extension's form")))
        }
        Value::Set(items) => items.iter().try_for_each(|item| readable_value(name, item, depth + 1)),
        Value::Record(fields) => fields.iter().enumerate().try_for_each(|(at, (inner, value))| {
            if fields.iter().take(at).any(|(other, _)| other == inner) {
                return Err(Error::invalid(format!("the context's `{name}` names `{inner}` twice")));
            }
            readable_value(inner, value, depth + 1)
        }),
        _ => Ok(()),
    }
}

impl Writer {
    /// Takes entities in; gives those whose standing has to be worked out anew.
    fn upsert(&mut self, entities: &[Entity]) -> Result<SmallVec<[u32; 8]>> {
        let mut taken: SmallVec<[_; 2]> = SmallVec::new();
        for entity in entities {
            let fresh = take_in(entity.as_ref(), &mut self.entities)?;
            if taken.iter().any(|(number, _, _): &(u32, _, _)| *number == fresh.0) {
                return Err(Error::invalid(format!("entities: `{}` stands twice", entity.uid())));
            }
            taken.push(fresh);
        }
        self.refuse_cycles(&taken)?;
        let mut touched = SmallVec::new();
        for (number, parents, facts) in taken {
            if self.hierarchy.parents(number) != &*parents || !self.entities.record(number).is_some_and(|record| record.present) {
                self.hierarchy.set_parents(number, &parents);
                touched.push(number);
                touched.extend(self.hierarchy.descendants(number));
            }
            if let Some(record) = self.entities.record_mut(number) {
                record.present = true;
                record.facts = Arc::new(facts);
            }
        }
        Ok(touched)
    }

    /// Walks up from each new entity along the new edges, where there are new ones, and the old ones elsewhere.
    fn refuse_cycles(&self, taken: &[(u32, SmallVec<[u32; 4]>, crate::entities::Facts)]) -> Result<()> {
        for (start, parents, _) in taken {
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
                match taken.iter().find(|(other, _, _)| *other == number) {
                    Some((_, parents, _)) => open.extend(parents.iter().copied()),
                    None => open.extend(self.hierarchy.parents(number).iter().copied()),
                }
            }
        }
        Ok(())
    }

    fn remove(&mut self, uids: &[(&str, &str)]) -> SmallVec<[u32; 8]> {
        let mut touched: SmallVec<[u32; 8]> = SmallVec::new();
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
            if let Some(record) = self.entities.record_mut(number) {
                record.present = false;
                record.facts = Arc::default();
            }
        }
        touched
    }

    /// Works out anew where the entities stand. An action unlike all before has the policies sliced again.
    fn settle(&mut self, touched: &[u32]) -> Result<()> {
        // What was only named so far (a parent, a value) has no standing yet.
        let fresh = self.settled..self.entities.count();
        for number in touched.iter().copied().chain(fresh) {
            match self.set.settle(number, &self.hierarchy, &mut self.entities) {
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

impl Ruling {
    /// A denial.
    pub fn denied(reason: String, policy_set: Digest) -> Self {
        Self { decision: Decision::Deny { reason }, oversight: Vec::new(), permit: None, audit: AuditWhen::Before, policy_set, made: 0 }
    }
}

impl Authorizer for Engine {
    fn decide(&self, check: &CheckRef<'_>) -> Result<Verdict> {
        let ruling = self.rule(check);
        Ok(Verdict { decision: ruling.decision, oversight: ruling.oversight, policy_set: ruling.policy_set, audit: ruling.audit })
    }
}
