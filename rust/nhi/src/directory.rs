//! The identities that a process knows: by name, and by the identifier of each of their keys.

use crate::delegation::Keys;
use crate::{AgentId, AgentIdentity};
use creto_crypto::KeyId;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Known identities; filled from the store, asked on every message and every chain.
#[derive(Debug, Default)]
pub struct Directory {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_key: HashMap<KeyId, Arc<AgentIdentity>>,
    by_name: HashMap<AgentId, Vec<Arc<AgentIdentity>>>,
}

impl Directory {
    /// Takes in an identity that a trust domain admitted; the newest of a name comes first.
    pub fn add(&self, identity: Arc<AgentIdentity>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for (_, id) in identity.verifying_key.key_ids() {
            known.by_key.insert(id, Arc::clone(&identity));
        }
        let same_name = known.by_name.entry(identity.id.clone()).or_default();
        same_name.retain(|other| other.verifying_key != identity.verifying_key);
        same_name.push(identity);
        same_name.sort_by_key(|identity| std::cmp::Reverse(identity.not_before));
    }

    /// Forgets every identity of a name: it was revoked, or is to be read again.
    pub fn forget(&self, id: &AgentId) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.by_name.remove(id);
        known.by_key.retain(|_, identity| identity.id != *id);
    }

    /// The identity that one of whose signing keys has this identifier.
    pub fn by_key(&self, id: &KeyId) -> Option<Arc<AgentIdentity>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).by_key.get(id).cloned()
    }

    /// The newest identity of a name.
    pub fn by_name(&self, id: &AgentId) -> Option<Arc<AgentIdentity>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).by_name.get(id).and_then(|all| all.first().cloned())
    }
}

impl Keys for Directory {
    fn identities(&self, id: &AgentId) -> Vec<Arc<AgentIdentity>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).by_name.get(id).cloned().unwrap_or_default()
    }
}
