//! Checks a whole shard with nothing but its files and the public keys: every entry, every tile, the root, the signatures, and that it extends
//! what was seen of it before.

use crate::encoding;
use crate::merkle::{leaf_hash, root_of, verify_consistency};
use crate::note::{Checkpoint, Note};
use crate::reader::{Shard, View};
use crate::tile::{self, Bundle, WIDTH};
use creto_crypto::VerifyingKey;
use creto_enablement_common::{Digest, Error, ErrorKind, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a shard was found to be.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The checkpoint that all of it leads to.
    pub checkpoint: Checkpoint,
    /// The signed note.
    pub note: Note,
}

/// Checks every record of a shard up to its checkpoint. `keys` are those that may have signed it; one whole set must have. `seen` are
/// checkpoints of this log known from elsewhere. `progress` counts records as they are checked.
///
/// # Errors
/// `Integrity` naming the record or tile that does not fit, `SignatureVerificationFailed`, or `NotFound` where there is no checkpoint.
pub fn verify(shard: &Shard, keys: &[VerifyingKey], seen: &[Checkpoint], progress: &AtomicU64) -> Result<Verified> {
    let none = || Error::new(ErrorKind::NotFound).with_context(format!("a checkpoint in shard `{}`", shard.name()));
    let (note, checkpoint) = match shard.checkpoint()? {
        Some(found) => found,
        // A log that was there and is not any more is no empty log.
        None if !seen.is_empty() => return Err(rolled_back(shard, 0, seen)),
        None => return Err(none()),
    };
    let mut signed = Err(Error::new(ErrorKind::SignatureVerificationFailed).with_context("no key to check it with"));
    for set in keys {
        signed = note.verify(&checkpoint.origin, set);
        if signed.is_ok() {
            break;
        }
    }
    signed.map_err(|e| e.with_context(format!("checking the checkpoint of shard `{}`", shard.name())))?;
    let view = shard.at(checkpoint.size);
    let wrong = |what: String| Error::new(ErrorKind::Integrity).with_context(what).with_context(format!("shard `{}`", shard.name()));
    check_entries(&view, progress)?;
    (2..).take_while(|level| nodes(&view, *level) > 0).try_for_each(|level| {
        (0..nodes(&view, level)).try_for_each(|index| check_above(&view, level, index, &root_of(&view.read_tile(level - 1, index)?)))
    })?;
    if view.root()? != checkpoint.root {
        return Err(wrong(format!("its {} records do not lead to the root of its checkpoint", checkpoint.size)));
    }
    for old in seen.iter().filter(|old| old.origin == checkpoint.origin) {
        if old.size > checkpoint.size {
            return Err(rolled_back(shard, checkpoint.size, seen));
        }
        let proof = view.consistency(old.size)?;
        verify_consistency(old.size, &old.root, checkpoint.size, &checkpoint.root, &proof)
            .map_err(|_| wrong(format!("it is not the log whose checkpoint over {} records was seen before", old.size)))?;
    }
    Ok(Verified { checkpoint, note })
}

fn rolled_back(shard: &Shard, size: u64, seen: &[Checkpoint]) -> Error {
    let most = seen.iter().map(|old| old.size).max().unwrap_or(0);
    Error::new(ErrorKind::Integrity)
        .with_context(format!("it holds {size} records, but a checkpoint over {most} was seen before: it was rolled back"))
        .with_context(format!("shard `{}`", shard.name()))
}

/// Checks that every entry is a record, and that its hash stands in its tile; on as many threads as there are processors.
fn check_entries(view: &View<'_>, progress: &AtomicU64) -> Result<()> {
    let tiles = view.size().div_ceil(WIDTH);
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16).min(tiles.max(1) as usize);
    let work = || -> Result<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= tiles || failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            check_bundle(view, index).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            progress.fetch_add(tile::width(0, index, view.size()), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for other in others {
            result = result.and(other.join().unwrap_or_else(|_| Err(Error::internal("a thread that verifies ended in a panic"))));
        }
        result
    })
}

/// Checks a bundle, its tile, and that the tile's root stands in the tile above.
fn check_bundle(view: &View<'_>, index: u64) -> Result<()> {
    let hashes = view.read_tile(0, index)?;
    let bytes = view.bundle(index)?;
    let mut bundle = Bundle::new(&bytes);
    let wrong = |at: u64, what: &str| {
        Error::new(ErrorKind::Integrity)
            .with_context(format!("record {at} {what}"))
            .with_context(format!("shard `{}`", view.shard().name()))
    };
    for (at, hash) in (index * WIDTH..).zip(hashes.iter()) {
        let entry = bundle.next().ok_or_else(|| wrong(at, "is missing from its bundle"))?;
        if leaf_hash(entry) != *hash {
            return Err(wrong(at, "does not hash to its leaf of the tree"));
        }
        encoding::check(entry).map_err(|e| wrong(at, "is not a record").with_source(e))?;
    }
    if index < nodes(view, 1) { check_above(view, 1, index, &root_of(&hashes)) } else { Ok(()) }
}

/// How many nodes a tile level has: the full tiles of the level below it.
fn nodes(view: &View<'_>, level: u32) -> u64 {
    view.size().checked_shr(tile::HEIGHT * level).unwrap_or(0)
}

/// Checks that a node of an upper tile is the root of the full tile below it.
fn check_above(view: &View<'_>, level: u32, index: u64, below: &Digest) -> Result<()> {
    if view.tile(level, index / WIDTH)?.hashes().get((index % WIDTH) as usize) == Some(below) {
        return Ok(());
    }
    let what = format!("tile {} of level {level} does not fit the tile below it", index / WIDTH);
    Err(Error::new(ErrorKind::Integrity).with_context(what).with_context(format!("shard `{}`", view.shard().name())))
}
