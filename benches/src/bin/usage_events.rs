//! Makes a ledger of many usage events for the invoice bench: `usage_events FOLDER EVENTS`. Not a bench itself.
//!
//! Event n is what `mixed(n)` says, so that a peer can be given the same events: of one of 10,000 customers and 3 meters, spread evenly over
//! November 2026.

use creto_audit::{Ledger, Options};
use creto_consensus::HybridLogicalClock;
use creto_crypto::{SigningKey, Suite};
use creto_enablement_common::ports::{AuditSink, Clock};
use creto_enablement_common::{Error, Result};
use creto_gate::usage::{Index, Ingest};
use creto_metering::usage::{Batch, Series};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CUSTOMERS: u64 = 10_000;
const METERS: [&str; 3] = ["requests", "input_tokens", "storage"];
const START: u64 = 1_793_491_200_000_000;
const MONTH: u64 = 30 * 86_400_000_000;
const BATCH: u64 = 10_000;

/// The output function of SplitMix64 (Steele, Lea, Flood 2014).
const fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = || Error::invalid("usage: usage_events FOLDER EVENTS");
    let folder = PathBuf::from(arguments.next().ok_or_else(usage)?);
    let events: u64 = arguments.next().and_then(|text| text.parse().ok()).ok_or_else(usage)?;
    std::fs::create_dir_all(&folder)?;
    let clock = Arc::new(HybridLogicalClock::open(&folder.join("clock"))?);
    let key = SigningKey::generate(Suite::Standard)?;
    let ledger = Ledger::open(&folder.join("ledger"), &*clock, key, Options::default())?;
    let ingest = Ingest::open(Arc::clone(&ledger), &folder.join("ledger"), 0)?;
    let names: Vec<String> = (0..CUSTOMERS).map(|customer| format!("customer-{customer:05}")).collect();
    let all: Vec<Series> = names
        .iter()
        .flat_map(|customer| METERS.iter().filter_map(move |meter| Series::new("collector", customer, meter, &[("region", "eu")]).ok()))
        .collect();
    let begun = Instant::now();
    for first in (0..events).step_by(BATCH as usize) {
        let mut batch = Batch::default();
        let mut numbers = std::collections::HashMap::new();
        for event in first..(first + BATCH).min(events) {
            let word = mixed(event);
            let series = (word % CUSTOMERS) as usize * METERS.len() + (word >> 20) as usize % METERS.len();
            let number = *numbers.entry(series).or_insert_with(|| {
                batch.series.extend(all.get(series).cloned());
                batch.series.len() as u32 - 1
            });
            let at = START + (u128::from(event) * u128::from(MONTH) / u128::from(events)) as u64;
            batch.push(number, at, 1 + i128::from((word >> 32) % 1_000), &format!("{event:012x}"))?;
        }
        let taken = ingest.take(&batch, clock.now())?;
        if first / BATCH % 64 == 63 {
            ledger.wait_durable(taken.ticket)?;
        }
    }
    ledger.wait_durable(ledger.last())?;
    let taken = begun.elapsed().as_secs_f64();
    ledger.publish(Duration::from_secs(600))?;
    ledger.close()?;
    let begun = Instant::now();
    let put = Index::new(&folder.join("ledger"), Some(&folder.join("segments"))).advance()?;
    println!("{events} events taken in {taken:.1} s, {put} put in order in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}
