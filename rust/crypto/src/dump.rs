//! Keeps long-lived secrets out of core dumps: those of this crate by their pages, and those that the providers hold on heaps of their own by
//! having no dump made at all.

#![expect(unsafe_code, reason = "madvise, sysconf and setrlimit have no safe form in the libraries used here")]

use std::sync::Once;

/// Set to anything, it leaves core dumps as the process was started with, expanded keys in them included.
const ALLOWED: &str = "CRETO_ALLOW_CORE_DUMPS";

/// Has this process leave no core dump from now on; whoever started it can say otherwise.
pub fn forbid() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        if std::env::var_os(ALLOWED).is_some() {
            return;
        }
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both calls take a pointer to a whole rlimit that lives across them, and touch nothing else.
        unsafe {
            if libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) == 0 && limit.rlim_cur > 1 {
                // One byte: too little for any file, and the one limit that also stops a dump piped to a crash handler (core(5)). The hard
                // limit stays, so that programs started from here can have dumps of their own.
                limit.rlim_cur = 1;
                let _ = libc::setrlimit(libc::RLIMIT_CORE, &raw const limit);
            }
        }
    });
}

/// Has the kernel leave out of dumps the pages on which these bytes lie. Neighbours on the page are left out with them, for good:
/// that costs a debugger something and nobody else.
pub fn leave_out(bytes: &[u8]) {
    // SAFETY: sysconf reads a constant of the system and touches no memory of ours.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096).max(4096);
    let start = bytes.as_ptr() as usize & !(page - 1);
    let length = (bytes.as_ptr() as usize + bytes.len()).next_multiple_of(page) - start;
    // SAFETY: the range covers whole pages that hold `bytes`, which are mapped; MADV_DONTDUMP changes what a dump writes and nothing
    // that a program can read. Where it fails the secret is as dumpable as before, so there is nothing to undo.
    let _ = unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTDUMP) };
}

#[cfg(test)]
mod tests {
    use crate::{Provider, Secret, SigningKey, Suite};

    #[test]
    fn a_process_that_holds_a_key_leaves_no_dump() {
        SigningKey::generate(Suite::Standard).unwrap();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let soft = core.split_whitespace().nth(4).unwrap();
        assert!(soft == "0" || soft == "1", "{core}");
    }

    #[test]
    fn the_page_of_a_kept_secret_is_flagged_to_be_left_out() {
        let secret = Secret::<32>::random(Provider::chosen()).unwrap().kept();
        let address = secret.expose().as_ptr() as usize;
        let map = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        let mut flags = None;
        for line in map.lines() {
            if let Some((range, _)) = line.split_once(' ')
                && let Some((from, to)) = range.split_once('-')
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                inside = (from..to).contains(&address);
            } else if inside && let Some(found) = line.strip_prefix("VmFlags:") {
                flags = Some(found.to_owned());
            }
        }
        assert!(flags.unwrap().split_whitespace().any(|flag| flag == "dd"));
    }
}
