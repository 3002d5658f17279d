//! Between fork and exec: from a child of this process to the first process of a sandbox.
#![expect(unsafe_code, reason = "code that runs between fork and exec: system calls only, on memory that was allocated before")]

use crate::backend::Plan;
use creto_enablement_common::{Error, Result};
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

struct Mount {
    source: Option<CString>,
    target: CString,
    kind: Option<CString>,
    flags: libc::c_ulong,
    data: Option<CString>,
    /// Whether to make it, and all below it, read-only.
    read_only: bool,
}

/// Every mount of a sandbox, in order, and the place of its root.
pub struct Mounts {
    list: Vec<Mount>,
    root: CString,
    control: CString,
}

const QUIET: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV;

fn text(path: impl AsRef<Path>) -> Result<CString> {
    CString::new(path.as_ref().as_os_str().as_bytes()).map_err(|_| Error::invalid("a path with a zero byte in it"))
}

impl Mounts {
    /// Makes the places that are needed on the host, and the list.
    pub fn prepare(plan: &Plan) -> Result<Self> {
        let layer = plan.folder.join("root.layer");
        let root = plan.folder.join("root");
        fs::create_dir_all(&layer)?;
        fs::create_dir_all(&root)?;
        // The layer takes what the first process writes outside the working folder: homes, places, /etc/passwd.
        let (upper, work) = (layer.join("upper"), layer.join("work"));
        rustix::mount::mount(
            "creto-root",
            &layer,
            "tmpfs",
            rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV,
            c"mode=0755,size=256m",
        )
        .map_err(io::Error::from)?;
        fs::create_dir(&upper)?;
        fs::create_dir(&work)?;
        chown(&upper, Some(super::NOBODY), Some(super::NOBODY))?;
        let mut overlay = b"lowerdir=".to_vec();
        overlay.extend_from_slice(plan.root.as_os_str().as_bytes());
        for (name, path) in [("upperdir", &upper), ("workdir", &work)] {
            overlay.extend_from_slice(format!(",{name}=").as_bytes());
            overlay.extend_from_slice(path.as_os_str().as_bytes());
        }
        let inside = |path: &str| text(root.join(path.trim_start_matches('/')));
        let mut list = vec![Mount {
            source: Some(c"creto-root".into()),
            target: text(&root)?,
            kind: Some(c"overlay".into()),
            flags: QUIET,
            data: Some(CString::new(overlay).map_err(|_| Error::invalid("a path with a zero byte in it"))?),
            read_only: false,
        }];
        let mut add = |source: Option<CString>, target: CString, kind: Option<&CStr>, flags, data: Option<CString>, read_only| {
            list.push(Mount { source, target, kind: kind.map(Into::into), flags, data, read_only });
        };
        for tree in &plan.image.trees {
            let bind = libc::MS_BIND | libc::MS_REC;
            add(Some(text(tree)?), inside(&tree.to_string_lossy())?, None, bind, None, true);
        }
        let sized = |mode: &str, size: u64| {
            CString::new(format!("mode={mode},size={size}")).map_err(|_| Error::internal("a size with a zero byte"))
        };
        add(Some(c"proc".into()), inside("proc")?, Some(c"proc"), QUIET | libc::MS_NOEXEC, None, false);
        for place in ["tmp", "var/tmp"] {
            add(Some(c"tmpfs".into()), inside(place)?, Some(c"tmpfs"), QUIET, Some(sized("1777", plan.limits.scratch)?), false);
        }
        add(Some(c"tmpfs".into()), inside("dev")?, Some(c"tmpfs"), libc::MS_NOSUID | libc::MS_NOEXEC, Some(sized("0755", 65_536)?), false);
        add(
            None,
            inside("dev/pts")?,
            Some(c"devpts"),
            libc::MS_NOSUID | libc::MS_NOEXEC,
            Some(c"newinstance,ptmxmode=0666,mode=0620".into()),
            false,
        );
        add(Some(c"tmpfs".into()), inside("dev/shm")?, Some(c"tmpfs"), QUIET, Some(sized("1777", 64 << 20)?), false);
        for device in ["null", "zero", "full", "random", "urandom", "tty"] {
            add(Some(text(Path::new("/dev").join(device))?), inside(&format!("dev/{device}"))?, None, libc::MS_BIND, None, false);
        }
        add(Some(text(&plan.slot)?), inside("creto/slot")?, None, libc::MS_BIND, None, false);
        add(None, inside("creto/slot")?, None, libc::MS_SLAVE, None, false);
        Ok(Self { list, root: text(&root)?, control: inside("dev/fd")? })
    }
}

