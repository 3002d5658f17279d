//! The place where a working folder arrives late: an overlay over it, mounted under a sandbox that was started before the folder was known.

use crate::sys::mount_mapped;
use creto_enablement_common::{Error, Result, ResultExt};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

/// One slot; all its calls must run on the host thread.
#[derive(Clone, Debug)]
pub struct Slot {
    folder: PathBuf,
}

impl Slot {
    /// Makes the slot's shared tmpfs with an empty `work` in it.
    pub fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(folder.join("shared"))?;
        let shared = folder.join("shared");
        mount("creto-slot", &shared, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755,size=64k")
            .map_err(io::Error::from)
            .context(|| "mounting a slot".into())?;
        fs::create_dir(shared.join("work"))?;
        mount_change(&shared, MountPropagationFlags::SHARED).map_err(io::Error::from)?;
        Ok(Self { folder })
    }

    /// What the backend binds into the sandbox.
    pub fn shared(&self) -> PathBuf {
        self.folder.join("shared")
    }

    /// Puts an overlay over the folder at `path` into the slot; it appears in the sandbox. At most `bytes` can be written. Gives back the
    /// layer that takes the writes. `opened` is the same folder as the caller has it: should the path lead elsewhere by now, nothing is done.
    /// Paths in `hidden` are not in view. With `users`, files of the machine's root are shown as owned by `root`, who is the sandbox's.
    pub fn occupy(
        &self,
        path: &Path,
        opened: &OwnedFd,
        bytes: u64,
        hidden: &[PathBuf],
        map: Option<(BorrowedFd<'_>, u32)>,
    ) -> Result<OwnedFd> {
        // Opened anew, since a lower layer has to be of this thread's own mount namespace.
        let lower = open_folder(path)?;
        let found = fs::File::from(lower.try_clone()?).metadata()?;
        let known = fs::File::from(opened.try_clone()?).metadata()?;
        if (found.dev(), found.ino()) != (known.dev(), known.ino()) {
            return Err(Error::invalid(format!("`{}` was moved while the sandbox was claimed; try again", path.display())));
        }
        let disk = self.folder.join("disk");
        fs::create_dir_all(&disk)?;
        let options = text(format!("mode=0700,size={bytes},nr_inodes={}", (bytes / 4096).clamp(1024, 1 << 20)).as_bytes())?;
        mount("creto-disk", &disk, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())
            .map_err(io::Error::from)
            .context(|| "mounting the layer for changes".into())?;
        let (upper, work) = (disk.join("upper"), disk.join("work"));
        fs::create_dir(&upper)?;
        fs::create_dir(&work)?;
        // The root of the overlay takes mode and owner from the upper layer's root.
        fs::set_permissions(&upper, fs::Permissions::from_mode(found.mode() & 0o7777))?;
        let owner = |id: u32| map.map_or(id, |(_, root)| if id == 0 { root } else { id });
        chown(&upper, Some(owner(found.uid())), Some(owner(found.gid())))?;
        for path in hidden {
            hide(&lower, &upper, path, &owner).context(|| format!("hiding `{}` from the sandbox", path.display()))?;
        }
        // Named by descriptor: a path could contain the option's own separators, or lead elsewhere by now.
        let mut lower = format!("/proc/thread-self/fd/{}", lower.as_raw_fd());
        if let Some((users, _)) = map {
            let seen = self.folder.join("lower");
            fs::create_dir_all(&seen)?;
            mount_mapped(Path::new(&lower), &seen, users)
                .map_err(Error::from)
                .context(|| format!("showing `{}` under other owners (needs a file system with id-mapped mounts)", path.display()))?;
            lower = seen.to_string_lossy().into_owned();
        }
        let mut options = format!("lowerdir={lower},upperdir=").into_bytes();
        options.extend_from_slice(upper.as_os_str().as_bytes());
        options.extend_from_slice(b",workdir=");
        options.extend_from_slice(work.as_os_str().as_bytes());
        options.extend_from_slice(b",redirect_dir=off,index=off,metacopy=off,xino=off");
        mount("creto-work", self.shared().join("work"), "overlay", MountFlags::NOSUID | MountFlags::NODEV, text(&options)?.as_c_str())
            .map_err(io::Error::from)
            .context(|| "laying the overlay over the working folder".into())?;
        Ok(OwnedFd::from(fs::File::open(&upper)?))
    }

    /// Takes everything down; what is still in use goes when its last user does.
    pub fn clear(&self) {
        for place in [self.shared().join("work"), self.folder.join("lower"), self.folder.join("disk"), self.shared()] {
            // Not every slot was occupied.
            let _ = unmount(&place, UnmountFlags::DETACH);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Puts a whiteout over a path of the lower layer, so that the overlay shows nothing there.
fn hide(lower: &OwnedFd, upper: &Path, path: &Path, owner: &impl Fn(u32) -> u32) -> Result<()> {
    use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, makedev, mknodat, openat2};
    if path.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(Error::invalid("a path to hide has to be plain and below the working folder"));
    }
    let mut below = PathBuf::new();
    for part in path.parent().map(Path::components).into_iter().flatten() {
        below.push(part);
        let place = upper.join(&below);
        if place.is_dir() {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let found = fs::File::from(openat2(lower, &below, flags, Mode::empty(), resolve).map_err(io::Error::from)?).metadata()?;
        fs::create_dir(&place)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(found.mode() & 0o7777))?;
        chown(&place, Some(owner(found.uid())), Some(owner(found.gid())))?;
    }
    let whiteout = mknodat(rustix::fs::CWD, upper.join(path), FileType::CharacterDevice, Mode::empty(), makedev(0, 0));
    whiteout.map_err(io::Error::from)?;
    Ok(())
}

fn text(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::invalid("a path with a zero byte in it"))
}

/// Opens a folder for use as the lower layer.
pub fn open_folder(path: &Path) -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .map_err(Error::from)
        .context(|| format!("opening the working folder `{}`", path.display()))
}
