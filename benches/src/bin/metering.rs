//! Metering: checks of quota against governor, the price of an act, ingest of usage. Run with the profile `release`; an argument, such as
//! `rust/4-level`, runs only the cases that begin so.

use creto_audit::{Ledger, Options};
use creto_benches::{Row, batches, scratch};
use creto_consensus::HybridLogicalClock;
use creto_crypto::{SigningKey, Suite};
use creto_enablement_common::ports::AuditSink;
use creto_enablement_common::{Result, Timestamp};
use creto_gate::usage::Ingest;
use creto_metering::usage::{Batch, Series};
use creto_metering::{ActPrice, Amounts, Batch as Checks, Prepared, QuotaEnforcer, QuotaRule};
use governor::clock::QuantaClock;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const RULES: &str = r#"[
    {"scope": "organisation", "meter": "requests", "limit": 9000000000000000000, "window": "1h", "soft": []},
    {"scope": "team", "meter": "requests", "limit": 9000000000000000000, "window": "1h", "soft": []},
    {"scope": "agent", "meter": "requests", "limit": 9000000000000000000, "window": "1h", "soft": []}]"#;

/// The kernel's coarse clock: windows are seconds and longer, its steps are milliseconds.
fn now() -> Timestamp {
    let time = clock_gettime(ClockId::RealtimeCoarse);
    Timestamp::from_micros(time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000)
}

fn enforcer() -> QuotaEnforcer {
    QuotaEnforcer::new(QuotaRule::parse_list(RULES).unwrap_or_default(), Duration::from_secs(900))
}

/// Organisation, team, agent and its delegator: four levels. One organisation, a team for each 100 agents.
fn each_path(keys: usize, mut visit: impl FnMut(&[&str])) {
    for key in 0..keys {
        visit(&["acme", &format!("t{}", key / 100), &format!("a{key}"), "lead"]);
    }
}

/// The chains of so many agents by number: 8 bytes each, as a program has them that has many.
fn numbered(quota: &QuotaEnforcer, keys: usize) -> Checks {
    let mut chains = Checks::default();
    each_path(keys, |path| {
        let _ = chains.add(quota, path, "requests");
    });
    chains
}

/// The same as objects: 32 bytes each, for one meter or several.
fn prepared(quota: &QuotaEnforcer, keys: usize) -> Vec<Prepared> {
    let mut chains = Vec::with_capacity(keys);
    each_path(keys, |path| chains.extend(quota.prepare(path, &["requests"])));
    chains
}

fn uniform(keys: usize, count: usize) -> Vec<usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % keys as u64) as usize
        })
        .collect()
}

/// Zipf with exponent 1, by inversion of the harmonic sums.
fn zipf(keys: usize, count: usize) -> Vec<usize> {
    let total: f64 = (1..=keys).map(|k| 1.0 / k as f64).sum();
    let mut sums = Vec::with_capacity(keys);
    let mut sum = 0.0;
    for key in 1..=keys {
        sum += 1.0 / key as f64 / total;
        sums.push(sum);
    }
    let unit = f64::from(1_u32 << 30);
    uniform(1 << 30, count).into_iter().map(|u| sums.partition_point(|s| *s < u as f64 / unit).min(keys - 1)).collect()
}

type Keyed = RateLimiter<u64, DashMapStateStore<u64>, QuantaClock>;

/// Four keyed checks in a row, as four levels need.
fn four(limiter: &Keyed, key: u64) -> bool {
    let levels = [0, 1_000_000_000 + key / 100, 2_000_000_000 + key, 3_000_000_000];
    levels.iter().all(|level| limiter.check_key(level).is_ok())
}

/// Goes on from batch to batch: these are short, so that most of them end before the scheduler comes.
fn in_turn(order: &[usize]) -> impl Fn() -> usize + '_ {
    let next = Cell::new(0);
    move || {
        let i = next.get();
        next.set(i + 1);
        order.get(i % order.len()).copied().unwrap_or(0)
    }
}

