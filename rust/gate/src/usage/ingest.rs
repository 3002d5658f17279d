//! The way in for usage events of others: each once by its source and id, in batches, each a record of the ledger with its Merkle root.
//!
//! A source belongs to one process at a time, by a lock on a file that the kernel gives free when the process ends; whoever takes it over
//! first reads what its last holder recorded. So no event is taken twice, whichever process it is offered to.

use super::records::{BATCH, LEDGER, PLACE, each_usage};
use creto_audit::{Ledger, shards};
use creto_enablement_common::ports::{AuditSink, Ticket};
use creto_enablement_common::sync::{Mutex, RwLock};
use creto_enablement_common::{Error, ErrorKind, RecordKind, RecordRef, Result, ResultExt, Timestamp};
use creto_metering::usage::{Batch, Row, Seen, leaf_hash, root};
use rustix::fs::{FlockOperation, flock};
use std::collections::{BTreeMap, HashMap};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FOLDER: &str = "sources";
/// The most events of a batch.
pub const MOST: usize = 10_000;

/// What became of the events that were offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many are in the ledger once `ticket` is on disk.
    pub taken: usize,
    /// How many were there before.
    pub duplicates: usize,
    /// What to wait for.
    pub ticket: Ticket,
}

#[derive(Default)]
struct State {
    seen: Seen,
    /// How far each shard was read.
    read: BTreeMap<String, u64>,
    /// Sources that are ours.
    held: HashMap<String, File>,
}

/// The way in.
pub struct Ingest {
    ledger: Arc<Ledger>,
    folder: PathBuf,
    since: u64,
    state: Mutex<State>,
    /// Held by whoever is between noting ids and having put their record in the queue; taken before `state`.
    under_way: RwLock<()>,
}

impl Ingest {
    /// Learns from the ledger in `folder` which events were taken. Those of a time before `since` (microseconds since the epoch) are refused.
    ///
    /// # Errors
    /// `Integrity` where the ledger is damaged.
    pub fn open(ledger: Arc<Ledger>, folder: &Path, since: u64) -> Result<Self> {
        let mut state = State::default();
        catch_up(&mut state, folder, since, None)?;
        Ok(Self { ledger, folder: folder.to_owned(), since, state: Mutex::new(state), under_way: RwLock::default() })
    }

    /// Takes the events that are new; all are checked before any is taken. They are on disk once the ticket is.
    ///
    /// # Errors
    /// `InvalidInput` where one of them is no event or of a time that is closed, `AlreadyExists` where another process takes in their
    /// source, and those of the ledger; nothing is taken then.
    pub fn take(&self, batch: &Batch, now: Timestamp) -> Result<Taken> {
        self.check(batch)?;
        let rows: Vec<Row<'_>> = batch.rows().collect();
        {
            let _with_others = self.under_way.read();
            let fresh = self.note(batch, &rows)?;
            if fresh.len() == rows.len() {
                return self.finish(batch, &rows, &fresh, now);
            }
            self.forget(batch, &rows, &fresh);
        }
        // Who is told of a duplicate must be able to rely on it, so nobody may be on the way to record it and yet fail.
        let _alone = self.under_way.write();
        let fresh = self.note(batch, &rows)?;
        self.finish(batch, &rows, &fresh, now)
    }

    /// Says whether events could be taken, and takes none.
    ///
    /// # Errors
    /// `InvalidInput` where one of them is no event or of a time that is closed, or they are too many.
    pub fn check(&self, batch: &Batch) -> Result<()> {
        if batch.len() > MOST {
            return Err(Error::invalid(format!("{} events: offer at most {MOST} at once", batch.len())));
        }
        batch.check(self.since)?;
        match batch.series.iter().find(|series| series.source == LEDGER) {
            // Or an event of others could stand where an act's own belongs, and have it taken for a duplicate.
            Some(series) => Err(Error::invalid(format!("usage of `{}`: the source `{LEDGER}` is that of acts themselves", series.meter))),
            None => Ok(()),
        }
    }

