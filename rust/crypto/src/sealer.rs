//! Secrets at rest: sealed under a key file of mode 0600, or under a passphrase.
//!
//! A sealed secret carries a salt of its own, so each is encrypted under its own key, and the label under which it was sealed is
//! authenticated: a row of the store cannot be passed off as another.

use crate::{Error, Hash, KemAlgorithm, KemKey, Provider, Secret, SigningKey, Suite};
use argon2::{Algorithm as Argon2Algorithm, Argon2, Params, Version};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use zeroize::{Zeroize as _, Zeroizing};

const MAGIC: &[u8] = b"creto-sealed-1\n";
const SALT: usize = 32;
const NONCE: usize = 12;
const TAG: usize = 16;
const KEY_FILE: &str = "sealing.key";
const PASSPHRASE_FILE: &str = "sealing.passphrase";
/// RFC 9106's second recommended choice: 64 MiB, three passes, four lanes.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;

/// Seals secrets before they are stored, and unseals them.
pub struct Sealer(Secret<32>);

impl core::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// Opens the sealing key of a folder, or makes one; of two processes that make it at once, one wins and the other reads.
    ///
    /// With a passphrase the key is derived from it (Argon2id) and the folder holds the salt and a check value only.
    pub fn open(folder: &Path, passphrase: Option<&[u8]>) -> Result<Self, Error> {
        let key_file = folder.join(KEY_FILE);
        let passphrase_file = folder.join(PASSPHRASE_FILE);
        match passphrase {
            None if passphrase_file.exists() => {
                Err(Error::Malformed(format!("the keys in `{}` are sealed under a passphrase; give it", folder.display())))
            }
            None => Self::from_file(&key_file),
            Some(_) if key_file.exists() => Err(Error::Malformed(format!(
                "the keys in `{}` are sealed under the key file `{KEY_FILE}`; leave the passphrase out, or start with an empty folder",
                folder.display()
            ))),
            Some(passphrase) => Self::from_passphrase(&passphrase_file, passphrase),
        }
    }

    /// From a key that is kept elsewhere, such as an operating system's keyring; the caller wipes its own copy.
    pub fn from_key(key: &[u8]) -> Result<Self, Error> {
        Ok(Self(Secret::copy_from(key)?.kept()))
    }

    /// A sealer that lives in memory only.
    pub fn ephemeral() -> Result<Self, Error> {
        Ok(Self(Secret::random(Provider::chosen())?.kept()))
    }

    fn from_file(path: &Path) -> Result<Self, Error> {
        let mut bytes = match read_private(path)? {
            Some(bytes) => bytes,
            None => {
                let fresh = Secret::<32>::random(Provider::chosen())?;
                create_private(path, fresh.expose())?;
                read_private(path)?.ok_or_else(|| Error::Unavailable(format!("`{}` vanished while it was made", path.display())))?
            }
        };
        let key = Secret::copy_from(&bytes).map_err(|_| Error::Malformed(format!("`{}` does not hold a key of 32 bytes", path.display())));
        bytes.zeroize();
        Ok(Self(key?.kept()))
    }

    fn from_passphrase(path: &Path, passphrase: &[u8]) -> Result<Self, Error> {
        if passphrase.is_empty() {
            return Err(Error::Malformed("the passphrase is empty".into()));
        }
        let provider = Provider::chosen();
        if read_private(path)?.is_none() {
            let salt: [u8; SALT] = provider.nonce()?;
            let key = stretch(passphrase, &salt, MEMORY_KIB, PASSES, LANES)?;
            let check = provider.derivation.expand(Hash::Sha256, &key, &[b"creto passphrase check v1"])?;
            let mut record = Vec::with_capacity(12 + SALT + 32);
            for number in [MEMORY_KIB, PASSES, LANES] {
                record.extend_from_slice(&number.to_be_bytes());
            }
            record.extend_from_slice(&salt);
            record.extend_from_slice(&check);
            create_private(path, &record)?;
        }
        let record = read_private(path)?.ok_or_else(|| Error::Unavailable(format!("`{}` vanished while it was made", path.display())))?;
        let damaged = || Error::Malformed(format!("`{}` is damaged", path.display()));
        let (numbers, rest) = record.split_at_checked(12).ok_or_else(damaged)?;
        let (salt, check) = rest.split_at_checked(SALT).ok_or_else(damaged)?;
        let mut cost = numbers.chunks_exact(4).map(|four| u32::from_be_bytes(four.try_into().unwrap_or_default()));
        let (Some(memory), Some(passes), Some(lanes)) = (cost.next(), cost.next(), cost.next()) else { return Err(damaged()) };
        // A tampered file must not make us spend the machine's memory, nor talk us down to a cheap guess.
        if !(MEMORY_KIB..=1024 * 1024).contains(&memory) || !(PASSES..=64).contains(&passes) || !(1..=16).contains(&lanes) {
            return Err(damaged());
        }
        let key = stretch(passphrase, salt, memory, passes, lanes)?;
        let expected = provider.derivation.expand(Hash::Sha256, &key, &[b"creto passphrase check v1"])?;
        if check.len() != expected.len() || !crate::equal(check, &expected) {
            return Err(Error::Malformed(format!("the passphrase does not open `{}`", path.display())));
        }
        Ok(Self(key.kept()))
    }

    /// Seals bytes under a label.
    pub fn seal(&self, plain: &[u8], label: &str) -> Result<Vec<u8>, Error> {
        let provider = Provider::chosen();
        let salt: [u8; SALT] = provider.nonce()?;
        let nonce: [u8; NONCE] = provider.nonce()?;
        let mut out = Vec::with_capacity(MAGIC.len() + SALT + NONCE + plain.len() + TAG);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&salt);
        out.extend_from_slice(&nonce);
        let head = out.len();
        out.extend_from_slice(plain);
        let tag = provider.symmetric.seal(&self.key_for(&salt)?, &nonce, label.as_bytes(), out.get_mut(head..).unwrap_or_default())?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// Unseals what was sealed under the same label.
    pub fn unseal(&self, sealed: &[u8], label: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        let provider = Provider::chosen();
        let body = sealed.strip_prefix(MAGIC).ok_or_else(|| Error::Malformed("not a sealed secret of this format".into()))?;
        let (salt, body) = body.split_at_checked(SALT).ok_or(Error::Decryption)?;
        let (nonce, body) = body.split_first_chunk::<NONCE>().ok_or(Error::Decryption)?;
        let (body, tag) = body.split_last_chunk::<TAG>().ok_or(Error::Decryption)?;
        let mut plain = Zeroizing::new(body.to_vec());
        provider.symmetric.open(&self.key_for(salt)?, nonce, label.as_bytes(), &mut plain, tag)?;
        Ok(plain)
    }

    /// Seals a signing key.
    pub fn seal_signing_key(&self, key: &SigningKey, label: &str) -> Result<Vec<u8>, Error> {
        let mut plain = Zeroizing::new(Vec::with_capacity(128));
        plain.extend_from_slice(b"signing\n");
        plain.extend_from_slice(key.suite().name().as_bytes());
        plain.push(b'\n');
        key.seeds().for_each(|seed| plain.extend_from_slice(seed.expose()));
        self.seal(&plain, label)
    }

    /// Unseals a signing key.
    pub fn unseal_signing_key(&self, sealed: &[u8], label: &str) -> Result<SigningKey, Error> {
        let plain = self.unseal(sealed, label)?;
        let body = plain.strip_prefix(b"signing\n".as_slice()).ok_or(Error::Decryption)?;
        for suite in Suite::ALL {
            let head = [suite.name().as_bytes(), b"\n"].concat();
            if let Some(seeds) = body.strip_prefix(head.as_slice()) {
                let seeds = seeds.chunks(32).map(Secret::copy_from).collect::<Result<Vec<_>, _>>()?;
                return SigningKey::from_seeds(Provider::chosen(), *suite, seeds);
            }
        }
        Err(Error::Decryption)
    }

    /// Seals a key-encapsulation key.
    pub fn seal_kem_key(&self, key: &KemKey, label: &str) -> Result<Vec<u8>, Error> {
        let mut plain = Zeroizing::new(Vec::with_capacity(128));
        plain.extend_from_slice(b"kem\n");
        plain.extend_from_slice(key.public_key().algorithm().name().as_bytes());
        plain.push(b'\n');
        plain.extend_from_slice(key.seed().expose());
        self.seal(&plain, label)
    }

    /// Unseals a key-encapsulation key.
    pub fn unseal_kem_key(&self, sealed: &[u8], label: &str) -> Result<KemKey, Error> {
        let plain = self.unseal(sealed, label)?;
        let body = plain.strip_prefix(b"kem\n".as_slice()).ok_or(Error::Decryption)?;
        for algorithm in [KemAlgorithm::MlKem768, KemAlgorithm::MlKem1024] {
            let head = [algorithm.name().as_bytes(), b"\n"].concat();
            if let Some(seed) = body.strip_prefix(head.as_slice()) {
                return KemKey::from_seed(Provider::chosen(), algorithm, Secret::copy_from(seed)?);
            }
        }
        Err(Error::Decryption)
    }

    fn key_for(&self, salt: &[u8]) -> Result<Secret<32>, Error> {
        Secret::copy_from(&Zeroizing::new(Provider::chosen().derivation.expand(Hash::Sha256, &self.0, &[b"creto sealed v1", salt])?)[..])
    }
}

