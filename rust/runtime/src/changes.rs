//! What a program changed in its working folder, read from the overlay's upper layer, and how it is carried out: file by file, inside the
//! folder, with the content that was listed, never through a link.

use creto_enablement_common::{Error, ErrorKind, Result, ResultExt};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat, renameat, statat, unlinkat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// How a path changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There was nothing of the name.
    Added,
    /// Its content, mode or kind is another.
    Modified,
    /// It is gone.
    Deleted,
}

impl Kind {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Modified => "modified",
            Self::Deleted => "deleted",
        }
    }
}

/// What is, or was, at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub shape: Shape,
    /// Permission bits.
    pub mode: u32,
    /// Bytes, of a file.
    pub size: u64,
    /// SHA-256 of a file's content or of a link's target; empty for the rest.
    pub digest: String,
}

/// The kinds of file there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A regular file.
    File,
    /// A directory.
    Folder,
    /// A symbolic link.
    Link,
    /// A pipe, socket or device: never carried out.
    Special,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Below the working folder.
    pub path: PathBuf,
    /// How.
    pub kind: Kind,
    /// What was there.
    pub before: Option<Node>,
    /// What is there now.
    pub after: Option<Node>,
    /// Why it cannot be carried out, where it cannot.
    pub refused: Option<String>,
}

const DEEPEST: usize = 256;
const MOST: usize = 1_000_000;

/// Lists every change, sorted by path; a folder stands before what is in it, and after it where it is deleted. At most `bytes` of the upper
/// layer are read: that much can have been written, and a file of holes claims to be any size.
pub fn between(lower: &OwnedFd, upper: &OwnedFd, bytes: u64) -> Result<Vec<Change>> {
    let mut found = Vec::new();
    walk(Some(lower.as_fd()), upper.as_fd(), Path::new(""), 0, &mut Walk { found: &mut found, left: bytes })?;
    found.sort_by(|a: &Change, b: &Change| a.path.cmp(&b.path));
    Ok(found)
}

struct Walk<'a> {
    found: &'a mut Vec<Change>,
    /// Bytes that may still be read.
    left: u64,
}

