//! The ledger against raw fdatasync, SQLite and Tessera, on the same disk in the same run.

use creto_audit::disk::Machine;
use creto_audit::{Completions, Done, Ledger, Options, Proof, Shard, verify};
use creto_benches::{Row, scratch};
use creto_consensus::HybridLogicalClock;
use creto_crypto::{SigningKey, Suite};
use creto_enablement_common::ports::{AuditSink, Durability};
use creto_enablement_common::{RecordKind, RecordRef, Timestamp};
use std::error::Error;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A record whose encoding is close to 512 bytes.
struct Maker {
    detail: String,
}

impl Maker {
    fn new(length: usize) -> Self {
        Self { detail: "x".repeat(length) }
    }

    fn with<T>(&self, number: u64, now: Timestamp, use_it: impl FnOnce(&RecordRef<'_>) -> T) -> T {
        let mut id = [0; 16];
        let (head, _) = id.split_at_mut(8);
        head.copy_from_slice(&number.to_be_bytes());
        use_it(&RecordRef {
            who: "spiffe://creto.local/agent/researcher",
            delegation_chain: &["spiffe://creto.local/agent/lead"],
            what: "http:get",
            resource: "https://example.org/some/page",
            why: "policy `reads`",
            outcome: None,
            timestamp: now,
            id,
            act: id,
            kind: RecordKind::Intent,
            digest: None,
            policy: None,
            usage: &[("requests", 1)],
            detail: &[("note", &self.detail)],
        })
    }
}

/// What brings the record above to 512 bytes.
const TO_512: usize = 282;

struct Bench {
    folder: PathBuf,
    clock: HybridLogicalClock,
    key: SigningKey,
}

impl Bench {
    fn open(&self, name: &str) -> Outcome<Arc<Ledger>> {
        Ok(Ledger::open(&self.folder.join(name), &self.clock, self.key.clone(), Options::default())?)
    }
}

fn median(mut samples: Vec<f64>) -> (f64, f64) {
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| samples.get((samples.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    (at(0.5), (at(0.9) - at(0.1)) / at(0.5))
}

/// One caller: each append durable before the next; the peer writes and syncs 512 bytes of a file written before, in turns with us.
fn single(bench: &Bench) -> Outcome<()> {
    let ledger = bench.open("single")?;
    let maker = Maker::new(TO_512);
    let peer = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(bench.folder.join("raw"))?;
    peer.write_all_at(&vec![0; 16 << 20], 0)?;
    peer.sync_all()?;
    let block = vec![7; 512];
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for number in 0..4_000_u64 {
        let start = Instant::now();
        maker.with(number, bench.clock.now(), |record| ledger.append(record, Durability::Strict))?;
        ours.push(start.elapsed().as_secs_f64() * 1e6);
        let start = Instant::now();
        peer.write_all_at(&block, number * 512)?;
        peer.sync_data()?;
        raw.push(start.elapsed().as_secs_f64() * 1e6);
    }
    ledger.close()?;
    let ((ours, spread), (raw, _)) = (median(ours), median(raw));
    Row {
        area: "audit",
        case: "rust/1",
        unit: "us",
        ours,
        peer: Some(("fdatasync", "preallocated, 512 bytes", raw)),
        samples: 4_000,
        spread,
        note: "one caller, each append durable before the next; medians; peer and ours in turns; checkpoints go on beside it",
    }
    .print();
    Ok(())
}

/// Counts what is durable, and wakes the one who waits for it.
struct Acknowledged {
    count: AtomicU64,
    caller: std::thread::Thread,
}

impl Completions for Acknowledged {
    fn complete(&self, ended: &[(u64, Option<u64>)], failed: Option<&creto_enablement_common::Error>) {
        if failed.is_none() {
            self.count.fetch_add(ended.len() as u64, Ordering::AcqRel);
        }
        self.caller.unpark();
    }
}

/// So many appends under way at once, each acknowledged when durable; for so long.
fn outstanding(bench: &Bench, name: &str, at_once: u64, most: Duration) -> Outcome<f64> {
    let ledger = bench.open(name)?;
    let maker = Maker::new(TO_512);
    let acknowledged = Arc::new(Acknowledged { count: AtomicU64::new(0), caller: std::thread::current() });
    let mut number = 0_u64;
    let start = Instant::now();
    while start.elapsed() < most {
        while number - acknowledged.count.load(Ordering::Acquire) < at_once {
            let done = Done { to: Arc::<Acknowledged>::clone(&acknowledged), token: number };
            maker.with(number, bench.clock.now(), |record| ledger.enqueue_then(record, done))?;
            number += 1;
        }
        std::thread::park_timeout(Duration::from_secs(1));
    }
    // What was written stays until the end: ext4 looks long for an inode where many have just been deleted, which no ledger does.
    Ok(acknowledged.count.load(Ordering::Acquire) as f64 / start.elapsed().as_secs_f64())
}

const SQLITE: &str = r#"
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("pragma journal_mode=wal")
connection.execute("pragma synchronous=full")
connection.execute("create table records(id integer primary key, body blob not null)")
rows = [(b"x" * 512,)] * 256
end, count, start = time.perf_counter() + 3, 0, time.perf_counter()
while time.perf_counter() < end:
    connection.execute("begin immediate")
    connection.executemany("insert into records(body) values (?)", rows)
    connection.execute("commit")
    count += 256
print(sqlite3.sqlite_version, count / (time.perf_counter() - start))
"#;

fn sqlite(folder: &Path) -> Outcome<(String, f64)> {
    let output = Command::new("python3").args(["-c", SQLITE]).arg(folder.join("peer.db")).output()?;
    let text = String::from_utf8(output.stdout)?;
    let (version, rate) = text.trim().split_once(' ').ok_or("SQLite could not be measured")?;
    Ok((version.to_owned(), rate.parse()?))
}

/// Tessera, by its Go module; none where there is no Go.
fn tessera(folder: &Path) -> Option<(String, f64)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/tessera");
    let output = Command::new("go").args(["run", "."]).arg(folder.join("tessera")).current_dir(source).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (version, rate) = text.trim().split_once(' ')?;
    Some((version.to_owned(), rate.parse().ok()?))
}

fn grouped(bench: &Bench) -> Outcome<()> {
    let mut rates = Vec::new();
    for round in 0..5 {
        rates.push(outstanding(bench, &format!("grouped-{round}"), 256, Duration::from_secs(2))?);
    }
    let (ours, spread) = median(rates);
    let (version, rate) = sqlite(&bench.folder)?;
    Row {
        area: "audit",
        case: "rust/256",
        unit: "appends/s",
        ours,
        peer: Some(("sqlite-full-group-commit", &version, rate)),
        samples: 5,
        spread,
        note: "256 appends of 512 bytes outstanding, each acknowledged when durable, tiles and signed checkpoints made beside; the peer commits \
               256 rows of 512 bytes at once, WAL, synchronous=FULL",
    }
    .print();
    if let Some((version, rate)) = tessera(&bench.folder) {
        Row {
            area: "audit",
            case: "rust/256/tessera",
            unit: "appends/s",
            ours,
            peer: Some(("tessera-posix", &version, rate)),
            samples: 5,
            spread,
            note: "the peer: 256 goroutines, each waits until its entry is sequenced and integrated on disk",
        }
        .print();
    }
    for at_once in [1, 4, 16, 64, 1_024] {
        callers(bench, at_once)?;
    }
    Ok(())
}

/// One row: so many appends outstanding.
fn callers(bench: &Bench, at_once: u64) -> Outcome<()> {
    let mut rates = Vec::new();
    for _ in 0..3 {
        rates.push(outstanding(bench, &format!("callers-{at_once}"), at_once, Duration::from_secs(1))?);
    }
    let (ours, spread) = median(rates);
    Row {
        area: "audit",
        case: &format!("rust/outstanding/{at_once}"),
        unit: "appends/s",
        ours,
        peer: None,
        samples: 3,
        spread,
        note: "as rust/256, with so many appends outstanding",
    }
    .print();
    Ok(())
}

/// A ledger of so many records: how fast it is verified, proved from, opened.
fn sizes(bench: &Bench, records: u64, name: &str, padding: usize) -> Outcome<()> {
    // Short records grow in one ledger; longer ones have a ledger of their own, which is removed.
    let place = if padding == 0 { "sized".to_owned() } else { format!("sized-{name}") };
    let ledger = bench.open(&place)?;
    let maker = Maker::new(padding);
    // One more even where all are there, so that the last checkpoint is signed by the key of this run.
    for number in ledger.published().min(records - 1)..records {
        maker.with(number, bench.clock.now(), |record| ledger.append(record, Durability::Relaxed))?;
    }
    ledger.close()?;
    let shard = ledger.reader();
    drop(ledger);
    let path = shard.path().to_owned();
    let kept = "random records by one reader: checkpoint and the record's tile read anew, upper tiles kept from proof to proof; each proof checked \
                before it is handed out; files in the page cache";
    let anew = "the same by a new reader each time, which has kept nothing";
    for (case, note) in [(format!("prove/{name}"), kept), (format!("prove/{name}/anew"), anew)] {
        let (mut reader, mut proofs) = (shard.clone(), Vec::new());
        for step in 0..2_000_u64 {
            let index = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) % records;
            if case.ends_with("/anew") {
                reader = Shard::open(Arc::new(Machine), &path);
            }
            let start = Instant::now();
            std::hint::black_box(Proof::make(&reader, index)?);
            proofs.push(start.elapsed().as_secs_f64() * 1e6);
        }
        let (ours, spread) = median(proofs);
        Row { area: "audit", case: &case, unit: "us", ours, peer: None, samples: 2_000, spread, note }.print();
    }
    let mut openings = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let ledger = bench.open(&place)?;
        openings.push(start.elapsed().as_secs_f64() * 1e3);
        ledger.close()?;
    }
    let (ours, spread) = median(openings);
    let note = "until the first append could be made; closed in order before";
    Row { area: "audit", case: &format!("open/{name}"), unit: "ms", ours, peer: None, samples: 5, spread, note }.print();
    let mut rates = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        verify(&shard, &[bench.key.verifying_key().clone()], &[], &AtomicU64::new(0))?;
        rates.push(records as f64 / start.elapsed().as_secs_f64());
    }
    let (ours, spread) = median(rates);
    let case = if name == "10M" { "verify".to_owned() } else { format!("verify/{name}") };
    let note = "every record decoded and hashed, every tile, the root, the signatures; all processors; files in the page cache";
    Row { area: "audit", case: &case, unit: "records/s", ours, peer: None, samples: 3, spread, note }.print();
    if padding > 0 {
        std::fs::remove_dir_all(bench.folder.join(place))?;
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let chosen = arguments.next();
    // A folder that is kept: ten million records are filled in once, however often they are measured.
    let second = arguments.next();
    let kept = second.clone().filter(|_| chosen.as_deref() != Some("callers")).map(PathBuf::from);
    let folder = kept.clone().map_or_else(|| scratch("audit"), Ok)?;
    std::fs::create_dir_all(&folder)?;
    let clock = HybridLogicalClock::open(&folder.join("clock"))?;
    let bench = Bench { folder, clock, key: SigningKey::generate(Suite::Standard)? };
    let wanted = |name: &str| chosen.as_deref().is_none_or(|chosen| chosen == name);
    // For benches/audit.py, which measures peers with as many callers beside it.
    if chosen.as_deref() == Some("callers") {
        callers(&bench, second.ok_or("how many callers?")?.parse()?)?;
    }
    if wanted("single") {
        single(&bench)?;
    }
    if wanted("grouped") {
        grouped(&bench)?;
    }
    for (records, name) in [(100_000, "100k"), (1_000_000, "1M"), (10_000_000, "10M")] {
        if wanted("sizes") || wanted(name) {
            sizes(&bench, records, name, 0)?;
        }
    }
    if wanted("1GiB") {
        sizes(&bench, 1 << 21, "1GiB", TO_512)?;
    }
    // Seven gigabytes on disk: only where it is asked for by name.
    if chosen.as_deref() == Some("10M-512") {
        sizes(&bench, 10_000_000, "10M-512", TO_512)?;
    }
    if kept.is_none() {
        std::fs::remove_dir_all(&bench.folder)?;
    }
    Ok(())
}