fn checks(case: &str, keys: usize, order: &[usize], against: bool) {
    let quota = enforcer();
    let chains = numbered(&quota, keys);
    let key = in_turn(order);
    let one = |_| chains.take_one(key() as u32, 1, now());
    for i in 0..order.len() {
        black_box(one(i));
    }
    let (ours, spread) = batches(1_001, 2_000, one);
    let theirs = against.then(|| {
        let limiter: Keyed = RateLimiter::dashmap(Quota::per_second(NonZeroU32::MAX));
        for i in 0..order.len() {
            black_box(four(&limiter, order.get(i).copied().unwrap_or(0) as u64));
        }
        batches(1_001, 500, |_| four(&limiter, key() as u64)).0
    });
    let note = "check and consume on 4 levels by the number of a chain, coarse clock read included; the peer: 4 keyed checks of u64 keys";
    let peer = theirs.map(|value| ("governor", "0.10", value));
    Row { area: "metering", case, unit: "ns", ours, peer, samples: 2_002_000, spread, note }.print();
    if case == "rust/4-level/1000"
        && let Some((version, theirs)) = limitador()
    {
        let note = "the same; the peer: check and update of 4 limits at once, each keyed by a name, contexts made before";
        let (case, peer) = ("rust/4-level/1000/limitador", Some(("limitador", version.as_str(), theirs)));
        Row { area: "metering", case, unit: "ns", ours, peer, samples: 2_002_000, spread, note }.print();
    }
}

/// The same with an object for each agent in the program's own memory, which is on small pages.
fn objects(case: &str, keys: usize, order: &[usize]) {
    let quota = enforcer();
    let chains = prepared(&quota, keys);
    let key = in_turn(order);
    let one = |_| chains.get(key()).is_some_and(|chain| chain.take(1, now()));
    for i in 0..order.len() {
        black_box(one(i));
    }
    let (ours, spread) = batches(1_001, 2_000, one);
    let note = "check and consume on 4 levels by an object for each chain, in a list of 32 bytes each, coarse clock read included";
    Row { area: "metering", case, unit: "ns", ours, peer: None, samples: 2_002_000, spread, note }.print();
}

/// What limitador takes for four levels, in a program of its own, which is built on first use; none where it cannot be.
fn limitador() -> Option<(String, f64)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let mut command = Command::new("cargo");
    command.args(["run", "--quiet", "--release", "--locked", "--target-dir"]).arg(root.join("target/peers/limitador"));
    told(command.arg("--manifest-path").arg(root.join("benches/peers/limitador/Cargo.toml")))
}

/// The version and the value that a peer's program prints.
fn told(command: &mut Command) -> Option<(String, f64)> {
    let output = command.output().ok()?;
    let told: serde_json::Value = serde_json::from_slice(output.stdout.trim_ascii()).ok()?;
    Some((told.get("version")?.as_str()?.to_owned(), told.get("value")?.as_f64()?))
}

fn two_threads(case: &str, names: [(&'static str, &'static str); 2]) {
    let quota = Arc::new(enforcer());
    let run = |threads: usize| {
        let start = Arc::new(Barrier::new(threads));
        let handles: Vec<_> = names
            .into_iter()
            .take(threads)
            .map(|(organisation, agent)| {
                let (start, quota) = (Arc::clone(&start), Arc::clone(&quota));
                std::thread::spawn(move || {
                    let chain = quota.prepare(&[organisation, "t", agent, "lead"], &["requests"]).ok();
                    start.wait();
                    let began = Instant::now();
                    for _ in 0..3_000_000 {
                        black_box(chain.as_ref().map(|chain| chain.take(1, now())));
                    }
                    began.elapsed().as_secs_f64()
                })
            })
            .collect();
        let slowest = handles.into_iter().filter_map(|handle| handle.join().ok()).fold(0.0, f64::max);
        threads as f64 * 3e6 / slowest
    };
    let mut ratios: Vec<f64> = (0..5).map(|_| run(2) / run(1)).collect();
    ratios.sort_by(f64::total_cmp);
    let ours = ratios.get(2).copied().unwrap_or(f64::NAN);
    let spread = ratios.last().zip(ratios.first()).map_or(0.0, |(last, first)| (last - first) / ours);
    let note = "throughput of two threads over that of one, 4 levels";
    Row { area: "metering", case, unit: "speed-up", ours, peer: None, samples: 30_000_000, spread, note }.print();
}