    /// Notes the events that are new; their places.
    fn note(&self, batch: &Batch, rows: &[Row<'_>]) -> Result<Vec<usize>> {
        let mut state = self.state.lock();
        let mut last = "";
        for row in rows {
            if source(batch, row) != last {
                last = source(batch, row);
                self.claim(&mut state, last)?;
            }
        }
        Ok((0..rows.len()).filter(|place| rows.get(*place).is_some_and(|row| state.seen.add(source(batch, row), row.id))).collect())
    }

    fn forget(&self, batch: &Batch, rows: &[Row<'_>], fresh: &[usize]) {
        let mut state = self.state.lock();
        for row in fresh.iter().filter_map(|place| rows.get(*place)) {
            state.seen.remove(source(batch, row), row.id);
        }
    }

    fn finish(&self, batch: &Batch, rows: &[Row<'_>], fresh: &[usize], now: Timestamp) -> Result<Taken> {
        let duplicates = rows.len() - fresh.len();
        let ticket = match duplicates {
            _ if fresh.is_empty() => Ok(self.ledger.last()),
            0 => self.record(batch, now),
            _ => self.record(&batch.select(fresh), now),
        };
        match ticket {
            Ok(ticket) => Ok(Taken { taken: fresh.len(), duplicates, ticket: if duplicates > 0 { self.ledger.last() } else { ticket } }),
            Err(error) => {
                // Not taken: they can be offered again.
                self.forget(batch, rows, fresh);
                Err(error)
            }
        }
    }

    fn record(&self, batch: &Batch, now: Timestamp) -> Result<Ticket> {
        let root = root(&batch.leaf_hashes());
        let place = self.ledger.keep_batch(&batch.encode())?.to_string();
        let mut id = [0; 16];
        id.iter_mut().zip(root).for_each(|(to, from)| *to = from);
        let source = batch.which.first().and_then(|which| batch.series.get(*which as usize)).map_or("", |series| series.source.as_str());
        let events = batch.len().to_string();
        let record = RecordRef {
            who: "usage",
            delegation_chain: &[],
            what: BATCH,
            resource: source,
            why: "usage taken in",
            outcome: None,
            timestamp: now,
            id,
            act: id,
            kind: RecordKind::Event,
            digest: Some(&root),
            policy: None,
            usage: &[],
            detail: &[(PLACE, &place), ("events", &events)],
        };
        self.ledger.enqueue(&record)
    }

    /// Makes a source ours.
    fn claim(&self, state: &mut State, source: &str) -> Result<()> {
        if state.held.contains_key(source) {
            return Ok(());
        }
        let folder = self.folder.join(FOLDER);
        let failed = || format!("locking the source `{source}` in `{}`", folder.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).context(failed)?;
        let name = base16ct::lower::encode_string(&leaf_hash(source.as_bytes()));
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join(name)).context(failed)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            rustix::io::Errno::WOULDBLOCK => Error::new(ErrorKind::AlreadyExists)
                .with_context(format!("the source `{source}` is taken in by another process; a source belongs to one at a time")),
            errno => Error::from(std::io::Error::from(errno)).with_context(failed()),
        })?;
        catch_up(state, &self.folder, self.since, Some(self.ledger.shard()))?;
        state.held.insert(source.to_owned(), file);
        Ok(())
    }
}

fn source<'a>(batch: &'a Batch, row: &Row<'_>) -> &'a str {
    batch.series.get(row.series as usize).map_or("", |series| series.source.as_str())
}

/// Notes what the shards hold that was not read yet; of one's own shard all is known since it was opened.
fn catch_up(state: &mut State, folder: &Path, since: u64, own: Option<&str>) -> Result<()> {
    for name in shards(folder)? {
        if own == Some(name.as_str()) {
            continue;
        }
        let from = state.read.get(&name).copied().unwrap_or_default();
        let seen = &mut state.seen;
        let next = each_usage(folder, &name, from, None, |reading| {
            let events = &reading.events;
            for row in events.rows().filter(|row| row.at >= since) {
                if let Some(series) = events.series.get(row.series as usize) {
                    seen.add(&series.source, row.id);
                }
            }
            Ok(())
        })?;
        state.read.insert(name, next);
    }
    Ok(())
}
