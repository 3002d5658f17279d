//! Signed notes (C2SP signed-note) and the checkpoints in them (C2SP tlog-checkpoint).
//!
//! Ed25519 lines are what public clients read. ML-DSA has no assigned type, so its lines use 0xff and a name of ours; others skip them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use creto_crypto::{SigningKey, VerifyingKey};
use creto_enablement_common::{Algorithm, Digest, Error, ErrorKind, Result};
use sha2::{Digest as _, Sha256};

/// The bytes that stand for an algorithm in key ids and verifier keys.
fn type_bytes(algorithm: Algorithm) -> Vec<u8> {
    match algorithm {
        Algorithm::Ed25519 => vec![1],
        other => [&[0xff], b"creto/".as_slice(), other.name().as_bytes(), b"\n"].concat(),
    }
}

/// The 32-bit id of a key under a name.
pub fn key_id(name: &str, algorithm: Algorithm, public: &[u8]) -> [u8; 4] {
    typed_key_id(name, &type_bytes(algorithm), public)
}

/// The 32-bit id of a key under a name, for a type given by its bytes.
pub fn typed_key_id(name: &str, kind: &[u8], public: &[u8]) -> [u8; 4] {
    let digest = Sha256::new().chain_update(name).chain_update(b"\n").chain_update(kind).chain_update(public).finalize();
    let [a, b, c, d, ..] = digest.0;
    [a, b, c, d]
}

/// The verifier key of a public key as text: `name+id+base64(type || key)`.
pub fn verifier_key(name: &str, algorithm: Algorithm, public: &[u8]) -> String {
    let [a, b, c, d] = key_id(name, algorithm, public);
    format!("{name}+{a:02x}{b:02x}{c:02x}{d:02x}+{}", BASE64.encode([&type_bytes(algorithm)[..], public].concat()))
}

/// A size and a root that a log stands by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many records.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Digest,
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root))
    }

    /// Reads the text of a note; lines after the third are extensions, and are passed over.
    ///
    /// # Errors
    /// `InvalidInput` where it is no checkpoint.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| Error::invalid(format!("not a checkpoint: {what}"));
        let mut lines = text.split('\n');
        let origin = lines.next().filter(|origin| !origin.is_empty()).ok_or_else(|| wrong("it names no log"))?;
        let size = lines.next().and_then(decimal).ok_or_else(|| wrong("its second line is no size"))?;
        let root = lines.next().and_then(|line| BASE64.decode(line).ok()).and_then(|root| root.try_into().ok());
        Ok(Self { origin: origin.to_owned(), size, root: root.ok_or_else(|| wrong("its third line is no root"))? })
    }
}

/// A decimal number in its only form.
pub fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The key's name.
    pub name: String,
    /// The key's id.
    pub id: [u8; 4],
    /// The signature.
    pub signature: Vec<u8>,
}

impl Line {
    /// The line as text, with its newline.
    pub fn text(&self) -> String {
        format!("\u{2014} {} {}\n", self.name, BASE64.encode([&self.id[..], &self.signature].concat()))
    }

    fn parse(line: &str) -> Option<Self> {
        let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
        let bytes = BASE64.decode(signature).ok()?;
        let (id, signature) = bytes.split_first_chunk::<4>()?;
        let named = !name.is_empty() && !name.contains('+') && !name.contains(char::is_whitespace) && !signature.is_empty();
        named.then(|| Self { name: name.to_owned(), id: *id, signature: signature.to_vec() })
    }
}

/// A note: its text, and who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What is signed, with its last newline.
    pub text: String,
    /// The signatures, checked or not.
    pub lines: Vec<Line>,
}

/// More than a checkpoint with 16 post-quantum signatures needs.
const MAX_NOTE: usize = 256 * 1024;

impl Note {
    /// Takes a note apart.
    ///
    /// # Errors
    /// `InvalidInput` where it has not the form of a signed note.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |what: &str| Error::invalid(format!("not a signed note: {what}"));
        if bytes.len() > MAX_NOTE {
            return Err(wrong("it is too long"));
        }
        let whole = core::str::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8"))?;
        if whole.bytes().any(|b| b < 0x20 && b != b'\n') {
            return Err(wrong("it has control characters"));
        }
        let at = whole.rfind("\n\n").ok_or_else(|| wrong("no empty line comes before its signatures"))?;
        let (text, lines) = whole.split_at(at + 1);
        let lines = lines.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n')).ok_or_else(|| wrong("it has no signature"))?;
        let lines: Option<Vec<Line>> = lines.split('\n').map(Line::parse).collect();
        Ok(Self { text: text.to_owned(), lines: lines.ok_or_else(|| wrong("a signature line is malformed"))? })
    }

    /// The whole note.
    pub fn to_text(&self) -> String {
        let mut out = format!("{}\n", self.text);
        for line in &self.lines {
            out.push_str(&line.text());
        }
        out
    }

    /// Checks that every key of a set has signed under `name`.
    ///
    /// # Errors
    /// `SignatureVerificationFailed` naming the algorithm whose signature is missing or does not hold.
    pub fn verify(&self, name: &str, keys: &VerifyingKey) -> Result<()> {
        for algorithm in keys.suite().signers() {
            let id = key_id(name, *algorithm, keys.public(*algorithm).unwrap_or_default());
            let holds = self
                .lines
                .iter()
                .find(|line| line.name == name && line.id == id)
                .is_some_and(|line| keys.verify_with(*algorithm, self.text.as_bytes(), &line.signature).is_ok());
            if !holds {
                return Err(
                    Error::new(ErrorKind::SignatureVerificationFailed).with_context(format!("the {algorithm} signature of `{name}`"))
                );
            }
        }
        Ok(())
    }
}

/// Signs a checkpoint with every key of the signer, under the log's own name.
///
/// # Errors
/// The signer's.
pub fn sign(checkpoint: &Checkpoint, signer: &SigningKey) -> Result<Note> {
    let text = checkpoint.text();
    let keys = signer.verifying_key();
    let lines = signer
        .sign(text.as_bytes())?
        .into_iter()
        .map(|made| {
            let public = keys.public(made.algorithm).unwrap_or_default();
            Line { name: checkpoint.origin.clone(), id: key_id(&checkpoint.origin, made.algorithm, public), signature: made.bytes }
        })
        .collect();
    Ok(Note { text, lines })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_the_specification_is_read_and_written_back() {
        let text = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned \u{e8} subito sera.\n\n\u{2014} quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
        let note = Note::parse(text.as_bytes()).unwrap();
        assert_eq!(note.lines[0].name, "quasimodo.example/salvatore");
        assert_eq!(note.to_text(), text);
    }

    #[test]
    fn numbers_have_one_form() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!((decimal("01"), decimal("+1"), decimal("")), (None, None, None));
    }

    proptest! {
        #[test]
        fn random_text_never_panics(text in "[\u{2014}\n a-z+=0-9]{0,200}") {
            if let Ok(note) = Note::parse(text.as_bytes()) {
                let _ = Checkpoint::parse(&note.text);
                prop_assert!(!note.lines.is_empty());
            }
        }

        #[test]
        fn checkpoints_are_read_back(origin in "[a-z./]{1,30}", size: u64, root: [u8; 32]) {
            let checkpoint = Checkpoint { origin, size, root };
            prop_assert_eq!(Checkpoint::parse(&checkpoint.text()).unwrap(), checkpoint);
        }
    }
}
