//! The primitives of ring and of the RustCrypto crates.

use super::{Decapsulator, Derivation, Encapsulator, Kem, Random, Signer, Signing, Symmetric, Verifier};
use crate::provider::derivation::derivation;
use crate::{Algorithm, Error, Hash, KemAlgorithm, Secret};
use aes_kw::KeyInit as _;
use ml_dsa::{EncodedVerifyingKey, ExpandedSigningKey, MlDsa65, MlDsa87, MlDsaParams, Seed, Signature, SigningKey, VerifyingKey};
use ml_kem::{Decapsulate as _, DecapsulationKey, EncapsulationKey, KeyExport as _, MlKem768, MlKem1024};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, VerificationAlgorithm as _};
use ring::{digest, hkdf, hmac};
use zeroize::{Zeroize as _, Zeroizing};

pub struct RustCrypto;

fn broken(what: &'static str) -> impl Fn(ring::error::Unspecified) -> Error {
    move |_| Error::Unavailable(format!("ring failed: {what}"))
}

struct Ed25519(Ed25519KeyPair);

impl Signer for Ed25519 {
    fn sign_into(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(self.0.sign(message).as_ref());
        Ok(())
    }

    fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }
}

struct Ed25519Public([u8; 32]);

impl Verifier for Ed25519Public {
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        ED25519.verify(self.0.as_slice().into(), message.into(), signature.into()).is_ok()
    }
}

struct MlDsa<P: MlDsaParams> {
    key: ExpandedSigningKey<P>,
    public: Box<[u8]>,
}

impl<P: MlDsaParams> MlDsa<P> {
    fn new(seed: &Secret<32>) -> Self {
        let mut bytes: Seed = (*seed.expose()).into();
        let key = SigningKey::<P>::from_seed(&bytes);
        bytes.zeroize();
        let public = key.expanded_key().verifying_key().encode().as_slice().into();
        Self { key: key.expanded_key().clone(), public }
    }
}

impl<P: MlDsaParams + Send + Sync> Signer for MlDsa<P>
where
    ExpandedSigningKey<P>: Send + Sync,
{
    fn sign_into(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        // Hedged, as FIPS 204 prefers; an empty context, which is the prefix 0x00 0x00 of the pure variant.
        let mut hedge = ml_dsa::B32::default();
        RustCrypto.fill(&mut hedge)?;
        out.extend_from_slice(self.key.sign_internal(&[&[0, 0], message], &hedge).encode().as_slice());
        hedge.zeroize();
        Ok(())
    }

    fn public(&self) -> &[u8] {
        &self.public
    }
}

struct MlDsaPublic<P: MlDsaParams>(VerifyingKey<P>);

impl<P: MlDsaParams> MlDsaPublic<P> {
    fn new(public: &[u8]) -> Result<Self, Error> {
        let encoded =
            EncodedVerifyingKey::<P>::try_from(public).map_err(|_| Error::Malformed("the ML-DSA public key has another length".into()))?;
        Ok(Self(VerifyingKey::decode(&encoded)))
    }
}

impl<P: MlDsaParams> Verifier for MlDsaPublic<P>
where
    VerifyingKey<P>: Send + Sync,
{
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::<P>::try_from(signature).is_ok_and(|signature| self.0.verify_with_context(message, &[], &signature))
    }
}

impl Signing for RustCrypto {
    fn signer(&self, algorithm: Algorithm, seed: &Secret<32>) -> Result<Box<dyn Signer>, Error> {
        Ok(match algorithm {
            Algorithm::Ed25519 => Box::new(Ed25519(
                Ed25519KeyPair::from_seed_unchecked(seed.expose())
                    .map_err(|_| Error::Malformed("the seed is not one of Ed25519".into()))?,
            )),
            Algorithm::MlDsa65 => Box::new(MlDsa::<MlDsa65>::new(seed)),
            Algorithm::MlDsa87 => Box::new(MlDsa::<MlDsa87>::new(seed)),
        })
    }

