//! The one place where errors cross: a Rust `Error` becomes the class that `creto.errors` has for its kind, and back.

use creto_enablement_common::{Error, ErrorKind, RetryPolicy};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};
use std::time::Duration;

static RAISE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn fields<'py>(py: Python<'py>, kind: &ErrorKind) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    match kind {
        ErrorKind::InvalidInput(what) => fields.set_item("what", what)?,
        ErrorKind::QuotaExceeded { limit, used } => {
            fields.set_item("limit", limit)?;
            fields.set_item("used", used)?;
        }
        ErrorKind::OversightRequired { policy_id } => fields.set_item("policy_id", policy_id)?,
        ErrorKind::EgressDenied { destination } => fields.set_item("destination", destination)?,
        _ => {}
    }
    Ok(fields)
}

/// The exception for an error: its kind's class, with its text, context, retry time and the texts of its causes.
pub fn to_py(py: Python<'_>, error: &Error) -> PyErr {
    let made = (|| {
        let from_core =
            RAISE.get_or_try_init(py, || -> PyResult<Py<PyAny>> { Ok(py.import("creto.errors")?.getattr("from_core")?.unbind()) })?;
        let context: Vec<&str> = error.context().collect();
        let causes: Vec<String> = error.chain().skip(1).collect();
        let exception = from_core.bind(py).call1((
            error.kind().name(),
            error.to_string(),
            fields(py, error.kind())?,
            context,
            causes,
            error.retry_after().map(|wait| wait.as_secs_f64()),
        ))?;
        PyResult::Ok(PyErr::from_value(exception))
    })();
    made.unwrap_or_else(|failure| failure)
}

/// The error of a kind named `name`, as Python holds it.
pub fn from_parts(name: &str, fields: &Bound<'_, PyDict>) -> PyResult<Error> {
    let text = |key: &str| -> PyResult<String> { fields.get_item(key)?.map_or_else(|| Ok(String::new()), |v| v.extract()) };
    let number = |key: &str| -> PyResult<u64> { fields.get_item(key)?.map_or(Ok(0), |v| v.extract()) };
    Ok(Error::new(match name {
        "NotFound" => ErrorKind::NotFound,
        "AlreadyExists" => ErrorKind::AlreadyExists,
        "InvalidInput" => ErrorKind::InvalidInput(text("what")?),
        "Unauthorized" => ErrorKind::Unauthorized,
        "QuotaExceeded" => ErrorKind::QuotaExceeded { limit: number("limit")?, used: number("used")? },
        "OversightRequired" => ErrorKind::OversightRequired { policy_id: text("policy_id")? },
        "SandboxSpawnFailed" => ErrorKind::SandboxSpawnFailed,
        "AttestationFailed" => ErrorKind::AttestationFailed,
        "EgressDenied" => ErrorKind::EgressDenied { destination: text("destination")? },
        "EncryptionFailed" => ErrorKind::EncryptionFailed,
        "SignatureVerificationFailed" => ErrorKind::SignatureVerificationFailed,
        "DeliveryDenied" => ErrorKind::DeliveryDenied,
        "Timeout" => ErrorKind::Timeout,
        "ConnectionFailed" => ErrorKind::ConnectionFailed,
        "Integrity" => ErrorKind::Integrity,
        "Forked" => ErrorKind::Forked,
        "LedgerFull" => ErrorKind::LedgerFull,
        _ => ErrorKind::Internal,
    }))
}

/// What a Python operation raised, as an error: the kind of a `creto` exception, `Internal` for any other, the exception kept as cause.
pub fn from_py(py: Python<'_>, raised: PyErr) -> Error {
    let value = raised.value(py);
    let error = value
        .getattr("kind")
        .and_then(|kind| Ok((kind.cast_into::<PyString>()?.to_string(), value.getattr("fields")?.cast_into::<PyDict>()?)))
        .and_then(|(kind, fields)| from_parts(&kind, &fields))
        .unwrap_or_else(|_| Error::new(ErrorKind::Internal));
    let wait = value.getattr("retry_after").ok().and_then(|wait| wait.extract::<f64>().ok());
    let error = match wait.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    };
    error.with_source(Box::new(Raised(raised)) as Box<dyn std::error::Error + Send + Sync>)
}

#[derive(Debug)]
struct Raised(PyErr);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Raised {}

/// Turns a result of Rust into one of Python.
pub trait IntoPy<T> {
    /// Raises the class of the error's kind.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T, E: Into<Error>> IntoPy<T> for Result<T, E> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| to_py(py, &error.into()))
    }
}

/// Raises the exception of a kind by way of Rust; the tests walk every kind through it.
#[pyfunction]
pub fn _round_trip(py: Python<'_>, exception: Bound<'_, PyException>) -> PyErr {
    to_py(py, &from_py(py, PyErr::from_value(exception.into_any())))
}
