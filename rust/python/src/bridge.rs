//! How work that ends on a Rust thread reaches Python: a queue, one eventfd, and `drain`, called by the event loop's own thread.
//!
//! No Rust thread attaches to the interpreter, so none can block on it, or outlive it.

use crate::error;
use creto_enablement_common::{Error, Result};
use parking_lot::Mutex;
use pyo3::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// Turns what a thread made into a Python object, on the thread that drains.
pub type Convert = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

struct Queue {
    waiting: Mutex<Vec<(u64, Result<Convert>)>>,
    wake: OwnedFd,
}

/// The sending half, held by Rust threads.
#[derive(Clone)]
pub struct Sender(Arc<Queue>);

impl Sender {
    /// Queues the result for `token` and wakes the draining thread if the queue was empty.
    pub fn send(&self, token: u64, result: Result<Convert>) {
        let first = {
            let mut waiting = self.0.waiting.lock();
            waiting.push((token, result));
            waiting.len() == 1
        };
        if first {
            // A full eventfd counter means that a wake-up is already due.
            let _ = rustix::io::write(&self.0.wake, &1_u64.to_ne_bytes());
        }
    }

    /// Queues a completion that carries nothing.
    pub fn done(&self, token: u64, result: Result<()>) {
        self.send(token, result.map(|()| Box::new(|py: Python<'_>| Ok(py.None())) as Convert));
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
                    Ok(convert) => match convert(py) {
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
