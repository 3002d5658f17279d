//! One sandbox: started empty, claimed once for one agent and one working folder, then gone.

use crate::backend::{Backend, Plan};
use crate::cgroup::Group;
use crate::changes::{self, Change};
use crate::egress::{Desk, Egress, Upstreams};
use crate::guest::Guest;
use crate::host::Host;
use crate::image::Image;
use crate::network::{GATEWAY, Wire};
use crate::settings::Limits;
use crate::slot::{Slot, open_folder};
use crate::stdio::{Captured, Hold, Sink, Source, Streams};
use crate::workdir;
use creto_enablement_common::sync::Mutex;
use creto_enablement_common::{Error, ErrorKind, Result, ResultExt};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(60);
const CLAIM: Duration = Duration::from_secs(10);

/// What every sandbox of a pool is made from.
pub struct Mould {
    /// Who starts them.
    pub backend: Box<dyn Backend>,
    /// Where they are started.
    pub host: Host,
    /// What they see.
    pub image: Arc<Image>,
    /// The image's root on the host thread's tmpfs.
    pub root: PathBuf,
    /// What each may use.
    pub limits: Limits,
    /// Names that lead where the operator says.
    pub upstreams: Upstreams,
    /// Whether each gets a control group.
    pub groups: bool,
    /// State, keys and configuration: a working folder neither holds them nor lies in them.
    pub protected: Vec<PathBuf>,
}

impl Mould {
    /// What there is to attest about sandboxes made from this, apart from the image's digest.
    pub fn facts(&self) -> serde_json::Value {
        let backend = self.backend.facts();
        json!({
            "backend": backend.name,
            "backendVersion": backend.version,
            "backendDigest": backend.digest,
            "configuration": backend.configuration,
            "imageTrees": self.image.trees,
            "limits": self.limits,
            "controlGroup": self.groups,
            "namedUpstreams": self.upstreams.keys().collect::<std::collections::BTreeSet<_>>(),
            "kernel": fs::read_to_string("/proc/version").unwrap_or_default().trim(),
        })
    }
}

/// Who takes a sandbox, and for what.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The agent's id.
    pub agent: String,
    /// The working folder; must exist.
    pub workdir: PathBuf,
    /// Paths below the working folder that are not in view.
    pub hidden: Vec<PathBuf>,
    /// Home inside; an empty folder in memory.
    pub home: PathBuf,
    /// Environment of every program.
    pub env: BTreeMap<String, String>,
    /// More of it, that is never shown, logged or attested.
    pub secrets: BTreeMap<String, String>,
}

/// A program to run.
pub struct Program {
    /// Name or path, then arguments.
    pub argv: Vec<String>,
    /// Environment beyond that of the claim.
    pub env: BTreeMap<String, String>,
    /// Where; the working folder unless said.
    pub cwd: Option<PathBuf>,
    /// Rows and columns, where it is to have a terminal.
    pub terminal: Option<(u16, u16)>,
    /// Input.
    pub stdin: Source,
    /// Output.
    pub stdout: Sink,
    /// Errors.
    pub stderr: Sink,
}

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit status; negative for the signal that ended it.
    pub status: i32,
    /// What it wrote, where that was captured.
    pub stdout: Captured,
    /// Its errors, where they were captured.
    pub stderr: Captured,
}

/// What names one change and no other: path, kind, digests before and after, and permission bits after.
pub type Agreed = (PathBuf, String, Option<String>, Option<String>, Option<u32>);

struct Claimed {
    claim: Claim,
    lower: OwnedFd,
    upper: OwnedFd,
}

/// A started sandbox.
pub struct Sandbox {
    id: String,
    mould: Arc<Mould>,
    folder: PathBuf,
    slot: Slot,
    guest: Guest,
    child: Mutex<Option<Child>>,
    group: Mutex<Option<Group>>,
    desk: Arc<Desk>,
    _egress: Egress,
    claimed: Mutex<Option<Arc<Claimed>>>,
    next_run: AtomicU64,
    hold: Arc<Hold>,
}