fn walk(below: Option<BorrowedFd<'_>>, above: BorrowedFd<'_>, at: &Path, depth: usize, so_far: &mut Walk<'_>) -> Result<()> {
    if depth > DEEPEST || so_far.found.len() > MOST {
        return Err(Error::invalid(format!("the program's changes are too many or too deep (at `{}`)", at.display())));
    }
    let mut names = Vec::new();
    for entry in Dir::read_from(above).map_err(io::Error::from)? {
        let entry = entry.map_err(io::Error::from)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    // An opaque folder hides all that lay below it.
    if let (Some(below), true) = (below, is_opaque(above)) {
        for name in list(below)? {
            if !names.contains(&name) {
                gone(below, &name, &at.join(&name), depth, so_far.found)?;
            }
        }
    }
    for name in names {
        let path = at.join(&name);
        let Some(after) = node_within(above, &name, Some(&mut so_far.left))? else { continue };
        let before = below.map_or(Ok(None), |below| node(below, &name))?;
        if after.shape == Shape::Special && is_whiteout(above, &name)? {
            if let (Some(below), Some(_)) = (below, before) {
                gone(below, &name, &path, depth, so_far.found)?;
            }
            continue;
        }
        let (was_folder, is_folder) = (before.as_ref().is_some_and(|b| b.shape == Shape::Folder), after.shape == Shape::Folder);
        if let (Some(below), true, false) = (below, was_folder, is_folder) {
            for inner in list_at(below, &name)? {
                let folder = folder_at(below, &name)?;
                gone(folder.as_fd(), &inner, &path.join(&inner), depth + 1, so_far.found)?;
            }
        }
        let unchanged = before.as_ref() == Some(&after);
        if !unchanged {
            let kind = if before.is_some() { Kind::Modified } else { Kind::Added };
            let refused = refusal(above, &name, &path, &after)?;
            so_far.found.push(Change { path: path.clone(), kind, before, after: Some(after), refused });
        }
        if is_folder {
            let inner = folder_at(above, &name)?;
            let outer = match (below, was_folder) {
                (Some(below), true) => Some(folder_at(below, &name)?),
                _ => None,
            };
            walk(outer.as_ref().map(AsFd::as_fd), inner.as_fd(), &path, depth + 1, so_far)?;
        }
    }
    Ok(())
}

/// Notes that a name is gone, with all that was in it.
fn gone(below: BorrowedFd<'_>, name: &OsString, path: &Path, depth: usize, found: &mut Vec<Change>) -> Result<()> {
    if depth > DEEPEST || found.len() > MOST {
        return Err(Error::invalid(format!("the program's changes are too many or too deep (at `{}`)", path.display())));
    }
    let Some(before) = node(below, name)? else { return Ok(()) };
    if before.shape == Shape::Folder {
        let folder = folder_at(below, name)?;
        for inner in list(folder.as_fd())? {
            gone(folder.as_fd(), &inner, &path.join(&inner), depth + 1, found)?;
        }
    }
    found.push(Change { path: path.to_owned(), kind: Kind::Deleted, before: Some(before), after: None, refused: None });
    Ok(())
}

fn refusal(above: BorrowedFd<'_>, name: &OsString, path: &Path, after: &Node) -> Result<Option<String>> {
    Ok(match after.shape {
        Shape::Special => Some("a pipe, socket or device is not carried out of a sandbox".into()),
        Shape::Link => {
            let target = link_target(above, name)?;
            leads_out(path, &target).then(|| format!("a link to `{}`, outside the working folder", target.display()))
        }
        Shape::File if after.digest.is_empty() => Some("a file that claims more bytes than could be written: it is full of holes".into()),
        _ if after.mode & 0o6000 != 0 => Some("a file that takes its owner's rights (setuid or setgid)".into()),
        _ => None,
    })
}

/// True where a link's target is absolute or may climb out of the folder. `..` after a name counts as climbing out: the name may be a link
/// to a folder nearer the top, and then what reads as `a/b/c/../..` ends above the folder.
fn leads_out(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    let mut named = false;
    for part in target.components() {
        match part {
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 && !named => depth -= 1,
            _ => return true,
        }
    }
    false
}

fn node(folder: BorrowedFd<'_>, name: &OsString) -> Result<Option<Node>> {
    node_within(folder, name, None)
}

/// What is at a name; a file larger than what may still be read has no digest.
fn node_within(folder: BorrowedFd<'_>, name: &OsString, left: Option<&mut u64>) -> Result<Option<Node>> {
    let found = match statat(folder, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(io::Error::from(e).into()),
    };
    let (shape, digest) = match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => {
            let size = u64::try_from(found.st_size).unwrap_or(u64::MAX);
            let fits = left.is_none_or(|left| match left.checked_sub(size) {
                Some(rest) => {
                    *left = rest;
                    true
                }
                None => false,
            });
            // No further than its size: the program may be writing to it meanwhile.
            let digest = if fits { digest(&mut file_at(folder, name)?.take(size), &mut io::sink())? } else { String::new() };
            (Shape::File, digest)
        }
        FileType::Directory => (Shape::Folder, String::new()),
        FileType::Symlink => {
            (Shape::Link, base16ct::lower::encode_string(&Sha256::digest(link_target(folder, name)?.as_os_str().as_bytes())))
        }
        _ => (Shape::Special, String::new()),
    };
    let size = if shape == Shape::File { u64::try_from(found.st_size).unwrap_or(0) } else { 0 };
    Ok(Some(Node { shape, mode: if shape == Shape::Link { 0 } else { found.st_mode & 0o7777 }, size, digest }))
}

fn digest(file: &mut impl Read, copy: &mut impl Write) -> Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let got = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..got).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
        copy.write_all(bytes)?;
    }
    Ok(base16ct::lower::encode_string(&hash.finalize()))
}

fn file_at(folder: BorrowedFd<'_>, name: &OsString) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(openat(folder, name.as_os_str(), flags, Mode::empty()).map_err(io::Error::from)?.into())
}

fn folder_at(folder: BorrowedFd<'_>, name: &OsString) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(folder, name.as_os_str(), flags, Mode::empty()).map_err(io::Error::from)?)
}

fn link_target(folder: BorrowedFd<'_>, name: &OsString) -> Result<PathBuf> {
    let target = readlinkat(folder, name.as_os_str(), Vec::new()).map_err(io::Error::from)?;
    Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
}

