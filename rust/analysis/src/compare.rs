//! What a change of policies changes, for every request that there can be.

use crate::counterexample::{Answer, Counterexample, answer};
use crate::rules::{Questions, Side, Undecided, name};
use crate::solver::{Process, SolverCommand};
use crate::{on_large_stack, read};
use cedar_policy::RequestEnv;
use cedar_policy_symcc::Env;
use creto_authz::Parsed;
use creto_enablement_common::Result;

/// One way in which the answer changes, for one kind of request.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The kind of request: principal type, action and resource type.
    pub environment: String,
    /// Before.
    pub before: Answer,
    /// After.
    pub after: Answer,
    /// Why it was so before, and why after.
    pub reasons: (String, String),
    /// A request that shows it.
    pub example: Counterexample,
}

/// What is known about the change as a whole.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// How many kinds of request there are.
    pub environments: usize,
    /// How many questions the solver was asked.
    pub questions: usize,
    /// Every way in which an answer changes.
    pub changes: Vec<Change>,
    /// Where nothing could be proved.
    pub undecided: Vec<Undecided>,
}

impl Comparison {
    /// True where it is proved that every request is answered the same.
    pub fn equivalent(&self) -> bool {
        self.changes.is_empty() && self.undecided.is_empty()
    }
}

/// Compares two sets over one schema.
///
/// # Errors
/// `InvalidInput` where a set is not valid; a failure of the solver.
pub fn compare(old: &str, new: &str, schema: &str, solver: &SolverCommand<'_>) -> Result<Comparison> {
    on_large_stack(|| {
        let (old, new) = (read("the old set", old, schema)?, read("the new set", new, schema)?);
        let mut questions = Questions::new(&new, Process::start(solver)?)?;
        let mut comparison = Comparison::default();
        for env in questions.environments() {
            comparison.environments += 1;
            let sides = (Side::of(&old, &env, &questions.actions), Side::of(&new, &env, &questions.actions));
            if sides.0.same(&sides.1) {
                continue;
            }
            kind(&mut questions, (&old, &new), (&sides.0, &sides.1), &env, &mut comparison)?;
        }
        comparison.questions = questions.asked();
        Ok(comparison)
    })
}

fn kind(
    questions: &mut Questions<'_>,
    (old, new): (&Parsed, &Parsed),
    (was, is): (&Side, &Side),
    env: &RequestEnv,
    comparison: &mut Comparison,
) -> Result<()> {
    let (allowed_before, allowed_after) = (was.allowed()?, is.allowed()?);
    let (open_before, open_after) = (was.not_denied()?, is.not_denied()?);
    let mut look = |found: core::result::Result<Option<Env>, String>, wanted: (Answer, Answer)| match found {
        Ok(None) => {}
        Ok(Some(env_found)) => {
            let (before, why_before) = answer(&old.policies, &env_found);
            let (after, why_after) = answer(&new.policies, &env_found);
            if (before, after) == wanted {
                comparison.changes.push(Change {
                    environment: name(env),
                    before,
                    after,
                    reasons: (why_before, why_after),
                    example: Counterexample::of(&env_found),
                });
            } else {
                // A forbid that errs is passed over by Cedar and denies at the gate: the solver speaks of the former.
                comparison.undecided.push(Undecided {
                    environment: name(env),
                    why: format!("{} to {}: only requests were found for which a policy errs", wanted.0.word(), wanted.1.word()),
                });
            }
        }
        Err(why) => comparison
            .undecided
            .push(Undecided { environment: name(env), why: format!("{} to {}: {why}", wanted.0.word(), wanted.1.word()) }),
    };
    look(questions.apart(&allowed_after, &open_before, env), (Answer::Deny, Answer::Allow));
    look(questions.apart(&allowed_before, &open_after, env), (Answer::Allow, Answer::Deny));
    if let Some(asked) = was.asked(&[&was.plain])? {
        look(questions.apart(&asked, &open_after, env), (Answer::Ask, Answer::Deny));
    }
    if let Some(asked) = is.asked(&[&is.plain])? {
        look(questions.apart(&asked, &open_before, env), (Answer::Deny, Answer::Ask));
    }
    // Asked before, and now permitted with nothing against it; and the other way round.
    if let Some(asked) = was.asked(&[&was.plain, &is.plain, &is.oversight])? {
        look(questions.apart(&asked, &is.unpermitted()?, env), (Answer::Ask, Answer::Allow));
    }
    if let Some(asked) = is.asked(&[&is.plain, &was.plain, &was.oversight])? {
        look(questions.apart(&asked, &was.unpermitted()?, env), (Answer::Allow, Answer::Ask));
    }
    Ok(())
}
