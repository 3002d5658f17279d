//! Which circumstances a policy set looks at.

use crate::parts::each_part;
use crate::source::Parsed;
use cedar_policy::{ActionConstraint, EntityUid, pst};
use std::collections::BTreeSet;

/// The names of the context that policies which may apply to the action mention; `*` where one takes the context as a whole.
pub(crate) fn reads(parsed: &Parsed, action: &EntityUid) -> BTreeSet<String> {
    let under = |group: &EntityUid| group == action || parsed.entities.is_ancestor_of(group, action);
    let mut names = BTreeSet::new();
    for policy in parsed.policies.policies() {
        let fits = match policy.action_constraint() {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(one) => one == *action,
            ActionConstraint::In(groups) => groups.iter().any(under),
        };
        if fits && let Ok(form) = policy.to_pst() {
            for clause in form.body().clauses() {
                let (pst::Clause::When(expr) | pst::Clause::Unless(expr)) = clause;
                read(expr, &mut names);
            }
        }
    }
    names
}

fn is_context(expr: &pst::Expr) -> bool {
    matches!(expr, pst::Expr::Var(pst::Var::Context))
}

fn read(expr: &pst::Expr, names: &mut BTreeSet<String>) {
    match expr {
        pst::Expr::GetAttr { expr, attr } if is_context(expr) => _ = names.insert(attr.to_string()),
        pst::Expr::HasAttr { expr, attrs } if is_context(expr) => names.extend(attrs.iter().take(1).map(ToString::to_string)),
        pst::Expr::Var(pst::Var::Context) => _ = names.insert("*".to_owned()),
        _ => each_part(expr, |part| read(part, names)),
    }
}
