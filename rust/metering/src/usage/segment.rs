//! A stretch of a shard's usage, put in order: by series, and by time within one. What it says of each series (sums, the Merkle root over
//! its events) is worked out once, when the stretch is complete; invoices and queries read that, or the columns behind it.
//!
//! A segment is derived: the same records make the same bytes, so one that is lost or damaged is made again.

use super::accumulate::Accumulator;
use super::batch::Batch;
use super::commitment::{Hash, root};
use super::series::{Leaves, Series};
use creto_enablement_common::{Error, ErrorKind, Result};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;

const MAGIC: &[u8; 8] = b"CRETOSG1";
const PREFIX: usize = 8 + 8 + 8 + 4 + 4 + 4 + 8 + 8 + 32;

fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::Integrity).with_context(format!("a segment of usage is damaged ({what}); remove it, and it is made again"))
}

/// Where an event stands: index of its record, and position in that.
fn place(record: u64, position: u32) -> u128 {
    u128::from(record) << 32 | u128::from(position)
}

struct Row {
    series: u32,
    position: u32,
    record: u64,
    at: u64,
    quantity: i128,
    id: (u32, u32),
    hash: Hash,
}

/// Collects the usage of a stretch of records.
#[derive(Default)]
pub struct SegmentBuilder {
    series: Vec<Series>,
    numbers: HashMap<Series, u32>,
    rows: Vec<Row>,
    ids: String,
}

impl SegmentBuilder {
    /// Takes the events of one record; `hashes` are those of its leaves.
    ///
    /// # Errors
    /// `InvalidInput` where the stretch has become too long: 4 GiB of ids.
    pub fn add(&mut self, record: u64, batch: &Batch, hashes: &[Hash]) -> Result<()> {
        let numbers = batch.intern(&mut self.series, &mut self.numbers);
        for (position, (row, hash)) in batch.rows().zip(hashes).enumerate() {
            let start = u32::try_from(self.ids.len()).map_err(|_| Error::invalid("a segment holds at most 4 GiB of ids"))?;
            self.ids.push_str(row.id);
            let series = numbers.get(row.series as usize).copied().unwrap_or_default();
            let id = (start, row.id.len() as u32);
            self.rows.push(Row { series, position: position as u32, record, at: row.at, quantity: row.quantity, id, hash: *hash });
        }
        Ok(())
    }

    /// How many events.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The segment of the records from `from` to before `to`.
    ///
    /// # Errors
    /// `InvalidInput` where a sum needs more than 128 bits.
    pub fn build(mut self, from: u64, to: u64) -> Result<Vec<u8>> {
        let texts: Vec<String> = self.series.iter().map(Series::text).collect();
        let text = |number: u32| texts.get(number as usize).map_or("", String::as_str);
        let mut order: Vec<u32> = (0..texts.len() as u32).collect();
        order.sort_unstable_by_key(|number| text(*number));
        let mut ranks = vec![0_u32; texts.len()];
        for (rank, number) in order.iter().enumerate() {
            if let Some(slot) = ranks.get_mut(*number as usize) {
                *slot = rank as u32;
            }
        }
        for row in &mut self.rows {
            row.series = ranks.get(row.series as usize).copied().unwrap_or_default();
        }
        self.rows.sort_unstable_by_key(|row| (row.series, row.at, row.record, row.position));
        let mut head = Vec::with_capacity(texts.len() * 256);
        let mut groups = 0_u32;
        for group in self.rows.chunk_by(|one, two| one.series == two.series) {
            groups += 1;
            let mut sum = Accumulator::default();
            for row in group {
                sum.take(row.at, place(row.record, row.position), row.quantity)?;
            }
            let hashes: Vec<Hash> = group.iter().map(|row| row.hash).collect();
            let name = group.first().and_then(|row| order.get(row.series as usize)).map_or("", |number| text(*number));
            head.extend_from_slice(&(name.len() as u32).to_le_bytes());
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(&(group.len() as u32).to_le_bytes());
            for value in [sum.sum, sum.least, sum.greatest, sum.latest.2] {
                head.extend_from_slice(&value.to_le_bytes());
            }
            head.extend_from_slice(&sum.latest.1.to_le_bytes());
            for at in [group.first().map_or(0, |row| row.at), sum.latest.0] {
                head.extend_from_slice(&at.to_le_bytes());
            }
            head.extend_from_slice(&root(&hashes));
        }
        let rows = u32::try_from(self.rows.len()).map_err(|_| Error::invalid("a segment holds fewer than 2^32 events"))?;
        let wide = self.rows.iter().any(|row| i64::try_from(row.quantity).is_err());
        let mut out = Vec::with_capacity(PREFIX + head.len() + self.rows.len() * 48 + self.ids.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&from.to_le_bytes());
        out.extend_from_slice(&to.to_le_bytes());
        for count in [rows, groups, u32::from(wide)] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        out.extend_from_slice(&(head.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.ids.len() as u64).to_le_bytes());
        out.extend_from_slice(&Sha256::new().chain_update(&out).chain_update(&head).finalize());
        out.extend_from_slice(&head);
        let mut ids = Vec::with_capacity(self.ids.len());
        let mut ends = Vec::with_capacity(self.rows.len() * 4);
        for row in &self.rows {
            let (start, length) = (row.id.0 as usize, row.id.1 as usize);
            ids.extend_from_slice(self.ids.as_bytes().get(start..start + length).unwrap_or_default());
            ends.extend_from_slice(&(ids.len() as u32).to_le_bytes());
        }
        self.rows.iter().for_each(|row| out.extend_from_slice(&row.at.to_le_bytes()));
        if wide {
            self.rows.iter().for_each(|row| out.extend_from_slice(&row.quantity.to_le_bytes()));
        } else {
            self.rows.iter().for_each(|row| out.extend_from_slice(&(row.quantity as i64).to_le_bytes()));
        }
        self.rows.iter().for_each(|row| out.extend_from_slice(&row.record.to_le_bytes()));
        self.rows.iter().for_each(|row| out.extend_from_slice(&row.position.to_le_bytes()));
        out.extend_from_slice(&ends);
        out.extend_from_slice(&ids);
        Ok(out)
    }
}

