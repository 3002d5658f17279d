//! Witnesses: someone else who remembers the latest checkpoint of a log and signs only what extends it (C2SP tlog-witness, tlog-cosignature).
//!
//! The witness here keeps one file for each log and does nothing but that; the protocol's HTTP lies outside.

use crate::disk::{Disk, replace};
use crate::merkle::verify_consistency;
use crate::note::{Checkpoint, Line, Note, decimal, key_id, typed_key_id};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use creto_crypto::{Provider, SigningKey};
use creto_enablement_common::sync::Mutex;
use creto_enablement_common::{Algorithm, Digest, Error, ErrorKind, Result, ResultExt};
use sha2::{Digest as _, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const COSIGNATURE: u8 = 4;
const MAX_PROOF: usize = 63;

/// An Ed25519 key of a log (type 1) or a witness (type 4), as `name+id+base64(type || key)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The name that it signs under.
    pub name: String,
    id: [u8; 4],
    kind: u8,
    public: Vec<u8>,
}

impl PublicKey {
    /// Reads a verifier key.
    ///
    /// # Errors
    /// `InvalidInput` where it is no Ed25519 key of a log or a witness, or its id is not its own.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("`{text}` is no verifier key of Ed25519 (name+id+base64)"));
        let mut parts = text.trim().splitn(3, '+');
        let (name, id, key) = (parts.next(), parts.next(), parts.next());
        let (name, id, key) = (name.ok_or_else(wrong)?, id.ok_or_else(wrong)?, key.ok_or_else(wrong)?);
        let bytes = BASE64.decode(key).map_err(|_| wrong())?;
        let (kind, public) = bytes.split_first().ok_or_else(wrong)?;
        let own = typed_key_id(name, &[*kind], public);
        let written = u32::from_str_radix(id, 16).map_err(|_| wrong())?;
        if !matches!(*kind, 1 | COSIGNATURE) || public.len() != 32 || written.to_be_bytes() != own || name.is_empty() {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), id: own, kind: *kind, public: public.to_vec() })
    }

    fn holds(&self, message: &[u8], signature: &[u8]) -> bool {
        Provider::chosen().signing.verifier(Algorithm::Ed25519, &self.public).is_ok_and(|verifier| verifier.verify(message, signature))
    }

    /// When this witness cosigned a checkpoint (seconds since the Unix epoch); none where it has not, or its signature does not hold.
    pub fn cosigned(&self, note: &Note) -> Option<u64> {
        let line = note.lines.iter().find(|line| self.kind == COSIGNATURE && line.name == self.name && line.id == self.id)?;
        let (time, signature) = line.signature.split_first_chunk::<8>()?;
        let time = u64::from_be_bytes(*time);
        self.holds(message(time, &note.text).as_bytes(), signature).then_some(time)
    }

    /// True where this log signed the note.
    pub fn signed(&self, note: &Note) -> bool {
        let lines = note.lines.iter();
        self.kind == 1
            && lines
                .filter(|line| line.name == self.name && line.id == self.id)
                .any(|line| self.holds(note.text.as_bytes(), &line.signature))
    }
}

/// What a cosignature is over.
fn message(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// What a witness answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type.
    pub media: &'static str,
    /// The body.
    pub body: String,
}

fn answer(status: u16, body: impl Into<String>) -> Answer {
    Answer { status, media: "text/plain; charset=utf-8", body: body.into() }
}

/// A witness with its memory.
pub struct Witness {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    name: String,
    key: SigningKey,
    logs: Vec<PublicKey>,
    /// Looking up the latest checkpoint and replacing it are one step.
    one_at_a_time: Mutex<()>,
}

impl Witness {
    /// A witness that remembers in `folder`, signs as `name` and knows these logs.
    pub fn new(disk: Arc<dyn Disk>, folder: &Path, name: &str, key: SigningKey, logs: Vec<PublicKey>) -> Self {
        Self { disk, folder: folder.to_owned(), name: name.to_owned(), key, logs, one_at_a_time: Mutex::new(()) }
    }

    fn public(&self) -> &[u8] {
        self.key.verifying_key().public(Algorithm::Ed25519).unwrap_or_default()
    }

