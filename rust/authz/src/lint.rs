//! What validates and still may not mean what it says.

use crate::annotation::lifted_by;
use crate::finding::{Finding, Severity};
use crate::parts::each_part;
use crate::scopes::{Read, Scopes};
use crate::source::on_large_stack;
use cedar_policy::{PolicySet, pst};
use cedar_policy_core::ast;
use pst::{ActionConstraint, BinaryOp, Clause, Effect, Expr, PrincipalConstraint, ResourceConstraint, Template, UnaryOp};
use std::collections::{HashMap, HashSet};

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
    let first = first_alike(&read);
    let forbidden = Forbidden::of(&read);
    let unconditional =
        Scopes::of(read.iter().enumerate().filter(|(at, (_, _, body))| first.get(*at) == Some(at) && body.clauses().is_empty()));
    // A forbid that holds where nothing is given that it asks for may be the one that catches who leaves something out.
    let catching = Scopes::of(
        read.iter()
            .enumerate()
            .filter(|(_, (_, _, body))| body.effect == Effect::Forbid && without(body, &Facts::of(body).optional) == Some(true)),
    );
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
            } else if anybody && !forbidden.meets(&body.action) {
                warn(
                    "unconditional",
                    format!("policy `{id}` permits its actions to everybody, on everything, and no policy forbids any of them"),
                    "name a principal or a resource, or give it a condition; if it is meant so, say `@expect(\"unconditional\")`",
                );
            }
        }
        if let Some((other, _, _)) = first.get(at).filter(|first| **first < at).and_then(|first| read.get(*first)) {
            warn("duplicate", format!("policy `{id}` says the same as `{other}`"), "delete one of them");
        }
        // An annotation is a reason to have the narrower policy beside the wider one.
        let wider = |(other, _, wider): &&Read| {
            wider.effect == body.effect
                && !same(wider, body)
                // A forbid that nobody can lift covers those that somebody can; who is asked differs by name.
                && (oversight(other, wider).is_none() || oversight(other, wider) == oversight(id, body))
                && !body.annotations.contains_key("audit")
        };
        if let Some((other, _, _)) = unconditional.covering(body).find(wider) {
            warn(
                "shadowed",
                format!("policy `{id}` never matters: `{other}` has no condition and covers all that it covers"),
                "delete it, or narrow the other",
            );
        }
        for key in ["id", "oversight"] {
            if let Some(name) = body.annotations.get(key).filter(|name| mixes_alphabets(name)) {
                warn(
                    "mixed-alphabets",
                    format!("`@{key}(\"{name}\")` mixes letters of several alphabets, and looks like another name"),
                    "write it in the letters of one alphabet",
                );
            }
        }
        let facts = Facts::of(body);
        if facts.all_of.iter().any(|set| !facts.asked_empty.contains(set)) {
            warn(
                "empty-set",
                format!("policy `{id}` uses `containsAll` on a set that may be empty, and that is true of every empty set"),
                "add `&& !x.isEmpty()` for that set, or `x.containsAny(...)`",
            );
        }
        if body.effect == Effect::Forbid {
            let absent = &facts.optional;
            let free = !absent.is_empty() && without(body, absent) == Some(false);
            // Another forbid may be there for who leaves it out.
            let caught = |(other, _, forbid): &Read| {
                let as_strict = oversight(other, forbid).is_none() || oversight(other, forbid) == oversight(id, body);
                as_strict && without(forbid, absent) == Some(true)
            };
            if free && !catching.covering(body).any(caught) {
                let names: Vec<String> = absent.iter().map(|path| format!("`context.{}`", path.join("."))).collect();
                warn(
                    "guarded-forbid",
                    format!("policy `{id}` forbids only where {} is given: whoever leaves it out is not forbidden", names.join(" or ")),
                    "make the attribute required in the schema, or forbid its absence too",
                );
            }
            if facts.arithmetic {
                warn(
                    "erring-forbid",
                    format!("policy `{id}` computes, and a result that overflows errs: the act is denied then, whoever asks"),
                    "compare with constants instead of computing",
                );
            }
            if let Some(path) = facts.unguarded() {
                warn(
                    "erring-forbid",
                    format!("policy `{id}` reads `{path}`, and that errs for who is not among the entities: the act is denied then"),
                    &format!("ask before: `{} && ...`", path.replacen('.', " has ", 1)),
                );
            }
        }
    }
    // Who wrote `@expect("rule")` on a policy has seen it.
    let expected: HashMap<&String, _> =
        read.iter().filter_map(|(id, _, body)| body.annotations.get("expect").map(|rules| (id, rules))).collect();
    found.retain(|finding| {
        let expected = finding.policy.as_ref().and_then(|id| expected.get(id));
        !expected.is_some_and(|rules| rules.split(',').any(|rule| rule.trim() == finding.rule))
    });
    found
}

