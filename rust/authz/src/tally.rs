//! What the policies said to one request.

use crate::value::Erred;
use smallvec::SmallVec;

/// Numbers of policies, each list in no order.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub permits: SmallVec<[u32; 4]>,
    pub forbids: SmallVec<[u32; 4]>,
    pub erring: SmallVec<[u32; 4]>,
}

impl Tally {
    /// The least of the policies that permit, where none forbids or erred: numbers go by the order of the ids.
    #[inline]
    pub fn plain_permit(&self) -> Option<u32> {
        if self.forbids.is_empty() && self.erring.is_empty() { self.permits.iter().copied().min() } else { None }
    }

    /// Notes what a policy that can concern the request said.
    #[inline]
    pub fn add(&mut self, policy: u32, forbid: bool, holds: Result<bool, Erred>) {
        match holds {
            Ok(true) if forbid => self.forbids.push(policy),
            Ok(true) => self.permits.push(policy),
            Ok(false) => {}
            Err(Erred) => self.erring.push(policy),
        }
    }
}

/// Cedar's answer by numbers of policies; `View::policy_id` names them.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// True for Allow.
    pub allowed: bool,
    /// The policies that determine the answer, in no order.
    pub determining: SmallVec<[u32; 4]>,
    /// The policies that erred, in no order.
    pub erring: SmallVec<[u32; 4]>,
}

impl From<Tally> for Outcome {
    #[inline]
    fn from(tally: Tally) -> Self {
        let allowed = tally.forbids.is_empty() && !tally.permits.is_empty();
        Self { allowed, determining: if allowed { tally.permits } else { tally.forbids }, erring: tally.erring }
    }
}