fn stretch(passphrase: &[u8], salt: &[u8], memory: u32, passes: u32, lanes: u32) -> Result<Secret<32>, Error> {
    let unusable = |error: argon2::Error| Error::Unavailable(format!("Argon2id failed: {error}"));
    let mut key = Secret::<32>::zero();
    let params = Params::new(memory, passes, lanes, Some(32)).map_err(unusable)?;
    Argon2::new(Argon2Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, key.expose_mut())
        .map_err(unusable)?;
    Ok(key)
}

fn io(path: &Path, doing: &str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::Unavailable(format!("{doing} `{}`: {error}", path.display()))
}

/// Reads a file that only its owner may read; `None` where there is none. Any other mode or owner is refused.
fn read_private(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let mut file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(path, "reading the key file")(error)),
    };
    let meta = file.metadata().map_err(io(path, "reading the key file"))?;
    if !meta.is_file() || meta.mode() & 0o077 != 0 {
        return Err(Error::Malformed(format!(
            "the key file `{}` has mode {:04o}, so others may read it; run `chmod 600` on it, and make new keys if it was ever exposed",
            path.display(),
            meta.mode() & 0o7777
        )));
    }
    let mut bytes = Vec::with_capacity(128);
    (&mut file).take(4096).read_to_end(&mut bytes).map_err(io(path, "reading the key file"))?;
    Ok(Some(bytes))
}

