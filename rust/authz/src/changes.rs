//! What was changed since a policy set was installed, for those who ask cedar-policy itself about it.

use cedar_policy::{Entity, EntityUid};
use creto_enablement_common::{Error, Result};
use std::collections::HashMap;

/// When an entity was last removed, and its last version with when that was made.
type Last = (Option<u64>, Option<(u64, Entity)>);

/// The last removal and the last version of each entity that changed, in the order in which they were made: as much as there are entities.
#[derive(Default)]
pub struct Changes {
    made: u64,
    of: HashMap<EntityUid, Last>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    pub fn upserted(&mut self, entities: &[Entity]) {
        for entity in entities {
            self.made += 1;
            self.of.entry(entity.uid()).or_default().1 = Some((self.made, entity.clone()));
        }
    }

    pub fn removed(&mut self, uids: Vec<EntityUid>) {
        for uid in uids {
            self.made += 1;
            self.of.insert(uid, (Some(self.made), None));
        }
    }

    /// The entities as they stand after these changes.
    ///
    /// # Errors
    /// `InvalidInput` where cedar-policy refuses a change.
    pub fn applied_to(&self, mut entities: cedar_policy::Entities) -> Result<cedar_policy::Entities> {
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
