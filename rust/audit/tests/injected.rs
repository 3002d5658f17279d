//! Faults at the system calls of a ledger's life, injected by strace: what was acknowledged is there afterwards, all else was a clear error.
//!
//! The life is led by this very program, started again under strace; a first run without faults tells which calls there are.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod common;

use common::{Folder, id, key, record};
use creto_audit::{Ledger, Options, encoding, verify};
use creto_consensus::HybridLogicalClock;
use creto_enablement_common::ports::{AuditSink, Durability};
use creto_enablement_common::{RecordRef, ResultExt};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

const LIFE: &str = "CRETO_LEDGER_LIFE";
const CALLS: &str = "openat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,pwrite64,write,pread64,read,fallocate,ftruncate,\
                     fdatasync,fsync,msync,syncfs,getdents64,flock,mmap,statx";

/// What is told, line by line; a line that cannot be written is not told.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "LIFE {line}");
}

/// Two holders, one after the other: five long records each, of which a segment holds four, a checkpoint, the end.
fn live(folder: &Path) -> creto_enablement_common::Result<()> {
    let key = key();
    let body = "x".repeat(60_000);
    let detail = [("body", body.as_str())];
    for round in 0..2_u64 {
        let clock = HybridLogicalClock::open(&folder.join("clock")).context(|| "opening the clock".into())?;
        let options = Options { segments: (256 << 10, 256 << 10), ..Options::default() };
        let ledger = Ledger::open(&folder.join("ledger"), &clock, key.clone(), options)?;
        for number in round * 5..round * 5 + 5 {
            match ledger.append(&RecordRef { detail: &detail, ..record(number, clock.now()) }, Durability::Strict) {
                Ok(_) => tell(&format!("ACK {number}")),
                Err(error) => tell(&format!("REFUSED {number}: {error}")),
            }
        }
        ledger.publish(Duration::from_secs(20)).map(drop)?;
        ledger.close()?;
    }
    Ok(())
}

#[test]
fn a_life_of_the_ledger_that_others_inject_faults_into() {
    let Some(folder) = std::env::var_os(LIFE) else { return };
    tell("BEGUN");
    match live(Path::new(&folder)) {
        Ok(()) => tell("DONE"),
        Err(error) => tell(&format!("FAILED {}", error.chain().collect::<Vec<_>>().join(": "))),
    }
}

/// The life under strace, with `options`; none where there is no strace.
fn lead(folder: &Path, log: &Path, options: &[String]) -> Output {
    let program = std::env::current_exe().unwrap();
    let life = ["--exact", "a_life_of_the_ledger_that_others_inject_faults_into", "--nocapture", "--test-threads=1"];
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-qq", "-o"]).arg(log).arg("-e").arg(format!("trace={CALLS}")).args(options).arg(program).args(life);
    command.env(LIFE, folder).env("RUST_BACKTRACE", "0").output().unwrap()
}

/// Which calls touch the folder: names, and their numbers within their thread, as strace counts.
fn calls(log: &Path, folder: &Path) -> BTreeMap<String, BTreeSet<usize>> {
    let (mut counts, mut found) = (BTreeMap::<(String, String), usize>::new(), BTreeMap::<String, BTreeSet<usize>>::new());
    let folder = folder.to_str().unwrap();
    for line in std::fs::read_to_string(log).unwrap().lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = rest.trim_start().split_once('(').filter(|_| !rest.contains("resumed>")) else { continue };
        let count = counts.entry((thread.to_owned(), name.to_owned())).or_default();
        *count += 1;
        if arguments.contains(folder) {
            found.entry(name.to_owned()).or_default().insert(*count);
        }
    }
    found
}