/// Where the bytes of a segment are.
pub trait Bytes {
    /// Fills a room with the bytes from an offset on.
    ///
    /// # Errors
    /// Those of the file system, or `UnexpectedEof`.
    fn fill(&self, offset: u64, room: &mut [u8]) -> std::io::Result<()>;

    /// So many bytes from an offset on.
    ///
    /// # Errors
    /// Those of the file system, or `UnexpectedEof`.
    fn part(&self, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.fill(offset, &mut bytes)?;
        Ok(bytes)
    }
}

impl Bytes for Vec<u8> {
    fn fill(&self, offset: u64, room: &mut [u8]) -> std::io::Result<()> {
        let end = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(room.len())?));
        let bytes = end.and_then(|range| self.get(range)).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        room.copy_from_slice(bytes);
        Ok(())
    }
}

impl Bytes for std::fs::File {
    fn fill(&self, offset: u64, room: &mut [u8]) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, room, offset)
    }
}

/// What a segment says of one series.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// The series as text.
    pub series: &'a str,
    /// Its first row.
    pub first: u32,
    /// How many rows.
    pub rows: u32,
    /// The time of its earliest event.
    pub earliest: u64,
    /// What they add up to.
    pub sum: Accumulator,
    /// The Merkle root over their leaves, in order of time and place.
    pub root: Hash,
}

/// Rows of one group.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// When.
    pub at: Vec<u64>,
    /// How much.
    pub quantity: Vec<i128>,
    /// Where in the ledger: record and position.
    pub place: Vec<u128>,
    /// Ids.
    pub ids: Vec<String>,
}

impl Rows {
    /// The hash of a row's leaf.
    pub fn hash(&self, row: usize, leaves: &Leaves, room: &mut Vec<u8>) -> Hash {
        match (self.at.get(row), self.ids.get(row), self.quantity.get(row)) {
            (Some(at), Some(id), Some(quantity)) => leaves.hash(*at, id, *quantity, room),
            _ => [0; 32],
        }
    }
}

/// A segment for reading.
pub struct Segment<B> {
    bytes: B,
    /// The first record of the stretch.
    pub from: u64,
    /// The record after its last.
    pub to: u64,
    /// How many events.
    pub rows: u32,
    head: Vec<u8>,
    wide: bool,
    series: u32,
    columns: u64,
    ids: u64,
}

