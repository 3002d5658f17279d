//! The gate: schema check, decision by 1,000 policies, two meters reserved at four levels, permit, settlement, one record enqueued.
//!
//! Quota, ledger and clock are the real ones; the policies permit with `@audit("after")`, so an act writes one record, which nobody waits for.

#![allow(clippy::indexing_slicing, reason = "places in a list of known length")]

use creto_benches::setting::{BARE, FULL, Setting};
use creto_benches::{Row, batches};
use creto_consensus::HybridLogicalClock;
use creto_enablement_common::OutcomeRef;
use std::sync::Arc;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("creto-bench-gate-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let setting = Setting::open(&folder, Arc::new(HybridLogicalClock::open(&folder.join("clock"))?))?;
    let (alone, chained) = (setting.alone()?, setting.chained()?);
    for (case, principal, act, note) in [
        ("rust/enter_settle", &alone, &BARE, "no chain, no context; 1,000 policies, 2 meters x 4 levels, one relaxed record"),
        ("rust/enter_settle/context", &alone, &FULL, "the same with a context of 3 fields"),
        ("rust/enter_settle/4-links", &chained, &FULL, "the same with a chain of 4 links, each narrowed by a compiled attenuation"),
    ] {
        // Short runs with pauses between them: what is measured is the gate, not how fast the disk takes records.
        let (calls, repeats) = (2_000, 41);
        let mut means = Vec::new();
        for _ in 0..repeats {
            let (mean, _) = batches(1, calls, |_| {
                let permit = setting.gate.enter(principal, act, None);
                permit.map(|permit| permit.settle(OutcomeRef::Success, None).is_ok())
            });
            means.push(mean);
            std::thread::sleep(Duration::from_millis(20));
        }
        means.sort_by(f64::total_cmp);
        let middle = means[repeats / 2];
        let spread = (means[repeats * 3 / 4] - means[repeats / 4]) / middle;
        Row { area: "gate", case, unit: "ns", ours: middle, peer: None, samples: calls * repeats, spread, note }.print();
    }
    setting.close()?;
    Ok(())
}
