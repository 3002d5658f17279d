//! A record as a dict, both ways.

use super::hexadecimal::{fixed, hex};
use crate::error;
use creto_enablement_common::{AuditRecord, Digest, Error, Outcome, OutcomeRef, RecordKind, RecordRef, Timestamp};
use pyo3::intern;
use pyo3::prelude::*;
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

/// The fields of a record that a dict holds, by one pass over it; a name that no record has is an error.
#[derive(Default)]
struct Given<'py> {
    who: Option<Bound<'py, PyAny>>,
    chain: Option<Bound<'py, PyAny>>,
    what: Option<Bound<'py, PyAny>>,
    resource: Option<Bound<'py, PyAny>>,
    why: Option<Bound<'py, PyAny>>,
    outcome: Option<Bound<'py, PyAny>>,
    timestamp: Option<Bound<'py, PyAny>>,
    id: Option<Bound<'py, PyAny>>,
    act: Option<Bound<'py, PyAny>>,
    kind: Option<Bound<'py, PyAny>>,
    digest: Option<Bound<'py, PyAny>>,
    policy: Option<Bound<'py, PyAny>>,
    usage: Option<Bound<'py, PyAny>>,
    detail: Option<Bound<'py, PyAny>>,
}

impl<'py> Given<'py> {
    fn new(record: &Bound<'py, PyDict>) -> PyResult<Self> {
        let mut given = Self::default();
        for (name, value) in record.iter() {
            let name = name.cast::<PyString>()?.to_str()?;
            let place = match name {
                "who" => &mut given.who,
                "delegation_chain" => &mut given.chain,
                "what" => &mut given.what,
                "resource" => &mut given.resource,
                "why" => &mut given.why,
                "outcome" => &mut given.outcome,
                "timestamp" => &mut given.timestamp,
                "id" => &mut given.id,
                "act" => &mut given.act,
                "kind" => &mut given.kind,
                "digest" => &mut given.digest,
                "policy" => &mut given.policy,
                "usage" => &mut given.usage,
                "detail" => &mut given.detail,
                // What reading adds to a record is no part of it.
                "signature" | "shard" | "index" | "covered" => continue,
                other => return Err(error::to_py(record.py(), &Error::invalid(format!("a record has no field `{other}`")))),
            };
            if !value.is_none() {
                *place = Some(value);
            }
        }
        Ok(given)
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
    let given = Given::new(record)?;
    let (who, what) = (text(py, "who", given.who)?, text(py, "what", given.what)?);
    let (resource, why) = (text(py, "resource", given.resource)?, text(py, "why", given.why)?);
    let chain: Vec<Bound<'_, PyString>> = match given.chain {
        Some(links) => links.try_iter()?.map(|link| Ok(link?.cast_into::<PyString>()?)).collect::<PyResult<_>>()?,
        None => Vec::new(),
    };
    let chain = chain.iter().map(|link| link.to_str()).collect::<PyResult<Vec<&str>>>()?;
    let outcome = given.outcome;
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
    let timestamp = match given.timestamp {
        Some(word) => Timestamp::from_word(word.extract()?),
        None => clock.now(),
    };
    let id: [u8; 16] = match given.id {
        Some(value) => fixed("id", &value)?,
        None => {
            // The clock never gives one word twice, and no other record takes this one's as its id with this ending.
            let mut id = [0xff; 16];
            let (head, _) = id.split_at_mut(8);
            head.copy_from_slice(&clock.now().word().to_be_bytes());
            id
        }
    };
    let act = given.act.map_or(Ok(id), |value| fixed("act", &value))?;
    let kind = match given.kind {
        None => RecordKind::Event,
        Some(value) => kind_of(py, value.cast::<PyString>()?.to_str()?)?,
    };
    let digest: Option<Digest> = given.digest.map(|value| fixed("digest", &value)).transpose()?;
    let policy: Option<Digest> = given.policy.map(|value| fixed("policy", &value)).transpose()?;
    let usage = pairs::<u64>(given.usage)?;
    let usage = usage.iter().map(|(meter, quantity)| Ok((meter.to_str()?, *quantity))).collect::<PyResult<Vec<_>>>()?;
    let detail = pairs::<Bound<'_, PyString>>(given.detail)?;
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
    dict.set_item(intern!(py, "id"), hex(&record.id))?;
    dict.set_item(intern!(py, "act"), hex(&record.act))?;
    let kind = match record.kind {
        RecordKind::Intent => "intent",
        RecordKind::Outcome => "outcome",
        RecordKind::Refusal => "refusal",
        _ => "event",
    };
    dict.set_item(intern!(py, "kind"), kind)?;
    dict.set_item(intern!(py, "digest"), record.digest.map(|digest| hex(&digest)))?;
    dict.set_item(intern!(py, "policy"), record.policy.map(|digest| hex(&digest)))?;
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