/// Whether a name holds letters of two alphabets that are taken for each other.
fn mixes_alphabets(name: &str) -> bool {
    let alphabet = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => Some(0),
        '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}' => Some(1),
        '\u{400}'..='\u{52f}' => Some(2),
        '\u{530}'..='\u{58f}' => Some(3),
        '\u{13a0}'..='\u{13ff}' => Some(4),
        '\u{ff21}'..='\u{ff5a}' | '\u{1d400}'..='\u{1d7ff}' => Some(5),
        _ => None,
    };
    let mut seen = name.chars().filter_map(alphabet);
    seen.next().is_some_and(|first| seen.any(|other| other != first))
}

/// For each policy the first that says the same, with the same annotations of ours; itself, where none does before it.
fn first_alike(read: &[Read]) -> Vec<usize> {
    let mut places = HashMap::new();
    let wording = |(id, _, body): &Read| {
        let scope = (&body.principal, &body.action, &body.resource);
        format!("{:?}", (body.effect == Effect::Permit, scope, body.clauses(), audited(body), oversight(id, body)))
    };
    read.iter().enumerate().map(|(at, policy)| *places.entry(wording(policy)).or_insert(at)).collect()
}

/// The actions that forbids speak of.
#[derive(Default)]
struct Forbidden<'a> {
    any: bool,
    /// Some forbid speaks of a group or of all: what the groups hold is the schema's to say, and the doubt is the policy's.
    many: bool,
    named: HashSet<&'a pst::EntityUID>,
}

impl<'a> Forbidden<'a> {
    fn of(read: &'a [Read]) -> Self {
        let mut forbidden = Self::default();
        for (_, _, body) in read.iter().filter(|(_, _, body)| body.effect == Effect::Forbid) {
            forbidden.any = true;
            match &body.action {
                ActionConstraint::Eq(action) => _ = forbidden.named.insert(action),
                _ => forbidden.many = true,
            }
        }
        forbidden
    }

    /// True where some action may fit both this and a forbid.
    fn meets(&self, action: &ActionConstraint) -> bool {
        match action {
            ActionConstraint::Eq(action) => self.many || self.named.contains(action),
            _ => self.any,
        }
    }
}

fn same(a: &Template, b: &Template) -> bool {
    a.effect == b.effect
        && a.principal == b.principal
        && a.action == b.action
        && a.resource == b.resource
        && a.clauses() == b.clauses()
        && audited(a) == audited(b)
}

/// By whose name a forbid can be lifted.
fn oversight<'a>(id: &'a str, body: &'a Template) -> Option<&'a str> {
    lifted_by(id, body.annotations.get("oversight").map(|name| name.as_str()))
}

fn audited(body: &Template) -> bool {
    body.annotations.get("audit").is_some_and(|when| when == "after")
}

/// The attributes of the context that are asked for, each by its path.
type Paths = Vec<Vec<String>>;

/// Whether a policy's conditions hold where these are not given, if that settles it.
fn without(body: &Template, absent: &Paths) -> Option<bool> {
    let own: Vec<Option<bool>> = body
        .clauses()
        .iter()
        .map(|clause| match clause {
            Clause::When(expr) => settled(expr, absent),
            Clause::Unless(expr) => settled(expr, absent).map(|held| !held),
        })
        .collect();
    if own.contains(&Some(false)) { Some(false) } else { own.iter().all(Option::is_some).then_some(true) }
}