    /// The verifier key under which its cosignatures are checked.
    pub fn verifier_key(&self) -> String {
        let [a, b, c, d] = typed_key_id(&self.name, &[COSIGNATURE], self.public());
        format!("{}+{a:02x}{b:02x}{c:02x}{d:02x}+{}", self.name, BASE64.encode([&[COSIGNATURE], self.public()].concat()))
    }

    fn place(&self, origin: &str) -> PathBuf {
        let name = base16ct::lower::encode_string(&Sha256::digest(origin));
        self.folder.join(name)
    }

    /// The latest checkpoint that it cosigned of a log.
    fn latest(&self, origin: &str) -> Result<Option<Checkpoint>> {
        let path = self.place(origin);
        match self.disk.read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => {
                let bytes = other.context(|| format!("reading `{}`", path.display()))?;
                Checkpoint::parse(&Note::parse(&bytes)?.text).map(Some)
            }
        }
    }

    /// Answers `add-checkpoint`: `now` is in seconds since the Unix epoch.
    ///
    /// # Errors
    /// Those of the file system, on which nothing was cosigned.
    pub fn add_checkpoint(&self, body: &[u8], now: u64) -> Result<Answer> {
        let Some((old, proof, note)) = request(body) else { return Ok(answer(400, "malformed request\n")) };
        let Ok(checkpoint) = Checkpoint::parse(&note.text) else { return Ok(answer(400, "malformed checkpoint\n")) };
        let mut known = self.logs.iter().filter(|log| log.name == checkpoint.origin).peekable();
        if known.peek().is_none() {
            return Ok(answer(404, "unknown log\n"));
        }
        if !known.any(|log| log.signed(&note)) {
            return Ok(answer(403, "not signed by a key of this log\n"));
        }
        if old > checkpoint.size {
            return Ok(answer(400, "the old size is larger than the checkpoint's\n"));
        }
        let _guard = self.one_at_a_time.lock();
        let latest = self.latest(&checkpoint.origin)?;
        let size = latest.as_ref().map_or(0, |latest| latest.size);
        let conflict = || Answer { status: 409, media: "text/x.tlog.size", body: format!("{size}\n") };
        if old != size {
            return Ok(conflict());
        }
        if let Some(latest) = latest {
            if latest.size == checkpoint.size && latest.root != checkpoint.root {
                return Ok(conflict());
            }
            if verify_consistency(latest.size, &latest.root, checkpoint.size, &checkpoint.root, &proof).is_err() {
                return Ok(answer(422, "the consistency proof does not hold\n"));
            }
        } else if !proof.is_empty() {
            return Ok(answer(422, "a proof from nothing is empty\n"));
        }
        let mut signature = now.to_be_bytes().to_vec();
        self.key.sign_with(Algorithm::Ed25519, message(now, &note.text).as_bytes(), &mut signature)?;
        let line = Line { name: self.name.clone(), id: typed_key_id(&self.name, &[COSIGNATURE], self.public()), signature };
        self.disk.make_folder(&self.folder).context(|| format!("making `{}`", self.folder.display()))?;
        // Remembered before it is told, or a crash could let it sign two branches.
        replace(&*self.disk, &self.place(&checkpoint.origin), note.to_text().as_bytes(), true)
            .context(|| "remembering a checkpoint".to_owned())?;
        Ok(answer(200, line.text()))
    }
}

/// Takes the body of `add-checkpoint` apart: the old size, the proof from it, the checkpoint.
fn request(body: &[u8]) -> Option<(u64, Vec<Digest>, Note)> {
    let text = core::str::from_utf8(body).ok()?;
    let (head, note) = text.split_once("\n\n")?;
    let mut lines = head.split('\n');
    let old = decimal(lines.next()?.strip_prefix("old ")?)?;
    let proof: Option<Vec<Digest>> = lines.map(|line| BASE64.decode(line).ok()?.try_into().ok()).collect();
    Some((old, proof.filter(|proof| proof.len() <= MAX_PROOF)?, Note::parse(note.as_bytes()).ok()?))
}

