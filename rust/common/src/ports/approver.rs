//! The port to oversight.

use crate::{Digest, Result};

/// Says whether a human has agreed to an act.
pub trait Approver: Send + Sync {
    /// True where a valid, unused grant for `policy_id` covers the act with this digest.
    fn granted(&self, policy_id: &str, act: &Digest) -> Result<bool>;
}