fn both(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), other) | (other, Some(true)) => other,
        (None, None) => None,
    }
}

/// What an expression is worth where these are not given, if that settles it.
fn settled(expr: &Expr, absent: &Paths) -> Option<bool> {
    match expr {
        Expr::Literal(pst::Literal::Bool(b)) => Some(*b),
        Expr::HasAttr { expr, attrs } if matches!(&**expr, Expr::Var(pst::Var::Context)) => {
            let asked = |path: &Vec<String>| path.len() <= attrs.len() && path.iter().zip(attrs.iter()).all(|(a, b)| a == b);
            if absent.iter().any(asked) { Some(false) } else { None }
        }
        Expr::UnaryOp { op: UnaryOp::Not, expr } => settled(expr, absent).map(|held| !held),
        Expr::BinaryOp { op: BinaryOp::And, left, right } => both(settled(left, absent), settled(right, absent)),
        Expr::BinaryOp { op: BinaryOp::Or, left, right } => {
            let not = |held: Option<bool>| held.map(|held| !held);
            not(both(not(settled(left, absent)), not(settled(right, absent))))
        }
        Expr::IfThenElse { cond, then_expr, else_expr } => match settled(cond, absent) {
            Some(true) => settled(then_expr, absent),
            Some(false) => settled(else_expr, absent),
            None => settled(then_expr, absent).filter(|held| Some(*held) == settled(else_expr, absent)),
        },
        _ => None,
    }
}

#[derive(Default)]
struct Facts {
    /// The sets that `containsAll` is asked with, and that may be empty; and those that are asked whether they are.
    all_of: Vec<Expr>,
    asked_empty: Vec<Expr>,
    /// What `context has` asks for.
    optional: Paths,
    arithmetic: bool,
    /// Attributes of the principal and of the resource that are read, and those that are asked for before.
    read: Vec<String>,
    asked: Vec<String>,
}

impl Facts {
    fn of(body: &Template) -> Self {
        let mut facts = Self::default();
        for clause in body.clauses() {
            let (Clause::When(expr) | Clause::Unless(expr)) = clause;
            facts.read(expr);
            if let Clause::When(expr) = clause {
                facts.look(expr);
            }
        }
        facts
    }

    /// An attribute that is read of who may be no entity.
    fn unguarded(&self) -> Option<&String> {
        self.read.iter().find(|path| !self.asked.contains(path))
    }

    fn look(&mut self, expr: &Expr) {
        let party = |of: &Expr| match of {
            Expr::Var(pst::Var::Principal) => Some("principal"),
            Expr::Var(pst::Var::Resource) => Some("resource"),
            _ => None,
        };
        match expr {
            Expr::GetAttr { expr, attr } => self.read.extend(party(expr).map(|of| format!("{of}.{attr}"))),
            Expr::HasAttr { expr, attrs } => self.asked.extend(party(expr).map(|of| format!("{of}.{}", attrs.first()))),
            _ => {}
        }
        each_part(expr, |part| self.look(part));
    }

