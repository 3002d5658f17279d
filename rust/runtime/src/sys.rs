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

/// Makes the calling process end when the thread that started it does.
pub fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
}

/// The same, and fails where `parent` was dead before the kernel was told: then nothing would end it. For use between fork and exec.
pub fn die_with(parent: u32) -> io::Result<()> {
    die_with_parent()?;
    let now = rustix::process::getppid().map_or(0, |process| process.as_raw_nonzero().get().unsigned_abs());
    if now == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}

/// Makes the command die with the thread that starts it, out of reach of the terminal's signals, lets it inherit `keep`, and takes it into
/// the control group of `doors`.
pub fn bound_to_this_thread(command: &mut Command, keep: Vec<i32>, doors: Vec<OwnedFd>) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only plain system calls are made, on memory that was allocated before the fork.
    unsafe {
        command.pre_exec(move || {
            die_with(parent)?;
            rustix::process::setsid()?;
            crate::cgroup::enter(&doors)?;
            for fd in &keep {
                if libc::fcntl(*fd, libc::F_SETFD, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// Gives the command a user namespace of its own, with no map yet.
pub fn in_new_user_namespace(command: &mut Command) {
    // SAFETY: between fork and exec one system call is made.
    unsafe {
        command.pre_exec(|| unshare(UnshareFlags::NEWUSER));
    }
}

/// The version of Landlock's interface that the kernel has.
pub fn landlock_version() -> io::Result<i64> {
    // SAFETY: with this flag the kernel reads no memory.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, core::ptr::null::<u8>(), 0_usize, 1_u32) };
    if version > 0 { Ok(version) } else { Err(io::Error::last_os_error()) }
}

/// A copy of the mount at `path` in which owners are seen through a user namespace's map; mounted at `target`.
pub fn mount_mapped(path: &std::path::Path, target: &std::path::Path, users: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
    use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, path, flags)?;
    // `struct mount_attr`: set MOUNT_ATTR_IDMAP, clear nothing, leave propagation, and the namespace.
    let attributes: [u64; 4] = [0x0010_0000, 0, 0, u64::try_from(users.as_raw_fd()).unwrap_or(u64::MAX)];
    // SAFETY: the array has the layout that the kernel defines, and outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(move_mount(&tree, "", rustix::fs::CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}
