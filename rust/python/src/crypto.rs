//! `creto-crypto` for Python: handles to keys, never their bytes.

use crate::error::IntoPy as _;
use creto_crypto::{Algorithm, Error, PROVIDERS, Provider, Signature, Suite, dsse};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use std::path::PathBuf;

/// The secret half of a signing key set, one key for each algorithm of its suite.
///
/// A handle: the bytes stay in Rust, are in no `repr`, and are wiped with the last handle.
///
/// Example:
///     >>> from creto.crypto import SigningKey
///     >>> key = SigningKey.generate("cnsa2")
///     >>> [(algorithm, len(signature)) for algorithm, signature in key.sign(b"report")]
///     [('ML-DSA-87', 4627)]
#[pyclass(frozen, module = "creto._core")]
pub struct SigningKey(pub creto_crypto::SigningKey);

fn named(signatures: Vec<(String, Vec<u8>)>) -> Result<Vec<Signature>, Error> {
    signatures.into_iter().map(|(name, bytes)| Ok(Signature { algorithm: Algorithm::parse(&name)?, bytes })).collect()
}

#[pymethods]
impl SigningKey {
    /// Makes fresh keys.
    ///
    /// Args:
    ///     suite: `standard` (Ed25519 and ML-DSA-65) or `cnsa2` (ML-DSA-87).
    ///
    /// Raises:
    ///     InvalidInputError: There is no such suite.
    #[staticmethod]
    #[pyo3(signature = (suite = "standard"))]
    fn generate(py: Python<'_>, suite: &str) -> PyResult<Self> {
        py.detach(|| creto_crypto::SigningKey::generate(Suite::parse(suite)?)).map(Self).or_raise(py)
    }

    /// Unseals keys that were sealed under the same label.
    ///
    /// Args:
    ///     sealed: What `seal` gave.
    ///     sealer: By the same sealing key.
    ///     label: What they were sealed for.
    ///
    /// Raises:
    ///     EncryptionFailedError: Another sealing key, another label, or other bytes.
    #[staticmethod]
    fn unseal(py: Python<'_>, sealed: &[u8], sealer: &Sealer, label: &str) -> PyResult<Self> {
        sealer.0.unseal_signing_key(sealed, label).map(Self).or_raise(py)
    }

    /// Seals the keys under a label, to be stored.
    fn seal<'py>(&self, py: Python<'py>, sealer: &Sealer, label: &str) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &sealer.0.seal_signing_key(&self.0, label).or_raise(py)?))
    }

    /// Signs with every algorithm of the suite, in its order: (name, signature) pairs.
    fn sign<'py>(&self, py: Python<'py>, message: &[u8]) -> PyResult<Vec<(&'static str, Bound<'py, PyBytes>)>> {
        let signatures = self.0.sign(message).or_raise(py)?;
        Ok(signatures.into_iter().map(|s| (s.algorithm.name(), PyBytes::new(py, &s.bytes))).collect())
    }

    /// The public half.
    #[getter]
    fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key().clone())
    }

    /// `standard` or `cnsa2`.
    #[getter]
    fn suite(&self) -> &'static str {
        self.0.suite().name()
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// The public half of a signing key set.
///
/// Example:
///     >>> from creto.crypto import SigningKey, VerifyingKey
///     >>> key = SigningKey.generate()
///     >>> public = VerifyingKey.from_text(key.verifying_key.to_text())
///     >>> public == key.verifying_key, list(public.public())
///     (True, ['Ed25519', 'ML-DSA-65'])
///     >>> public.verify(b"another report", key.sign(b"report"))
///     Traceback (most recent call last):
///     ...
///     creto.errors.SignatureVerificationFailedError: the signature is not valid
#[pyclass(frozen, eq, module = "creto._core")]
#[derive(PartialEq)]
pub struct VerifyingKey(pub creto_crypto::VerifyingKey);