    fn verifier(&self, algorithm: Algorithm, public: &[u8]) -> Result<Box<dyn Verifier>, Error> {
        if public.len() != algorithm.public_len() {
            return Err(Error::Malformed(format!(
                "a public key of {} bytes where {algorithm} has {}",
                public.len(),
                algorithm.public_len()
            )));
        }
        Ok(match algorithm {
            Algorithm::Ed25519 => Box::new(Ed25519Public(
                public.try_into().map_err(|_| Error::Malformed("the Ed25519 public key has another length".into()))?,
            )),
            Algorithm::MlDsa65 => Box::new(MlDsaPublic::<MlDsa65>::new(public)?),
            Algorithm::MlDsa87 => Box::new(MlDsaPublic::<MlDsa87>::new(public)?),
        })
    }
}

/// A decapsulation key in the standard's expanded form, with its public key.
pub struct ExpandedKem {
    pub secret: Zeroizing<Box<[u8]>>,
    pub public: Box<[u8]>,
}

/// Expands a seed as FIPS 203 does.
#[expect(deprecated, reason = "aws-lc-rs takes the expanded form only")]
pub fn expand_kem(algorithm: KemAlgorithm, seed: &Secret<64>) -> ExpandedKem {
    use ml_kem::ExpandedKeyEncoding as _;
    let mut bytes: ml_kem::Seed = (*seed.expose()).into();
    let expanded = match algorithm {
        KemAlgorithm::MlKem768 => {
            let key = DecapsulationKey::<MlKem768>::from_seed(bytes);
            ExpandedKem {
                secret: Zeroizing::new(key.to_expanded_bytes().as_slice().into()),
                public: key.encapsulation_key().to_bytes().as_slice().into(),
            }
        }
        KemAlgorithm::MlKem1024 => {
            let key = DecapsulationKey::<MlKem1024>::from_seed(bytes);
            ExpandedKem {
                secret: Zeroizing::new(key.to_expanded_bytes().as_slice().into()),
                public: key.encapsulation_key().to_bytes().as_slice().into(),
            }
        }
    };
    bytes.zeroize();
    expanded
}

/// The input check of FIPS 203, section 7.2: length, and coefficients below the modulus.
pub fn check_kem_public(algorithm: KemAlgorithm, public: &[u8]) -> Result<(), Error> {
    match algorithm {
        KemAlgorithm::MlKem768 => kem_public_768(public).map(|_| ()),
        KemAlgorithm::MlKem1024 => kem_public_1024(public).map(|_| ()),
    }
}

fn bad_kem_key(algorithm: &str) -> Error {
    Error::Malformed(format!("the public key is not one of {algorithm}"))
}

fn kem_public_768(public: &[u8]) -> Result<EncapsulationKey<MlKem768>, Error> {
    let encoded = public.try_into().map_err(|_| bad_kem_key("ML-KEM-768"))?;
    EncapsulationKey::<MlKem768>::new(&encoded).map_err(|_| bad_kem_key("ML-KEM-768"))
}

fn kem_public_1024(public: &[u8]) -> Result<EncapsulationKey<MlKem1024>, Error> {
    let encoded = public.try_into().map_err(|_| bad_kem_key("ML-KEM-1024"))?;
    EncapsulationKey::<MlKem1024>::new(&encoded).map_err(|_| bad_kem_key("ML-KEM-1024"))
}

