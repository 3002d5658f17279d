//! A thread with a mount namespace of its own, in which every mount of this process is made and every sandbox is started.
//!
//! A tmpfs over the state folder's `sandbox/` holds bundles, slots and the backend's own state, seen from this thread and its children only.
//! So nothing of it outlives the process, however that ends, and several processes side by side never see each other's.

use crate::sys::unshare;
use creto_enablement_common::sync::Mutex;
use creto_enablement_common::{Error, ErrorKind, Result, ResultExt};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

type Job = Box<dyn FnOnce() + Send>;

/// Runs closures on the thread, one after the other; children that it starts die with it.
pub struct Host {
    jobs: Mutex<mpsc::Sender<Job>>,
    folder: PathBuf,
}

impl Host {
    /// Starts the thread; `folder` is where its tmpfs goes.
    pub fn start(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::from).context(|| format!("making `{}`", folder.display()))?;
        let folder = folder.canonicalize().map_err(Error::from)?;
        let (jobs, work) = mpsc::channel::<Job>();
        let (ready, wait) = mpsc::channel();
        let place = folder.clone();
        std::thread::Builder::new()
            .name("creto-host".into())
            .spawn(move || {
                let prepared = prepare(&place);
                let failed = prepared.is_err();
                if ready.send(prepared).is_err() || failed {
                    return;
                }
                while let Ok(job) = work.recv() {
                    job();
                }
            })
            .map_err(Error::from)?;
        wait.recv().map_err(|_| Error::internal("the thread that starts sandboxes died"))?.map_err(|e| {
            Error::new(ErrorKind::SandboxSpawnFailed).with_context("preparing a mount namespace for sandboxes").with_source(e)
        })?;
        Ok(Self { jobs: Mutex::new(jobs), folder })
    }

    /// Where the tmpfs is, as seen from the thread.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs `work` there and waits for what it gives back.
    pub fn call<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let (give, take) = mpsc::channel();
        self.jobs
            .lock()
            .send(Box::new(move || drop(give.send(work()))))
            .map_err(|_| Error::internal("the thread that starts sandboxes has ended"))?;
        take.recv().map_err(|_| Error::internal("the thread that starts sandboxes died"))?
    }
}

fn prepare(folder: &Path) -> Result<()> {
    unshare(UnshareFlags::NEWNS | UnshareFlags::FS).context(|| "leaving the mount namespace (needs CAP_SYS_ADMIN)".into())?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).map_err(io::Error::from)?;
    mount("creto", folder, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0700,size=64m")
        .map_err(io::Error::from)
        .context(|| format!("mounting a tmpfs on `{}`", folder.display()))?;
    // What is mounted below must reach the sandboxes that are already there, and nobody else.
    mount_change(folder, MountPropagationFlags::PRIVATE).map_err(io::Error::from)?;
    Ok(())
}
