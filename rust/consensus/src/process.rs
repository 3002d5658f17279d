//! The process's notion of now, for the specification's `consensus_timestamp()`.

use crate::{HybridLogicalClock, Timestamp, source};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

static LAST: AtomicU64 = AtomicU64::new(0);
static FOLDER: OnceLock<Arc<HybridLogicalClock>> = OnceLock::new();

/// Makes `consensus_timestamp()` read this folder's clock from now on; the first folder that a process opens stays the one.
///
/// Returns false where another was installed before.
pub fn install(clock: &Arc<HybridLogicalClock>) -> bool {
    // What was given out before must stay behind what comes.
    let _ = clock.observe(Timestamp::from_word(LAST.load(Ordering::Acquire)));
    FOLDER.set(Arc::clone(clock)).is_ok()
}

/// A timestamp later than every one that this process was given before; the folder's own once a folder is open.
pub fn consensus_timestamp() -> Timestamp {
    if let Some(clock) = FOLDER.get() {
        return clock.now();
    }
    let physical = Timestamp::from_micros(source::wall_micros()).word();
    let previous = LAST.fetch_max(physical, Ordering::AcqRel);
    if previous < physical {
        return Timestamp::from_word(physical);
    }
    Timestamp::from_word(LAST.fetch_add(1, Ordering::AcqRel) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_before_a_folder_opened_stays_behind_what_comes_after() {
        let folder = std::env::temp_dir().join(format!("creto-process-clock-{}", std::process::id()));
        let before = consensus_timestamp();
        let clock = Arc::new(HybridLogicalClock::open(&folder).unwrap());
        assert!(install(&clock));
        assert!(consensus_timestamp() > before);
        assert!(!install(&clock));
        std::fs::remove_file(folder).unwrap();
    }
}
