//! Makes the next segment while the present one is written, on a thread of its own: filling and syncing it takes longer than a write.

use crate::disk::Disk;
use crate::patience::keep_trying;
use crate::queue::{Queue, Stop};
use crate::segment;
use crate::writer::Ready;
use creto_enablement_common::sync::{Condvar, Mutex};
use creto_enablement_common::{Error, Result, ResultExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

/// No further segment is made while those there are hold more, unless they are sealed: who writes then waits for who seals.
const MOST_LIVE: u64 = 1 << 30;
/// Segments that are kept to be used again.
const SPARE: usize = 24;
/// How often to look whether the ledger has been closed meanwhile.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Counted {
    live: u64,
    spare: Vec<PathBuf>,
}

/// The segments of a shard that take space: those that hold records, and those that are to be used again.
pub struct Segments {
    counted: Mutex<Counted>,
    fewer: Condvar,
    /// Bytes of the largest, the only ones that are used again.
    largest: u64,
}

impl Segments {
    /// Begins with segments of `live` bytes in all.
    pub fn new(live: u64, largest: u64) -> Self {
        Self { counted: Mutex::new(Counted { live, spare: Vec::new() }), fewer: Condvar::new(), largest }
    }

    /// A segment is needed no more: keeps its space for another, or gives it back.
    pub fn let_go(&self, disk: &dyn Disk, path: &Path) -> Result<()> {
        let failed = || format!("removing `{}`", path.display());
        let length = disk.length(path).context(failed)?;
        let mut counted = self.counted.lock();
        if length == self.largest && counted.spare.len() < SPARE {
            let spare = path.with_extension("spare");
            disk.rename(path, &spare).context(failed)?;
            counted.spare.push(spare);
        } else {
            disk.remove(path).context(failed)?;
        }
        counted.live = counted.live.saturating_sub(length);
        self.fewer.notify_all();
        Ok(())
    }

    /// Gives back the space that is kept, but for so many segments.
    pub fn trim(&self, disk: &dyn Disk, kept: usize) -> Result<()> {
        let mut counted = self.counted.lock();
        while counted.spare.len() > kept {
            if let Some(path) = counted.spare.pop() {
                disk.remove(&path).context(|| format!("removing `{}`", path.display()))?;
            }
        }
        Ok(())
    }

    /// Waits while there is too much; returns at once where the queue takes nothing more.
    fn wait_for_fewer(&self, queue: &Queue) {
        let mut counted = self.counted.lock();
        while counted.live > MOST_LIVE && queue.stopped().is_none() {
            self.fewer.wait_for(&mut counted, LOOK);
        }
    }
}

/// Removes what an earlier holder kept to be used again.
pub fn remove_spares(disk: &dyn Disk, shard: &Path) -> Result<()> {
    let folder = shard.join(segment::FOLDER);
    for name in disk.list(&folder).unwrap_or_default().iter().filter(|name| name.ends_with(".spare")) {
        let path = folder.join(name);
        disk.remove(&path).context(|| format!("removing `{}`", path.display()))?;
    }
    Ok(())
}

/// The maker's own state; lives on its thread.
pub struct Reserve {
    pub disk: Arc<dyn Disk>,
    pub shard: PathBuf,
    pub queue: Arc<Queue>,
    pub segments: Arc<Segments>,
    /// One word for each segment that is wanted.
    pub wanted: Receiver<()>,
    pub ready: SyncSender<Ready>,
    /// Bytes of the next one.
    pub capacity: u64,
}

impl Reserve {
    /// Works until nobody can want a segment any more, or one cannot be made for good.
    pub fn run(mut self) {
        while self.wanted.recv().is_ok() {
            self.segments.wait_for_fewer(&self.queue);
            match keep_trying(&self.queue, || self.make()) {
                Ok(ready) => {
                    let room = ready.room();
                    self.segments.counted.lock().live += ready.capacity;
                    self.capacity = (self.capacity * 4).min(self.segments.largest);
                    if self.ready.send(ready).is_ok() {
                        self.queue.add_room(room);
                    }
                }
                Err(error) => return self.queue.stop(Stop::of(&error)),
            }
        }
    }

    fn make(&self) -> Result<Ready> {
        let spare = self.segments.counted.lock().spare.pop();
        if let Some(spare) = spare {
            let next = self.shard.join(segment::FOLDER).join(segment::NEXT);
            let taken = self.disk.rename(&spare, &next);
            // INVARIANT: its old name is gone from disk before its records are, or recovery would find a segment without them.
            taken
                .and_then(|()| self.disk.sync_folder(&self.shard.join(segment::FOLDER)))
                .context(|| format!("using `{}` again", spare.display()))?;
            return fill(&*self.disk, &self.shard, self.segments.largest, false);
        }
        make_segment(&*self.disk, &self.shard, self.capacity)
    }
}

/// Makes a segment under the name of the next one.
pub fn make_segment(disk: &dyn Disk, shard: &Path, capacity: u64) -> Result<Ready> {
    fill(disk, shard, capacity, true)
}

/// Writes zeros over a segment, so that a write into it later changes nothing but data and its sync waits for nobody else's.
fn fill(disk: &dyn Disk, shard: &Path, capacity: u64, create: bool) -> Result<Ready> {
    let path = shard.join(segment::FOLDER).join(segment::NEXT);
    let failed = || format!("making a segment of {} MiB in `{}`", capacity >> 20, shard.display());
    let made = (|| {
        let backing = disk.open(&path, create)?;
        if create {
            // In one piece, where the file system can.
            backing.reserve(capacity)?;
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
