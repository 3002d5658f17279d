//! All that the ledger asks of a file system, so that a test can put a disk that loses power in its place.

use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// A file that is open for writing.
pub trait Backing: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads as much of `bytes` as there is at `offset`; returns how much.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes room on disk for `length` bytes, so that writes within them need none; false where the file system cannot.
    fn reserve(&self, length: u64) -> io::Result<bool>;
    /// Returns once all that was written is on disk.
    fn sync(&self) -> io::Result<()>;
}

/// A file system that is open to be synced as a whole.
pub trait Whole: Send {
    /// Returns once all that was written to it, names and all, is on disk; tells every error of a write since it was opened.
    fn sync(&self) -> io::Result<()>;
}

/// A file system.
pub trait Disk: Send + Sync {
    /// Opens a file for reading and writing; with `create` it is made where missing, and emptied.
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn Backing>>;
    /// The whole of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// So many bytes of a file from an offset on; `UnexpectedEof` where it ends before.
    fn read_part(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let filled = self.open(path, false)?.read_at(&mut bytes, offset)?;
        if filled == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
    /// How many bytes a file has.
    fn length(&self, path: &Path) -> io::Result<u64>;
    /// The file system that holds a folder.
    fn whole(&self, folder: &Path) -> io::Result<Box<dyn Whole>>;
    /// The names in a folder, sorted.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Gives a file another name, in place of what bears that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file, or an empty folder.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder and those above it, where missing.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;
    /// Returns once the names in a folder are on disk.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// Writes a file so that readers see the old or the new one, whole; on disk when this returns if `durable`.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let new = path.with_extension("new");
    write_whole(disk, &new, bytes, durable)?;
    disk.rename(&new, path)?;
    if durable && let Some(folder) = path.parent() {
        disk.sync_folder(folder)?;
    }
    Ok(())
}

/// Writes a file that nobody reads before it is whole.
pub fn write_whole(disk: &dyn Disk, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let file = match disk.open(path, true) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                disk.make_folder(folder)?;
            }
            disk.open(path, true)?
        }
        other => other?,
    };
    file.write_at(bytes, 0)?;
    if sync { file.sync() } else { Ok(()) }
}

/// The machine's own file system.
pub struct Machine;

struct Plain(File);

/// Makes a call again where a signal came between.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl Backing for Plain {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match uninterrupted(|| self.0.read_at(rest, offset + filled as u64))? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    fn reserve(&self, length: u64) -> io::Result<bool> {
        uninterrupted(|| match fallocate(&self.0, FallocateFlags::empty(), 0, length) {
            // Where a file system cannot reserve, the zeros that are written next do it.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(false),
            Err(e) => Err(e.into()),
            Ok(()) => Ok(true),
        })
    }

    fn sync(&self) -> io::Result<()> {
        uninterrupted(|| self.0.sync_data())
    }
}

/// More than a tile of the longest records, and than a segment.
const MOST: u64 = 128 << 20;

/// Opens a file for reading only, since whoever checks a ledger need not be able to write it; and its length. A ledger that somebody else hands
/// over may hold a pipe or a device, which would have no end.
fn regular(path: &Path) -> io::Result<(File, u64)> {
    let at_once = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = uninterrupted(|| OpenOptions::new().read(true).custom_flags(at_once).open(path))?;
    let about = file.metadata()?;
    if about.is_file() { Ok((file, about.len())) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a plain file")) }
}

struct FileSystem(File);

impl Whole for FileSystem {
    fn sync(&self) -> io::Result<()> {
        uninterrupted(|| Ok(rustix::fs::syncfs(&self.0)?))
    }
}

impl Disk for Machine {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn Backing>> {
        let file = uninterrupted(|| OpenOptions::new().read(true).write(true).create(create).truncate(create).mode(0o600).open(path))?;
        Ok(Box::new(Plain(file)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let (file, length) = regular(path)?;
        if length > MOST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it has {length} bytes; no file of a ledger has more than {MOST}"),
            ));
        }
        let mut bytes = Vec::with_capacity(length as usize);
        file.take(MOST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn read_part(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let (file, whole) = regular(path)?;
        if offset.checked_add(length as u64).is_none_or(|end| end > whole) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        uninterrupted(|| file.read_exact_at(&mut bytes, offset))?;
        Ok(bytes)
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        Ok(std::fs::metadata(path)?.len())
    }

    fn whole(&self, folder: &Path) -> io::Result<Box<dyn Whole>> {
        Ok(Box::new(FileSystem(uninterrupted(|| File::open(folder))?)))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in uninterrupted(|| std::fs::read_dir(folder))? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(e) if matches!(e.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::PermissionDenied) => std::fs::remove_dir(path),
            result => result,
        }
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        uninterrupted(|| File::open(folder)?.sync_all())
    }
}
