//! Puts what waits on disk: one write and one sync for all of it, then tells everyone.
//!
//! An error of a write or a sync is final for this ledger: what the kernel has dropped it may not tell twice.

use crate::batch::Batches;
use crate::commit::Buffers;
use crate::disk::{Backing, Disk};
use crate::handover::{Frames, Handover};
use crate::ids::Ids;
use crate::queue::{Meta, Queue};
use crate::reader::Shard;
use crate::segment::{self, MAX_FRAME, START};
use creto_enablement_common::{Error, Result, ResultExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

/// A segment that is ready to take frames.
pub struct Ready {
    pub backing: Box<dyn Backing>,
    pub capacity: u64,
}

impl Ready {
    /// Bytes of frames that surely fit.
    pub const fn room(&self) -> u64 {
        self.capacity.saturating_sub(START + MAX_FRAME)
    }
}

/// What writes segments; behind a lock, since a blocking caller may do the writing itself.
pub struct Writer {
    pub disk: Arc<dyn Disk>,
    pub shard: PathBuf,
    pub queue: Arc<Queue>,
    pub batches: Arc<Batches>,
    pub current: Ready,
    pub offset: u64,
    /// Where the present segment was taken up, and the bytes of frames that were counted as room from there.
    pub begun: u64,
    pub counted: u64,
    pub next_index: u64,
    pub ids: Ids,
    pub ready: Receiver<Ready>,
    /// Where the next segment is asked for; none once the ledger is closed.
    pub wanted: Option<Sender<()>>,
    pub handover: Arc<Handover>,
    /// Empty; kept for its space.
    pub frames: Vec<u8>,
    pub buffers: Buffers,
}

impl Writer {
    /// Writes all that waits, syncs once (once more where a segment ends), and tells those who wait.
    pub fn commit(&mut self) {
        let (queue, mut buffers) = (Arc::clone(&self.queue), std::mem::take(&mut self.buffers));
        buffers.commit(&queue, |bytes, metas, indexes| self.write(bytes, metas, indexes));
        self.buffers = buffers;
    }

    fn write(&mut self, bytes: &[u8], metas: &[Meta], mut indexes: Option<&mut Vec<Option<u64>>>) -> Result<()> {
        // INVARIANT: the bytes of a batch are on disk before the record that stands for them.
        self.batches.sync()?;
        let mut frames = std::mem::take(&mut self.frames);
        frames.clear();
        let mut start = self.next_index;
        let mut rest = bytes;
        for meta in metas {
            let Some((payload, more)) = rest.split_at_checked(meta.length as usize) else {
                return Err(Error::internal("the queue holds fewer bytes than records"));
            };
            rest = more;
            if !self.is_new(meta)? {
                self.queue.add_room(segment::frame_length(payload.len()));
                if let Some(indexes) = indexes.as_mut() {
                    indexes.push(None);
                }
                continue;
            }
            let length = segment::frame_length(payload.len());
            if self.offset + frames.len() as u64 + length > self.current.capacity {
                frames = self.flush(frames, start)?;
                self.next_segment()?;
                start = self.next_index;
            }
            segment::push(&mut frames, self.next_index, (self.next_index - start) as u32, payload);
            if let Some(indexes) = indexes.as_mut() {
                indexes.push(Some(self.next_index));
            }
            self.next_index += 1;
        }
        self.frames = self.flush(frames, start)?;
        Ok(())
    }

    fn is_new(&mut self, meta: &Meta) -> Result<bool> {
        if !self.ids.insert(&meta.id, meta.timestamp) {
            return Ok(false);
        }
        if !meta.once || !self.ids.may_be_older(meta.timestamp) {
            return Ok(true);
        }
        Shard::open(Arc::clone(&self.disk), &self.shard).appended_since(meta.timestamp, &meta.id).map(|found| !found)
    }

    /// Writes and syncs frames, hands them to the publisher (who never keeps us waiting), and returns an empty buffer.
    fn flush(&mut self, frames: Vec<u8>, first: u64) -> Result<Vec<u8>> {
        if frames.is_empty() {
            return Ok(frames);
        }
        let failed = || format!("writing records {first} to {} of `{}`", self.next_index - 1, self.shard.display());
        self.current.backing.write_at(&frames, self.offset).context(failed)?;
        self.current.backing.sync().context(failed)?;
        self.offset += frames.len() as u64;
        // INVARIANT: only what is on disk reaches the publisher, so no checkpoint covers more.
        Ok(self.handover.offer(Frames { first, next: self.next_index, bytes: frames }))
    }

    fn next_segment(&mut self) -> Result<()> {
        let ready = self.ready.recv().map_err(|_| Error::internal("whoever makes segments of the ledger has ended"))?;
        let name = segment::path(&self.shard, self.next_index);
        let failed = || format!("beginning the segment `{}`", name.display());
        ready.backing.write_at(&segment::header(self.next_index), 0).context(failed)?;
        ready.backing.sync().context(failed)?;
        let folder = self.shard.join(segment::FOLDER);
        self.disk.rename(&folder.join(segment::NEXT), &name).context(failed)?;
        self.disk.sync_folder(&folder).context(failed)?;
        // It held more than was sure to fit, and others wait for that room: without it a ledger would come to a stand after some hundred segments.
        self.queue.add_room((self.offset - self.begun).saturating_sub(self.counted));
        (self.begun, self.counted) = (START, ready.room());
        self.current = ready;
        self.offset = START;
        self.handover.segment_ended();
        if let Some(wanted) = &self.wanted {
            // Where the maker has ended the queue says why, and no room is added.
            let _ = wanted.send(());
        }
        Ok(())
    }
}