fn arrays() {
    for (case, keys) in [("rust/arrays/1000", 1_000), ("rust/arrays/1M/uniform", 1_000_000)] {
        let quota = enforcer();
        let batch = numbered(&quota, keys);
        let which: Vec<u32> = uniform(keys, 20_000).into_iter().map(|key| key as u32).collect();
        let mut fitted = vec![0; which.len()];
        let (ns, spread) = batches(1_001, 1, |_| batch.take(&which, Amounts::Each(1), now(), &mut fitted));
        let ours = which.len() as f64 / ns * 1e9;
        let note = "4 levels, uniform keys, arrays of 20,000 checks";
        Row { area: "metering", case, unit: "checks/s", ours, peer: None, samples: 7_000_000, spread, note }.print();
    }
}

fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|text| text.split(' ').nth(1)?.parse::<f64>().ok());
    pages.unwrap_or(f64::NAN) * 4096.0
}

fn memory() {
    let quota = enforcer();
    let before = resident();
    for key in 0..1_000_000 {
        let _ = quota.consume(&["acme", "team", &format!("a{key}")], &[("requests", 1)], now());
    }
    let ours = (resident() - before) / 1e6;
    let note = "resident memory of a million agents of one team, names included";
    let case = "bytes_per_key/1M";
    Row { area: "metering", case, unit: "bytes", ours, peer: None, samples: 1_000_000, spread: 0.0, note }.print();
}

fn price() {
    let mut price = ActPrice::default();
    let _ = price.add("input_tokens", "2.5e-06", &[(200_000, "5e-06")], true);
    let _ = price.add("cached_input_tokens", "1.25e-06", &[], true);
    let _ = price.add("output_tokens", "1e-05", &[], false);
    let (ours, spread) = batches(1_001, 2_000, |i| {
        price.cost(black_box(&[("input_tokens", 1_200 + i as u64 % 7), ("cached_input_tokens", 800), ("output_tokens", 350)])).ok()
    });
    let theirs = litellm();
    let note =
        "prepared; three meters, one of them with another price beyond a length of context; the peer: the same three kinds of tokens";
    let peer = theirs.as_ref().map(|(version, value)| ("litellm.cost_per_token", version.as_str(), *value));
    Row { area: "metering", case: "price_one_act", unit: "ns", ours, peer, samples: 7_000_000, spread, note }.print();
}

/// What LiteLLM takes for the price of one act, in its own environment (`make bench` makes it); none where that is not there.
fn litellm() -> Option<(String, f64)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let script = root.join("benches/peers/billing/litellm_cost.py");
    told(Command::new(root.join(".tools/bench/bin/python")).arg(script))
}

/// A batch of events of one source: customers by turns over the batch, three dimensions.
fn events(number: u64, size: u64, at: u64) -> Batch {
    let teams = ["research", "sales", "support", "press"];
    let series = teams
        .iter()
        .filter_map(|team| Series::new("app", "acme", "requests", &[("agent", "reader"), ("team", team), ("region", "eu")]).ok());
    let mut batch = Batch { series: series.collect(), ..Batch::default() };
    for event in 0..size {
        let id = format!("{:016x}", number * size + event);
        let _ = batch.push((event % 4) as u32, at + event, 1, &id);
    }
    batch
}

