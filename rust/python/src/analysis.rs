//! `creto-analysis` for Python.

use crate::authz::finding;
use crate::error::IntoPy;
use creto_analysis::{Answer, Assertion, Claim, Counterexample, SolverCommand};
use creto_authz::Lines;
use creto_enablement_common::Error;
use pyo3::prelude::*;
use pyo3::types::PyDict;

fn example<'py>(py: Python<'py>, found: &Counterexample) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("principal", &found.principal)?;
    dict.set_item("action", &found.action)?;
    dict.set_item("resource", &found.resource)?;
    // As JSON: what Cedar writes for extension values and entities has no other form here.
    dict.set_item("context", found.context.to_string())?;
    dict.set_item("entities", serde_json::Value::Array(found.entities.clone()).to_string())?;
    Ok(dict)
}

/// What `new` in place of `old` newly allows, asks and denies, proved by the solver that `command` starts; `limit` is in milliseconds a question.
#[pyfunction]
#[pyo3(signature = (old, new, schema, command, limit=60_000))]
pub fn policy_compare<'py>(
    py: Python<'py>,
    old: &str,
    new: &str,
    schema: &str,
    command: Vec<String>,
    limit: u32,
) -> PyResult<Bound<'py, PyDict>> {
    let solver = SolverCommand { argv: &command, limit };
    let found = py.detach(|| creto_analysis::compare(old, new, schema, &solver)).or_raise(py)?;
    let dict = PyDict::new(py);
    dict.set_item("equivalent", found.equivalent())?;
    dict.set_item("environments", found.environments)?;
    dict.set_item("questions", found.questions)?;
    let undecided: Vec<(&str, &str)> = found.undecided.iter().map(|each| (&*each.environment, &*each.why)).collect();
    dict.set_item("undecided", undecided)?;
    let changes = found
        .changes
        .iter()
        .map(|change| {
            let dict = PyDict::new(py);
            dict.set_item("environment", &change.environment)?;
            dict.set_item("before", change.before.word())?;
            dict.set_item("after", change.after.word())?;
            dict.set_item("reason_before", &change.reasons.0)?;
            dict.set_item("reason_after", &change.reasons.1)?;
            dict.set_item("newly_asked_of", &change.asked.0)?;
            dict.set_item("no_longer_asked_of", &change.asked.1)?;
            dict.set_item("example", example(py, &change.example)?)?;
            Ok(dict)
        })
        .collect::<PyResult<Vec<_>>>()?;
    dict.set_item("changes", changes)?;
    Ok(dict)
}

/// Proves assertions, each a name, the requests that it speaks of, and the answers ("allow", "ask", "deny") that none of them may get.
#[pyfunction]
#[pyo3(signature = (policies, schema, assertions, command, limit=60_000))]
pub fn policy_prove<'py>(
    py: Python<'py>,
    policies: &str,
    schema: &str,
    assertions: Vec<(String, String, Vec<String>)>,
    command: Vec<String>,
    limit: u32,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let assertions = assertions
        .into_iter()
        .map(|(name, requests, never)| {
            let never = never
                .iter()
                .map(|word| Answer::of(word).ok_or_else(|| Error::invalid(format!("`{word}` is not allow, ask or deny"))))
                .collect::<Result<_, _>>()?;
            Ok(Assertion { name, requests, never })
        })
        .collect::<Result<Vec<_>, Error>>()
        .or_raise(py)?;
    let solver = SolverCommand { argv: &command, limit };
    let verdicts = py.detach(|| creto_analysis::prove(policies, schema, &assertions, &solver)).or_raise(py)?;
    verdicts
        .iter()
        .map(|verdict| {
            let dict = PyDict::new(py);
            dict.set_item("name", &verdict.name)?;
            let (claim, why, answer, shown) = match &verdict.claim {
                Claim::Holds => ("holds", None, None, None),
                Claim::Void => ("void", None, None, None),
                Claim::Undecided(why) => ("undecided", Some(why), None, None),
                Claim::Broken(broken) => ("broken", Some(&broken.2), Some(broken.1.word()), Some(example(py, &broken.0)?)),
            };
            dict.set_item("claim", claim)?;
            dict.set_item("why", why)?;
            dict.set_item("answer", answer)?;
            dict.set_item("example", shown)?;
            Ok(dict)
        })
        .collect()
}

/// What is proved about single policies: those that never apply, those that never matter beside another, forbids that can err.
#[pyfunction]
#[pyo3(signature = (policies, schema, command, limit=60_000))]
pub fn policy_examine<'py>(
    py: Python<'py>,
    policies: &str,
    schema: &str,
    command: Vec<String>,
    limit: u32,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let solver = SolverCommand { argv: &command, limit };
    let found = py.detach(|| creto_analysis::examine(policies, schema, &solver)).or_raise(py)?;
    let lines = Lines::of(policies);
    found.iter().map(|each| finding(py, each, &lines)).collect()
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(policy_compare, module)?)?;
    module.add_function(wrap_pyfunction!(policy_prove, module)?)?;
    module.add_function(wrap_pyfunction!(policy_examine, module)?)
}
