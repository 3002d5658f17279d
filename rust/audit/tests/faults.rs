//! What happens when the disk is full, or fails.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use common::{Folder, id, key, record};
use creto_audit::disk::{Backing, Disk, Machine, Whole};
use creto_audit::{Ledger, Options, Shard, encoding, verify};
use creto_enablement_common::ports::{AuditSink, Durability};
use creto_enablement_common::{ErrorKind, RecordRef, Result};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Faults {
    /// No file can be made or grow.
    full: AtomicBool,
    /// Syncs fail.
    failing: AtomicBool,
    /// Every other call is interrupted, or writes half.
    syncs: AtomicU64,
    /// Nothing can be written to a tile: it takes as long as this lasts.
    slow_tiles: AtomicBool,
}

struct Faulty(Arc<Faults>);

struct Open {
    inner: Box<dyn Backing>,
    faults: Arc<Faults>,
    reserved: AtomicU64,
    is_tile: bool,
}

impl Backing for Open {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        while self.is_tile && self.faults.slow_tiles.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // A file that was made before keeps its space: writes within it succeed on a full disk.
        if self.faults.full.load(Ordering::Relaxed) && offset + bytes.len() as u64 > self.reserved.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.inner.write_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(bytes, offset)
    }

    fn reserve(&self, length: u64) -> io::Result<bool> {
        if self.faults.full.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.reserved.fetch_max(length, Ordering::Relaxed);
        self.inner.reserve(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.syncs.fetch_add(1, Ordering::Relaxed);
        if self.faults.failing.load(Ordering::Relaxed) {
            return Err(io::Error::other("input/output error"));
        }
        self.inner.sync()
    }
}

