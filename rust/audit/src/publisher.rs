//! Turns what is on disk into tiles and signed checkpoints, and makes the next segment, all off the path of those who wait.

use crate::disk::{self, Disk};
use crate::note::{self, Checkpoint};
use crate::queue::{Queue, Stop};
use crate::sealed;
use crate::segment;
use crate::tree::Tree;
use crate::writer::Ready;
use creto_crypto::SigningKey;
use creto_enablement_common::{Error, ErrorKind, Result, ResultExt};
use parking_lot::{Condvar, Mutex};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::{Duration, Instant};

/// The name of the checkpoint in a shard.
pub const CHECKPOINT: &str = "checkpoint";
const RETRY: Duration = Duration::from_millis(250);
/// Segments that have ended are sealed once nothing has come for this long, or there are so many bytes of them.
const IDLE: Duration = Duration::from_millis(500);
const MOST_UNSEALED: u64 = 256 << 20;

/// What the publisher is asked to do, in order.
pub enum Work {
    /// Frames that are on disk.
    Records(Vec<u8>),
    /// The segment before the present one is complete.
    SegmentEnded,
    /// Publish all that came before, now.
    Publish,
    /// Publish, make durable, end.
    Close,
}

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

    fn end(&self) {
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

    /// True once the publisher has ended.
    pub fn ended(&self) -> bool {
        self.state.lock().1
    }
}

/// The publisher's own state; lives on its thread.
pub struct Publisher {
    pub disk: Arc<dyn Disk>,
    pub shard: PathBuf,
    pub origin: String,
    pub signer: SigningKey,
    pub tree: Tree,
    pub queue: Arc<Queue>,
    pub published: Arc<Published>,
    pub work: Receiver<Work>,
    pub ready: SyncSender<Ready>,
    pub spare: Sender<Vec<u8>>,
    pub capacity: u64,
    pub largest: u64,
    /// True while a segment has to be made.
    pub wanted: bool,
    pub every: Duration,
    pub every_records: u64,
    pub due: Option<Instant>,
    /// Bytes of segments that have ended and are not sealed.
    pub unsealed: u64,
}

impl Publisher {
    /// Works until it is told to close, or something fails for good.
    pub fn run(mut self) {
        if let Err(error) = self.work() {
            self.queue.stop(Stop::of(&error));
        }
        self.published.end();
    }

    fn work(&mut self) -> Result<()> {
        self.keep_trying(Self::make_segment)?;
        loop {
            let wait = self.due.map_or(Duration::from_secs(3_600), |due| due.saturating_duration_since(Instant::now()));
            let wait = if self.unsealed > 0 { wait.min(IDLE) } else { wait };
            match self.work.recv_timeout(wait) {
                Ok(Work::Records(frames)) => {
                    self.take(&frames)?;
                    let _ = self.spare.send(frames);
                    let every = self.every;
                    self.due.get_or_insert_with(|| Instant::now() + every);
                }
                Ok(Work::SegmentEnded) => {
                    self.wanted = true;
                    self.unsealed += self.capacity;
                    self.keep_trying(Self::make_segment)?;
                    if self.unsealed > MOST_UNSEALED {
                        self.keep_trying(Self::publish)?;
                        self.keep_trying(Self::seal)?;
                    }
                }
                Ok(Work::Publish) => self.keep_trying(Self::publish)?,
                Ok(Work::Close) | Err(RecvTimeoutError::Disconnected) => {
                    self.keep_trying(Self::publish)?;
                    return self.keep_trying(Self::seal);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.keep_trying(Self::publish)?;
                    if self.unsealed > 0 {
                        self.keep_trying(Self::seal)?;
                    }
                }
            }
            let late = self.due.is_some_and(|due| due <= Instant::now());
            if late || self.tree.size() - self.published.size() >= self.every_records {
                self.keep_trying(Self::publish)?;
            }
        }
    }

    /// A full disk is waited out: the records are safe in their segment, and nothing further is taken in the meantime.
    fn keep_trying(&mut self, step: impl Fn(&mut Self) -> Result<()>) -> Result<()> {
        let mut closing = 0;
        loop {
            let error = match step(self) {
                Ok(()) => return Ok(()),
                Err(error) if is_full(&error) => error,
                Err(error) => return Err(error),
            };
            let stop = Stop { kind: ErrorKind::LedgerFull, why: Stop::of(&error).why };
            self.queue.set_full(Some(stop));
            // Whoever closes the ledger does not wait for space for ever; the next opening derives what is missing.
            closing += usize::from(self.queue.stopped().is_some());
            if closing > 2 {
                return Err(Error::new(ErrorKind::LedgerFull).with_source(error));
            }
            std::thread::sleep(RETRY);
        }
    }

