//! What can start a sandbox.

use crate::cgroup::Group;
use crate::image::Image;
use crate::settings::Limits;
use creto_enablement_common::Result;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;

/// Every backend that this build knows.
pub const NAMES: &[&str] = &[
    #[cfg(feature = "gvisor")]
    "gvisor",
    #[cfg(feature = "process")]
    "process",
];

/// What a backend starts from.
pub struct Plan {
    /// Names the sandbox on this machine.
    pub id: String,
    /// A folder for the backend's own files.
    pub folder: PathBuf,
    /// The image's root: places, links and files; its trees are to be bound in read-only.
    pub root: PathBuf,
    /// What the image shows.
    pub image: Arc<Image>,
    /// To be bound to `/creto/slot`, as a slave.
    pub slot: PathBuf,
    /// The first process gets this as descriptor 3.
    pub control: OwnedFd,
    /// The only network there is.
    pub network: OwnedFd,
    /// What it may use.
    pub limits: Limits,
    /// What holds it as a whole, where there is such a thing.
    pub group: Option<Group>,
}

impl Plan {
    /// Files by which a process enters the group.
    pub fn doors(&self) -> Result<Vec<OwnedFd>> {
        Ok(self.group.as_ref().map(Group::doors).transpose()?.unwrap_or_default())
    }
}

/// What there is to say about a backend in an attestation.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `gvisor`
    pub name: &'static str,
    /// Its program's own version text, or the kernel's.
    pub version: String,
    /// SHA-256 of its program; empty where the kernel is all there is.
    pub digest: String,
    /// How it is started.
    pub configuration: serde_json::Value,
}

/// Starts sandboxes of one kind.
pub trait Backend: Send + Sync {
    /// What it is.
    fn facts(&self) -> &Facts;
    /// Starts the first process of a sandbox; called on the host thread. The child ends when the sandbox does, and the other way round.
    fn start(&self, plan: &Plan) -> Result<Child>;
    /// Who the sandbox's root is on the machine; owns the image's own files.
    fn root_owner(&self) -> u32 {
        0
    }
    /// The user namespace in which files of the machine's root are seen as the sandbox's root's, where that is another.
    fn user_namespace(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// What the first process has to put on each program, beyond taking its rights away.
    fn confinement(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    /// Why a start failed, from the backend's own log.
    fn complaint(&self, plan: &std::path::Path) -> String;
}
