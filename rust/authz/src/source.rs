//! Texts into a validated policy set: bounded, parsed on a thread with a large stack, and validated strictly.

use crate::ancestry;
use crate::annotation;
use crate::finding::{Finding, Lines, Severity};
use crate::limits::{Limits, check_json, check_text};
use cedar_policy::{
    Entities, EntityId, EntityUid, Policy, PolicyId, PolicySet, Schema, SchemaFragment, Template, ValidationMode, Validator,
};
use cedar_policy_core::ast;
use cedar_policy_core::parser::Loc;
use creto_enablement_common::{Digest, Error, ErrorKind, Result, ResultExt};
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, HashSet};
use std::thread;

/// Stack of the thread that parses; address space, touched only as far as it is needed.
const STACK: usize = 256 << 20;

/// The texts of a policy set.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// Policies, in Cedar's syntax, or in its JSON where the text opens with `{`.
    pub policies: &'a str,
    /// The schema, in either syntax; policies are validated against it.
    pub schema: Option<&'a str>,
    /// Entities in Cedar's JSON; empty for none.
    pub entities: &'a str,
}

/// A policy set that may be installed.
#[derive(Debug)]
pub struct Parsed {
    /// The policies; ids are those of `@id`, or `policy0`, `policy1`, ... by place.
    pub policies: PolicySet,
    /// The schema.
    pub schema: Option<Schema>,
    /// Actions that the schema marks `@open`: what their context holds beyond the schema is passed over.
    pub open: HashSet<EntityUid>,
    /// What the schema wants on record of an action's context, by the action's id: `@record("change, bytes")`.
    pub recorded: HashMap<String, Box<[Box<str>]>>,
    /// The entities, with the schema's actions.
    pub entities: Entities,
    /// SHA-256 over the texts of policies and schema.
    pub digest: Digest,
    /// What does not stand in the way, and should be read.
    pub warnings: Vec<Finding>,
}

/// Parses and validates.
///
/// # Errors
/// Everything that was found, errors first; a failure to start the thread counts as one.
pub fn parse(sources: &Sources<'_>, limits: &Limits) -> Result<Parsed, Vec<Finding>> {
    on_large_stack(|| parse_here(sources, limits)).unwrap_or_else(|error| {
        Err(vec![Finding { severity: Severity::Error, rule: "parse", policy: None, message: error.to_string(), help: None, span: None }])
    })
}

/// Runs `work` on a thread whose stack bears any text that passed the scans.
pub(crate) fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("creto-policy-parse".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .context(|| "starting the thread that parses policies".to_owned())?
            .join()
            .map_err(|_| Error::internal("the policy parser panicked; the text was not installed"))
    })
}

fn parse_here(sources: &Sources<'_>, limits: &Limits) -> Result<Parsed, Vec<Finding>> {
    let (schema, marks) = match sources.schema {
        Some(text) => parse_schema(text, limits).map(|(schema, marks)| (Some(schema), marks))?,
        None => (None, SchemaMarks::default()),
    };
    let policies = parse_policies(sources.policies, limits)?;
    let mut warnings = annotation::check(&policies);
    if !warnings.is_empty() {
        return Err(warnings);
    }
    if let Some(schema) = &schema {
        warnings = validate(&policies, schema)?;
    }
    let entities = parse_entities(sources.entities, schema.as_ref(), limits)?;
    let mut digest = Sha256::new();
    for part in [sources.policies, sources.schema.unwrap_or_default()] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let SchemaMarks { open, recorded } = marks;
    Ok(Parsed { policies, schema, open, recorded, entities, digest: digest.finalize().into(), warnings })
}

fn plain(rule: &'static str, error: &Error) -> Vec<Finding> {
    let message = match error.kind() {
        ErrorKind::InvalidInput(what) => what.clone(),
        _ => error.to_string(),
    };
    vec![Finding { severity: Severity::Error, rule, policy: None, message, help: None, span: None }]
}

fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// What the schema's annotations of actions say.
#[derive(Default)]
struct SchemaMarks {
    open: HashSet<EntityUid>,
    recorded: HashMap<String, Box<[Box<str>]>>,
}

fn parse_schema(text: &str, limits: &Limits) -> Result<(Schema, SchemaMarks), Vec<Finding>> {
    let failed = |found: &dyn miette::Diagnostic| vec![Finding::from_diagnostic(Severity::Error, "schema", None, found)];
    let fragment = if is_json(text) {
        check_json("schema", text, limits.policy_bytes, limits.nesting).map_err(|e| plain("schema", &e))?;
        SchemaFragment::from_json_str(text).map_err(|e| failed(&e))?
    } else {
        check_text("schema", text, limits.policy_bytes, limits.nesting).map_err(|e| plain("schema", &e))?;
        SchemaFragment::from_cedarschema_str(text).map_err(|e| failed(&e))?.0
    };
    let schema = Schema::from_schema_fragments([fragment.clone()]).map_err(|e| failed(&e))?;
    let mut marks = SchemaMarks::default();
    for action in schema.actions() {
        let kind = action.type_name();
        let namespace = kind.namespace();
        let namespace: Option<cedar_policy::EntityNamespace> = if namespace.is_empty() { None } else { namespace.parse().ok() };
        let id = EntityId::new(action.id().unescaped());
        if fragment.action_annotation(namespace.clone(), &id, "open").is_some() {
            marks.open.insert(action.clone());
        }
        if let Some(names) = fragment.action_annotation(namespace, &id, "record") {
            let names = names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Box::from).collect();
            marks.recorded.insert(action.id().unescaped().to_owned(), names);
        }
    }
    Ok((schema, marks))
}

