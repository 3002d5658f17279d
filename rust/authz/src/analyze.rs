//! What a change of policies changes, found by asking both sets the same generated requests.
//!
//! Every request fits the schema; its parts are taken from what the policies themselves mention (entities, numbers and their neighbours,
//! texts, patterns filled in) and from what they do not mention. What is found is certain and comes with its request; that nothing is found
//! is no proof, and the report says how many were asked.

use crate::engine::Engine;
use crate::source::{Parsed, on_large_stack};
use cedar_policy::pst;
use cedar_policy_core::validator::ValidatorEntityTypeKind;
use cedar_policy_core::validator::types::{EntityKind, Type};
use creto_enablement_common::{CheckRef, Decision, Error, Fields, Result, Value};
use std::collections::{BTreeMap, BTreeSet};

/// One request whose answer changed.
#[derive(Clone, Debug)]
pub struct Change {
    /// `allow`, `deny` or `ask`, before.
    pub before: &'static str,
    /// The same, after.
    pub after: &'static str,
    /// Who asks.
    pub principal: String,
    /// What for.
    pub action: String,
    /// On what.
    pub resource: String,
    /// The circumstances, as Cedar writes them.
    pub context: String,
    /// Why it was so before, and why after.
    pub reasons: (String, String),
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Analysis {
    /// How many requests both sets were asked.
    pub asked: usize,
    /// How often the answer went from the one to the other.
    pub counts: BTreeMap<(&'static str, &'static str), usize>,
    /// Examples, at most a handful of each kind.
    pub changes: Vec<Change>,
}

const EXAMPLES: usize = 5;

/// A value that owns its parts.
#[derive(Clone, Debug)]
enum Made {
    Bool(bool),
    Long(i64),
    Text(String),
    Entity(String, String),
    Extension(&'static str, String),
    Set(Vec<Made>),
    Record(Vec<(String, Made)>),
}

/// What the policies of both sets mention.
#[derive(Default)]
struct Mentioned {
    longs: BTreeSet<i64>,
    texts: BTreeSet<String>,
    entities: BTreeMap<String, BTreeSet<String>>,
    extensions: BTreeMap<&'static str, BTreeSet<String>>,
}

/// Asks both engines up to `requests` generated requests and tells the answers apart.
///
/// # Errors
/// `InvalidInput` where either has no set, or the new set has no schema.
pub fn analyze(old: &Engine, new: &Engine, requests: usize, seed: u64) -> Result<Analysis> {
    let (before, after) = (old.parsed()?, new.parsed()?);
    let schema =
        after.schema.as_ref().ok_or_else(|| Error::invalid("analysis needs a schema: it says which requests there can be"))?.as_ref();
    // Reading a policy back recurses as deeply as its expressions nest.
    let mentioned = on_large_stack(|| {
        let mut mentioned = Mentioned::default();
        for parsed in [&before, &after] {
            mentioned.read(parsed)?;
        }
        mentioned.complete();
        Ok::<_, Error>(mentioned)
    })??;
    let mut shapes = Vec::new();
    for action in schema.action_ids() {
        for principal in action.principals() {
            for resource in action.resources() {
                if let Some(context) = action.context_type() {
                    shapes.push((action.name().clone(), principal.to_string(), resource.to_string(), context));
                }
            }
        }
    }
    let choices: BTreeMap<String, Vec<String>> = schema
        .entity_types()
        .filter_map(|kind| match &kind.kind {
            ValidatorEntityTypeKind::Enum(ids) => {
                Some((kind.name().to_string(), ids.iter().map(|id| AsRef::<str>::as_ref(id).to_owned()).collect()))
            }
            _ => None,
        })
        .collect();
    let mut random = Random(seed);
    let mut analysis = Analysis::default();
    if shapes.is_empty() {
        return Ok(analysis);
    }
    for turn in 0..requests {
        let Some((action, principal_kind, resource_kind, context)) = shapes.get(turn % shapes.len()) else { break };
        let principal = entity(principal_kind, &mentioned, &choices, &mut random);
        let resource = entity(resource_kind, &mentioned, &choices, &mut random);
        let Some(Made::Record(fields)) = value(context, &mentioned, &choices, &mut random, 0) else { continue };
        let names = (uid_text(principal_kind, &principal), action.to_string(), uid_text(resource_kind, &resource));
        let decide = |engine: &Engine| {
            lend(&fields, &mut |context| {
                let ruling = engine.rule(&CheckRef { agent: &names.0, action: &names.1, resource: &names.2, context });
                (word(&ruling.decision), reason(&ruling.decision, ruling.permit.as_deref()))
            })
        };
        let (was, is) = (decide(old), decide(new));
        analysis.asked += 1;
        if was.0 == is.0 {
            continue;
        }
        let count = analysis.counts.entry((was.0, is.0)).or_default();
        *count += 1;
        if *count <= EXAMPLES {
            analysis.changes.push(Change {
                before: was.0,
                after: is.0,
                principal: names.0,
                action: names.1,
                resource: names.2,
                context: Made::Record(fields).to_string(),
                reasons: (was.1, is.1),
            });
        }
    }
    Ok(analysis)
}

fn word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Allow => "allow",
        Decision::Deny { .. } => "deny",
        Decision::RequiresOversight { .. } => "ask",
    }
}