/// Batches on their way to the disk at once, by two threads: as a collector under load has them.
fn ingest() -> Result<()> {
    const BATCHES: u64 = 2_000;
    const WINDOW: usize = 64;
    let mut rates = Vec::new();
    for round in 0..5_u64 {
        let folder = scratch(&format!("ingest-{round}"))?;
        let clock = Arc::new(HybridLogicalClock::open(&folder.join("clock"))?);
        let ledger = Ledger::open(&folder.join("ledger"), &*clock, SigningKey::generate(Suite::Standard)?, Options::default())?;
        let ingest = Ingest::open(Arc::clone(&ledger), &folder.join("ledger"), 0)?;
        let batches: Vec<Batch> = (0..BATCHES).map(|number| events(number, 1_000, 1_795_521_600_000_000 + number)).collect();
        // Each tenth batch is offered twice, as a collector does that missed an answer.
        let offered: Vec<&Batch> =
            batches.iter().enumerate().flat_map(|(n, b)| std::iter::repeat_n(b, 1 + usize::from(n % 10 == 9))).collect();
        let start = Instant::now();
        let taken: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..2)
                .map(|worker| {
                    let (ingest, ledger, clock, offered) = (&ingest, &ledger, &clock, &offered);
                    scope.spawn(move || -> Result<usize> {
                        let (mut taken, mut waiting) = (0, std::collections::VecDeque::new());
                        for batch in offered.iter().skip(worker).step_by(2) {
                            let done = ingest.take(batch, clock.now())?;
                            taken += done.taken;
                            waiting.push_back(done.ticket);
                            if waiting.len() > WINDOW
                                && let Some(ticket) = waiting.pop_front()
                            {
                                ledger.wait_durable(ticket)?;
                            }
                        }
                        while let Some(ticket) = waiting.pop_front() {
                            ledger.wait_durable(ticket)?;
                        }
                        Ok(taken)
                    })
                })
                .collect();
            workers.into_iter().filter_map(|worker| worker.join().ok()?.ok()).sum()
        });
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!(taken as u64, BATCHES * 1_000, "every event once");
        rates.push(taken as f64 / seconds);
        ledger.close()?;
        std::fs::remove_dir_all(&folder)?;
    }
    rates.sort_by(f64::total_cmp);
    let ours = rates.get(rates.len() / 2).copied().unwrap_or(0.0);
    let spread = rates.last().zip(rates.first()).map_or(0.0, |(last, first)| (last - first) / ours);
    let note = "batches of 1,000 with 16-character ids and 3 dimensions, 2 threads, up to 64 batches each on their way to the disk; a tenth of \
                them offered twice; each batch a ledger record with its Merkle root, acknowledged when record and events are on disk";
    Row { area: "metering", case: "ingest/durable", unit: "events/s", ours, peer: None, samples: 10_000_000, spread, note }.print();
    Ok(())
}

fn main() -> Result<()> {
    let only = std::env::args().nth(1).unwrap_or_default();
    let wanted = |case: &str| case.starts_with(&only) || only.starts_with(case);
    if wanted("rust/4-level") {
        checks("rust/4-level/1000", 1_000, &uniform(1_000, 1 << 20), true);
        checks("rust/4-level/10k/uniform", 10_000, &uniform(10_000, 1 << 20), true);
        checks("rust/4-level/100k/uniform", 100_000, &uniform(100_000, 1 << 20), true);
        checks("rust/4-level/1M/uniform", 1_000_000, &uniform(1_000_000, 1 << 20), true);
        checks("rust/4-level/1M/zipf", 1_000_000, &zipf(1_000_000, 1 << 20), false);
        objects("rust/4-level/1000/objects", 1_000, &uniform(1_000, 1 << 20));
        objects("rust/4-level/1M/uniform/objects", 1_000_000, &uniform(1_000_000, 1 << 20));
        objects("rust/4-level/1M/zipf/objects", 1_000_000, &zipf(1_000_000, 1 << 20));
    }
    if wanted("rust/2-threads") {
        two_threads("rust/2-threads/one-organisation", [("acme", "a"), ("acme", "b")]);
        two_threads("rust/2-threads/many-organisations", [("acme", "a"), ("globex", "b")]);
        two_threads("rust/2-threads/one-agent", [("acme", "a"), ("acme", "a")]);
    }
    if wanted("rust/arrays") {
        arrays();
    }
    if wanted("bytes_per_key") {
        memory();
    }
    if wanted("price_one_act") {
        price();
    }
    if wanted("ingest") {
        ingest()?;
    }
    Ok(())
}