fn list(folder: BorrowedFd<'_>) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder).map_err(io::Error::from)? {
        let name = entry.map_err(io::Error::from)?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

fn list_at(folder: BorrowedFd<'_>, name: &OsString) -> Result<Vec<OsString>> {
    list(folder_at(folder, name)?.as_fd())
}

fn is_whiteout(folder: BorrowedFd<'_>, name: &OsString) -> Result<bool> {
    let found = statat(folder, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)?;
    Ok(FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == 0)
}

fn is_opaque(folder: BorrowedFd<'_>) -> bool {
    let mut value = [0_u8; 4];
    // Not `user.overlay.opaque`, which any program can set and the overlay passes over.
    rustix::fs::fgetxattr(folder, "trusted.overlay.opaque", &mut value).is_ok_and(|length| length == 1 && value.first() == Some(&b'y'))
}

/// The content of a regular file below a folder, at most `most` bytes; none where there is none.
pub fn content(folder: &OwnedFd, path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match openat2(folder, path, flags, Mode::empty(), RESOLVE) {
        Ok(file) => File::from(file),
        Err(_) => return Ok(None),
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Carries changes out. All are checked first; a change of the folder from elsewhere since the listing stops it before anything is written.
pub fn apply(lower: &OwnedFd, upper: &OwnedFd, changes: &[Change]) -> Result<()> {
    for change in changes {
        if let Some(reason) = &change.refused {
            return Err(Error::new(ErrorKind::Unauthorized).with_context(format!("`{}` is {reason}", change.path.display())));
        }
        let found = now(lower, &change.path).context(|| format!("looking at `{}`", change.path.display()))?;
        if found != change.before {
            return Err(Error::new(ErrorKind::AlreadyExists).with_context(format!(
                "`{}` was changed by somebody else since the sandbox was claimed; nothing is overwritten",
                change.path.display()
            )));
        }
    }
    let (mut made, mut removed): (Vec<&Change>, Vec<&Change>) = changes.iter().partition(|c| c.kind != Kind::Deleted);
    made.sort_by(|a, b| a.path.cmp(&b.path));
    removed.sort_by(|a, b| b.path.cmp(&a.path));
    for change in removed.into_iter().chain(made) {
        carry(lower, upper, change).context(|| format!("carrying out the change of `{}`", change.path.display()))?;
    }
    Ok(())
}

/// The folder that holds a path, reached without any link, and the last name.
fn parent(root: &OwnedFd, path: &Path) -> Result<(OwnedFd, OsString)> {
    let name = path.file_name().ok_or_else(|| Error::invalid(format!("`{}` names no file", path.display())))?.to_owned();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat2(root, folder, flags, Mode::empty(), RESOLVE).map_err(io::Error::from)?;
    Ok((folder, name))
}

fn now(lower: &OwnedFd, path: &Path) -> Result<Option<Node>> {
    match parent(lower, path) {
        Ok((folder, name)) => node(folder.as_fd(), &name),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound) => Ok(None),
        Err(e) => Err(e),
    }
}

fn carry(lower: &OwnedFd, upper: &OwnedFd, change: &Change) -> Result<()> {
    let (to, name) = parent(lower, &change.path)?;
    let Some(after) = &change.after else {
        let folder = change.before.as_ref().is_some_and(|b| b.shape == Shape::Folder);
        let flags = if folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        return match unlinkat(&to, name.as_os_str(), flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(io::Error::from(e).into()),
        };
    };
    if change.before.as_ref().is_some_and(|b| (b.shape == Shape::Folder) != (after.shape == Shape::Folder)) {
        let folder = after.shape != Shape::Folder;
        unlinkat(&to, name.as_os_str(), if folder { AtFlags::REMOVEDIR } else { AtFlags::empty() }).map_err(io::Error::from)?;
    }
    let (from, _) = parent(upper, &change.path)?;
    let owner = rustix::fs::fstat(lower).map_err(io::Error::from)?;
    let own = |fd: BorrowedFd<'_>| -> Result<()> {
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (rustix::fs::Uid::from_raw(owner.st_uid), rustix::fs::Gid::from_raw(owner.st_gid));
            rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(io::Error::from)?;
        }
        Ok(())
    };
    let mode = Mode::from_raw_mode(after.mode & 0o777);
    match after.shape {
        Shape::Folder => {
            match rustix::fs::mkdirat(&to, name.as_os_str(), mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(io::Error::from(e).into()),
            }
            let made = folder_at(to.as_fd(), &name)?;
            own(made.as_fd())?;
            rustix::fs::fchmod(&made, mode).map_err(io::Error::from)?;
        }
        Shape::File => {
            let draft = draft_name();
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(&to, draft.as_os_str(), flags, Mode::RUSR | Mode::WUSR).map_err(io::Error::from)?);
            let written = (|| {
                // What was agreed to is this content: the program may still be running.
                if digest(&mut file_at(from.as_fd(), &name)?.take(after.size.saturating_add(1)), &mut file)? != after.digest {
                    return Err(Error::new(ErrorKind::Integrity).with_context("the program changed it after it was listed"));
                }
                own(file.as_fd())?;
                rustix::fs::fchmod(&file, mode).map_err(io::Error::from)?;
                file.sync_data()?;
                renameat(&to, draft.as_os_str(), &to, name.as_os_str()).map_err(io::Error::from)?;
                Ok(())
            })();
            if written.is_err() {
                // The first failure is the one to tell.
                let _ = unlinkat(&to, draft.as_os_str(), AtFlags::empty());
            }
            written?;
        }
        Shape::Link => {
            let target = link_target(from.as_fd(), &name)?;
            if base16ct::lower::encode_string(&Sha256::digest(target.as_os_str().as_bytes())) != after.digest {
                return Err(Error::new(ErrorKind::Integrity).with_context("the program changed it after it was listed"));
            }
            let draft = draft_name();
            rustix::fs::symlinkat(target.as_path(), &to, draft.as_os_str()).map_err(io::Error::from)?;
            renameat(&to, draft.as_os_str(), &to, name.as_os_str()).map_err(io::Error::from)?;
        }
        Shape::Special => return Err(Error::internal("a special file came as far as being carried out")),
    }
    Ok(())
}

