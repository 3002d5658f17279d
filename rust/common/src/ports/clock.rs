//! The port to time.

use crate::Timestamp;

/// Reads the folder's hybrid logical clock; one act reads it once and hands the reading down.
pub trait Clock: Send + Sync {
    /// A timestamp later than every one given or observed before.
    fn now(&self) -> Timestamp;
    /// Takes over a later timestamp that came from elsewhere.
    fn observe(&self, seen: Timestamp);
}

impl Clock for creto_consensus::HybridLogicalClock {
    fn now(&self) -> Timestamp {
        self.now()
    }

    fn observe(&self, seen: Timestamp) {
        // A timestamp too far ahead is counted by the clock, which raises the alarm; this port has nobody to tell.
        let _ = self.observe(seen);
    }
}
