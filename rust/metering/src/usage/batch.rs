//! A batch of usage events in columns: as it is taken in, as it is kept, and the Merkle root that its record in the ledger holds.

use super::commitment::{Hash, root};
use super::series::{MOST_TEXT, Series};
use creto_enablement_common::{Error, ErrorKind, Result};
use std::collections::HashMap;

const MAGIC: &[u8; 8] = b"CRETOUB1";
/// Quantities are smaller than this, so that 2^31 of them add up within 128 bits.
const QUANTITY: i128 = 1 << 96;
/// Times are before this: JSON numbers hold them exactly.
const LATEST: u64 = 1 << 51;

/// Usage events in columns, in the order in which they were offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// What events have in common; `which` says which one.
    pub series: Vec<Series>,
    /// The number of each event's series.
    pub which: Vec<u32>,
    /// When, in microseconds since the epoch.
    pub at: Vec<u64>,
    /// How much, in the meter's smallest unit; negative for a correction.
    pub quantity: Vec<i128>,
    /// Ids, one after the other.
    pub ids: String,
    /// Where each id ends.
    pub ends: Vec<u32>,
}

/// One event of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The number of its series.
    pub series: u32,
    /// When.
    pub at: u64,
    /// How much.
    pub quantity: i128,
    /// Unique within its source.
    pub id: &'a str,
}

impl Batch {
    /// How many events.
    pub fn len(&self) -> usize {
        self.which.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.which.is_empty()
    }

    /// Adds an event of a series that is there.
    ///
    /// # Errors
    /// `InvalidInput` where the batch holds more than 4 GiB of ids.
    pub fn push(&mut self, series: u32, at: u64, quantity: i128, id: &str) -> Result<()> {
        self.ids.push_str(id);
        let end = u32::try_from(self.ids.len()).map_err(|_| Error::invalid("a batch holds at most 4 GiB of ids"))?;
        self.which.push(series);
        self.at.push(at);
        self.quantity.push(quantity);
        self.ends.push(end);
        Ok(())
    }

    /// Its events, in order.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let ids = starts.zip(&self.ends).map(|(start, end)| self.ids.get(start as usize..*end as usize).unwrap_or_default());
        let columns = self.which.iter().zip(&self.at).zip(&self.quantity);
        columns.zip(ids).map(|(((series, at), quantity), id)| Row { series: *series, at: *at, quantity: *quantity, id })
    }

    /// Checks every event.
    ///
    /// # Errors
    /// `InvalidInput`, naming the first event that is none, or is of a time before `since`.
    pub fn check(&self, since: u64) -> Result<()> {
        let rows = self.len();
        if self.at.len() != rows || self.quantity.len() != rows || self.ends.len() != rows {
            return Err(Error::invalid(format!(
                "columns of different lengths: {rows} series, {} times, {} quantities, {} ids",
                self.at.len(),
                self.quantity.len(),
                self.ends.len()
            )));
        }
        let known = self.series.len() as u32;
        for row in self.rows() {
            let refuse = |what: String| Err(Error::invalid(format!("usage event `{}`: {what}", row.id)));
            // Bytes first: few ids are so long that their characters must be counted.
            if row.id.is_empty() || (row.id.len() > MOST_TEXT && row.id.chars().count() > MOST_TEXT) {
                return refuse(format!("`id` has 1 to {MOST_TEXT} characters"));
            }
            if row.series >= known {
                return refuse(format!("there is no series {}", row.series));
            }
            if row.quantity <= -QUANTITY || row.quantity >= QUANTITY {
                return refuse(format!("quantity {} is too large", row.quantity));
            }
            if !(since..LATEST).contains(&row.at) {
                return refuse(if row.at < since { "its time is closed".into() } else { "its time is none".into() });
            }
        }
        Ok(())
    }

    /// Only these events, by their places, in this order.
    pub fn select(&self, places: &[usize]) -> Self {
        let mut new = Self { series: self.series.clone(), ..Self::default() };
        let rows: Vec<Row<'_>> = self.rows().collect();
        for row in places.iter().filter_map(|place| rows.get(*place)) {
            // Fewer ids than before: they fit.
            let _ = new.push(row.series, row.at, row.quantity, row.id);
        }
        new
    }

    /// The hash of each event's leaf.
    pub fn leaf_hashes(&self) -> Vec<Hash> {
        let leaves: Vec<_> = self.series.iter().map(Series::leaves).collect();
        let mut room = Vec::with_capacity(256);
        self.rows()
            .map(|row| leaves.get(row.series as usize).map_or([0; 32], |leaves| leaves.hash(row.at, row.id, row.quantity, &mut room)))
            .collect()
    }

    /// The Merkle root over its events.
    pub fn root(&self) -> Hash {
        root(&self.leaf_hashes())
    }

    /// The batch as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let narrow: Option<Vec<i64>> = self.quantity.iter().map(|quantity| i64::try_from(*quantity).ok()).collect();
        let mut out = Vec::with_capacity(64 + self.series.len() * 128 + self.len() * 24 + self.ids.len());
        out.extend_from_slice(MAGIC);
        for count in [self.len(), self.series.len(), usize::from(narrow.is_none())] {
            out.extend_from_slice(&(count as u32).to_le_bytes());
        }
        for series in &self.series {
            let text = series.text();
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        self.which.iter().for_each(|which| out.extend_from_slice(&which.to_le_bytes()));
        self.at.iter().for_each(|at| out.extend_from_slice(&at.to_le_bytes()));
        match narrow {
            Some(narrow) => narrow.iter().for_each(|quantity| out.extend_from_slice(&quantity.to_le_bytes())),
            None => self.quantity.iter().for_each(|quantity| out.extend_from_slice(&quantity.to_le_bytes())),
        }
        self.ends.iter().for_each(|end| out.extend_from_slice(&end.to_le_bytes()));
        out.extend_from_slice(self.ids.as_bytes());
        out
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// `Integrity` for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::read(bytes).ok_or_else(|| Error::new(ErrorKind::Integrity).with_context("a batch of usage events is damaged"))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let rows = number(&mut rest)? as usize;
        let count = number(&mut rest)?;
        let wide = number(&mut rest)?;
        let mut series = Vec::new();
        for _ in 0..count {
            let length = number(&mut rest)? as usize;
            series.push(Series::parse(std::str::from_utf8(taken(&mut rest, length)?).ok()?).ok()?);
        }
        let which = column(&mut rest, rows, u32::from_le_bytes)?;
        let at = column(&mut rest, rows, u64::from_le_bytes)?;
        let quantity = match wide {
            0 => column(&mut rest, rows, |bytes| i128::from(i64::from_le_bytes(bytes)))?,
            1 => column(&mut rest, rows, i128::from_le_bytes)?,
            _ => return None,
        };
        let ends = column(&mut rest, rows, u32::from_le_bytes)?;
        let ids = std::str::from_utf8(rest).ok()?.to_owned();
        let mut start = 0;
        for end in &ends {
            ids.get(start as usize..*end as usize)?;
            start = *end;
        }
        let whole = start as usize == ids.len() && which.iter().all(|which| *which < count);
        whole.then_some(Self { series, which, at, quantity, ids, ends })
    }

    /// Gives series that several batches have in common one number each: `numbers` maps old to new.
    pub fn intern(&self, all: &mut Vec<Series>, numbers: &mut HashMap<Series, u32>) -> Vec<u32> {
        self.series
            .iter()
            .map(|series| {
                *numbers.entry(series.clone()).or_insert_with(|| {
                    all.push(series.clone());
                    all.len() as u32 - 1
                })
            })
            .collect()
    }
}

