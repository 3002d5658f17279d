//! A record as a dict, both ways.

use super::hexadecimal::fixed;
use crate::error;
use creto_enablement_common::{AuditRecord, Digest, Error, Outcome, OutcomeRef, RecordKind, RecordRef, Timestamp};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};

/// The pairs of a mapping.
fn pairs<'py, T: for<'a> FromPyObject<'a, 'py>>(value: Option<Bound<'py, PyAny>>) -> PyResult<Vec<(Bound<'py, PyString>, T)>>
where
    for<'a> PyErr: From<<T as FromPyObject<'a, 'py>>::Error>,
{
    let Some(value) = value.filter(|value| !value.is_none()) else { return Ok(Vec::new()) };
    let map = value.cast_into::<PyDict>()?;
    let mut out = Vec::with_capacity(map.len());
    for (name, value) in map.iter() {
        out.push((name.cast_into::<PyString>()?, value.extract::<T>()?));
    }
    Ok(out)
}

/// The kind that a name stands for.
pub fn kind_of(py: Python<'_>, name: &str) -> PyResult<RecordKind> {
    match name {
        "intent" => Ok(RecordKind::Intent),
        "outcome" => Ok(RecordKind::Outcome),
        "refusal" => Ok(RecordKind::Refusal),
        "event" => Ok(RecordKind::Event),
        other => Err(error::to_py(py, &Error::invalid(format!("a kind is intent, outcome, refusal or event, not `{other}`")))),
    }
}

/// The fields of a record, those that most records have first.
const FIELDS: [&str; 14] = [
    "who",
    "what",
    "resource",
    "why",
    "kind",
    "outcome",
    "id",
    "act",
    "timestamp",
    "delegation_chain",
    "digest",
    "policy",
    "usage",
    "detail",
];
static NAMES: PyOnceLock<[Py<PyString>; FIELDS.len()]> = PyOnceLock::new();

/// The fields of a record that a dict holds, by one pass over it; a name that no record has is an error.
fn given<'py>(record: &Bound<'py, PyDict>) -> PyResult<[Option<Bound<'py, PyAny>>; FIELDS.len()]> {
    let py = record.py();
    let names = NAMES.get_or_init(py, || FIELDS.map(|name| PyString::intern(py, name).unbind()));
    let mut given = [const { None }; FIELDS.len()];
    for (name, value) in record.iter() {
        // Names that stand in somebody's source are one object with ours, others are read.
        let at = names.iter().position(|known| known.is(&name)).map_or_else(|| read(&name), |at| Ok(Some(at)))?;
        if let Some(place) = at.and_then(|at| given.get_mut(at))
            && !value.is_none()
        {
            *place = Some(value);
        }
    }
    Ok(given)
}

/// Which field a name is; none for what reading adds to a record, which is no part of it.
fn read(name: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    match name.cast::<PyString>()?.to_str()? {
        "signature" | "shard" | "index" | "covered" => Ok(None),
        name_of => match FIELDS.iter().position(|known| *known == name_of) {
            None => Err(error::to_py(name.py(), &Error::invalid(format!("a record has no field `{name_of}`")))),
            at => Ok(at),
        },
    }
}

fn text<'py>(py: Python<'py>, name: &str, value: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyString>> {
    match value {
        None => Ok(intern!(py, "").clone()),
        Some(value) => value.cast_into::<PyString>().map_err(|_| error::to_py(py, &Error::invalid(format!("`{name}` is no text")))),
    }
}

