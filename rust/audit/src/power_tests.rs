//! Power loss: a run is recorded as the writes, syncs and names that it asked for; then every disk that a loss of power could have left is
//! rebuilt and recovered.
//!
//! The model grants nothing that POSIX does not promise: after the last sync of a file any subset of its 512-byte sectors may have been
//! written; a name made, changed or removed may be lost until its folder is synced, independently of every other.

use crate::disk::{Backing, Disk, Whole};
use crate::ledger::{Ledger, Options};
use crate::merkle::{Edge, leaf_hash};
use crate::reader::Shard;
use crate::recovery::recover;
use creto_crypto::{SigningKey, Suite};
use creto_enablement_common::ports::{AuditSink, Durability};
use creto_enablement_common::sync::Mutex;
use creto_enablement_common::{Digest, RecordKind, RecordRef, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const SECTOR: usize = 512;
const SEGMENT: u64 = 192 << 10;

#[derive(Clone)]
enum Op {
    Name {
        path: PathBuf,
        inode: usize,
    },
    Truncate {
        inode: usize,
    },
    Write {
        inode: usize,
        offset: usize,
        bytes: Arc<[u8]>,
    },
    Sync {
        inode: usize,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    Folder {
        path: PathBuf,
    },
    SyncFolder {
        path: PathBuf,
    },
    /// So many records have been acknowledged.
    Acknowledged(u64),
}

/// A bug that the explorer has to find.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Planted {
    None,
    /// Segments are written and not synced.
    NoSync,
    /// Names are not synced.
    NoFolderSync,
    /// Tiles are not synced before the segment that they derive from is removed.
    NoTileSync,
    /// The checkpoint is renamed before its bytes are on disk.
    NoCheckpointSync,
}

#[derive(Default)]
struct State {
    files: Vec<Vec<u8>>,
    names: BTreeMap<PathBuf, usize>,
    folders: BTreeSet<PathBuf>,
    log: Vec<Op>,
}

/// A disk in memory that remembers what was asked of it.
#[derive(Clone)]
struct Remembering {
    state: Arc<Mutex<State>>,
    planted: Planted,
}

struct Open {
    disk: Remembering,
    inode: usize,
    path: PathBuf,
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Remembering {
    fn new(root: &Path, planted: Planted) -> Self {
        let state = State { folders: BTreeSet::from([root.to_owned()]), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), planted }
    }

    fn skips_sync(&self, path: &Path) -> bool {
        let text = path.to_string_lossy();
        match self.planted {
            Planted::NoSync => text.contains("/segments/"),
            Planted::NoTileSync => text.contains("/tile/"),
            Planted::NoCheckpointSync => text.contains("/checkpoint"),
            Planted::None | Planted::NoFolderSync => false,
        }
    }
}

impl Backing for Open {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let offset = offset as usize;
        let file = &mut state.files[self.inode];
        if file.len() < offset + bytes.len() {
            file.resize(offset + bytes.len(), 0);
        }
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
        state.log.push(Op::Write { inode: self.inode, offset, bytes: bytes.into() });
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state.lock();
        let file = state.files[self.inode].get(offset as usize..).unwrap_or_default();
        let length = file.len().min(bytes.len());
        bytes[..length].copy_from_slice(&file[..length]);
        Ok(length)
    }

    fn reserve(&self, _length: u64) -> io::Result<bool> {
        Ok(false)
    }

    fn sync(&self) -> io::Result<()> {
        if !self.disk.skips_sync(&self.path) {
            self.disk.state.lock().log.push(Op::Sync { inode: self.inode });
        }
        Ok(())
    }
}

impl Whole for Remembering {
    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let (names, folders) = (state.names.clone(), state.folders.clone());
        for (path, inode) in names {
            if !self.skips_sync(&path) {
                state.log.push(Op::Sync { inode });
            }
        }
        if self.planted != Planted::NoFolderSync {
            state.log.extend(folders.into_iter().map(|path| Op::SyncFolder { path }));
        }
        Ok(())
    }
}

impl Disk for Remembering {
    fn length(&self, path: &Path) -> io::Result<u64> {
        self.read(path).map(|bytes| bytes.len() as u64)
    }

