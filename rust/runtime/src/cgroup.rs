//! A control group around a whole sandbox, where this machine lets us make one: version 2, or the controllers of version 1.
//!
//! A second fence: limits inside hold without it. Where no group can be made the sandbox runs without, and its facts say so.

use crate::settings::Limits;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

const BASE: &str = "/sys/fs/cgroup";
const OURS: &str = "creto";

/// The folders of one group; removed when it is empty and dropped.
#[derive(Debug)]
pub struct Group {
    folders: Vec<PathBuf>,
}

impl Group {
    /// Makes a group for a sandbox; none where the machine has no control groups that this process may use.
    pub fn new(id: &str, limits: &Limits) -> Option<Self> {
        let base = Path::new(BASE);
        let made = if base.join("cgroup.controllers").exists() { second(base, id, limits) } else { first(base, id, limits) };
        made.ok().filter(|group| !group.folders.is_empty())
    }

    /// True where a process can be put into such a group; tried once for each pool.
    pub fn works(id: &str, limits: &Limits) -> bool {
        let Some(group) = Self::new(id, limits) else { return false };
        let Ok(doors) = group.doors() else { return false };
        let mut command = std::process::Command::new("/bin/true");
        crate::sys::bound_to_this_thread(&mut command, Vec::new(), doors);
        command.status().is_ok_and(|status| status.success())
    }

    /// Files that take a process into the group when it writes `0` to them.
    pub fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        self.folders.iter().map(|folder| Ok(OpenOptions::new().write(true).open(folder.join("cgroup.procs"))?.into())).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.folders {
            // Processes may take a moment to be gone, on a busy machine seconds; what stays empty is removed by the next start.
            for _ in 0..1_000 {
                match fs::remove_dir(folder) {
                    Err(e) if e.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(std::time::Duration::from_millis(2)),
                    _ => break,
                }
            }
        }
    }
}

/// What the whole may use: programs' memory, and the files that lie in memory too.
fn memory(limits: &Limits) -> u64 {
    limits.memory.saturating_add(limits.disk).saturating_add(limits.scratch.saturating_mul(2)).saturating_add(512 << 20)
}

/// A guest's thread may cost several on the machine: far above what is allowed inside, far below what harms the machine.
fn threads(limits: &Limits) -> u64 {
    u64::from(limits.processes) * 4 + 512
}

fn second(base: &Path, id: &str, limits: &Limits) -> io::Result<Group> {
    let ours = base.join(OURS);
    fs::create_dir_all(&ours)?;
    for folder in [base, &ours] {
        // Those that are on already, or that this machine lacks, are told by the files that are missing below.
        for controller in ["+memory", "+pids", "+cpu"] {
            let _ = fs::write(folder.join("cgroup.subtree_control"), controller);
        }
    }
    let folder = ours.join(id);
    fs::create_dir(&folder)?;
    let group = Group { folders: vec![folder.clone()] };
    fs::write(folder.join("memory.max"), memory(limits).to_string())?;
    fs::write(folder.join("pids.max"), threads(limits).to_string())?;
    if limits.cpu_milli > 0 {
        fs::write(folder.join("cpu.max"), format!("{} 100000", u64::from(limits.cpu_milli) * 100))?;
    }
    Ok(group)
}

fn first(base: &Path, id: &str, limits: &Limits) -> io::Result<Group> {
    let mut group = Group { folders: Vec::new() };
    let quota = (limits.cpu_milli > 0).then(|| (u64::from(limits.cpu_milli) * 100).to_string());
    let wanted = [
        ("memory", "memory.limit_in_bytes", Some(memory(limits).to_string())),
        ("pids", "pids.max", Some(threads(limits).to_string())),
        ("cpu", "cpu.cfs_quota_us", quota),
    ];
    for (controller, file, value) in wanted {
        let Some(value) = value.filter(|_| base.join(controller).join("cgroup.procs").exists()) else { continue };
        let folder = base.join(controller).join(OURS).join(id);
        fs::create_dir_all(&folder)?;
        group.folders.push(folder.clone());
        fs::write(folder.join(file), value)?;
    }
    Ok(group)
}

/// Removes the groups of sandboxes whose owner is dead, as `lives` tells by a sandbox's name.
pub fn clean(lives: impl Fn(&str) -> bool) {
    let base = Path::new(BASE);
    for above in [base.to_owned(), base.join("memory"), base.join("pids"), base.join("cpu")] {
        for entry in fs::read_dir(above.join(OURS)).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with("creto-") && !lives(name)) {
                // Not empty yet: the next start tries again.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// Takes the calling process in; for use between fork and exec.
pub fn enter(doors: &[OwnedFd]) -> io::Result<()> {
    for door in doors {
        rustix::io::write(door, b"0")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_in_its_group_and_the_group_goes_with_it() {
        let limits = crate::settings::RuntimeConfig::default().limits();
        let id = format!("creto-test-{}", std::process::id());
        let Some(group) = Group::new(&id, &limits) else {
            eprintln!("skipped: this machine lets nobody make a control group");
            return;
        };
        let doors = group.doors().unwrap();
        let mut command = std::process::Command::new("/bin/cat");
        command.arg("/proc/self/cgroup");
        crate::sys::bound_to_this_thread(&mut command, Vec::new(), doors);
        let told = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(told.contains(&format!("/creto/{id}")), "{told}");
        let folders = group.folders.clone();
        drop(group);
        assert!(folders.iter().all(|folder| !folder.exists()));
    }
}
