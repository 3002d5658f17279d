//! What events add up to, by time and dimensions; exact, and an error where 128 bits do not hold it.

use super::accumulate::Accumulator;
use super::table::{Row, UsageTable};
use crate::quota::Span;
use creto_enablement_common::{Error, Result};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// What is made of the quantities of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// Their sum.
    Sum,
    /// How many events there are.
    Count,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The mean, as a fraction.
    Avg,
    /// The one of the latest event; of two at once, of the one that came later.
    Latest,
    /// How many different quantities there are, or different values of the dimension `of`.
    Unique,
    /// Each quantity times the seconds for which it was the latest, in the bucket: for what is held over time.
    Weighted,
}

impl Aggregate {
    /// By its name in settings.
    ///
    /// # Errors
    /// `InvalidInput` for any other.
    pub fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "sum" => Self::Sum,
            "count" => Self::Count,
            "min" => Self::Min,
            "max" => Self::Max,
            "avg" => Self::Avg,
            "latest" => Self::Latest,
            "unique" => Self::Unique,
            "weighted" => Self::Weighted,
            _ => {
                return Err(Error::invalid(format!(
                    "aggregation `{name}`: write `sum`, `count`, `min`, `max`, `avg`, `latest`, `unique` or `weighted`"
                )));
            }
        })
    }
}

/// Which events, and how they are put together.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// Of this meter only.
    pub meter: &'a str,
    /// What is made of the quantities.
    pub aggregate: Aggregate,
    /// For `Unique`: of which dimension; of quantities where there is none.
    pub of: Option<&'a str>,
    /// From this time on, in microseconds since the epoch.
    pub from: u64,
    /// Before this time.
    pub to: u64,
    /// In windows of this span; in one where there is none.
    pub span: Option<&'a Span>,
    /// Grouped by these dimensions.
    pub by: &'a [&'a str],
    /// Only with these dimensions.
    pub only: &'a [(&'a str, &'a str)],
}

/// A value; a mean has a denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// The value, times `denominator`.
    pub numerator: i128,
    /// 1 but for means and weighted sums.
    pub denominator: u64,
}

/// One window of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Start of the window, in microseconds since the epoch.
    pub start: u64,
    /// Its end.
    pub end: u64,
    /// The values of the dimensions grouped by; empty text where an event has none.
    pub group: Vec<String>,
    /// What the events make.
    pub total: Total,
    /// How many events.
    pub events: u64,
}

impl UsageTable {
    /// The numbers of the rows that a query is about.
    pub fn select(&self, query: &Query<'_>) -> Vec<usize> {
        self.matching(query).map(|(number, _)| number).collect()
    }