    fn whole(&self, _folder: &Path) -> io::Result<Box<dyn Whole>> {
        Ok(Box::new(self.clone()))
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn Backing>> {
        let mut state = self.state.lock();
        let inode = match state.names.get(path) {
            Some(inode) => *inode,
            None if create => {
                if !state.folders.contains(path.parent().unwrap()) {
                    return Err(missing());
                }
                let inode = state.files.len();
                state.files.push(Vec::new());
                state.names.insert(path.to_owned(), inode);
                state.log.push(Op::Name { path: path.to_owned(), inode });
                inode
            }
            None => return Err(missing()),
        };
        if create && !state.files[inode].is_empty() {
            state.files[inode].clear();
            state.log.push(Op::Truncate { inode });
        }
        Ok(Box::new(Open { disk: self.clone(), inode, path: path.to_owned() }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state.lock();
        let inode = state.names.get(path).ok_or_else(missing)?;
        Ok(state.files[*inode].clone())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        if !state.folders.contains(folder) {
            return Err(missing());
        }
        let files = state.names.keys().chain(&state.folders);
        Ok(files.filter(|path| path.parent() == Some(folder)).map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let inode = state.names.remove(from).ok_or_else(missing)?;
        state.names.insert(to.to_owned(), inode);
        state.log.push(Op::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let empty = !state.names.keys().chain(&state.folders).any(|p| p.parent() == Some(path));
        if state.names.remove(path).is_none() && !(empty && state.folders.remove(path)) {
            return Err(io::Error::from(io::ErrorKind::DirectoryNotEmpty));
        }
        state.log.push(Op::Remove { path: path.to_owned() });
        Ok(())
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let new: Vec<PathBuf> = folder.ancestors().take_while(|path| !state.folders.contains(*path)).map(Path::to_owned).collect();
        for path in new.into_iter().rev() {
            state.folders.insert(path.clone());
            state.log.push(Op::Folder { path });
        }
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if self.planted != Planted::NoFolderSync {
            self.state.lock().log.push(Op::SyncFolder { path: folder.to_owned() });
        }
        Ok(())
    }
}

/// A small generator of random numbers (SplitMix64), so that a state can be found again by its number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn happens(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// What a loss of power after the first `at` operations may have left.
fn left(log: &[Op], at: usize, root: &Path, random: &mut Random) -> (Remembering, u64) {
    let log = &log[..at];
    let mut synced: BTreeMap<usize, usize> = BTreeMap::new();
    let mut folder_synced: BTreeMap<&Path, usize> = BTreeMap::new();
    for (i, op) in log.iter().enumerate() {
        match op {
            Op::Sync { inode } => drop(synced.insert(*inode, i)),
            Op::SyncFolder { path } => drop(folder_synced.insert(path, i)),
            _ => {}
        }
    }
    // Mostly some of what was not synced is there; sometimes all or nothing of it.
    let percent = [0, 100, 50, 20, 80][random.below(5)];
    let disk = Remembering::new(root, Planted::None);
    let mut acknowledged = 0;
    {
        let mut state = disk.state.lock();
        let named = |path: &Path, i: usize| path.parent().is_some_and(|folder| folder_synced.get(folder).is_some_and(|last| *last > i));
        for (i, op) in log.iter().enumerate() {
            let durable = match op {
                Op::Name { path, .. } | Op::Remove { path } | Op::Folder { path } => named(path, i),
                Op::Rename { from, to } => named(from, i) && named(to, i),
                Op::Truncate { inode } | Op::Write { inode, .. } => synced.get(inode).is_some_and(|last| *last > i),
                _ => true,
            };
            match op {
                Op::Name { inode, .. } if state.files.len() <= *inode => state.files.resize(*inode + 1, Vec::new()),
                _ => {}
            }
            match op {
                Op::Write { inode, offset, bytes } => {
                    let file = &mut state.files[*inode];
                    let mut start = 0;
                    if durable || percent == 100 {
                        if file.len() < offset + bytes.len() {
                            file.resize(offset + bytes.len(), 0);
                        }
                        file[*offset..offset + bytes.len()].copy_from_slice(bytes);
                        start = bytes.len();
                    }
                    while start < bytes.len() {
                        let end = (start + SECTOR - (offset + start) % SECTOR).min(bytes.len());
                        if random.happens(percent) {
                            if file.len() < offset + end {
                                file.resize(offset + end, 0);
                            }
                            file[offset + start..offset + end].copy_from_slice(&bytes[start..end]);
                        }
                        start = end;
                    }
                }
                Op::Acknowledged(count) => acknowledged = *count,
                Op::Sync { .. } | Op::SyncFolder { .. } => {}
                _ if !durable && !random.happens(percent) => {}
                Op::Truncate { inode } => state.files[*inode].clear(),
                Op::Name { path, inode } => drop(state.names.insert(path.clone(), *inode)),
                Op::Rename { from, to } => {
                    // A name that was lost takes nothing with it.
                    if let Some(inode) = state.names.remove(from) {
                        state.names.insert(to.clone(), inode);
                    }
                }
                Op::Remove { path } => {
                    state.names.remove(path);
                    state.folders.remove(path);
                }
                Op::Folder { path } => drop(state.folders.insert(path.clone())),
            }
        }
        // What lies in a folder that was lost is lost.
        let folders = state.folders.clone();
        let reachable = |path: &Path| path.ancestors().skip(1).take_while(|p| p.starts_with(root)).all(|p| folders.contains(p));
        state.names.retain(|path, _| reachable(path));
        state.folders.retain(|path| reachable(path));
        state.log.clear();
    }
    (disk, acknowledged)
}

struct Run {
    log: Vec<Op>,
    shard: PathBuf,
    /// The leaves of all records, and the root over the first n of them.
    leaves: Vec<Digest>,
    roots: Vec<Digest>,
    folder: PathBuf,
    key: SigningKey,
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

struct Counting(AtomicU64);

impl creto_enablement_common::ports::Clock for Counting {
    fn now(&self) -> Timestamp {
        Timestamp::from_word(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn observe(&self, _seen: Timestamp) {}
}

fn options(disk: &Remembering) -> Options {
    Options { every: Duration::from_millis(3), segments: (SEGMENT, SEGMENT), disk: Arc::new(disk.clone()), ..Options::default() }
}

fn record(number: u64, pad: &str) -> ([u8; 16], String) {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    (id, format!("{number} {pad}"))
}

/// Writes a ledger through several holders, on a disk that remembers.
fn run(name: &str, planted: Planted) -> Run {
    let folder = std::env::temp_dir().join(format!("creto-power-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let shard = folder.join("0000");
    let disk = Remembering::new(&shard, planted);
    let (key, clock) = (SigningKey::generate(Suite::Standard).unwrap(), Counting(AtomicU64::new(1 << 40)));
    let mut number = 0;
    let mut random = Random(planted as u64);
    for _ in 0..3 {
        let ledger = Ledger::open(&folder, &clock, key.clone(), options(&disk)).unwrap();
        for _ in 0..350 {
            let pad = "x".repeat(random.below(900));
            let (id, resource) = record(number, &pad);
            let record = RecordRef {
                who: "w",
                delegation_chain: &[],
                what: "a:b",
                resource: &resource,
                why: "",
                outcome: None,
                timestamp: Timestamp::from_word(1 << 41),
                id,
                act: id,
                kind: RecordKind::Event,
                digest: None,
                policy: None,
                usage: &[],
                detail: &[],
            };
            number += 1;
            let strict = random.happens(30);
            ledger.append(&record, if strict { Durability::Strict } else { Durability::Relaxed }).unwrap();
            if strict {
                disk.state.lock().log.push(Op::Acknowledged(number));
            }
            if random.happens(2) {
                std::thread::sleep(Duration::from_millis(3));
            }
        }
        ledger.close().unwrap();
        disk.state.lock().log.push(Op::Acknowledged(number));
    }
    let size = Shard::open(Arc::new(disk.clone()), &shard).checkpoint().unwrap().unwrap().1.size;
    let mut leaves = Vec::new();
    let mut edge = Edge::default();
    let mut roots = vec![edge.root()];
    Shard::open(Arc::new(disk.clone()), &shard)
        .at(size)
        .each_entry(0, size, |_, entry| {
            leaves.push(leaf_hash(entry));
            edge.push(leaf_hash(entry));
            roots.push(edge.root());
            Ok(())
        })
        .unwrap();
    assert_eq!(leaves.len() as u64, number);
    let log = std::mem::take(&mut disk.state.lock().log);
    Run { log, shard, leaves, roots, folder, key }
}

/// Recovers one disk and says what is wrong with it, if anything is.
fn check(run: &Run, number: u64) -> Result<(), String> {
    let mut random = Random(number.wrapping_mul(0x0123_4567_89ab_cdef));
    let at = random.below(run.log.len() + 1);
    let (disk, acknowledged) = left(&run.log, at, &run.shard, &mut random);
    let tell = |what: String| format!("state {number} (after {at} of {} operations): {what}", run.log.len());
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let reader = Shard::open(Arc::clone(&shared), &run.shard);
    let published = reader.checkpoint().map_err(|e| tell(format!("the checkpoint cannot be read: {e}")))?;
    let mut recovered = recover(&shared, &run.shard, SEGMENT).map_err(|e| tell(format!("not recovered: {e}")))?;
    let size = recovered.tree.size();
    if size < acknowledged {
        return Err(tell(format!("{acknowledged} records were acknowledged, {size} are there")));
    }
    if run.roots.get(size as usize) != Some(&recovered.tree.root()) {
        return Err(tell(format!("the {size} records are not those that were written")));
    }
    if let Some((_, checkpoint)) = published
        && run.roots.get(checkpoint.size as usize) != Some(&checkpoint.root)
    {
        return Err(tell(format!("the checkpoint over {} records is not one that was signed", checkpoint.size)));
    }
    recovered.tree.write_partial(&*shared).map_err(|e| tell(format!("partial tiles: {e}")))?;
    let view = reader.at(size);
    if size > 0 && view.root().map_err(|e| tell(format!("the tiles: {e}")))? != recovered.tree.root() {
        return Err(tell("the tiles lead to another root".into()));
    }
    let mut index = 0;
    let entries = view.each_entry(0, size, |_, entry| {
        if run.leaves.get(index) == Some(&leaf_hash(entry)) {
            index += 1;
            Ok(())
        } else {
            Err(creto_enablement_common::Error::internal(format!("record {index} is another")))
        }
    });
    entries.map_err(|e| tell(format!("the entries: {e}")))
}

/// Checks states on all processors; the first that does not hold.
fn explore(run: &Run, states: u64) -> Option<String> {
    let (next, stop, found) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= states {
                        return;
                    }
                    if let Err(wrong) = check(run, number) {
                        stop.store(true, Ordering::Relaxed);
                        found.lock().get_or_insert(wrong);
                    }
                }
            });
        }
    });
    found.into_inner()
}

fn states() -> u64 {
    // `make crash` asks for more.
    std::env::var("CRETO_CRASH_STATES").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

#[test]
fn no_acknowledged_record_is_lost_in_any_state_that_a_loss_of_power_can_leave() {
    let run = run("sound", Planted::None);
    let start = std::time::Instant::now();
    assert_eq!(explore(&run, states()), None);
    println!("{} states of {} operations in {:.1} s", states(), run.log.len(), start.elapsed().as_secs_f64());
}

#[test]
fn the_explorer_finds_planted_bugs() {
    for (name, planted) in [
        ("nosync", Planted::NoSync),
        ("nofolder", Planted::NoFolderSync),
        ("notile", Planted::NoTileSync),
        ("nocheckpoint", Planted::NoCheckpointSync),
    ] {
        let run = run(name, planted);
        let found = explore(&run, 20_000);
        println!("{name}: {}", found.as_deref().unwrap_or("not found"));
        assert!(found.is_some(), "{name} was not found");
    }
}

#[test]
fn a_shard_that_lost_power_goes_on_and_verifies() {
    let run = run("on", Planted::None);
    let clock = Counting(AtomicU64::new(1 << 42));
    for number in 0..30 {
        let mut random = Random(number);
        let at = random.below(run.log.len() + 1);
        let (disk, acknowledged) = left(&run.log, at, &run.shard, &mut random);
        let ledger = Ledger::open(&run.folder, &clock, run.key.clone(), options(&disk)).unwrap();
        let (id, resource) = record(1 << 50, "more");
        let record = RecordRef {
            who: "w",
            delegation_chain: &[],
            what: "a:b",
            resource: &resource,
            why: "",
            outcome: None,
            timestamp: Timestamp::from_word(1 << 42),
            id,
            act: id,
            kind: RecordKind::Event,
            digest: None,
            policy: None,
            usage: &[],
            detail: &[],
        };
        ledger.append(&record, Durability::Strict).unwrap();
        ledger.close().unwrap();
        let shard = Shard::open(Arc::new(disk), &run.shard);
        let verified = crate::verify(&shard, &[run.key.verifying_key().clone()], &[], &AtomicU64::new(0)).unwrap();
        assert!(verified.checkpoint.size > acknowledged);
    }
}
