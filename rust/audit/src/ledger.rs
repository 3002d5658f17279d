//! The writing side of the ledger: one shard, held by this process.

use crate::batch::{BatchPlace, Batches};
use crate::checkpoints::Checkpoints;
use crate::commit::{Buffers, wait_durable};
use crate::disk::{Disk, Machine};
use crate::encoding::{self, MAX_RECORD};
use crate::fork;
use crate::handover::Handover;
use crate::ids::Ids;
use crate::publisher::{Published, Publisher};
use crate::queue::{Done, Meta, Queue, Stop};
use crate::reader::Shard;
use crate::recovery::recover;
use crate::reserve::{Reserve, Segments};
use crate::sealer::Sealer;
use crate::segment::{MAX_FRAME, START};
use crate::shard::{self, Held};
use crate::writer::Writer;
use creto_crypto::SigningKey;
use creto_enablement_common::ports::{AuditSink, Clock, Ticket};
use creto_enablement_common::sync::Mutex;
use creto_enablement_common::{Error, ErrorKind, RecordRef, Result, ResultExt};
use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ORIGIN: &str = "origin";

/// How a ledger is opened.
#[derive(Clone)]
pub struct Options {
    /// What origins begin with, such as `creto.local/ledger`.
    pub origin: String,
    /// The longest time between checkpoints while records come.
    pub every: Duration,
    /// The most records between checkpoints.
    pub every_records: u64,
    /// Bytes of a first segment and of the largest; segments begin small, so that a short run leaves little, and grow.
    pub segments: (u64, u64),
    /// The file system; the machine's own but in tests of power loss.
    pub disk: Arc<dyn Disk>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            origin: "creto.local/ledger".into(),
            every: Duration::from_secs(1),
            every_records: 10_000,
            segments: (1 << 20, 16 << 20),
            disk: Arc::new(Machine),
        }
    }
}

