//! How much of a shard is durable as tiles, so that the segments before it are not needed.

use crate::disk::{self, Disk};
use crate::merkle::empty_root;
use creto_enablement_common::{Digest, Error, ErrorKind, Result, ResultExt};
use std::io;
use std::path::Path;

const NAME: &str = "sealed";
const MAGIC: &[u8; 8] = b"CRETOSL1";

/// Says durably that the tiles over the first `size` records are on disk.
pub fn write(disk: &dyn Disk, shard: &Path, size: u64, root: &Digest) -> Result<()> {
    let mut bytes = [&MAGIC[..], &size.to_le_bytes(), root].concat();
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    disk::replace(disk, &shard.join(NAME), &bytes, true).context(|| format!("sealing `{}`", shard.display()))
}

/// What was last sealed; nothing, where nothing was.
pub fn read(disk: &dyn Disk, shard: &Path) -> Result<(u64, Digest)> {
    let path = shard.join(NAME);
    let bytes = match disk.read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((0, empty_root())),
        other => other.context(|| format!("reading `{}`", path.display()))?,
    };
    parse(&bytes).ok_or_else(|| Error::new(ErrorKind::Integrity).with_context(format!("`{}` is damaged", path.display())))
}

fn parse(bytes: &[u8]) -> Option<(u64, Digest)> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let (size, root) = body.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
    (crc32fast::hash(body).to_le_bytes() == *crc).then_some((u64::from_le_bytes(*size), root.try_into().ok()?))
}
