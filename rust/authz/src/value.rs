//! Values as the engine sees them: three kinds of storage, one meaning.
//!
//! What policies and entities hold is `Stored`; what a request brings is borrowed from whoever asks; what a condition builds is counted.

use crate::canonical::{Canonical, few, few_fields, is_flat};
use crate::entities::Entities;
use crate::extension::{Call, Ext};
use cedar_policy_core::ast;
use creto_enablement_common::Value as Asked;
use std::ops::Deref;
use std::rc::Rc;

/// A condition erred. Which policy is all that decisions need; `explain` says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erred;

/// A value of a policy or of an entity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    Bool(bool),
    Long(i64),
    Str(Box<str>),
    /// An entity that has a number.
    Known(u32),
    /// One that has none: in an attenuation, whose names are not taken into the engine.
    Named(Box<str>, Box<str>),
    Ext(Ext),
    Set(Box<[Stored]>, Order),
    Record(Box<[(Box<str>, Stored)]>),
}

/// How the members of a stored set lie, so that membership can be found by halving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    Text,
    Numbers,
    None,
}

/// An entity reference.
#[derive(Clone, Copy, Debug)]
pub enum Ent<'a> {
    Known(u32),
    Named(&'a str, &'a str),
}

/// A value during evaluation.
#[derive(Clone, Debug)]
pub enum Val<'a> {
    Bool(bool),
    Long(i64),
    Str(&'a str),
    Ent(Ent<'a>),
    Ext(Ext),
    Set(SetVal<'a>),
    Record(RecordVal<'a>),
}

#[derive(Clone, Debug)]
pub enum SetVal<'a> {
    Stored(&'a [Stored], Order),
    Asked(&'a [Asked<'a>]),
    Built(Rc<[Val<'a>]>),
}

#[derive(Clone, Debug)]
pub enum RecordVal<'a> {
    Stored(&'a [(Box<str>, Stored)]),
    Asked(&'a [(&'a str, Asked<'a>)]),
    Built(Rc<[(&'a str, Val<'a>)]>),
}

impl Stored {
    /// A set, its members put in order where all of them have one.
    pub fn set(mut members: Vec<Self>) -> Self {
        let order = if members.iter().all(|m| matches!(m, Self::Str(_))) {
            members.sort_by(|a, b| match (a, b) {
                (Self::Str(a), Self::Str(b)) => a.cmp(b),
                _ => std::cmp::Ordering::Equal,
            });
            Order::Text
        } else if members.iter().all(|m| matches!(m, Self::Known(_))) {
            members.sort_by_key(|m| if let Self::Known(n) = m { *n } else { 0 });
            Order::Numbers
        } else {
            Order::None
        };
        Self::Set(members.into(), order)
    }

    /// From a value of cedar-policy; `number` gives each entity its own.
    pub fn from_cedar(value: &ast::Value, number: &mut dyn FnMut(&ast::EntityUID) -> Self) -> Option<Self> {
        Some(match value.value_kind() {
            ast::ValueKind::Lit(ast::Literal::Bool(b)) => Self::Bool(*b),
            ast::ValueKind::Lit(ast::Literal::Long(n)) => Self::Long(*n),
            ast::ValueKind::Lit(ast::Literal::String(text)) => Self::Str(text.as_str().into()),
            ast::ValueKind::Lit(ast::Literal::EntityUID(uid)) => number(uid),
            ast::ValueKind::Set(set) => Self::set(set.iter().map(|v| Self::from_cedar(v, number)).collect::<Option<_>>()?),
            ast::ValueKind::Record(record) => Self::Record(
                record.iter().map(|(name, v)| Some((Box::from(name.as_str()), Self::from_cedar(v, number)?))).collect::<Option<_>>()?,
            ),
            ast::ValueKind::ExtensionValue(_) => Self::Ext(fold_extension(&ast::Expr::from(value.clone()))?),
        })
    }

    /// The value, borrowed.
    #[inline]
    pub fn view(&self) -> Val<'_> {
        match self {
            Self::Bool(b) => Val::Bool(*b),
            Self::Long(n) => Val::Long(*n),
            Self::Str(text) => Val::Str(text),
            Self::Known(n) => Val::Ent(Ent::Known(*n)),
            Self::Named(kind, id) => Val::Ent(Ent::Named(kind, id)),
            Self::Ext(ext) => Val::Ext(*ext),
            Self::Set(members, order) => Val::Set(SetVal::Stored(members, *order)),
            Self::Record(fields) => Val::Record(RecordVal::Stored(fields)),
        }
    }
}

/// An extension value written as calls over literals; none where it errs.
pub fn fold_extension(expr: &ast::Expr) -> Option<Ext> {
    let ast::ExprKind::ExtensionFunctionApp { fn_name, args } = expr.expr_kind() else { return None };
    let call = Call::named(&fn_name.to_string())?;
    match (call.is_constructor(), args.as_slice()) {
        (true, [text]) => match text.expr_kind() {
            ast::ExprKind::Lit(ast::Literal::String(text)) => call.construct(text),
            _ => None,
        },
        (false, [receiver, rest @ ..]) if rest.len() + 1 == call.arity() => {
            let argument = match rest.first() {
                Some(argument) => Some(fold_extension(argument)?),
                None => None,
            };
            match call.apply(fold_extension(receiver)?, argument)? {
                crate::extension::Given::Ext(ext) => Some(ext),
                _ => None,
            }
        }
        _ => None,
    }
}

impl<'a> Val<'a> {
    /// From what a request brings.
    #[inline]
    pub fn asked(value: &'a Asked<'a>) -> Result<Self, Erred> {
        Ok(match value {
            Asked::Bool(b) => Val::Bool(*b),
            Asked::Long(n) => Val::Long(*n),
            Asked::Str(text) => Val::Str(text),
            Asked::Entity(kind, id) => Val::Ent(Ent::Named(kind, id)),
            Asked::Extension(name, text) => {
                let call = Call::named(name).filter(|call| call.is_constructor()).ok_or(Erred)?;
                Val::Ext(call.construct(text).ok_or(Erred)?)
            }
            Asked::Set(items) => Val::Set(SetVal::Asked(items)),
            Asked::Record(fields) => Val::Record(RecordVal::Asked(fields)),
        })
    }

    #[inline]
    pub fn bool(&self) -> Result<bool, Erred> {
        if let Val::Bool(b) = self { Ok(*b) } else { Err(Erred) }
    }

    pub fn long(&self) -> Result<i64, Erred> {
        if let Val::Long(n) = self { Ok(*n) } else { Err(Erred) }
    }

    pub fn str(&self) -> Result<&'a str, Erred> {
        if let Val::Str(text) = self { Ok(text) } else { Err(Erred) }
    }

    pub fn ent(&self) -> Result<Ent<'a>, Erred> {
        if let Val::Ent(ent) = self { Ok(*ent) } else { Err(Erred) }
    }

    pub fn ext(&self) -> Result<Ext, Erred> {
        if let Val::Ext(ext) = self { Ok(*ext) } else { Err(Erred) }
    }

    pub fn set(&self) -> Result<&SetVal<'a>, Erred> {
        if let Val::Set(set) = self { Ok(set) } else { Err(Erred) }
    }

    /// Cedar's `==`: values of different types are unequal, and nothing errs.
    pub fn equals(&self, other: &Self, entities: &Entities) -> bool {
        match (self, other) {
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Long(a), Val::Long(b)) => a == b,
            (Val::Str(a), Val::Str(b)) => a == b,
            (Val::Ent(a), Val::Ent(b)) => same_entity(*a, *b, entities),
            (Val::Ext(a), Val::Ext(b)) => a == b,
            (Val::Set(a), Val::Set(b)) if few(a, b) => a.within(b, entities) && b.within(a, entities),
            (Val::Record(a), Val::Record(b)) if a.len() != b.len() => false,
            (Val::Record(a), Val::Record(b)) if few_fields(a, b) => (0..a.len()).all(|at| {
                let Some((name, Ok(left))) = a.at(at) else { return false };
                matches!(b.field(name), Some(Ok(right)) if left.equals(&right, entities))
            }),
            (Val::Set(_), Val::Set(_)) | (Val::Record(_), Val::Record(_)) => {
                let written = Canonical::of(self, entities);
                written.is_some() && written == Canonical::of(other, entities)
            }
            _ => false,
        }
    }
}

