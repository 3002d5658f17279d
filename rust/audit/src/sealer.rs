//! Makes tiles durable and lets go of the segments behind them, on a thread of its own: tiles derive from segments, so nobody waits for it.

use crate::disk::{self, Disk};
use crate::patience::keep_trying;
use crate::publisher::Published;
use crate::queue::{Queue, Stop};
use crate::reserve::Segments;
use crate::sealed;
use crate::segment;
use creto_enablement_common::sync::{Condvar, Mutex};
use creto_enablement_common::{Digest, Result, ResultExt};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// From so many files on, one sync of the whole file system costs less than one of each. (Tests have few files and want both ways.)
const MANY: usize = if cfg!(test) { 8 } else { 48 };

/// How long to wait for a checkpoint over what was sealed; what is not let go then is with the next seal.
const SIGNED: Duration = Duration::from_secs(1);

/// A tree whose tiles are written and are to be made durable.
pub struct Job {
    pub size: u64,
    pub root: Digest,
    /// What was written since the last one.
    pub files: BTreeSet<PathBuf>,
}

/// How far sealing has come.
#[derive(Default)]
struct Progress {
    sealed: Mutex<(Option<u64>, bool)>,
    changed: Condvar,
}

/// The publisher's end.
pub struct Seals {
    jobs: SyncSender<Job>,
    progress: Arc<Progress>,
    under_way: bool,
}

impl Seals {
    /// Begins to seal; only where nothing is being sealed.
    pub fn begin(&mut self, job: Job) {
        // Where the sealer has ended, the queue says why.
        self.under_way = self.jobs.send(job).is_ok();
    }

    /// True while something is being sealed.
    pub const fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// The size that has been sealed, once it is.
    pub fn done(&mut self) -> Option<u64> {
        let mut sealed = self.progress.sealed.lock();
        let size = sealed.0.take();
        if size.is_some() || sealed.1 {
            self.under_way = false;
        }
        size
    }

    /// Waits for that; none where sealing has failed or nothing is being sealed.
    pub fn wait(&mut self) -> Option<u64> {
        if !self.under_way {
            return None;
        }
        let mut sealed = self.progress.sealed.lock();
        while sealed.0.is_none() && !sealed.1 {
            self.progress.changed.wait(&mut sealed);
        }
        drop(sealed);
        self.done()
    }
}

/// The sealer's own state; lives on its thread.
pub struct Sealer {
    disk: Arc<dyn Disk>,
    shard: PathBuf,
    queue: Arc<Queue>,
    published: Arc<Published>,
    segments: Arc<Segments>,
    jobs: Receiver<Job>,
    progress: Arc<Progress>,
    /// Syncs the whole file system; held from the beginning, so that no error of a write escapes it.
    whole: Box<dyn disk::Whole>,
}

impl Sealer {
    /// The two ends.
    pub fn new(
        disk: &Arc<dyn Disk>,
        shard: &Path,
        queue: &Arc<Queue>,
        published: &Arc<Published>,
        segments: &Arc<Segments>,
    ) -> Result<(Self, Seals)> {
        let (sender, jobs) = sync_channel(1);
        let progress = Arc::new(Progress::default());
        let seals = Seals { jobs: sender, progress: Arc::clone(&progress), under_way: false };
        let whole = disk.whole(shard).context(|| format!("opening `{}`", shard.display()))?;
        let (disk, queue, published) = (Arc::clone(disk), Arc::clone(queue), Arc::clone(published));
        Ok((Self { disk, shard: shard.to_owned(), queue, published, segments: Arc::clone(segments), jobs, progress, whole }, seals))
    }

    /// Works until nothing can come any more, or something fails for good.
    pub fn run(self) {
        while let Ok(job) = self.jobs.recv() {
            if let Err(error) = keep_trying(&self.queue, || self.seal(&job)) {
                self.queue.stop(Stop::of(&error));
                break;
            }
            self.progress.sealed.lock().0 = Some(job.size);
            self.progress.changed.notify_all();
            self.queue.shows_life();
        }
        self.progress.sealed.lock().1 = true;
        self.progress.changed.notify_all();
    }

    fn seal(&self, job: &Job) -> Result<()> {
        if job.files.len() >= MANY {
            self.whole.sync().context(|| format!("syncing the file system of `{}`", self.shard.display()))?;
        } else {
            self.sync_each(&job.files)?;
        }
        sealed::write(&*self.disk, &self.shard, job.size, &job.root)?;
        // A reader that has the published checkpoint finds what lies behind it in segments; the one over this size is being signed.
        self.published.wait(job.size, SIGNED);
        self.let_go(job.size.min(self.published.size()))
    }

    /// Returns once these files are on disk, names and all.
    fn sync_each(&self, files: &BTreeSet<PathBuf>) -> Result<()> {
        let mut folders = BTreeSet::new();
        for path in files {
            match self.disk.open(path, false) {
                // A partial tile that its full tile has replaced in the meantime.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.and_then(|file| file.sync()).context(|| format!("syncing `{}`", path.display()))?,
            }
            let mut folder = path.parent();
            while let Some(parent) = folder.filter(|parent| parent.starts_with(&self.shard)) {
                if !folders.insert(parent) {
                    break;
                }
                folder = parent.parent();
            }
        }
        for folder in folders.iter().rev() {
            match self.disk.sync_folder(folder) {
                // That of partial tiles, gone with the last of them; the removal is in the folder above, which is synced as well.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.context(|| format!("syncing `{}`", folder.display()))?,
            }
        }
        Ok(())
    }

    /// Removes the segments all of whose records are among the first `covered`.
    fn let_go(&self, covered: u64) -> Result<()> {
        let segments = segment::all(&*self.disk, &self.shard)?;
        for (first, next) in segments.iter().zip(segments.iter().skip(1)) {
            if *next > covered {
                break;
            }
            self.segments.let_go(&*self.disk, &segment::path(&self.shard, *first))?;
        }
        Ok(())
    }
}
