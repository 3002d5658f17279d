//! What the ledger promises to whoever writes it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use common::{Folder, id, key, record};
use creto_audit::disk::Machine;
use creto_audit::{Completions, Done, Follower, Proof, encoding, verify};
use creto_enablement_common::ports::{AuditSink, Durability};
use creto_enablement_common::{Error, ErrorKind};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);

#[test]
fn what_is_appended_can_be_read_proved_and_verified() {
    let (folder, key) = (Folder::new("append"), key());
    let (clock, ledger) = (folder.clock(), folder.open(&key));
    for number in 0..1_000 {
        let durability = if number % 50 == 0 { Durability::Strict } else { Durability::Relaxed };
        ledger.append(&record(number, clock.now()), durability).unwrap();
    }
    assert_eq!(ledger.publish(LONG).unwrap(), 1_000);
    let shard = ledger.reader();
    let keys = [key.verifying_key().clone()];
    let counted = AtomicU64::new(0);
    let verified = verify(&shard, &keys, &[], &counted).unwrap();
    assert_eq!(verified.checkpoint.size, 1_000);
    assert_eq!(counted.into_inner(), 1_000);
    for index in [0, 255, 256, 767, 999] {
        let entry = shard.at(1_000).entry(index).unwrap();
        assert_eq!(encoding::decode(&entry).unwrap().id, id(index));
        let proof = Proof::make(&shard, index).unwrap();
        assert_eq!(Proof::parse(&proof.to_text()).unwrap(), proof);
        proof.verify(&entry, key.verifying_key()).unwrap();
        let mut other = entry.clone();
        other[20] ^= 1;
        assert_eq!(proof.verify(&other, key.verifying_key()).unwrap_err().kind(), &ErrorKind::Integrity);
        assert_eq!(proof.verify(&entry, common::key().verifying_key()).unwrap_err().kind(), &ErrorKind::SignatureVerificationFailed);
    }
    ledger.close().unwrap();
}

#[test]
fn a_proof_is_checked_before_it_is_handed_out_and_what_was_kept_of_another_ledger_counts_for_nothing() {
    let (folder, key) = (Folder::new("kept"), key());
    let write = |from: u64| {
        let (clock, ledger) = (folder.clock(), folder.open(&key));
        for number in from..from + 600 {
            ledger.append(&record(number, clock.now()), Durability::Relaxed).unwrap();
        }
        ledger.close().unwrap();
    };
    let reader = folder.shard("0000");
    let proved = |index| Proof::make(&reader, index)?.verify(&reader.at(600).entry(index)?, key.verifying_key());
    write(0);
    let first = proved(5).unwrap();
    assert_eq!(proved(599).unwrap(), first);
    // Another ledger of the same size takes its place under the same reader, which has kept the right edge of the first.
    std::fs::remove_dir_all(folder.ledger()).unwrap();
    write(1_000);
    assert_ne!(proved(5).unwrap().root, first.root);
    let tile = folder.ledger().join("0000/tile/0/000");
    let mut bytes = std::fs::read(&tile).unwrap();
    bytes[32 * 7] ^= 1;
    std::fs::write(&tile, bytes).unwrap();
    let error = proved(5).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Integrity);
    assert!(
        error.to_string().contains("the tiles of shard `0000` do not lead from record 5 to the root of its checkpoint over 600"),
        "{error}"
    );
}

#[test]
fn the_next_holder_goes_on_where_the_last_one_ended() {
    let (folder, key) = (Folder::new("reopen"), key());
    let clock = folder.clock();
    let mut next = 0;
    for round in 1..6 {
        let ledger = folder.open(&key);
        assert_eq!((ledger.shard(), ledger.replayed()), ("0000", 0));
        for _ in 0..round * 100 {
            ledger.append(&record(next, clock.now()), Durability::Relaxed).unwrap();
            next += 1;
        }
        ledger.close().unwrap();
        assert_eq!(ledger.published(), next);
        assert_eq!(
            ledger.append(&record(0, clock.now()), Durability::Relaxed).unwrap_err().to_string(),
            "the ledger is closed; open it again: not found"
        );
    }
    let size = verify(&folder.shard("0000"), &[key.verifying_key().clone()], &[], &AtomicU64::new(0)).unwrap().checkpoint.size;
    assert_eq!(size, 1_500);
}

#[test]
fn a_record_offered_twice_is_there_once() {
    let (folder, key) = (Folder::new("twice"), key());
    let clock = folder.clock();
    let first = clock.now();
    let ledger = folder.open(&key);
    for number in [1, 2, 1, 3, 2, 1] {
        ledger.append(&record(number, first), Durability::Strict).unwrap();
    }
    ledger.close().unwrap();
    // The next holder does not remember them, but finds those that are offered under a fixed id.
    let ledger = folder.open(&key);
    for number in [3, 4, 1] {
        let ticket = ledger.enqueue_once(&record(number, first)).unwrap();
        ledger.wait_durable(ticket).unwrap();
    }
    ledger.close().unwrap();
    let mut ids = Vec::new();
    let shard = folder.shard("0000");
    let size = shard.checkpoint().unwrap().unwrap().1.size;
    shard
        .at(size)
        .each_entry(0, size, |_, entry| {
            ids.push(encoding::decode(entry)?.id);
            Ok(())
        })
        .unwrap();
    assert_eq!(ids, [id(1), id(2), id(3), id(4)]);
}

