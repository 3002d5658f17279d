//! Which record ids were appended lately, so that one offered twice is appended once.

use hashbrown::HashSet;

/// How many ids a generation holds; two are kept.
const GENERATION: usize = 1 << 18;

/// The ids of the last 262,144 to 524,288 records of this process.
#[derive(Default)]
pub struct Ids {
    young: HashSet<[u8; 16]>,
    old: HashSet<[u8; 16]>,
    latest: u64,
    horizon: u64,
}

impl Ids {
    /// Nothing yet; what has a timestamp up to `horizon` may lie on disk from before.
    pub fn new(horizon: u64) -> Self {
        Self { horizon, latest: horizon, ..Self::default() }
    }

    /// Remembers an id; false where it is known.
    pub fn insert(&mut self, id: &[u8; 16], timestamp: u64) -> bool {
        if self.old.contains(id) || !self.young.insert(*id) {
            return false;
        }
        self.latest = self.latest.max(timestamp);
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.horizon = self.latest;
        }
        true
    }

    /// True where a record of this timestamp may have been appended without being remembered here.
    pub const fn may_be_older(&self, timestamp: u64) -> bool {
        timestamp <= self.horizon
    }
}
