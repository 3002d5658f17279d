//! What every series adds up to between given times, over many segments, with the commitment to its events: what invoices are made from.
//!
//! Where a group of a segment lies within one interval as a whole, what the segment says of it is taken; else its rows are.

use super::accumulate::Accumulator;
use super::aggregate::{Aggregate, Total};
use super::commitment::{Hash, inclusion, root};
use super::recount::Recount;
use super::seen::Seen;
use super::segment::{Bytes, Group, Segment};
use super::series::Series;
use creto_enablement_common::{Error, ErrorKind, Result};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet};

/// Which events are counted.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// The times between which they are counted, rising: n + 1 times bound n intervals.
    pub cuts: Vec<u64>,
    /// Of these customers only; of all where there is none.
    pub customers: Option<BTreeSet<String>>,
    /// Meters of which each event is kept, for aggregations that need them.
    pub keep: BTreeSet<String>,
    /// Sources whose events may stand in more than one place: of two with one id the first is counted.
    pub checked: BTreeSet<String>,
    /// An event, by source and id, whose way to the commitments is wanted.
    pub trace: Option<(String, String)>,
    /// True to add every row up again, and hold what segments say of themselves against it.
    pub recount: bool,
}

/// Which events a look through segments takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// All of them.
    All,
    /// Those of sources that are not `checked`: several segments can be looked through at once, and joined.
    Unchecked,
    /// The others: of two the first counts, so that all segments are looked through in order.
    Checked,
}

/// One series in one interval.
#[derive(Debug, Default)]
struct Held {
    sum: Accumulator,
    roots: Vec<Hash>,
    /// The root over them, once all are there.
    commitment: Option<Hash>,
}

impl Held {
    fn commitment(&self) -> Hash {
        self.commitment.unwrap_or_else(|| root(&self.roots))
    }
}

/// A line: what its parts add up to, and the commitment to their events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The aggregation's value.
    pub total: Total,
    /// How many events.
    pub events: u64,
    /// The Merkle root over the commitments of its series, in order.
    pub commitment: Hash,
}

/// A series and an interval that has events of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The number of the series.
    pub series: u32,
    /// The number of the interval.
    pub interval: u32,
}

/// A step of a proof: place, size and path within one Merkle tree, whose root is a leaf of the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The leaf's place.
    pub index: u64,
    /// How many leaves.
    pub size: u64,
    /// The hashes that lead to the root.
    pub path: Vec<Hash>,
}

/// Where the traced event was met.
#[derive(Debug)]
struct Trace {
    part: Part,
    root: usize,
    step: Step,
    leaf: Vec<u8>,
}

/// What every series adds up to.
#[derive(Debug, Default)]
pub struct Totals {
    which: Which,
    numbers: HashMap<Box<str>, Option<u32>, RandomState>,
    series: Vec<Series>,
    texts: Vec<Box<str>>,
    /// By number of the series, the intervals that have events, in order.
    held: Vec<Vec<(u32, Held)>>,
    /// The number that was looked for last.
    last: u32,
    /// True where a pass left events of checked sources to another.
    left_out: bool,
    seen: Seen,
    duplicates: u64,
    trace: Option<Trace>,
}

impl Totals {
    /// Nothing yet.
    pub fn new(which: Which) -> Self {
        Self { which, ..Self::default() }
    }

    /// Every series that was met, by number.
    pub fn series(&self) -> &[Series] {
        &self.series
    }