/// Makes the command the first process of a sandbox: in its own namespaces and root, nobody on the machine, bound to this thread's life.
pub fn enter(command: &mut Command, mounts: Mounts, network: i32, users: i32, control: i32, doors: Vec<OwnedFd>) {
    let parent = std::process::id();
    // SAFETY: everything that `become_first` touches was allocated before the fork; it makes system calls only.
    unsafe {
        command.pre_exec(move || {
            crate::cgroup::enter(&doors)?;
            become_first(&mounts, network, users, control, parent)
        });
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_long(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn pointer(text: Option<&CString>) -> *const libc::c_char {
    text.map_or(core::ptr::null(), |text| text.as_ptr())
}

/// Ends when what waits for it does, also where that was over before this call: `outside` is a pipe of which it alone holds the other end.
fn die_with_outside(outside: libc::c_int) -> io::Result<()> {
    crate::sys::die_with_parent()?;
    // The parent is in another process namespace, so its number says nothing here.
    let mut end = libc::pollfd { fd: outside, events: 0, revents: 0 };
    // SAFETY: one struct on this stack, and its count.
    check(unsafe { libc::poll(&raw mut end, 1, 0) })?;
    if end.revents == 0 { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}

fn become_first(mounts: &Mounts, network: i32, users: i32, control: i32, parent: u32) -> io::Result<()> {
    crate::sys::die_with(parent)?;
    // SAFETY: plain system calls; every pointer is to memory that lives in `mounts` or on this stack.
    unsafe {
        check(libc::setns(network, libc::CLONE_NEWNET))?;
        check(libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS))?;
        let mut pipe = [-1; 2];
        check(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC))?;
        let [outside, held] = pipe;
        let first = check(libc::fork())?;
        if first != 0 {
            wait_for(first, held);
        }
        libc::close(held);
        die_with_outside(outside)?;
        build_root(mounts)?;
        check(libc::sethostname(c"sandbox".as_ptr(), 7))?;
        // Descriptor 3 is the control socket, and there is no other; the one that tells of a failed exec closes itself there.
        check(libc::dup2(control, 3))?;
        check(libc::fcntl(3, libc::F_SETFD, 0))?;
        check(libc::setgroups(0, core::ptr::null()))?;
        check(libc::setns(users, libc::CLONE_NEWUSER))?;
        // A mount namespace that this user namespace owns: what was mounted above is locked in it.
        check(libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS))?;
        check(libc::setresgid(0, 0, 0))?;
        check(libc::setresuid(0, 0, 0))?;
        // Changing users has undone it.
        die_with_outside(outside)?;
        check_long(libc::syscall(libc::SYS_close_range, 4, u32::MAX, 4 /* CLOSE_RANGE_CLOEXEC */))?;
    }
    Ok(())
}

/// What remains outside: holds nothing but `held`, waits for the first process, and ends with it.
fn wait_for(first: libc::pid_t, held: libc::c_int) -> ! {
    // SAFETY: plain system calls; `status` outlives them.
    unsafe {
        let held = held.unsigned_abs();
        if held > 0 {
            libc::syscall(libc::SYS_close_range, 0, held - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, held + 1, u32::MAX, 0);
        let mut status = 0;
        while libc::waitpid(first, &raw mut status, 0) < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) {}
        libc::_exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 })
    }
}

/// # Safety
/// Must be called in a mount namespace of its own.
unsafe fn build_root(mounts: &Mounts) -> io::Result<()> {
    // SAFETY: every pointer is to a CString in `mounts`, to a literal, or to a struct on this stack.
    unsafe {
        check(libc::mount(core::ptr::null(), c"/".as_ptr(), core::ptr::null(), libc::MS_REC | libc::MS_SLAVE, core::ptr::null()))?;
        for mount in &mounts.list {
            if mount.target.to_bytes().ends_with(b"/dev/pts") || mount.target.to_bytes().ends_with(b"/dev/shm") {
                check(libc::mkdir(mount.target.as_ptr(), 0o755))?;
            } else if mount.source.as_ref().is_some_and(|source| source.to_bytes().starts_with(b"/dev/")) {
                let file = check(libc::open(mount.target.as_ptr(), libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC, 0o666))?;
                libc::close(file);
            }
            let (source, kind) = (pointer(mount.source.as_ref()), pointer(mount.kind.as_ref()));
            check(libc::mount(source, mount.target.as_ptr(), kind, mount.flags, pointer(mount.data.as_ref()).cast()))?;
            if mount.read_only {
                read_only(&mount.target)?;
            }
        }
        link(&mounts.root, &mounts.control)?;
        check(libc::chdir(mounts.root.as_ptr()))?;
        check_long(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
        check(libc::chdir(c"/".as_ptr()))?;
    }
    Ok(())
}

/// The usual links in `/dev`.
unsafe fn link(root: &CStr, fd: &CStr) -> io::Result<()> {
    // SAFETY: as above.
    unsafe {
        check(libc::symlink(c"/proc/self/fd".as_ptr(), fd.as_ptr()))?;
        check(libc::chdir(root.as_ptr()))?;
        for (target, name) in [
            (c"/proc/self/fd/0", c"dev/stdin"),
            (c"/proc/self/fd/1", c"dev/stdout"),
            (c"/proc/self/fd/2", c"dev/stderr"),
            (c"pts/ptmx", c"dev/ptmx"),
        ] {
            check(libc::symlink(target.as_ptr(), name.as_ptr()))?;
        }
    }
    Ok(())
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    users: u64,
}

unsafe fn read_only(target: &CStr) -> io::Result<()> {
    // Read-only, no setuid, no devices.
    let attributes = Attributes { set: 0x1 | 0x2 | 0x4, clear: 0, propagation: 0, users: 0 };
    // SAFETY: the struct is as the kernel defines it, and outlives the call.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            target.as_ptr(),
            0x8000, /* AT_RECURSIVE */
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })
}
