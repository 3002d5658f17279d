//! The engine: the policy set that serves, swapped whole.
//!
//! Checks read one immutable version, which each thread keeps until there is a newer one behind an atomic pointer, and never wait. Whoever writes (a new set, a changed entity) makes the next
//! version under a lock of its own and puts it in place.

use crate::ancestry;
use crate::answer::{Answer, Ruling};
use crate::changes::Changes;
use crate::entities::Entities;
use crate::explain::{Explained, explain};
use crate::finding::Finding;
use crate::hop::Attenuation;
use crate::limits::{Limits, check_json};
use crate::name::parse_entity;
use crate::party::{Found, Name, Party, Spelled};
use crate::prepared::{Actor, Prepared};
use crate::reads::reads;
use crate::reference;
use crate::roster::{Role, Roster};
use crate::seen::{fresh_number, seen};
use crate::set::Set;
use crate::snapshot::Snapshot;
use crate::source::{Parsed, Sources, as_error, on_large_stack, parse, parse_policies};
use crate::value::Ent;
use crate::view::{NOTHING_INSTALLED, View};
use crate::writer::Writer;
use arc_swap::ArcSwapOption;
use cedar_policy::Entity;
use creto_enablement_common::ports::{Authorizer, Verdict};
use creto_enablement_common::sync::Mutex;
use creto_enablement_common::{CheckRef, Digest, Error, Fields, Result};
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A change to the entities that policies see.
#[derive(Clone, Copy, Debug)]
pub enum EntityChange<'a> {
    /// Entities in Cedar's JSON (an array), added or replaced.
    Upsert(&'a str),
    /// Uids to remove; the schema's own actions stay.
    Remove(&'a [(&'a str, &'a str)]),
}

/// How much a version takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// How many policies serve.
    pub policies: usize,
    /// Bytes of their compiled form, ids apart.
    pub policy_bytes: usize,
    /// How many entities have a number.
    pub entities: usize,
    /// Bytes of their records and of the table of their names; ids and attributes apart.
    pub entity_bytes: usize,
}

