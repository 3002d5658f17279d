//! Turns what is on disk into tiles, and has checkpoints over them signed, off the path of those who wait.

use crate::disk::Disk;
use crate::note::Checkpoint;
use crate::patience::keep_trying;
use crate::queue::{Queue, Stop};
use crate::sealed;
use crate::segment;
use crate::tree::Tree;
use creto_enablement_common::{Error, Result, ResultExt};
use parking_lot::{Condvar, Mutex};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::{Duration, Instant};

/// When to look again whether a checkpoint that is being signed is done.
const BUSY: Duration = Duration::from_millis(2);
/// Segments that have ended are sealed once nothing has come for this long, or there are so many bytes of them.
const IDLE: Duration = Duration::from_millis(500);
const MOST_UNSEALED: u64 = 256 << 20;

/// What the publisher is asked to do, in order.
pub enum Work {
    /// Frames that are on disk.
    Records(Vec<u8>),
    /// The segment before the present one is complete; it has so many bytes.
    SegmentEnded(u64),
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
    pub work: Receiver<Work>,
    pub spare: Sender<Vec<u8>>,
    pub checkpoints: SyncSender<Checkpoint>,
    /// Records of the last checkpoint that was asked for.
    pub asked: u64,
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
    }

    fn work(&mut self) -> Result<()> {
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
                Ok(Work::SegmentEnded(bytes)) => {
                    self.unsealed += bytes;
                    if self.unsealed > MOST_UNSEALED {
                        self.seal()?;
                    }
                }
                Ok(Work::Publish) => self.publish(true)?,
                Ok(Work::Close) | Err(RecvTimeoutError::Disconnected) => {
                    self.publish(true)?;
                    return self.seal();
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.publish(false)?;
                    if self.unsealed > 0 {
                        self.seal()?;
                    }
                }
            }
            let late = self.due.is_some_and(|due| due <= Instant::now());
            if late || self.tree.size() - self.asked >= self.every_records {
                self.publish(false)?;
            }
        }
    }

    fn take(&mut self, frames: &[u8]) -> Result<()> {
        let mut rest = frames;
        while let Some(frame) = segment::frame(rest) {
            if frame.index != self.tree.size() {
                return Err(Error::internal(format!("record {} came where {} belongs", frame.index, self.tree.size())));
            }
            keep_trying(&self.queue, || self.tree.push(&*self.disk, frame.payload))?;
            rest = rest.split_at_checked(frame.length as usize).map_or(&[], |(_, rest)| rest);
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

    /// Makes the tree durable by itself, so that the segments behind it are not needed any more.
    fn seal(&mut self) -> Result<()> {
        self.unsealed = 0;
        keep_trying(&Arc::clone(&self.queue), || self.seal_once())
    }

    fn seal_once(&mut self) -> Result<()> {
        if self.tree.is_sealed() {
            return Ok(());
        }
        self.tree.write_partial(&*self.disk)?;
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
}
