//! What must never be, written down beside the policies and proved: nobody but X may ever do Y.

use crate::counterexample::{Answer, Counterexample, answer};
use crate::rules::{Questions, Side, applies, name};
use crate::solver::{Process, SolverCommand};
use crate::{on_large_stack, read};
use cedar_policy::{Policy, PolicyId, PolicySet, RequestEnv, Schema, ValidationMode, Validator};
use creto_authz::{Limits, Parsed, check_text};
use creto_enablement_common::{Error, Result};

/// One assertion.
#[derive(Clone, Debug)]
pub struct Assertion {
    /// What it is called.
    pub name: String,
    /// Which requests it speaks of: a scope with conditions, as after `permit`.
    pub requests: String,
    /// The answers that none of them may get.
    pub never: Vec<Answer>,
}

/// What came of an assertion.
#[derive(Clone, Debug, PartialEq)]
pub enum Claim {
    /// It holds for every request that there can be.
    Holds,
    /// It does not, and this request shows it, with its answer and why.
    Broken(Box<(Counterexample, Answer, String)>),
    /// Nothing is known, and why.
    Undecided(String),
    /// It speaks of no request that there can be.
    Void,
}

/// An assertion and what came of it.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The assertion's name.
    pub name: String,
    /// What came of it.
    pub claim: Claim,
}

/// Proves assertions about one set.
///
/// # Errors
/// `InvalidInput` where the set or an assertion is not valid; a failure of the solver.
pub fn prove(policies: &str, schema: &str, assertions: &[Assertion], solver: &SolverCommand<'_>) -> Result<Vec<Verdict>> {
    on_large_stack(|| {
        let parsed = read("the policies", policies, schema)?;
        let mut questions = Questions::new(&parsed, Process::start(solver)?)?;
        assertions
            .iter()
            .map(|assertion| {
                let region = region(assertion, questions.schema)?;
                Ok(Verdict { name: assertion.name.clone(), claim: claim(&mut questions, &parsed, &region, &assertion.never)? })
            })
            .collect()
    })
}

/// The requests that an assertion speaks of, as a permit.
fn region(assertion: &Assertion, schema: &Schema) -> Result<Policy> {
    let wrong = |why: String| Error::invalid(format!("assertion `{}`: {why}", assertion.name));
    let text = format!("permit {};", assertion.requests.trim().trim_end_matches(';'));
    check_text("an assertion", &text, Limits::DEFAULT.policy_bytes, Limits::DEFAULT.nesting)?;
    let policy = Policy::parse(Some(PolicyId::new("requests")), text)
        .map_err(|error| wrong(format!("`requests` does not read as a scope with conditions: {error}")))?;
    let set = PolicySet::from_policies([policy.clone()]).map_err(|error| wrong(error.to_string()))?;
    let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
    match result.validation_errors().next() {
        Some(error) => Err(wrong(error.to_string())),
        None => Ok(policy),
    }
}

fn claim(questions: &mut Questions<'_>, parsed: &Parsed, region: &Policy, never: &[Answer]) -> Result<Claim> {
    let inside = PolicySet::from_policies([region.clone()]).map_err(|error| Error::internal("an assertion").with_source(error))?;
    let nothing = PolicySet::new();
    let (mut speaks, mut unknown) = (false, None);
    for env in questions.environments() {
        if !applies(region, &env, &questions.actions) {
            continue;
        }
        match questions.apart(&inside, &nothing, &env) {
            Ok(None) => continue,
            Ok(Some(_)) => speaks = true,
            Err(why) => unknown = Some(format!("{}: {why}", name(&env))),
        }
        let side = Side::of(parsed, &env, &questions.actions);
        for wanted in never {
            match within(questions, &side, region, *wanted, &env)? {
                Ok(None) => {}
                Ok(Some(found)) => {
                    let given = answer(&parsed.policies, &found);
                    if given.answer == *wanted {
                        return Ok(Claim::Broken(Box::new((Counterexample::of(&found), given.answer, given.why))));
                    }
                    unknown = Some(format!("{}: only requests were found for which a policy errs", name(&env)));
                }
                Err(why) => unknown = Some(format!("{}: {why}", name(&env))),
            }
        }
    }
    Ok(match unknown {
        Some(why) => Claim::Undecided(why),
        None if speaks => Claim::Holds,
        None => Claim::Void,
    })
}

type Found = core::result::Result<Option<cedar_policy_symcc::Env>, String>;

/// A request of the region that is answered so.
fn within(questions: &mut Questions<'_>, side: &Side, region: &Policy, wanted: Answer, env: &RequestEnv) -> Result<Found> {
    let inside = Side { permits: vec![region.clone()], ..Side::default() };
    let outside = inside.unpermitted()?;
    Ok(match wanted {
        Answer::Allow => questions.apart(&side.allowed()?, &outside, env),
        Answer::Ask => match side.asked(&[&side.plain])? {
            Some(asked) => questions.apart(&asked, &outside, env),
            None => Ok(None),
        },
        Answer::Deny => questions.apart(&inside.not_denied()?, &side.not_denied()?, env),
    })
}
