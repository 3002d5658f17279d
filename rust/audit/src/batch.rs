//! Batches that a record stands for: the record holds the batch's root, the bytes lie beside the shards, named by that root.
//!
//! What the root is a root of is its owner's affair; here the bytes are kept under their SHA-256 too, so that damage is told.

use crate::disk::{self, Disk};
use creto_enablement_common::{Digest, Error, ErrorKind, Result, ResultExt};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

const FOLDER: &str = "batches";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn path(ledger: &Path, root: &Digest) -> PathBuf {
    let name = hex(root);
    ledger.join(FOLDER).join(name.get(..2).unwrap_or_default()).join(name)
}

/// Keeps the bytes of a batch; they are on disk, name and all, when this returns. The same root again changes nothing.
///
/// # Errors
/// `LedgerFull` or those of the file system; `AlreadyExists` where other bytes are kept under this root.
pub fn keep(disk: &dyn Disk, ledger: &Path, root: &Digest, bytes: &[u8]) -> Result<()> {
    let path = path(ledger, root);
    match read(disk, ledger, root) {
        Ok(kept) if kept == bytes => return Ok(()),
        Ok(_) => return Err(Error::new(ErrorKind::AlreadyExists).with_context(format!("another batch with root `{}`", hex(root)))),
        Err(error) if *error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut whole = Sha256::digest(bytes).to_vec();
    whole.extend_from_slice(bytes);
    let written = (|| {
        // Two processes may keep the same batch at once: each writes a file of its own, and the last name given is as good as the first.
        let own = path.with_extension(format!("{}", std::process::id()));
        disk::write_whole(disk, &own, &whole, true)?;
        disk.rename(&own, &path)?;
        for folder in path.ancestors().skip(1).take(3) {
            disk.sync_folder(folder)?;
        }
        io::Result::Ok(())
    })();
    written.map_err(|e| {
        let full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let error = if full { Error::new(ErrorKind::LedgerFull).with_source(e) } else { Error::from(e) };
        error.with_context(format!("keeping the batch `{}`", hex(root)))
    })
}

/// The bytes of a batch.
///
/// # Errors
/// `NotFound` where there is none, `Integrity` where it is damaged.
pub fn read(disk: &dyn Disk, ledger: &Path, root: &Digest) -> Result<Vec<u8>> {
    let path = path(ledger, root);
    let mut whole = disk.read(&path).context(|| format!("reading the batch `{}`", hex(root)))?;
    let intact = whole.split_at_checked(32).is_some_and(|(digest, bytes)| Sha256::digest(bytes).as_slice() == digest);
    if !intact {
        return Err(Error::new(ErrorKind::Integrity).with_context(format!("the batch `{}` is damaged", hex(root))));
    }
    Ok(whole.split_off(32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Machine;

    #[test]
    fn a_batch_is_kept_once_read_back_and_its_damage_told() {
        let folder = std::env::temp_dir().join(format!("creto-batch-{}", std::process::id()));
        let root = [7; 32];
        assert_eq!(read(&Machine, &folder, &root).unwrap_err().kind(), &ErrorKind::NotFound);
        keep(&Machine, &folder, &root, b"events").unwrap();
        keep(&Machine, &folder, &root, b"events").unwrap();
        assert_eq!(read(&Machine, &folder, &root).unwrap(), b"events");
        assert_eq!(keep(&Machine, &folder, &root, b"others").unwrap_err().kind(), &ErrorKind::AlreadyExists);
        let path = path(&folder, &root);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[33] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(&Machine, &folder, &root).unwrap_err().kind(), &ErrorKind::Integrity);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
