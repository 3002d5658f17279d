//! Segments of a ledger's usage beside it: made as checkpoints come, read by invoices and queries. A projection: what is missing is made again.

use super::records::{LEDGER, each_usage};
use creto_audit::disk::Machine;
use creto_audit::{Shard, shards};
use creto_enablement_common::{Error, Result, ResultExt};
use creto_metering::usage::{Batch, Pass, Segment, SegmentBuilder, Series, Totals, Which};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::num::NonZero;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A segment ends once it holds so many events: fewer make more groups to visit, more take more memory to put in order (350 MB for these).
const FULL: usize = 1 << 21;
/// One of fewer is made anew with what followed, so that ticks leave few files.
const SMALL: u32 = 1 << 16;
/// So many segments are looked through at once: each may have to be made for it.
const THREADS: usize = 4;
const ENDING: &str = "segment";

/// A stretch of a shard: the records from `from` to before `to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stretch {
    /// The shard.
    pub shard: String,
    /// The first record.
    pub from: u64,
    /// The record after the last.
    pub to: u64,
}

/// The segments of a ledger.
pub struct Index {
    ledger: PathBuf,
    folder: Option<PathBuf>,
}

impl Index {
    /// Of the ledger in a folder, kept in another; without one nothing is kept, and all is read from the ledger itself.
    pub fn new(ledger: &Path, folder: Option<&Path>) -> Self {
        Self { ledger: ledger.to_owned(), folder: folder.map(Path::to_owned) }
    }

    fn path(&self, stretch: &Stretch) -> Option<PathBuf> {
        let name = format!("{:012}-{:012}.{ENDING}", stretch.from, stretch.to);
        self.folder.as_ref().map(|folder| folder.join(&stretch.shard).join(name))
    }

    /// Makes segments of what checkpoints cover and no segment holds. Returns how many events were put in order; `done` counts records.
    ///
    /// # Errors
    /// `Integrity` where the ledger is damaged, and those of the file system.
    pub fn advance(&self, done: &AtomicU64) -> Result<u64> {
        let mut events = 0;
        for name in shards(&self.ledger)? {
            let shard = Shard::open(Arc::new(Machine), &self.ledger.join(&name));
            let size = shard.checkpoint()?.map_or(0, |(_, checkpoint)| checkpoint.size);
            let (chain, _) = self.chain(&name)?;
            let mut from = chain.last().map_or(0, |last| last.to);
            if from >= size {
                continue;
            }
            if let Some(last) = chain.last()
                && let Some(path) = self.path(last)
                && Segment::open(File::open(path)?).is_ok_and(|segment| segment.rows < SMALL)
            {
                from = last.from;
            }
            events += self.extend(&name, from, size, done)?;
            let (_, others) = self.chain(&name)?;
            for outgrown in others {
                // Whoever reads it has it open, or finds the one in its place.
                let _ = fs::remove_file(outgrown);
            }
        }
        Ok(events)
    }

    fn extend(&self, shard: &str, from: u64, to: u64, done: &AtomicU64) -> Result<u64> {
        let (mut builder, mut start, mut events) = (SegmentBuilder::default(), from, 0);
        let mut next = from;
        each_usage(&self.ledger, shard, from, Some(to), |reading| {
            builder.add(reading.record, &reading.events, &reading.hashes)?;
            done.fetch_add(reading.record + 1 - next, Ordering::Relaxed);
            next = reading.record + 1;
            if builder.len() >= FULL {
                let full = std::mem::take(&mut builder);
                events += full.len() as u64;
                let end = reading.record + 1;
                self.write(&Stretch { shard: shard.to_owned(), from: start, to: end }, full)?;
                start = end;
            }
            Ok(())
        })?;
        done.fetch_add(to - next, Ordering::Relaxed);
        events += builder.len() as u64;
        if start < to {
            self.write(&Stretch { shard: shard.to_owned(), from: start, to }, builder)?;
        }
        Ok(events)
    }