macro_rules! kem_keys {
    ($secret:ident, $public:ident, $parameters:ty) => {
        struct $secret {
            key: DecapsulationKey<$parameters>,
            public: Box<[u8]>,
        }

        impl Decapsulator for $secret {
            fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret<32>, Error> {
                let mut shared = self.key.decapsulate_slice(ciphertext).map_err(|_| Error::Decryption)?;
                let secret = Secret::copy_from(shared.as_slice());
                shared.zeroize();
                secret
            }

            fn public(&self) -> &[u8] {
                &self.public
            }
        }

        struct $public(EncapsulationKey<$parameters>);

        impl Encapsulator for $public {
            fn encapsulate_into(&self, out: &mut Vec<u8>) -> Result<Secret<32>, Error> {
                let mut seed = ml_kem::B32::default();
                RustCrypto.fill(&mut seed)?;
                let (ciphertext, mut shared) = self.0.encapsulate_deterministic(&seed);
                seed.zeroize();
                out.extend_from_slice(ciphertext.as_slice());
                let secret = Secret::copy_from(shared.as_slice());
                shared.zeroize();
                secret
            }
        }
    };
}

kem_keys!(KemSecret768, KemPublic768, MlKem768);
kem_keys!(KemSecret1024, KemPublic1024, MlKem1024);

impl Kem for RustCrypto {
    fn decapsulator(&self, algorithm: KemAlgorithm, seed: &Secret<64>) -> Result<Box<dyn Decapsulator>, Error> {
        let mut bytes: ml_kem::Seed = (*seed.expose()).into();
        let made: Box<dyn Decapsulator> = match algorithm {
            KemAlgorithm::MlKem768 => {
                let key = DecapsulationKey::<MlKem768>::from_seed(bytes);
                let public = key.encapsulation_key().to_bytes().as_slice().into();
                Box::new(KemSecret768 { key, public })
            }
            KemAlgorithm::MlKem1024 => {
                let key = DecapsulationKey::<MlKem1024>::from_seed(bytes);
                let public = key.encapsulation_key().to_bytes().as_slice().into();
                Box::new(KemSecret1024 { key, public })
            }
        };
        bytes.zeroize();
        Ok(made)
    }

    fn encapsulator(&self, algorithm: KemAlgorithm, public: &[u8]) -> Result<Box<dyn Encapsulator>, Error> {
        Ok(match algorithm {
            KemAlgorithm::MlKem768 => Box::new(KemPublic768(kem_public_768(public)?)),
            KemAlgorithm::MlKem1024 => Box::new(KemPublic1024(kem_public_1024(public)?)),
        })
    }
}

fn aes(key: &Secret<32>) -> Result<LessSafeKey, Error> {
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).map_err(broken("setting an AES key"))?))
}

impl Symmetric for RustCrypto {
    fn seal(&self, key: &Secret<32>, nonce: &[u8; 12], aad: &[u8], in_out: &mut [u8]) -> Result<[u8; 16], Error> {
        let tag = aes(key)?
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), in_out)
            .map_err(broken("sealing"))?;
        tag.as_ref().try_into().map_err(|_| Error::Unavailable("ring failed: a tag of another length".into()))
    }

    fn open(&self, key: &Secret<32>, nonce: &[u8; 12], aad: &[u8], in_out: &mut [u8], tag: &[u8; 16]) -> Result<(), Error> {
        aes(key)?
            .open_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), Tag::from(*tag), in_out, 0..)
            .map(|_| ())
            .map_err(|_| Error::Decryption)
    }

    fn wrap(&self, kek: &Secret<32>, key: &Secret<32>) -> Result<[u8; 40], Error> {
        let mut out = [0; 40];
        aes_kw::KwAes256::new(kek.expose().into())
            .wrap_key(key.expose(), &mut out)
            .map_err(|_| Error::Unavailable("wrapping a key failed".into()))?;
        Ok(out)
    }

    fn unwrap(&self, kek: &Secret<32>, wrapped: &[u8; 40]) -> Result<Secret<32>, Error> {
        let mut key = Secret::zero();
        aes_kw::KwAes256::new(kek.expose().into()).unwrap_key(wrapped, key.expose_mut()).map_err(|_| Error::Decryption)?;
        Ok(key)
    }
}

derivation!(RustCrypto);

impl Random for RustCrypto {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        SystemRandom::new().fill(out).map_err(broken("asking for random bytes"))
    }
}