/// Tells a channel, in the order in which it is told.
struct Told(Mutex<mpsc::Sender<(u64, Option<u64>)>>);

impl Completions for Told {
    fn complete(&self, ended: &[(u64, Option<u64>)], failed: Option<&Error>) {
        assert!(failed.is_none());
        ended.iter().for_each(|end| self.0.lock().unwrap().send(*end).unwrap());
    }
}

#[test]
fn whoever_waits_is_told_the_index_once_the_record_is_on_disk_each_by_its_own_token() {
    let (folder, key) = (Folder::new("callbacks"), key());
    let (clock, ledger) = (folder.clock(), folder.open(&key));
    let (sender, receiver) = mpsc::channel();
    let (even, odd) = (Arc::new(Told(Mutex::new(sender.clone()))), Arc::new(Told(Mutex::new(sender))));
    for number in 0..500 {
        let to: Arc<dyn Completions> = if number % 2 == 0 { even.clone() } else { odd.clone() };
        ledger.enqueue_then(&record(number, clock.now()), Done { to, token: 7_000 + number }).unwrap();
    }
    let told: Vec<(u64, Option<u64>)> = receiver.iter().take(500).collect();
    assert_eq!(told, (0..500).map(|index| (7_000 + index, Some(index))).collect::<Vec<_>>());
    // Of one that is on disk, its waiter is told at once.
    ledger.when_durable(ledger.last(), Done { to: even, token: 1 }).unwrap();
    assert_eq!(receiver.recv().unwrap(), (1, None));
}

#[test]
fn threads_append_at_once_and_nothing_is_lost() {
    let (folder, key) = (Folder::new("threads"), key());
    let (clock, ledger) = (folder.clock(), folder.open(&key));
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (clock, ledger) = (&clock, &ledger);
            scope.spawn(move || {
                for number in 0..200 {
                    ledger.append(&record(thread * 1_000 + number, clock.now()), Durability::Strict).unwrap();
                }
            });
        }
    });
    ledger.close().unwrap();
    assert_eq!(verify(&folder.shard("0000"), &[key.verifying_key().clone()], &[], &AtomicU64::new(0)).unwrap().checkpoint.size, 1_600);
}

#[test]
fn segments_grow_and_those_that_are_sealed_go() {
    let (folder, key) = (Folder::new("segments"), key());
    let (clock, ledger) = (folder.clock(), folder.open(&key));
    let body = "x".repeat(4_000);
    for number in 0..6_000 {
        let detail = [("body", body.as_str())];
        ledger.append(&creto_enablement_common::RecordRef { detail: &detail, ..record(number, clock.now()) }, Durability::Relaxed).unwrap();
    }
    ledger.close().unwrap();
    let left = std::fs::read_dir(folder.ledger().join("0000/segments")).unwrap().count();
    assert!(left <= 2, "{left} segments left");
    assert_eq!(verify(&folder.shard("0000"), &[key.verifying_key().clone()], &[], &AtomicU64::new(0)).unwrap().checkpoint.size, 6_000);
    let ledger = folder.open(&key);
    assert_eq!(ledger.replayed(), 0);
    ledger.append(&record(6_000, clock.now()), Durability::Strict).unwrap();
    ledger.close().unwrap();
    assert_eq!(ledger.published(), 6_001);
}

#[test]
fn whoever_follows_and_falls_behind_by_whole_segments_misses_nothing() {
    let (folder, key) = (Folder::new("behind-segments"), key());
    let (clock, ledger) = (folder.clock(), folder.open(&key));
    let body = "x".repeat(4_000);
    let detail = [("body", body.as_str())];
    let mut follower = Follower::new(ledger.reader(), Arc::new(Machine), 0);
    let mut seen = Vec::new();
    for number in 0..6_001 {
        ledger.append(&creto_enablement_common::RecordRef { detail: &detail, ..record(number, clock.now()) }, Durability::Relaxed).unwrap();
        if number == 100 {
            ledger.publish(LONG).unwrap();
            follower.poll(|index, _| seen.push(index)).unwrap();
            assert_eq!(seen.len(), 101);
        }
    }
    // All segments but the last are gone, and with them the one that the follower holds open.
    ledger.close().unwrap();
    follower.poll(|index, _| seen.push(index)).unwrap();
    assert_eq!(seen, (0..6_001).collect::<Vec<_>>());
    let mut tail = Vec::new();
    folder.shard("0000").tail(5_990, |index, _| tail.push(index)).unwrap();
    assert_eq!(tail, (5_990..6_001).collect::<Vec<_>>());
}

#[test]
fn a_record_that_is_too_long_is_refused_with_what_to_do() {
    let (folder, key) = (Folder::new("long"), key());
    let (clock, ledger) = (folder.clock(), folder.open(&key));
    let body = "x".repeat(70_000);
    let detail = [("body", body.as_str())];
    let error =
        ledger.append(&creto_enablement_common::RecordRef { detail: &detail, ..record(0, clock.now()) }, Durability::Strict).unwrap_err();
    assert!(error.to_string().contains("keep bodies elsewhere and record their digest"), "{error}");
    ledger.append(&record(1, clock.now()), Durability::Strict).unwrap();
}