impl Sandbox {
    /// Starts one and waits until its first process serves.
    pub fn start(mould: &Arc<Mould>, id: &str) -> Result<Self> {
        let wire = Wire::new()?;
        let (ours, theirs) = UnixStream::pair()?;
        let folder = mould.host.folder().join(id);
        let (slot, child, folder, network, group) = {
            let (mould, folder, id) = (mould.clone(), folder.clone(), id.to_owned());
            let (control, network) = (OwnedFd::from(theirs), wire.inside);
            mould.clone().host.call(move || {
                fs::create_dir_all(&folder)?;
                let slot = Slot::new(folder.join("slot"))?;
                let (root, image, limits) = (mould.root.clone(), mould.image.clone(), mould.limits.clone());
                let group = if mould.groups { Group::new(&id, &limits) } else { None };
                let plan = Plan { id, folder: folder.clone(), root, image, slot: slot.shared(), control, network, limits, group };
                let child = mould.backend.start(&plan).inspect_err(|_| slot.clear())?;
                Ok((slot, child, folder, plan.network, plan.group))
            })?
        };
        let desk = Arc::new(Desk::default());
        let egress = Egress::start(wire.connections, wire.questions, mould.upstreams.clone(), desk.clone())?;
        let sandbox = Self {
            id: id.to_owned(),
            mould: mould.clone(),
            folder,
            slot,
            guest: Guest::new(ours)?,
            child: Mutex::new(Some(child)),
            group: Mutex::new(group),
            desk,
            _egress: egress,
            claimed: Mutex::new(None),
            next_run: AtomicU64::new(1),
            hold: Arc::default(),
        };
        // runsc reads the namespace by its descriptor while it starts, so that must live until the first process serves.
        let ready = sandbox.guest.ready(START);
        drop(network);
        match ready {
            Ok(_) => Ok(sandbox),
            Err(error) => {
                let (mould, folder) = (mould.clone(), sandbox.folder.clone());
                let said = mould.clone().host.call(move || Ok(mould.backend.complaint(&folder)))?;
                Err(Error::new(ErrorKind::SandboxSpawnFailed)
                    .with_context(format!("starting a sandbox with `{}`: {said}", sandbox.mould.backend.facts().name))
                    .with_source(error))
            }
        }
    }

    /// Its name on this machine.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where its connections wait for a decision.
    pub fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// What it was made from.
    pub fn mould(&self) -> &Arc<Mould> {
        &self.mould
    }

    /// False once its first process has ended.
    pub fn is_alive(&self) -> bool {
        !self.guest.is_gone()
    }