impl<B: Bytes> Segment<B> {
    /// Reads what it says of its series.
    ///
    /// # Errors
    /// `Integrity` where it is damaged.
    pub fn open(bytes: B) -> Result<Self> {
        let prefix = bytes.part(0, PREFIX).map_err(|_| damaged("it is too short"))?;
        let (start, digest) = prefix.split_at_checked(PREFIX - 32).ok_or_else(|| damaged("it is too short"))?;
        let rest = start.strip_prefix(MAGIC).ok_or_else(|| damaged("it does not begin as one"))?;
        let mut at = 0_usize;
        let mut number = |width: usize| {
            let value = rest.get(at..at + width).unwrap_or_default().iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
            at += width;
            value
        };
        let (from, to) = (number(8), number(8));
        let (rows, series, wide) = (number(4) as u32, number(4) as u32, number(4) == 1);
        let (length, ids) = (number(8), number(8));
        let head = usize::try_from(length).ok().filter(|length| *length < 1 << 32).ok_or_else(|| damaged("its head is too long"))?;
        let head = bytes.part(PREFIX as u64, head).map_err(|_| damaged("it is too short"))?;
        if Sha256::new().chain_update(start).chain_update(&head).finalize().as_slice() != digest {
            return Err(damaged("its head was changed"));
        }
        Ok(Self { bytes, from, to, rows, head, wide, series, columns: PREFIX as u64 + length, ids })
    }