    fn write(&self, stretch: &Stretch, builder: SegmentBuilder) -> Result<()> {
        let Some(path) = self.path(stretch) else { return Ok(()) };
        let failed = || format!("writing `{}`", path.display());
        let bytes = builder.build(stretch.from, stretch.to)?;
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).context(failed)?;
        }
        // Two may make the same one at once, in one process or in two; each its own file, and either is as good. Not synced: it can be made
        // again, and one that a loss of power left short is told by its head or its length.
        static MADE: AtomicU64 = AtomicU64::new(0);
        let new = path.with_extension(format!("new-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)));
        let mut file = File::create(&new).context(failed)?;
        file.write_all(&bytes).context(failed)?;
        fs::rename(&new, &path).context(failed)
    }

    /// The stretches of a shard that follow one another, each the longest; and the files beside them that are not needed.
    fn chain(&self, shard: &str) -> Result<(Vec<Stretch>, Vec<PathBuf>)> {
        let Some(folder) = self.folder.as_ref().map(|folder| folder.join(shard)) else { return Ok((Vec::new(), Vec::new())) };
        let mut found: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
            other => other.context(|| format!("listing `{}`", folder.display()))?,
        };
        for entry in entries {
            let name = entry.map_err(Error::from)?.file_name();
            let bounds = name.to_str().and_then(|name| name.strip_suffix(&format!(".{ENDING}"))).and_then(|name| name.split_once('-'));
            if let Some((Ok(from), Ok(to))) = bounds.map(|(from, to)| (from.parse(), to.parse()))
                && from < to
            {
                found.entry(from).or_default().insert(to);
            }
        }
        let (mut chain, mut next) = (Vec::new(), 0);
        while let Some(to) = found.get(&next).and_then(BTreeSet::last) {
            chain.push(Stretch { shard: shard.to_owned(), from: next, to: *to });
            next = *to;
        }
        let stretches =
            found.iter().flat_map(|(from, ends)| ends.iter().map(|to| Stretch { shard: shard.to_owned(), from: *from, to: *to }));
        let others = stretches.filter(|stretch| !chain.contains(stretch)).filter_map(|stretch| self.path(&stretch)).collect();
        Ok((chain, others))
    }

    /// Every stretch that has a segment, in order.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn stretches(&self) -> Result<Vec<Stretch>> {
        let mut all = Vec::new();
        for name in shards(&self.ledger)? {
            all.extend(self.chain(&name)?.0);
        }
        Ok(all)
    }

    /// A segment: as it is kept, or made from the ledger where it is not kept or is damaged.
    ///
    /// # Errors
    /// `Integrity` where the ledger does not hold the stretch.
    pub fn segment(&self, stretch: &Stretch) -> Result<Opened> {
        if let Some(path) = self.path(stretch)
            && let Ok(file) = File::open(path)
            && let Ok(segment) = Segment::open(file)
            && (segment.from, segment.to) == (stretch.from, stretch.to)
        {
            return Ok(Opened::Kept(segment));
        }
        let bytes = made(&self.ledger, stretch)?;
        Segment::open(bytes).map(Opened::Made)
    }

    /// Adds up what the stretches hold. `after` says, by shard, from which record on events are counted; by default all are. `done` counts
    /// records.
    ///
    /// # Errors
    /// `Integrity` where the ledger or a segment is damaged, `InvalidInput` where a sum needs more than 128 bits.
    pub fn totals(&self, stretches: &[Stretch], mut which: Which, after: &BTreeMap<String, u64>, done: &AtomicU64) -> Result<Totals> {
        which.checked.extend(self.shared_sources(stretches)?);
        // What leads to a traced event is noted in order.
        let cores = if which.trace.is_some() { 1 } else { std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS) };
        let run = stretches.len().div_ceil(cores).max(1);
        if run >= stretches.len() {
            return self.look(stretches, stretches, after, Totals::new(which), Pass::All, done);
        }
        let look = &|run| self.look(run, stretches, after, Totals::new(which.clone()), Pass::Unchecked, done);
        let found: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = stretches.chunks(run).map(|run| scope.spawn(move || look(run))).collect();
            threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
        });
        let mut totals = Totals::new(which);
        for one in found {
            totals.join(one.unwrap_or_else(|_| Err(Error::internal("a thread that added usage up ended before it was done")))?)?;
        }
        if totals.left_out() {
            totals = self.look(stretches, stretches, after, totals, Pass::Checked, &AtomicU64::new(0))?;
        }
        totals.commit(cores);
        Ok(totals)
    }

    /// Adds up what a run of stretches holds, of all that are looked through.
    fn look(
        &self,
        run: &[Stretch],
        all: &[Stretch],
        after: &BTreeMap<String, u64>,
        mut totals: Totals,
        pass: Pass,
        done: &AtomicU64,
    ) -> Result<Totals> {
        let mut shards: Vec<&str> = all.iter().map(|stretch| stretch.shard.as_str()).collect();
        shards.dedup();
        for stretch in run {
            let shard = shards.iter().position(|name| *name == stretch.shard).unwrap_or_default() as u32;
            let from = after.get(&stretch.shard).copied().unwrap_or_default();
            match self.segment(stretch)? {
                Opened::Kept(segment) => totals.take(&segment, shard, from, pass)?,
                Opened::Made(segment) => totals.take(&segment, shard, from, pass)?,
            }
            done.fetch_add(stretch.to - stretch.from, Ordering::Relaxed);
        }
        Ok(totals)
    }

    /// Sources that more than one shard holds events of, and the acts' own: an event of theirs may stand in two places.
    fn shared_sources(&self, stretches: &[Stretch]) -> Result<BTreeSet<String>> {
        let mut shared = BTreeSet::from([LEDGER.to_owned()]);
        if stretches.windows(2).all(|pair| matches!(pair, [one, two] if one.shard == two.shard)) {
            return Ok(shared);
        }
        let mut homes: BTreeMap<String, &str> = BTreeMap::new();
        let mut known: std::collections::HashSet<(Box<str>, &str)> = std::collections::HashSet::new();
        for stretch in stretches {
            let mut note = |series: &str| {
                if known.insert((series.into(), &stretch.shard)) {
                    let source = Series::parse(series)?.source;
                    if *homes.entry(source.clone()).or_insert(&stretch.shard) != stretch.shard {
                        shared.insert(source);
                    }
                }
                Ok(())
            };
            match self.segment(stretch)? {
                Opened::Kept(segment) => segment.groups(|group| note(group.series))?,
                Opened::Made(segment) => segment.groups(|group| note(group.series))?,
            }
        }
        Ok(shared)
    }
}

