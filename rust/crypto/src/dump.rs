//! Keeps long-lived secrets out of core dumps, those piped to a crash handler too, which no resource limit stops.

#![expect(unsafe_code, reason = "madvise and sysconf have no safe form in the libraries used here")]

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
    use crate::{Provider, Secret};

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
