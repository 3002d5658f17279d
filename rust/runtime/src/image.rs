//! What a sandbox sees of this machine: an allow-list of trees, read-only, and a small `/etc` of its own. Never the host's root.

use creto_enablement_common::{Error, Result, ResultExt};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

/// Trees that hold programs and what they need, and no state, logs, tokens or personal data.
const TREES: &[&str] = &[
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libx32",
    "/usr/libexec",
    "/usr/share",
    "/usr/include",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/local/libexec",
    "/usr/local/share",
    "/usr/local/include",
    "/usr/local/go",
    "/usr/lib/jvm",
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/ca-certificates/extracted",
    "/etc/alternatives",
];
/// Directories that are links into `/usr` on most machines.
const ROOTS: &[&str] = &["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// Files of `/etc` that programs need and that tell nothing of this machine's users, services or secrets.
const FILES: &[&str] = &[
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/mime.types",
    "/etc/services",
    "/etc/protocols",
    "/etc/ssl/openssl.cnf",
    "/etc/ssl/cert.pem",
    "/etc/debian_version",
    "/etc/os-release",
    "/etc/inputrc",
    "/etc/magic",
];
const MOST_FILE: u64 = 4 << 20;

/// The allow-list, resolved on this machine.
#[derive(Clone, Debug)]
pub struct Image {
    /// Host paths shown read-only at the same place.
    pub trees: Vec<PathBuf>,
    links: BTreeMap<PathBuf, PathBuf>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// The interpreter that waits warm inside.
    pub python: PathBuf,
}

impl Image {
    /// Collects what there is. `python` is the interpreter without any virtual environment, `prefix` its installation; `more` are further
    /// trees that the operator lists.
    pub fn of_this_machine(python: &Path, prefix: &Path, more: &[PathBuf]) -> Result<Self> {
        let mut image = Self { trees: Vec::new(), links: BTreeMap::new(), files: BTreeMap::new(), python: python.canonicalize()? };
        for root in ROOTS.iter().map(Path::new) {
            match fs::symlink_metadata(root) {
                Ok(found) if found.is_symlink() => drop(image.links.insert(root.into(), fs::read_link(root)?)),
                Ok(found) if found.is_dir() => image.trees.push(root.into()),
                _ => {}
            }
        }
        for tree in TREES.iter().map(Path::new) {
            image.show(tree)?;
        }
        let prefix = prefix.canonicalize().map_err(Error::from).context(|| format!("looking for Python in `{}`", prefix.display()))?;
        image.show(&prefix)?;
        for tree in more {
            image.show(tree).context(|| format!("adding `{}` to the sandbox's view", tree.display()))?;
        }
        for file in FILES.iter().map(Path::new) {
            if let Ok(found) = fs::metadata(file)
                && found.is_file()
                && found.len() <= MOST_FILE
                && found.permissions().mode() & 0o004 != 0
            {
                image.files.insert(file.into(), fs::read(file)?);
            }
        }
        Ok(image)
    }

    /// Adds a tree unless one above it is there already.
    fn show(&mut self, tree: &Path) -> Result<()> {
        let covered = self.trees.iter().any(|above| tree.starts_with(above));
        if !covered && fs::metadata(tree).is_ok_and(|found| found.is_dir()) {
            refuse_private(tree)?;
            self.trees.push(tree.to_owned());
        }
        Ok(())
    }

    /// Writes the root: empty places for the trees, the links, and `/etc`; all of it `owner`'s.
    pub fn write(&self, root: &Path, nameserver: &str, owner: u32) -> Result<()> {
        for place in ["proc", "sys", "dev", "tmp", "var/tmp", "run", "home", "mnt", "opt", "root", "creto/slot", "usr", "etc"] {
            fs::create_dir_all(root.join(place))?;
        }
        fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
        for tree in &self.trees {
            fs::create_dir_all(inside(root, tree))?;
        }
        for (link, target) in &self.links {
            symlink(target, inside(root, link)).or_else(|e| if e.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })?;
        }
        let own = [
            // The claim adds who the program runs as.
            ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n".into()),
            ("/etc/group", "root:x:0:\nnogroup:x:65534:\n".into()),
            ("/etc/hosts", "127.0.0.1 localhost\n".into()),
            ("/etc/hostname", "sandbox\n".into()),
            ("/etc/resolv.conf", format!("nameserver {nameserver}\noptions timeout:2 attempts:2\n")),
            ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n".into()),
            ("/creto/agent.py", include_str!("../guest/agent.py").into()),
        ];
        let own = own.iter().map(|(path, text)| (Path::new(*path), text.as_bytes()));
        for (path, bytes) in self.files.iter().map(|(path, bytes)| (path.as_path(), bytes.as_slice())).chain(own) {
            let place = inside(root, path);
            if let Some(folder) = place.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&place, bytes).map_err(Error::from).context(|| format!("writing `{}`", place.display()))?;
        }
        if owner != 0 { give(root, owner) } else { Ok(()) }
    }

    /// SHA-256 over the image's manifest: each path of each tree with its kind, mode, owner, size and time of change, and the content of
    /// every file that is the image's own. It names this machine's state; it is no digest of every byte under `/usr`.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut line = |text: String| hash.update(text.as_bytes());
        for tree in &self.trees {
            let mut folders = vec![tree.clone()];
            while let Some(folder) = folders.pop() {
                let Ok(entries) = fs::read_dir(&folder) else { continue };
                let mut entries: Vec<_> = entries.filter_map(io::Result::ok).collect();
                entries.sort_by_key(fs::DirEntry::file_name);
                for entry in entries {
                    let Ok(found) = entry.metadata() else { continue };
                    let (path, time) = (entry.path(), found.mtime_nsec());
                    line(format!(
                        "{path:?} {:o} {} {} {} {}.{time}\n",
                        found.mode(),
                        found.uid(),
                        found.gid(),
                        found.size(),
                        found.mtime()
                    ));
                    if found.is_dir() {
                        folders.push(path);
                    }
                }
            }
        }
        for (link, target) in &self.links {
            line(format!("{link:?} -> {target:?}\n"));
        }
        for (path, bytes) in &self.files {
            line(format!("{path:?} {}\n", base16ct::lower::encode_string(&Sha256::digest(bytes))));
        }
        line(format!("agent {}\n", base16ct::lower::encode_string(&Sha256::digest(include_bytes!("../guest/agent.py")))));
        base16ct::lower::encode_string(&hash.finalize())
    }
}

