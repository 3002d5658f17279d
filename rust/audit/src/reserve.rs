//! Makes the next segment while the present one is written, on a thread of its own: filling and syncing it takes longer than a write.

use crate::disk::Disk;
use crate::patience::keep_trying;
use crate::queue::{Queue, Stop};
use crate::segment;
use crate::writer::Ready;
use creto_enablement_common::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

/// The maker's own state; lives on its thread.
pub struct Reserve {
    pub disk: Arc<dyn Disk>,
    pub shard: PathBuf,
    pub queue: Arc<Queue>,
    /// One word for each segment that is wanted.
    pub wanted: Receiver<()>,
    pub ready: SyncSender<Ready>,
    /// Bytes of the next one and of the largest.
    pub capacity: u64,
    pub largest: u64,
}

impl Reserve {
    /// Works until nobody can want a segment any more, or one cannot be made for good.
    pub fn run(mut self) {
        while self.wanted.recv().is_ok() {
            match keep_trying(&self.queue, || make_segment(&*self.disk, &self.shard, self.capacity, self.queue.is_busy())) {
                Ok(ready) => {
                    let room = ready.room();
                    self.capacity = (self.capacity * 4).min(self.largest);
                    if self.ready.send(ready).is_ok() {
                        self.queue.add_room(room);
                    }
                }
                Err(error) => return self.queue.stop(Stop::of(&error)),
            }
        }
    }
}

/// Makes a segment under the name of the next one, every byte of it written, so that a write into it changes nothing but data.
///
/// `hurry` leaves the writing of zeros out where space can be reserved without: each sync then has to note what was written, which many
/// records share.
pub fn make_segment(disk: &dyn Disk, shard: &Path, capacity: u64, hurry: bool) -> Result<Ready> {
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
