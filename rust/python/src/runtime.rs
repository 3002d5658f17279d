//! `creto-runtime` for Python.

use crate::bridge::{Bridge, Convert};
use crate::error::IntoPy;
use creto_enablement_common::sync::Mutex;
use creto_enablement_common::{EnablementConfig, Error, Result};
use creto_runtime::backend::Backend;
use creto_runtime::changes::{Change, Node, Shape};
use creto_runtime::egress::{Event, Upstreams, normal};
use creto_runtime::gvisor::Gvisor;
use creto_runtime::host::Host;
use creto_runtime::image::Image;
use creto_runtime::pool::{Lease, Pool};
use creto_runtime::process::Process;
use creto_runtime::sandbox::{Agreed, Claim, Mould, Program, nameserver};
use creto_runtime::settings::RuntimeConfig;
use creto_runtime::stdio::{Sink, Source};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a pool is made from, as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    folder: PathBuf,
    backend: String,
    #[serde(default)]
    runsc: Option<PathBuf>,
    python: PathBuf,
    prefix: PathBuf,
    #[serde(default)]
    trees: Vec<PathBuf>,
    #[serde(default)]
    hosts: BTreeMap<String, String>,
    #[serde(default)]
    protected: Vec<PathBuf>,
    settings: RuntimeConfig,
}

fn build(spec: Spec) -> Result<Pool> {
    spec.settings.validate().map_err(|e| Error::invalid(e.to_string()))?;
    let mut upstreams = Upstreams::new();
    for (name, address) in &spec.hosts {
        let name = normal(name).ok_or_else(|| Error::invalid(format!("`{name}` in `hosts` is no host name")))?;
        let address =
            address.parse().map_err(|_| Error::invalid(format!("`{address}` in `hosts` is no address and port, as `127.0.0.1:8080`")))?;
        upstreams.insert(name, address);
    }
    let backend: Box<dyn Backend> = match (spec.backend.as_str(), spec.runsc) {
        ("gvisor", Some(runsc)) => Box::new(Gvisor::new(&runsc)?),
        ("process", _) => Box::new(Process::new()?),
        ("gvisor", None) => return Err(Error::invalid("the backend `gvisor` needs the path of runsc")),
        (other, _) => {
            return Err(Error::invalid(format!("`{other}` is no backend; known are {}", creto_runtime::backend::NAMES.join(", "))));
        }
    };
    let image = Arc::new(Image::of_this_machine(&spec.python, &spec.prefix, &spec.trees)?);
    let host = Host::start(&spec.folder)?;
    let root = host.folder().join("root");
    let (place, shown, owner) = (root.clone(), image.clone(), backend.root_owner());
    host.call(move || shown.write(&place, &nameserver(), owner))?;
    let limits = spec.settings.limits();
    let mould = Mould { backend, host, image, root, limits, upstreams, groups: false, protected: spec.protected };
    Pool::new(mould, spec.settings.warm_pool_min_size as usize, spec.settings.warm_pool_max_size as usize)
}

/// Runs `work` on a thread of its own and completes the token with what it gives.
fn later(bridge: &Bridge, token: u64, work: impl FnOnce() -> Result<Convert> + Send + 'static) -> Result<()> {
    let sender = bridge.sender();
    std::thread::Builder::new().name("creto-work".into()).spawn(move || sender.send(token, work()))?;
    Ok(())
}

/// A pool of warm sandboxes.
#[pyclass(frozen, module = "creto._core")]
pub struct SandboxPool(Arc<Pool>);