/// Makes a whole tree somebody's.
fn give(place: &Path, owner: u32) -> Result<()> {
    lchown(place, Some(owner), Some(owner))?;
    if place.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(place)? {
            give(&entry?.path(), owner)?;
        }
    }
    Ok(())
}

/// A tree that holds state or secrets of the machine is no part of an image, even if an operator lists it.
fn refuse_private(tree: &Path) -> Result<()> {
    let real = tree.canonicalize()?;
    let private = ["/", "/etc", "/run", "/var", "/proc", "/sys", "/dev", "/boot", "/root", "/home", "/usr/local/etc"];
    let whole = private.iter().any(|p| real == Path::new(p));
    let below = ["/run", "/var/lib", "/var/run", "/proc", "/sys", "/dev", "/etc/ssl/private", "/boot"].iter().any(|p| real.starts_with(p));
    if whole || below {
        return Err(Error::invalid(format!("`{}` holds state or secrets of this machine and is never shown to a sandbox", real.display())));
    }
    Ok(())
}

/// A path of the sandbox, below its root on the host.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.components().filter(|c| matches!(c, Component::Normal(_))).collect::<PathBuf>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_private_is_ever_part_of_an_image() {
        for private in ["/", "/etc", "/run", "/root", "/proc/self"] {
            assert!(refuse_private(Path::new(private)).is_err(), "{private}");
        }
        assert!(TREES.iter().chain(FILES).all(|path| !path.contains("shadow") && !path.starts_with("/var") && !path.starts_with("/run")));
    }
}