    fn matching<'a>(&'a self, query: &Query<'_>) -> impl Iterator<Item = (usize, &'a Row)> {
        let meter = self.texts.find(query.meter);
        let only: Option<Vec<(u32, u32)>> =
            query.only.iter().map(|(name, value)| Some((self.texts.find(name)?, self.texts.find(value)?))).collect();
        // Whether a set of dimensions matches is worked out once a set, not once an event.
        let fits: Vec<bool> = match &only {
            Some(only) => self.sets.iter().map(|set| only.iter().all(|pair| set.contains(pair))).collect(),
            None => Vec::new(),
        };
        let (from, to) = (query.from, query.to);
        self.rows.iter().enumerate().filter(move |(_, row)| {
            Some(row.meter) == meter && (from..to).contains(&row.at) && fits.get(row.dimensions as usize).copied().unwrap_or(false)
        })
    }

    /// Every bucket that has events, by start and group.
    ///
    /// # Errors
    /// `InvalidInput` where a sum needs more than 128 bits.
    pub fn aggregate(&self, query: &Query<'_>) -> Result<Vec<Bucket>> {
        let names: Vec<Option<u32>> = query.by.iter().map(|name| self.texts.find(name)).collect();
        let of = query.of.map(|name| self.texts.find(name));
        let mut groups: HashMap<(u64, u64, Vec<Option<u32>>), Accumulator, RandomState> = HashMap::default();
        let mut window = (0, 0);
        for (number, row) in self.matching(query) {
            if let Some(span) = query.span {
                if !(window.0..window.1).contains(&row.at) {
                    window = span.window(row.at);
                }
            } else {
                window = (query.from, query.to);
            }
            let group = names.iter().map(|name| name.and_then(|name| self.dimension(row, name))).collect();
            let accumulator = groups.entry((window.0, window.1, group)).or_insert_with(|| Accumulator::of(query.aggregate));
            let unique = of.map(|name| name.and_then(|name| self.dimension(row, name)).map_or(-1, i128::from));
            accumulator.take(row.at, number as u128, unique.unwrap_or(row.quantity))?;
        }
        let mut buckets: Vec<Bucket> = groups
            .into_iter()
            .map(|((start, end, group), accumulator)| {
                let group = group.into_iter().map(|value| value.map_or(String::new(), |v| self.texts.text(v).to_owned())).collect();
                let events = accumulator.events;
                Ok(Bucket { start, end, group, total: accumulator.total(query.aggregate, end.min(query.to))?, events })
            })
            .collect::<Result<_>>()?;
        buckets.sort_unstable_by(|one, two| (one.start, &one.group).cmp(&(two.start, &two.group)));
        Ok(buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Event;
    use proptest::prelude::*;

    fn table(events: &[(u64, i128, &str)]) -> UsageTable {
        let mut table = UsageTable::new();
        for (number, (at, quantity, team)) in events.iter().enumerate() {
            let id = number.to_string();
            let event = Event { source: "s", id: &id, meter: "m", quantity: *quantity, at: *at, dimensions: &[("team", team)] };
            assert!(table.add(&event).unwrap());
            assert!(!table.add(&event).unwrap());
        }
        table
    }

    fn query(aggregate: Aggregate) -> Query<'static> {
        Query { meter: "m", aggregate, of: None, from: 0, to: 1_000_000_000, span: None, by: &[], only: &[] }
    }

    #[test]
    fn each_aggregation_by_hand() {
        let table = table(&[(1_000_000, 5, "a"), (3_000_000, 5, "b"), (2_000_000, -1, "a")]);
        let total = |aggregate| table.aggregate(&query(aggregate)).unwrap()[0].total;
        let whole = |numerator| Total { numerator, denominator: 1 };
        assert_eq!(total(Aggregate::Sum), whole(9));
        assert_eq!(total(Aggregate::Count), whole(3));
        assert_eq!(total(Aggregate::Min), whole(-1));
        assert_eq!(total(Aggregate::Max), whole(5));
        assert_eq!(total(Aggregate::Latest), whole(5));
        assert_eq!(total(Aggregate::Unique), whole(2));
        assert_eq!(total(Aggregate::Avg), Total { numerator: 9, denominator: 3 });
        let weighted = Query { to: 5_000_000, ..query(Aggregate::Weighted) };
        assert_eq!(table.aggregate(&weighted).unwrap()[0].total.numerator, 5_000_000 - 1_000_000 + 2 * 5_000_000);
        let teams = Query { of: Some("team"), ..query(Aggregate::Unique) };
        assert_eq!(table.aggregate(&teams).unwrap()[0].total, whole(2));
        assert_eq!(table.duplicates(), 3);
    }

    #[test]
    fn a_sum_beyond_128_bits_is_an_error_and_never_wraps() {
        let table = table(&[(1, i128::MAX, "a"), (2, 1, "a")]);
        assert!(table.aggregate(&query(Aggregate::Sum)).unwrap_err().to_string().contains("more than 128 bits"));
    }

    proptest! {
        #[test]
        fn the_parts_add_up_to_the_whole_over_every_grouping(events in prop::collection::vec((0..400_000_000_u64, -1000..1000_i128, prop::sample::select(vec!["a", "b", "c"])), 0..60), seconds in 1..100_u64) {
            let table = table(&events);
            let span = Span::Fixed(seconds * 1_000_000);
            for aggregate in [Aggregate::Sum, Aggregate::Count] {
                let whole: i128 = table.aggregate(&query(aggregate)).unwrap().iter().map(|b| b.total.numerator).sum();
                for (span, by) in [(Some(&span), vec![]), (None, vec!["team"]), (Some(&span), vec!["team", "none"])] {
                    let parts = table.aggregate(&Query { span, by: &by, ..query(aggregate) }).unwrap();
                    prop_assert_eq!(parts.iter().map(|b| b.total.numerator).sum::<i128>(), whole);
                    prop_assert_eq!(parts.iter().map(|b| b.events).sum::<u64>(), events.len() as u64);
                }
                let only: i128 = ["a", "b", "c"].iter().flat_map(|team| table.aggregate(&Query { only: &[("team", team)], ..query(aggregate) }).unwrap()).map(|b| b.total.numerator).sum();
                prop_assert_eq!(only, whole);
            }
        }
    }
}