/// Writes a file whole or not at all; where another process was first, its file stays.
fn create_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    if !folder.exists() {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io(folder, "making the key folder"))?;
    }
    let suffix: [u8; 8] = Provider::chosen().nonce()?;
    let temporary = folder.join(format!(".making-{:016x}", u64::from_be_bytes(suffix)));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => File::open(folder)?.sync_all(),
        }
    })();
    let removed = fs::remove_file(&temporary);
    written.and(removed).map_err(io(path, "writing the key file"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("creto-sealer-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn what_is_sealed_opens_under_its_label_only_and_every_flipped_bit_is_refused() {
        let folder = folder("label");
        let sealer = Sealer::open(&folder, None).unwrap();
        let sealed = sealer.seal(b"secret", "agent a").unwrap();
        assert_eq!(&Sealer::open(&folder, None).unwrap().unseal(&sealed, "agent a").unwrap()[..], b"secret");
        assert_eq!(sealer.unseal(&sealed, "agent b").unwrap_err(), Error::Decryption);
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(sealer.unseal(&bad, "agent a").is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(sealer.unseal(&sealed[..length], "agent a").is_err());
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn keys_come_back_the_same() {
        let sealer = Sealer::ephemeral().unwrap();
        for suite in Suite::ALL {
            let key = SigningKey::generate(*suite).unwrap();
            let sealed = sealer.seal_signing_key(&key, "k").unwrap();
            assert_eq!(sealer.unseal_signing_key(&sealed, "k").unwrap().verifying_key(), key.verifying_key());
            let kem = KemKey::generate(suite.kem()).unwrap();
            let sealed_kem = sealer.seal_kem_key(&kem, "k").unwrap();
            assert_eq!(sealer.unseal_kem_key(&sealed_kem, "k").unwrap().public_key().id(), kem.public_key().id());
            assert!(sealer.unseal_kem_key(&sealed, "k").is_err(), "a signing key is not a kem key");
        }
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        let folder = folder("mode");
        Sealer::open(&folder, None).unwrap();
        let path = folder.join(KEY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Sealer::open(&folder, None).unwrap_err().to_string().contains("mode 0640"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_passphrase_opens_its_own_folder_and_a_wrong_one_does_not() {
        let folder = folder("passphrase");
        let sealed = Sealer::open(&folder, Some(b"correct horse")).unwrap().seal(b"x", "l").unwrap();
        assert_eq!(&Sealer::open(&folder, Some(b"correct horse")).unwrap().unseal(&sealed, "l").unwrap()[..], b"x");
        assert!(Sealer::open(&folder, Some(b"wrong")).unwrap_err().to_string().contains("does not open"));
        assert!(Sealer::open(&folder, None).unwrap_err().to_string().contains("passphrase"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn threads_that_make_the_key_file_at_once_agree_on_it() {
        let folder = folder("race");
        let sealed: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| Sealer::open(&folder, None).unwrap().seal(b"x", "l").unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let sealer = Sealer::open(&folder, None).unwrap();
        assert!(sealed.iter().all(|sealed| sealer.unseal(sealed, "l").is_ok()));
        fs::remove_dir_all(folder).unwrap();
    }
}