/// The ledger of a state folder, for writing.
pub struct Ledger {
    queue: Arc<Queue>,
    writer: Arc<Mutex<Writer>>,
    published: Arc<Published>,
    handover: Arc<Handover>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    held: Mutex<Option<Held>>,
    path: PathBuf,
    name: String,
    origin: String,
    disk: Arc<dyn Disk>,
    batches: Arc<Batches>,
    replayed: u64,
    generation: u64,
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Ledger {
    /// Takes over a free shard of the ledger in `folder`, or makes one, and recovers what its last holder left.
    ///
    /// # Errors
    /// `Integrity` where what the last holder left is damaged, `LedgerFull` where there is no space, and those of the file system.
    pub fn open(folder: &Path, clock: &dyn Clock, signer: SigningKey, options: Options) -> Result<Arc<Self>> {
        let generation = fork::generation();
        let held = shard::acquire(folder)?;
        let (path, name) = (held.path.clone(), held.name.clone());
        let disk = options.disk;
        let origin = origin(&*disk, &path, &format!("{}/{}/{name}", options.origin, folder_id()))?;
        // A segment has room for the longest record, and for what is left over at its end.
        let smallest = options.segments.0.max(START + 2 * MAX_FRAME);
        let recovered = recover(&disk, &path, smallest).context(|| format!("opening the ledger in `{}`", folder.display()))?;
        let next_index = recovered.tree.size();
        let queue = Arc::new(Queue::default());
        let published = Arc::new(Published::default());
        published.set(recovered.published);
        let handover = Arc::new(Handover::new(next_index));
        let largest = options.segments.1.max(smallest);
        let segments = Arc::new(Segments::new(recovered.live, largest));
        let (sealer, seals) = Sealer::new(&disk, &path, &queue, &published, &segments)?;
        let (ready_sender, ready) = sync_channel(2);
        let (wanted_sender, wanted) = channel();
        let (checkpoint_sender, checkpoints) = sync_channel(1);
        let _ = wanted_sender.send(());
        let counted = recovered.current.room().saturating_sub(recovered.offset);
        queue.add_room(counted);
        let batches = Arc::new(Batches::new(Arc::clone(&disk), &path));
        let writer = Arc::new(Mutex::new(Writer {
            disk: Arc::clone(&disk),
            shard: path.clone(),
            queue: Arc::clone(&queue),
            batches: Arc::clone(&batches),
            current: recovered.current,
            offset: recovered.offset,
            begun: recovered.offset,
            counted,
            next_index,
            ids: Ids::new(clock.now().word()),
            ready,
            wanted: Some(wanted_sender),
            handover: Arc::clone(&handover),
            frames: Vec::new(),
            buffers: Buffers::default(),
        }));
        let publishing = Publisher {
            disk: Arc::clone(&disk),
            shard: path.clone(),
            origin: origin.clone(),
            tree: recovered.tree,
            queue: Arc::clone(&queue),
            published: Arc::clone(&published),
            handover: Arc::clone(&handover),
            segments: Arc::clone(&segments),
            seals,
            checkpoints: checkpoint_sender,
            asked: recovered.published,
            every: options.every,
            every_records: options.every_records.max(1),
            unsealed: if recovered.ended { recovered.live } else { 0 },
            ended: recovered.ended,
            due: (next_index > recovered.published).then(Instant::now),
        };
        let reserve = Reserve {
            disk: Arc::clone(&disk),
            shard: path.clone(),
            queue: Arc::clone(&queue),
            wanted,
            ready: ready_sender,
            segments,
            capacity: (smallest * 4).min(largest),
        };
        let signing = Checkpoints {
            disk: Arc::clone(&disk),
            shard: path.clone(),
            signer,
            queue: Arc::clone(&queue),
            published: Arc::clone(&published),
            work: checkpoints,
        };
        let threads = vec![
            thread("creto-segments", move || reserve.run())?,
            thread("creto-seal", move || sealer.run())?,
            thread("creto-sign", move || signing.run())?,
            thread("creto-publish", move || publishing.run())?,
            thread("creto-ledger", {
                let (queue, writer) = (Arc::clone(&queue), Arc::clone(&writer));
                move || {
                    while queue.wait_for_work() {
                        writer.lock().commit();
                    }
                }
            })?,
        ];
        Ok(Arc::new(Self {
            queue,
            writer,
            published,
            handover,
            threads: Mutex::new(threads),
            held: Mutex::new(Some(held)),
            path,
            name,
            origin,
            disk,
            batches,
            replayed: recovered.replayed,
            generation,
        }))
    }

    /// The name of the shard.
    pub fn shard(&self) -> &str {
        &self.name
    }

    /// What its checkpoints are signed under.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many records were found in segments at opening: 0 where the last holder closed the shard.
    pub const fn replayed(&self) -> u64 {
        self.replayed
    }

    /// The shard for reading.
    pub fn reader(&self) -> Shard {
        Shard::open(Arc::clone(&self.disk), &self.path)
    }

    fn check_fork(&self) -> Result<()> {
        if self.generation == fork::now() { Ok(()) } else { Err(Error::new(ErrorKind::Forked).with_context("using the ledger")) }
    }

    fn push(&self, record: &RecordRef<'_>, once: bool, done: Option<Done>, wait: bool) -> Result<Option<Ticket>> {
        self.check_fork()?;
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            encoding::encode(record, scratch);
            if scratch.len() > MAX_RECORD {
                let what = format!(
                    "a record of {} bytes; a record holds at most {MAX_RECORD}, so keep bodies elsewhere and record their digest",
                    scratch.len()
                );
                return Err(Error::invalid(what));
            }
            let meta = Meta { length: scratch.len() as u32, once, timestamp: record.timestamp.word(), id: record.id };
            Ok(self.queue.push(scratch, meta, done, wait)?.map(Ticket))
        })
    }

    /// As `enqueue`, but never waits: none where the queue is full at the moment.
    pub fn try_enqueue(&self, record: &RecordRef<'_>) -> Result<Option<Ticket>> {
        self.push(record, false, None, false)
    }

    /// As `enqueue`, for a record that may have been offered before, by this process or an earlier holder of the shard.
    pub fn enqueue_once(&self, record: &RecordRef<'_>) -> Result<Ticket> {
        self.push(record, true, None, true)?.ok_or_else(|| Error::new(ErrorKind::LedgerFull))
    }

    /// Keeps the bytes of a batch. They are on disk once a record is that was enqueued after this; that record is to tell the place and a
    /// root by which the bytes can be checked. Read back by `read_batch`.
    ///
    /// # Errors
    /// `LedgerFull` where there is no space, and those of the file system.
    pub fn keep_batch(&self, bytes: &[u8]) -> Result<BatchPlace> {
        self.check_fork()?;
        self.batches.keep(bytes)
    }

    /// Puts a record in the queue and tells `done`, on the writer's thread, its index once it is on disk.
    pub fn enqueue_then(&self, record: &RecordRef<'_>, done: Done) -> Result<Ticket> {
        self.push(record, false, Some(done), true)?.ok_or_else(|| Error::new(ErrorKind::LedgerFull))
    }

    /// Tells `done` once a record is on disk; at once where it is.
    pub fn when_durable(&self, ticket: Ticket, done: Done) -> Result<()> {
        self.check_fork()?;
        self.queue.when_durable(ticket.0, done);
        Ok(())
    }

    /// The ticket of the last record that was taken.
    pub fn last(&self) -> Ticket {
        Ticket(self.queue.last())
    }

    /// Waits at most so long until a record is on disk; false where it is not yet.
    ///
    /// # Errors
    /// What ended the ledger, where the record can no longer get there.
    pub fn wait_durable_for(&self, ticket: Ticket, most: Duration) -> Result<bool> {
        self.check_fork()?;
        let closed = || self.threads.lock().is_empty();
        wait_durable(&self.queue, &self.writer, ticket.0, Instant::now() + most, closed, Writer::commit)
    }

    /// Writes all that waits, publishes a checkpoint over it, and returns how many records it covers.
    ///
    /// # Errors
    /// `Timeout` where that takes longer than `most`, or what ended the ledger.
    pub fn publish(&self, most: Duration) -> Result<u64> {
        self.check_fork()?;
        let until = Instant::now() + most;
        let size = {
            let Some(mut writer) = self.writer.try_lock_for(most) else { return Err(late()) };
            writer.commit();
            writer.next_index
        };
        if let Some(stop) = self.queue.stopped() {
            return Err(stop.error());
        }
        self.handover.publish();
        if self.published.wait(size, until.saturating_duration_since(Instant::now())) {
            return Ok(size);
        }
        if self.published.ended() { Err(self.ended()) } else { Err(late()) }
    }

    fn ended(&self) -> Error {
        self.queue.stopped().map_or_else(|| Error::internal("the publisher of the ledger has ended"), |stop| stop.error())
    }

    /// Records covered by the checkpoint on disk.
    pub fn published(&self) -> u64 {
        self.published.size()
    }

    /// Writes and publishes all that was taken, makes it durable as tiles, and gives the shard free. A second call does nothing.
    ///
    /// # Errors
    /// What kept it from doing so.
    pub fn close(&self) -> Result<()> {
        self.check_fork()?;
        let threads = std::mem::take(&mut *self.threads.lock());
        if threads.is_empty() {
            return Ok(());
        }
        let before = self.queue.stopped();
        self.queue.stop(Stop { kind: ErrorKind::NotFound, why: "the ledger is closed; open it again".into() });
        {
            let mut writer = self.writer.lock();
            writer.commit();
            writer.wanted = None;
        }
        self.handover.close();
        let mut panicked = false;
        for thread in threads {
            panicked |= thread.join().is_err();
        }
        *self.held.lock() = None;
        let size = self.writer.lock().next_index;
        match before {
            Some(stop) => Err(stop.error()),
            None if panicked => Err(Error::internal("a thread of the ledger ended in a panic")),
            None if self.published.size() < size => Err(Error::new(ErrorKind::LedgerFull).with_context(format!(
                "the last {} records are on disk, but no checkpoint over them could be written",
                size - self.published.size()
            ))),
            None => Ok(()),
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if self.generation == fork::now() {
            // Nobody is left to tell; whoever wants to know calls `close`.
            let _ = self.close();
        } else {
            // The threads live in the parent.
            self.threads.lock().drain(..).for_each(std::mem::forget);
        }
    }
}

