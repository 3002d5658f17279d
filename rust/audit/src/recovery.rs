//! What a writer does before its first record: finds where the last one of its predecessor ended, and derives what of the tiles is missing.

use crate::disk::Disk;
use crate::reader::Shard;
use crate::reserve::{make_segment, remove_spares};
use crate::sealed;
use crate::segment::{self, START};
use crate::tree::Tree;
use crate::writer::Ready;
use creto_enablement_common::{Error, ErrorKind, Result, ResultExt};
use std::path::Path;
use std::sync::Arc;

/// A shard that is ready to be written.
pub struct Recovered {
    pub tree: Tree,
    pub current: Ready,
    pub offset: u64,
    /// Records that the checkpoint on disk covers, where it fits the tree.
    pub published: u64,
    /// Records that were taken from segments.
    pub replayed: u64,
    /// Bytes of all segments, and whether any but the present one is there.
    pub live: u64,
    pub ended: bool,
}

/// Finds the end of a shard and makes it ready.
///
/// # Errors
/// `Integrity` where acknowledged records are damaged or missing: nothing is cut off then, and nothing written.
pub fn recover(disk: &Arc<dyn Disk>, shard: &Path, smallest: u64) -> Result<Recovered> {
    let reader = Shard::open(Arc::clone(disk), shard);
    let (sealed, root) = sealed::read(&**disk, shard)?;
    let mut tree = Tree::load(&**disk, shard, sealed, &root)?;
    let segments = segment::all(&**disk, shard)?;
    let (mut last, mut live) = (None, 0);
    for (at, first) in segments.iter().enumerate() {
        let path = segment::path(shard, *first);
        let damaged =
            |what: String| Error::new(ErrorKind::Integrity).with_context(what).with_context(format!("reading `{}`", path.display()));
        if *first > tree.size() {
            return Err(damaged(format!("the segment begins with record {first}, but what comes before ends with record {}", tree.size())));
        }
        let bytes = disk.read(&path).context(|| format!("reading `{}`", path.display()))?;
        live += bytes.len() as u64;
        let end =
            segment::scan(
                &bytes,
                *first,
                &path,
                |frame| if frame.index == tree.size() { tree.push(&**disk, frame.payload) } else { Ok(()) },
            )?;
        match segments.get(at + 1) {
            Some(next) if *next != end.next => {
                return Err(damaged(format!("the segment ends before record {}, but the next one begins with record {next}", end.next)));
            }
            Some(_) => {}
            None if end.next < tree.size() => {
                return Err(damaged(format!("the segment ends before record {}, but {} records were sealed", end.next, tree.size())));
            }
            None => last = Some((path, bytes, end.offset)),
        }
    }
    let published = match reader.checkpoint()? {
        Some((_, checkpoint)) if checkpoint.size > tree.size() => {
            let what = format!("a checkpoint over {} records was published, but only {} are there", checkpoint.size, tree.size());
            return Err(Error::new(ErrorKind::Integrity).with_context(what).with_context(format!("recovering `{}`", shard.display())));
        }
        Some((_, checkpoint)) if checkpoint.size == tree.size() && checkpoint.root != tree.root() => {
            let what = format!("the records do not lead to the root that was published over {} of them", checkpoint.size);
            return Err(Error::new(ErrorKind::Integrity).with_context(what).with_context(format!("recovering `{}`", shard.display())));
        }
        // What was replayed is published anew: the tiles of that checkpoint may have been lost.
        Some((_, checkpoint)) if checkpoint.size == sealed => sealed,
        _ => 0,
    };
    remove_spares(&**disk, shard)?;
    let (current, offset) = match last {
        Some((path, bytes, offset)) => {
            let backing = disk.open(&path, false).context(|| format!("opening `{}`", path.display()))?;
            // What is left of a torn write must not be taken for records that follow the next ones.
            if bytes.get(offset as usize..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0)) {
                let cut = backing.write_at(&vec![0; bytes.len() - offset as usize], offset).and_then(|()| backing.sync());
                cut.context(|| format!("cutting the torn end of `{}`", path.display()))?;
            }
            (Ready { backing, capacity: bytes.len() as u64 }, offset)
        }
        None => (first_segment(&**disk, shard, tree.size(), smallest)?, START),
    };
    let live = live.max(current.capacity);
    Ok(Recovered { replayed: tree.size() - sealed, published, tree, current, offset, live, ended: segments.len() > 1 })
}

fn first_segment(disk: &dyn Disk, shard: &Path, first: u64, capacity: u64) -> Result<Ready> {
    let folder = shard.join(segment::FOLDER);
    disk.make_folder(&folder).context(|| format!("making `{}`", folder.display()))?;
    let ready = make_segment(disk, shard, capacity)?;
    let begun = ready.backing.write_at(&segment::header(first), 0).and_then(|()| ready.backing.sync());
    let named = begun.and_then(|()| disk.rename(&folder.join(segment::NEXT), &segment::path(shard, first)));
    named
        .and_then(|()| disk.sync_folder(&folder))
        .and_then(|()| disk.sync_folder(shard))
        .context(|| format!("making the first segment of `{}`", shard.display()))?;
    Ok(ready)
}