/// Decides by the installed policy set; with none installed, everything is denied.
#[derive(Default)]
pub struct Engine {
    current: ArcSwapOption<Snapshot>,
    /// The number of that version, by which a thread knows whether it has seen it; 0 with none.
    number: AtomicU64,
    writer: Mutex<Option<Writer>>,
    /// What was changed since the set was installed, for those who explain.
    changed: Mutex<Changes>,
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
        let mut writer = self.writer.lock();
        let mut parsed = parse(sources, &self.limits).map_err(|found| as_error(&found, sources.policies))?;
        let warnings = std::mem::take(&mut parsed.warnings);
        let digest = parsed.digest;
        let (set, entities, hierarchy) = on_large_stack(|| Set::new(parsed))??;
        let set = Arc::new(set);
        self.publish(&set, &entities);
        *self.changed.lock() = Changes::default();
        *writer = Some(Writer::new(set, entities, hierarchy));
        Ok((digest, warnings))
    }

    fn publish(&self, set: &Arc<Set>, entities: &Entities) {
        let made = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
        self.current.store(Some(Arc::new(Snapshot { set: Arc::clone(set), entities: entities.clone(), made, beside: OnceLock::new() })));
        // After the version itself: who sees the number finds the version.
        self.number.store(fresh_number(), Ordering::Release);
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
                let named = uids.iter().map(|(kind, id)| Ok(((*kind, *id), reference::uid(kind, id)?))).collect::<Result<Vec<_>>>()?;
                // The schema's actions are not entities that come and go: without them a forbid of their group would forbid nothing.
                let declared = |uid: &cedar_policy::EntityUid| {
                    writer.set.parsed.schema.as_ref().is_some_and(|schema| schema.actions().any(|action| action == uid))
                };
                let (uids, names): (Vec<_>, Vec<_>) = named.into_iter().filter(|(_, uid)| !declared(uid)).unzip();
                self.changed.lock().removed(names);
                writer.remove(&uids)
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
        ancestry::check(json)?;
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
            recorded: parsed.recorded.clone(),
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

    /// The ids of the policies that serve, sorted.
    pub fn policy_ids(&self) -> Vec<Arc<str>> {
        let view = self.current.load();
        let Some(snapshot) = &*view else { return Vec::new() };
        (0..snapshot.set.len() as u32).filter_map(|n| snapshot.set.policy(n)).map(|policy| Arc::clone(&policy.id)).collect()
    }

    /// The names of the context that the policies which may apply to the action look at; `*` for the context as a whole.
    ///
    /// # Errors
    /// `InvalidInput` where no set is installed, or the action cannot be read.
    pub fn reads(&self, action: &str) -> Result<Vec<String>> {
        let uid = match parse_entity(action)? {
            Some(name) => reference::uid(name.kind, &name.id)?,
            None => reference::uid("Action", action)?,
        };
        Ok(reads(&*self.parsed()?, &uid).into_iter().collect())
    }

    /// How much the version that serves takes.
    pub fn size(&self) -> Size {
        self.current.load().as_ref().map_or_else(Size::default, |s| Size {
            policies: s.set.len(),
            policy_bytes: s.set.bytes(),
            entities: s.entities.count() as usize,
            entity_bytes: s.entities.bytes(),
        })
    }

    /// The version that serves now, held still.
    #[inline]
    pub fn view(&self) -> Rc<View> {
        seen(self.number.load(Ordering::Acquire), || View(self.current.load_full()))
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
        let snapshot = snapshot.as_ref().ok_or_else(|| Error::invalid(NOTHING_INSTALLED))?;
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
        let snapshot = installed(&view)?;
        let mut buffers = crate::party::Buffers::default();
        let check = CheckRef { agent, action, resource: resource.unwrap_or("?"), context: &[] };
        let principal = snapshot.party(snapshot.principal(agent, &mut buffers.principal)?);
        let action = snapshot.party(snapshot.action(action, &mut buffers.action)?);
        let third = match resource {
            Some(_) => snapshot.party(snapshot.resource(&check, &action, &mut buffers.resource)?),
            None => Party { kind: None, ent: Ent::Named("", ""), record: None },
        };
        let [(p, principal), (a, action), (r, third)] = [principal, action, third].map(|party| Found::of(&party, &snapshot.entities));
        Ok(Prepared {
            epoch: snapshot.set.epoch,
            found: [p, a, r],
            with_resource: resource.is_some(),
            names: Box::new([principal, action, third]),
        })
    }

    /// Looks up a principal.
    ///
    /// # Errors
    /// `InvalidInput` where its name cannot be read.
    pub fn actor(&self, agent: &str) -> Result<Actor> {
        let view = self.current.load();
        let mut buffer = Cow::Borrowed("");
        let Some(snapshot) = &*view else {
            // With nothing installed the name is all there is to know.
            let (kind, id) = match parse_entity(agent)? {
                Some(name) => (name.kind, name.id),
                None => (reference::principal_type(agent), Cow::Borrowed(agent)),
            };
            let found = Found { kind: crate::standing::NONE, number: crate::standing::NONE };
            return Ok(Actor { epoch: 0, found, name: Name { kind: kind.into(), id: (*id).into() } });
        };
        let (found, name) = Found::of(&snapshot.party(snapshot.principal(agent, &mut buffer)?), &snapshot.entities);
        Ok(Actor { epoch: snapshot.set.epoch, found, name })
    }

    /// What is to be done about a prepared act. `resource` names it where it was not prepared.
    pub fn rule_prepared(&self, prepared: &Prepared, resource: Option<&str>, context: Fields<'_>) -> Ruling {
        self.view().rule_prepared(prepared, resource, context)
    }

    /// Looks up many names of one role.
    ///
    /// # Errors
    /// `InvalidInput` where a name cannot be read, or no set is installed.
    pub fn roster(&self, role: Role<'_>, names: &[&str]) -> Result<Roster> {
        let view = self.current.load();
        let snapshot = installed(&view)?;
        let entities = &snapshot.entities;
        let look = |name: &&str| -> Result<(Found, Name)> {
            let mut buffer = Cow::Borrowed("");
            let spelled = match role {
                Role::Resource(kind_name) if parse_entity(name)?.is_none() => Spelled::new(kind_name, name, entities),
                Role::Action => snapshot.action(name, &mut buffer)?,
                Role::Principal | Role::Resource(_) => snapshot.principal(name, &mut buffer)?,
            };
            Ok(Found::of(&snapshot.party(spelled), entities))
        };
        let (found, names) = names.iter().map(look).collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok(Roster { epoch: snapshot.set.epoch, found, names })
    }

    /// Decides many acts without circumstances, each given by the places of its parts in the rosters; answers by `code`, in order, all by one
    /// version. A place outside of its roster is a denial.
    pub fn codes(&self, rosters: [&Roster; 3], places: impl Iterator<Item = [u32; 3]>, answer: impl FnMut(u8)) {
        self.view().codes(rosters, places, answer);
    }

    /// Every policy whose scope fits a request, with its conditions and their values, in cedar-policy's words.
    ///
    /// # Errors
    /// `InvalidInput` where the request cannot be read, or no set is installed.
    pub fn explain(&self, check: &CheckRef<'_>) -> Result<Vec<Explained>> {
        // Entities as they stand now, not as they were installed.
        let parsed = self.parsed()?;
        on_large_stack(|| explain(&parsed, check))?
    }

    /// The installed set with its entities as they stand now.
    pub(crate) fn parsed(&self) -> Result<Arc<Parsed>> {
        let snapshot = self.current.load();
        let snapshot = snapshot.as_ref().ok_or_else(|| Error::invalid(NOTHING_INSTALLED))?;
        let parsed = Arc::clone(&snapshot.set.parsed);
        let changed = self.changed.lock();
        if changed.is_empty() {
            return Ok(parsed);
        }
        let entities = changed.applied_to(parsed.entities.clone())?;
        Ok(Arc::new(Parsed {
            policies: parsed.policies.clone(),
            schema: parsed.schema.clone(),
            open: parsed.open.clone(),
            recorded: parsed.recorded.clone(),
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
            Attenuation::new(policies, epoch, entities).map(Arc::new)
        })?
    }
}

impl Authorizer for Engine {
    fn decide(&self, check: &CheckRef<'_>) -> Result<Verdict> {
        let ruling = self.rule(check);
        Ok(Verdict { decision: ruling.decision, oversight: ruling.oversight, policy_set: ruling.policy_set, audit: ruling.audit })
    }
}

fn installed(view: &Option<Arc<Snapshot>>) -> Result<&Snapshot> {
    view.as_deref().ok_or_else(|| Error::invalid("no policy set is installed; install one before preparing checks"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const TEXT: &str = "permit (principal, action, resource);";
    const CHECK: CheckRef<'_> = CheckRef { agent: "spiffe://t/agent/a", action: "act", resource: "Tool::\"x\"", context: &[] };

    fn install(engine: &Engine) {
        engine.install(&Sources { policies: TEXT, schema: None, entities: "" }).unwrap();
    }

    #[test]
    fn an_old_version_is_freed_once_every_thread_has_checked_again() {
        let engine = Engine::new();
        install(&engine);
        let mut old = Vec::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let ((ask, asked), (answer, answers)) = (channel::<()>(), channel());
                    let engine = &engine;
                    scope.spawn(move || {
                        // As many checks as are asked for, and nothing else, so that what a thread keeps is what a check leaves behind.
                        while asked.recv().is_ok() {
                            answer.send(engine.rule(&CHECK).permit.is_some()).unwrap();
                        }
                    });
                    move || {
                        ask.send(()).unwrap();
                        answers.recv().unwrap()
                    }
                })
                .collect();
            for _ in 0..20 {
                assert!(threads.iter().all(|check| check()));
                old.push(Arc::downgrade(&engine.current.load_full().unwrap()));
                install(&engine);
                assert!(threads.iter().all(|check| check()));
                assert!(old.iter().all(|version| version.strong_count() == 0));
            }
        });
    }

    #[test]
    fn a_version_that_is_held_still_lives_as_long_and_no_longer() {
        let engine = Engine::new();
        install(&engine);
        let view = engine.view();
        let old = Arc::downgrade(&engine.current.load_full().unwrap());
        install(&engine);
        assert!(view.rule(&CHECK).permit.is_some());
        assert!(old.strong_count() > 0);
        drop(view);
        engine.rule(&CHECK);
        assert_eq!(old.strong_count(), 0);
    }

    #[test]
    fn a_check_waits_for_no_writer() {
        let engine = Engine::new();
        install(&engine);
        let writing = engine.writer.lock();
        let changing = engine.changed.lock();
        // On this very thread: a check that wanted either lock would never come back.
        assert!(engine.rule(&CHECK).permit.is_some());
        drop((writing, changing));
    }
}