    fn take(&mut self, frames: &[u8]) -> Result<()> {
        let mut rest = frames;
        while let Some(frame) = segment::frame(rest) {
            if frame.index != self.tree.size() {
                return Err(Error::internal(format!("record {} came where {} belongs", frame.index, self.tree.size())));
            }
            self.keep_trying(|publisher| publisher.tree.push(&*publisher.disk, frame.payload))?;
            rest = rest.split_at_checked(frame.length as usize).map_or(&[], |(_, rest)| rest);
        }
        Ok(())
    }

    /// Signs the present tree and puts the checkpoint where readers look.
    fn publish(&mut self) -> Result<()> {
        self.due = None;
        if self.tree.size() == self.published.size() && self.tree.size() > 0 {
            return Ok(());
        }
        self.tree.write_partial(&*self.disk)?;
        let checkpoint = Checkpoint { origin: self.origin.clone(), size: self.tree.size(), root: self.tree.root() };
        let note = note::sign(&checkpoint, &self.signer).context(|| "signing a checkpoint".into())?;
        let path = self.shard.join(CHECKPOINT);
        disk::replace(&*self.disk, &path, note.to_text().as_bytes(), true).context(|| format!("writing `{}`", path.display()))?;
        self.published.set(checkpoint.size);
        self.tree.remove_outgrown(&*self.disk);
        Ok(())
    }

    /// Makes the published tree durable by itself, so that the segments behind it are not needed any more.
    fn seal(&mut self) -> Result<()> {
        self.unsealed = 0;
        if self.tree.is_sealed() {
            return Ok(());
        }
        self.tree.sync(&*self.disk)?;
        sealed::write(&*self.disk, &self.shard, self.tree.size(), &self.tree.root())?;
        self.tree.set_sealed();
        self.tree.remove_outgrown(&*self.disk);
        let mut segments = segment::all(&*self.disk, &self.shard)?;
        // The last one is the writer's.
        segments.pop();
        for first in segments {
            let path = segment::path(&self.shard, first);
            let next_is_sealed =
                segment::all(&*self.disk, &self.shard)?.iter().find(|next| **next > first).is_some_and(|next| *next <= self.tree.size());
            if next_is_sealed {
                self.disk.remove(&path).context(|| format!("removing `{}`", path.display()))?;
            }
        }
        Ok(())
    }

    fn make_segment(&mut self) -> Result<()> {
        if !self.wanted {
            return Ok(());
        }
        let ready = make_segment(&*self.disk, &self.shard, self.capacity, self.queue.is_busy())?;
        self.capacity = (self.capacity * 4).min(self.largest);
        let room = ready.room();
        self.wanted = false;
        if self.ready.send(ready).is_ok() {
            self.queue.add_room(room);
        }
        Ok(())
    }
}

/// Makes a segment under the name of the next one, every byte of it written, so that a write into it changes nothing but data.
///
/// `hurry` leaves the writing of zeros out where space can be reserved without: each sync then has to note what was written, which many
/// records share.
pub fn make_segment(disk: &dyn Disk, shard: &std::path::Path, capacity: u64, hurry: bool) -> Result<Ready> {
    let path = shard.join(segment::FOLDER).join(segment::NEXT);
    let failed = || format!("making a segment of {} MiB in `{}`", capacity >> 20, shard.display());
    let made = (|| {
        let backing = disk.open(&path, true)?;
        if backing.reserve(capacity)? && hurry {
            backing.sync()?;
            return Ok(backing);
        }
        let zeros = vec![0; 1 << 20];
        let mut at = 0;
        while at < capacity {
            let length = (capacity - at).min(zeros.len() as u64);
            backing.write_at(zeros.get(..length as usize).unwrap_or_default(), at)?;
            at += length;
        }
        backing.sync()?;
        std::io::Result::Ok(backing)
    })();
    match made {
        Ok(backing) => Ok(Ready { backing, capacity }),
        Err(e) => {
            // Nothing half-made is left to take the space that others need.
            let _ = disk.remove(&path);
            Err(Error::from(e).with_context(failed()))
        }
    }
}

/// True where an error says that the disk or the owner's quota is full.
fn is_full(error: &Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            return matches!(
                io.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge
            );
        }
        source = current.source();
    }
    false
}
