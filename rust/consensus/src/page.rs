//! The mapped page that all processes of a folder share: a few atomic words in one cache line of one file.

#![expect(unsafe_code, reason = "the words live in memory that other processes map as well")]

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const MAGIC: u64 = u64::from_le_bytes(*b"CRETOHL1");
const LENGTH: usize = 4096;

/// The shared words. All lie in the first 128 bytes of the file, so in one sector: a power loss leaves old or new, not a mixture.
#[repr(C)]
pub struct Words {
    magic: AtomicU64,
    /// Which boot of the machine the words below belong to.
    pub boot: AtomicU64,
    spare: [AtomicU64; 6],
    /// The latest timestamp given or observed.
    pub word: AtomicU64,
    /// A bound that no timestamp passes before it is on disk.
    pub mark: AtomicU64,
    /// How much of the bound is known to be on disk.
    pub synced: AtomicU64,
    /// While the wall clock is behind: time goes on as `slew + since_boot / 2` (microseconds).
    pub slew: AtomicU64,
    /// Wall clock less time since boot, when last looked at (microseconds, two's complement).
    pub base: AtomicU64,
    /// How many jumps of the wall clock beyond the bound were seen.
    pub jumps: AtomicU64,
    /// The last such jump (microseconds, two's complement; forward is positive).
    pub last_jump: AtomicU64,
    /// How many timestamps from elsewhere were refused for being too far ahead.
    pub refused: AtomicU64,
}

pub struct Page {
    map: MmapRaw,
    file: File,
}

impl Page {
    /// Maps the file, made if it is missing; `settle` runs under a lock on the file, once for each opening.
    pub fn open(path: &Path, settle: impl FnOnce(&Words, bool)) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?;
        let new = file.metadata()?.size() < LENGTH as u64;
        if new {
            // Written, not merely sized: a sparse page would need space at the worst moment.
            file.write_all(&[0; LENGTH])?;
            file.sync_all()?;
            if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                File::open(folder)?.sync_all()?;
            }
        }
        let map = MmapOptions::new().len(LENGTH).map_raw(&file)?;
        let page = Self { map, file };
        let magic = page.words().magic.load(Ordering::Acquire);
        if magic != MAGIC && magic != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is not a clock of this version"));
        }
        settle(page.words(), magic == 0);
        page.words().magic.store(MAGIC, Ordering::Release);
        page.sync()?;
        retry_on_intr(|| flock(&page.file, FlockOperation::Unlock))?;
        Ok(page)
    }

    /// The shared words.
    pub fn words(&self) -> &Words {
        // SAFETY: the mapping is LENGTH bytes, page-aligned and writable, and lives as long as `self`; `Words` is shorter than that, holds
        // atomics only, and every bit pattern is valid for them. Other processes touch the page through the same atomics.
        unsafe { &*self.map.as_ptr().cast::<Words>() }
    }

    /// Puts the words on disk.
    pub fn sync(&self) -> io::Result<()> {
        loop {
            match self.file.sync_data() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

// SAFETY: the mapping is only reached through atomics.
unsafe impl Sync for Page {}
// SAFETY: as above; nothing in it belongs to one thread.
unsafe impl Send for Page {}
