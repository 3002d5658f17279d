//! Turns what is on disk into tiles, and has checkpoints over them signed, off the path of those who wait.

use crate::disk::Disk;
use crate::follow::Follower;
use crate::handover::{Handover, Work};
use crate::note::Checkpoint;
use crate::patience::keep_trying;
use crate::queue::{Queue, Stop};
use crate::reader::Shard;
use crate::reserve::Segments;
use crate::sealer::Seals;
use crate::segment;
use crate::tile::WIDTH;
use crate::tree::Tree;
use creto_enablement_common::sync::{Condvar, Mutex};
use creto_enablement_common::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// When to look again whether a checkpoint that is being signed is done.
const BUSY: Duration = Duration::from_millis(2);
/// Segments that have ended are sealed once nothing has come for this long, or their records have so many bytes.
const IDLE: Duration = Duration::from_millis(500);
const MOST_UNSEALED: u64 = 256 << 20;
/// How many records are read from segments before due checkpoints are looked after.
const AT_ONCE: u64 = 8_192;
/// Segments that are kept to be used again while nothing comes.
const KEPT_IDLE: usize = 2;

/// How far publishing has come, for those who wait for it.
#[derive(Default)]
pub struct Published {
    state: Mutex<(u64, bool)>,
    changed: Condvar,
}

impl Published {
    /// Records covered by the checkpoint on disk.
    pub fn size(&self) -> u64 {
        self.state.lock().0
    }

    pub fn set(&self, size: u64) {
        self.state.lock().0 = size;
        self.changed.notify_all();
    }

    pub fn end(&self) {
        self.state.lock().1 = true;
        self.changed.notify_all();
    }

    /// Waits at most so long until `size` records are covered; false where they are not, or never will be.
    pub fn wait(&self, size: u64, most: Duration) -> bool {
        let mut state = self.state.lock();
        let until = Instant::now() + most;
        while state.0 < size && !state.1 {
            if self.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.0 >= size
    }

    /// True once nothing will be published any more.
    pub fn ended(&self) -> bool {
        self.state.lock().1
    }
}

/// The publisher's own state; lives on its thread.
pub struct Publisher {
    pub disk: Arc<dyn Disk>,
    pub shard: PathBuf,
    pub origin: String,
    pub tree: Tree,
    pub queue: Arc<Queue>,
    pub published: Arc<Published>,
    pub handover: Arc<Handover>,
    pub segments: Arc<Segments>,
    pub seals: Seals,
    pub checkpoints: SyncSender<Checkpoint>,
    /// Records of the last checkpoint that was asked for.
    pub asked: u64,
    pub every: Duration,
    pub every_records: u64,
    pub due: Option<Instant>,
    /// Bytes of records that were taken since sealing last began.
    pub unsealed: u64,
    /// Segments have ended since then.
    pub ended: bool,
}

impl Publisher {
    /// Works until it is told to close, or something fails for good.
    pub fn run(mut self) {
        if let Err(error) = self.work() {
            self.queue.stop(Stop::of(&error));
        }
    }

    fn work(&mut self) -> Result<()> {
        loop {
            let wait = self.due.map_or(Duration::from_secs(3_600), |due| due.saturating_duration_since(Instant::now()));
            self.ended |= self.handover.take_segments_ended();
            let wait = if self.ended || self.seals.is_under_way() { wait.min(IDLE) } else { wait };
            match self.handover.next(self.tree.size(), wait) {
                Work::Frames(frames) => {
                    self.take(&frames.bytes)?;
                    self.handover.give_back(frames.bytes);
                }
                Work::Behind(until) => self.catch_up(until)?,
                Work::Publish => self.publish(true)?,
                Work::Close => {
                    self.publish(true)?;
                    return self.seal_at_last();
                }
                Work::Idle => {
                    self.publish(false)?;
                    if self.ended {
                        self.seal()?;
                        self.segments.trim(&*self.disk, KEPT_IDLE)?;
                    }
                }
            }
            if let Some(size) = self.seals.done() {
                self.tree.set_sealed(size);
            }
            if self.unsealed > MOST_UNSEALED {
                self.seal()?;
            }
            let many = self.every_records < 2 * WIDTH && self.tree.size() - self.asked >= self.every_records;
            if many || self.due.is_some_and(|due| due <= Instant::now()) {
                self.publish(false)?;
            }
        }
    }

