//! Why a request is answered as it is, in words: each policy whose scope fits, each of its conditions with its value.

use crate::annotation::lifted_by;
use crate::finding::with_causes;
use crate::parts::each_part;
use crate::reference;
use crate::source::Parsed;
use cedar_policy::{
    ActionConstraint, Effect, Entities, EntityUid, EvalResult, Expression, Policy, PrincipalConstraint, Request, ResourceConstraint,
    eval_expression, pst,
};
use creto_enablement_common::{CheckRef, Error, Result};
use std::str::FromStr;

/// What one policy had to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The policy.
    pub policy: String,
    /// True for a forbid.
    pub forbid: bool,
    /// The oversight policy that can lift it.
    pub oversight: Option<String>,
    /// True where all its conditions hold; none where one of them erred.
    pub holds: Option<bool>,
    /// Each condition as written, and its value or its error. Those after the first that is not true were not reached.
    pub conditions: Vec<Condition>,
}

/// One part of a `when` or `unless`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `when` or `unless`.
    pub word: &'static str,
    /// The text, in Cedar.
    pub text: String,
    /// `true`, `false`, another value, or the error.
    pub value: String,
    /// What it looks at, `context.path` or `principal.role`, and what that is; `not given` where it is not there.
    pub given: Vec<(String, String)>,
    /// False where Cedar would have stopped before it.
    pub reached: bool,
}

/// Every policy whose scope fits the request, in the set's order.
pub(crate) fn explain(parsed: &Parsed, check: &CheckRef<'_>) -> Result<Vec<Explained>> {
    let request = reference::request(check, parsed, false)?;
    let unknown = || Error::internal("a request without one of its parts");
    let principal = request.principal().ok_or_else(unknown)?;
    let action = request.action().ok_or_else(unknown)?;
    let resource = request.resource().ok_or_else(unknown)?;
    let entities = &parsed.entities;
    let mut explained = Vec::new();
    for policy in parsed.policies.policies() {
        let fits = principal_fits(&policy.principal_constraint(), principal, entities)
            && action_fits(&policy.action_constraint(), action, entities)
            && resource_fits(&policy.resource_constraint(), resource, entities);
        if fits {
            explained.push(one(policy, &request, entities)?);
        }
    }
    Ok(explained)
}

fn under(child: &EntityUid, ancestor: &EntityUid, entities: &Entities) -> bool {
    child == ancestor || (entities.get(child).is_some() && entities.is_ancestor_of(ancestor, child))
}

fn principal_fits(constraint: &PrincipalConstraint, uid: &EntityUid, entities: &Entities) -> bool {
    match constraint {
        PrincipalConstraint::Any => true,
        PrincipalConstraint::Eq(other) => uid == other,
        PrincipalConstraint::In(other) => under(uid, other, entities),
        PrincipalConstraint::Is(kind) => uid.type_name() == kind,
        PrincipalConstraint::IsIn(kind, other) => uid.type_name() == kind && under(uid, other, entities),
    }
}

fn resource_fits(constraint: &ResourceConstraint, uid: &EntityUid, entities: &Entities) -> bool {
    match constraint {
        ResourceConstraint::Any => true,
        ResourceConstraint::Eq(other) => uid == other,
        ResourceConstraint::In(other) => under(uid, other, entities),
        ResourceConstraint::Is(kind) => uid.type_name() == kind,
        ResourceConstraint::IsIn(kind, other) => uid.type_name() == kind && under(uid, other, entities),
    }
}

fn action_fits(constraint: &ActionConstraint, uid: &EntityUid, entities: &Entities) -> bool {
    match constraint {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(other) => uid == other,
        ActionConstraint::In(others) => others.iter().any(|other| under(uid, other, entities)),
    }
}

fn one(policy: &Policy, request: &Request, entities: &Entities) -> Result<Explained> {
    let form = policy.to_pst().map_err(|e| Error::internal("reading a policy back").with_source(e))?;
    let mut conditions = Vec::new();
    let mut holds = Some(true);
    for clause in form.body().clauses() {
        let (word, expr) = match clause {
            pst::Clause::When(expr) => ("when", expr),
            pst::Clause::Unless(expr) => ("unless", expr),
        };
        let wanted = word == "when";
        let mut parts = Vec::new();
        // `a && b` under `when` and `a || b` under `unless` are told apart; anything else is told as a whole.
        split(expr, if wanted { pst::BinaryOp::And } else { pst::BinaryOp::Or }, &mut parts);
        for part in parts {
            let text = part.to_string();
            let value = evaluate(&text, request, entities);
            let mut looked = Vec::new();
            look(part, &mut looked);
            looked.dedup();
            let given = looked
                .into_iter()
                .map(|path| {
                    let value = evaluate(&path, request, entities).map_or_else(|_| "not given".to_owned(), |value| value.to_string());
                    (path, value)
                })
                .collect();
            let reached = holds == Some(true);
            if reached {
                holds = match &value {
                    Ok(EvalResult::Bool(b)) => Some(*b == wanted),
                    _ => None,
                };
            }
            let value = value.map_or_else(|error| format!("error: {error}"), |value| value.to_string());
            conditions.push(Condition { word, text, value, given, reached });
        }
    }
    let forbid = policy.effect() == Effect::Forbid;
    let id = policy.id().to_string();
    let oversight = lifted_by(&id, policy.annotation("oversight")).filter(|_| forbid).map(str::to_owned);
    Ok(Explained { policy: id, forbid, oversight, holds, conditions })
}

fn evaluate(text: &str, request: &Request, entities: &Entities) -> core::result::Result<EvalResult, String> {
    let expression = Expression::from_str(text).map_err(|e| with_causes(&e))?;
    eval_expression(request, entities, &expression).map_err(|e| with_causes(&e))
}

/// The attributes that a condition looks at, each by its whole path, in the order of the text.
fn look(expr: &pst::Expr, found: &mut Vec<String>) {
    match expr {
        pst::Expr::GetAttr { expr: inner, .. } if of_the_request(inner) => {
            let path = expr.to_string();
            if !found.contains(&path) {
                found.push(path);
            }
        }
        _ => each_part(expr, |part| look(part, found)),
    }
}

fn of_the_request(expr: &pst::Expr) -> bool {
    match expr {
        pst::Expr::Var(_) => true,
        pst::Expr::GetAttr { expr, .. } => of_the_request(expr),
        _ => false,
    }
}

fn split<'a>(expr: &'a pst::Expr, at: pst::BinaryOp, parts: &mut Vec<&'a pst::Expr>) {
    let mut open = vec![expr];
    while let Some(next) = open.pop() {
        match next {
            pst::Expr::BinaryOp { op, left, right } if *op == at => open.extend([&**right, &**left]),
            other => parts.push(other),
        }
    }
}
