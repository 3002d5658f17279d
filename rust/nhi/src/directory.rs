//! The identities that a process knows: by name, and by the identifiers of their keys.

use crate::delegation::Keys;
use crate::{AgentId, AgentIdentity};
use creto_crypto::KeyId;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// Known identities; filled from the store, asked on every message and every chain.
#[derive(Debug, Default)]
pub struct Directory {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// By the first key of each: nobody proves to hold what a trust domain certifies, so one key may stand in several identities.
    by_key: HashMap<KeyId, Vec<Arc<AgentIdentity>>>,
    by_name: HashMap<AgentId, Vec<Arc<AgentIdentity>>>,
}

impl Known {
    fn by_name(&self, id: &AgentId) -> &[Arc<AgentIdentity>] {
        self.by_name.get(id).map_or(&[], Vec::as_slice)
    }
}

impl Directory {
    /// Takes in an identity that a trust domain admitted; the newest of a name comes first.
    pub fn add(&self, identity: Arc<AgentIdentity>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, first)) = identity.verifying_key.key_ids().next() {
            let same_key = known.by_key.entry(first).or_default();
            same_key.retain(|other| other.id != identity.id || other.verifying_key != identity.verifying_key);
            same_key.push(Arc::clone(&identity));
        }
        let same_name = known.by_name.entry(identity.id.clone()).or_default();
        same_name.retain(|other| other.verifying_key != identity.verifying_key);
        // In front of those of the same second: whoever rotates at once adds the older one first.
        same_name.insert(0, identity);
        same_name.sort_by_key(|identity| std::cmp::Reverse(identity.not_before));
    }

    /// Forgets every identity of a name: it was revoked, or is to be read again.
    pub fn forget(&self, id: &AgentId) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.by_name.remove(id);
        known.by_key.retain(|_, same_key| {
            same_key.retain(|identity| identity.id != *id);
            !same_key.is_empty()
        });
    }

    /// The identity whose signing keys have exactly these identifiers, in the suite's order; of several the one of this name.
    pub fn by_keys(&self, ids: impl Iterator<Item = KeyId> + Clone, name: &AgentId) -> Option<Arc<AgentIdentity>> {
        let known = self.read();
        let candidates = known.by_key.get(&ids.clone().next()?)?;
        let mut exact = candidates.iter().filter(|identity| identity.verifying_key.key_ids().map(|(_, id)| id).eq(ids.clone()));
        exact.clone().find(|identity| identity.id == *name).or_else(|| exact.next()).cloned()
    }

    /// Whether one of its signing keys has this identifier, whoever it is.
    pub fn knows_key(&self, id: &KeyId) -> bool {
        self.read().by_key.contains_key(id)
    }

    /// The newest identity of a name.
    pub fn by_name(&self, id: &AgentId) -> Option<Arc<AgentIdentity>> {
        self.read().by_name(id).first().cloned()
    }

    /// Whether an identity of this directory may sign at a time: it is valid, and no newer one had taken its place.
    pub fn may_sign_at(&self, identity: &AgentIdentity, seconds: u64) -> bool {
        let known = self.read();
        let same_name = known.by_name(&identity.id);
        let at = same_name.iter().position(|other| other.verifying_key == identity.verifying_key);
        at.is_some_and(|at| identity.may_sign_at(seconds, at.checked_sub(1).and_then(|newer| same_name.get(newer)).map(|newer| &**newer)))
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys for Directory {
    fn identities(&self, id: &AgentId) -> Vec<Arc<AgentIdentity>> {
        self.read().by_name(id).to_vec()
    }
}
