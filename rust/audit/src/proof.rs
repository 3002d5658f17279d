//! A proof that stands by itself: C2SP tlog-proof, the record's place, the path to the root, and the signed checkpoint.

use crate::merkle::{leaf_hash, root_from_inclusion};
use crate::note::{Checkpoint, Note, decimal};
use crate::reader::{Shard, View};
use crate::tile::WIDTH;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use creto_crypto::VerifyingKey;
use creto_enablement_common::{Digest, Error, ErrorKind, Result};

const FIRST: &str = "c2sp.org/tlog-proof@v1";

/// That a record is in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The record's place.
    pub index: u64,
    /// Hashes from the leaf's sibling to the root's child.
    pub path: Vec<Digest>,
    /// The signed checkpoint.
    pub note: Note,
}

impl Proof {
    /// Proves that a record is in a shard, by its latest checkpoint. Upper tiles are kept from one proof of the same `Shard` to the next.
    ///
    /// # Errors
    /// `NotFound` where no checkpoint covers the record yet, `Integrity` where the tiles do not lead to the checkpoint's root.
    pub fn make(shard: &Shard, index: u64) -> Result<Self> {
        let none = || Error::new(ErrorKind::NotFound).with_context(format!("a checkpoint over record {index} of shard `{}`", shard.name()));
        let (note, checkpoint) = shard.checkpoint()?.filter(|(_, checkpoint)| checkpoint.size > index).ok_or_else(none)?;
        let lead = |view: View<'_>| -> Result<Vec<Digest>> {
            let path = view.inclusion(index)?;
            let leaf = view.tile(0, index / WIDTH)?.hashes().get((index % WIDTH) as usize).copied();
            match leaf.map(|leaf| root_from_inclusion(leaf, index, checkpoint.size, &path)) {
                Some(Ok(root)) if root == checkpoint.root => Ok(path),
                _ => Err(Error::new(ErrorKind::Integrity).with_context(format!(
                    "the tiles of shard `{}` do not lead from record {index} to the root of its checkpoint over {} records",
                    shard.name(),
                    checkpoint.size
                ))),
            }
        };
        // What was kept may be of files that others have taken the place of.
        let path = lead(shard.keeping(checkpoint.size, false)).or_else(|_| lead(shard.keeping(checkpoint.size, true)))?;
        Ok(Self { index, path, note })
    }

    /// Checks that `entry` is in the log that the checkpoint is of, and that the checkpoint is signed by `keys`.
    ///
    /// # Errors
    /// `Integrity` or `SignatureVerificationFailed`.
    pub fn verify(&self, entry: &[u8], keys: &VerifyingKey) -> Result<Checkpoint> {
        let checkpoint = Checkpoint::parse(&self.note.text)?;
        self.note.verify(&checkpoint.origin, keys)?;
        if root_from_inclusion(leaf_hash(entry), self.index, checkpoint.size, &self.path)? == checkpoint.root {
            return Ok(checkpoint);
        }
        let what = format!("the proof does not lead from the record to the root of `{}`", checkpoint.origin);
        Err(Error::new(ErrorKind::Integrity).with_context(what))
    }

    /// The proof as text.
    pub fn to_text(&self) -> String {
        let mut out = format!("{FIRST}\nindex {}\n", self.index);
        for hash in &self.path {
            out.push_str(&BASE64.encode(hash));
            out.push('\n');
        }
        out.push('\n');
        out.push_str(&self.note.to_text());
        out
    }

    /// Reads what `to_text` wrote; an `extra` line is passed over.
    ///
    /// # Errors
    /// `InvalidInput` where it has another form.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::invalid("not a proof of inclusion (C2SP tlog-proof)");
        let (head, note) = text.split_once("\n\n").ok_or_else(wrong)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(FIRST) {
            return Err(wrong());
        }
        lines.next_if(|line| line.starts_with("extra "));
        let index = lines.next().and_then(|line| decimal(line.strip_prefix("index ")?)).ok_or_else(wrong)?;
        let path: Option<Vec<Digest>> = lines.map(|line| BASE64.decode(line).ok()?.try_into().ok()).collect();
        Ok(Self { index, path: path.filter(|path| path.len() <= 64).ok_or_else(wrong)?, note: Note::parse(note.as_bytes())? })
    }
}