impl AuditSink for Ledger {
    fn enqueue(&self, record: &RecordRef<'_>) -> Result<Ticket> {
        self.push(record, false, None, true)?.ok_or_else(|| Error::new(ErrorKind::LedgerFull))
    }

    fn wait_durable(&self, ticket: Ticket) -> Result<()> {
        while !self.wait_durable_for(ticket, Duration::from_secs(1))? {}
        Ok(())
    }
}

fn late() -> Error {
    Error::new(ErrorKind::Timeout).with_context("publishing a checkpoint")
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(work).context(|| format!("starting the thread `{name}`"))
}

/// Sets the ledgers of different folders apart.
fn folder_id() -> String {
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{random:016x}")
}

/// The origin of a shard, chosen once.
fn origin(disk: &dyn Disk, shard: &Path, new: &str) -> Result<String> {
    let path = shard.join(ORIGIN);
    match disk.read(&path) {
        Ok(bytes) if !bytes.is_empty() => {
            String::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::Integrity).with_context(format!("`{}` is not text", path.display())))
        }
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::from(e).with_context(format!("reading `{}`", path.display()))),
        _ => {
            crate::disk::replace(disk, &path, new.as_bytes(), true).context(|| format!("writing `{}`", path.display()))?;
            Ok(new.to_owned())
        }
    }
}
