//! Which shard this process writes: a free one is taken over, else a new one made. The lock file's flock says whose it is.

use crate::disk::uninterrupted;
use crate::fork;
use creto_enablement_common::{Error, ErrorKind, Result, ResultExt};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, retry_on_intr};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";

/// A shard that this process holds, and nobody else.
pub struct Held {
    /// Its folder.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    lock: Option<File>,
    generation: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        // In a child of fork the descriptor is closed already, and its number may be another file's by now.
        if self.generation == fork::generation()
            && let Some(lock) = self.lock.take()
        {
            fork::forget(lock.as_raw_fd());
        } else {
            std::mem::forget(self.lock.take());
        }
    }
}

/// The names of all shards of a ledger folder, in order.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match uninterrupted(|| fs::read_dir(folder)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(names),
        other => other.context(|| format!("listing `{}`", folder.display()))?,
    };
    for entry in entries {
        let entry = entry.context(|| format!("listing `{}`", folder.display()))?;
        if let Ok(name) = entry.file_name().into_string()
            && is_name(&name)
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn is_name(name: &str) -> bool {
    name.len() == 4 && name.bytes().all(|b| b.is_ascii_digit())
}

/// Takes one shard if it is free.
fn take(folder: &Path, name: &str) -> Result<Option<Held>> {
    let path = folder.join(name);
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join(LOCK))
        .context(|| format!("opening the lock of shard `{name}`"))?;
    match retry_on_intr(|| flock(&lock, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(e) => return Err(Error::from(io::Error::from(e)).with_context(format!("locking shard `{name}`"))),
    }
    fork::close_in_children(lock.as_raw_fd());
    Ok(Some(Held { path, name: name.to_owned(), lock: Some(lock), generation: fork::generation() }))
}

/// Runs `work` while this process holds a shard that nobody holds, and gives it free again; none where somebody does. What is there can
/// be read meanwhile and does not change.
///
/// # Errors
/// Those of the file system.
pub fn while_vacant<T>(folder: &Path, name: &str, work: impl FnOnce() -> T) -> Result<Option<T>> {
    Ok(take(folder, name)?.map(|_held| work()))
}

/// Takes over a free shard, or makes one.
pub fn acquire(folder: &Path) -> Result<Held> {
    let private =
        |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path).context(|| format!("making `{}`", path.display()));
    private(folder)?;
    loop {
        let names = names(folder)?;
        for name in &names {
            if let Some(held) = take(folder, name)? {
                return Ok(held);
            }
        }
        let next = names.last().and_then(|name| name.parse::<u32>().ok()).map_or(0, |last| last + 1);
        if next > 9_999 {
            return Err(Error::new(ErrorKind::LedgerFull).with_context(format!("all 10,000 shards of `{}` are held", folder.display())));
        }
        let path = folder.join(format!("{next:04}"));
        match DirBuilder::new().mode(0o700).create(&path) {
            // Another process made it first: look again.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => {
                other.context(|| format!("making `{}`", path.display()))?;
                File::open(folder).and_then(|f| f.sync_all()).context(|| format!("syncing `{}`", folder.display()))?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_shard_is_not_taken_and_a_free_one_is_taken_over() {
        let folder = std::env::temp_dir().join(format!("creto-shard-{}", std::process::id()));
        let first = acquire(&folder).unwrap();
        let second = acquire(&folder).unwrap();
        assert_eq!((first.name.as_str(), second.name.as_str()), ("0000", "0001"));
        assert!(while_vacant(&folder, "0000", || ()).unwrap().is_none());
        drop(first);
        assert!(while_vacant(&folder, "0000", || take(&folder, "0000").unwrap().is_none()).unwrap().unwrap());
        assert_eq!(acquire(&folder).unwrap().name, "0000");
        assert_eq!(names(&folder).unwrap(), ["0000", "0001"]);
        drop(second);
        fs::remove_dir_all(folder).unwrap();
    }
}
