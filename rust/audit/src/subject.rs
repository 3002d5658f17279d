//! Personal data in records: encrypted under a key of the person it is about, which can be erased. The record stays, and its proof; what it said
//! about that person is gone from every copy, since no copy ever held it in the clear.
//!
//! Each subject's key lies in a file of its own, sealed; its name is a keyed hash, so that neither records nor folders name the person.

use crate::disk::{Machine, replace};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use creto_crypto::{Hash, Provider, Sealer, Secret};
use creto_enablement_common::{Error, ErrorKind, Result, ResultExt};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const NAMES: &str = "names.sealed";
const GONE: &[u8] = b"erased";

/// The keys of a state folder's subjects.
pub struct Subjects {
    folder: PathBuf,
    names: Secret<32>,
}

/// Makes a file that is whole and durable from the first moment; where another process made it first, that one stays.
fn place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unique: [u8; 8] = Provider::chosen().nonce().map_err(io::Error::other)?;
    let new = path.with_extension(format!("{:016x}", u64::from_le_bytes(unique)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let placed = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| match fs::hard_link(&new, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    fs::remove_file(&new)?;
    placed?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn is_pseudonym(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Subjects {
    /// Opens the folder of subject keys, made where it is missing.
    ///
    /// # Errors
    /// `EncryptionFailed` where another sealer sealed it, and those of the file system.
    pub fn open(folder: &Path, sealer: &Sealer) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).context(|| format!("making `{}`", folder.display()))?;
        let path = folder.join(NAMES);
        if !path.exists() {
            // First its own name: whoever finds the key of names here may rely on the folder.
            let above = folder.parent().map_or(Ok(()), |above| File::open(above)?.sync_all());
            above.context(|| format!("making `{}` durable", folder.display()))?;
            let sealed = sealer.seal(Secret::<32>::random(Provider::chosen())?.expose(), "subject names")?;
            place(&path, &sealed).context(|| format!("writing `{}`", path.display()))?;
        }
        let sealed = fs::read(&path).context(|| format!("reading `{}`", path.display()))?;
        Ok(Self { folder: folder.to_owned(), names: Secret::copy_from(&sealer.unseal(&sealed, "subject names")?)? })
    }

    /// The name that stands in records for a subject.
    ///
    /// # Errors
    /// The provider's.
    pub fn pseudonym(&self, subject: &str) -> Result<String> {
        let hash = Provider::chosen().derivation.expand(Hash::Sha256, &self.names, &[b"creto subject v1", subject.as_bytes()])?;
        Ok(base16ct::lower::encode_string(hash.get(..16).unwrap_or(&hash)))
    }

    fn key(&self, sealer: &Sealer, pseudonym: &str, make: bool) -> Result<Secret<32>> {
        let path = self.folder.join(pseudonym);
        if make && !path.exists() {
            let sealed = sealer.seal(Secret::<32>::random(Provider::chosen())?.expose(), pseudonym)?;
            place(&path, &sealed).context(|| "keeping a subject's key".to_owned())?;
        }
        match fs::read(&path) {
            Ok(sealed) if sealed == GONE => Err(Error::new(ErrorKind::NotFound).with_context("what is known of this subject was erased")),
            Ok(sealed) => Ok(Secret::copy_from(&sealer.unseal(&sealed, pseudonym)?)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(Error::new(ErrorKind::NotFound).with_context("nothing is known of this subject"))
            }
            Err(e) => Err(Error::from(e).with_context("reading a subject's key")),
        }
    }

    /// Encrypts what a record says about a subject; `record` (its id) is bound to it. Returns the pseudonym and the text for the record.
    ///
    /// # Errors
    /// `NotFound` where the subject was erased: nothing new is kept of it.
    pub fn seal(&self, sealer: &Sealer, subject: &str, record: &[u8; 16], plain: &[u8]) -> Result<(String, String)> {
        let pseudonym = self.pseudonym(subject)?;
        let key = self.key(sealer, &pseudonym, true)?;
        let provider = Provider::chosen();
        let nonce: [u8; 12] = provider.nonce()?;
        let mut bytes = plain.to_vec();
        let tag = provider.symmetric.seal(&key, &nonce, record, &mut bytes)?;
        Ok((pseudonym, BASE64.encode([&nonce[..], &bytes, &tag].concat())))
    }

    /// Reads what `seal` wrote.
    ///
    /// # Errors
    /// `NotFound` where the subject was erased, `EncryptionFailed` where the text is another record's, or damaged.
    pub fn open_text(&self, sealer: &Sealer, subject: &str, record: &[u8; 16], text: &str) -> Result<Vec<u8>> {
        let key = self.key(sealer, &self.pseudonym(subject)?, false)?;
        let damaged = || Error::new(ErrorKind::EncryptionFailed).with_context("personal data of a record");
        let bytes = BASE64.decode(text).map_err(|_| damaged())?;
        let (nonce, rest) = bytes.split_first_chunk::<12>().ok_or_else(damaged)?;
        let (body, tag) = rest.split_last_chunk::<16>().ok_or_else(damaged)?;
        let mut plain = body.to_vec();
        Provider::chosen().symmetric.open(&key, nonce, record, &mut plain, tag).map_err(|e| damaged().with_source(e))?;
        Ok(plain)
    }

    /// Erases a subject's key: all that records say about it in every copy is unreadable from now on. False where it was erased before, or never known.
    ///
    /// # Errors
    /// Those of the file system: the key may still be there.
    pub fn erase(&self, subject: &str) -> Result<bool> {
        self.erase_pseudonym(&self.pseudonym(subject)?)
    }

    /// The subjects whose keys are there, by pseudonym, each with when its key was made.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn kept(&self) -> Result<Vec<(String, SystemTime)>> {
        let mut kept = Vec::new();
        let listed = (|| {
            for entry in fs::read_dir(&self.folder)? {
                let entry = entry?;
                let Some(name) = entry.file_name().to_str().filter(|name| is_pseudonym(name)).map(str::to_owned) else { continue };
                let about = entry.metadata()?;
                if about.len() != GONE.len() as u64 {
                    kept.push((name, about.modified()?));
                }
            }
            io::Result::Ok(())
        })();
        listed.context(|| format!("listing `{}`", self.folder.display()))?;
        kept.sort_unstable();
        Ok(kept)
    }

    /// As `erase`, for whoever knows the pseudonym only.
    ///
    /// # Errors
    /// Those of the file system: the key may still be there. `InvalidInput` where it is no pseudonym.
    pub fn erase_pseudonym(&self, pseudonym: &str) -> Result<bool> {
        if !is_pseudonym(pseudonym) {
            return Err(Error::invalid(format!("`{pseudonym}` is no pseudonym of a subject: 32 hexadecimal digits")));
        }
        let path = self.folder.join(pseudonym);
        let old = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.context(|| "reading a subject's key".to_owned())?,
        };
        if old == GONE {
            return Ok(false);
        }
        let erased = (|| {
            // Over the key itself first: a new file in its place would leave the old bytes on the disk.
            let file = OpenOptions::new().write(true).open(&path)?;
            file.write_all_at(&vec![0; old.len()], 0)?;
            file.sync_all()?;
            replace(&Machine, &path, GONE, true)
        })();
        erased.context(|| "erasing a subject's key".to_owned())?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_of_a_subject_is_readable_until_its_key_is_erased_and_never_again() {
        let folder = std::env::temp_dir().join(format!("creto-subjects-{}", std::process::id()));
        let sealer = Sealer::ephemeral().unwrap();
        let subjects = Subjects::open(&folder, &sealer).unwrap();
        let (pseudonym, text) = subjects.seal(&sealer, "ann@example.org", &[1; 16], b"born 1970").unwrap();
        assert_eq!(subjects.open_text(&sealer, "ann@example.org", &[1; 16], &text).unwrap(), b"born 1970");
        assert_eq!(subjects.open_text(&sealer, "ann@example.org", &[2; 16], &text).unwrap_err().kind(), &ErrorKind::EncryptionFailed);
        assert_eq!(subjects.open_text(&sealer, "bob@example.org", &[1; 16], &text).unwrap_err().kind(), &ErrorKind::NotFound);
        let sealed = std::fs::read(folder.join(&pseudonym)).unwrap();
        assert_eq!(subjects.kept().unwrap().iter().map(|(name, _)| name).collect::<Vec<_>>(), [&pseudonym]);
        assert!(subjects.erase_pseudonym("../names").unwrap_err().to_string().contains("`../names` is no pseudonym of a subject"));
        assert!(subjects.erase("ann@example.org").unwrap());
        assert!(!subjects.erase("ann@example.org").unwrap());
        assert!(!subjects.erase("bob@example.org").unwrap());
        assert!(!subjects.erase_pseudonym(&pseudonym).unwrap());
        assert!(subjects.kept().unwrap().is_empty());
        assert_eq!(subjects.open_text(&sealer, "ann@example.org", &[1; 16], &text).unwrap_err().kind(), &ErrorKind::NotFound);
        assert_eq!(subjects.seal(&sealer, "ann@example.org", &[3; 16], b"again").unwrap_err().kind(), &ErrorKind::NotFound);
        for file in std::fs::read_dir(&folder).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(16).any(|w| w == &sealed[sealed.len() - 16..]));
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