    fn read(&mut self, expr: &Expr) {
        match expr {
            Expr::BinaryOp { op, right, .. } => {
                self.arithmetic |= matches!(op, BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Offset | BinaryOp::DurationSince);
                let listed = matches!(&**right, Expr::Set(items) if !items.is_empty());
                if *op == BinaryOp::ContainsAll && !listed {
                    self.all_of.push((**right).clone());
                }
            }
            Expr::UnaryOp { op: UnaryOp::IsEmpty, expr } => self.asked_empty.push((**expr).clone()),
            Expr::UnaryOp { op: UnaryOp::Neg, expr } => self.arithmetic |= !matches!(&**expr, Expr::Literal(_)),
            Expr::HasAttr { expr, attrs } if matches!(&**expr, Expr::Var(pst::Var::Context)) => {
                let path = attrs.iter().map(ToString::to_string).collect();
                if !self.optional.contains(&path) {
                    self.optional.push(path);
                }
            }
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
                "forbid (principal is U, action, resource); forbid (principal is U, action, resource); forbid (principal is U, action, resource);",
                vec!["duplicate", "duplicate"],
            ),
            (
                "permit (principal is U, action, resource); permit (principal is U, action == Action::\"a\", resource is F); permit (principal is U, action == Action::\"a\", resource);",
                vec!["shadowed", "shadowed"],
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
            ("forbid (principal, action, resource) unless { !(context has amount) || context.amount < 3 };", vec!["guarded-forbid"]),
            ("forbid (principal, action, resource) when { if context has a then context.a else false };", vec!["guarded-forbid"]),
            (
                "forbid (principal, action, resource) when { context has a && context.a || context has b && context.b };",
                vec!["guarded-forbid"],
            ),
            ("forbid (principal, action, resource) when { context has r.a && context.r.a } when { true };", vec!["guarded-forbid"]),
            ("forbid (principal, action, resource) unless { context has amount && context.amount < 3 };", vec![]),
            ("forbid (principal, action, resource) when { !(context has amount) || context.amount > 3 };", vec![]),
            (
                "forbid (principal, action == Action::\"a\", resource) when { context has amount && context.amount > 3 }; forbid (principal, action, resource) unless { context has amount };",
                vec![],
            ),
            (
                "forbid (principal, action == Action::\"a\", resource) when { context has amount && context.amount > 3 }; forbid (principal, action, resource) unless { context has other };",
                vec!["guarded-forbid"],
            ),
            (
                "forbid (principal, action == Action::\"a\", resource) when { context has amount && context.amount > 3 }; @oversight(\"x\") forbid (principal, action, resource) unless { context has amount };",
                vec!["guarded-forbid"],
            ),
            ("forbid (principal, action, resource) when { context.amount > 3 };", vec![]),
            ("forbid (principal, action, resource) when { context.amount * 2 > 3 };", vec!["erring-forbid"]),
            ("forbid (principal, action, resource) when { -context.amount > 3 };", vec!["erring-forbid"]),
            ("forbid (principal, action, resource) when { context.amount > -3 };", vec![]),
            ("@id(\"p\u{430}y\") forbid (principal, action, resource);", vec!["mixed-alphabets"]),
            ("@id(\"a\") @oversight(\"relea\u{455}e\") forbid (principal, action, resource);", vec!["mixed-alphabets"]),
            ("@id(\"\u{43e}\u{43f}\u{43b}\u{430}\u{442}\u{430}-1\") forbid (principal, action, resource);", vec![]),
            ("@id(\"d\u{e9}j\u{e0}-vu\") forbid (principal, action, resource);", vec![]),
            ("forbid (principal, action, resource) when { context.at.offset(duration(\"1d\")) < context.until };", vec!["erring-forbid"]),
            ("forbid (principal, action, resource) when { resource.owner != principal };", vec!["erring-forbid"]),
            ("forbid (principal, action, resource) when { resource has owner && resource.owner != principal };", vec![]),
            ("forbid (principal, action, resource) unless { resource.owner == principal };", vec![]),
            (
                "@oversight(\"x\") forbid (principal, action, resource); @oversight(\"y\") forbid (principal, action == Action::\"a\", resource);",
                vec![],
            ),
            ("@oversight forbid (principal, action, resource is F); @oversight forbid (principal, action, resource is F);", vec![]),
            (
                "forbid (principal, action, resource); @oversight(\"y\") forbid (principal, action == Action::\"a\", resource);",
                vec!["shadowed"],
            ),
            (
                "permit (principal is U, action, resource is F) when { context.a }; @audit(\"after\") permit (principal is U, action, resource is F) when { context.a };",
                vec![],
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(rules(text).into_iter().map(|(_, rule)| rule).collect::<Vec<_>>(), wanted, "{text}");
        }
    }
}
