//! The two annotations that are ours: `@oversight("policy-id")` on a forbid, and `@audit("after")`.

use crate::finding::{Finding, Severity};
use cedar_policy::{Effect, PolicySet};
use creto_enablement_common::ports::AuditWhen;
use std::sync::Arc;

/// What the annotations of one policy say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The oversight policy that can lift this forbid.
    pub oversight: Option<Arc<str>>,
    /// When acts that it permits are recorded.
    pub audit: AuditWhen,
}

/// By whose name a forbid can be lifted, as its `@oversight` says: by its own, where that names none.
pub fn lifted_by<'a>(id: &'a str, oversight: Option<&'a str>) -> Option<&'a str> {
    oversight.map(|name| if name.is_empty() { id } else { name })
}

/// Reads the annotations of one policy.
pub fn marks<'a>(id: &'a str, effect: Effect, annotation: impl Fn(&'static str) -> Option<&'a str>) -> Marks {
    let oversight = lifted_by(id, annotation("oversight")).filter(|_| effect == Effect::Forbid).map(Arc::from);
    let audit = if annotation("audit") == Some("after") { AuditWhen::After } else { AuditWhen::Before };
    Marks { oversight, audit }
}

/// Findings for annotations of ours that say nothing we know.
pub fn check(set: &PolicySet) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut look = |id: String, effect: Effect, oversight: Option<&str>, audit: Option<&str>| {
        let mut refuse = |message: String, help: &str| {
            found.push(Finding {
                severity: Severity::Error,
                rule: "annotation",
                policy: Some(id.clone()),
                message,
                help: Some(help.to_owned()),
                span: None,
            });
        };
        if effect == Effect::Permit && oversight.is_some() {
            refuse(
                format!("policy `{id}`: `@oversight` stands on a permit"),
                "write a forbid with `@oversight`: it holds until a human agrees, whatever else is permitted",
            );
        }
        match audit {
            None | Some("after" | "before") => {}
            Some(other) => {
                refuse(format!("policy `{id}`: `@audit(\"{other}\")` means nothing"), "write `@audit(\"after\")`, or leave it out")
            }
        }
        if effect == Effect::Forbid && audit.is_some() {
            refuse(format!("policy `{id}`: `@audit` stands on a forbid"), "it belongs on the permit whose acts are recorded after them");
        }
    };
    for policy in set.policies() {
        look(policy.id().to_string(), policy.effect(), policy.annotation("oversight"), policy.annotation("audit"));
    }
    for template in set.templates() {
        look(template.id().to_string(), template.effect(), template.annotation("oversight"), template.annotation("audit"));
    }
    found
}