#[pymethods]
impl SandboxPool {
    /// Completes with a pool made from a JSON text.
    #[staticmethod]
    fn start(py: Python<'_>, spec: &str, bridge: &Bridge, token: u64) -> PyResult<()> {
        let spec: Spec = serde_json::from_str(spec).map_err(|e| Error::invalid(format!("the pool's settings: {e}"))).or_raise(py)?;
        later(bridge, token, move || {
            let pool = Arc::new(build(spec)?);
            Ok(Box::new(move |py: Python<'_>| Ok(Py::new(py, SandboxPool(pool))?.into_any())))
        })
        .or_raise(py)
    }

    /// Completes when `count` sandboxes wait.
    fn warm(&self, py: Python<'_>, count: usize, seconds: f64, bridge: &Bridge, token: u64) -> PyResult<()> {
        let pool = self.0.clone();
        later(bridge, token, move || {
            pool.warm(count, Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0)))?;
            Ok(Box::new(|py: Python<'_>| Ok(py.None())))
        })
        .or_raise(py)
    }

    /// Completes with a claimed sandbox.
    #[pyo3(signature = (agent, workdir, hidden, home, env, secrets, seconds, bridge, token))]
    #[allow(clippy::too_many_arguments, reason = "one crossing carries the whole claim")]
    fn claim(
        &self,
        py: Python<'_>,
        agent: String,
        workdir: PathBuf,
        hidden: Vec<PathBuf>,
        home: PathBuf,
        env: BTreeMap<String, String>,
        secrets: BTreeMap<String, String>,
        seconds: f64,
        bridge: &Bridge,
        token: u64,
    ) -> PyResult<()> {
        let pool = self.0.clone();
        let claim = Claim { agent, workdir, hidden, home, env, secrets };
        later(bridge, token, move || {
            let lease = pool.claim(claim, Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0)))?;
            Ok(Box::new(move |py: Python<'_>| Ok(Py::new(py, SandboxLease(Mutex::new(Some(Arc::new(lease)))))?.into_any())))
        })
        .or_raise(py)
    }

    /// `{idle, starting, claimed}`.
    fn fill<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fill = self.0.fill();
        let counts = PyDict::new(py);
        counts.set_item("idle", fill.idle)?;
        counts.set_item("starting", fill.starting)?;
        counts.set_item("claimed", fill.claimed)?;
        Ok(counts)
    }

    /// Completes when all that waited has ended.
    fn close(&self, py: Python<'_>, bridge: &Bridge, token: u64) -> PyResult<()> {
        let pool = self.0.clone();
        later(bridge, token, move || {
            pool.close();
            Ok(Box::new(|py: Python<'_>| Ok(py.None())))
        })
        .or_raise(py)
    }

    /// What its sandboxes are made of, apart from the image's digest, as JSON.
    fn facts(&self) -> String {
        self.0.mould().facts().to_string()
    }

    /// Completes with the digest of the image's manifest.
    fn measure(&self, py: Python<'_>, bridge: &Bridge, token: u64) -> PyResult<()> {
        let pool = self.0.clone();
        later(bridge, token, move || {
            let digest = pool.mould().image.digest();
            Ok(Box::new(move |py: Python<'_>| Ok(digest.into_pyobject(py)?.into_any().unbind())))
        })
        .or_raise(py)
    }
}

/// A claimed sandbox.
#[pyclass(frozen, module = "creto._core")]
pub struct SandboxLease(Mutex<Option<Arc<Lease>>>);

impl SandboxLease {
    fn lease(&self) -> Result<Arc<Lease>> {
        self.0.lock().clone().ok_or_else(|| Error::invalid("the sandbox is closed"))
    }
}

fn duplicate(fd: i32) -> Result<OwnedFd> {
    if fd < 0 {
        return Err(Error::invalid("a descriptor below zero"));
    }
    #[expect(unsafe_code, reason = "a raw descriptor comes from Python")]
    // SAFETY: borrowed for this one call only; a number that is no open descriptor gives EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().map_err(Error::from)
}

#[derive(FromPyObject)]
enum Input {
    Descriptor(i32),
    Bytes(Vec<u8>),
}

fn sink(target: Option<&str>, fd: Option<i32>) -> Result<Sink> {
    match (target, fd) {
        (_, Some(fd)) => duplicate(fd).map(Sink::Descriptor),
        (Some("capture"), None) => Ok(Sink::Capture),
        _ => Ok(Sink::Null),
    }
}

#[pymethods]
impl SandboxLease {
    /// Its name on this machine.
    #[getter]
    fn id(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.lease().or_raise(py)?.sandbox().id().to_owned())
    }

    /// Starts a program; completes with `(status, stdout, stderr, truncated)`, and gives back the run's number at once.
    #[pyo3(signature = (argv, env, cwd, terminal, stdin, stdout, stderr, bridge, token))]
    #[allow(clippy::too_many_arguments, reason = "one crossing carries the whole program")]
    fn run(
        &self,
        py: Python<'_>,
        argv: Vec<String>,
        env: BTreeMap<String, String>,
        cwd: Option<PathBuf>,
        terminal: Option<(u16, u16)>,
        stdin: Option<Input>,
        stdout: Option<i32>,
        stderr: Option<i32>,
        bridge: &Bridge,
        token: u64,
    ) -> PyResult<u64> {
        let sender = bridge.sender();
        (|| {
            let stdin = match stdin {
                None => Source::Null,
                Some(Input::Descriptor(fd)) => Source::Descriptor(duplicate(fd)?),
                Some(Input::Bytes(bytes)) => Source::Bytes(bytes),
            };
            let program =
                Program { argv, env, cwd, terminal, stdin, stdout: sink(Some("capture"), stdout)?, stderr: sink(Some("capture"), stderr)? };
            self.lease()?.sandbox().run(program, move |finished| {
                sender.send(
                    token,
                    finished.map(|done| {
                        Box::new(move |py: Python<'_>| {
                            let truncated = done.stdout.truncated || done.stderr.truncated;
                            let bytes = |b: &[u8]| PyBytes::new(py, b).unbind();
                            let tuple = (done.status, bytes(&done.stdout.bytes), bytes(&done.stderr.bytes), truncated);
                            Ok(tuple.into_pyobject(py)?.into_any().unbind())
                        }) as Convert
                    }),
                );
            })
        })()
        .or_raise(py)
    }

    /// Sends a signal to a run.
    fn signal(&self, py: Python<'_>, run: u64, signal: i32) -> PyResult<()> {
        self.lease().and_then(|lease| lease.sandbox().signal(run, signal)).or_raise(py)
    }

    /// Tells a run's terminal its size.
    fn resize(&self, py: Python<'_>, run: u64, rows: u16, columns: u16) -> PyResult<()> {
        self.lease().and_then(|lease| lease.sandbox().resize(run, rows, columns)).or_raise(py)
    }

    /// Keeps back what programs write to the host's descriptors, or lets it go; once this returns nothing is being written.
    fn hold(&self, py: Python<'_>, held: bool) -> PyResult<()> {
        let lease = self.lease().or_raise(py)?;
        py.detach(|| lease.sandbox().hold(held));
        Ok(())
    }

    /// Completes with the next event as a dict, or None when the sandbox has ended.
    fn next_event(&self, py: Python<'_>, bridge: &Bridge, token: u64) -> PyResult<()> {
        let sender = bridge.sender();
        let lease = self.lease().or_raise(py)?;
        lease.sandbox().desk().next(Box::new(move |event| {
            sender.send(
                token,
                Ok(Box::new(move |py: Python<'_>| {
                    Ok(event.map(|e| event_dict(py, &e)).transpose()?.into_pyobject(py)?.into_any().unbind())
                })),
            );
        }));
        Ok(())
    }

    /// Answers a question; False where there is no such open question.
    fn answer(&self, py: Python<'_>, question: u64, allowed: bool) -> PyResult<bool> {
        Ok(self.lease().or_raise(py)?.sandbox().desk().answer(question, allowed))
    }

    /// Takes the yes to a question back: it lets nothing through any more, and the connection that it let through ends.
    fn withdraw(&self, py: Python<'_>, question: u64) -> PyResult<()> {
        self.lease().or_raise(py)?.sandbox().desk().withdraw(question);
        Ok(())
    }

    /// Completes with a list of changes, each a dict.
    fn changes(&self, py: Python<'_>, bridge: &Bridge, token: u64) -> PyResult<()> {
        let lease = self.lease().or_raise(py)?;
        later(bridge, token, move || {
            let changes = lease.sandbox().changes()?;
            Ok(Box::new(move |py: Python<'_>| {
                let list = changes.iter().map(|change| change_dict(py, change)).collect::<PyResult<Vec<_>>>()?;
                Ok(list.into_pyobject(py)?.into_any().unbind())
            }))
        })
        .or_raise(py)
    }

    /// Completes with a path's content before and after, at most `most` bytes each, None where there is none.
    fn contents(&self, py: Python<'_>, path: PathBuf, most: u64, bridge: &Bridge, token: u64) -> PyResult<()> {
        let lease = self.lease().or_raise(py)?;
        later(bridge, token, move || {
            let [before, after] = lease.sandbox().contents(&path, most)?;
            Ok(Box::new(move |py: Python<'_>| {
                let bytes = |b: &Option<Vec<u8>>| b.as_ref().map(|b| PyBytes::new(py, b).unbind());
                Ok((bytes(&before), bytes(&after)).into_pyobject(py)?.into_any().unbind())
            }))
        })
        .or_raise(py)
    }