/// Whether two references are to one entity.
#[inline]
pub fn same_entity(a: Ent<'_>, b: Ent<'_>, entities: &Entities) -> bool {
    match (a, b) {
        (Ent::Known(a), Ent::Known(b)) => a == b,
        (Ent::Named(kind, id), Ent::Named(other_kind, other_id)) => kind == other_kind && id == other_id,
        (Ent::Known(number), Ent::Named(kind, id)) | (Ent::Named(kind, id), Ent::Known(number)) => {
            entities.name(number).is_some_and(|(known_kind, known_id)| known_kind == kind && known_id == id)
        }
    }
}

impl<'a> SetVal<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Stored(members, _) => members.len(),
            Self::Asked(members) => members.len(),
            Self::Built(members) => members.len(),
        }
    }

    /// The member at a place; a member of a request may be no value.
    pub fn at(&self, place: usize) -> Option<Result<Val<'a>, Erred>> {
        match self {
            Self::Stored(members, _) => members.get(place).map(|m| Ok(m.view())),
            Self::Asked(members) => members.get(place).map(Val::asked),
            Self::Built(members) => members.get(place).cloned().map(Ok),
        }
    }

    pub fn contains(&self, value: &Val<'a>, entities: &Entities) -> bool {
        if let Self::Stored(members, order) = self
            && members.len() > 8
        {
            match (order, value) {
                (Order::Text, Val::Str(text)) => {
                    return members
                        .binary_search_by(|m| if let Stored::Str(m) = m { (**m).cmp(text) } else { std::cmp::Ordering::Less })
                        .is_ok();
                }
                (Order::Numbers, Val::Ent(ent)) => {
                    let Some(number) = entities.number(*ent) else { return false };
                    return members
                        .binary_search_by(|m| if let Stored::Known(m) = m { m.cmp(&number) } else { std::cmp::Ordering::Less })
                        .is_ok();
                }
                (Order::Text | Order::Numbers, _) => return false,
                _ => {}
            }
        }
        let mut members = (0..self.len()).filter_map(|at| self.at(at)?.ok());
        if is_flat(value) {
            return members.any(|member| member.equals(value, entities));
        }
        let written = Canonical::of(value, entities);
        written.is_some() && members.any(|member| !is_flat(&member) && written == Canonical::of(&member, entities))
    }

    /// Whether its members lie in order, so that one is found by halving.
    fn is_sorted(&self) -> bool {
        matches!(self, Self::Stored(_, Order::Text | Order::Numbers))
    }

    /// Whether looking for each of its members in the other takes longer than sorting both.
    fn is_long_beside(&self, other: &Self) -> bool {
        !few(self, other) && !other.is_sorted()
    }

    fn written(&self, other: &Self, entities: &Entities) -> Option<[Vec<Canonical<'a>>; 2]> {
        Some([Canonical::members(self, entities)?, Canonical::members(other, entities)?])
    }

    pub fn within(&self, other: &Self, entities: &Entities) -> bool {
        if self.is_long_beside(other) {
            return self
                .written(other, entities)
                .is_some_and(|[mine, others]| mine.iter().all(|member| others.binary_search(member).is_ok()));
        }
        (0..self.len()).all(|at| matches!(self.at(at), Some(Ok(member)) if other.contains(&member, entities)))
    }

    pub fn meets(&self, other: &Self, entities: &Entities) -> bool {
        if self.is_long_beside(other) {
            return self
                .written(other, entities)
                .is_some_and(|[mine, others]| mine.iter().any(|member| others.binary_search(member).is_ok()));
        }
        (0..self.len()).any(|at| matches!(self.at(at), Some(Ok(member)) if other.contains(&member, entities)))
    }
}