#[pymethods]
impl VerifyingKey {
    /// Reads what `to_bytes` wrote.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, encoded: &[u8]) -> PyResult<Self> {
        creto_crypto::VerifyingKey::from_bytes(encoded).map(Self).or_raise(py)
    }

    /// Reads what `to_text` wrote.
    #[staticmethod]
    fn from_text(py: Python<'_>, text: &str) -> PyResult<Self> {
        creto_crypto::VerifyingKey::from_text(text).map(Self).or_raise(py)
    }

    /// DER: a SEQUENCE of one SubjectPublicKeyInfo for each algorithm.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.to_bytes())
    }

    /// The same in base64.
    fn to_text(&self) -> String {
        self.0.to_text()
    }

    /// The public keys by algorithm, each in its own encoding.
    fn public<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let keys = PyDict::new(py);
        for algorithm in self.0.suite().signers() {
            if let Some(public) = self.0.public(*algorithm) {
                keys.set_item(algorithm.name(), PyBytes::new(py, public))?;
            }
        }
        Ok(keys)
    }

    /// SHA-256 over the DER of the set, in hexadecimal.
    #[getter]
    fn fingerprint(&self) -> &str {
        self.0.fingerprint()
    }

    /// `standard` or `cnsa2`.
    #[getter]
    fn suite(&self) -> &'static str {
        self.0.suite().name()
    }

    /// Does nothing where every algorithm of the suite has signed, in its order, and nothing else has.
    ///
    /// Args:
    ///     message: What was signed.
    ///     signatures: (name of the algorithm, signature) pairs, as `SigningKey.sign` gives them.
    ///
    /// Raises:
    ///     SignatureVerificationFailedError: One is missing, is too many, or does not verify.
    fn verify(&self, py: Python<'_>, message: &[u8], signatures: Vec<(String, Vec<u8>)>) -> PyResult<()> {
        named(signatures).and_then(|signatures| self.0.verify(message, &signatures)).or_raise(py)
    }

    fn __hash__(&self) -> u64 {
        self.0.to_bytes().iter().rev().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// The secret half of a key-encapsulation key.
#[pyclass(frozen, module = "creto._core")]
pub struct KemKey(pub creto_crypto::KemKey);

#[pymethods]
impl KemKey {
    /// Makes a fresh key of a suite.
    #[staticmethod]
    #[pyo3(signature = (suite = "standard"))]
    fn generate(py: Python<'_>, suite: &str) -> PyResult<Self> {
        py.detach(|| creto_crypto::KemKey::generate(Suite::parse(suite)?.kem())).map(Self).or_raise(py)
    }

    /// Unseals a key that was sealed under the same label.
    #[staticmethod]
    fn unseal(py: Python<'_>, sealed: &[u8], sealer: &Sealer, label: &str) -> PyResult<Self> {
        sealer.0.unseal_kem_key(sealed, label).map(Self).or_raise(py)
    }

    /// Seals the key under a label, to be stored.
    fn seal<'py>(&self, py: Python<'py>, sealer: &Sealer, label: &str) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &sealer.0.seal_kem_key(&self.0, label).or_raise(py)?))
    }

    /// The identifier of its public half, in hexadecimal.
    #[getter]
    fn id(&self) -> String {
        self.0.public_key().id().hex()
    }

    /// The public half in its algorithm's own encoding.
    fn public<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.public_key().as_bytes())
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// Seals secrets at rest, under a key file of mode 0600 or a passphrase: AES-256-GCM, and Argon2id (RFC 9106) before it.
///
/// Example:
///     >>> from creto.crypto import Sealer
///     >>> sealer = Sealer.ephemeral()
///     >>> sealed = sealer.seal(b"token", "mail server")
///     >>> sealer.open_sealed(sealed, "mail server")
///     b'token'
///     >>> sealer.open_sealed(sealed, "another purpose")
///     Traceback (most recent call last):
///     ...
///     creto.errors.EncryptionFailedError: sealing or opening failed
#[pyclass(frozen, module = "creto._core")]
pub struct Sealer(pub creto_crypto::Sealer);

#[pymethods]
impl Sealer {
    /// Opens the sealing key of a folder, or makes one.
    ///
    /// Args:
    ///     folder: Where the key file is, or the salt of the passphrase; made with mode 0700.
    ///     passphrase: Seals in place of a key file.
    ///
    /// Raises:
    ///     InvalidInputError: Others may read the key file, or the passphrase is wrong or missing.
    #[staticmethod]
    #[pyo3(signature = (folder, passphrase = None))]
    fn open(py: Python<'_>, folder: PathBuf, passphrase: Option<&[u8]>) -> PyResult<Self> {
        py.detach(|| creto_crypto::Sealer::open(&folder, passphrase)).map(Self).or_raise(py)
    }

