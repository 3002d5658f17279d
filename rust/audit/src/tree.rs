//! The tree as it grows: full tiles and bundles are written when they fill, partial ones when a checkpoint needs them.

use crate::disk::{self, Disk};
use crate::merkle::{Edge, leaf_hash, root_of};
use crate::sealer::Job;
use crate::tile::{self, HEIGHT, Kind, WIDTH};
use creto_enablement_common::{Digest, Error, ErrorKind, Result, ResultExt};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// The right edge of the tiles of one shard.
pub struct Tree {
    shard: PathBuf,
    size: u64,
    /// The hashes of the tile of each level that is not full yet.
    levels: Vec<Vec<Digest>>,
    bundle: Vec<u8>,
    /// What has been written since sealing last began.
    unsynced: BTreeSet<PathBuf>,
    /// Partial tiles whose full tile has been written.
    outgrown: Vec<PathBuf>,
    /// The size that was last sealed: recovery begins with its partial tiles, and their full tiles may not be on disk yet.
    sealed: u64,
    /// The size that is being sealed, if one is.
    sealing: Option<u64>,
    /// The partial tile of each kind that was written last, or was sealed: index and width. It is not written again, since that would take
    /// from disk what may have been sealed.
    partial: BTreeMap<Kind, (u64, u64)>,
}

impl Tree {
    /// The tree of no records.
    pub fn new(shard: &Path) -> Self {
        Self {
            shard: shard.to_owned(),
            size: 0,
            levels: Vec::new(),
            bundle: Vec::new(),
            unsynced: BTreeSet::new(),
            outgrown: Vec::new(),
            sealed: 0,
            sealing: None,
            partial: BTreeMap::new(),
        }
    }

    /// The tree of `size` records, from its tiles on disk.
    ///
    /// # Errors
    /// `Integrity` where a tile is missing, has another width, or leads to another root.
    pub fn load(disk: &dyn Disk, shard: &Path, size: u64, root: &Digest) -> Result<Self> {
        let mut tree = Self::new(shard);
        tree.size = size;
        tree.sealed = size;
        let mut level = 0;
        while let Some(nodes) = size.checked_shr(HEIGHT * level).filter(|nodes| *nodes > 0) {
            let width = nodes % WIDTH;
            tree.levels.push(if width == 0 {
                Vec::new()
            } else {
                let bytes = read(disk, &tile::path(shard, Kind::Hashes(level), nodes / WIDTH, width))?;
                tile::hashes(&bytes).filter(|hashes| hashes.len() as u64 == width).ok_or_else(|| damaged(shard, size))?
            });
            level += 1;
        }
        if !size.is_multiple_of(WIDTH) {
            tree.bundle = read(disk, &tile::path(shard, Kind::Entries, size / WIDTH, size % WIDTH))?;
            let entries = tile::entries(&tree.bundle, size % WIDTH)?;
            if tree.levels.first().is_none_or(|hashes| !entries.iter().map(|e| leaf_hash(e)).eq(hashes.iter().copied())) {
                return Err(damaged(shard, size));
            }
        }
        for (level, index, width) in partial(size) {
            tree.partial.insert(Kind::Hashes(level), (index, width));
            if level == 0 {
                tree.partial.insert(Kind::Entries, (index, width));
            }
        }
        if tree.root() == *root { Ok(tree) } else { Err(damaged(shard, size)) }
    }

    /// How many records.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root over all of them.
    pub fn root(&self) -> Digest {
        let roots = self.levels.iter().rev().flat_map(|hashes| {
            let mut edge = Edge::default();
            hashes.iter().for_each(|hash| edge.push(*hash));
            edge.roots().to_vec()
        });
        // INVARIANT: a tile of width w holds one root for each bit of w, so the number of roots fits the size.
        Edge::from_parts(self.size, roots.collect()).unwrap_or_default().root()
    }

    /// Adds a record; writes what becomes full.
    pub fn push(&mut self, disk: &dyn Disk, entry: &[u8]) -> Result<()> {
        // What can fail comes before what counts, so that the same record can be pushed again after a full disk.
        let full = self.size % WIDTH == WIDTH - 1;
        tile::push_entry(&mut self.bundle, entry);
        let leaf = leaf_hash(entry);
        if !full {
            match self.levels.first_mut() {
                Some(first) => first.push(leaf),
                None => self.levels.push(vec![leaf]),
            }
            self.size += 1;
            return Ok(());
        }
        let kept = self.bundle.len() - entry.len() - 2;
        let mut bundle = std::mem::take(&mut self.bundle);
        let result = self.fill(disk, &bundle, leaf);
        bundle.truncate(if result.is_ok() { 0 } else { kept });
        self.bundle = bundle;
        result
    }

