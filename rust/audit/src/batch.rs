//! Batches that records stand for: bytes in files beside a shard's segments, appended, and on disk before the record that tells their place.
//!
//! The record holds the batch's Merkle root and where its bytes lie; what the root is a root of is its owner's affair, who checks it on reading.

use crate::disk::{Backing, Disk};
use creto_enablement_common::sync::Mutex;
use creto_enablement_common::{Error, ErrorKind, Result, ResultExt};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FOLDER: &str = "batches";
/// A file that has so many bytes is followed by another.
const LARGEST: u64 = 256 << 20;

/// Where the bytes of a batch lie in its shard: `file:offset:length`, as the record's detail tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlace {
    file: u32,
    offset: u64,
    length: u32,
}

impl fmt::Display for BatchPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.offset, self.length)
    }
}

impl BatchPlace {
    /// Reads what `Display` wrote.
    ///
    /// # Errors
    /// `Integrity` for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().and_then(|part| part.parse::<u64>().ok());
        let (file, offset, length) = (part(), part(), part());
        let whole = (|| Some(Self { file: u32::try_from(file?).ok()?, offset: offset?, length: u32::try_from(length?).ok()? }))();
        whole.ok_or_else(|| Error::new(ErrorKind::Integrity).with_context(format!("`{text}` is no place of a batch")))
    }
}

fn path(shard: &Path, file: u32) -> PathBuf {
    shard.join(FOLDER).join(format!("{file:06}"))
}

#[derive(Default)]
struct Open {
    backing: Option<Arc<dyn Backing>>,
    file: u32,
    end: u64,
}

/// The batches of a shard, for the one that holds it.
pub struct Batches {
    disk: Arc<dyn Disk>,
    shard: PathBuf,
    open: Mutex<Open>,
    /// Written since the last sync.
    written: Mutex<Vec<Arc<dyn Backing>>>,
}

impl Batches {
    pub fn new(disk: Arc<dyn Disk>, shard: &Path) -> Self {
        Self { disk, shard: shard.to_owned(), open: Mutex::default(), written: Mutex::default() }
    }

    /// Writes the bytes of a batch; they are on disk with the next record that is enqueued after this.
    pub fn keep(&self, bytes: &[u8]) -> Result<BatchPlace> {
        let failed = || format!("keeping a batch of {} bytes in `{}`", bytes.len(), self.shard.display());
        let length = u32::try_from(bytes.len()).map_err(|_| Error::invalid("a batch holds less than 4 GiB"))?;
        let (backing, place) = self.place(length).map_err(|e| told(e).with_context(failed()))?;
        // Outside the lock: those who keep batches at once write side by side. What a failed write leaves, no record names.
        backing.write_at(bytes, place.offset).map_err(|e| told(e).with_context(failed()))?;
        let mut written = self.written.lock();
        if !written.iter().any(|other| Arc::ptr_eq(other, &backing)) {
            written.push(backing);
        }
        Ok(place)
    }

    fn place(&self, length: u32) -> io::Result<(Arc<dyn Backing>, BatchPlace)> {
        let mut open = self.open.lock();
        let full = open.end + u64::from(length) > LARGEST && open.end > 0;
        let backing = match &open.backing {
            Some(backing) if !full => Arc::clone(backing),
            _ => {
                let folder = self.shard.join(FOLDER);
                self.disk.make_folder(&folder)?;
                // A file of one's own each time: what an earlier holder left half-written at an end stays as it is.
                let last = self.disk.list(&folder)?.iter().filter_map(|name| name.parse::<u32>().ok()).max();
                let file = last.map_or(0, |last| last + 1);
                let backing: Arc<dyn Backing> = self.disk.open(&path(&self.shard, file), true)?.into();
                self.disk.sync_folder(&folder)?;
                self.disk.sync_folder(&self.shard)?;
                *open = Open { backing: Some(Arc::clone(&backing)), file, end: 0 };
                backing
            }
        };
        let place = BatchPlace { file: open.file, offset: open.end, length };
        open.end += u64::from(length);
        Ok((backing, place))
    }

    /// Returns once all that was kept is on disk. An error is final, as that of a segment is.
    pub fn sync(&self) -> Result<()> {
        let written = std::mem::take(&mut *self.written.lock());
        for backing in written {
            backing.sync().context(|| format!("syncing the batches of `{}`", self.shard.display()))?;
        }
        Ok(())
    }
}

fn told(e: io::Error) -> Error {
    let full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    if full { Error::new(ErrorKind::LedgerFull).with_source(e) } else { Error::from(e) }
}

/// The bytes of a batch of a shard. Whether they are the ones that were recorded, their root says.
///
/// # Errors
/// `Integrity` where they are missing.
pub fn read(disk: &dyn Disk, shard: &Path, place: &BatchPlace) -> Result<Vec<u8>> {
    let path = path(shard, place.file);
    disk.read_part(&path, place.offset, place.length as usize).map_err(|e| {
        let gone = matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof);
        let error = if gone { Error::new(ErrorKind::Integrity) } else { Error::from(e) };
        error.with_context(format!("the batch at {place} is not in `{}`", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Machine;

    #[test]
    fn batches_are_read_back_from_their_places_also_those_of_an_earlier_holder() {
        let shard = std::env::temp_dir().join(format!("creto-batch-{}", std::process::id()));
        let kept: Vec<BatchPlace> = (0..2_u8)
            .flat_map(|holder| {
                let batches = Batches::new(Arc::new(Machine), &shard);
                let places: Vec<BatchPlace> = (0..3_u8).map(|n| batches.keep(&[holder * 3 + n; 5]).unwrap()).collect();
                batches.sync().unwrap();
                places
            })
            .collect();
        for (number, place) in kept.iter().enumerate() {
            assert_eq!(BatchPlace::parse(&place.to_string()).unwrap(), *place);
            assert_eq!(read(&Machine, &shard, place).unwrap(), [number as u8; 5]);
        }
        assert_eq!(kept[4].to_string(), "1:5:5");
        let beyond = BatchPlace::parse("1:11:5").unwrap();
        for missing in [beyond, BatchPlace::parse("9:0:5").unwrap()] {
            let error = read(&Machine, &shard, &missing).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::Integrity);
            assert!(error.to_string().contains("is not in"), "{error}");
        }
        assert!(BatchPlace::parse("1:2").is_err());
        std::fs::remove_dir_all(shard).unwrap();
    }
}
