//! Who an agent is: its name and its public keys, vouched for by the authority of its trust domain.

use crate::{AgentId, CLOCK_SKEW_SECONDS};
use creto_crypto::{KemPublicKey, Suite, VerifyingKey};

/// A non-human identity; one that exists was admitted by a trust domain.
#[derive(Clone, Debug)]
pub struct AgentIdentity {
    /// Its name.
    pub id: AgentId,
    pub(crate) verifying_key: VerifyingKey,
    pub(crate) kem_key: KemPublicKey,
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    pub(crate) certificates: Vec<Vec<u8>>,
}

impl AgentIdentity {
    /// What its signatures verify under.
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.verifying_key
    }

    /// What messages to it are sealed for.
    pub fn kem_key(&self) -> &KemPublicKey {
        &self.kem_key
    }

    /// Which suite its keys belong to.
    pub fn suite(&self) -> Suite {
        self.verifying_key.suite()
    }

    /// Its X.509-SVIDs in DER: one for each signature algorithm, then that of its key-encapsulation key.
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    /// From when to when it may sign and be written to, in seconds since the epoch.
    pub fn validity(&self) -> (u64, u64) {
        (self.not_before, self.not_after)
    }

    /// Whether it may sign at a time, where `newer` has taken its place since: by then it only verifies what it signed before. For the
    /// while that other processes need to notice the rotation, both may.
    pub fn may_sign_at(&self, seconds: u64, newer: Option<&Self>) -> bool {
        // A certificate counts from CLOCK_SKEW_SECONDS before it was made.
        self.is_valid_at(seconds) && newer.is_none_or(|newer| seconds <= newer.not_before.saturating_add(2 * CLOCK_SKEW_SECONDS))
    }

    /// Whether it is valid at a time in seconds since the epoch.
    pub fn is_valid_at(&self, seconds: u64) -> bool {
        (self.not_before..=self.not_after).contains(&seconds)
    }
}
