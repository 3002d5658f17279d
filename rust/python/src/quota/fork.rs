//! A fork waits until no thread counts without the interpreter's lock: the child would find the enforcer's locks taken for ever.
//!
//! Threads that hold the interpreter's lock need no care, since whoever forks holds it. Those who wait here do so without it.

use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

static FORKING: AtomicBool = AtomicBool::new(false);
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// Counts without the interpreter's lock; no fork happens meanwhile.
pub(super) fn apart<T: Send>(py: Python<'_>, work: impl Send + FnOnce() -> T) -> T {
    py.detach(|| {
        loop {
            INSIDE.fetch_add(1, Ordering::SeqCst);
            if !FORKING.load(Ordering::SeqCst) {
                break;
            }
            INSIDE.fetch_sub(1, Ordering::SeqCst);
            thread::yield_now();
        }
        let _leave = Leave;
        work()
    })
}

/// Leaves also on a panic.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// To be called before a fork: waits until no thread counts, and lets none begin.
#[pyfunction]
pub fn quota_fork_begins(py: Python<'_>) {
    FORKING.store(true, Ordering::SeqCst);
    py.detach(|| {
        while INSIDE.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
    });
}

/// To be called after a fork, in the parent.
#[pyfunction]
pub fn quota_fork_over() {
    FORKING.store(false, Ordering::SeqCst);
}

/// To be called after a fork, in the child, which has only one thread.
#[pyfunction]
pub fn quota_fork_over_in_child() {
    INSIDE.store(0, Ordering::SeqCst);
    FORKING.store(false, Ordering::SeqCst);
}
