//! A request with the entities that it needs, and how a set answers it.

use cedar_policy::{AuthorizationError, Authorizer, Effect, PolicySet};
use cedar_policy_symcc::Env;
use serde_json::Value;

/// What a set answers, with oversight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// Done without anybody being asked.
    Allow,
    /// A human has to agree.
    Ask,
    /// Not done.
    Deny,
}

impl Answer {
    /// `allow`, `ask` or `deny`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }

    /// The answer of that name.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Allow, Self::Ask, Self::Deny].into_iter().find(|answer| answer.word() == word)
    }
}

/// A request that shows something.
#[derive(Clone, Debug, PartialEq)]
pub struct Counterexample {
    /// Who asks, `Type::"id"`.
    pub principal: String,
    /// What for.
    pub action: String,
    /// On what.
    pub resource: String,
    /// The circumstances, as Cedar's JSON.
    pub context: Value,
    /// The entities that matter, as Cedar's JSON: those with attributes, parents or tags.
    pub entities: Vec<Value>,
}

impl Counterexample {
    pub(crate) fn of(env: &Env) -> Self {
        let request = &env.request;
        let part = |uid: Option<&cedar_policy::EntityUid>| uid.map(ToString::to_string).unwrap_or_default();
        let bare = |value: &Value| match value {
            Value::Object(fields) => fields.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => true,
        };
        let entities = env.entities.as_ref().to_json_value().ok().and_then(|value| match value {
            Value::Array(entities) => Some(entities),
            _ => None,
        });
        let context = request.context().and_then(|context| context.to_json_value().ok());
        Self {
            principal: part(request.principal()),
            action: part(request.action()),
            resource: part(request.resource()),
            context: context.unwrap_or_else(|| Value::Object(serde_json::Map::new())),
            entities: entities
                .into_iter()
                .flatten()
                .filter(|entity| {
                    // Actions and their groups are the schema's.
                    let kind = entity.pointer("/uid/type").and_then(Value::as_str).unwrap_or_default();
                    let action = kind == "Action" || kind.ends_with("::Action");
                    !action && ["attrs", "parents", "tags"].iter().any(|part| entity.get(part).is_some_and(|value| !bare(value)))
                })
                .collect(),
        }
    }
}

/// How a set answers a request.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    /// In words.
    pub(crate) why: String,
    /// The oversight policies that are asked, sorted; empty unless a human has to agree.
    pub(crate) asked: Vec<String>,
}

impl Answered {
    fn without_asking(answer: Answer, why: String) -> Self {
        Self { answer, why, asked: Vec::new() }
    }
}

/// How the gate answers: cedar-policy's answer, with oversight, and a forbid that errs denies.
pub(crate) fn answer(set: &PolicySet, env: &Env) -> Answered {
    let denied = |why: String| Answered::without_asking(Answer::Deny, why);
    let response = Authorizer::new().is_authorized(&env.request, set, &env.entities);
    for error in response.diagnostics().errors() {
        let AuthorizationError::PolicyEvaluationError(error) = error;
        let policy = set.policy(error.policy_id());
        if policy.is_some_and(|policy| policy.effect() == Effect::Forbid) {
            return denied(format!("forbid `{}` errs", error.policy_id()));
        }
    }
    let mut reasons: Vec<_> = response.diagnostics().reason().filter_map(|id| set.policy(id)).collect();
    reasons.sort_by_key(|policy| policy.id().to_string());
    if response.decision() == cedar_policy::Decision::Allow {
        let permit = reasons.first().map_or_else(|| "?".to_owned(), |policy| policy.id().to_string());
        return Answered::without_asking(Answer::Allow, format!("policy `{permit}` permits it"));
    }
    if let Some(plain) = reasons.iter().find(|policy| policy.annotation("oversight").is_none()) {
        return denied(format!("policy `{}` forbids it", plain.id()));
    }
    // Only oversight forbids apply, or none does: what stays is whether anything permits it.
    let lifted: Vec<_> = reasons.iter().map(|policy| policy.id().clone()).collect();
    let mut rest = set.clone();
    for id in lifted {
        // Each is in the set, which holds no links.
        let _ = rest.remove_static(id);
    }
    if Authorizer::new().is_authorized(&env.request, &rest, &env.entities).decision() == cedar_policy::Decision::Allow {
        let mut asked: Vec<String> = reasons.iter().filter_map(|policy| policy.annotation("oversight")).map(str::to_owned).collect();
        asked.sort_unstable();
        asked.dedup();
        let named: Vec<_> = asked.iter().map(|name| format!("`{name}`")).collect();
        let word = if asked.len() == 1 { "oversight policy" } else { "oversight policies" };
        let asks = if asked.len() == 1 { "asks" } else { "ask" };
        return Answered { answer: Answer::Ask, why: format!("{word} {} {asks}", named.join(", ")), asked };
    }
    denied("no policy permits it".to_owned())
}