impl Disk for Faulty {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn Backing>> {
        let inner = Machine.open(path, create)?;
        let reserved = AtomicU64::new(std::fs::metadata(path)?.len());
        Ok(Box::new(Open { inner, faults: Arc::clone(&self.0), reserved, is_tile: path.to_string_lossy().contains("/tile/") }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Machine.read(path)
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        Machine.length(path)
    }

    fn whole(&self, folder: &Path) -> io::Result<Box<dyn Whole>> {
        Machine.whole(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        Machine.list(folder)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Machine.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Machine.remove(path)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        Machine.make_folder(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        Machine.sync_folder(folder)
    }
}

fn open(folder: &Folder, key: &creto_crypto::SigningKey, faults: &Arc<Faults>) -> Result<Arc<Ledger>> {
    let options = Options { disk: Arc::new(Faulty(Arc::clone(faults))), segments: (256 << 10, 256 << 10), ..Options::default() };
    Ledger::open(&folder.ledger(), &folder.clock(), key.clone(), options)
}

fn ids(shard: &Shard) -> Vec<[u8; 16]> {
    let size = shard.checkpoint().unwrap().unwrap().1.size;
    let mut ids = Vec::new();
    let each = |_, entry: &[u8]| {
        ids.push(encoding::decode(entry)?.id);
        Ok(())
    };
    shard.at(size).each_entry(0, size, each).unwrap();
    ids
}

#[test]
fn a_full_disk_is_told_before_a_record_is_taken_and_what_was_taken_is_kept_and_space_is_found_again() {
    let (folder, key, faults) = (Folder::new("full"), key(), Arc::new(Faults::default()));
    let (clock, ledger) = (folder.clock(), open(&folder, &key, &faults).unwrap());
    let body = "x".repeat(2_000);
    let detail = [("body", body.as_str())];
    let append = |number: u64| ledger.append(&RecordRef { detail: &detail, ..record(number, clock.now()) }, Durability::Strict);
    append(0).unwrap();
    faults.full.store(true, Ordering::Relaxed);
    let mut taken = 1;
    let refused = loop {
        match append(taken) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), &ErrorKind::LedgerFull, "{refused}");
    assert!(taken > 20, "only {taken}");
    faults.full.store(false, Ordering::Relaxed);
    let until = Instant::now() + Duration::from_secs(60);
    while append(taken).is_err() {
        assert!(Instant::now() < until, "space was not found again");
        std::thread::sleep(Duration::from_millis(20));
    }
    ledger.close().unwrap();
    let shard = folder.shard("0000");
    verify(&shard, &[key.verifying_key().clone()], &[], &AtomicU64::new(0)).unwrap();
    assert_eq!(ids(&shard), (0..=taken).map(id).collect::<Vec<_>>());
}

#[test]
fn a_ledger_that_is_closed_on_a_full_disk_says_so_and_the_next_holder_derives_what_is_missing() {
    let (folder, key, faults) = (Folder::new("full-close"), key(), Arc::new(Faults::default()));
    let (clock, ledger) = (folder.clock(), open(&folder, &key, &faults).unwrap());
    for number in 0..100 {
        faults.full.store(number >= 50, Ordering::Relaxed);
        ledger.append(&record(number, clock.now()), Durability::Strict).unwrap();
    }
    let error = ledger.close().unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::LedgerFull, "{error}");
    faults.full.store(false, Ordering::Relaxed);
    let again = open(&folder, &key, &faults).unwrap();
    assert_eq!(again.replayed(), 100);
    again.close().unwrap();
    assert_eq!(ids(&folder.shard("0000")), (0..100).map(id).collect::<Vec<_>>());
}

#[test]
fn nobody_waits_for_tiles_and_those_that_are_behind_are_derived_from_the_segments() {
    let (folder, key, faults) = (Folder::new("behind-tiles"), key(), Arc::new(Faults::default()));
    let (clock, ledger) = (folder.clock(), open(&folder, &key, &faults).unwrap());
    faults.slow_tiles.store(true, Ordering::Relaxed);
    // Far more than is held in memory for whoever makes tiles.
    let body = "x".repeat(60_000);
    let detail = [("body", body.as_str())];
    for number in 0..1_000 {
        let durability = if number % 10 == 0 { Durability::Strict } else { Durability::Relaxed };
        ledger.append(&RecordRef { detail: &detail, ..record(number, clock.now()) }, durability).unwrap();
    }
    assert_eq!(ledger.published(), 0);
    faults.slow_tiles.store(false, Ordering::Relaxed);
    assert_eq!(ledger.publish(Duration::from_secs(60)).unwrap(), 1_000);
    ledger.close().unwrap();
    let shard = folder.shard("0000");
    verify(&shard, &[key.verifying_key().clone()], &[], &AtomicU64::new(0)).unwrap();
    assert_eq!(ids(&shard), (0..1_000).map(id).collect::<Vec<_>>());
}

#[test]
fn a_ledger_of_somebody_else_holds_nobody_up_with_files_that_have_no_end() {
    let (folder, key) = (Folder::new("endless"), key());
    let (clock, ledger) = (folder.clock(), open(&folder, &key, &Arc::default()).unwrap());
    for number in 0..300 {
        ledger.append(&record(number, clock.now()), Durability::Relaxed).unwrap();
    }
    ledger.close().unwrap();
    let tile = folder.ledger().join("0000/tile/0/000");
    let checked = || verify(&folder.shard("0000"), &[key.verifying_key().clone()], &[], &AtomicU64::new(0)).map(drop);
    checked().unwrap();
    let told = |what: &str| {
        let error = checked().unwrap_err().chain().collect::<Vec<_>>().join(": ");
        assert!(error.contains(what), "{error}");
        std::fs::remove_file(&tile).unwrap();
    };
    std::fs::remove_file(&tile).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &tile).unwrap();
    told("it is not a plain file");
    assert!(std::process::Command::new("mkfifo").arg(&tile).status().unwrap().success());
    told("it is not a plain file");
    // A file with a hole of a terabyte takes no space, and would not fit into memory.
    std::fs::File::create(&tile).unwrap().set_len(1 << 40).unwrap();
    told("it has 1099511627776 bytes; no file of a ledger has more than 134217728");
}

#[test]
fn a_failed_sync_is_final_and_never_acknowledged() {
    let (folder, key, faults) = (Folder::new("sync"), key(), Arc::new(Faults::default()));
    let (clock, ledger) = (folder.clock(), open(&folder, &key, &faults).unwrap());
    for number in 0..10 {
        ledger.append(&record(number, clock.now()), Durability::Strict).unwrap();
    }
    faults.failing.store(true, Ordering::Relaxed);
    let failed = ledger.append(&record(10, clock.now()), Durability::Strict).unwrap_err();
    assert!(failed.to_string().contains("input/output error"), "{failed}");
    // A later sync that succeeds would say nothing about what the kernel has dropped.
    faults.failing.store(false, Ordering::Relaxed);
    let syncs = faults.syncs.load(Ordering::Relaxed);
    assert!(ledger.append(&record(11, clock.now()), Durability::Relaxed).is_err());
    assert!(ledger.close().is_err());
    assert!(faults.syncs.load(Ordering::Relaxed) >= syncs);
    let again = open(&folder, &key, &faults).unwrap();
    again.append(&record(12, clock.now()), Durability::Strict).unwrap();
    again.close().unwrap();
    let found = ids(&folder.shard("0000"));
    assert!(found.starts_with(&(0..10).map(id).collect::<Vec<_>>()));
    assert!(!found.contains(&id(11)));
    assert_eq!(found.last(), Some(&id(12)));
}

#[test]
fn damage_in_acknowledged_records_is_told_and_nothing_is_cut_off() {
    let (folder, key) = (Folder::new("damage"), key());
    let (clock, ledger) = (folder.clock(), open(&folder, &key, &Arc::default()).unwrap());
    for number in 0..50 {
        ledger.append(&record(number, clock.now()), Durability::Strict).unwrap();
    }
    ledger.publish(Duration::from_secs(20)).unwrap();
    let segment = folder.ledger().join("0000/segments/0000000000000000");
    let copy = folder.0.join("copy");
    // As if the machine had stopped here: a copy of the shard as it is, with one byte of an acknowledged record changed.
    assert!(std::process::Command::new("cp").arg("-r").arg(folder.0.join("ledger")).arg(&copy).status().unwrap().success());
    let damaged = copy.join("0000/segments/0000000000000000");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[512 + 100] ^= 1;
    std::fs::write(&damaged, &bytes).unwrap();
    let error = Ledger::open(&copy, &clock, key.clone(), Options::default()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Integrity);
    assert!(error.to_string().contains("record 0 is damaged, while record 1 behind it is whole"), "{error}");
    assert_eq!(std::fs::read(&damaged).unwrap(), bytes);
}

#[test]
fn a_shard_whose_checkpoint_covers_more_than_is_there_is_not_written_on() {
    let (folder, key) = (Folder::new("behind"), key());
    let clock = folder.clock();
    let ledger = folder.open(&key);
    for number in 0..50 {
        ledger.append(&record(number, clock.now()), Durability::Relaxed).unwrap();
    }
    ledger.close().unwrap();
    let old = folder.0.join("old");
    assert!(std::process::Command::new("cp").arg("-r").arg(folder.ledger().join("0000")).arg(&old).status().unwrap().success());
    let ledger = folder.open(&key);
    for number in 50..90 {
        ledger.append(&record(number, clock.now()), Durability::Relaxed).unwrap();
    }
    ledger.close().unwrap();
    std::fs::copy(folder.ledger().join("0000/checkpoint"), old.join("checkpoint")).unwrap();
    std::fs::remove_dir_all(folder.ledger().join("0000")).unwrap();
    std::fs::rename(&old, folder.ledger().join("0000")).unwrap();
    let error = folder.try_open(&key).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("a checkpoint over 90 records was published, but only 50 are there"), "{error}");
}
