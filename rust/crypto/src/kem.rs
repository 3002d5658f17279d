//! Key encapsulation keys.

use crate::spki::{self, KeyAlgorithm, KeyId};
use crate::{Decapsulator, Encapsulator, Error, KemAlgorithm, Provider, Secret};
use std::sync::Arc;

/// The secret half of a key-encapsulation key; cheap to clone, never printed.
#[derive(Clone)]
pub struct KemKey(Arc<Inner>);

struct Inner {
    seed: Secret<64>,
    key: Box<dyn Decapsulator>,
    public: KemPublicKey,
}

impl KemKey {
    /// Makes a fresh key with the default provider.
    pub fn generate(algorithm: KemAlgorithm) -> Result<Self, Error> {
        let provider = Provider::chosen();
        Self::from_seed(provider, algorithm, Secret::random(provider)?)
    }

    /// Expands a seed, and checks that the pair fits.
    pub fn from_seed(provider: &Provider, algorithm: KemAlgorithm, seed: Secret<64>) -> Result<Self, Error> {
        let key = provider.kem.decapsulator(algorithm, &seed)?;
        let public = KemPublicKey::with_provider(provider, algorithm, key.public())?;
        let mut ciphertext = Vec::with_capacity(algorithm.ciphertext_len());
        let sent = public.encapsulate_into(&mut ciphertext)?;
        if key.decapsulate(&ciphertext)?.expose() != sent.expose() {
            return Err(Error::Unavailable(format!(
                "provider `{}` made a {} key whose halves do not fit",
                provider.name,
                algorithm.name()
            )));
        }
        Ok(Self(Arc::new(Inner { seed: seed.kept(), key, public })))
    }

    /// The public half.
    pub fn public_key(&self) -> &KemPublicKey {
        &self.0.public
    }

    /// The shared secret in a ciphertext; one made for another key gives an unrelated secret.
    pub fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret<32>, Error> {
        self.0.key.decapsulate(ciphertext)
    }

    pub(crate) fn seed(&self) -> &Secret<64> {
        &self.0.seed
    }
}

impl core::fmt::Debug for KemKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "KemKey({:?})", self.0.public)
    }
}

/// The public half; cheap to clone.
#[derive(Clone)]
pub struct KemPublicKey(Arc<Public>);

struct Public {
    algorithm: KemAlgorithm,
    bytes: Vec<u8>,
    id: KeyId,
    key: Box<dyn Encapsulator>,
}

impl KemPublicKey {
    /// From its bytes, checked as FIPS 203 asks.
    pub fn new(algorithm: KemAlgorithm, public: &[u8]) -> Result<Self, Error> {
        Self::with_provider(Provider::chosen(), algorithm, public)
    }

    /// The same, with a provider of choice.
    pub fn with_provider(provider: &Provider, algorithm: KemAlgorithm, public: &[u8]) -> Result<Self, Error> {
        let key = provider.kem.encapsulator(algorithm, public)?;
        Ok(Self(Arc::new(Public { algorithm, bytes: public.to_vec(), id: KeyId::of(public), key })))
    }

    /// Which algorithm.
    pub fn algorithm(&self) -> KemAlgorithm {
        self.0.algorithm
    }

    /// The key in the algorithm's own encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Its identifier.
    pub fn id(&self) -> KeyId {
        self.0.id
    }

    /// As SubjectPublicKeyInfo.
    pub fn to_der(&self) -> Result<Vec<u8>, Error> {
        spki::encode(KeyAlgorithm::Kem(self.0.algorithm), &self.0.bytes)
    }

    /// Appends a fresh ciphertext to `out` and returns the shared secret in it.
    pub fn encapsulate_into(&self, out: &mut Vec<u8>) -> Result<Secret<32>, Error> {
        self.0.key.encapsulate_into(out)
    }
}

impl core::fmt::Debug for KemPublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "KemPublicKey({}, {})", self.0.algorithm.name(), self.0.id.hex())
    }
}