    /// Carries out the changes at these paths, as long as path, kind, digests and mode are still those that were listed.
    fn apply(&self, py: Python<'_>, agreed: Vec<Agreed>, bridge: &Bridge, token: u64) -> PyResult<()> {
        let lease = self.lease().or_raise(py)?;
        later(bridge, token, move || {
            lease.sandbox().apply_agreed(&agreed)?;
            Ok(Box::new(|py: Python<'_>| Ok(py.None())))
        })
        .or_raise(py)
    }

    /// Completes when the sandbox has ended.
    fn close(&self, py: Python<'_>, bridge: &Bridge, token: u64) -> PyResult<()> {
        let lease = self.0.lock().take();
        later(bridge, token, move || {
            if let Some(lease) = lease {
                lease.sandbox().close();
            }
            Ok(Box::new(|py: Python<'_>| Ok(py.None())))
        })
        .or_raise(py)
    }
}

fn event_dict<'py>(py: Python<'py>, event: &Event) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    match event {
        Event::Ask { id, destination, on } => {
            dict.set_item("event", "ask")?;
            dict.set_item("id", id)?;
            dict.set_item("on", on)?;
            dict.set_item("host", &destination.host)?;
            dict.set_item("port", destination.port)?;
            dict.set_item("scheme", destination.scheme)?;
            dict.set_item("method", destination.request.as_ref().map(|r| &r.method))?;
            dict.set_item("target", destination.request.as_ref().map(|r| &r.target))?;
        }
        Event::Refused { host, port, reason } => {
            dict.set_item("event", "refused")?;
            dict.set_item("host", host)?;
            dict.set_item("port", port)?;
            dict.set_item("reason", reason)?;
        }
        Event::Closed { id, sent, received, error } => {
            dict.set_item("event", "closed")?;
            dict.set_item("id", id)?;
            dict.set_item("sent", sent)?;
            dict.set_item("received", received)?;
            dict.set_item("error", error)?;
        }
    }
    Ok(dict)
}

fn node_dict<'py>(py: Python<'py>, node: &Node) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let shape = match node.shape {
        Shape::File => "file",
        Shape::Folder => "folder",
        Shape::Link => "link",
        Shape::Special => "special",
    };
    dict.set_item("shape", shape)?;
    dict.set_item("mode", node.mode)?;
    dict.set_item("size", node.size)?;
    dict.set_item("digest", &node.digest)?;
    Ok(dict)
}

fn change_dict<'py>(py: Python<'py>, change: &Change) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("path", change.path.as_os_str())?;
    dict.set_item("kind", change.kind.name())?;
    dict.set_item("before", change.before.as_ref().map(|n| node_dict(py, n)).transpose()?)?;
    dict.set_item("after", change.after.as_ref().map(|n| node_dict(py, n)).transpose()?)?;
    dict.set_item("refused", &change.refused)?;
    Ok(dict)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("BACKENDS", creto_runtime::backend::NAMES.to_vec())?;
    module.add_class::<SandboxPool>()?;
    module.add_class::<SandboxLease>()
}