    /// Adds the record that fills a bundle, and with it one tile or more.
    fn fill(&mut self, disk: &dyn Disk, bundle: &[u8], leaf: Digest) -> Result<()> {
        self.write(disk, Kind::Entries, self.size / WIDTH, WIDTH, bundle)?;
        let mut hash = leaf;
        let mut level = 0;
        let mut filled = Vec::new();
        loop {
            let mut hashes = self.levels.get(level as usize).cloned().unwrap_or_default();
            hashes.push(hash);
            let full = hashes.len() as u64 == WIDTH;
            if full {
                self.write(
                    disk,
                    Kind::Hashes(level),
                    self.size.checked_shr(HEIGHT * (level + 1)).unwrap_or(0),
                    WIDTH,
                    hashes.as_flattened(),
                )?;
                hash = root_of(&hashes);
                hashes.clear();
            }
            filled.push(hashes);
            level += 1;
            if !full {
                break;
            }
        }
        for (level, hashes) in filled.into_iter().enumerate() {
            match self.levels.get_mut(level) {
                Some(place) => *place = hashes,
                None => self.levels.push(hashes),
            }
        }
        self.size += 1;
        Ok(())
    }

    fn write(&mut self, disk: &dyn Disk, kind: Kind, index: u64, width: u64, bytes: &[u8]) -> Result<()> {
        if width < WIDTH && self.partial.get(&kind) == Some(&(index, width)) {
            return Ok(());
        }
        let path = tile::path(&self.shard, kind, index, width);
        disk::write_whole(disk, &path, bytes, false).context(|| format!("writing `{}`", path.display()))?;
        if width < WIDTH {
            self.partial.insert(kind, (index, width));
        } else if self.partial.get(&kind).is_some_and(|(partial, _)| *partial == index) {
            self.outgrown.push(tile::path(&self.shard, kind, index, 1));
        }
        self.unsynced.insert(path);
        Ok(())
    }

    /// Writes the partial tiles that a checkpoint over the present size needs.
    pub fn write_partial(&mut self, disk: &dyn Disk) -> Result<()> {
        for level in 0..self.levels.len() {
            let Some(hashes) = self.levels.get(level).filter(|hashes| !hashes.is_empty()) else { continue };
            let (bytes, width) = (hashes.as_flattened().to_vec(), hashes.len() as u64);
            let level = level as u32;
            self.write(disk, Kind::Hashes(level), self.size.checked_shr(HEIGHT * (level + 1)).unwrap_or(0), width, &bytes)?;
        }
        if !self.size.is_multiple_of(WIDTH) {
            let bundle = std::mem::take(&mut self.bundle);
            let written = self.write(disk, Kind::Entries, self.size / WIDTH, self.size % WIDTH, &bundle);
            self.bundle = bundle;
            written?;
        }
        Ok(())
    }

    /// The tree as it is, to be made durable; its partial tiles are written.
    pub fn begin_seal(&mut self) -> Job {
        self.sealing = Some(self.size);
        Job { size: self.size, root: self.root(), files: std::mem::take(&mut self.unsynced) }
    }

    /// True where the present size has been sealed.
    pub const fn is_sealed(&self) -> bool {
        self.size == self.sealed
    }

    /// Takes note that this size has been sealed.
    pub fn set_sealed(&mut self, size: u64) {
        self.sealing = None;
        let before = std::mem::replace(&mut self.sealed, size);
        self.outgrown.extend(partial(before).filter(|(level, index, _)| tile::width(*level, *index, self.size) == WIDTH).flat_map(
            |(level, index, width)| {
                let bundle = (level == 0).then(|| tile::path(&self.shard, Kind::Entries, index, width));
                bundle.into_iter().chain([tile::path(&self.shard, Kind::Hashes(level), index, width)])
            },
        ));
    }

    /// Removes partial tiles whose full tile is there, but for those of the size that is sealed, or is being sealed.
    pub fn remove_outgrown(&mut self, disk: &dyn Disk) {
        if self.outgrown.is_empty() {
            return;
        }
        let kept: Vec<PathBuf> = [Some(self.sealed), self.sealing]
            .into_iter()
            .flatten()
            .flat_map(partial)
            .flat_map(|(level, index, width)| [Kind::Entries, Kind::Hashes(level)].map(|kind| tile::path(&self.shard, kind, index, width)))
            .collect();
        for one in std::mem::take(&mut self.outgrown) {
            let Some(folder) = one.parent() else { continue };
            // What cannot be removed is clutter, no fault: the full tile is what readers take.
            for name in disk.list(folder).unwrap_or_default() {
                let path = folder.join(name);
                if !kept.contains(&path) {
                    self.unsynced.remove(&path);
                    let _ = disk.remove(&path);
                }
            }
            let _ = disk.remove(folder);
        }
    }
}

/// The partial tiles of a size: level, index, width.
fn partial(size: u64) -> impl Iterator<Item = (u32, u64, u64)> {
    (0..64 / HEIGHT).filter_map(move |level| {
        let nodes = size >> (HEIGHT * level);
        (!nodes.is_multiple_of(WIDTH)).then_some((level, nodes / WIDTH, nodes % WIDTH))
    })
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>> {
    disk.read(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::new(ErrorKind::Integrity).with_context(format!("`{}` is missing", path.display())),
        _ => Error::from(e).with_context(format!("reading `{}`", path.display())),
    })
}

fn damaged(shard: &Path, size: u64) -> Error {
    Error::new(ErrorKind::Integrity)
        .with_context(format!("the tiles of `{}` do not lead to the root over its first {size} records", shard.display()))
}
