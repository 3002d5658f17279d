//! Our answers against cedar-policy's own: decision, determining policies and erring policies of every generated request.
//!
//! `CRETO_DIFFERENTIAL` sets how many requests are tried (50,000 unless set), `CRETO_SEED` where the generator starts. A difference is made
//! smaller while it lasts, and kept under `tests/differences/`; whatever lies there is tried first in every run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod generator;

use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request, Schema};
use creto_authz::{Engine, EntityChange, Sources};
use creto_enablement_common::{CheckRef, Decision as Ours};
use generator::{Asked, Case, Random, SCHEMA, fields};
use std::path::PathBuf;

/// An answer to compare: allowed, determining, erring.
type Answer = (bool, Vec<String>, Vec<String>);

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/differences")
}

fn cedar_answer(set: &PolicySet, entities: &Entities, asked: &Asked, schema: Option<&Schema>) -> Result<Answer, String> {
    let uid = |(kind, id): &(String, String)| -> EntityUid {
        EntityUid::from_type_name_and_id(kind.parse().unwrap(), cedar_policy::EntityId::new(id))
    };
    let context = Context::from_json_value(asked.context.clone(), None).map_err(|e| e.to_string())?;
    let request =
        Request::new(uid(&asked.principal), uid(&asked.action), uid(&asked.resource), context, schema).map_err(|e| e.to_string())?;
    let response = Authorizer::new().is_authorized(&request, set, entities);
    let mut determining: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
    let mut erring: Vec<String> = response
        .diagnostics()
        .errors()
        .map(|error| match error {
            cedar_policy::AuthorizationError::PolicyEvaluationError(error) => error.policy_id().to_string(),
        })
        .collect();
    determining.sort();
    erring.sort();
    Ok((response.decision() == Decision::Allow, determining, erring))
}

fn named((kind, id): &(String, String)) -> String {
    format!("{kind}::\"{}\"", id.escape_debug())
}

fn our_answer(engine: &Engine, asked: &Asked) -> Result<Answer, String> {
    fields(&asked.context, |context| {
        let check = CheckRef { agent: &named(&asked.principal), action: &named(&asked.action), resource: &named(&asked.resource), context };
        let answer = engine.answer(&check).map_err(|e| e.to_string())?;
        let text = |ids: &[std::sync::Arc<str>]| ids.iter().map(ToString::to_string).collect();
        Ok((answer.allowed, text(&answer.determining), text(&answer.erring)))
    })
}

/// Whether what `explain` says of each policy is what the engine did with it.
fn explains(engine: &Engine, asked: &Asked, (allowed, determining, erring): &Answer) -> Result<(), String> {
    let explained = fields(&asked.context, |context| {
        let check = CheckRef { agent: &named(&asked.principal), action: &named(&asked.action), resource: &named(&asked.resource), context };
        engine.explain(&check).map_err(|e| e.to_string())
    })?;
    let ids = |wanted: &dyn Fn(&creto_authz::Explained) -> bool| -> Vec<String> {
        let mut ids: Vec<String> = explained.iter().filter(|e| wanted(e)).map(|e| e.policy.clone()).collect();
        ids.sort();
        ids
    };
    let forbids = ids(&|e| e.forbid && e.holds == Some(true));
    let decided = if forbids.is_empty() { ids(&|e| !e.forbid && e.holds == Some(true)) } else { forbids.clone() };
    let told = (forbids.is_empty() && !decided.is_empty(), decided, ids(&|e| e.holds.is_none()));
    let given = (*allowed, determining.clone(), erring.clone());
    if told == given { Ok(()) } else { Err(format!("explained as {told:?}: {explained:?}")) }
}

/// What the requests compared so far exercised.
#[derive(Default)]
struct Seen {
    compared: usize,
    allowed: usize,
    forbidden: usize,
    erred: usize,
}

impl Seen {
    fn count(&mut self, (allowed, determining, erring): &Answer) {
        self.allowed += usize::from(*allowed);
        self.forbidden += usize::from(!allowed && !determining.is_empty());
        self.erred += usize::from(!erring.is_empty());
    }
}

