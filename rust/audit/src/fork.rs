//! Tells a child of fork that what it inherited is its parent's, and lets go of the parent's locks in it.

#![expect(unsafe_code, reason = "the C library's fork hook is the only way to see a fork without asking at every call")]

use std::os::fd::RawFd;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

static GENERATION: AtomicU64 = AtomicU64::new(0);
static HOOK: Once = Once::new();
/// Lock files held by this process, 0 where a place is free. (Descriptor 0 is never a lock file.)
static HELD: [AtomicI32; 64] = [const { AtomicI32::new(0) }; 64];

/// Runs in the child, where only calls that are safe in a signal handler are.
extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::AcqRel);
    for place in &HELD {
        let fd = place.swap(0, Ordering::AcqRel);
        if fd > 0 {
            // SAFETY: the descriptor is the lock file's, and the handle that owns it is dead in this process (its generation has passed). The
            // parent's lock stays: it goes when the last descriptor of its open file does.
            unsafe { libc::close(fd) };
        }
    }
}

/// How many forks lie between the first process and this one; a handle made under another number belongs to an ancestor.
pub fn generation() -> u64 {
    HOOK.call_once(|| {
        // SAFETY: the handler is a plain function that lives as long as the process.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    GENERATION.load(Ordering::Acquire)
}

/// The same where `generation` has been called before, without asking whether the hook is there.
#[inline]
pub fn now() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Closes this lock file in every child; without a free place the child keeps it, and the lock, until it ends.
pub fn close_in_children(fd: RawFd) {
    for place in &HELD {
        if place.compare_exchange(0, fd, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return;
        }
    }
}

/// Takes back `close_in_children`, before the file is closed here.
pub fn forget(fd: RawFd) {
    for place in &HELD {
        let _ = place.compare_exchange(fd, 0, Ordering::AcqRel, Ordering::Acquire);
    }
}