    /// Every series and interval with events.
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        let numbered = self.held.iter().enumerate();
        numbered.flat_map(|(number, held)| held.iter().map(move |(interval, _)| Part { series: number as u32, interval: *interval }))
    }

    /// True where a pass left events of checked sources to another.
    pub const fn left_out(&self) -> bool {
        self.left_out
    }

    fn at(&self, part: Part) -> Option<&Held> {
        let held = self.held.get(part.series as usize)?;
        let place = held.binary_search_by_key(&part.interval, |(interval, _)| *interval).ok()?;
        held.get(place).map(|(_, held)| held)
    }

    /// What is held of a part, nothing at first; `keep` says whether it keeps each event.
    fn at_mut(&mut self, part: Part, keep: bool) -> Result<&mut Held> {
        let held = self.held.get_mut(part.series as usize).ok_or_else(|| Error::internal("a series without a place"))?;
        let place = held.binary_search_by_key(&part.interval, |(interval, _)| *interval).unwrap_or_else(|place| {
            held.insert(place, (part.interval, Held { sum: Accumulator::keeping(keep), ..Held::default() }));
            place
        });
        let (_, held) = held.get_mut(place).ok_or_else(|| Error::internal("an interval without a place"))?;
        held.commitment = None;
        Ok(held)
    }

    /// How many events stood in a second place and were not counted.
    pub const fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// The number of a series that is counted.
    fn number(&mut self, text: &str) -> Result<Option<u32>> {
        // Segments have their series in one order: mostly it is the one after the last.
        let next = self.last.wrapping_add(1);
        if self.texts.get(next as usize).is_some_and(|known| **known == *text) {
            self.last = next;
            return Ok(Some(next));
        }
        if let Some(found) = self.numbers.get(text) {
            self.last = found.unwrap_or(self.last);
            return Ok(*found);
        }
        let series = Series::parse(text).map_err(|error| Error::new(ErrorKind::Integrity).with_source(error))?;
        let counted = self.which.customers.as_ref().is_none_or(|all| all.contains(&series.customer));
        let number = counted.then_some(self.series.len() as u32);
        if let Some(number) = number {
            self.last = number;
            self.series.push(series);
            self.texts.push(text.into());
            self.held.push(Vec::new());
        }
        self.numbers.insert(text.into(), number);
        Ok(number)
    }

    fn interval(&self, at: u64) -> Option<u32> {
        let place = self.which.cuts.partition_point(|cut| *cut <= at);
        (place > 0 && place < self.which.cuts.len()).then(|| place as u32 - 1)
    }

    /// Takes what a segment holds from the record `after` on. Segments come in order: by shard, and by record within one.
    ///
    /// # Errors
    /// `Integrity` where the segment is damaged, `InvalidInput` where a sum needs more than 128 bits.
    pub fn take<B: Bytes>(&mut self, segment: &Segment<B>, shard: u32, after: u64, pass: Pass) -> Result<()> {
        if segment.to <= after {
            return Ok(());
        }
        let mut recount = Recount::new(segment);
        segment.groups(|group| {
            let Some(number) = self.number(group.series)? else { return Ok(()) };
            let series = self.series.get(number as usize);
            let (keep, checked) = series
                .map_or((false, false), |series| (self.which.keep.contains(&series.meter), self.which.checked.contains(&series.source)));
            if pass == Pass::Unchecked && checked {
                self.left_out = true;
                return Ok(());
            }
            if pass == Pass::Checked && !checked {
                return Ok(());
            }
            let traced = self.which.trace.as_ref().zip(series).is_some_and(|((source, _), series)| *source == series.source);
            let (first, last) = (group.earliest, group.sum.latest.0);
            let bounds = self.which.cuts.first().zip(self.which.cuts.last());
            // Duplicates are told apart wherever they are, so that the first is the first also beyond these times.
            if !checked && bounds.is_none_or(|(start, end)| last < *start || first >= *end) {
                return Ok(());
            }
            let interval = self.interval(first).filter(|interval| self.interval(last) == Some(*interval));
            match interval {
                Some(interval) if segment.from >= after && !keep && !checked && !traced => {
                    if self.which.recount {
                        recount.check(group)?;
                    }
                    self.whole(Part { series: number, interval }, shard, group)
                }
                _ => self.by_row(segment, group, number, shard, after, keep, checked),
            }
        })
    }

    /// Takes what another took from segments that follow these, of sources that are not checked.
    ///
    /// # Errors
    /// `InvalidInput` where a sum needs more than 128 bits.
    pub fn join(&mut self, other: Self) -> Result<()> {
        self.left_out |= other.left_out;
        for (text, intervals) in other.texts.iter().zip(other.held) {
            let Some(series) = self.number(text)? else { continue };
            for (interval, held) in intervals {
                let own = self.at_mut(Part { series, interval }, held.sum.keeps())?;
                own.sum.merge(&held.sum)?;
                own.roots.extend(held.roots);
            }
        }
        Ok(())
    }

    /// Works the commitments out, by so many threads: lines find them made.
    pub fn commit(&mut self, threads: usize) {
        let share = self.held.len().div_ceil(threads.max(1)).max(1);
        std::thread::scope(|scope| {
            for run in self.held.chunks_mut(share) {
                scope.spawn(|| run.iter_mut().flatten().for_each(|(_, held)| held.commitment = Some(held.commitment())));
            }
        });
    }

    fn whole(&mut self, part: Part, shard: u32, group: &Group<'_>) -> Result<()> {
        let held = self.at_mut(part, false)?;
        let mut sum = group.sum.clone();
        sum.latest.1 |= u128::from(shard) << 96;
        held.sum.merge(&sum)?;
        held.roots.push(group.root);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one group, and how it is counted")]
    fn by_row<B: Bytes>(
        &mut self,
        segment: &Segment<B>,
        group: &Group<'_>,
        number: u32,
        shard: u32,
        after: u64,
        keep: bool,
        checked: bool,
    ) -> Result<()> {
        let rows = segment.rows(group.first, group.rows)?;
        let Some(leaves) = self.series.get(number as usize).map(Series::leaves) else { return Ok(()) };
        let mut room = Vec::new();
        let mut found: BTreeMap<u32, Vec<Hash>> = BTreeMap::new();
        let source = self.series.get(number as usize).map_or("", |series| series.source.as_str());
        let wanted = self.which.trace.as_ref().filter(|(own, _)| own == source).map(|(_, id)| id.clone());
        let mut traced: Option<(u32, usize, usize)> = None;
        for (row, ((at, place), quantity)) in rows.at.iter().zip(&rows.place).zip(&rows.quantity).enumerate() {
            if checked
                && let (Some(series), Some(id)) = (self.series.get(number as usize), rows.ids.get(row))
                && !self.seen.add(&series.source, id)
            {
                self.duplicates += 1;
                continue;
            }
            let Some(interval) = self.interval(*at).filter(|_| (place >> 32) as u64 >= after) else { continue };
            let held = self.at_mut(Part { series: number, interval }, keep)?;
            held.sum.take(*at, place | u128::from(shard) << 96, *quantity)?;
            let hashes = found.entry(interval).or_default();
            if wanted.is_some() && rows.ids.get(row) == wanted.as_ref() {
                traced = Some((interval, hashes.len(), row));
            }
            hashes.push(rows.hash(row, &leaves, &mut room));
        }
        for (interval, hashes) in found {
            let part = Part { series: number, interval };
            let held = self.at_mut(part, keep)?;
            let before = held.roots.len();
            held.roots.push(root(&hashes));
            if let Some((_, index, row)) = traced.filter(|(own, _, _)| *own == interval)
                && let Some(path) = inclusion(&hashes, index)
            {
                let mut leaf = Vec::new();
                if let (Some(at), Some(id), Some(quantity)) = (rows.at.get(row), rows.ids.get(row), rows.quantity.get(row)) {
                    leaves.write(*at, id, *quantity, &mut leaf);
                }
                let step = Step { index: index as u64, size: hashes.len() as u64, path };
                self.trace = Some(Trace { part, root: before, step, leaf });
            }
        }
        Ok(())
    }

    /// The parts in the order in which a line commits to them: by the text of their series, and by time.
    fn ordered(&self, parts: &[Part]) -> Vec<(&str, Part)> {
        let text = |part: &Part| self.texts.get(part.series as usize).map_or("", AsRef::as_ref);
        let mut parts: Vec<(&str, Part)> = parts.iter().filter(|part| self.at(**part).is_some()).map(|part| (text(part), *part)).collect();
        parts.sort_unstable();
        parts
    }

    /// The traced event's leaf, and its way to the commitment of a line of these parts; none where it is not among them.
    pub fn proof(&self, parts: &[Part]) -> Option<(Vec<u8>, Vec<Step>)> {
        let trace = self.trace.as_ref()?;
        let parts = self.ordered(parts);
        let place = parts.iter().position(|(_, part)| *part == trace.part)?;
        let commitments: Vec<Hash> = parts.iter().filter_map(|(_, part)| Some(self.at(*part)?.commitment())).collect();
        let roots = &self.at(trace.part)?.roots;
        let step =
            |leaves: &[Hash], index: usize| Some(Step { index: index as u64, size: leaves.len() as u64, path: inclusion(leaves, index)? });
        let steps = vec![trace.step.clone(), step(roots, trace.root)?, step(&commitments, place)?];
        Some((trace.leaf.clone(), steps))
    }

    /// What some parts add up to, and the commitment to their events. A sum that is weighted by time ends at `end`: an interval may end
    /// before that for another line's sake.
    ///
    /// # Errors
    /// `InvalidInput` where it is beyond 128 bits.
    pub fn line(&self, parts: &[Part], aggregate: Aggregate, end: u64) -> Result<Line> {
        let parts = self.ordered(parts);
        let mut sum = Accumulator::of(aggregate);
        let mut commitments = Vec::with_capacity(parts.len());
        for (_, part) in &parts {
            let Some(held) = self.at(*part) else { continue };
            if sum.keeps() && !held.sum.keeps() {
                return Err(Error::internal("the events of a meter were not kept that its aggregation needs"));
            }
            sum.merge(&held.sum)?;
            commitments.push(held.commitment());
        }
        Ok(Line { total: sum.total(aggregate, end)?, events: sum.events, commitment: root(&commitments) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::{Batch, SegmentBuilder};
    use proptest::prelude::*;

    const AGGREGATES: [Aggregate; 8] = [
        Aggregate::Sum,
        Aggregate::Count,
        Aggregate::Min,
        Aggregate::Max,
        Aggregate::Avg,
        Aggregate::Latest,
        Aggregate::Unique,
        Aggregate::Weighted,
    ];

    /// Segments of one shard, a record a row, cut where `ends` says.
    fn segments(rows: &[(u8, u64, i32)], ends: &[usize]) -> Vec<Segment<Vec<u8>>> {
        let mut bounds: Vec<usize> = ends.iter().map(|end| end % (rows.len() + 1)).chain([0, rows.len()]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let make = |range: &[usize]| {
            let mut builder = SegmentBuilder::default();
            for (record, (which, at, quantity)) in rows.iter().enumerate().take(range[1]).skip(range[0]) {
                let series = Series::new("s", "acme", "m", &[("team", ["a", "b"][*which as usize % 2])]).unwrap();
                let mut batch = Batch { series: vec![series], ..Batch::default() };
                batch.push(0, *at, i128::from(*quantity), &record.to_string()).unwrap();
                builder.add(record as u64, &batch, &batch.leaf_hashes()).unwrap();
            }
            Segment::open(builder.build(range[0] as u64, range[1] as u64).unwrap()).unwrap()
        };
        bounds.windows(2).map(make).collect()
    }

    fn totals(segments: &[Segment<Vec<u8>>], which: Which, after: u64) -> Totals {
        let mut totals = Totals::new(which);
        for segment in segments {
            totals.take(segment, 0, after, Pass::All).unwrap();
        }
        totals
    }

    proptest! {
        #[test]
        fn however_segments_are_cut_every_aggregation_is_that_of_all_rows(
            rows in prop::collection::vec((0..2_u8, 0..100_u64, any::<i32>()), 1..40),
            ends in prop::collection::vec(0..40_usize, 0..4), cut in 1..100_u64, after in 0..40_u64, recount in any::<bool>(),
        ) {
            let which = |keep: bool| Which { cuts: vec![0, cut, 100], keep: keep.then(|| "m".into()).into_iter().collect(), recount, ..Which::default() };
            let segments = segments(&rows, &ends);
            for aggregate in AGGREGATES {
                let (quick, slow) = (totals(&segments, which(false), after), totals(&segments, which(true), after));
                for interval in [0, 1] {
                    let parts: Vec<Part> = slow.parts().filter(|part| part.interval == interval).collect();
                    let end = [cut, 100][interval as usize];
                    let line = slow.line(&parts, aggregate, end).unwrap();
                    let mut all = Accumulator::of(aggregate);
                    for (record, (_, at, quantity)) in rows.iter().enumerate().skip(after as usize) {
                        if (*at < cut) == (interval == 0) {
                            all.take(*at, (record as u128) << 32, i128::from(*quantity)).unwrap();
                        }
                    }
                    prop_assert_eq!(line.total, all.total(aggregate, end).unwrap());
                    prop_assert_eq!(line.events, all.events);
                    // The quick way, by what segments say of themselves, makes the same, commitment and all.
                    match quick.line(&parts, aggregate, end) {
                        Ok(other) => prop_assert_eq!(other, line),
                        Err(_) => prop_assert!(matches!(aggregate, Aggregate::Unique | Aggregate::Weighted)),
                    }
                }
            }
        }

        #[test]
        fn every_event_leads_to_the_commitment_of_its_line(
            rows in prop::collection::vec((0..2_u8, 0..100_u64, any::<i32>()), 1..20), ends in prop::collection::vec(0..20_usize, 0..4),
            which in any::<prop::sample::Index>(),
        ) {
            let id = which.index(rows.len()).to_string();
            let wanted = Which { cuts: vec![0, 100], trace: Some(("s".into(), id.clone())), ..Which::default() };
            let totals = totals(&segments(&rows, &ends), wanted, 0);
            let parts: Vec<Part> = totals.parts().collect();
            let (leaf, steps) = totals.proof(&parts).unwrap();
            let mut hash = crate::usage::leaf_hash(&leaf);
            let named = format!("\"id\":\"{id}\"");
            prop_assert!(String::from_utf8(leaf).unwrap().contains(&named));
            for step in steps {
                hash = crate::usage::inclusion_root(hash, step.index, step.size, &step.path).unwrap();
            }
            prop_assert_eq!(hash, totals.line(&parts, Aggregate::Sum, 100).unwrap().commitment);
        }

        #[test]
        fn runs_of_segments_looked_through_apart_and_joined_make_what_one_look_makes(
            rows in prop::collection::vec((0..2_u8, 0..100_u64, any::<i32>()), 1..40), ends in prop::collection::vec(0..40_usize, 0..4),
            at in any::<prop::sample::Index>(), cut in 1..100_u64, keep in any::<bool>(), checked in any::<bool>(), again in any::<bool>(),
        ) {
            let names = |wanted: bool, name: &str| wanted.then(|| name.to_owned()).into_iter().collect::<BTreeSet<String>>();
            let which = || Which { cuts: vec![0, cut, 100], keep: names(keep, "m"), checked: names(checked, "s"), recount: true, ..Which::default() };
            let segments = segments(&rows, &ends);
            // A second shard with the same events, where they stand twice.
            let all: Vec<(u32, &Segment<Vec<u8>>)> = (0..=u32::from(again)).flat_map(|shard| segments.iter().map(move |one| (shard, one))).collect();
            let look = |run: &[(u32, &Segment<Vec<u8>>)], mut totals: Totals, pass: Pass| {
                run.iter().for_each(|(shard, segment)| totals.take(segment, *shard, 0, pass).unwrap());
                totals
            };
            let whole = look(&all, Totals::new(which()), Pass::All);
            let (one, two) = all.split_at(at.index(all.len()));
            let mut joined = look(one, Totals::new(which()), Pass::Unchecked);
            joined.join(look(two, Totals::new(which()), Pass::Unchecked)).unwrap();
            prop_assert_eq!(joined.left_out(), checked);
            let mut joined = if joined.left_out() { look(&all, joined, Pass::Checked) } else { joined };
            joined.commit(2);
            prop_assert_eq!(joined.duplicates(), whole.duplicates());
            for aggregate in AGGREGATES {
                for interval in [0, 1] {
                    let of = |totals: &Totals| {
                        let parts: Vec<Part> = totals.parts().filter(|part| part.interval == interval).collect();
                        totals.line(&parts, aggregate, [cut, 100][interval as usize]).ok()
                    };
                    prop_assert_eq!(of(&joined), of(&whole));
                }
            }
        }

        #[test]
        fn what_stands_twice_is_counted_once(rows in prop::collection::vec((0..2_u8, 0..100_u64, 0..9_i32), 1..20)) {
            let segments = segments(&rows, &[]);
            let mut totals = Totals::new(Which { cuts: vec![0, 100], checked: BTreeSet::from(["s".into()]), ..Which::default() });
            totals.take(&segments[0], 0, 0, Pass::All).unwrap();
            totals.take(&segments[0], 1, 0, Pass::All).unwrap();
            let parts: Vec<Part> = totals.parts().collect();
            prop_assert_eq!(totals.line(&parts, Aggregate::Sum, 100).unwrap().total.numerator, rows.iter().map(|row| i128::from(row.2)).sum::<i128>());
            prop_assert_eq!(totals.duplicates(), rows.len() as u64);
        }
    }

    #[test]
    fn a_changed_quantity_is_found_by_counting_again() {
        let rows = [(0, 1, 5), (0, 2, 6)];
        let mut builder = SegmentBuilder::default();
        let mut batch = Batch { series: vec![Series::new("s", "acme", "m", &[]).unwrap()], ..Batch::default() };
        for (_, at, quantity) in rows {
            batch.push(0, at, quantity, &at.to_string()).unwrap();
        }
        builder.add(0, &batch, &batch.leaf_hashes()).unwrap();
        let mut bytes = builder.build(0, 1).unwrap();
        let place = bytes.windows(8).rposition(|bytes| bytes == 5_i64.to_le_bytes()).unwrap();
        bytes[place] = 9;
        let mut totals = Totals::new(Which { cuts: vec![0, 9], recount: true, ..Which::default() });
        let error = totals.take(&Segment::open(bytes).unwrap(), 0, 0, Pass::All).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Integrity);
        assert!(error.to_string().contains("make 15, and the segment says 11"), "{error}");
    }
}
