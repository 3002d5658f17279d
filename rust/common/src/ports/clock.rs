//! The port to time.

use crate::Timestamp;

/// Reads the folder's hybrid logical clock; one act reads it once and hands the reading down.
pub trait Clock: Send + Sync {
    /// A timestamp later than every one given or observed before.
    fn now(&self) -> Timestamp;
    /// Takes over a later timestamp that came from elsewhere.
    fn observe(&self, seen: Timestamp);
}
