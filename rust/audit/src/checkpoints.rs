//! Signs checkpoints and puts them where readers look, on a thread of its own: a signature and two syncs take longer than a write.

use crate::disk::{self, Disk};
use crate::note::{self, Checkpoint};
use crate::patience::keep_trying;
use crate::publisher::Published;
use crate::queue::{Queue, Stop};
use creto_crypto::SigningKey;
use creto_enablement_common::{Result, ResultExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// The name of the checkpoint in a shard.
pub const CHECKPOINT: &str = "checkpoint";

/// The signer's own state; lives on its thread.
pub struct Checkpoints {
    pub disk: Arc<dyn Disk>,
    pub shard: PathBuf,
    pub signer: SigningKey,
    pub queue: Arc<Queue>,
    pub published: Arc<Published>,
    /// In order of size; the tiles of each are written.
    pub work: Receiver<Checkpoint>,
}

impl Checkpoints {
    /// Works until nothing can come any more, or a checkpoint cannot be written for good.
    pub fn run(self) {
        while let Ok(checkpoint) = self.work.recv() {
            if let Err(error) = keep_trying(&self.queue, || self.write(&checkpoint)) {
                self.queue.stop(Stop::of(&error));
                break;
            }
            self.published.set(checkpoint.size);
        }
        self.published.end();
    }

    fn write(&self, checkpoint: &Checkpoint) -> Result<()> {
        let note = note::sign(checkpoint, &self.signer).context(|| "signing a checkpoint".into())?;
        let path = self.shard.join(CHECKPOINT);
        disk::replace(&*self.disk, &path, note.to_text().as_bytes(), true).context(|| format!("writing `{}`", path.display()))
    }
}
