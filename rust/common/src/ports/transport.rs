//! The port that carries sealed messages.

use crate::Result;

/// Carries an envelope to a recipient; that it was accepted is no proof that it was delivered.
pub trait Transport: Send + Sync {
    /// Hands over one envelope.
    fn deliver(&self, recipient: &str, message: &[u8; 16], envelope: &[u8]) -> Result<()>;
}
