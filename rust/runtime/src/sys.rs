//! The few system calls that no safe wrapper covers; all unsafe code of this crate but the process backend's child.
#![expect(unsafe_code, reason = "system calls without a safe wrapper; each block says why it is sound")]

use rustix::thread::UnshareFlags;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Gives the calling thread new namespaces. Never the descriptor table.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    let flags = flags.difference(UnshareFlags::FILES);
    // SAFETY: only CLONE_FILES can make descriptors of other threads dangle, and it was just removed.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Lets a socket take connections to addresses that are not the machine's.
pub fn transparent(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    // SAFETY: the descriptor is open, and the option's value is an int that outlives the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_IP, libc::IP_TRANSPARENT, (&raw const on).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the command die with the thread that starts it, out of reach of the terminal's signals, and lets it inherit `keep`.
pub fn bound_to_this_thread(command: &mut Command, keep: Vec<i32>) {
    // SAFETY: between fork and exec only plain system calls are made, on memory that was allocated before the fork.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            rustix::process::setsid()?;
            for fd in &keep {
                if libc::fcntl(*fd, libc::F_SETFD, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}
