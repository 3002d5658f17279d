//! Many checks at once: names looked up once, then asked about by their place in a list.

use crate::party::{Found, Name, Party};
use crate::snapshot::Snapshot;

/// Names of one role, looked up beforehand; good whatever is installed later.
#[derive(Clone, Debug)]
pub struct Roster {
    pub(crate) epoch: u64,
    pub(crate) found: Vec<Found>,
    pub(crate) names: Vec<Name>,
}

/// The role that names are looked up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role<'a> {
    /// Agents and approvers.
    Principal,
    /// Actions.
    Action,
    /// Resources; bare ids are of this type.
    Resource(&'a str),
}

impl Roster {
    /// How many names it holds.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The name at a place, as a version knows it.
    #[inline]
    pub(crate) fn party<'a>(&'a self, place: u32, snapshot: &'a Snapshot) -> Option<Party<'a>> {
        let found = self.found.get(place as usize)?;
        Some(found.party(self.epoch == snapshot.set.epoch, || self.names.get(place as usize), &snapshot.entities))
    }

    /// True where it holds none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// One answer of many, as small as can be.
pub mod code {
    /// Denied.
    pub const DENY: u8 = 0;
    /// Allowed.
    pub const ALLOW: u8 = 1;
    /// A human has to agree.
    pub const OVERSIGHT: u8 = 2;
}
