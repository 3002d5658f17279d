//! What waits to be written: bytes behind one lock, bounded, and never dropped.
//!
//! A record is taken only where there is room for it on disk already, so what is taken is never refused later for want of space.

use crate::segment;
use crate::sync::{AtomicU64, Condvar, Mutex};
use creto_enablement_common::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// No more bytes wait than this.
const CAPACITY: usize = 8 << 20;
/// Relaxed records gather for this long before they are written, unless someone waits or many bytes have gathered.
const LINGER: Duration = Duration::from_millis(2);
const MANY: usize = 256 << 10;
/// An enqueue waits as long as the ledger shows life; after so long without any it counts as full.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where it is told how appends ended: all of one write in one call, so that a thousand waiters cost one wake-up.
pub trait Completions: Send + Sync {
    /// `ended` holds the tokens of appends, each with its record's index, or none where a record with its id was there already. All of them
    /// failed where there is an error. Called on the writer's thread, which waits meanwhile.
    fn complete(&self, ended: &[(u64, Option<u64>)], failed: Option<&Error>);
}

/// Whom to tell how an append ended, and the token under which it waits there.
#[derive(Clone)]
pub struct Done {
    /// Whom.
    pub to: Arc<dyn Completions>,
    /// Handed back as it is.
    pub token: u64,
}

impl Done {
    fn tell(&self, failed: Option<&Error>) {
        self.to.complete(&[(self.token, None)], failed);
    }
}

/// One record that waits; its bytes lie behind those of the ones before it.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    pub length: u32,
    /// Offered under a fixed id, perhaps not for the first time: look for it on disk as well.
    pub once: bool,
    pub timestamp: u64,
    pub id: [u8; 16],
}

/// Why the ledger takes nothing more.
#[derive(Clone, Debug)]
pub struct Stop {
    pub kind: ErrorKind,
    pub why: String,
}

impl Stop {
    pub fn of(error: &Error) -> Self {
        Self { kind: error.kind().clone(), why: error.chain().collect::<Vec<_>>().join(": ") }
    }

    pub fn error(&self) -> Error {
        Error::new(self.kind.clone()).with_context(self.why.clone())
    }
}

/// The part of the queue behind the lock.
#[derive(Default)]
pub struct Pending {
    pub bytes: Vec<u8>,
    pub metas: Vec<Meta>,
    pub callbacks: Vec<(u64, Done)>,
    /// How many records were ever taken; the last one's ticket.
    pub taken: u64,
    /// Bytes of frames for which there is room in segments that exist.
    pub room: u64,
    /// Why no further segment could be made, if one could not.
    pub full: Option<Stop>,
    pub stop: Option<Stop>,
    urgent: bool,
    parked: bool,
}

/// The queue of one ledger.
#[derive(Default)]
pub struct Queue {
    pub pending: Mutex<Pending>,
    work: Condvar,
    space: Condvar,
    /// Waiters for durability.
    acknowledged: Condvar,
    waiting: Mutex<()>,
    durable: AtomicU64,
    life: AtomicU64,
}

impl Queue {
    /// Takes a record whose bytes are `payload`; waits while the queue is full.
    pub fn push(&self, payload: &[u8], meta: Meta, done: Option<Done>, wait: bool) -> Result<Option<u64>> {
        let frame = segment::frame_length(payload.len());
        let mut pending = self.pending.lock();
        let mut since = None;
        loop {
            if let Some(stop) = &pending.stop {
                return Err(stop.error());
            }
            let fits = pending.bytes.len() + payload.len() <= CAPACITY;
            if fits && pending.room >= frame {
                break;
            }
            if fits && let Some(full) = &pending.full {
                return Err(full.error());
            }
            if !wait {
                return Ok(None);
            }
            // A slow disk is no full one: whoever waits gives up only where nothing moves at all.
            let life = self.life.load(Ordering::Relaxed);
            let (seen, start) = *since.get_or_insert_with(|| (life, Instant::now()));
            if seen != life {
                since = Some((life, Instant::now()));
            } else if start.elapsed() > PATIENCE {
                return Err(Error::new(ErrorKind::LedgerFull).with_context(format!("nothing was written for {} s", PATIENCE.as_secs())));
            }
            pending.urgent = true;
            self.work.notify_one();
            self.space.wait_for(&mut pending, Duration::from_millis(100));
        }
        pending.bytes.extend_from_slice(payload);
        pending.metas.push(meta);
        pending.room -= frame;
        pending.taken += 1;
        let ticket = pending.taken;
        let urgent = done.is_some() || pending.bytes.len() >= MANY;
        if let Some(done) = done {
            pending.callbacks.push((ticket, done));
        }
        // Once is enough: until the writer runs, whoever comes next wakes nobody.
        let wake = std::mem::take(&mut pending.parked) || urgent && !pending.urgent;
        pending.urgent |= urgent;
        drop(pending);
        if wake {
            self.work.notify_one();
        }
        Ok(Some(ticket))
    }