/// The body of `add-checkpoint`.
pub fn request_body(old: u64, proof: &[Digest], note: &Note) -> String {
    let mut out = format!("old {old}\n");
    for hash in proof {
        out.push_str(&BASE64.encode(hash));
        out.push('\n');
    }
    out.push('\n');
    out.push_str(&note.to_text());
    out
}

/// The note with those lines of a witness's answer that hold under its key.
///
/// # Errors
/// `SignatureVerificationFailed` where none does.
pub fn with_cosignature(note: &Note, answer: &str, witness: &PublicKey) -> Result<Note> {
    let mut joined = Note::parse(format!("{}{answer}", note.to_text()).as_bytes())?;
    if witness.cosigned(&joined).is_none() {
        return Err(
            Error::new(ErrorKind::SignatureVerificationFailed).with_context(format!("the cosignature of witness `{}`", witness.name))
        );
    }
    let own = note.lines.len();
    let mut at = 0;
    joined.lines.retain(|line| {
        at += 1;
        at <= own || line.name == witness.name && line.id == witness.id
    });
    Ok(joined)
}

/// The Ed25519 verifier key of a log, for a witness.
pub fn log_key(origin: &str, key: &creto_crypto::VerifyingKey) -> Option<PublicKey> {
    let public = key.public(Algorithm::Ed25519)?;
    Some(PublicKey { name: origin.to_owned(), id: key_id(origin, Algorithm::Ed25519, public), kind: 1, public: public.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Machine;
    use crate::merkle::{Edge, leaf_hash};
    use crate::note;
    use creto_crypto::Suite;

    fn checkpoint(size: u64, what: &str) -> Checkpoint {
        let mut edge = Edge::default();
        (0..size).for_each(|i| edge.push(leaf_hash(format!("{what} {i}").as_bytes())));
        Checkpoint { origin: "log.example/a".into(), size, root: edge.root() }
    }

    #[test]
    fn a_witness_cosigns_what_extends_its_memory_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("creto-witness-{}", std::process::id()));
        let (log, own) = (SigningKey::generate(Suite::Standard).unwrap(), SigningKey::generate(Suite::Standard).unwrap());
        let logs = vec![log_key("log.example/a", log.verifying_key()).unwrap()];
        let open = || Witness::new(Arc::new(Machine), &folder, "witness.example/w", own.clone(), logs.clone());
        let witness = open();
        let public = PublicKey::parse(&witness.verifier_key()).unwrap();
        let signed = |c: &Checkpoint| note::sign(c, &log).unwrap();
        let ask = |old, proof: &[Digest], note: &Note| witness.add_checkpoint(request_body(old, proof, note).as_bytes(), 77).unwrap();
        let two = signed(&checkpoint(2, "x"));
        let cosigned = ask(0, &[], &two);
        assert_eq!(cosigned.status, 200);
        assert_eq!(public.cosigned(&with_cosignature(&two, &cosigned.body, &public).unwrap()), Some(77));
        // The third leaf is all that a proof from two to three leaves needs.
        let three = signed(&checkpoint(3, "x"));
        let proof = [leaf_hash(b"x 2")];
        assert_eq!(ask(0, &[], &three), Answer { status: 409, media: "text/x.tlog.size", body: "2\n".into() });
        assert_eq!(ask(2, &[], &three).status, 422);
        assert_eq!(ask(2, &proof, &signed(&checkpoint(3, "forked"))).status, 422);
        assert_eq!(ask(2, &[], &signed(&checkpoint(2, "forked"))).status, 409);
        assert_eq!(ask(4, &[], &three).status, 400);
        assert_eq!(ask(2, &proof, &note::sign(&checkpoint(3, "x"), &own).unwrap()).status, 403);
        assert_eq!(ask(2, &proof, &note::sign(&Checkpoint { origin: "other".into(), ..checkpoint(3, "x") }, &log).unwrap()).status, 404);
        assert_eq!(ask(2, &proof, &three).status, 200);
        // Its memory is on disk.
        assert_eq!(open().add_checkpoint(request_body(0, &[], &two).as_bytes(), 78).unwrap().body, "3\n");
        assert_eq!(witness.add_checkpoint(b"old 02\n\nx", 1).unwrap().status, 400);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
