//! How many ancestors a file of entities makes, known before any of them is worked out.
//!
//! Who stands above whom is worked out when entities are taken in, for each entity, and kept. A chain of some thousands is a file of a few hundred
//! kilobytes and takes gigabytes, so it is refused first.

use creto_enablement_common::{Error, Result};
use hashbrown::HashMap;
use serde::Deserialize;
use std::borrow::Cow;

/// Pairs of entity and ancestor that any file may make, and those that each entity may add.
const FREE: usize = 2_000_000;
const EACH: usize = 16;

/// Text that is shorter cannot hold entities enough: one takes at least 40 bytes.
const SHORT: usize = 64 << 10;

#[derive(Deserialize)]
struct Entity<'a> {
    #[serde(borrow)]
    uid: Uid<'a>,
    #[serde(borrow, default)]
    parents: Vec<Uid<'a>>,
}

/// A uid in either of its forms.
#[derive(Deserialize)]
struct Uid<'a> {
    #[serde(borrow, default, rename = "__entity")]
    inner: Option<Name<'a>>,
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Name<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
}

impl<'a> Uid<'a> {
    fn key(self) -> (Cow<'a, str>, Cow<'a, str>) {
        match self.inner {
            Some(Name { kind, id }) => (kind, id),
            None => (self.kind, self.id),
        }
    }
}

/// Refuses entities whose ancestors would be too many to keep. Text that does not read is left to who reads it.
///
/// # Errors
/// `InvalidInput`, with the entity where the bound was passed.
pub fn check(json: &str) -> Result<()> {
    if json.len() < SHORT {
        return Ok(());
    }
    let Ok(entities) = serde_json::from_str::<Vec<Entity<'_>>>(json) else { return Ok(()) };
    let most = FREE + EACH * entities.len();
    let mut numbers: HashMap<(Cow<'_, str>, Cow<'_, str>), usize> = HashMap::new();
    let mut parents: Vec<Vec<usize>> = Vec::new();
    let mut named: Vec<usize> = Vec::new();
    for Entity { uid, parents: above } in entities {
        let mut number = |key| {
            let next = parents.len();
            let number = *numbers.entry(key).or_insert(next);
            if number == next {
                parents.push(Vec::new());
            }
            number
        };
        let child = number(uid.key());
        let above: Vec<usize> = above.into_iter().map(|uid| number(uid.key())).collect();
        if let Some(list) = parents.get_mut(child) {
            list.extend(above);
        }
        named.push(child);
    }
    let mut seen = vec![usize::MAX; parents.len()];
    let mut pairs = 0_usize;
    let mut open = Vec::new();
    for (at, start) in named.iter().enumerate() {
        open.extend(parents.get(*start).into_iter().flatten().copied());
        while let Some(next) = open.pop() {
            let Some(mark) = seen.get_mut(next) else { continue };
            if std::mem::replace(mark, at) == at {
                continue;
            }
            pairs += 1;
            if pairs > most {
                return Err(Error::invalid(format!(
                    "entities: they stand in a hierarchy with more than {most} pairs of entity and ancestor; make it flatter"
                )));
            }
            open.extend(parents.get(next).into_iter().flatten().copied());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: usize) -> String {
        let entities: Vec<String> = (0..length)
            .map(|n| {
                format!(
                    r#"{{"uid": {{"type": "T", "id": "{n}"}}, "attrs": {{}}, "parents": [{{"__entity": {{"type": "T", "id": "{}"}}}}]}}"#,
                    n + 1
                )
            })
            .collect();
        format!("[{}]", entities.join(","))
    }

    #[test]
    fn a_hierarchy_that_would_not_fit_into_memory_is_refused_before_it_is_worked_out() {
        assert!(check(&chain(1_000)).is_ok());
        assert!(check(&chain(20_000)).unwrap_err().to_string().contains("pairs of entity and ancestor; make it flatter"));
        let engine = crate::Engine::new();
        let schema = r#"entity T in [T]; entity Agent; action "a" appliesTo { principal: Agent, resource: T };"#;
        let install = |entities: &str| {
            engine.install(&crate::Sources { policies: "permit (principal, action, resource);", schema: Some(schema), entities })
        };
        assert!(install(&chain(20_000)).unwrap_err().to_string().contains("make it flatter"));
        install(&chain(10)).unwrap();
        let change = engine.change_entities(crate::EntityChange::Upsert(&chain(20_000)));
        assert!(change.unwrap_err().to_string().contains("make it flatter"));
    }

    #[test]
    fn many_entities_under_few_are_not_many_pairs_and_a_circle_ends() {
        let flat: Vec<String> = (0..50_000)
            .map(|n| format!(r#"{{"uid": {{"type": "A", "id": "{n}"}}, "attrs": {{}}, "parents": [{{"type": "T", "id": "{}"}}]}}"#, n % 10))
            .collect();
        assert!(check(&format!("[{}]", flat.join(","))).is_ok());
        assert!(check(&chain(3).replace("\"3\"", "\"0\"")).is_ok());
        assert!(check("{").is_ok());
    }
}