/// The first difference, in words; none where all answers agree. Counts the requests compared.
fn difference(case: &Case, seen: &mut Seen) -> Option<String> {
    let text = case.policies_text();
    let set: PolicySet = if text.starts_with('{') { PolicySet::from_json_str(&text).ok()? } else { text.parse().ok()? };
    let schema: Option<Schema> = case.with_schema.then(|| SCHEMA.parse().unwrap());
    let engine = Engine::new();
    let entities_text = serde_json::Value::Array(case.entities.clone()).to_string();
    let Ok(entities) = Entities::from_json_str(&entities_text, schema.as_ref()) else { return None };
    let installed = engine.install(&Sources { policies: &text, schema: case.with_schema.then_some(SCHEMA), entities: &entities_text });
    if let Err(error) = installed {
        // Strict validation may refuse a generated set; without a schema there is nothing to refuse.
        return (!case.with_schema).then(|| format!("not installed: {error}"));
    }
    let mut entities = entities;
    for step in 0..=1 {
        for (at, asked) in case.requests.iter().enumerate() {
            seen.compared += 1;
            let (ours, cedars) = (our_answer(&engine, asked), cedar_answer(&set, &entities, asked, None));
            match (&ours, &cedars) {
                (Ok(ours), Ok(cedars)) if ours == cedars => seen.count(cedars),
                (Err(_), Err(_)) => {}
                _ => return Some(format!("step {step}, {asked:?}\n  ours:  {ours:?}\n  cedar: {cedars:?}")),
            }
            // Explaining parses each condition anew and takes long: one request of each set and step.
            if at == 0
                && let Ok(answer) = &ours
                && let Err(why) = explains(&engine, asked, answer)
            {
                return Some(format!("step {step}, {asked:?}\n  ours:  {answer:?}\n  {why}"));
            }
            // With a schema: a request that cedar-policy refuses has to be denied, one that it takes has to be decided as decided above.
            if let Some(schema) = &schema {
                let valid = cedar_answer(&set, &entities, asked, Some(schema));
                let ruling = fields(&asked.context, |context| {
                    engine.rule(&CheckRef {
                        agent: &named(&asked.principal),
                        action: &named(&asked.action),
                        resource: &named(&asked.resource),
                        context,
                    })
                });
                let wanted = match (&valid, &ruling.decision) {
                    (Err(_), Ours::Deny { .. }) => true,
                    (Ok((allowed, _, erring)), decision) => {
                        let forbid_erred =
                            erring.iter().any(|id| set.policy(&id.parse().unwrap()).unwrap().effect() == cedar_policy::Effect::Forbid);
                        (*decision == Ours::Allow) == (*allowed && !forbid_erred)
                            && !matches!(decision, Ours::Deny { reason } if reason.contains("does not fit"))
                    }
                    _ => false,
                };
                if !wanted {
                    return Some(format!("step {step}, {asked:?}\n  ruling: {:?}\n  valid:  {valid:?}", ruling.decision));
                }
            }
        }
        if step == 0 {
            let removed: Vec<(&str, &str)> = case.removed.iter().map(|(kind, id)| (kind.as_str(), id.as_str())).collect();
            let uids =
                removed.iter().map(|(kind, id)| EntityUid::from_type_name_and_id(kind.parse().unwrap(), cedar_policy::EntityId::new(id)));
            entities = entities.remove_entities(uids).ok()?;
            engine.change_entities(EntityChange::Remove(&removed)).unwrap();
            let changed = serde_json::Value::Array(case.changed.clone()).to_string();
            let parsed: Option<Vec<_>> =
                case.changed.iter().map(|e| cedar_policy::Entity::from_json_value(e.clone(), schema.as_ref()).ok()).collect();
            let parsed = parsed?;
            match entities.clone().upsert_entities(parsed, schema.as_ref()) {
                Ok(next) => {
                    if let Err(error) = engine.change_entities(EntityChange::Upsert(&changed)) {
                        return Some(format!("a change that cedar-policy takes is refused: {error}"));
                    }
                    entities = next;
                }
                Err(_) => {
                    if engine.change_entities(EntityChange::Upsert(&changed)).is_ok() {
                        return Some(format!("a change that cedar-policy refuses is taken: {changed}"));
                    }
                    return None;
                }
            }
        }
    }
    None
}

/// The same difference with less in it.
fn shrink(mut case: Case) -> Case {
    let still = |case: &Case| difference(case, &mut Seen::default()).is_some();
    let mut smaller = true;
    while smaller {
        smaller = false;
        for candidate in case.smaller() {
            if still(&candidate) {
                case = candidate;
                smaller = true;
                break;
            }
        }
    }
    case
}

#[test]
fn differences_once_found_stay_mended() {
    let Ok(files) = std::fs::read_dir(folder()) else { return };
    for file in files {
        let path = file.unwrap().path();
        let case: Case = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(difference(&case, &mut Seen::default()), None, "{}", path.display());
    }
}

#[test]
fn every_answer_is_cedars() {
    let wanted: usize = std::env::var("CRETO_DIFFERENTIAL").ok().and_then(|n| n.parse().ok()).unwrap_or(50_000);
    let start: u64 = std::env::var("CRETO_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let (mut seen, mut sets, mut refused) = (Seen::default(), 0, 0);
    for seed in start.. {
        if seen.compared >= wanted {
            break;
        }
        let case = Case::generate(&mut Random::new(seed));
        let before = seen.compared;
        if let Some(found) = difference(&case, &mut seen) {
            let small = shrink(case);
            let _ = std::fs::create_dir_all(folder());
            let path = folder().join(format!("{seed}.json"));
            std::fs::write(&path, serde_json::to_string_pretty(&small).unwrap()).unwrap();
            panic!(
                "seed {seed}: {found}\nmade smaller and kept as {}:\n{}\n{:?}",
                path.display(),
                small.policies_text(),
                difference(&small, &mut Seen::default())
            );
        }
        sets += 1;
        refused += usize::from(seen.compared == before);
        // A million takes minutes: a run says how far it is, so that one that is broken off says how far it came.
        if seen.compared / 100_000 > before / 100_000 {
            println!("{} of {wanted} requests are answered alike", seen.compared);
        }
    }
    // A generator whose sets are mostly refused proves little.
    let Seen { compared, allowed, forbidden, erred } = seen;
    println!("{compared} requests to {sets} sets ({refused} refused): {allowed} allowed, {forbidden} forbidden, {erred} with an error");
    assert!(refused * 2 < sets, "{refused} of {sets} generated sets were refused");
    for count in [allowed, forbidden, erred] {
        assert!(count * 20 > compared, "one kind of answer hardly occurs");
    }
}
