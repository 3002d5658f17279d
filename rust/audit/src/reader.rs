//! A shard as a reader has it, in this process or another: its checkpoint, its entries, its proofs. Never writes, never locks.

use crate::checkpoints::CHECKPOINT;
use crate::disk::Disk;
use crate::encoding::{self, Field};
use crate::kept::{Kept, Tile};
use crate::merkle::{self, Nodes};
use crate::note::{Checkpoint, Note};
use crate::segment;
use crate::tile::{self, HEIGHT, Kind, WIDTH};
use creto_enablement_common::sync::Mutex;
use creto_enablement_common::{Digest, Error, ErrorKind, Result, ResultExt};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much older than a record all of a bundle must be before no earlier bundle is looked at (microseconds).
const SLACK: u64 = 600_000_000;

/// One shard, for reading.
#[derive(Clone)]
pub struct Shard {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    kept: Arc<Kept>,
}

impl Shard {
    /// The shard in a folder; nothing is read yet.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Self {
        Self { disk, path: path.to_owned(), kept: Arc::default() }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its folder's name.
    pub fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Its latest checkpoint, signatures unchecked; none before the first.
    ///
    /// # Errors
    /// `Integrity` where there is one that cannot be read.
    pub fn checkpoint(&self) -> Result<Option<(Note, Checkpoint)>> {
        let path = self.path.join(CHECKPOINT);
        let bytes = match self.disk.read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.context(|| format!("reading `{}`", path.display()))?,
        };
        let read = Note::parse(&bytes).and_then(|note| Checkpoint::parse(&note.text).map(|checkpoint| (note, checkpoint)));
        read.map(Some).map_err(|e| Error::new(ErrorKind::Integrity).with_source(e).with_context(format!("reading `{}`", path.display())))
    }

    /// The shard as of a tree size, which a checkpoint must have named.
    pub fn at(&self, size: u64) -> View<'_> {
        View { shard: self, size, tiles: Mutex::default(), keeps: false }
    }

    /// The same, with upper tiles that earlier views like it have read, or, `anew`, with none of them.
    pub(crate) fn keeping(&self, size: u64, anew: bool) -> View<'_> {
        if anew {
            self.kept.forget();
        }
        View { keeps: true, ..self.at(size) }
    }

    fn tile(&self, kind: Kind, index: u64, size: u64) -> Result<Vec<u8>> {
        let level = if let Kind::Hashes(level) = kind { level } else { 0 };
        let width = tile::width(level, index, size);
        let read = |width| self.disk.read(&tile::path(&self.path, kind, index, width));
        let found = match read(width) {
            // A partial tile goes when its full one is there; entries of it are a prefix of the full one.
            Err(e) if e.kind() == io::ErrorKind::NotFound && width < WIDTH => read(WIDTH),
            other => other,
        };
        found.map_err(|e| {
            let path = tile::path(&self.path, kind, index, width);
            match e.kind() {
                io::ErrorKind::NotFound => Error::new(ErrorKind::Integrity).with_context(format!("`{}` is missing", path.display())),
                _ => Error::from(e).with_context(format!("reading `{}`", path.display())),
            }
        })
    }

    /// The records behind the first `from`, which no checkpoint covers yet: calls `each` with index and bytes.
    ///
    /// # Errors
    /// `Integrity` where acknowledged frames are damaged.
    pub fn tail(&self, from: u64, mut each: impl FnMut(u64, &[u8])) -> Result<()> {
        let mut next = from;
        while !self.segments_from(&mut next, &mut each)? {}
        Ok(())
    }

    /// Reads the segments that there are now; false where one has been sealed meanwhile, and its records were taken from the tiles instead.
    fn segments_from(&self, next: &mut u64, each: &mut impl FnMut(u64, &[u8])) -> Result<bool> {
        for first in segment::all(&*self.disk, &self.path)? {
            let path = segment::path(&self.path, first);
            let read = self.disk.read(&path);
            let scanned = read.context(|| format!("reading `{}`", path.display())).and_then(|bytes| {
                segment::scan(&bytes, first, &path, |frame| {
                    if frame.index >= *next {
                        each(frame.index, frame.payload);
                        *next = frame.index + 1;
                    }
                    Ok(())
                })
            });
            // What has lost its name is used again, perhaps while it was read.
            if self.disk.length(&path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                *next = (*next).max(first);
                let size = self.checkpoint()?.map_or(0, |(_, checkpoint)| checkpoint.size);
                if size > *next {
                    self.at(size).each_entry(*next, size, |index, entry| {
                        each(index, entry);
                        Ok(())
                    })?;
                    *next = size;
                }
                return Ok(false);
            }
            scanned?;
        }
        Ok(true)
    }

    /// Calls `each` with index, whether the latest checkpoint covers it, and bytes of each of these records, in order; those that are not there are
    /// passed over.
    ///
    /// # Errors
    /// `Integrity` where a bundle or an acknowledged frame is damaged, or what `each` returned.
    pub fn pick(&self, wanted: &BTreeSet<u64>, mut each: impl FnMut(u64, bool, &[u8]) -> Result<()>) -> Result<()> {
        let size = self.checkpoint()?.map_or(0, |(_, checkpoint)| checkpoint.size);
        let view = self.at(size);
        let mut covered = wanted.range(..size).copied().peekable();
        while let Some(first) = covered.next() {
            // Those of one bundle at once: it is one file.
            let end = (first / WIDTH + 1) * WIDTH;
            let mut last = first;
            while let Some(next) = covered.next_if(|next| *next < end) {
                last = next;
            }
            view.each_entry(first, last + 1, |index, entry| if wanted.contains(&index) { each(index, true, entry) } else { Ok(()) })?;
        }
        let mut outcome = Ok(());
        if wanted.range(size..).next().is_some() {
            self.tail(size, |index, entry| {
                if outcome.is_ok() && wanted.contains(&index) {
                    outcome = each(index, false, entry);
                }
            })?;
        }
        outcome
    }

    /// True where a record with this id is on disk; `timestamp` (a word) is the record's own.
    ///
    /// A record is appended after its timestamp, so bundles that are older throughout end the search.
    pub fn appended_since(&self, timestamp: u64, id: &[u8; 16]) -> Result<bool> {
        let (mut found, mut from) = (false, u64::MAX);
        self.tail(0, |index, entry| {
            from = from.min(index);
            // A frame whose checksum holds is what the writer wrote; what else it may be is for `verify` to say.
            let _ = encoding::walk(entry, |field| found |= field == Field::Id(*id));
        })?;
        let sealed = crate::sealed::read(&*self.disk, &self.path)?.0;
        let mut end = sealed.min(from);
        let oldest = timestamp.saturating_sub(SLACK << creto_enablement_common::Timestamp::LOGICAL_BITS);
        while !found && end > 0 {
            let start = (end - 1) / WIDTH * WIDTH;
            let mut latest = 0;
            self.at(sealed).each_entry(start, end, |_, entry| {
                encoding::walk(entry, |field| match field {
                    Field::Id(other) => found |= other == *id,
                    Field::Timestamp(timestamp) => latest = latest.max(timestamp.word()),
                    _ => {}
                })
            })?;
            if latest < oldest {
                break;
            }
            end = start;
        }
        Ok(found)
    }
}