fn reason(decision: &Decision, permit: Option<&str>) -> String {
    match decision {
        Decision::Allow => format!("policy `{}` permits it", permit.unwrap_or("?")),
        Decision::Deny { reason } => reason.clone(),
        Decision::RequiresOversight { policy_id } => format!("oversight policy `{policy_id}` asks"),
    }
}

fn uid_text(kind: &str, id: &str) -> String {
    format!("{kind}::\"{}\"", id.escape_debug())
}

/// SplitMix64, so that one seed gives one report.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, from: impl ExactSizeIterator<Item = &'a T>) -> Option<&'a T> {
        let mut from = from;
        let at = self.below(from.len());
        from.nth(at)
    }
}

fn entity(kind: &str, mentioned: &Mentioned, choices: &BTreeMap<String, Vec<String>>, random: &mut Random) -> String {
    if let Some(ids) = choices.get(kind) {
        return random.pick(ids.iter()).cloned().unwrap_or_default();
    }
    match mentioned.entities.get(kind) {
        Some(ids) if random.below(5) > 0 => random.pick(ids.iter()).cloned().unwrap_or_default(),
        _ => "someone-else".to_owned(),
    }
}

fn value(kind: &Type, mentioned: &Mentioned, choices: &BTreeMap<String, Vec<String>>, random: &mut Random, depth: usize) -> Option<Made> {
    if depth > 8 {
        return None;
    }
    let deeper = depth + 1;
    Some(match kind {
        Type::Bool(_) => Made::Bool(random.below(2) == 1),
        Type::Long => Made::Long(random.pick(mentioned.longs.iter()).copied().unwrap_or(0)),
        Type::String => Made::Text(random.pick(mentioned.texts.iter()).cloned().unwrap_or_default()),
        Type::Entity(EntityKind::Entity(kinds)) => {
            let kind = kinds.get_single_entity()?.to_string();
            let id = entity(&kind, mentioned, choices, random);
            Made::Entity(kind, id)
        }
        Type::Set { element_type: Some(member) } => {
            let mut items = Vec::new();
            for _ in 0..random.below(4) {
                items.push(value(member, mentioned, choices, random, deeper)?);
            }
            Made::Set(items)
        }
        Type::Record { attrs, .. } => {
            let mut fields = Vec::new();
            for (name, attribute) in attrs.iter() {
                if attribute.is_required || random.below(3) > 0 {
                    fields.push((name.to_string(), value(&attribute.attr_type, mentioned, choices, random, deeper)?));
                }
            }
            Made::Record(fields)
        }
        Type::ExtensionType { name } => {
            let constructor = match name.to_string().as_str() {
                "ipaddr" => "ip",
                "decimal" => "decimal",
                "datetime" => "datetime",
                _ => "duration",
            };
            Made::Extension(constructor, random.pick(mentioned.extensions.get(constructor)?.iter())?.clone())
        }
        _ => return None,
    })
}

impl Mentioned {
    fn read(&mut self, parsed: &Parsed) -> Result<()> {
        for policy in parsed.policies.policies() {
            for uid in policy.entity_literals() {
                self.entities.entry(uid.type_name().to_string()).or_default().insert(uid.id().unescaped().to_owned());
            }
            let form = policy.to_pst().map_err(|e| Error::internal("reading a policy back").with_source(e))?;
            for clause in form.body().clauses() {
                match clause {
                    pst::Clause::When(expr) | pst::Clause::Unless(expr) => self.expr(expr),
                }
            }
        }
        for entity in parsed.entities.iter().take(1_000) {
            let uid = entity.uid();
            self.entities.entry(uid.type_name().to_string()).or_default().insert(uid.id().unescaped().to_owned());
        }
        Ok(())
    }

