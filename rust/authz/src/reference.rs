//! The same questions answered by cedar-policy itself: the oracle of the differential tests, and the one who explains errors in words.

use crate::answer::Answer;
use crate::name::parse_entity;
use crate::shape::nearest;
use crate::source::Parsed;
use cedar_policy::{AuthorizationError, Authorizer, Context, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression, Schema};
use creto_enablement_common::{CheckRef, Error, Fields, Result, Value};
use std::str::FromStr;
use std::sync::Arc;

/// How the denial of a request begins that the schema does not allow.
pub const MISFIT: &str = "the request does not fit the schema";

/// An entity type from its name, which has to stand as Cedar writes it.
pub(crate) fn entity_type(name: &str) -> Result<EntityTypeName> {
    let wrong = || Error::invalid(format!("`{name}` is not an entity type"));
    // Cedar's parser would take spaces and comments inside, and would have to be bounded.
    if !crate::name::is_type(name) {
        return Err(wrong());
    }
    EntityTypeName::from_str(name).map_err(|e| wrong().with_source(e))
}

/// An entity's uid from its type and id.
pub(crate) fn uid(kind: &str, id: &str) -> Result<EntityUid> {
    Ok(EntityUid::from_type_name_and_id(entity_type(kind)?, EntityId::new(id)))
}

fn expression(value: &Value<'_>) -> Result<RestrictedExpression> {
    Ok(match value {
        Value::Bool(b) => RestrictedExpression::new_bool(*b),
        Value::Long(n) => RestrictedExpression::new_long(*n),
        Value::Str(text) => RestrictedExpression::new_string((*text).to_owned()),
        Value::Entity(kind, id) => RestrictedExpression::new_entity_uid(uid(kind, id)?),
        Value::Extension("ip", text) => RestrictedExpression::new_ip(text),
        Value::Extension("decimal", text) => RestrictedExpression::new_decimal(text),
        Value::Extension("datetime", text) => RestrictedExpression::new_datetime(text),
        Value::Extension("duration", text) => RestrictedExpression::new_duration(text),
        Value::Extension(name, _) => {
            return Err(Error::invalid(format!("`{name}` is not an extension: use decimal, ip, datetime or duration")));
        }
        Value::Set(items) => RestrictedExpression::new_set(items.iter().map(expression).collect::<Result<Vec<_>>>()?),
        Value::Record(fields) => RestrictedExpression::new_record(pairs(fields)?)
            .map_err(|e| Error::invalid("a record names an attribute twice".to_owned()).with_source(e))?,
    })
}

fn pairs(fields: Fields<'_>) -> Result<Vec<(String, RestrictedExpression)>> {
    fields.iter().map(|(name, value)| Ok(((*name).to_owned(), expression(value)?))).collect()
}

/// The request, typed by name or by the schema; validated where `validate` is set and there is a schema.
///
/// # Errors
/// `InvalidInput` where it cannot be read, or does not fit the schema.
pub fn request(check: &CheckRef<'_>, parsed: &Parsed, validate: bool) -> Result<Request> {
    let types: Option<&Schema> = parsed.schema.as_ref();
    let principal = match parse_entity(check.agent)? {
        Some(name) => uid(name.kind, &name.id)?,
        None => uid(principal_type(check.agent), check.agent)?,
    };
    let action = match parse_entity(check.action)? {
        Some(name) => uid(name.kind, &name.id)?,
        None => uid("Action", check.action)?,
    };
    let resource = match parse_entity(check.resource)? {
        Some(name) => uid(name.kind, &name.id)?,
        None => {
            let mut kinds = types.and_then(|schema| schema.resources_for_action(&action)).into_iter().flatten();
            match (kinds.next(), kinds.next()) {
                (Some(kind), None) => EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(check.resource)),
                (Some(_), Some(_)) => {
                    return Err(Error::invalid(format!(
                        "`{}` acts on more than one type of resource; write `Type::\"{}\"`",
                        check.action, check.resource
                    )));
                }
                _ => return Err(Error::invalid(untyped(check, types, &action))),
            }
        }
    };
    let mut fields = pairs(check.context)?;
    if parsed.open.contains(&action) {
        // What the schema does not declare of such an action's context is not for policies to see.
        let declared = types.and_then(|schema| schema.as_ref().context_type(action.as_ref()));
        if let Some(cedar_policy_core::validator::types::Type::Record { attrs, .. }) = declared {
            fields.retain(|(name, _)| attrs.get_attr(name).is_some());
        }
    }
    let context = Context::from_pairs(fields).map_err(|e| Error::invalid(format!("the context does not read: {e}")))?;
    Request::new(principal, action.clone(), resource, context, types.filter(|_| validate)).map_err(|error| {
        let near = types.map_or_else(String::new, |schema| like_action(schema, &action));
        Error::invalid(format!("{MISFIT}: {error}{near}"))
    })
}

/// Why a bare resource has no type.
fn untyped(check: &CheckRef<'_>, types: Option<&Schema>, action: &EntityUid) -> String {
    let CheckRef { action: name, resource, .. } = check;
    let Some(schema) = types else { return format!("there is no schema, so `{resource}` has no type; write `Type::\"{resource}\"`") };
    if schema.actions().any(|known| known == action) {
        return format!("by the schema `{name}` acts on nothing, so `{resource}` has no type");
    }
    format!("the schema knows no action `{name}`, so `{resource}` has no type{}", like_action(schema, action))
}

/// Which action may be meant by one that the schema does not know.
fn like_action(schema: &Schema, action: &EntityUid) -> String {
    let known: Vec<&EntityUid> = schema.actions().collect();
    if known.contains(&action) {
        return String::new();
    }
    let names: Vec<&str> = known.iter().map(|known| known.id().unescaped()).collect();
    nearest(action.id().unescaped(), &names)
}

/// The entity type of a bare principal id.
pub(crate) fn principal_type(id: &str) -> &'static str {
    let path = id.strip_prefix("spiffe://").and_then(|rest| rest.get(rest.bytes().position(|b| b == b'/')?..));
    if path.is_some_and(|path| path.starts_with("/approver/")) { "Approver" } else { "Agent" }
}

/// Cedar's own answer, and each error in words.
pub fn answer(parsed: &Parsed, request: &Request) -> (Answer, Vec<(String, String)>) {
    let response = Authorizer::new().is_authorized(request, &parsed.policies, &parsed.entities);
    let mut determining: Vec<Arc<str>> = response.diagnostics().reason().map(|id| Arc::from(id.to_string())).collect();
    let mut errors: Vec<(String, String)> = response
        .diagnostics()
        .errors()
        .map(|error| match error {
            AuthorizationError::PolicyEvaluationError(error) => (error.policy_id().to_string(), error.inner().to_string()),
        })
        .collect();
    determining.sort_unstable();
    errors.sort_unstable();
    let erring = errors.iter().map(|(id, _)| Arc::from(id.as_str())).collect();
    (Answer { allowed: response.decision() == cedar_policy::Decision::Allow, determining, erring }, errors)
}
