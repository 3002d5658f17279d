//! What events add up to, one by one or a whole group at once; exact, and an error where 128 bits do not hold it.

use super::aggregate::{Aggregate, Total};
use creto_enablement_common::{Error, Result};
use std::collections::HashSet;

/// What was taken: enough for every aggregation but those that need each event, which are kept where that is asked for.
#[derive(Clone, Debug, Default)]
pub struct Accumulator {
    /// How many events.
    pub events: u64,
    /// Their sum.
    pub sum: i128,
    /// The least quantity.
    pub least: i128,
    /// The greatest.
    pub greatest: i128,
    /// Time, place and quantity of the latest.
    pub latest: (u64, u128, i128),
    /// Time, place and quantity of each, where they are kept.
    rows: Option<Vec<(u64, u128, i128)>>,
}

impl Accumulator {
    /// One that can give this aggregation.
    pub fn of(aggregate: Aggregate) -> Self {
        Self::keeping(matches!(aggregate, Aggregate::Unique | Aggregate::Weighted))
    }

    /// One that keeps each event, or none.
    pub fn keeping(keep: bool) -> Self {
        Self { rows: keep.then(Vec::new), ..Self::default() }
    }

    /// True where it keeps each event.
    pub const fn keeps(&self) -> bool {
        self.rows.is_some()
    }

    /// Takes an event; of two at the same time the one with the greater place is the later.
    ///
    /// # Errors
    /// `InvalidInput` where the sum needs more than 128 bits.
    pub fn take(&mut self, at: u64, place: u128, quantity: i128) -> Result<()> {
        let one = Self { events: 1, sum: quantity, least: quantity, greatest: quantity, latest: (at, place, quantity), rows: None };
        self.merge(&one)?;
        if let Some(rows) = &mut self.rows {
            rows.push((at, place, quantity));
        }
        Ok(())
    }

    /// Takes all that another took; events that it kept too.
    ///
    /// # Errors
    /// `InvalidInput` where the sum needs more than 128 bits.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if other.events == 0 {
            return Ok(());
        }
        let first = self.events == 0;
        self.events += other.events;
        self.sum = self.sum.checked_add(other.sum).ok_or_else(too_large)?;
        self.least = if first { other.least } else { self.least.min(other.least) };
        self.greatest = if first { other.greatest } else { self.greatest.max(other.greatest) };
        let (at, place, _) = self.latest;
        if first || (other.latest.0, other.latest.1) > (at, place) {
            self.latest = other.latest;
        }
        if let (Some(rows), Some(others)) = (&mut self.rows, &other.rows) {
            rows.extend_from_slice(others);
        }
        Ok(())
    }

    /// The value of an aggregation; of none where no event was taken, 0. `end` is where the time of a weighted sum ends.
    ///
    /// # Errors
    /// `InvalidInput` where a weighted sum needs more than 128 bits.
    pub fn total(&self, aggregate: Aggregate, end: u64) -> Result<Total> {
        let whole = |numerator| Ok(Total { numerator, denominator: 1 });
        let rows = self.rows.as_deref().unwrap_or_default();
        match aggregate {
            Aggregate::Sum => whole(self.sum),
            Aggregate::Count => whole(i128::from(self.events)),
            Aggregate::Min => whole(self.least),
            Aggregate::Max => whole(self.greatest),
            Aggregate::Avg => Ok(Total { numerator: self.sum, denominator: self.events.max(1) }),
            Aggregate::Latest => whole(self.latest.2),
            Aggregate::Unique => whole(rows.iter().map(|(_, _, quantity)| *quantity).collect::<HashSet<i128>>().len() as i128),
            Aggregate::Weighted => weighted(rows, end),
        }
    }
}

/// Each quantity times the microseconds until the next, in seconds.
fn weighted(rows: &[(u64, u128, i128)], end: u64) -> Result<Total> {
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    let ends = rows.iter().skip(1).map(|(at, _, _)| *at).chain([end]);
    let mut sum = 0_i128;
    for ((at, _, quantity), until) in rows.iter().zip(ends) {
        let part = quantity.checked_mul(i128::from(until.saturating_sub(*at))).ok_or_else(too_large)?;
        sum = sum.checked_add(part).ok_or_else(too_large)?;
    }
    Ok(Total { numerator: sum, denominator: 1_000_000 })
}

pub(super) fn too_large() -> Error {
    Error::invalid("the quantities add up to more than 128 bits hold")
}
