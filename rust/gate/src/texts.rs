//! What a permit has to remember of its act, in one allocation: action, resource, the policy that let it in, and the meters with what was
//! reserved.

use crate::enter::Act;
use smallvec::SmallVec;

pub(crate) struct Texts {
    /// Action, resource, the policy's id and the names of the meters, one after the other.
    all: String,
    action_end: usize,
    resource_end: usize,
    why_end: usize,
    /// Where each meter's name ends, and its quantity.
    meters: SmallVec<[(usize, u64); 3]>,
}

impl Texts {
    pub(crate) fn of(act: &Act<'_>, why: &str) -> Self {
        let meters = act.usage.iter().map(|(meter, _)| meter.len()).sum::<usize>();
        let mut all = String::with_capacity(act.action.len() + act.resource.len() + why.len() + meters);
        all.push_str(act.action);
        let action_end = all.len();
        all.push_str(act.resource);
        let resource_end = all.len();
        all.push_str(why);
        let why_end = all.len();
        let mut meter = |&(meter, quantity): &(&str, u64)| {
            all.push_str(meter);
            (all.len(), quantity)
        };
        let meters = act.usage.iter().map(&mut meter).collect();
        Self { all, action_end, resource_end, why_end, meters }
    }

    // The places were taken from the text itself; where they are not, the record shows it instead of failing.
    fn part(&self, from: usize, to: usize) -> &str {
        self.all.get(from..to).unwrap_or("?")
    }

    pub(crate) fn action(&self) -> &str {
        self.part(0, self.action_end)
    }

    pub(crate) fn resource(&self) -> &str {
        self.part(self.action_end, self.resource_end)
    }

    pub(crate) fn why(&self) -> &str {
        self.part(self.resource_end, self.why_end)
    }

    pub(crate) fn usage(&self) -> SmallVec<[(&str, u64); 4]> {
        let mut from = self.why_end;
        let named = self.meters.iter().map(|&(end, quantity)| (self.part(std::mem::replace(&mut from, end), end), quantity));
        named.collect()
    }
}