/// Reads a record from a dict, fills in what may be missing, and hands it on borrowed.
pub fn with_record<'py, T>(
    record: &Bound<'py, PyDict>,
    clock: &creto_consensus::HybridLogicalClock,
    use_it: impl FnOnce(&RecordRef<'_>) -> T,
) -> PyResult<T> {
    let py = record.py();
    let [who, what, resource, why, kind, outcome, id, act, timestamp, chain, digest, policy, usage, detail] = given(record)?;
    let (who, what) = (text(py, "who", who)?, text(py, "what", what)?);
    let (resource, why) = (text(py, "resource", resource)?, text(py, "why", why)?);
    let chain: Vec<Bound<'_, PyString>> = match chain {
        Some(links) => links.try_iter()?.map(|link| Ok(link?.cast_into::<PyString>()?)).collect::<PyResult<_>>()?,
        None => Vec::new(),
    };
    let chain = chain.iter().map(|link| link.to_str()).collect::<PyResult<Vec<&str>>>()?;
    let failure = match &outcome {
        Some(value) => match value.cast::<PyString>() {
            Ok(text) if text.to_str()? == "success" => None,
            Ok(text) => {
                let what = format!("an outcome is None, \"success\" or {{\"failure\": text}}, not `{}`", text.to_str()?);
                return Err(error::to_py(py, &Error::invalid(what)));
            }
            Err(_) => Some(value.get_item(intern!(py, "failure"))?.cast_into::<PyString>()?),
        },
        None => None,
    };
    let told = timestamp.map(|word| word.extract().map(Timestamp::from_word)).transpose()?;
    let timestamp = told.unwrap_or_else(|| clock.now());
    let id: [u8; 16] = match id {
        Some(value) => fixed("id", &value)?,
        None => {
            // The clock never gives one word twice, and no other record takes this one's as its id with this ending.
            let fresh = if told.is_some() { clock.now() } else { timestamp };
            let mut id = [0xff; 16];
            let (head, _) = id.split_at_mut(8);
            head.copy_from_slice(&fresh.word().to_be_bytes());
            id
        }
    };
    let act = act.map_or(Ok(id), |value| fixed("act", &value))?;
    let kind = match kind {
        None => RecordKind::Event,
        Some(value) => kind_of(py, value.cast::<PyString>()?.to_str()?)?,
    };
    let digest: Option<Digest> = digest.map(|value| fixed("digest", &value)).transpose()?;
    let policy: Option<Digest> = policy.map(|value| fixed("policy", &value)).transpose()?;
    let usage = pairs::<u64>(usage)?;
    let usage = usage.iter().map(|(meter, quantity)| Ok((meter.to_str()?, *quantity))).collect::<PyResult<Vec<_>>>()?;
    let detail = pairs::<Bound<'_, PyString>>(detail)?;
    let detail = detail.iter().map(|(name, value)| Ok((name.to_str()?, value.to_str()?))).collect::<PyResult<Vec<_>>>()?;
    let outcome = match (&outcome, &failure) {
        (None, _) => None,
        (_, None) => Some(OutcomeRef::Success),
        (_, Some(why)) => Some(OutcomeRef::Failure(why.to_str()?)),
    };
    Ok(use_it(&RecordRef {
        who: who.to_str()?,
        delegation_chain: &chain,
        what: what.to_str()?,
        resource: resource.to_str()?,
        why: why.to_str()?,
        outcome,
        timestamp,
        id,
        act,
        kind,
        digest: digest.as_ref(),
        policy: policy.as_ref(),
        usage: &usage,
        detail: &detail,
    }))
}

/// A record as a dict, with its place.
pub fn to_dict<'py>(py: Python<'py>, shard: &str, index: u64, record: &AuditRecord) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item(intern!(py, "who"), &record.who)?;
    dict.set_item(intern!(py, "delegation_chain"), &record.delegation_chain)?;
    dict.set_item(intern!(py, "what"), &record.what)?;
    dict.set_item(intern!(py, "resource"), &record.resource)?;
    dict.set_item(intern!(py, "why"), &record.why)?;
    match &record.outcome {
        None => dict.set_item(intern!(py, "outcome"), py.None())?,
        Some(Outcome::Success) => dict.set_item(intern!(py, "outcome"), intern!(py, "success"))?,
        Some(Outcome::Failure(why)) => {
            let failure = PyDict::new(py);
            failure.set_item(intern!(py, "failure"), why)?;
            dict.set_item(intern!(py, "outcome"), failure)?;
        }
    }
    dict.set_item(intern!(py, "timestamp"), record.timestamp.word())?;
    dict.set_item(intern!(py, "id"), base16ct::lower::encode_string(&record.id))?;
    dict.set_item(intern!(py, "act"), base16ct::lower::encode_string(&record.act))?;
    let kind = match record.kind {
        RecordKind::Intent => "intent",
        RecordKind::Outcome => "outcome",
        RecordKind::Refusal => "refusal",
        _ => "event",
    };
    dict.set_item(intern!(py, "kind"), kind)?;
    dict.set_item(intern!(py, "digest"), record.digest.map(|digest| base16ct::lower::encode_string(&digest)))?;
    dict.set_item(intern!(py, "policy"), record.policy.map(|digest| base16ct::lower::encode_string(&digest)))?;
    let usage = PyDict::new(py);
    for (meter, quantity) in &record.usage {
        usage.set_item(meter, quantity)?;
    }
    dict.set_item(intern!(py, "usage"), usage)?;
    let detail = PyDict::new(py);
    for (name, value) in &record.detail {
        detail.set_item(name, value)?;
    }
    dict.set_item(intern!(py, "detail"), detail)?;
    dict.set_item(intern!(py, "shard"), shard)?;
    dict.set_item(intern!(py, "index"), index)?;
    Ok(dict)
}
