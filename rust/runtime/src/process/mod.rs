//! The backend `process`: namespaces, Landlock and seccomp of the host's own kernel. For buggy code, not for hostile code: a fault of the
//! kernel is a way out.
//!
//! The first process is root in a user namespace whose root is nobody on the machine; programs have no capability even there.

mod child;
mod seccomp;

use crate::backend::{Backend, Facts, Plan};
use crate::sys::{in_new_user_namespace, landlock_version};
use child::{Mounts, enter};
use creto_enablement_common::{Error, ErrorKind, Result, ResultExt};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What the sandbox's root is on the machine: a user that owns nothing there.
pub const NOBODY: u32 = 0x7a00_0000;

/// The kernel's own means.
pub struct Process {
    users: OwnedFd,
    confinement: Value,
    facts: Facts,
}

impl Process {
    /// Makes the user namespace that all sandboxes of a pool share, and checks that Landlock is there.
    pub fn new() -> Result<Self> {
        let version = landlock_version().map_err(|e| {
            Error::new(ErrorKind::SandboxSpawnFailed)
                .with_context("the kernel has no Landlock (5.13 and later, `lsm=landlock`)")
                .with_source(e)
        })?;
        let users = user_namespace().context(|| "making a user namespace (needs root)".into())?;
        let filters: Vec<String> = seccomp::filters()?.iter().map(|filter| base16ct::lower::encode_string(filter)).collect();
        let confinement = json!({ "landlock": version, "seccomp": filters });
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
        let configuration = json!({
            "namespaces": ["user", "mount", "pid", "ipc", "uts", "network"], "landlock": version, "seccompFilters": filters,
        });
        Ok(Self { users, confinement, facts: Facts { name: "process", version: kernel, digest: String::new(), configuration } })
    }
}

/// A namespace whose user 0 is `NOBODY`, and all others themselves, so that files of the working folder stay their owner's.
fn user_namespace() -> Result<OwnedFd> {
    let mut holder = Command::new("/bin/cat");
    holder.env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    in_new_user_namespace(&mut holder);
    let mut holder = holder.spawn()?;
    let made = (|| {
        let map = format!("0 {NOBODY} 1\n1 1 {}\n", NOBODY - 1);
        let place = format!("/proc/{}", holder.id());
        fs::write(format!("{place}/uid_map"), &map)?;
        fs::write(format!("{place}/gid_map"), &map)?;
        Ok(OwnedFd::from(File::open(format!("{place}/ns/user"))?))
    })();
    // Its input ends here, and so does it.
    drop(holder.stdin.take());
    let _ = holder.wait();
    made
}

impl Backend for Process {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn root_owner(&self) -> u32 {
        NOBODY
    }

    fn user_namespace(&self) -> Option<BorrowedFd<'_>> {
        Some(self.users.as_fd())
    }

    fn confinement(&self) -> Value {
        self.confinement.clone()
    }

    fn start(&self, plan: &Plan) -> Result<Child> {
        let mounts = Mounts::prepare(plan)?;
        let log = File::create(plan.folder.join("log"))?;
        let mut command = Command::new(&plan.image.python);
        command
            .args(["-B", "/creto/agent.py"])
            .arg(&plan.folder)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        command.process_group(0);
        enter(&mut command, mounts, plan.network.as_raw_fd(), self.users.as_raw_fd(), plan.control.as_raw_fd(), plan.doors()?);
        command.spawn().map_err(Error::from).context(|| format!("starting `{}`", plan.image.python.display()))
    }

    fn complaint(&self, folder: &Path) -> String {
        let mut text = String::new();
        // No log means that nothing was said.
        let _ = File::open(folder.join("log")).and_then(|file| file.take(65_536).read_to_string(&mut text));
        let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("its first process said nothing");
        line.chars().take(500).collect()
    }
}