fn taken<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, more) = rest.split_at_checked(length)?;
    *rest = more;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(taken(rest, 4)?.try_into().ok()?))
}

/// A column of numbers of `N` bytes each.
pub(super) fn column<const N: usize, T>(rest: &mut &[u8], rows: usize, read: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let (chunks, _) = taken(rest, rows.checked_mul(N)?)?.as_chunks::<N>();
    Some(chunks.iter().map(|chunk| read(*chunk)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch(rows: &[(u64, i128, String)]) -> Batch {
        let mut made =
            Batch { series: vec![Series::new("s", "c", "m", &[]).unwrap(), Series::new("s", "c", "n", &[]).unwrap()], ..Batch::default() };
        for (place, (at, quantity, id)) in rows.iter().enumerate() {
            made.push(place as u32 % 2, *at, *quantity, id).unwrap();
        }
        made
    }

    #[test]
    fn one_bad_event_is_named() {
        for (at, quantity, id, text) in [
            (1, 0, "", "`id` has 1 to 1024 characters"),
            (1, 1 << 96, "x", "usage event `x`: quantity 79228162514264337593543950336 is too large"),
            (0, 1, "x", "its time is closed"),
            (1 << 51, 1, "x", "its time is none"),
        ] {
            let error = batch(&[(1, 1, "first".into()), (at, quantity, id.into())]).check(1).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        let mut short = batch(&[(1, 1, "x".into())]);
        short.at.clear();
        assert!(short.check(0).unwrap_err().to_string().contains("columns of different lengths"));
    }

    proptest! {
        #[test]
        fn a_batch_is_read_as_it_was_written_and_no_change_of_it_goes_unseen(
            rows in prop::collection::vec((0..1_u64 << 51, prop_oneof![Just(1_i128), any::<i64>().prop_map(i128::from), -(1_i128 << 95)..1 << 95], "[a-z\"é]{1,9}"), 1..20),
            at in any::<prop::sample::Index>(), flip in 1..=255_u8,
        ) {
            let made = batch(&rows);
            let bytes = made.encode();
            prop_assert_eq!(&Batch::decode(&bytes).unwrap(), &made);
            let mut other = bytes.clone();
            *other.get_mut(at.index(bytes.len())).unwrap() ^= flip;
            // Either it is no batch, or it says the same (spaces in a series), or it has another root.
            if let Ok(read) = Batch::decode(&other) {
                prop_assert!(read.root() != made.root() || read.leaf_hashes() == made.leaf_hashes());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut whole = MAGIC.to_vec();
            whole.extend(bytes);
            let _ = Batch::decode(&whole);
        }
    }
}
