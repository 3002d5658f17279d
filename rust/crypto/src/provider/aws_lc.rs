//! The primitives of AWS-LC.

use super::{Decapsulator, Derivation, Encapsulator, Kem, Random, Signer, Signing, Symmetric, Verifier};
use crate::provider::derivation::derivation;
use crate::{Algorithm, Error, Hash, KemAlgorithm, Secret};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap};
use aws_lc_rs::signature::{
    ED25519, Ed25519KeyPair, KeyPair, ML_DSA_65, ML_DSA_65_SIGNING, ML_DSA_87, ML_DSA_87_SIGNING, ParsedPublicKey, PqdsaKeyPair,
};
use aws_lc_rs::{digest, hkdf, hmac, kem, rand};

pub struct AwsLc;

fn broken(what: &'static str) -> impl Fn(aws_lc_rs::error::Unspecified) -> Error {
    move |_| Error::Unavailable(format!("aws-lc failed: {what}"))
}

struct Ed25519(Ed25519KeyPair);

impl Signer for Ed25519 {
    fn sign_into(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(self.0.try_sign(message).map_err(broken("signing with Ed25519"))?.as_ref());
        Ok(())
    }

    fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }
}

struct MlDsa(PqdsaKeyPair);

impl Signer for MlDsa {
    fn sign_into(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let start = out.len();
        out.resize(start + self.0.algorithm().signature_len(), 0);
        let room = out.get_mut(start..).unwrap_or_default();
        self.0.sign(message, room).map_err(broken("signing with ML-DSA"))?;
        Ok(())
    }

    fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }
}

impl Verifier for ParsedPublicKey {
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.verify_sig(message, signature).is_ok()
    }
}

impl Signing for AwsLc {
    fn signer(&self, algorithm: Algorithm, seed: &Secret<32>) -> Result<Box<dyn Signer>, Error> {
        let rejected = |_| Error::Malformed(format!("the seed is not one of {algorithm}"));
        Ok(match algorithm {
            Algorithm::Ed25519 => Box::new(Ed25519(Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(rejected)?)),
            Algorithm::MlDsa65 => Box::new(MlDsa(PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, seed.expose()).map_err(rejected)?)),
            Algorithm::MlDsa87 => Box::new(MlDsa(PqdsaKeyPair::from_seed(&ML_DSA_87_SIGNING, seed.expose()).map_err(rejected)?)),
        })
    }

    fn verifier(&self, algorithm: Algorithm, public: &[u8]) -> Result<Box<dyn Verifier>, Error> {
        let rejected = |_| Error::Malformed(format!("the public key is not one of {algorithm}"));
        if public.len() != algorithm.public_len() {
            return Err(Error::Malformed(format!(
                "a public key of {} bytes where {algorithm} has {}",
                public.len(),
                algorithm.public_len()
            )));
        }
        Ok(Box::new(match algorithm {
            Algorithm::Ed25519 => ParsedPublicKey::new(&ED25519, public).map_err(rejected)?,
            Algorithm::MlDsa65 => ParsedPublicKey::new(&ML_DSA_65, public).map_err(rejected)?,
            Algorithm::MlDsa87 => ParsedPublicKey::new(&ML_DSA_87, public).map_err(rejected)?,
        }))
    }
}

fn kem_algorithm(algorithm: KemAlgorithm) -> &'static kem::Algorithm {
    match algorithm {
        KemAlgorithm::MlKem768 => &kem::ML_KEM_768,
        KemAlgorithm::MlKem1024 => &kem::ML_KEM_1024,
    }
}

struct KemSecret {
    key: kem::DecapsulationKey,
    public: Box<[u8]>,
    ciphertext_len: usize,
}

impl Decapsulator for KemSecret {
    fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret<32>, Error> {
        if ciphertext.len() != self.ciphertext_len {
            return Err(Error::Decryption);
        }
        Secret::copy_from(self.key.decapsulate(ciphertext.into()).map_err(|_| Error::Decryption)?.as_ref())
    }

    fn public(&self) -> &[u8] {
        &self.public
    }
}

struct KemPublic(kem::EncapsulationKey);

impl Encapsulator for KemPublic {
    fn encapsulate_into(&self, out: &mut Vec<u8>) -> Result<Secret<32>, Error> {
        let (ciphertext, secret) = self.0.encapsulate().map_err(broken("encapsulating"))?;
        out.extend_from_slice(ciphertext.as_ref());
        Secret::copy_from(secret.as_ref())
    }
}

impl Kem for AwsLc {
    fn decapsulator(&self, algorithm: KemAlgorithm, seed: &Secret<64>) -> Result<Box<dyn Decapsulator>, Error> {
        // aws-lc-rs takes expanded keys only, so the expansion of FIPS 203 is done by the other library; the bytes are the standard's.
        let expanded = super::rustcrypto::expand_kem(algorithm, seed);
        let key = kem::DecapsulationKey::new(kem_algorithm(algorithm), &expanded.secret)
            .map_err(|_| Error::Malformed(format!("the seed is not one of {}", algorithm.name())))?;
        Ok(Box::new(KemSecret { key, public: expanded.public, ciphertext_len: algorithm.ciphertext_len() }))
    }

    fn encapsulator(&self, algorithm: KemAlgorithm, public: &[u8]) -> Result<Box<dyn Encapsulator>, Error> {
        // aws-lc-rs checks the length only; FIPS 203 asks for the modulus check too, before the key is first used.
        super::rustcrypto::check_kem_public(algorithm, public)?;
        let key = kem::EncapsulationKey::new(kem_algorithm(algorithm), public)
            .map_err(|_| Error::Malformed(format!("the public key is not one of {}", algorithm.name())))?;
        Ok(Box::new(KemPublic(key)))
    }
}

fn aes(key: &Secret<32>) -> Result<LessSafeKey, Error> {
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).map_err(broken("setting an AES key"))?))
}

impl Symmetric for AwsLc {
    fn seal(&self, key: &Secret<32>, nonce: &[u8; 12], aad: &[u8], in_out: &mut [u8]) -> Result<[u8; 16], Error> {
        let tag = aes(key)?
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), in_out)
            .map_err(broken("sealing"))?;
        tag.as_ref().try_into().map_err(|_| Error::Unavailable("aws-lc failed: a tag of another length".into()))
    }

    fn open(&self, key: &Secret<32>, nonce: &[u8; 12], aad: &[u8], in_out: &mut [u8], tag: &[u8; 16]) -> Result<(), Error> {
        aes(key)?
            .open_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), tag, in_out)
            .map(|_| ())
            .map_err(|_| Error::Decryption)
    }

    fn wrap(&self, kek: &Secret<32>, key: &Secret<32>) -> Result<[u8; 40], Error> {
        let mut out = [0; 40];
        let kek = AesKek::new(&AES_256, kek.expose()).map_err(broken("setting a wrapping key"))?;
        kek.wrap(key.expose(), &mut out).map_err(broken("wrapping a key"))?;
        Ok(out)
    }

    fn unwrap(&self, kek: &Secret<32>, wrapped: &[u8; 40]) -> Result<Secret<32>, Error> {
        let mut key = Secret::zero();
        let kek = AesKek::new(&AES_256, kek.expose()).map_err(broken("setting a wrapping key"))?;
        kek.unwrap(wrapped, key.expose_mut()).map_err(|_| Error::Decryption)?;
        Ok(key)
    }
}

derivation!(AwsLc);

impl Random for AwsLc {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        rand::fill(out).map_err(broken("asking for random bytes"))
    }
}
