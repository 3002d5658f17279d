//! Usage events in columns, each taken once by its source and id.

use super::batch::Batch;
use super::seen::Seen;
use creto_enablement_common::{Error, Result};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// What was used, of which meter, when, and by whom (dimensions).
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Who says so; ids are unique within a source.
    pub source: &'a str,
    /// Unique within the source.
    pub id: &'a str,
    /// Of what.
    pub meter: &'a str,
    /// How much, in the meter's smallest unit; negative for a correction.
    pub quantity: i128,
    /// When, in microseconds since the epoch.
    pub at: u64,
    /// What it can be grouped and priced by: name and value, each name once.
    pub dimensions: &'a [(&'a str, &'a str)],
}

/// Texts by number.
#[derive(Debug, Default)]
pub(super) struct Texts {
    list: Vec<Box<str>>,
    numbers: HashMap<Box<str>, u32, RandomState>,
}

impl Texts {
    fn number(&mut self, text: &str) -> Result<u32> {
        if let Some(found) = self.numbers.get(text) {
            return Ok(*found);
        }
        let number = u32::try_from(self.list.len()).map_err(|_| Error::invalid("usage has more than 2^32 different texts"))?;
        self.list.push(text.into());
        self.numbers.insert(text.into(), number);
        Ok(number)
    }

    pub(super) fn find(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    pub(super) fn text(&self, number: u32) -> &str {
        self.list.get(number as usize).map_or("", AsRef::as_ref)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) quantity: i128,
    pub(super) at: u64,
    pub(super) meter: u32,
    /// Number of the set of dimensions: few sets, many events.
    pub(super) dimensions: u32,
}

/// Usage events, each once; rows are numbered in the order in which they came.
#[derive(Debug, Default)]
pub struct UsageTable {
    pub(super) texts: Texts,
    pub(super) rows: Vec<Row>,
    pub(super) sets: Vec<Box<[(u32, u32)]>>,
    set_numbers: HashMap<Box<[(u32, u32)]>, u32, RandomState>,
    seen: Seen,
    duplicates: u64,
}

impl UsageTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an event; false where it was taken before.
    ///
    /// # Errors
    /// `InvalidInput` where a name is empty or stands twice.
    pub fn add(&mut self, event: &Event<'_>) -> Result<bool> {
        if event.meter.is_empty() {
            return Err(Error::invalid("a usage event has no meter"));
        }
        if self.seen.has(event.source, event.id) {
            self.duplicates += 1;
            return Ok(false);
        }
        let mut set = Vec::with_capacity(event.dimensions.len());
        for (name, value) in event.dimensions {
            set.push((self.texts.number(name)?, self.texts.number(value)?));
        }
        set.sort_unstable();
        if set.windows(2).any(|pair| matches!(pair, [(one, _), (two, _)] if one == two)) {
            return Err(Error::invalid(format!("a usage event of `{}` has a dimension twice", event.meter)));
        }
        let dimensions = match self.set_numbers.get(set.as_slice()) {
            Some(found) => *found,
            None => {
                let number = u32::try_from(self.sets.len()).map_err(|_| Error::invalid("usage has more than 2^32 sets of dimensions"))?;
                self.sets.push(set.clone().into());
                self.set_numbers.insert(set.into(), number);
                number
            }
        };
        let meter = self.texts.number(event.meter)?;
        self.seen.add(event.source, event.id);
        self.rows.push(Row { quantity: event.quantity, at: event.at, meter, dimensions });
        Ok(true)
    }

    /// True where an event of this source and id was taken.
    pub fn has(&self, source: &str, id: &str) -> bool {
        self.seen.has(source, id)
    }

    /// Takes the events of a batch that are from `start` until before `end`.
    ///
    /// # Errors
    /// `InvalidInput` where there are more texts or dimensions than 32 bits count.
    pub fn add_batch(&mut self, batch: &Batch, start: u64, end: u64) -> Result<()> {
        for row in batch.rows().filter(|row| (start..end).contains(&row.at)) {
            let Some(series) = batch.series.get(row.series as usize) else { continue };
            let mut dimensions: Vec<(&str, &str)> = series.dimensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            dimensions.push(("customer", &series.customer));
            let event = Event {
                source: &series.source,
                id: row.id,
                meter: &series.meter,
                quantity: row.quantity,
                at: row.at,
                dimensions: &dimensions,
            };
            self.add(&event)?;
        }
        Ok(())
    }

    /// How many events were taken.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True where none was.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many were offered again.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// The meters that events name, sorted.
    pub fn meters(&self) -> Vec<&str> {
        let mut numbers: Vec<u32> = self.rows.iter().map(|row| row.meter).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut meters: Vec<&str> = numbers.into_iter().map(|number| self.texts.text(number)).collect();
        meters.sort_unstable();
        meters
    }

    pub(super) fn dimension(&self, row: &Row, name: u32) -> Option<u32> {
        let set = self.sets.get(row.dimensions as usize)?;
        set.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }
}
