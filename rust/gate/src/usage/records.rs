//! Usage as the ledger's records hold it: one event for each meter of an act that ended, and batches of events of others.

use creto_audit::disk::{Disk, Machine};
use creto_audit::encoding::{self, Field};
use creto_audit::{BatchPlace, Shard, read_batch};
use creto_enablement_common::{Digest, Error, ErrorKind, RecordKind, Result};
use creto_metering::usage::{Batch, Hash, Series, root};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What records of batches say in `what`.
pub const BATCH: &str = "usage:batch";
/// The detail that tells where a batch lies.
pub(super) const PLACE: &str = "batch";
/// The source of what acts used.
pub(super) const LEDGER: &str = "ledger";
const UNKNOWN: &str = "unassigned";
/// Details that say what other fields say.
const TOLD: [&str; 4] = ["path", "agent", "action", "team"];

/// The usage of one record, with the hashes of its leaves.
pub struct Reading {
    /// The record's index.
    pub record: u64,
    /// Its events.
    pub events: Batch,
    /// The hashes of their leaves.
    pub hashes: Vec<Hash>,
}

/// Calls `each` with the usage of the records of a shard from `from` on, in order; returns the index after the last that was read.
///
/// `until` ends the reading; without it all that is on disk is read, also what no checkpoint covers yet.
///
/// # Errors
/// `Integrity` where a record or a batch is damaged, or what `each` returned.
pub fn each_usage(ledger: &Path, shard: &str, from: u64, until: Option<u64>, mut each: impl FnMut(Reading) -> Result<()>) -> Result<u64> {
    let disk: Arc<dyn Disk> = Arc::new(Machine);
    let path = ledger.join(shard);
    let shard = Shard::open(Arc::clone(&disk), &path);
    let mut take = |index: u64, entry: &[u8]| match usage_of(&*disk, &path, index, entry)? {
        Some(reading) => each(reading),
        None => Ok(()),
    };
    let mut next = from;
    loop {
        let size = shard.checkpoint()?.map_or(0, |(_, checkpoint)| checkpoint.size);
        let end = until.unwrap_or(size).min(size);
        if next < end {
            shard.at(size).each_entry(next, end, &mut take)?;
            next = end;
        }
        if let Some(until) = until {
            return if next >= until { Ok(next) } else { Err(not_covered(&shard, until, size)) };
        }
        let (mut gap, mut failed) = (false, Ok(()));
        shard.tail(next, |index, entry| {
            if failed.is_ok() && index == next {
                failed = take(index, entry);
                next += 1;
            } else {
                // Since the checkpoint was read, what follows it has become tiles: look again.
                gap |= index > next;
            }
        })?;
        failed?;
        if !gap {
            return Ok(next);
        }
    }
}

fn not_covered(shard: &Shard, until: u64, size: u64) -> Error {
    Error::new(ErrorKind::Integrity).with_context(format!(
        "record {} of shard `{}` is not covered by its checkpoint of {size}",
        until.saturating_sub(1),
        shard.name()
    ))
}

/// What the act used whose outcome an entry of the ledger is; none where it is something else.
///
/// # Errors
/// `InvalidInput` where the bytes are no record.
pub fn act_usage(entry: &[u8]) -> Result<Option<Batch>> {
    let met = Met::of(entry)?;
    if met.outcome && !met.usage.is_empty() { act(&met).map(Some) } else { Ok(None) }
}

#[derive(Default)]
struct Met<'a> {
    who: &'a str,
    what: &'a str,
    resource: &'a str,
    at: u64,
    act: [u8; 16],
    outcome: bool,
    event: bool,
    digest: Option<Digest>,
    usage: Vec<(&'a str, u64)>,
    detail: Vec<(&'a str, &'a str)>,
}

impl<'a> Met<'a> {
    fn of(entry: &'a [u8]) -> Result<Self> {
        let mut met = Self::default();
        encoding::walk(entry, |field| match field {
            Field::Who(text) => met.who = text,
            Field::What(text) => met.what = text,
            Field::Resource(text) => met.resource = text,
            Field::Timestamp(at) => met.at = at.micros(),
            Field::Act(act) => met.act = act,
            Field::Kind(kind) => (met.outcome, met.event) = (kind == RecordKind::Outcome, kind == RecordKind::Event),
            Field::Digest(digest) => met.digest = Some(digest),
            Field::Usage(meter, quantity) => met.usage.push((meter, quantity)),
            Field::Detail(name, value) => met.detail.push((name, value)),
            _ => {}
        })?;
        Ok(met)
    }
}

/// The usage that a record holds; none where it holds none.
fn usage_of(disk: &dyn Disk, shard: &Path, record: u64, entry: &[u8]) -> Result<Option<Reading>> {
    let met = Met::of(entry)?;
    if met.event && met.what == BATCH {
        return batch(disk, shard, record, &met).map(Some);
    }
    if !met.outcome || met.usage.is_empty() {
        return Ok(None);
    }
    let events = act(&met)?;
    let hashes = events.leaf_hashes();
    Ok(Some(Reading { record, events, hashes }))
}

fn batch(disk: &dyn Disk, shard: &Path, record: u64, met: &Met<'_>) -> Result<Reading> {
    let told = || format!("record {record} of `{}`", shard.display());
    let place = met.detail.iter().find(|(name, _)| *name == PLACE).map_or("", |(_, place)| place);
    let read = || {
        let events = Batch::decode(&read_batch(disk, shard, &BatchPlace::parse(place)?)?)?;
        let hashes = events.leaf_hashes();
        Ok((events, hashes))
    };
    let (events, hashes) = read().map_err(|error: Error| error.with_context(told()))?;
    if Some(root(&hashes)) != met.digest {
        return Err(Error::new(ErrorKind::Integrity).with_context(format!("the batch of {} was changed", told())));
    }
    Ok(Reading { record, events, hashes })
}

/// What an act used, as events: ids are the act's and the meter's.
fn act(met: &Met<'_>) -> Result<Batch> {
    let path = met.detail.iter().find(|(name, _)| *name == "path").and_then(|(_, path)| serde_json::from_str::<Vec<String>>(path).ok());
    let path = path.unwrap_or_default();
    let team = path.iter().skip(1).find(|name| !name.starts_with("spiffe://")).map_or(UNKNOWN, String::as_str);
    let mut dimensions: BTreeMap<String, String> = [("agent", met.who), ("action", met.what), ("resource", met.resource), ("team", team)]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for (name, value) in met.detail.iter().filter(|(name, _)| !TOLD.contains(name)) {
        dimensions.insert((*name).to_owned(), (*value).to_owned());
    }
    let customer = path.first().map_or(UNKNOWN, String::as_str);
    let act = base16ct::lower::encode_string(&met.act);
    let mut events = Batch::default();
    for (place, (meter, quantity)) in met.usage.iter().enumerate() {
        events.series.push(Series::recorded(LEDGER, customer, meter, dimensions.clone()));
        events.push(place as u32, met.at, i128::from(*quantity), &format!("{act}/{meter}"))?;
    }
    Ok(events)
}
