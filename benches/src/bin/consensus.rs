//! `consensus_timestamp()` with the folder's clock installed.

use creto_benches::{Row, batches, scratch};
use creto_consensus::{HybridLogicalClock, consensus_timestamp, install};
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = scratch("consensus")?;
    let clock = Arc::new(HybridLogicalClock::open(&folder.join("clock"))?);
    install(&clock);
    let (ours, spread) = batches(15, 1_000_000, |_| consensus_timestamp());
    Row {
        area: "consensus",
        case: "timestamp",
        unit: "ns",
        ours,
        peer: None,
        samples: 15_000_000,
        spread,
        note: "consensus_timestamp() of a folder whose clock is mapped, one thread; the wall clock is read in it",
    }
    .print();
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