pub(crate) fn parse_policies(text: &str, limits: &Limits) -> Result<PolicySet, Vec<Finding>> {
    if is_json(text) {
        check_json("policies", text, limits.policy_bytes, limits.nesting).map_err(|e| plain("parse", &e))?;
        return PolicySet::from_json_str(text).map_err(|e| vec![Finding::from_diagnostic(Severity::Error, "parse", None, &e)]);
    }
    check_text("policies", text, limits.policy_bytes, limits.nesting).map_err(|e| plain("parse", &e))?;
    let set: PolicySet = text.parse().map_err(|errors: cedar_policy::ParseErrors| {
        errors.iter().map(|error| Finding::from_diagnostic(Severity::Error, "parse", None, error)).collect::<Vec<_>>()
    })?;
    named(&set)
}

/// The same set, each policy under the id that its `@id` gives.
fn named(set: &PolicySet) -> Result<PolicySet, Vec<Finding>> {
    let mut taken = HashSet::new();
    let mut renamed = PolicySet::new();
    let mut found = Vec::new();
    let mut claim = |id: PolicyId, place: Option<&Loc>| {
        let fresh = taken.insert(id.clone());
        if !fresh {
            found.push(Finding {
                severity: Severity::Error,
                rule: "id",
                policy: Some(id.to_string()),
                message: format!("two policies are named `{id}`"),
                help: Some("give each an `@id` of its own".to_owned()),
                span: place.map(|loc| (loc.span.offset(), loc.span.len())),
            });
        }
        fresh
    };
    for policy in set.policies() {
        let id = policy.annotation("id").filter(|id| !id.is_empty()).map_or_else(|| policy.id().clone(), PolicyId::new);
        let inner: &ast::Policy = policy.as_ref();
        if claim(id.clone(), inner.loc()) {
            let policy: Policy = policy.new_id(id);
            renamed.add(policy).map_err(|e| vec![Finding::from_diagnostic(Severity::Error, "parse", None, &e)])?;
        }
    }
    for template in set.templates() {
        let id = template.annotation("id").filter(|id| !id.is_empty()).map_or_else(|| template.id().clone(), PolicyId::new);
        let inner: &ast::Template = template.as_ref();
        if claim(id.clone(), inner.loc()) {
            let template: Template = template.new_id(id);
            renamed.add_template(template).map_err(|e| vec![Finding::from_diagnostic(Severity::Error, "parse", None, &e)])?;
        }
    }
    if found.is_empty() { Ok(renamed) } else { Err(found) }
}

/// The warnings, where the set is valid.
pub(crate) fn validate(policies: &PolicySet, schema: &Schema) -> Result<Vec<Finding>, Vec<Finding>> {
    let result = Validator::new(schema.clone()).validate(policies, ValidationMode::Strict);
    let warnings = once(
        result.validation_warnings().map(|w| Finding::from_diagnostic(Severity::Warning, "validate", Some(w.policy_id().to_string()), w)),
    );
    if result.validation_passed() {
        return Ok(warnings);
    }
    let errors =
        once(result.validation_errors().map(|e| Finding::from_diagnostic(Severity::Error, "validate", Some(e.policy_id().to_string()), e)));
    Err(errors.into_iter().chain(warnings).collect())
}

/// The findings in the order of the text. What the validator finds at one place for many actions is told once.
fn once(found: impl Iterator<Item = Finding>) -> Vec<Finding> {
    let mut found: Vec<Finding> = found.collect();
    found.sort_by(|a, b| (a.span, &a.policy, &a.message).cmp(&(b.span, &b.policy, &b.message)));
    let mut told: Vec<(Finding, usize)> = Vec::new();
    for finding in found {
        match told.last_mut() {
            Some((before, more))
                if before.span == finding.span
                    && before.policy == finding.policy
                    && without_actions(&before.message) == without_actions(&finding.message) =>
            {
                *more += usize::from(before.message != finding.message);
            }
            _ => told.push((finding, 0)),
        }
    }
    told.into_iter()
        .map(|(mut finding, more)| {
            if more > 0 {
                finding.message = format!("{}, and the same for {more} more action{}", finding.message, if more == 1 { "" } else { "s" });
            }
            finding
        })
        .collect()
}

/// A message without the ids of the actions that it names.
fn without_actions(message: &str) -> String {
    let mut parts = message.split("Action::\"");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("Action");
        text.push_str(part.split_once('"').map_or("", |(_, rest)| rest));
    }
    text
}

pub(crate) fn parse_entities(text: &str, schema: Option<&Schema>, limits: &Limits) -> Result<Entities, Vec<Finding>> {
    let text = if text.trim().is_empty() { "[]" } else { text };
    check_json("entities", text, limits.entity_bytes, limits.nesting)
        .and_then(|()| ancestry::check(text))
        .map_err(|e| plain("entities", &e))?;
    Entities::from_json_str(text, schema).map_err(|e| vec![Finding::from_diagnostic(Severity::Error, "entities", None, &e)])
}

/// The findings as one error, for who only wants to know that it failed.
pub(crate) fn as_error(found: &[Finding], text: &str) -> Error {
    let places = Lines::of(text);
    let mut lines: Vec<String> = found
        .iter()
        .filter(|f| f.severity == Severity::Error)
        .take(8)
        .map(|f| match f.position(&places) {
            Some((line, column)) if matches!(f.rule, "parse" | "validate" | "id") => format!("line {line}, column {column}: {f}"),
            _ => f.to_string(),
        })
        .collect();
    let more = found.iter().filter(|f| f.severity == Severity::Error).count().saturating_sub(lines.len());
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    Error::invalid(lines.join("\n")).with_context("policies not installed, those before them stay")
}
