//! Following a shard as it is written, from any process: what is new since last asked, read once.

use crate::disk::{Backing, Disk};
use crate::reader::Shard;
use crate::segment::{self, START};
use creto_enablement_common::{Result, ResultExt};
use std::io;
use std::sync::Arc;

/// A place in one shard.
pub struct Follower {
    shard: Shard,
    disk: Arc<dyn Disk>,
    next: u64,
    open: Option<(u64, Box<dyn Backing>, u64)>,
}

impl Follower {
    /// Begins with record `next`.
    pub fn new(shard: Shard, disk: Arc<dyn Disk>, next: u64) -> Self {
        Self { shard, disk, next, open: None }
    }

    /// The shard.
    pub const fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The record that comes next.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Hands over each record that has come since last asked, in order.
    ///
    /// # Errors
    /// `Integrity` where one is missing, or those of the file system.
    pub fn poll(&mut self, each: impl FnMut(u64, &[u8])) -> Result<()> {
        self.poll_some(u64::MAX, each)
    }

    /// The same for at most so many records, so that whoever reads a long shard need not hold it in memory.
    ///
    /// # Errors
    /// As `poll`.
    pub fn poll_some(&mut self, most: u64, mut each: impl FnMut(u64, &[u8])) -> Result<()> {
        let stop = self.next.saturating_add(most);
        loop {
            let before = self.next;
            if self.open.is_none() {
                self.find(stop, &mut each)?;
            }
            self.read(stop, &mut each)?;
            if self.next >= stop {
                return Ok(());
            }
            // The segment may have ended: the next one begins with the record that is awaited.
            let path = segment::path(self.shard.path(), self.next);
            if self.open.as_ref().is_some_and(|(first, ..)| *first != self.next) && self.disk.open(&path, false).is_ok() {
                self.open = None;
                continue;
            }
            if self.next == before && !self.is_gone()? {
                return Ok(());
            }
        }
    }

    /// Lets go of the open segment where it has been sealed: those behind it may be gone as well, and the tiles have what they held.
    fn is_gone(&mut self) -> Result<bool> {
        let Some((first, ..)) = &self.open else { return Ok(false) };
        let path = segment::path(self.shard.path(), *first);
        match self.disk.length(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.open = None,
            other => return other.map(|_| false).context(|| format!("reading `{}`", path.display())),
        }
        Ok(true)
    }

    /// Takes from the tiles what no segment holds any more, and opens the segment that holds the next record.
    fn find(&mut self, stop: u64, each: &mut impl FnMut(u64, &[u8])) -> Result<()> {
        let size = self.shard.checkpoint()?.map_or(0, |(_, checkpoint)| checkpoint.size);
        let segments = segment::all(&*self.disk, self.shard.path())?;
        if segments.first().is_none_or(|first| *first > self.next) && size > self.next {
            let until = size.min(stop);
            self.shard.at(size).each_entry(self.next, until, |index, entry| {
                each(index, entry);
                Ok(())
            })?;
            self.next = until;
        }
        let Some(first) = segments.iter().rev().find(|first| **first <= self.next) else { return Ok(()) };
        let path = segment::path(self.shard.path(), *first);
        match self.disk.open(&path, false) {
            // Sealed in the meantime: the next call takes it from the tiles.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => self.open = Some((*first, other.context(|| format!("opening `{}`", path.display()))?, START)),
        }
        Ok(())
    }

    fn read(&mut self, stop: u64, each: &mut impl FnMut(u64, &[u8])) -> Result<()> {
        let Some((_, backing, offset)) = &mut self.open else { return Ok(()) };
        let mut block = vec![0; 256 << 10];
        loop {
            let filled = backing.read_at(&mut block, *offset).context(|| format!("reading shard `{}`", self.shard.name()))?;
            let mut rest = block.get(..filled).unwrap_or_default();
            let before = *offset;
            while let Some(frame) = segment::frame(rest).filter(|frame| frame.index <= self.next && self.next < stop) {
                if frame.index == self.next {
                    each(frame.index, frame.payload);
                    self.next += 1;
                }
                *offset += frame.length;
                rest = rest.get(frame.length as usize..).unwrap_or_default();
            }
            if *offset == before {
                return Ok(());
            }
        }
    }
}
