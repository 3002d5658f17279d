//! What validates and still may not mean what it says.

use crate::finding::{Finding, Severity};
use crate::parts::each_part;
use crate::source::on_large_stack;
use cedar_policy::{PolicySet, pst};
use cedar_policy_core::ast;
use pst::{ActionConstraint, BinaryOp, Clause, Effect, Expr, PrincipalConstraint, ResourceConstraint, Template, UnaryOp};

/// Warnings about a set, in its order.
pub fn lint(set: &PolicySet) -> Vec<Finding> {
    // Reading a policy back recurses as deeply as its expressions nest.
    on_large_stack(|| warnings(set)).unwrap_or_else(|error| {
        vec![Finding { severity: Severity::Warning, rule: "lint", policy: None, message: error.to_string(), help: None, span: None }]
    })
}

fn warnings(set: &PolicySet) -> Vec<Finding> {
    let mut read = Vec::new();
    for policy in set.policies() {
        let inner: &ast::Policy = policy.as_ref();
        let span = inner.loc().map(|loc| (loc.span.offset(), loc.span.len()));
        if let Ok(form) = policy.to_pst() {
            read.push((policy.id().to_string(), span, form.body().clone()));
        }
    }
    let mut found = Vec::new();
    for (at, (id, span, body)) in read.iter().enumerate() {
        let mut warn = |rule: &'static str, message: String, help: &str| {
            found.push(Finding {
                severity: Severity::Warning,
                rule,
                policy: Some(id.clone()),
                message,
                help: Some(help.to_owned()),
                span: *span,
            });
        };
        let free =
            body.principal == PrincipalConstraint::Any && body.action == ActionConstraint::Any && body.resource == ResourceConstraint::Any;
        let anybody = body.principal == PrincipalConstraint::Any && body.resource == ResourceConstraint::Any;
        if body.effect == Effect::Permit && body.clauses().is_empty() {
            if free {
                warn(
                    "unconditional",
                    format!("policy `{id}` permits everything to everybody"),
                    "name a principal, an action or a resource, or give it a condition",
                );
            } else if anybody && !read.iter().any(|(_, _, other)| other.effect == Effect::Forbid && meets(&body.action, &other.action)) {
                warn(
                    "unconditional",
                    format!("policy `{id}` permits its actions to everybody, on everything, and no policy forbids any of them"),
                    "name a principal or a resource, or give it a condition; if it is meant so, say `@expect(\"unconditional\")`",
                );
            }
        }
        for (other, _, earlier) in read.iter().take(at) {
            if same(earlier, body) {
                warn("duplicate", format!("policy `{id}` says the same as `{other}`"), "delete one of them");
            }
        }
        for (other, _, wider) in &read {
            // An annotation is a reason to have the narrower policy beside the wider one.
            let covers = other != id
                && wider.effect == body.effect
                && wider.clauses().is_empty()
                && !same(wider, body)
                && wider.annotations.contains_key("oversight") == body.annotations.contains_key("oversight")
                && !body.annotations.contains_key("audit")
                && covers(wider, body);
            if covers {
                warn(
                    "shadowed",
                    format!("policy `{id}` never matters: `{other}` has no condition and covers all that it covers"),
                    "delete it, or narrow the other",
                );
            }
        }
        let mut facts = Facts::default();
        for clause in body.clauses() {
            let (Clause::When(expr) | Clause::Unless(expr)) = clause;
            facts.read(expr);
        }
        if facts.all_of.iter().any(|set| !facts.asked_empty.contains(set)) {
            warn(
                "empty-set",
                format!("policy `{id}` uses `containsAll` on a set that may be empty, and that is true of every empty set"),
                "add `&& !x.isEmpty()` for that set, or `x.containsAny(...)`",
            );
        }
        if body.effect == Effect::Forbid {
            if let Some(name) = body.clauses().iter().find_map(guard) {
                warn(
                    "guarded-forbid",
                    format!("policy `{id}` forbids only where `{name}` is given: whoever leaves it out is not forbidden"),
                    "make the attribute required in the schema, or forbid its absence too",
                );
            }
            if facts.arithmetic {
                warn(
                    "erring-forbid",
                    format!("policy `{id}` computes, and a sum that overflows errs: the act is denied then, whoever asks"),
                    "compare with constants instead of computing",
                );
            }
        }
    }
    // Who wrote `@expect("rule")` on a policy has seen it.
    found.retain(|finding| {
        let own = read.iter().find(|(id, _, _)| Some(id) == finding.policy.as_ref());
        let expected = own.and_then(|(_, _, body)| body.annotations.get("expect"));
        !expected.is_some_and(|rules| rules.split(',').any(|rule| rule.trim() == finding.rule))
    });
    found
}

/// True where some action may fit both; a group that is named by one of them may hold what the other names.
fn meets(a: &ActionConstraint, b: &ActionConstraint) -> bool {
    match (a, b) {
        (ActionConstraint::Any, _) | (_, ActionConstraint::Any) => true,
        (ActionConstraint::Eq(one), ActionConstraint::Eq(other)) => one == other,
        // What the groups hold is the schema's to say; where it is not known, the doubt is the policy's.
        _ => true,
    }
}