    /// Binds the agent, its folder, environment and secrets to the sandbox. Once.
    pub fn claim(&self, claim: Claim) -> Result<()> {
        let mut claimed = self.claimed.lock();
        if claimed.is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists).with_context("the sandbox is claimed already; it serves one agent only"));
        }
        let workdir = workdir::resolve(&claim.workdir, &self.mould.protected)?;
        let lower = open_folder(&workdir)?;
        // A name on the way may have been exchanged for a link since it was looked at: what is opened is what counts.
        if fs::read_link(format!("/proc/thread-self/fd/{}", lower.as_raw_fd()))? != workdir {
            return Err(Error::invalid(format!("`{}` was moved while the sandbox was claimed; try again", workdir.display())));
        }
        let owner = File::from(lower.try_clone()?).metadata()?;
        let (slot, disk, path, opened) = (self.slot.clone(), self.mould.limits.disk, workdir.clone(), lower.try_clone()?);
        let hidden = claim.hidden.clone();
        let mould = self.mould.clone();
        let upper = self.mould.host.call(move || {
            let map = mould.backend.user_namespace().map(|users| (users, mould.backend.root_owner()));
            slot.occupy(&path, &opened, disk, &hidden, map)
        })?;
        let limits = &self.mould.limits;
        let message = json!({
            "do": "claim",
            "agent": claim.agent,
            "workdir": workdir,
            "slot": "/creto/slot/work",
            "home": claim.home,
            "uid": owner.uid(),
            "gid": owner.gid(),
            "env": claim.env,
            "secrets": claim.secrets,
            "confinement": self.mould.backend.confinement(),
            "limits": {
                "processes": limits.processes, "files": limits.files, "memory": limits.memory, "file_size": limits.disk.max(limits.scratch),
            },
        });
        self.guest.claim(&message, CLAIM).context(|| format!("claiming a sandbox for `{}`", claim.agent))?;
        *claimed = Some(Arc::new(Claimed { claim: Claim { workdir, ..claim }, lower, upper }));
        Ok(())
    }

    fn claimed(&self) -> Result<Arc<Claimed>> {
        self.claimed.lock().clone().ok_or_else(|| Error::invalid("the sandbox is not claimed yet"))
    }

    /// Starts a program; `done` is called once, on a thread of ours. Gives back the run's number.
    pub fn run(&self, program: Program, done: impl FnOnce(Result<Finished>) + Send + 'static) -> Result<u64> {
        let claimed = self.claimed()?;
        if program.argv.first().is_none_or(String::is_empty) {
            return Err(Error::invalid("no program to run: give its name, then its arguments"));
        }
        let id = self.next_run.fetch_add(1, Ordering::Relaxed);
        let (streams, theirs) = Streams::start(program.stdin, program.stdout, program.stderr, &self.hold)?;
        let message = json!({
            "do": "run",
            "id": id,
            "argv": program.argv,
            "env": program.env,
            "cwd": program.cwd.as_deref().unwrap_or(&claimed.claim.workdir),
            "terminal": program.terminal.map(|(rows, columns)| json!({ "rows": rows, "columns": columns })),
        });
        let (tell, told) = mpsc::channel();
        let [stdin, stdout, stderr] = &theirs;
        self.guest.run(
            id,
            &message,
            [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
            Box::new(move |status| {
                // The thread below waits for exactly this.
                let _ = tell.send(status);
            }),
        )?;
        std::thread::Builder::new().name("creto-run".into()).stack_size(256 * 1024).spawn(move || {
            let status = told.recv().ok().flatten();
            let [stdout, stderr] = streams.finish();
            done(match status {
                Some(status) => Ok(Finished { status, stdout, stderr }),
                None => Err(Error::new(ErrorKind::Internal).with_context("the sandbox ended before its program did")),
            });
        })?;
        Ok(id)
    }

    /// Sends a signal to a run's process group.
    pub fn signal(&self, run: u64, signal: i32) -> Result<()> {
        self.guest.send(&json!({ "do": "signal", "id": run, "signal": signal }), &[])
    }

    /// Keeps back what programs write to the host's descriptors, or lets it go.
    pub fn hold(&self, held: bool) {
        self.hold.set(held);
    }

    /// Tells a run's terminal its new size.
    pub fn resize(&self, run: u64, rows: u16, columns: u16) -> Result<()> {
        self.guest.send(&json!({ "do": "resize", "id": run, "rows": rows, "columns": columns }), &[])
    }

    /// What was changed in the working folder so far.
    pub fn changes(&self) -> Result<Vec<Change>> {
        let claimed = self.claimed()?;
        let mut found = changes::between(&claimed.lower, &claimed.upper, self.mould.limits.disk)?;
        // What was never in view was not deleted by the program: the folders that hold it stay, and nothing takes their place.
        let hidden = &claimed.claim.hidden;
        let holds = |path: &Path| hidden.iter().any(|place| place.starts_with(path));
        let within = |path: &Path| hidden.iter().any(|place| path.starts_with(place));
        found.retain(|change| change.kind != changes::Kind::Deleted || !(within(&change.path) || holds(&change.path)));
        let is_folder = |node: &Option<changes::Node>| node.as_ref().is_some_and(|node| node.shape == changes::Shape::Folder);
        for change in &mut found {
            if is_folder(&change.before) && !is_folder(&change.after) && holds(&change.path) {
                change.refused = Some("in the place of a folder that holds files which are not in view".into());
            }
        }
        Ok(found)
    }

    /// The content of a file before and after, at most `most` bytes of each; none where there is none.
    pub fn contents(&self, path: &Path, most: u64) -> Result<[Option<Vec<u8>>; 2]> {
        let claimed = self.claimed()?;
        Ok([changes::content(&claimed.lower, path, most)?, changes::content(&claimed.upper, path, most)?])
    }

    /// Carries changes out of the overlay into the folder itself. Each is checked against what it was when it was listed.
    pub fn apply(&self, changes: &[Change]) -> Result<()> {
        let claimed = self.claimed()?;
        changes::apply(&claimed.lower, &claimed.upper, changes)
    }

    /// As `apply`, for changes named by path, kind, digests before and after, and mode after: what is no longer so is refused.
    pub fn apply_agreed(&self, agreed: &[Agreed]) -> Result<()> {
        let claimed = self.claimed()?;
        let now = self.changes()?;
        // A program may have changed as many paths as its disk holds: one look at each, not at all for each.
        let by_path: HashMap<&Path, &Change> = now.iter().map(|change| (change.path.as_path(), change)).collect();
        let mut chosen = Vec::with_capacity(agreed.len());
        for (path, kind, before, after, mode) in agreed {
            let digest = |node: &Option<changes::Node>| node.as_ref().map(|n| n.digest.clone());
            let same = by_path.get(path.as_path()).filter(|change| {
                change.kind.name() == kind
                    && digest(&change.before) == *before
                    && digest(&change.after) == *after
                    && change.after.as_ref().map(|n| n.mode) == *mode
            });
            chosen.push(same.copied().cloned().ok_or_else(|| {
                Error::new(ErrorKind::Integrity)
                    .with_context(format!("`{}` is no longer what was agreed to; list the changes again", path.display()))
            })?);
        }
        changes::apply(&claimed.lower, &claimed.upper, &chosen)
    }

    /// Ends everything inside and gives back all that it held. Happens on drop too.
    pub fn close(&self) {
        self.desk.close();
        self.hold.set(false);
        self.guest.hang_up();
        let Some(mut child) = self.child.lock().take() else { return };
        let deadline = Instant::now() + Duration::from_secs(3);
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // Its sandbox dies with it. An error means that it is gone.
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(self.group.lock().take());
        let (slot, folder) = (self.slot.clone(), self.folder.clone());
        // The host thread has ended only where the process is ending, which takes the mounts along.
        let _ = self.mould.host.call(move || {
            slot.clear();
            fs::remove_dir_all(&folder)?;
            Ok(())
        });
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.close();
    }
}

/// The address of the name server inside, as text.
pub fn nameserver() -> String {
    Ipv4Addr::from(GATEWAY).to_string()
}