    /// Tells `done` once the record with this ticket is on disk; at once where it is.
    pub fn when_durable(&self, ticket: u64, done: Done) {
        let mut pending = self.pending.lock();
        if self.durable() >= ticket {
            drop(pending);
            return done.tell(None);
        }
        if let Some(stop) = &pending.stop {
            let error = stop.error();
            drop(pending);
            return done.tell(Some(&error));
        }
        pending.callbacks.push((ticket, done));
        pending.urgent = true;
        drop(pending);
        self.work.notify_one();
    }

    /// Waits until there is something to write, and for a while more where nobody waits for it; false once all is written and the queue closed.
    pub fn wait_for_work(&self) -> bool {
        let mut pending = self.pending.lock();
        while pending.metas.is_empty() && pending.callbacks.is_empty() {
            if pending.stop.is_some() {
                return false;
            }
            pending.urgent = false;
            pending.parked = true;
            self.work.wait(&mut pending);
            pending.parked = false;
        }
        if !pending.urgent && pending.stop.is_none() {
            self.work.wait_for(&mut pending, LINGER);
        }
        true
    }

    /// Takes what waits, leaving the (empty) buffers that are handed in.
    pub fn take(&self, bytes: &mut Vec<u8>, metas: &mut Vec<Meta>, callbacks: &mut Vec<(u64, Done)>) -> u64 {
        let mut pending = self.pending.lock();
        std::mem::swap(&mut pending.bytes, bytes);
        std::mem::swap(&mut pending.metas, metas);
        std::mem::swap(&mut pending.callbacks, callbacks);
        pending.urgent = false;
        let taken = pending.taken;
        drop(pending);
        self.space.notify_all();
        taken
    }

    /// The ticket of the last record that was taken.
    pub fn last(&self) -> u64 {
        self.pending.lock().taken
    }

    /// Has what waits written without lingering.
    pub fn hurry(&self) {
        let mut pending = self.pending.lock();
        if pending.metas.is_empty() {
            return;
        }
        pending.urgent = true;
        drop(pending);
        self.work.notify_one();
    }

    /// The last ticket whose record is on disk.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Tells all who wait that this ticket and those before it are on disk.
    pub fn acknowledge(&self, ticket: u64) {
        self.durable.fetch_max(ticket, Ordering::AcqRel);
        self.shows_life();
        drop(self.waiting.lock());
        self.acknowledged.notify_all();
    }

    /// Takes note that something has been done towards taking more.
    pub fn shows_life(&self) {
        self.life.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits a little for an acknowledgement of this ticket.
    pub fn wait_acknowledged(&self, ticket: u64, most: Duration) {
        let mut waiting = self.waiting.lock();
        if self.durable() < ticket && self.stopped().is_none() {
            self.acknowledged.wait_for(&mut waiting, most);
        }
    }

    /// Adds room for frames: a segment has been made, or a record was not written after all.
    pub fn add_room(&self, bytes: u64) {
        let mut pending = self.pending.lock();
        pending.room += bytes;
        pending.full = None;
        drop(pending);
        self.shows_life();
        self.space.notify_all();
    }

    /// Tells that no further segment can be made at present, and why.
    pub fn set_full(&self, full: Option<Stop>) {
        self.pending.lock().full = full;
        self.space.notify_all();
    }

    /// Takes nothing more; the first reason stays.
    pub fn stop(&self, stop: Stop) {
        let mut pending = self.pending.lock();
        pending.stop.get_or_insert(stop);
        drop(pending);
        self.work.notify_all();
        self.space.notify_all();
        drop(self.waiting.lock());
        self.acknowledged.notify_all();
    }

    /// Why nothing more is taken, once that is so.
    pub fn stopped(&self) -> Option<Stop> {
        self.pending.lock().stop.clone()
    }
}