    /// What it says of each series, in order.
    ///
    /// # Errors
    /// `Integrity` where it is damaged, or what `each` returned.
    pub fn groups(&self, mut each: impl FnMut(&Group<'_>) -> Result<()>) -> Result<()> {
        let mut rest = self.head.as_slice();
        let mut first = 0_u32;
        for _ in 0..self.series {
            let group = group(&mut rest, first).ok_or_else(|| damaged("its head is malformed"))?;
            first = first.checked_add(group.rows).filter(|first| *first <= self.rows).ok_or_else(|| damaged("its rows do not add up"))?;
            each(&group)?;
        }
        if rest.is_empty() && first == self.rows { Ok(()) } else { Err(damaged("its rows do not add up")) }
    }

    fn column<const N: usize, T>(&self, before: u64, first: u32, rows: u32, read: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
        let offset = self.columns + u64::from(self.rows) * before + u64::from(first) * N as u64;
        let bytes = self.bytes.part(offset, rows as usize * N).map_err(|_| damaged("a column is too short"))?;
        let mut rest = bytes.as_slice();
        super::batch::column(&mut rest, rows as usize, read).ok_or_else(|| damaged("a column is too short"))
    }

    /// Bytes of a quantity.
    pub(super) const fn quantity_width(&self) -> u64 {
        if self.wide { 16 } else { 8 }
    }

    /// The quantities of so many rows, as they lie there.
    pub(super) fn quantity_bytes(&self, first: u32, rows: u32, room: &mut Vec<u8>) -> Result<()> {
        let width = self.quantity_width();
        room.resize(rows as usize * width as usize, 0);
        let offset = self.columns + u64::from(self.rows) * 8 + u64::from(first) * width;
        self.bytes.fill(offset, room).map_err(|_| damaged("a column is too short"))
    }

    /// When events of so many rows were.
    ///
    /// # Errors
    /// `Integrity` where it is damaged.
    pub fn times(&self, first: u32, rows: u32) -> Result<Vec<u64>> {
        self.column(0, first, rows, u64::from_le_bytes)
    }

    /// The quantities of so many rows.
    ///
    /// # Errors
    /// `Integrity` where it is damaged.
    pub fn quantities(&self, first: u32, rows: u32) -> Result<Vec<i128>> {
        if self.wide {
            return self.column(8, first, rows, i128::from_le_bytes);
        }
        self.column(8, first, rows, |bytes| i128::from(i64::from_le_bytes(bytes)))
    }

    /// All that it says of so many rows.
    ///
    /// # Errors
    /// `Integrity` where it is damaged.
    pub fn rows(&self, first: u32, rows: u32) -> Result<Rows> {
        let after = 8 + self.quantity_width();
        let records = self.column(after, first, rows, u64::from_le_bytes)?;
        let positions = self.column(after + 8, first, rows, u32::from_le_bytes)?;
        let ends_from = first.saturating_sub(1);
        let mut ends = self.column(after + 12, ends_from, rows + (first - ends_from), u32::from_le_bytes)?;
        let start = if first == 0 { 0 } else { ends.remove(0) };
        let last = ends.last().copied().unwrap_or(start);
        if u64::from(last) > self.ids || last < start {
            return Err(damaged("its ids do not add up"));
        }
        let offset = self.columns + u64::from(self.rows) * (after + 16) + u64::from(start);
        let bytes = self.bytes.part(offset, (last - start) as usize).map_err(|_| damaged("its ids are too short"))?;
        let mut from = start;
        let ids = ends.iter().map(|end| {
            let id = bytes.get((from - start) as usize..end.checked_sub(start)? as usize)?;
            from = *end;
            String::from_utf8(id.to_vec()).ok()
        });
        let ids: Vec<String> = ids.collect::<Option<_>>().ok_or_else(|| damaged("an id is no text"))?;
        Ok(Rows {
            at: self.times(first, rows)?,
            quantity: self.quantities(first, rows)?,
            place: records.iter().zip(&positions).map(|(record, position)| place(*record, *position)).collect(),
            ids,
        })
    }
}

fn group<'a>(rest: &mut &'a [u8], first: u32) -> Option<Group<'a>> {
    fn taken<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
        let (taken, more) = rest.split_at_checked(length)?;
        *rest = more;
        Some(taken)
    }
    let length = u32::from_le_bytes(taken(rest, 4)?.try_into().ok()?);
    let series = std::str::from_utf8(taken(rest, length as usize)?).ok()?;
    let rows = u32::from_le_bytes(taken(rest, 4)?.try_into().ok()?);
    let mut wide = || Some(i128::from_le_bytes(taken(rest, 16)?.try_into().ok()?));
    let (sum, least, greatest, latest, place) = (wide()?, wide()?, wide()?, wide()?, wide()? as u128);
    let earliest = u64::from_le_bytes(taken(rest, 8)?.try_into().ok()?);
    let at = u64::from_le_bytes(taken(rest, 8)?.try_into().ok()?);
    let root: Hash = taken(rest, 32)?.try_into().ok()?;
    let mut all = Accumulator::default();
    (all.events, all.sum, all.least, all.greatest, all.latest) = (u64::from(rows), sum, least, greatest, (at, place, latest));
    Some(Group { series, first, rows, earliest, sum: all, root })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::inclusion_root;
    use proptest::prelude::*;

    fn batches(rows: &[(u8, u64, i128)]) -> Vec<Batch> {
        let series: Vec<Series> = ["a", "b", "c"].iter().map(|team| Series::new("s", "acme", "m", &[("team", team)]).unwrap()).collect();
        let mut all = Vec::new();
        for (number, chunk) in rows.chunks(7).enumerate() {
            let mut batch = Batch { series: series.clone(), ..Batch::default() };
            for (place, (which, at, quantity)) in chunk.iter().enumerate() {
                batch.push(u32::from(which % 3), *at, *quantity, &format!("{number}/{place}")).unwrap();
            }
            all.push(batch);
        }
        all
    }

    fn built(batches: &[Batch]) -> Vec<u8> {
        let mut builder = SegmentBuilder::default();
        for (record, batch) in batches.iter().enumerate() {
            builder.add(record as u64, batch, &batch.leaf_hashes()).unwrap();
        }
        builder.build(0, batches.len() as u64).unwrap()
    }

    proptest! {
        #[test]
        fn what_a_segment_says_of_a_series_is_what_its_rows_make(
            rows in prop::collection::vec((0..3_u8, 0..50_u64, prop_oneof![any::<i32>().prop_map(i128::from), -(1_i128 << 90)..1 << 90]), 0..60)
        ) {
            let batches = batches(&rows);
            let segment = Segment::open(built(&batches)).unwrap();
            let mut events = 0;
            segment.groups(|group| {
                let read = segment.rows(group.first, group.rows)?;
                let leaves = Series::parse(group.series)?.leaves();
                let mut room = Vec::new();
                let hashes: Vec<Hash> = (0..read.at.len()).map(|row| read.hash(row, &leaves, &mut room)).collect();
                assert_eq!(root(&hashes), group.root);
                assert_eq!(inclusion_root(hashes[0], 0, hashes.len() as u64, &crate::usage::inclusion(&hashes, 0).unwrap()), Some(group.root));
                assert_eq!(read.quantity.iter().sum::<i128>(), group.sum.sum);
                assert_eq!(read.quantity.iter().max(), Some(&group.sum.greatest));
                assert_eq!(read.quantity.last(), Some(&group.sum.latest.2));
                assert!(read.at.is_sorted() && read.at.first() == Some(&group.earliest));
                events += read.at.len();
                Ok(())
            }).unwrap();
            prop_assert_eq!(events, rows.len());
        }

        #[test]
        fn no_change_of_a_segments_head_goes_unseen(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
            let bytes = built(&batches(&[(0, 1, 1), (1, 2, 2), (2, 3, 3)]));
            let head = Segment::open(bytes.clone()).unwrap().columns as usize;
            let mut other = bytes;
            let place = at.index(head);
            other[place] ^= flip;
            prop_assert!(Segment::open(other).is_err_and(|error| *error.kind() == ErrorKind::Integrity));
        }
    }
}
