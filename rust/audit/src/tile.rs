//! Where the tree lies on disk: tiles and entry bundles, by the names and in the form of C2SP tlog-tiles.

use creto_enablement_common::{Digest, Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// How many hashes or entries a full tile holds.
pub const WIDTH: u64 = 256;
/// Binary levels between the tile levels.
pub const HEIGHT: u32 = 8;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Entries, each with a 16-bit big-endian length.
    Entries,
    /// Hashes of one level.
    Hashes(u32),
}

/// A tile's name below the folder of its shard; `width` 256 is a full one.
pub fn path(shard: &Path, kind: Kind, index: u64, width: u64) -> PathBuf {
    let mut text = String::from("tile/");
    match kind {
        Kind::Entries => text.push_str("entries"),
        Kind::Hashes(level) => text.push_str(&level.to_string()),
    }
    let mut groups = vec![format!("{:03}", index % 1000)];
    let mut rest = index / 1000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    for group in groups.iter().rev() {
        text.push('/');
        text.push_str(group);
    }
    if width < WIDTH {
        text.push_str(&format!(".p/{width}"));
    }
    shard.join(text)
}

/// How many hashes the tile `index` of a level has in a tree of `size` leaves.
pub fn width(level: u32, index: u64, size: u64) -> u64 {
    let nodes = size.checked_shr(HEIGHT * level).unwrap_or(0);
    nodes.saturating_sub(index * WIDTH).min(WIDTH)
}

/// The hashes of a tile.
pub fn hashes(bytes: &[u8]) -> Option<Vec<Digest>> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    rest.is_empty().then(|| hashes.to_vec())
}

/// The entries of a bundle, one after the other; ends where the next is not whole.
pub struct Bundle<'a> {
    rest: &'a [u8],
}

impl<'a> Bundle<'a> {
    /// Reads from the start of the bundle.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Bundle<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<2>()?;
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        self.rest = rest;
        Some(entry)
    }
}

/// The entries of a bundle that holds exactly `count`.
///
/// # Errors
/// `Integrity` where it does not.
pub fn entries(bytes: &[u8], count: u64) -> Result<Vec<&[u8]>> {
    let mut bundle = Bundle::new(bytes);
    let entries: Vec<&[u8]> = bundle.by_ref().take(count as usize).collect();
    if entries.len() as u64 == count && bundle.rest().is_empty() {
        return Ok(entries);
    }
    Err(Error::new(ErrorKind::Integrity).with_context(format!("an entry bundle does not hold exactly {count} entries")))
}

/// Appends an entry to a bundle; no entry is longer than `encoding::MAX_RECORD`.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) {
    bundle.extend_from_slice(&(entry.len() as u16).to_be_bytes());
    bundle.extend_from_slice(entry);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_those_of_the_specification() {
        let shard = Path::new("s");
        assert_eq!(path(shard, Kind::Hashes(0), 1_234_067, 256), Path::new("s/tile/0/x001/x234/067"));
        assert_eq!(path(shard, Kind::Entries, 0, 17), Path::new("s/tile/entries/000.p/17"));
        assert_eq!(path(shard, Kind::Hashes(2), 1_000, 1), Path::new("s/tile/2/x001/000.p/1"));
    }

    #[test]
    fn widths_are_those_of_the_example_in_the_specification() {
        assert_eq!((width(0, 272, 70_000), width(0, 273, 70_000), width(0, 274, 70_000)), (256, 112, 0));
        assert_eq!((width(1, 0, 70_000), width(1, 1, 70_000), width(2, 0, 70_000)), (256, 17, 1));
    }

    proptest! {
        #[test]
        fn bundles_are_read_back_and_random_bytes_never_panic(all in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..30), noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bundle = Vec::new();
            for entry in &all {
                push_entry(&mut bundle, entry);
            }
            let read: Vec<Vec<u8>> = entries(&bundle, all.len() as u64).unwrap().iter().map(|e| e.to_vec()).collect();
            prop_assert_eq!(&read, &all);
            prop_assert!(entries(&bundle, all.len() as u64 + 1).is_err());
            let _ = entries(&noise, 5);
        }
    }
}