    fn expr(&mut self, expr: &pst::Expr) {
        match expr {
            pst::Expr::Literal(pst::Literal::Long(n)) => {
                self.longs.extend([n.saturating_sub(1), *n, n.saturating_add(1)]);
            }
            pst::Expr::Literal(pst::Literal::String(text)) => {
                self.texts.insert(text.to_string());
            }
            pst::Expr::UnaryOp { op, expr } => {
                let constructor = match op {
                    pst::UnaryOp::Ip => Some("ip"),
                    pst::UnaryOp::Decimal => Some("decimal"),
                    pst::UnaryOp::Datetime => Some("datetime"),
                    pst::UnaryOp::Duration => Some("duration"),
                    _ => None,
                };
                match (constructor, &**expr) {
                    (Some(constructor), pst::Expr::Literal(pst::Literal::String(text))) => {
                        self.extensions.entry(constructor).or_default().insert(text.to_string());
                    }
                    _ => self.expr(expr),
                }
            }
            pst::Expr::BinaryOp { left, right, .. } => {
                self.expr(left);
                self.expr(right);
            }
            pst::Expr::GetAttr { expr, .. } | pst::Expr::HasAttr { expr, .. } => self.expr(expr),
            pst::Expr::Like { expr, pattern } => {
                let fill = |with: &str| {
                    pattern
                        .iter()
                        .map(|element| match element {
                            pst::PatternElem::Char(c) => c.to_string(),
                            pst::PatternElem::Wildcard => with.to_owned(),
                        })
                        .collect::<String>()
                };
                self.texts.extend([fill(""), fill("x")]);
                self.expr(expr);
            }
            pst::Expr::Is { expr, in_expr, .. } => {
                self.expr(expr);
                if let Some(inner) = in_expr {
                    self.expr(inner);
                }
            }
            pst::Expr::IfThenElse { cond, then_expr, else_expr } => {
                self.expr(cond);
                self.expr(then_expr);
                self.expr(else_expr);
            }
            pst::Expr::Set(items) => items.iter().for_each(|item| self.expr(item)),
            pst::Expr::Record(fields) => fields.values().for_each(|field| self.expr(field)),
            _ => {}
        }
    }

    /// Values that no policy mentions, so that the other side of every condition is seen too.
    fn complete(&mut self) {
        self.longs.extend([0, 1]);
        self.texts.extend(["".to_owned(), "something else".to_owned()]);
        for (constructor, text) in [("ip", "192.0.2.1"), ("decimal", "0.0"), ("datetime", "2000-01-01"), ("duration", "1s")] {
            self.extensions.entry(constructor).or_default().insert(text.to_owned());
        }
    }
}

/// Borrows a made context and asks with it.
fn lend<T>(fields: &[(String, Made)], ask: &mut dyn FnMut(Fields<'_>) -> T) -> T {
    fn values<'a>(made: &[&'a Made], done: Vec<Value<'a>>, ask: &mut dyn FnMut(&[Value<'_>])) {
        let Some((first, rest)) = made.split_first() else { return ask(&done) };
        let mut go_on = |value: Value<'_>| {
            let mut next: Vec<Value<'_>> = done.clone();
            next.push(value);
            values(rest, next, ask);
        };
        match first {
            Made::Bool(b) => go_on(Value::Bool(*b)),
            Made::Long(n) => go_on(Value::Long(*n)),
            Made::Text(text) => go_on(Value::Str(text)),
            Made::Entity(kind, id) => go_on(Value::Entity(kind, id)),
            Made::Extension(name, text) => go_on(Value::Extension(name, text)),
            Made::Set(items) => values(&items.iter().collect::<Vec<_>>(), Vec::new(), &mut |items| go_on(Value::Set(items))),
            Made::Record(fields) => values(&fields.iter().map(|(_, v)| v).collect::<Vec<_>>(), Vec::new(), &mut |items| {
                let pairs: Vec<(&str, Value<'_>)> = fields.iter().map(|(name, _)| name.as_str()).zip(items.iter().copied()).collect();
                go_on(Value::Record(&pairs));
            }),
        }
    }
    let mut answer = None;
    values(&fields.iter().map(|(_, v)| v).collect::<Vec<_>>(), Vec::new(), &mut |items| {
        let pairs: Vec<(&str, Value<'_>)> = fields.iter().map(|(name, _)| name.as_str()).zip(items.iter().copied()).collect();
        answer = Some(ask(&pairs));
    });
    match answer {
        Some(answer) => answer,
        None => ask(&[]),
    }
}

impl std::fmt::Display for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Long(n) => write!(f, "{n}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Entity(kind, id) => f.write_str(&uid_text(kind, id)),
            Self::Extension(name, text) => write!(f, "{name}({text:?})"),
            Self::Set(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Record(fields) => {
                f.write_str("{")?;
                for (at, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{name}: {value}", if at > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
        }
    }
}
