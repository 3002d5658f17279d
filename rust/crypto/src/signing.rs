//! A set of signing keys, one for each algorithm of a suite, held as seeds.

use crate::{Algorithm, Error, Provider, Secret, Signature, Signer, Suite, VerifyingKey};
use std::sync::Arc;

/// The secret half of a signing key set; cheap to clone, wiped with its last handle, never printed.
#[derive(Clone)]
pub struct SigningKey(Arc<Inner>);

struct Inner {
    suite: Suite,
    parts: Vec<Part>,
    verifying: VerifyingKey,
}

struct Part {
    algorithm: Algorithm,
    seed: Secret<32>,
    signer: Box<dyn Signer>,
}

impl SigningKey {
    /// Makes fresh keys with the default provider.
    pub fn generate(suite: Suite) -> Result<Self, Error> {
        Self::generate_with(Provider::chosen(), suite)
    }

    /// Makes fresh keys, and checks that each verifies what it signs before it is used.
    pub fn generate_with(provider: &Provider, suite: Suite) -> Result<Self, Error> {
        let seeds = suite.signers().iter().map(|_| Secret::random(provider)).collect::<Result<Vec<_>, _>>()?;
        let key = Self::from_seeds(provider, suite, seeds)?;
        key.verifying_key().verify(b"creto pairwise check", &key.sign(b"creto pairwise check")?)?;
        Ok(key)
    }

    /// Expands seeds, one for each algorithm of the suite, in its order.
    pub fn from_seeds(provider: &Provider, suite: Suite, seeds: Vec<Secret<32>>) -> Result<Self, Error> {
        if seeds.len() != suite.signers().len() {
            return Err(Error::Malformed(format!("{} seeds where suite `{suite}` has {}", seeds.len(), suite.signers().len())));
        }
        let parts = suite
            .signers()
            .iter()
            .copied()
            .zip(seeds)
            .map(|(algorithm, seed)| Ok(Part { algorithm, signer: provider.signing.signer(algorithm, &seed)?, seed: seed.kept() }))
            .collect::<Result<Vec<_>, Error>>()?;
        let publics: Vec<&[u8]> = parts.iter().map(|part| part.signer.public()).collect();
        let verifying = VerifyingKey::with_provider(provider, suite, &publics)?;
        Ok(Self(Arc::new(Inner { suite, parts, verifying })))
    }

    /// Which suite these keys belong to.
    pub fn suite(&self) -> Suite {
        self.0.suite
    }

    /// The public half.
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.0.verifying
    }

    /// Signs with every algorithm of the suite, in its order.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<Signature>, Error> {
        self.0
            .parts
            .iter()
            .map(|part| {
                let mut bytes = Vec::with_capacity(part.algorithm.signature_len());
                part.signer.sign_into(message, &mut bytes)?;
                Ok(Signature { algorithm: part.algorithm, bytes })
            })
            .collect()
    }

    /// Appends one algorithm's signature to `out`: for formats that carry them apart.
    pub fn sign_with(&self, algorithm: Algorithm, message: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let part = self
            .0
            .parts
            .iter()
            .find(|part| part.algorithm == algorithm)
            .ok_or_else(|| Error::Malformed(format!("suite `{}` does not sign with {algorithm}", self.0.suite)))?;
        part.signer.sign_into(message, out)
    }

    pub(crate) fn seeds(&self) -> impl Iterator<Item = &Secret<32>> {
        self.0.parts.iter().map(|part| &part.seed)
    }
}

impl core::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SigningKey({:?})", self.0.verifying)
    }
}
