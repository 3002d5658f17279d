//! How work that ends on a Rust thread reaches Python: a queue, one eventfd, and `drain`, called by the event loop's own thread.
//!
//! No Rust thread attaches to the interpreter, so none can block on it, or outlive it.

use crate::error;
use creto_audit::Completions;
use creto_enablement_common::sync::Mutex;
use creto_enablement_common::{Error, Result};
use pyo3::prelude::*;
use pyo3::types::PyInt;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// Turns what a thread made into a Python object, on the thread that drains.
pub type Convert = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// What a token is completed with.
enum Completed {
    /// The place of a record, made without an allocation since thousands may end at once.
    Index(Option<u64>),
    Made(Convert),
}

struct Queue {
    waiting: Mutex<Vec<(u64, Result<Completed>)>>,
    wake: OwnedFd,
}

impl Queue {
    /// Queues what is complete and wakes the draining thread if the queue was empty.
    fn put(&self, completed: impl Iterator<Item = (u64, Result<Completed>)>) {
        let first = {
            let mut waiting = self.waiting.lock();
            let before = waiting.len();
            waiting.extend(completed);
            before == 0
        };
        if first {
            // A full eventfd counter means that a wake-up is already due.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }
}

impl Completions for Queue {
    fn complete(&self, ended: &[(u64, Option<u64>)], failed: Option<&Error>) {
        let same = |error: &Error| Error::new(error.kind().clone()).with_context(error.chain().collect::<Vec<_>>().join(": "));
        self.put(ended.iter().map(|(token, index)| (*token, failed.map_or(Ok(Completed::Index(*index)), |error| Err(same(error))))));
    }
}

/// The sending half, held by Rust threads.
#[derive(Clone)]
pub struct Sender(Arc<Queue>);

impl Sender {
    /// Queues the result for `token` and wakes the draining thread if the queue was empty.
    pub fn send(&self, token: u64, result: Result<Convert>) {
        self.0.put(std::iter::once((token, result.map(Completed::Made))));
    }
}

/// A queue of completions; one per event loop.
#[pyclass(frozen, module = "creto._core")]
pub struct Bridge {
    sender: Sender,
}

impl Bridge {
    /// A handle for threads.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Where the ledger tells how appends ended.
    pub fn completions(&self) -> Arc<dyn Completions> {
        Arc::<Queue>::clone(&self.sender.0)
    }
}

#[pymethods]
impl Bridge {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| error::to_py(py, &Error::from(std::io::Error::from(e)).with_context("making an eventfd")))?;
        Ok(Self { sender: Sender(Arc::new(Queue { waiting: Mutex::new(Vec::new()), wake })) })
    }

    /// The descriptor to watch: readable when there is something to drain.
    fn fileno(&self) -> i32 {
        self.sender.0.wake.as_raw_fd()
    }

    /// Takes all that is complete: `(token, value, exception)`, one of the two being None.
    #[allow(clippy::type_complexity, reason = "a tuple is what Python unpacks fastest")]
    fn drain<'py>(&self, py: Python<'py>) -> Vec<(u64, Option<Bound<'py, PyAny>>, Option<Bound<'py, PyAny>>)> {
        let mut counter = [0_u8; 8];
        // Empty means that another call drained it; the queue below says what there is.
        let _ = rustix::io::read(&self.sender.0.wake, &mut counter);
        let taken = std::mem::take(&mut *self.sender.0.waiting.lock());
        taken
            .into_iter()
            .map(|(token, result)| {
                let raised = |e: PyErr| e.into_value(py).into_bound(py).into_any();
                match result {
                    Ok(Completed::Index(None)) => (token, Some(py.None().into_bound(py)), None),
                    Ok(Completed::Index(Some(index))) => (token, Some(PyInt::new(py, index).into_any()), None),
                    Ok(Completed::Made(convert)) => match convert(py) {
                        Ok(value) => (token, Some(value.into_bound(py)), None),
                        Err(e) => (token, None, Some(raised(e))),
                    },
                    Err(e) => (token, None, Some(raised(error::to_py(py, &e)))),
                }
            })
            .collect()
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Bridge>()
}
