//! What a single set says that it cannot mean: policies that never apply, policies that never matter, forbids that can err.

use crate::counterexample::Counterexample;
use crate::rules::{Questions, applies, name};
use crate::solver::{Process, SolverCommand, finish};
use crate::{on_large_stack, read};
use cedar_policy::{Effect, Policy, RequestEnv};
use cedar_policy_core::ast;
use cedar_policy_symcc::CompiledPolicy;
use creto_authz::{Finding, Severity};
use creto_enablement_common::Result;

/// Warnings about one set, proved; and those that could not be decided.
///
/// # Errors
/// `InvalidInput` where the set is not valid; a failure of the solver.
pub fn examine(policies: &str, schema: &str, solver: &SolverCommand<'_>) -> Result<Vec<Finding>> {
    on_large_stack(|| {
        let parsed = read("the policies", policies, schema)?;
        let mut questions = Questions::new(&parsed, Process::start(solver)?)?;
        let environments = questions.environments();
        let listed: Vec<Policy> = parsed.policies.policies().cloned().collect();
        let mut found = Vec::new();
        let mut idle = vec![false; listed.len()];
        for (policy, idle) in listed.iter().zip(&mut idle) {
            let kinds: Vec<_> = environments.iter().filter(|env| applies(policy, env, &questions.actions)).collect();
            *idle = every(&mut questions, &kinds, &mut found, policy, Question::Never);
            if *idle {
                found.push(finding(
                    policy,
                    "impossible",
                    format!("policy `{}` never applies: no request that the schema allows fulfils it", policy.id()),
                    "two of its conditions exclude each other, or one excludes the scope: mend or delete it",
                ));
            } else if policy.effect() == Effect::Forbid {
                for env in &kinds {
                    if let Some(example) = errs(&mut questions, policy, env) {
                        found.push(finding(
                            policy,
                            "erring-forbid",
                            format!(
                                "policy `{}` can err, and the act is denied then: {} on {} with context {}",
                                policy.id(),
                                example.action,
                                example.resource,
                                example.context
                            ),
                            "bound what it computes with, or compare with constants",
                        ));
                        break;
                    }
                }
            }
        }
        for (at, (policy, own)) in listed.iter().zip(&idle).enumerate() {
            if *own || policy.annotation("audit").is_some() {
                continue; // an annotation is a reason to have the narrower policy beside the wider one
            }
            let kinds: Vec<_> = environments.iter().filter(|env| applies(policy, env, &questions.actions)).collect();
            for (place, (wider, other)) in listed.iter().zip(&idle).enumerate() {
                let comparable = place != at
                    && !other
                    && wider.effect() == policy.effect()
                    && asked_of(wider) == asked_of(policy)
                    && kinds.iter().all(|env| applies(wider, env, &questions.actions));
                if !comparable || !every(&mut questions, &kinds, &mut found, policy, Question::Implies(wider)) {
                    continue;
                }
                let back = kinds.len() == environments.iter().filter(|env| applies(wider, env, &questions.actions)).count()
                    && every(&mut questions, &kinds, &mut found, wider, Question::Implies(policy));
                if back && place > at {
                    continue; // of two that say the same, the later one is named
                }
                let says = if back { "says the same as" } else { "never matters beside" };
                found.push(finding(
                    policy,
                    if back { "duplicate" } else { "shadowed" },
                    format!("policy `{}` {says} `{}`: wherever it applies, so does the other", policy.id(), wider.id()),
                    "delete it, or narrow the other",
                ));
                break;
            }
        }
        Ok(found)
    })
}

/// By whose name a forbid can be lifted; without a name by its own.
fn asked_of(policy: &Policy) -> Option<String> {
    creto_authz::lifted_by(policy.id().as_ref(), policy.annotation("oversight")).map(str::to_owned)
}

enum Question<'a> {
    Never,
    Implies(&'a Policy),
}

/// True where the answer is proved to be yes for every kind of request.
#[expect(clippy::result_large_err, reason = "the error is cedar-policy-symcc's own")]
fn every(questions: &mut Questions<'_>, kinds: &[&RequestEnv], found: &mut Vec<Finding>, policy: &Policy, question: Question<'_>) -> bool {
    for env in kinds {
        let (compiler, schema) = questions.compiler();
        let compiled = CompiledPolicy::compile(policy, env, schema);
        let answer = compiled.and_then(|own| match &question {
            Question::Never => finish(compiler.check_never_matches_opt(&own)).unwrap_or(Ok(false)),
            Question::Implies(wider) => {
                let wider = CompiledPolicy::compile(wider, env, schema)?;
                finish(compiler.check_matches_implies_opt(&own, &wider)).unwrap_or(Ok(false))
            }
        });
        match answer {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => {
                found.push(finding(
                    policy,
                    "undecided",
                    format!("policy `{}`: nothing is known for {}: {error}", policy.id(), name(env)),
                    "ask again with more time (`--seconds`)",
                ));
                return false;
            }
        }
    }
    true
}

fn errs(questions: &mut Questions<'_>, policy: &Policy, env: &RequestEnv) -> Option<Counterexample> {
    let (compiler, schema) = questions.compiler();
    let compiled = CompiledPolicy::compile(policy, env, schema).ok()?;
    let found = finish(compiler.check_never_errors_with_counterexample_opt(&compiled)).ok()?.ok()?;
    found.as_ref().map(Counterexample::of)
}

fn finding(policy: &Policy, rule: &'static str, message: String, help: &str) -> Finding {
    let inner: &ast::Policy = policy.as_ref();
    Finding {
        severity: Severity::Warning,
        rule,
        policy: Some(policy.id().to_string()),
        message,
        help: Some(help.to_owned()),
        span: inner.loc().map(|loc| (loc.span.offset(), loc.span.len())),
    }
}