/// One fault, and what holds after it.
fn endure(name: &str, fault: &str) -> Result<(), String> {
    let folder = Folder::new(&format!("injected-{name}"));
    let output = lead(&folder.0, &folder.0.join("trace"), &["-e".into(), format!("inject={fault}")]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let wrong = |what: &str| Err(format!("{fault}: {what}; it told:\n{told}"));
    if told.contains("panicked") {
        return wrong("a panic");
    }
    let lines: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("LIFE ")).collect();
    let acknowledged: Vec<u64> = lines.iter().filter_map(|line| line.strip_prefix("ACK ")?.parse().ok()).collect();
    if !lines.contains(&"BEGUN") {
        // strace counts calls by their names, and this one was the loader's or the test program's own.
        return Ok(());
    }
    let killed = fault.contains("signal=KILL");
    let ended = lines.last().is_some_and(|line| *line == "DONE" || line.starts_with("FAILED "));
    if !killed && !ended {
        return wrong("it ended without a word");
    }
    if fault.contains("EINTR") && lines.last() != Some(&"DONE") {
        return wrong("an interrupted call was not made again");
    }
    // An error is for a person: it says what was tried, and why not.
    for line in lines.iter().filter(|line| line.starts_with("REFUSED") || line.starts_with("FAILED")) {
        if !line.contains(':') || line.len() < 30 {
            return wrong("an error that tells nothing");
        }
    }
    let key = key();
    let reopened: creto_enablement_common::Result<Vec<[u8; 16]>> = (|| {
        let clock = HybridLogicalClock::open(&folder.0.join("clock"))?;
        let ledger = Ledger::open(&folder.ledger(), &clock, key.clone(), Options::default())?;
        ledger.append(&record(99, clock.now()), Durability::Strict)?;
        ledger.close()?;
        let shard = ledger.reader();
        let size = verify(&shard, &[key.verifying_key().clone()], &[], &AtomicU64::new(0))?.checkpoint.size;
        let mut ids = Vec::new();
        shard.at(size).each_entry(0, size, |_, entry| {
            ids.push(encoding::decode(entry)?.id);
            Ok(())
        })?;
        Ok(ids)
    })();
    let ids = match reopened {
        Ok(ids) => ids,
        Err(error) => return wrong(&format!("it does not open again: {error}")),
    };
    let expected: Vec<[u8; 16]> = (0..10).map(id).filter(|id| ids.contains(id)).chain([id(99)]).collect();
    if ids != expected {
        return wrong(&format!("{} records, of which some are another, out of order or there twice", ids.len()));
    }
    match acknowledged.iter().find(|number| !ids.contains(&id(**number))) {
        Some(lost) => wrong(&format!("record {lost} was acknowledged and is lost")),
        None => Ok(()),
    }
}

#[test]
fn a_fault_at_any_system_call_loses_nothing_that_was_acknowledged() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("strace is missing: `make test` installs it");
        return;
    }
    let folder = Folder::new("injected-none");
    let log = std::env::temp_dir().join(format!("creto-injected-{}", std::process::id()));
    let output = lead(&folder.0, &log, &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("LIFE DONE"), "{output:?}");
    let calls = calls(&log, &folder.0);
    std::fs::remove_file(log).unwrap();
    for needed in ["openat", "pwrite64", "fdatasync", "fsync", "rename", "fallocate", "mmap", "unlink", "flock"] {
        assert!(calls.contains_key(needed), "no {needed} among {:?}", calls.keys());
    }
    let faults: Vec<String> = calls
        .iter()
        .flat_map(|(name, numbers)| {
            let at = |fault: &'static str| numbers.iter().map(move |number| format!("{name}:{fault}:when={number}"));
            // A disk that stays full, not only for one call.
            let full = matches!(name.as_str(), "pwrite64" | "fallocate" | "openat" | "rename").then(|| {
                let first = numbers.iter().step_by(3);
                first.map(|number| format!("{name}:error=ENOSPC:when={number}+")).collect::<Vec<_>>()
            });
            // Calls that a signal may interrupt.
            let interruptible = matches!(
                name.as_str(),
                "openat"
                    | "pwrite64"
                    | "write"
                    | "pread64"
                    | "read"
                    | "fallocate"
                    | "fdatasync"
                    | "fsync"
                    | "syncfs"
                    | "flock"
                    | "ftruncate"
            );
            let interrupted: Vec<String> = if interruptible { at("error=EINTR").collect() } else { Vec::new() };
            at("error=EIO")
                .chain(at("error=ENOSPC"))
                .chain(at("signal=KILL"))
                .chain(interrupted)
                .chain(full.into_iter().flatten())
                .collect::<Vec<_>>()
        })
        .collect();
    // `make crash` takes them all.
    let most: usize = if std::env::var_os("CRETO_CRASH_STATES").is_some() { usize::MAX } else { 130 };
    let step = faults.len().div_ceil(most).max(1);
    let chosen: Vec<&String> = faults.iter().step_by(step).collect();
    let next = AtomicUsize::new(0);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let work = || {
            let mut wrong = Vec::new();
            while let Some(fault) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                let name = fault.replace([':', '=', '+'], "-");
                wrong.extend(endure(&name, fault).err());
            }
            wrong
        };
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    println!("{} of {} faults injected", chosen.len(), faults.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), chosen.len(), wrong.join("\n"));
}
