//! What a change of policies changes, for every request that there can be.

use crate::counterexample::{Answer, Answered, Counterexample, answer};
use crate::rules::{Questions, Side, Undecided, alike, name};
use crate::solver::{Process, SolverCommand};
use crate::{on_large_stack, read};
use cedar_policy::RequestEnv;
use cedar_policy_symcc::Env;
use creto_authz::Parsed;
use creto_enablement_common::Result;
use std::collections::BTreeSet;

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
    /// Of whom it is newly asked and of whom no longer, by the names of oversight policies, where a human is asked before and after.
    pub asked: (Vec<String>, Vec<String>),
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

/// What is looked for in one kind of request, and what came of it.
struct Look<'a> {
    old: &'a Parsed,
    new: &'a Parsed,
    env: &'a RequestEnv,
    changes: Vec<Change>,
    undecided: Vec<Undecided>,
}

impl Look<'_> {
    /// Takes in an answer of the solver: a request that it found counts where cedar-policy says of it what was `wanted`.
    fn take(&mut self, found: core::result::Result<Option<Env>, String>, what: &str, wanted: impl Fn(&Answered, &Answered) -> bool) {
        let why = match found {
            Ok(None) => return,
            Ok(Some(found)) => {
                let (before, after) = (answer(&self.old.policies, &found), answer(&self.new.policies, &found));
                if wanted(&before, &after) {
                    return self.changes.push(Change {
                        environment: name(self.env),
                        before: before.answer,
                        after: after.answer,
                        asked: moved(&before, &after),
                        reasons: (before.why, after.why),
                        example: Counterexample::of(&found),
                    });
                }
                // A forbid that errs is passed over by Cedar and denies at the gate: the solver speaks of the former.
                "only requests were found for which a policy errs".to_owned()
            }
            Err(why) => why,
        };
        self.undecided.push(Undecided { environment: name(self.env), why: format!("{what}: {why}") });
    }

    fn answers(&mut self, found: core::result::Result<Option<Env>, String>, before: Answer, after: Answer) {
        self.take(found, &format!("{} to {}", before.word(), after.word()), |was, is| (was.answer, is.answer) == (before, after));
    }
}

/// Of whom it is newly asked, and of whom no longer.
fn moved(before: &Answered, after: &Answered) -> (Vec<String>, Vec<String>) {
    if (before.answer, after.answer) != (Answer::Ask, Answer::Ask) {
        return Default::default();
    }
    let without = |of: &Answered, other: &Answered| of.asked.iter().filter(|name| !other.asked.contains(name)).cloned().collect();
    (without(after, before), without(before, after))
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
    let mut look = Look { old, new, env, changes: Vec::new(), undecided: Vec::new() };
    look.answers(questions.apart(&allowed_after, &open_before, env), Answer::Deny, Answer::Allow);
    look.answers(questions.apart(&allowed_before, &open_after, env), Answer::Allow, Answer::Deny);
    if let Some(asked) = was.asked(&[&was.plain])? {
        look.answers(questions.apart(&asked, &open_after, env), Answer::Ask, Answer::Deny);
    }
    if let Some(asked) = is.asked(&[&is.plain])? {
        look.answers(questions.apart(&asked, &open_before, env), Answer::Deny, Answer::Ask);
    }
    // Asked before, and now permitted with nothing against it; and the other way round.
    if let Some(asked) = was.asked(&[&was.plain, &is.plain, &is.oversight])? {
        look.answers(questions.apart(&asked, &is.unpermitted()?, env), Answer::Ask, Answer::Allow);
    }
    if let Some(asked) = is.asked(&[&is.plain, &was.plain, &was.oversight])? {
        look.answers(questions.apart(&asked, &was.unpermitted()?, env), Answer::Allow, Answer::Ask);
    }
    approvers(questions, &mut look, was, is)?;
    comparison.changes.append(&mut look.changes);
    comparison.undecided.append(&mut look.undecided);
    Ok(())
}

/// Asked before and after, and by a name that one of the two does not ask by.
fn approvers(questions: &mut Questions<'_>, look: &mut Look<'_>, was: &Side, is: &Side) -> Result<()> {
    let names: BTreeSet<&str> = was.names().union(&is.names()).copied().collect();
    let env = look.env;
    for name in names {
        let (before, after) = (was.named(name), is.named(name));
        if alike(&before, &after) {
            continue;
        }
        // One request often shows who takes whose place: it answers for both.
        let shown = |look: &Look<'_>, newly: bool| {
            look.changes.iter().any(|change| (if newly { &change.asked.0 } else { &change.asked.1 }).iter().any(|other| other == name))
        };
        for (newly, side, own, other, others) in [(true, is, &after, was, &before), (false, was, &before, is, &after)] {
            if shown(look, newly) {
                continue;
            }
            let Some(asked) = side.asked_by(own, &[&side.plain, &other.plain, others])? else { continue };
            let what = format!("{} of `{name}`", if newly { "newly asked" } else { "no longer asked" });
            look.take(questions.apart(&asked, &other.unasked()?, env), &what, |was, is| {
                let (to, from) = moved(was, is);
                (if newly { to } else { from }).iter().any(|found| found == name)
            });
        }
    }
    Ok(())
}
