//! `creto-messaging` for Python.

use crate::crypto::{KemKey, SigningKey};
use crate::error::IntoPy as _;
use crate::nhi::{Directory, Identity, agent_id};
use creto_crypto::Suite;
use creto_enablement_common::{AgentId, Error};
use creto_messaging::{Acceptance, Header, Outgoing, Priority, Verified, unhex};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

fn exact<const N: usize>(py: Python<'_>, what: &str, bytes: &[u8]) -> PyResult<[u8; N]> {
    bytes.try_into().map_err(|_| Error::invalid(format!("{what} has {} bytes, and {N} are needed", bytes.len()))).or_raise(py)
}

/// Seals a message: encrypted for each recipient, signed by the sender's keys.
#[pyfunction]
#[pyo3(signature = (sender, key, to, body, *, message_id, date, expires, content_type, priority = "normal", in_reply_to = None, chain = None))]
#[expect(clippy::too_many_arguments, reason = "keyword-only in Python")]
pub fn envelope_seal<'py>(
    py: Python<'py>,
    sender: &str,
    key: &SigningKey,
    to: Vec<PyRef<'py, Identity>>,
    body: &[u8],
    message_id: &str,
    date: u64,
    expires: u64,
    content_type: &str,
    priority: &str,
    in_reply_to: Option<&str>,
    chain: Option<&[u8]>,
) -> PyResult<Bound<'py, PyBytes>> {
    let from = agent_id(py, sender)?;
    let to: Vec<(AgentId, creto_crypto::KemPublicKey)> =
        to.iter().map(|identity| (identity.0.id.clone(), identity.0.kem_key().clone())).collect();
    let message = Outgoing {
        from: &from,
        to: &to,
        message_id: message_id_of(py, message_id)?,
        date,
        expires,
        content_type,
        in_reply_to: in_reply_to.map(|id| message_id_of(py, id)).transpose()?,
        priority: Priority::parse(priority).or_raise(py)?,
        chain: chain.map(|digest| exact(py, "the digest of a delegation chain", digest)).transpose()?,
        body,
    };
    let envelope = py.detach(|| creto_messaging::seal(&message, &key.0)).or_raise(py)?;
    Ok(PyBytes::new(py, &envelope))
}

fn message_id_of(py: Python<'_>, text: &str) -> PyResult<[u8; 16]> {
    unhex(text).ok_or_else(|| Error::invalid(format!("`{text}` is not a message id: 32 lower-case hexadecimal digits"))).or_raise(py)
}

fn fields<'py>(py: Python<'py>, header: &Header) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("sender", header.from.as_str())?;
    dict.set_item("to", header.to.iter().map(AgentId::as_str).collect::<Vec<_>>())?;
    dict.set_item("message_id", base16ct::lower::encode_string(&header.message_id))?;
    dict.set_item("date", header.date)?;
    dict.set_item("expires", header.expires)?;
    dict.set_item("content_type", &header.content_type)?;
    dict.set_item("in_reply_to", header.in_reply_to.map(|id| base16ct::lower::encode_string(&id)))?;
    dict.set_item("priority", header.priority.name())?;
    dict.set_item("suite", header.suite.name())?;
    dict.set_item("chain", header.chain.map(|digest| base16ct::lower::encode_string(&digest)))?;
    Ok(dict)
}

/// A message whose origin and addressing hold; its content is still sealed.
#[pyclass(frozen, module = "creto._core")]
pub struct VerifiedEnvelope {
    inner: Verified,
    envelope: Py<PyBytes>,
}

#[pymethods]
impl VerifiedEnvelope {
    /// The header fields by name.
    fn header<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        fields(py, self.inner.header())
    }

    /// Opens the content with whichever of the recipient's keys it was sealed for.
    fn open<'py>(&self, py: Python<'py>, keys: Vec<PyRef<'py, KemKey>>) -> PyResult<Bound<'py, PyBytes>> {
        let keys: Vec<creto_crypto::KemKey> = keys.iter().map(|key| key.0.clone()).collect();
        let envelope = self.envelope.as_bytes(py);
        let body = py.detach(|| self.inner.open(envelope, &keys)).or_raise(py)?;
        Ok(PyBytes::new(py, &body))
    }
}

/// Verifies a message: size, encoding, suite, signatures, writer, addressing and times; times in seconds since the epoch.
#[pyfunction]
#[pyo3(signature = (envelope, *, me, directory, suite, max_bytes, max_life, now))]
#[expect(clippy::too_many_arguments, reason = "keyword-only in Python")]
pub fn envelope_verify(
    py: Python<'_>,
    envelope: &Bound<'_, PyBytes>,
    me: &str,
    directory: &Directory,
    suite: &str,
    max_bytes: usize,
    max_life: u64,
    now: u64,
) -> PyResult<VerifiedEnvelope> {
    let me = agent_id(py, me)?;
    let acceptance = Acceptance { me: &me, directory: &directory.0, suite: Suite::parse(suite).or_raise(py)?, max_bytes, max_life, now };
    let bytes = envelope.as_bytes();
    let inner = py.detach(|| creto_messaging::verify(bytes, &acceptance)).or_raise(py)?;
    Ok(VerifiedEnvelope { inner, envelope: envelope.clone().unbind() })
}

/// What an envelope says of itself, verified by nobody: to show it, or to find out whose keys are needed.
#[pyfunction]
pub fn envelope_header<'py>(py: Python<'py>, envelope: &[u8], suite: &str) -> PyResult<Bound<'py, PyDict>> {
    let header =
        Suite::parse(suite).map_err(Error::from).and_then(|suite| creto_messaging::unverified_header(envelope, suite)).or_raise(py)?;
    fields(py, &header)
}

/// Seals an attachment under a fresh key: (key, sealed). The key belongs inside a sealed message and nowhere else.
#[pyfunction]
pub fn attachment_seal<'py>(py: Python<'py>, data: &[u8]) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let (key, sealed) = py.detach(|| creto_messaging::seal_attachment(data)).or_raise(py)?;
    Ok((PyBytes::new(py, key.expose()), PyBytes::new(py, &sealed)))
}

/// Opens what `attachment_seal` sealed.
#[pyfunction]
pub fn attachment_open<'py>(py: Python<'py>, key: &[u8], sealed: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let key = creto_crypto::Secret::copy_from(key).or_raise(py)?;
    Ok(PyBytes::new(py, &py.detach(|| creto_messaging::open_attachment(&key, sealed)).or_raise(py)?))
}

/// Raises EncryptionFailedError unless a piece is the chunk of this number: the sealed blob's 7 first bytes, then the chunk.
#[pyfunction]
pub fn attachment_check(py: Python<'_>, key: &[u8], piece: &[u8], number: u32, last: bool) -> PyResult<()> {
    let key = creto_crypto::Secret::copy_from(key).or_raise(py)?;
    creto_messaging::check_chunk(&key, piece, number, last).or_raise(py)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<VerifiedEnvelope>()?;
    module.add_function(wrap_pyfunction!(envelope_seal, module)?)?;
    module.add_function(wrap_pyfunction!(envelope_verify, module)?)?;
    module.add_function(wrap_pyfunction!(envelope_header, module)?)?;
    Ok(())
}