/// Hash tiles by level and index.
type Tiles = HashMap<(u32, u64), Arc<Tile>>;

/// A shard as of one tree size.
pub struct View<'a> {
    shard: &'a Shard,
    size: u64,
    tiles: Mutex<Tiles>,
    keeps: bool,
}

impl View<'_> {
    /// How many records.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Calls `each` with the entries from `start` to before `end`.
    ///
    /// # Errors
    /// `Integrity` where a bundle is missing or malformed; `NotFound` past the size; or what `each` returned.
    pub fn each_entry(&self, start: u64, end: u64, mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        if end > self.size {
            return Err(Error::new(ErrorKind::NotFound).with_context(format!("record {} of a tree of {}", end - 1, self.size)));
        }
        let mut index = start;
        while index < end {
            let tile = index / WIDTH;
            let bundle = self.shard.tile(Kind::Entries, tile, self.size)?;
            let mut entries = tile::Bundle::new(&bundle);
            let mut at = tile * WIDTH;
            let stop = end.min((tile + 1) * WIDTH);
            while at < stop {
                let entry = entries.next().ok_or_else(|| {
                    Error::new(ErrorKind::Integrity)
                        .with_context(format!("record {at} is missing from its bundle in `{}`", self.shard.path.display()))
                })?;
                if at >= index {
                    each(at, entry)?;
                }
                at += 1;
            }
            index = stop;
        }
        Ok(())
    }

    /// One entry.
    pub fn entry(&self, index: u64) -> Result<Vec<u8>> {
        let mut found = Vec::new();
        self.each_entry(index, index + 1, |_, entry| {
            found.extend_from_slice(entry);
            Ok(())
        })?;
        Ok(found)
    }

    /// The shard.
    pub const fn shard(&self) -> &Shard {
        self.shard
    }

    /// The bytes of one entry bundle.
    pub fn bundle(&self, index: u64) -> Result<Vec<u8>> {
        self.shard.tile(Kind::Entries, index, self.size)
    }

    /// One hash tile, as wide as the size says; kept, since a proof asks for a tile more than once.
    pub(crate) fn tile(&self, level: u32, index: u64) -> Result<Arc<Tile>> {
        if let Some(tile) = self.tiles.lock().get(&(level, index)) {
            return Ok(Arc::clone(tile));
        }
        let place = (level, index, tile::width(level, index, self.size));
        let tile = match self.keeps.then(|| self.shard.kept.tile(place)).flatten() {
            Some(tile) => tile,
            None => {
                let tile = Arc::new(Tile::new(self.read_tile(level, index)?));
                if self.keeps {
                    self.shard.kept.keep(place, &tile);
                }
                tile
            }
        };
        self.tiles.lock().insert((level, index), Arc::clone(&tile));
        Ok(tile)
    }

    /// The hashes of one tile, as wide as the size says.
    pub fn read_tile(&self, level: u32, index: u64) -> Result<Vec<Digest>> {
        let width = tile::width(level, index, self.size) as usize;
        let bytes = self.shard.tile(Kind::Hashes(level), index, self.size)?;
        let mut hashes = tile::hashes(&bytes).filter(|hashes| hashes.len() >= width && width > 0).ok_or_else(|| {
            let path = tile::path(&self.shard.path, Kind::Hashes(level), index, width as u64);
            Error::new(ErrorKind::Integrity).with_context(format!("`{}` does not hold {width} hashes", path.display()))
        })?;
        hashes.truncate(width);
        Ok(hashes)
    }

    /// The root over all records of this size, from the tiles.
    pub fn root(&self) -> Result<Digest> {
        merkle::root(self, self.size)
    }

    /// The inclusion proof of a record.
    pub fn inclusion(&self, index: u64) -> Result<Vec<Digest>> {
        merkle::inclusion(self, index, self.size)
    }

    /// The consistency proof from an earlier size.
    pub fn consistency(&self, old: u64) -> Result<Vec<Digest>> {
        merkle::consistency(self, old, self.size)
    }
}

impl Nodes for View<'_> {
    fn node(&self, level: u32, index: u64) -> Result<Digest> {
        let within = level % HEIGHT;
        let first = index << within;
        let tile = self.tile(level / HEIGHT, first / WIDTH)?;
        tile.node(within, ((first % WIDTH) >> within) as usize).copied().ok_or_else(|| {
            Error::new(ErrorKind::Integrity)
                .with_context(format!("a node of the tree in `{}` is not in its tile", self.shard.path.display()))
        })
    }
}
