//! The process's clock, for the specification's `consensus_timestamp()`.

use crate::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

static LAST: AtomicU64 = AtomicU64::new(0);

/// A timestamp later than every one that this process was given before.
pub fn consensus_timestamp() -> Timestamp {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
    let physical = Timestamp::from_micros(micros).word();
    let previous = LAST.fetch_max(physical, Ordering::AcqRel);
    if previous < physical {
        return Timestamp::from_word(physical);
    }
    Timestamp::from_word(LAST.fetch_add(1, Ordering::AcqRel) + 1)
}
