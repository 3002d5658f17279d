//! Which folders may be a working folder: none that holds creto's own state, keys or configuration, none inside those, by whatever name.

use creto_enablement_common::{Error, Result, ResultExt};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Places that a working folder would hide or lay open inside the sandbox.
const NEVER: &[&str] =
    &["/", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", "/run", "/var", "/var/lib", "/boot", "/creto"];

/// Resolves a working folder, or says why it cannot be one. `protected` are files and folders that no program may see.
pub fn resolve(workdir: &Path, protected: &[PathBuf]) -> Result<PathBuf> {
    let real = workdir.canonicalize().map_err(Error::from).context(|| format!("looking for the working folder `{}`", workdir.display()))?;
    if !real.is_dir() {
        return Err(Error::invalid(format!("`{}` is no folder; a sandbox works in one", real.display())));
    }
    let refuse = |why: String| Err(Error::invalid(format!("`{}` cannot be a working folder: {why}", real.display())));
    let below = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", "/run", "/boot", "/creto"];
    if NEVER.iter().any(|place| real == Path::new(place)) || below.iter().any(|place| real.starts_with(place)) {
        return refuse("it belongs to the system; change to a project's folder".into());
    }
    for place in protected {
        let Ok(secret) = place.canonicalize() else { continue };
        if holds(&real, &secret)? {
            return refuse(format!("it holds `{}`, which is creto's own; change to another folder", secret.display()));
        }
        if secret.is_dir() && holds(&secret, &real)? {
            return refuse(format!("it lies in `{}`, which is creto's own; change to another folder", secret.display()));
        }
        if let Some(twin) = second_name(&secret)? {
            return refuse(format!("`{}` has a second name (a hard link), which may lie in it; remove that link", twin.display()));
        }
    }
    Ok(real)
}

/// True where `outer` is `inner` or one of the folders above it: compared by device and inode, so that a bind mount is found out too.
fn holds(outer: &Path, inner: &Path) -> Result<bool> {
    let outer = fs::metadata(outer)?;
    let mut above = Some(inner);
    while let Some(place) = above {
        let found = fs::metadata(place)?;
        if (found.dev(), found.ino()) == (outer.dev(), outer.ino()) {
            return Ok(true);
        }
        above = place.parent();
    }
    Ok(false)
}

/// A protected file that has more than one name. Only keys and configuration are looked at: files that the store or ledger make are their own.
fn second_name(place: &Path) -> Result<Option<PathBuf>> {
    let found = fs::symlink_metadata(place)?;
    if found.is_file() {
        return Ok((found.nlink() > 1).then(|| place.to_owned()));
    }
    let mut folders = vec![(place.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let entry = entry?;
            let Ok(found) = entry.metadata() else { continue };
            if found.is_file() && found.nlink() > 1 {
                return Ok(Some(entry.path()));
            }
            if found.is_dir() && depth < 4 {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("creto-workdir-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder.canonicalize().unwrap()
    }

    #[test]
    fn a_folder_that_holds_the_state_or_lies_in_it_is_refused_under_any_name() {
        let home = scratch("names");
        let state = home.join("project/.state");
        fs::create_dir_all(state.join("keys")).unwrap();
        fs::create_dir_all(home.join("other")).unwrap();
        symlink(&home, home.join("other/way")).unwrap();
        let protected = [state.clone()];
        for bad in [home.join("project"), home.clone(), state.join("keys"), state, home.join("other/way/project"), home.join("other/way")] {
            let text = resolve(&bad, &protected).unwrap_err().to_string();
            assert!(text.contains("creto's own"), "{bad:?}: {text}");
        }
        assert_eq!(resolve(&home.join("other"), &protected).unwrap(), home.join("other"));
        fs::remove_dir_all(&home).unwrap();
    }

    #[test]
    fn a_key_with_a_second_name_is_found_out() {
        let home = scratch("links");
        fs::create_dir_all(home.join("state/keys")).unwrap();
        fs::create_dir_all(home.join("project")).unwrap();
        fs::write(home.join("state/keys/sealing"), "k").unwrap();
        let protected = [home.join("state")];
        assert!(resolve(&home.join("project"), &protected).is_ok());
        fs::hard_link(home.join("state/keys/sealing"), home.join("project/notes.txt")).unwrap();
        let text = resolve(&home.join("project"), &protected).unwrap_err().to_string();
        assert!(text.contains("a second name (a hard link)"), "{text}");
        fs::remove_dir_all(&home).unwrap();
    }

    #[test]
    fn the_systems_own_places_are_refused() {
        for bad in ["/", "/etc", "/usr/lib", "/proc/self", "/var"] {
            assert!(resolve(Path::new(bad), &[]).is_err(), "{bad}");
        }
    }
}
