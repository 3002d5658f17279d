//! What programs of the process backend may not ask of the kernel: all that mounts, loads, traces, or opens a wide attack surface.
//!
//! A deny-list: the backend is for buggy code, not for hostile code, and any program has to run. Whatever is denied fails with EPERM.

use creto_enablement_common::{Error, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch, sock_filter,
};
use std::collections::BTreeMap;

const DENIED: &[i64] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_memfd_secret,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_quotactl_fd,
    libc::SYS_fanotify_mark,
    libc::SYS_nfsservctl,
    libc::SYS_uselib,
    libc::SYS__sysctl,
    libc::SYS_modify_ldt,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_personality,
    libc::SYS_lookup_dcookie,
    libc::SYS_vhangup,
];

/// Families of sockets that programs may have: local, IPv4, and netlink, by which name look-up lists interfaces.
const FAMILIES: &[i32] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_NETLINK];
const NEW_NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;
const ERRNO: u32 = 0x0005_0000;
const ALLOW: u32 = 0x7fff_0000;
/// System calls of the x32 ABI bear this bit, and would pass a filter that counts in x86-64's numbers.
const X32: u32 = 0x4000_0000;

/// The filters, to be installed in this order, each as the bytes of `struct sock_filter[]`.
pub fn filters() -> Result<Vec<Vec<u8>>> {
    let wrong = |e: seccompiler::BackendError| Error::internal(format!("building the system call filter: {e}"));
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(wrong)?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    let condition = |argument, op, value| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value).map_err(wrong);
    let namespace_bits = (0..32).map(|bit| 1_i32.wrapping_shl(bit)).filter(|bit| NEW_NAMESPACES & bit != 0);
    let clone = namespace_bits
        .map(|bit| {
            let bit = u64::from(bit.cast_unsigned());
            SeccompRule::new(vec![condition(0, SeccompCmpOp::MaskedEq(bit), bit)?]).map_err(wrong)
        })
        .collect::<Result<Vec<_>>>()?;
    rules.insert(libc::SYS_clone, clone);
    let socket = |family: i32, protocols: &[i32]| {
        let mut all = vec![condition(0, SeccompCmpOp::Eq, u64::from(family.cast_unsigned()))?];
        for protocol in protocols {
            all.push(condition(2, SeccompCmpOp::Ne, u64::from(protocol.cast_unsigned()))?);
        }
        SeccompRule::new(all).map_err(wrong)
    };
    let other =
        FAMILIES.iter().map(|family| condition(0, SeccompCmpOp::Ne, u64::from(family.cast_unsigned()))).collect::<Result<Vec<_>>>()?;
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        // TCP, UDP and lists of interfaces are all that a program needs; SCTP and others would have the kernel load their modules.
        let known = [socket(libc::AF_INET, &[0, libc::IPPROTO_TCP, libc::IPPROTO_UDP])?, socket(libc::AF_NETLINK, &[libc::NETLINK_ROUTE])?];
        rules.insert(call, [SeccompRule::new(other.clone()).map_err(wrong)?].into_iter().chain(known).collect());
    }
    // TIOCSTI and TIOCLINUX push keystrokes into a terminal.
    let pushing =
        [0x5412, 0x541c].into_iter().map(|request| SeccompRule::new(vec![condition(1, SeccompCmpOp::Eq, request)?]).map_err(wrong));
    rules.insert(libc::SYS_ioctl, pushing.collect::<Result<Vec<_>>>()?);
    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, arch).map_err(wrong)?;
    let filter: BpfProgram = filter.try_into().map_err(wrong)?;
    Ok(vec![bytes(&unknown_calls()), bytes(&filter)])
}

/// ENOSYS for the x32 ABI, and for clone3, whose flags lie in memory that no filter can read: C libraries then use clone.
fn unknown_calls() -> BpfProgram {
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let clone3 = u32::try_from(libc::SYS_clone3).unwrap_or(u32::MAX);
    vec![
        step(0x20, 0, 0, 0),      // load the number
        step(0x35, 1, 0, X32),    // at or above: not ours
        step(0x15, 0, 1, clone3), // not clone3: allow
        step(0x06, 0, 0, ERRNO | libc::ENOSYS.cast_unsigned()),
        step(0x06, 0, 0, ALLOW),
    ]
}

fn bytes(program: &[sock_filter]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for step in program {
        bytes.extend_from_slice(&step.code.to_ne_bytes());
        bytes.extend_from_slice(&[step.jt, step.jf]);
        bytes.extend_from_slice(&step.k.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_fit_the_kernels_limit() {
        for filter in filters().unwrap() {
            assert!(filter.len() / 8 <= 4096);
            assert_eq!(filter.len() % 8, 0);
        }
    }
}
