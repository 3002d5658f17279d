//! Runs conditions. Nothing here allocates, but for sets and records that a condition builds itself, and where it compares long or nested ones.

use crate::entities::Entities;
use crate::extension::{Call, Given};
use crate::program::{Node, NodeId, Program, Text};
use crate::value::{Ent, Erred, RecordVal, SetVal, Val, same_entity, stored_field};
use creto_enablement_common::{Fields, Value as Asked};
use std::rc::Rc;

/// What a condition sees.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    pub program: &'a Program,
    pub entities: &'a Entities,
    pub principal: &'a Ent<'a>,
    pub action: &'a Ent<'a>,
    pub resource: &'a Ent<'a>,
    pub context: Fields<'a>,
}

impl<'a> Scene<'a> {
    /// Whether a condition holds.
    #[inline]
    pub fn truth(&self, id: NodeId) -> Result<bool, Erred> {
        match self.program.node(id) {
            Node::Bool(b) => Ok(b),
            Node::Not(of) => Ok(!self.truth(of)?),
            Node::And(kids) => {
                for kid in self.program.kids(kids) {
                    if !self.truth(*kid)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Node::Or(kids) => {
                for kid in self.program.kids(kids) {
                    if self.truth(*kid)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Node::If(test, then, other) => {
                let taken = if self.truth(test)? { then } else { other };
                self.truth(taken)
            }
            Node::Equal(a, b) => Ok(self.value(a)?.equals(&self.value(b)?, self.entities)),
            Node::Less(a, b) => compare(&self.value(a)?, &self.value(b)?, |order| order.is_lt()),
            Node::LessEqual(a, b) => compare(&self.value(a)?, &self.value(b)?, |order| order.is_le()),
            Node::In(a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                self.within(a.ent()?, &b)
            }
            Node::Contains(a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                Ok(a.set()?.contains(&b, self.entities))
            }
            Node::ContainsAll(a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                Ok(b.set().and_then(|b| Ok((a.set()?, b))).map(|(a, b)| b.within(a, self.entities))?)
            }
            Node::ContainsAny(a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                Ok(a.set()?.meets(b.set()?, self.entities))
            }
            Node::HasTag(a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                let (ent, tag) = (a.ent()?, b.str()?);
                Ok(self.entities.existing(ent).is_some_and(|record| stored_field(&record.facts.tags, tag).is_some()))
            }
            Node::ContextHas(name) => Ok(self.context_field(name).is_some()),
            Node::HasField(of, name) => Ok(self.step(&self.value(of)?, self.program.text(name))?.is_some()),
            Node::HasPath(of, names) => {
                let mut at = self.value(of)?;
                for name in self.program.kids(names).chunks_exact(2) {
                    let &[start, len] = name else { return Err(Erred) };
                    match self.step(&at, self.program.text(Text { start, len }))? {
                        Some(next) => at = next?,
                        None => return Ok(false),
                    }
                }
                Ok(true)
            }
            Node::Like(of, pattern) => {
                let text = self.value(of)?.str()?;
                Ok(self.program.pattern(pattern).ok_or(Erred)?.matches(text))
            }
            Node::Is(of, kind) => match self.value(of)?.ent()? {
                Ent::Known(number) => Ok(self.entities.record(number).is_some_and(|record| record.kind == kind)),
                Ent::Named(name, _) => Ok(self.entities.types().number(name) == Some(kind)),
            },
            Node::IsNamed(of, name) => {
                let name = self.program.text(name);
                match self.value(of)?.ent()? {
                    Ent::Known(number) => Ok(self.entities.name(number).is_some_and(|(kind, _)| kind == name)),
                    Ent::Named(kind, _) => Ok(kind == name),
                }
            }
            Node::IsEmpty(of) => Ok(self.value(of)?.set()?.len() == 0),
            Node::Call1(call, of) => match self.call(call, of, None)? {
                Given::Bool(b) => Ok(b),
                _ => Err(Erred),
            },
            Node::Call2(call, of, argument) => match self.call(call, of, Some(argument))? {
                Given::Bool(b) => Ok(b),
                _ => Err(Erred),
            },
            _ => self.value(id)?.bool(),
        }
    }

    /// What a node is worth.
    fn value(&self, id: NodeId) -> Result<Val<'a>, Erred> {
        match self.program.node(id) {
            Node::Long(n) => Ok(Val::Long(n)),
            Node::Text(text) => Ok(Val::Str(self.program.text(text))),
            Node::Known(number) => Ok(Val::Ent(Ent::Known(number))),
            Node::Constant(constant) => self.program.constant(constant).map(|stored| stored.view()).ok_or(Erred),
            Node::ContextField(name) => Val::asked(self.context_field(name).ok_or(Erred)?),
            Node::Principal => Ok(Val::Ent(*self.principal)),
            Node::Action => Ok(Val::Ent(*self.action)),
            Node::Resource => Ok(Val::Ent(*self.resource)),
            Node::Context => Ok(Val::Record(RecordVal::Asked(self.context))),
            Node::Field(of, name) => self.step(&self.value(of)?, self.program.text(name))?.ok_or(Erred)?,
            Node::GetTag(a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                let (ent, tag) = (a.ent()?, b.str()?);
                let record = self.entities.existing(ent).ok_or(Erred)?;
                stored_field(&record.facts.tags, tag).map(|value| value.view()).ok_or(Erred)
            }
            Node::Neg(of) => Ok(Val::Long(self.value(of)?.long()?.checked_neg().ok_or(Erred)?)),
            Node::Add(a, b) => self.arithmetic(a, b, i64::checked_add),
            Node::Sub(a, b) => self.arithmetic(a, b, i64::checked_sub),
            Node::Mul(a, b) => self.arithmetic(a, b, i64::checked_mul),
            Node::If(test, then, other) => {
                let taken = if self.truth(test)? { then } else { other };
                self.value(taken)
            }
            Node::Set(kids) => {
                let members = self.program.kids(kids).iter().map(|kid| self.value(*kid)).collect::<Result<Rc<[_]>, _>>()?;
                Ok(Val::Set(SetVal::Built(members)))
            }
            Node::Record(kids) => {
                let fields = self
                    .program
                    .kids(kids)
                    .chunks_exact(3)
                    .filter_map(|field| {
                        let &[start, len, value] = field else { return None };
                        Some((self.program.text(Text { start, len }), value))
                    })
                    .map(|(name, value)| Ok((name, self.value(value)?)))
                    .collect::<Result<Rc<[_]>, _>>()?;
                Ok(Val::Record(RecordVal::Built(fields)))
            }
            Node::Call1(call, of) => Ok(given(self.call(call, of, None)?)),
            Node::Call2(call, of, argument) => Ok(given(self.call(call, of, Some(argument))?)),
            Node::Erring => Err(Erred),
            _ => self.truth(id).map(Val::Bool),
        }
    }

    #[inline]
    fn context_field(&self, name: Text) -> Option<&'a Asked<'a>> {
        let name = self.program.text(name);
        self.context.iter().find(|(field, _)| *field == name).map(|(_, value)| value)
    }

    /// A field of a record or an attribute of an entity; none where there is no such field, or no such entity under `has`.
    #[inline]
    fn step(&self, of: &Val<'a>, name: &str) -> Result<Option<Result<Val<'a>, Erred>>, Erred> {
        match of {
            Val::Record(record) => Ok(record.field(name)),
            Val::Ent(ent) => Ok(self
                .entities
                .existing(*ent)
                .and_then(|record| stored_field(&record.facts.attributes, name))
                .map(|value| Ok(value.view()))),
            _ => Err(Erred),
        }
    }

    fn arithmetic(&self, a: NodeId, b: NodeId, op: fn(i64, i64) -> Option<i64>) -> Result<Val<'a>, Erred> {
        let (a, b) = (self.value(a)?, self.value(b)?);
        op(a.long()?, b.long()?).map(Val::Long).ok_or(Erred)
    }

    fn call(&self, call: Call, of: NodeId, argument: Option<NodeId>) -> Result<Given, Erred> {
        let receiver = self.value(of)?;
        let argument = argument.map(|id| self.value(id)).transpose()?;
        if call.is_constructor() {
            return call.construct(receiver.str()?).map(Given::Ext).ok_or(Erred);
        }
        let argument = match argument {
            Some(value) => Some(value.ext()?),
            None => None,
        };
        call.apply(receiver.ext()?, argument).ok_or(Erred)
    }

    /// Cedar's `in`: itself or a descendant of the one entity, or of any in the set.
    fn within(&self, ent: Ent<'a>, of: &Val<'a>) -> Result<bool, Erred> {
        let ancestors = self.entities.existing(ent).map(|record| &*record.facts.ancestors).unwrap_or_default();
        let under = |other: Ent<'a>| {
            same_entity(ent, other, self.entities)
                || (!ancestors.is_empty() && self.entities.number(other).is_some_and(|number| ancestors.binary_search(&number).is_ok()))
        };
        match of {
            Val::Ent(other) => Ok(under(*other)),
            Val::Set(set) => {
                // Every member has to be an entity, those after the first hit too.
                let mut found = false;
                for at in 0..set.len() {
                    let member = set.at(at).ok_or(Erred)??.ent()?;
                    found = found || under(member);
                }
                Ok(found)
            }
            _ => Err(Erred),
        }
    }
}

fn given<'a>(given: Given) -> Val<'a> {
    match given {
        Given::Ext(ext) => Val::Ext(ext),
        Given::Bool(b) => Val::Bool(b),
        Given::Long(n) => Val::Long(n),
    }
}

/// `<` and `<=` exist for whole numbers, for moments and for durations.
fn compare(a: &Val<'_>, b: &Val<'_>, holds: fn(std::cmp::Ordering) -> bool) -> Result<bool, Erred> {
    use crate::extension::Ext::{Datetime, Duration};
    match (a, b) {
        (Val::Long(a), Val::Long(b)) | (Val::Ext(Datetime(a)), Val::Ext(Datetime(b))) | (Val::Ext(Duration(a)), Val::Ext(Duration(b))) => {
            Ok(holds(a.cmp(b)))
        }
        _ => Err(Erred),
    }
}