impl<'a> RecordVal<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Stored(fields) => fields.len(),
            Self::Asked(fields) => fields.len(),
            Self::Built(fields) => fields.len(),
        }
    }

    pub fn at(&self, place: usize) -> Option<(&'a str, Result<Val<'a>, Erred>)> {
        match self {
            Self::Stored(fields) => fields.get(place).map(|(name, v)| (&**name, Ok(v.view()))),
            Self::Asked(fields) => fields.get(place).map(|(name, v)| (*name, Val::asked(v))),
            Self::Built(fields) => fields.get(place).map(|(name, v)| (*name, Ok(v.clone()))),
        }
    }

    #[inline]
    pub fn field(&self, name: &str) -> Option<Result<Val<'a>, Erred>> {
        match self {
            Self::Stored(fields) => stored_field(fields, name).map(|v| Ok(v.view())),
            Self::Asked(fields) => fields.iter().find(|(field, _)| *field == name).map(|(_, v)| Val::asked(v)),
            Self::Built(fields) => fields.iter().find(|(field, _)| *field == name).map(|(_, v)| Ok(v.clone())),
        }
    }
}

/// A field of a stored record; the fields are sorted by name.
#[inline]
pub fn stored_field<'a, N: Deref<Target = str>>(fields: &'a [(N, Stored)], name: &str) -> Option<&'a Stored> {
    if fields.len() <= 8 {
        return fields.iter().find(|(field, _)| **field == *name).map(|(_, v)| v);
    }
    let at = fields.binary_search_by(|(field, _)| (**field).cmp(name)).ok()?;
    fields.get(at).map(|(_, v)| v)
}
