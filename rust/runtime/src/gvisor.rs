//! The backend `gvisor`: runsc on systrap, one OCI bundle for each sandbox, no engine and no daemon.

use crate::backend::{Backend, Facts, Plan};
use crate::sys::bound_to_this_thread;
use creto_enablement_common::{Error, ErrorKind, Result, ResultExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the first process may do inside; programs get none of it.
const CAPABILITIES: &[&str] = &[
    "CAP_SYS_ADMIN",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_KILL",
    "CAP_CHOWN",
    "CAP_FOWNER",
    "CAP_DAC_OVERRIDE",
    "CAP_SYS_RESOURCE",
];

/// runsc, at one path.
pub struct Gvisor {
    runsc: PathBuf,
    facts: Facts,
}

impl Gvisor {
    /// Uses the runsc at `runsc`, after asking it for its version.
    pub fn new(runsc: &Path) -> Result<Self> {
        let fails = |what: String| Error::new(ErrorKind::SandboxSpawnFailed).with_context(what);
        let runsc = runsc.canonicalize().map_err(|e| fails(format!("looking for runsc at `{}`", runsc.display())).with_source(e))?;
        let told = Command::new(&runsc)
            .arg("--version")
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .map_err(|e| fails(format!("asking `{}` for its version", runsc.display())).with_source(e))?;
        if !told.status.success() {
            return Err(fails(format!("`{}` does not tell its version", runsc.display())));
        }
        let version = String::from_utf8_lossy(&told.stdout).lines().next().unwrap_or_default().trim().to_owned();
        let digest = digest(&runsc)?;
        let configuration = json!({ "flags": flags(), "capabilities": CAPABILITIES });
        Ok(Self { runsc, facts: Facts { name: "gvisor", version, digest, configuration } })
    }
}

/// The switches that every sandbox is started with.
fn flags() -> Vec<&'static str> {
    vec![
        "--platform=systrap",
        "--network=sandbox",
        "--net-raw=false",
        "--host-uds=none",
        "--host-fifo=none",
        "--overlay2=root:memory,size=256m",
        "--file-access=exclusive",
        "--file-access-mounts=shared",
        "--ignore-cgroups",
        "--oci-seccomp=false",
    ]
}

impl Backend for Gvisor {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn start(&self, plan: &Plan) -> Result<Child> {
        fs::write(plan.folder.join("config.json"), bundle(plan).to_string())?;
        let log = File::create(plan.folder.join("log"))?;
        let control = plan.control.as_raw_fd();
        let mut command = Command::new(&self.runsc);
        command
            .arg("--root")
            .arg(plan.folder.join("state"))
            .args(flags())
            .args(["run", "--bundle"])
            .arg(&plan.folder)
            .arg(format!("--pass-fd={control}:3"))
            .arg(&plan.id)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        bound_to_this_thread(&mut command, vec![control], plan.doors()?);
        command.spawn().map_err(Error::from).context(|| format!("starting `{}`", self.runsc.display()))
    }

    fn complaint(&self, folder: &Path) -> String {
        let mut text = String::new();
        // No log means that nothing was said.
        let _ = File::open(folder.join("log")).and_then(|file| file.take(65_536).read_to_string(&mut text));
        let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("runsc said nothing");
        line.chars().take(500).collect()
    }
}

fn bundle(plan: &Plan) -> Value {
    let tree = |path: &Path| json!({ "type": "bind", "source": path, "destination": path, "options": ["rbind", "ro", "nosuid", "nodev"] });
    let scratch = format!("size={}", plan.limits.scratch);
    let tmpfs = |place: &str| json!({ "type": "tmpfs", "source": "tmpfs", "destination": place, "options": ["nosuid", "nodev", "mode=1777", scratch.as_str()] });
    let mut mounts = vec![
        json!({ "type": "proc", "source": "proc", "destination": "/proc" }),
        tmpfs("/tmp"),
        tmpfs("/var/tmp"),
        json!({ "type": "tmpfs", "source": "tmpfs", "destination": "/dev/shm", "options": ["nosuid", "nodev", "mode=1777", "size=64m"] }),
        json!({ "type": "bind", "source": plan.slot, "destination": "/creto/slot", "options": ["bind", "rslave"] }),
    ];
    mounts.extend(plan.image.trees.iter().map(|path| tree(path)));
    let network = format!("/proc/{}/fd/{}", std::process::id(), plan.network.as_raw_fd());
    json!({
        "ociVersion": "1.0.0",
        "hostname": "sandbox",
        "root": { "path": plan.root, "readonly": false },
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": [plan.image.python, "-B", "/creto/agent.py"],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES, "inheritable": [], "ambient": [],
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 65_536, "soft": 65_536 }],
        },
        "mounts": mounts,
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "network", "path": network },
            ],
        },
    })
}

/// SHA-256 of a file.
fn digest(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(base16ct::lower::encode_string(&hash.finalize())),
            Ok(got) => hash.update(buffer.get(..got).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}
