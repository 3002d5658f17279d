//! Where records go first: preallocated files of frames, each with its length, checksum and index.
//!
//! A frame is `length u32 | crc32 u32 | index u64 | back u32 | payload | zeros to a multiple of 8`, little-endian. `back` is how many records of
//! the same write come before it. The writer syncs before it writes on, so a bad frame with a good frame of a *later* write behind it
//! was acknowledged and has been damaged, while a bad frame with none behind it is the torn tail of a write that nobody was told of.

use crate::disk::Disk;
use crate::encoding::MAX_RECORD;
use creto_enablement_common::{Error, ErrorKind, Result, ResultExt};
use std::path::{Path, PathBuf};

/// The folder of segments in a shard.
pub const FOLDER: &str = "segments";
/// A segment that is ready and not yet in use.
pub const NEXT: &str = "next";
/// Where frames begin.
pub const START: u64 = 512;
const HEAD: usize = 20;
const MAGIC: [u8; 8] = *b"CRETOSG1";

/// How many bytes a frame takes.
pub const fn frame_length(payload: usize) -> u64 {
    (HEAD + payload).next_multiple_of(8) as u64
}

/// The longest frame.
pub const MAX_FRAME: u64 = frame_length(MAX_RECORD);

/// The name of the segment that begins with a record.
pub fn path(shard: &Path, first: u64) -> PathBuf {
    shard.join(FOLDER).join(format!("{first:016x}"))
}

/// Appends a frame.
pub fn push(out: &mut Vec<u8>, index: u64, back: u32, payload: &[u8]) {
    let length = (payload.len() as u32).to_le_bytes();
    let mut crc = crc32fast::Hasher::new();
    crc.update(&length);
    crc.update(&index.to_le_bytes());
    crc.update(&back.to_le_bytes());
    crc.update(payload);
    out.extend_from_slice(&length);
    out.extend_from_slice(&crc.finalize().to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(&back.to_le_bytes());
    out.extend_from_slice(payload);
    let padded = out.len().next_multiple_of(8);
    out.resize(padded, 0);
}

/// A frame that is whole.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Which record.
    pub index: u64,
    /// The first record of the write that brought it.
    pub write: u64,
    /// The record.
    pub payload: &'a [u8],
    /// Bytes to the next frame.
    pub length: u64,
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The frame at the start of `bytes`, if a whole one is there.
pub fn frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let length = u32::from_le_bytes(word(bytes, 0)?);
    let crc = u32::from_le_bytes(word(bytes, 4)?);
    let index = u64::from_le_bytes(word(bytes, 8)?);
    let back = u32::from_le_bytes(word(bytes, 16)?);
    if length as usize > MAX_RECORD || length == 0 {
        return None;
    }
    let payload = bytes.get(HEAD..HEAD + length as usize)?;
    let mut hash = crc32fast::Hasher::new();
    hash.update(bytes.get(0..4)?);
    hash.update(bytes.get(8..HEAD)?);
    hash.update(payload);
    (hash.finalize() == crc).then_some(Frame {
        index,
        write: index.checked_sub(u64::from(back))?,
        payload,
        length: frame_length(payload.len()),
    })
}

/// The block that a segment begins with.
pub fn header(first: u64) -> [u8; START as usize] {
    let mut block = [0; START as usize];
    let crc = crc32fast::hash(&first.to_le_bytes());
    for (at, value) in [(0, &MAGIC[..]), (8, &first.to_le_bytes()), (16, &crc.to_le_bytes())] {
        if let Some(place) = block.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    }
    block
}

/// The first record of a segment, as its header has it.
fn first_of(bytes: &[u8]) -> Option<u64> {
    let first: [u8; 8] = word(bytes, 8)?;
    (word::<8>(bytes, 0)? == MAGIC && word::<4>(bytes, 16)? == crc32fast::hash(&first).to_le_bytes()).then(|| u64::from_le_bytes(first))
}

/// The first records of all segments of a shard, in order.
pub fn all(disk: &dyn Disk, shard: &Path) -> Result<Vec<u64>> {
    let folder = shard.join(FOLDER);
    let names = match disk.list(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context(|| format!("listing `{}`", folder.display()))?,
    };
    Ok(names.iter().filter(|name| name.len() == 16).filter_map(|name| u64::from_str_radix(name, 16).ok()).collect())
}