    /// From a key of 32 bytes that is kept elsewhere, such as an operating system's keyring.
    #[staticmethod]
    fn from_key(py: Python<'_>, key: &[u8]) -> PyResult<Self> {
        creto_crypto::Sealer::from_key(key).map(Self).or_raise(py)
    }

    /// A sealer that lives in memory only.
    #[staticmethod]
    fn ephemeral(py: Python<'_>) -> PyResult<Self> {
        creto_crypto::Sealer::ephemeral().map(Self).or_raise(py)
    }

    /// Seals bytes under a label.
    fn seal<'py>(&self, py: Python<'py>, plain: &[u8], label: &str) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.seal(plain, label).or_raise(py)?))
    }

    /// Unseals bytes that were sealed under the same label.
    fn open_sealed<'py>(&self, py: Python<'py>, sealed: &[u8], label: &str) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.unseal(sealed, label).or_raise(py)?))
    }

    fn __repr__(&self) -> &'static str {
        "Sealer()"
    }
}

/// Signs a payload: a DSSE envelope as JSON text, one signature for each algorithm of the key's suite.
///
/// Args:
///     key: Who signs.
///     payload_type: What the payload is: `IN_TOTO` for an in-toto Statement.
///     payload: What is signed, with its type (DSSE's pre-authentication encoding, protocol 1.0.2).
///
/// Example:
///     >>> import json
///     >>> from creto.crypto import IN_TOTO, SigningKey, dsse_sign
///     >>> envelope = json.loads(dsse_sign(SigningKey.generate(), IN_TOTO, b"{}"))
///     >>> envelope["payload"], len(envelope["signatures"])
///     ('e30=', 2)
#[pyfunction]
pub fn dsse_sign(py: Python<'_>, key: &SigningKey, payload_type: &str, payload: &[u8]) -> PyResult<String> {
    py.detach(|| dsse::sign(&key.0, payload_type, payload)).or_raise(py)
}

/// Verifies a DSSE envelope under exactly these keys and returns its payload.
///
/// Args:
///     key: Who must have signed, with every algorithm of its suite.
///     payload_type: What the payload must be.
///     envelope: The JSON text.
///
/// Raises:
///     SignatureVerificationFailedError: It is not signed so.
///     InvalidInputError: It is no DSSE envelope.
///
/// Example:
///     >>> from creto.crypto import IN_TOTO, SigningKey, dsse_sign, dsse_verify
///     >>> key = SigningKey.generate()
///     >>> dsse_verify(key.verifying_key, IN_TOTO, dsse_sign(key, IN_TOTO, b'{"built": true}'))
///     b'{"built": true}'
#[pyfunction]
pub fn dsse_verify<'py>(py: Python<'py>, key: &VerifyingKey, payload_type: &str, envelope: &str) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &py.detach(|| dsse::verify(&key.0, payload_type, envelope)).or_raise(py)?))
}

/// Each provider in this build with the result of its self-test: (name, chosen, problem or None).
///
/// Example:
///     >>> from creto.crypto import crypto_providers
///     >>> [name for name, chosen, problem in crypto_providers() if problem is None]
///     ['aws-lc', 'rustcrypto']
#[pyfunction]
pub fn crypto_providers(py: Python<'_>) -> Vec<(&'static str, bool, Option<String>)> {
    py.detach(|| {
        let chosen = Provider::chosen().name;
        PROVIDERS.iter().map(|p| (p.name, p.name == chosen, p.self_test().err().map(|error| error.to_string()))).collect()
    })
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("IN_TOTO", dsse::IN_TOTO)?;
    module.add("SUITES", PyTuple::new(module.py(), Suite::ALL.iter().map(|suite| suite.name()))?)?;
    module.add_class::<SigningKey>()?;
    module.add_class::<VerifyingKey>()?;
    module.add_class::<KemKey>()?;
    module.add_class::<Sealer>()?;
    module.add_function(wrap_pyfunction!(dsse_sign, module)?)?;
    module.add_function(wrap_pyfunction!(dsse_verify, module)?)?;
    module.add_function(wrap_pyfunction!(crypto_providers, module)?)?;
    Ok(())
}