fn same(a: &Template, b: &Template) -> bool {
    a.effect == b.effect
        && a.principal == b.principal
        && a.action == b.action
        && a.resource == b.resource
        && a.clauses() == b.clauses()
        && a.annotations.get("oversight") == b.annotations.get("oversight")
}

fn covers(wider: &Template, narrower: &Template) -> bool {
    let principal = match (&wider.principal, &narrower.principal) {
        (PrincipalConstraint::Any, _) => true,
        (PrincipalConstraint::Is(kind), PrincipalConstraint::IsIn(other, _)) => kind == other,
        (PrincipalConstraint::In(entity), PrincipalConstraint::IsIn(_, other) | PrincipalConstraint::Eq(other)) => entity == other,
        (a, b) => a == b,
    };
    let resource = match (&wider.resource, &narrower.resource) {
        (ResourceConstraint::Any, _) => true,
        (ResourceConstraint::Is(kind), ResourceConstraint::IsIn(other, _)) => kind == other,
        (ResourceConstraint::In(entity), ResourceConstraint::IsIn(_, other) | ResourceConstraint::Eq(other)) => entity == other,
        (a, b) => a == b,
    };
    let action = match (&wider.action, &narrower.action) {
        (ActionConstraint::Any, _) => true,
        (ActionConstraint::In(many), ActionConstraint::Eq(one)) => many.contains(one),
        (ActionConstraint::In(many), ActionConstraint::In(few)) => few.iter().all(|one| many.contains(one)),
        (a, b) => a == b,
    };
    principal && resource && action
}

/// The attribute that a `when` asks for before anything else.
fn guard(clause: &Clause) -> Option<String> {
    let Clause::When(expr) = clause else { return None };
    let mut open = vec![&**expr];
    while let Some(next) = open.pop() {
        match next {
            Expr::BinaryOp { op: BinaryOp::And, left, right } => open.extend([&**right, &**left]),
            Expr::HasAttr { expr, attrs } if matches!(&**expr, Expr::Var(pst::Var::Context)) => {
                return Some(attrs.iter().fold("context".to_owned(), |path, attr| format!("{path}.{attr}")));
            }
            _ => {}
        }
    }
    None
}

#[derive(Default)]
struct Facts {
    /// The sets that `containsAll` is asked with, and that may be empty; and those that are asked whether they are.
    all_of: Vec<Expr>,
    asked_empty: Vec<Expr>,
    arithmetic: bool,
}

impl Facts {
    fn read(&mut self, expr: &Expr) {
        match expr {
            Expr::BinaryOp { op, right, .. } => {
                self.arithmetic |= matches!(op, BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul);
                let listed = matches!(&**right, Expr::Set(items) if !items.is_empty());
                if *op == BinaryOp::ContainsAll && !listed {
                    self.all_of.push((**right).clone());
                }
            }
            Expr::UnaryOp { op: UnaryOp::IsEmpty, expr } => self.asked_empty.push((**expr).clone()),
            _ => {}
        }
        each_part(expr, |part| self.read(part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<(String, &'static str)> {
        let set: PolicySet = text.parse().unwrap();
        lint(&set).into_iter().map(|f| (f.policy.unwrap(), f.rule)).collect()
    }

    #[test]
    fn each_rule_finds_what_it_is_for_and_nothing_else() {
        let cases = [
            ("permit (principal, action, resource);", vec!["unconditional"]),
            ("permit (principal, action == Action::\"a\", resource);", vec!["unconditional"]),
            ("permit (principal, action == Action::\"a\", resource); forbid (principal, action, resource) when { context.late };", vec![]),
            ("@expect(\"unconditional\") permit (principal, action == Action::\"a\", resource);", vec![]),
            (
                "permit (principal is U, action == Action::\"a\", resource); permit (principal is U, action == Action::\"a\", resource);",
                vec!["duplicate"],
            ),
            (
                "permit (principal, action == Action::\"a\", resource is F); permit (principal == U::\"x\", action == Action::\"a\", resource is F);",
                vec!["shadowed"],
            ),
            (
                "permit (principal, action == Action::\"a\", resource is F); @audit(\"after\") permit (principal == U::\"x\", action == Action::\"a\", resource is F);",
                vec![],
            ),
            ("permit (principal is U, action, resource) when { principal.roles.containsAll(context.asked) };", vec!["empty-set"]),
            ("permit (principal is U, action, resource) when { principal.roles.containsAll([\"a\"]) };", vec![]),
            (
                "permit (principal is U, action, resource) when { !context.asked.isEmpty() && principal.roles.containsAll(context.asked) };",
                vec![],
            ),
            ("forbid (principal, action, resource) when { context has amount && context.amount > 3 };", vec!["guarded-forbid"]),
            ("forbid (principal, action, resource) when { context.amount > 3 };", vec![]),
            ("forbid (principal, action, resource) when { context.amount * 2 > 3 };", vec!["erring-forbid"]),
        ];
        for (text, wanted) in cases {
            assert_eq!(rules(text).into_iter().map(|(_, rule)| rule).collect::<Vec<_>>(), wanted, "{text}");
        }
    }
}
