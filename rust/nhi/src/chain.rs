//! A delegation chain that was verified, why one was not, and where verified ones are kept.

use crate::AgentId;
use crate::delegation::{Hop, Verification};
use creto_crypto::Provider;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A verified chain takes a few kilobytes; this many are kept.
const CACHED: usize = 4096;

/// Why a chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub(crate) String);

impl Refusal {
    pub(crate) fn at(hop: usize, why: impl fmt::Display) -> Self {
        Self(format!("hop {} of the delegation chain does not hold: {why}", hop + 1))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// The chain of those an agent acts for; one that exists is either direct or was verified.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DelegationChain {
    /// Names along the chain, the delegator first, the acting agent last.
    pub links: Vec<AgentId>,
    pub(crate) attenuations: Vec<(AgentId, String)>,
    pub(crate) digest: [u8; 32],
    pub(crate) expiry: u64,
    pub(crate) depth: u32,
}

impl DelegationChain {
    /// An agent that acts for itself.
    pub fn direct(agent: AgentId) -> Self {
        let digest = Provider::chosen().sha256(&[b"creto direct chain\n", agent.as_str().as_bytes()]);
        Self { links: vec![agent], attenuations: Vec::new(), digest, expiry: u64::MAX, depth: 0 }
    }

    /// Who set each attenuation, and its Cedar text; what the chain allows is what every one allows.
    pub fn attenuations(&self) -> &[(AgentId, String)] {
        &self.attenuations
    }

    /// What names this exact chain: SHA-256 over the signed payload of its last hop, which holds that of the one before it.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Until when the whole chain holds, in seconds since the epoch.
    pub fn expiry(&self) -> u64 {
        self.expiry
    }

    /// How many further hops may follow.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// Whether a chain that was verified in one epoch still holds: nothing was revoked since, and it has not expired.
    pub fn is_current(&self, verified_in: u64, epoch: u64, now: u64) -> bool {
        (verified_in == epoch || self.attenuations.is_empty()) && now < self.expiry
    }

    /// The acting agent.
    pub fn agent(&self) -> Option<&AgentId> {
        self.links.last()
    }
}

/// The epoch in which a chain was verified, and the chain.
type Kept = HashMap<[u8; 32], (u64, Arc<DelegationChain>)>;

/// Verified chains by the digest of their text, so that one is verified once in an epoch.
#[derive(Debug, Default)]
pub struct ChainCache {
    kept: Mutex<Kept>,
}

impl ChainCache {
    /// Verifies a chain, or finds it verified already in this epoch; the epoch moves with every revocation.
    pub fn verify(&self, hops: &[Hop], verification: &Verification<'_>, epoch: u64) -> Result<Arc<DelegationChain>, Refusal> {
        let mut parts: Vec<&[u8]> = vec![verification.audience.as_bytes()];
        parts.extend(hops.iter().flat_map(|hop| [b"\0".as_slice(), hop.0.as_bytes()]));
        let key = Provider::chosen().sha256(&parts);
        let found = self.lock().get(&key).cloned();
        if let Some((then, chain)) = found
            && then == epoch
            && verification.now < chain.expiry
        {
            return Ok(chain);
        }
        let chain = Arc::new(verification.verify(hops)?);
        let mut kept = self.lock();
        if kept.len() >= CACHED {
            kept.retain(|_, (then, chain)| *then == epoch && verification.now < chain.expiry);
            if kept.len() >= CACHED {
                kept.clear();
            }
        }
        kept.insert(key, (epoch, Arc::clone(&chain)));
        Ok(chain)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // A panic while it was held leaves a map that is whole: each change is one call.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