fn draft_name() -> OsString {
    use std::hash::{BuildHasher, Hasher};
    OsString::from(format!(".creto-{:016x}", std::collections::hash_map::RandomState::new().build_hasher().finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_holes_is_neither_read_nor_carried_out() {
        let folder = std::env::temp_dir().join(draft_name());
        let (work, left) = (folder.join("work"), folder.join("left"));
        std::fs::create_dir_all(&work).unwrap();
        std::fs::create_dir_all(&left).unwrap();
        for number in 0..50 {
            File::create(left.join(format!("holes-{number}"))).unwrap().set_len(1 << 40).unwrap();
        }
        std::fs::write(left.join("small"), "text").unwrap();
        let [lower, upper] = [&work, &left].map(|path| OwnedFd::from(File::open(path).unwrap()));
        let found = between(&lower, &upper, 1 << 20).unwrap();
        let (fine, refused): (Vec<_>, Vec<_>) = found.into_iter().partition(|change| change.refused.is_none());
        assert_eq!((fine.len(), refused.len()), (1, 50));
        assert!(refused.iter().all(|change| change.refused.as_deref().unwrap().contains("full of holes")));
        assert!(apply(&lower, &upper, &refused).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_link_that_climbs_out_through_another_link_is_refused() {
        let folder = std::env::temp_dir().join(draft_name());
        let work = folder.join("work");
        std::fs::create_dir_all(work.join("a/b")).unwrap();
        std::fs::write(folder.join("outside"), "not the agent's").unwrap();
        std::os::unix::fs::symlink("../..", work.join("a/b/c")).unwrap();
        std::os::unix::fs::symlink("a/b/c/../outside", work.join("way-out")).unwrap();
        // The attack works where it is carried out: counted by its names, this link would stay inside.
        assert_eq!(std::fs::read_to_string(work.join("way-out")).unwrap(), "not the agent's");
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(leads_out(Path::new("way-out"), Path::new("a/b/c/../outside")));
        for (path, target) in [("a/b/c", "../.."), ("way", "a/b"), ("a/x", "./../b/y")] {
            assert!(!leads_out(Path::new(path), Path::new(target)), "{path} -> {target}");
        }
    }
}
