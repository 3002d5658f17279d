//! The port to metering.

use crate::{Result, Timestamp, Usage};
use std::sync::Arc;

/// A reservation that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationId(pub u64);

/// Counts before the act, so that nothing is overspent.
pub trait QuotaEnforcer: Send + Sync {
    /// Says whether `usage` would fit on every quota along `path` (organisation first, agent last), and takes nothing.
    fn check_quota(&self, path: &[&str], usage: Usage<'_>, now: Timestamp) -> Result<()>;
    /// Holds `usage` on every quota along `path`, or on none of them.
    fn reserve(&self, path: &[&str], usage: Usage<'_>, now: Timestamp) -> Result<ReservationId>;
    /// Turns what is held into what was used; a second commit of the same reservation changes nothing.
    fn commit(&self, id: ReservationId, actual: Usage<'_>, now: Timestamp) -> Result<()>;
    /// Gives back what is held.
    fn release(&self, id: ReservationId, now: Timestamp) -> Result<()>;
    /// Looks a path up once, for whoever acts along it again and again.
    fn path(&self, path: &[&str]) -> Result<Arc<dyn QuotaPath>>;
}

/// A path that was looked up; it stays right whatever rules are installed.
pub trait QuotaPath: Send + Sync {
    /// As `QuotaEnforcer::reserve`, along this path.
    fn reserve(&self, usage: Usage<'_>, now: Timestamp) -> Result<ReservationId>;
    /// Turns all that a reservation of this path holds into what was used; a second commit of the same reservation changes nothing.
    fn commit_held(&self, id: ReservationId, now: Timestamp) -> Result<()>;
}
