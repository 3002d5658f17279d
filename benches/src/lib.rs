//! How a bench measures and reports: medians of repeats, one JSON object a row, ours and the peer in the same run.

pub mod setting;

use serde_json::{Value, json};
use std::hint::black_box;
use std::time::Instant;

/// Nanoseconds of single calls, timer cost taken off.
#[derive(Clone, Copy, Debug)]
pub struct Distribution {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The 99.9th percentile.
    pub p999: f64,
}

/// The distribution over `samples` calls of `call(i)`.
pub fn distribution<T>(samples: usize, mut call: impl FnMut(usize) -> T) -> Distribution {
    let mut overhead: Vec<u64> = (0..10_001).map(|_| Instant::now().elapsed().as_nanos() as u64).collect();
    overhead.sort_unstable();
    let overhead = overhead.get(5_000).copied().unwrap_or(0);
    for i in 0..samples.min(10_000) {
        black_box(call(i));
    }
    let mut times: Vec<u64> = (0..samples)
        .map(|i| {
            let start = Instant::now();
            black_box(call(i));
            (start.elapsed().as_nanos() as u64).saturating_sub(overhead)
        })
        .collect();
    times.sort_unstable();
    let at = |share: f64| times.get(((times.len() as f64 - 1.0) * share) as usize).copied().unwrap_or(0) as f64;
    Distribution { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
}

/// The median and the 99th percentile of the same.
pub fn single_calls<T>(samples: usize, call: impl FnMut(usize) -> T) -> (f64, f64) {
    let Distribution { p50, p99, .. } = distribution(samples, call);
    (p50, p99)
}

/// Nanoseconds a call, as the median over `repeats` runs of `calls` calls each, and the spread (max - min over the median).
pub fn batches<T>(repeats: usize, calls: usize, mut call: impl FnMut(usize) -> T) -> (f64, f64) {
    let mut means: Vec<f64> = (0..repeats)
        .map(|_| {
            let start = Instant::now();
            for i in 0..calls {
                black_box(call(i));
            }
            start.elapsed().as_nanos() as f64 / calls as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let middle = means.get(means.len() / 2).copied().unwrap_or(f64::NAN);
    let spread = means.last().zip(means.first()).map_or(0.0, |(last, first)| (last - first) / middle);
    (middle, spread)
}

/// A fresh folder on a real disk, for benches that write: under the build folder, since a temporary folder may be memory.
pub fn scratch(name: &str) -> std::io::Result<std::path::PathBuf> {
    let target = std::env::current_exe()?.parent().map_or_else(std::env::temp_dir, std::path::Path::to_owned);
    let folder = target.join("bench-scratch").join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// One row of the report.
pub struct Row<'a> {
    /// The area of goals.toml.
    pub area: &'a str,
    /// The case id.
    pub case: &'a str,
    /// Unit of `ours` and of the peer's value.
    pub unit: &'a str,
    /// Our figure.
    pub ours: f64,
    /// The peer's name, version and figure in the same run.
    pub peer: Option<(&'a str, &'a str, f64)>,
    /// How many samples.
    pub samples: usize,
    /// Relative spread over repeats.
    pub spread: f64,
    /// What the case holds, in a sentence.
    pub note: &'a str,
}

impl Row<'_> {
    /// Prints it as one line of JSON.
    pub fn print(&self) {
        println!(
            "{}",
            json!({
                "area": self.area, "case": self.case, "unit": self.unit, "ours": self.ours,
                "peer": self.peer.map_or(Value::Null, |p| json!(p.0)),
                "peer_version": self.peer.map_or(Value::Null, |p| json!(p.1)),
                "peer_value": self.peer.map_or(Value::Null, |p| json!(p.2)),
                "samples": self.samples, "spread": self.spread, "note": self.note,
            })
        );
    }
}