    fn take(&mut self, frames: &[u8]) -> Result<()> {
        let mut rest = frames;
        while let Some(frame) = segment::frame(rest) {
            self.push(frame.index, frame.payload)?;
            rest = rest.split_at_checked(frame.length as usize).map_or(&[], |(_, rest)| rest);
        }
        Ok(())
    }

    fn push(&mut self, index: u64, payload: &[u8]) -> Result<()> {
        if index != self.tree.size() {
            return Err(Error::internal(format!("record {index} came where {} belongs", self.tree.size())));
        }
        keep_trying(&self.queue, || self.tree.push(&*self.disk, payload))?;
        self.unsealed += segment::frame_length(payload.len());
        let every = self.every;
        self.due.get_or_insert_with(|| Instant::now() + every);
        // Where a bundle has just been filled a checkpoint needs no partial one; each that is written is removed soon after, and file systems
        // are slow to make files where many have just been removed.
        let filled = self.tree.size().is_multiple_of(WIDTH);
        if filled && self.tree.size() + WIDTH > self.asked + self.every_records && self.published.size() >= self.asked {
            self.publish(false)?;
        }
        Ok(())
    }

    /// Takes from the segments the records up to `until`, which are on disk.
    fn catch_up(&mut self, until: u64) -> Result<()> {
        let reader = Shard::open(Arc::clone(&self.disk), &self.shard);
        let mut follower = Follower::new(reader, Arc::clone(&self.disk), self.tree.size());
        while self.tree.size() < until {
            let (mut outcome, before) = (Ok(()), self.tree.size());
            follower.poll_some((until - before).min(AT_ONCE), |index, payload| {
                if outcome.is_ok() {
                    outcome = self.push(index, payload);
                }
            })?;
            outcome?;
            if self.tree.size() == before {
                let what = format!("record {before} is on disk, but not in the segments of `{}`", self.shard.display());
                return Err(Error::new(ErrorKind::Integrity).with_context(what));
            }
            self.queue.shows_life();
            if self.unsealed > MOST_UNSEALED || self.due.is_some_and(|due| due <= Instant::now()) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Hands the present tree to whoever signs it, where that is asked for `now` or nothing else is being signed.
    fn publish(&mut self, now: bool) -> Result<()> {
        if self.tree.size() == self.asked && self.tree.size() > 0 {
            self.due = None;
            return Ok(());
        }
        if !now && self.published.size() < self.asked {
            self.due = self.due.map(|_| Instant::now() + BUSY);
            return Ok(());
        }
        self.due = None;
        keep_trying(&self.queue, || self.tree.write_partial(&*self.disk))?;
        self.asked = self.tree.size();
        let checkpoint = Checkpoint { origin: self.origin.clone(), size: self.asked, root: self.tree.root() };
        self.checkpoints.send(checkpoint).map_err(|_| Error::internal("whoever signs checkpoints of the ledger has ended"))?;
        self.tree.remove_outgrown(&*self.disk);
        Ok(())
    }

    /// Has the tree made durable by itself, so that the segments behind it are not needed any more; later where that is under way.
    fn seal(&mut self) -> Result<()> {
        if self.seals.is_under_way() {
            return Ok(());
        }
        (self.unsealed, self.ended) = (0, false);
        if !self.tree.is_sealed() {
            keep_trying(&self.queue, || self.tree.write_partial(&*self.disk))?;
            self.seals.begin(self.tree.begin_seal());
        }
        Ok(())
    }

    /// The same, and waits for it: what is closed is opened again without looking at a segment.
    fn seal_at_last(&mut self) -> Result<()> {
        if let Some(size) = self.seals.wait() {
            self.tree.set_sealed(size);
        }
        self.seal()?;
        if let Some(size) = self.seals.wait() {
            self.tree.set_sealed(size);
        }
        self.tree.remove_outgrown(&*self.disk);
        self.segments.trim(&*self.disk, 0)
    }
}