/// A segment from its file, or made just now.
pub enum Opened {
    /// From its file.
    Kept(Segment<File>),
    /// From the ledger.
    Made(Segment<Vec<u8>>),
}

fn made(ledger: &Path, stretch: &Stretch) -> Result<Vec<u8>> {
    let mut builder = SegmentBuilder::default();
    each_usage(ledger, &stretch.shard, stretch.from, Some(stretch.to), |reading| {
        builder.add(reading.record, &reading.events, &reading.hashes)
    })?;
    builder.build(stretch.from, stretch.to)
}

/// Adds up events in memory, each with its place: shard, record, position.
///
/// # Errors
/// `InvalidInput` where a sum needs more than 128 bits.
pub fn totals_of(events: &BTreeMap<(String, u64, u32), Batch>, which: Which) -> Result<Totals> {
    let mut builders: BTreeMap<&str, SegmentBuilder> = BTreeMap::new();
    for ((shard, record, _), batch) in events {
        builders.entry(shard).or_default().add(*record, batch, &batch.leaf_hashes())?;
    }
    let mut totals = Totals::new(which);
    for (number, (_, builder)) in builders.into_iter().enumerate() {
        totals.take(&Segment::open(builder.build(0, u64::MAX)?)?, number as u32, 0, Pass::All)?;
    }
    Ok(totals)
}
