//! What a human has agreed to, as the gate takes it.

use creto_enablement_common::Digest;
use std::sync::Arc;

/// Grants for one act, already checked and consumed by oversight in the transaction that marks the act as executing.
///
/// The gate does not verify signatures: it asks policy again, and lets through only what these policies asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Digest of the act that was agreed to.
    pub digest: Digest,
    /// The oversight policies whose agreement was given.
    pub policies: Vec<Arc<str>>,
}

impl Grant {
    /// True where every one of `asked` is agreed to.
    pub fn covers(&self, asked: &[Arc<str>]) -> bool {
        asked.iter().all(|policy| self.policies.contains(policy))
    }
}