/// Where the frames of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The record that would come next.
    pub next: u64,
    /// The byte at which it would stand.
    pub offset: u64,
}

/// Calls `each` with the frames of a segment from record `first` on, in order, and says where they end.
///
/// # Errors
/// `Integrity` where a frame that was acknowledged is damaged: a good frame of a later write stands behind it.
pub fn scan(bytes: &[u8], first: u64, place: &Path, mut each: impl FnMut(&Frame<'_>) -> Result<()>) -> Result<End> {
    let damaged = |what: String| Error::new(ErrorKind::Integrity).with_context(what).with_context(format!("reading `{}`", place.display()));
    let mut end = End { next: first, offset: START };
    if first_of(bytes) != Some(first) {
        // The header was synced before the segment got its name.
        return Err(damaged("the header of the segment is damaged".into()));
    }
    while let Some(frame) = bytes.get(end.offset as usize..).and_then(frame).filter(|frame| frame.index == end.next) {
        each(&frame)?;
        end = End { next: end.next + 1, offset: end.offset + frame.length };
    }
    let mut behind = end.offset as usize + 8;
    while let Some(rest) = bytes.get(behind..).filter(|rest| rest.len() > HEAD) {
        // Most of what is left is zeros; else the index decides first, since it is cheap.
        if word::<8>(rest, 0) == Some([0; 8]) {
            behind += 8;
            continue;
        }
        let index = word::<8>(rest, 8).map_or(0, u64::from_le_bytes);
        if index > end.next
            && index - end.next < bytes.len() as u64
            && let Some(later) = frame(rest)
            && later.write > end.next
        {
            return Err(damaged(format!("record {} is damaged, while record {} behind it is whole", end.next, later.index)));
        }
        behind += 8;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(first: u64, writes: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let mut bytes = header(first).to_vec();
        let mut index = first;
        for write in writes {
            for (back, payload) in write.iter().enumerate() {
                push(&mut bytes, index, back as u32, payload);
                index += 1;
            }
        }
        bytes.resize(bytes.len() + 4096, 0);
        bytes
    }

    fn writes() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let payload = proptest::collection::vec(any::<u8>(), 1..80);
        proptest::collection::vec(proptest::collection::vec(payload, 1..5), 0..8)
    }

    proptest! {
        #[test]
        fn frames_are_read_back(first in 0_u64..1_000, writes in writes()) {
            let bytes = segment(first, &writes);
            let mut read = Vec::new();
            let end = scan(&bytes, first, Path::new("x"), |f| { read.push(f.payload.to_vec()); Ok(()) }).unwrap();
            let all: Vec<Vec<u8>> = writes.concat();
            prop_assert_eq!(end.next, first + all.len() as u64);
            prop_assert_eq!(read, all);
        }

        #[test]
        fn damage_in_an_acknowledged_write_is_told_and_in_the_last_write_is_cut(first in 0_u64..1_000, writes in writes(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut bytes = segment(first, &writes);
            let used = bytes.len() - 4096;
            prop_assume!(used > START as usize);
            let at = START as usize + at.index(used - START as usize);
            bytes[at] ^= flip;
            let mut read = 0_u64;
            let result = scan(&bytes, first, Path::new("x"), |_| { read += 1; Ok(()) });
            let total: u64 = writes.iter().map(|w| w.len() as u64).sum();
            let last = total - writes.last().map_or(0, |w| w.len() as u64);
            match result {
                // Padding is not covered by the checksum and carries nothing.
                Ok(_) => prop_assert!(read >= last),
                Err(e) => { prop_assert_eq!(e.kind(), &ErrorKind::Integrity); prop_assert!(read < last); }
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let _ = frame(&bytes);
            let _ = scan(&bytes, 0, Path::new("x"), |_| Ok(()));
        }
    }

    #[test]
    fn frames_left_over_in_a_segment_used_again_are_not_taken_for_new_ones() {
        let old = segment(0, &vec![vec![vec![7; 40]]; 20]);
        let mut bytes = old.clone();
        bytes[..START as usize].copy_from_slice(&header(20));
        let mut new = Vec::new();
        push(&mut new, 20, 0, &[9; 40]);
        bytes[START as usize..START as usize + new.len()].copy_from_slice(&new);
        assert_eq!(scan(&bytes, 20, Path::new("x"), |_| Ok(())).unwrap().next, 21);
    }
}
