//! Who or what a request names, as one version of the entities knows it.

use crate::entities::{Entities, Record};
use crate::standing::NONE;
use crate::value::Ent;
use std::borrow::Cow;

/// A principal, an action or a resource: its type's number where it has one, and its own with its record, or else its name.
#[derive(Clone, Copy, Debug)]
pub struct Party<'a> {
    pub kind: Option<u32>,
    pub ent: Ent<'a>,
    pub record: Option<&'a Record>,
}

/// A name that was read and not looked up yet.
#[derive(Clone, Copy, Debug)]
pub struct Spelled<'a> {
    /// The type's number, where it has one.
    pub kind: Option<u32>,
    pub kind_name: &'a str,
    pub id: &'a str,
}

impl<'a> Spelled<'a> {
    /// By the name of its type.
    pub fn new(kind_name: &'a str, id: &'a str, entities: &Entities) -> Self {
        Self { kind: entities.types().number(kind_name), kind_name, id }
    }
}

impl<'a> Party<'a> {
    #[inline]
    pub fn number(&self) -> Option<u32> {
        if let Ent::Known(number) = self.ent { Some(number) } else { None }
    }

    /// Type and id.
    #[inline]
    pub fn name(&self, entities: &'a Entities) -> (&'a str, &'a str) {
        match self.ent {
            Ent::Known(number) => entities.name(number).unwrap_or_default(),
            Ent::Named(kind, id) => (kind, id),
        }
    }

    /// As a request writes it.
    pub fn text(&self, entities: &'a Entities) -> String {
        let (kind, id) = self.name(entities);
        format!("{kind}::\"{}\"", id.escape_debug())
    }
}

/// Names of the principal, the action and the resource whose escapes had to be resolved.
#[derive(Default)]
pub struct Buffers<'a> {
    pub principal: Cow<'a, str>,
    pub action: Cow<'a, str>,
    pub resource: Cow<'a, str>,
}

/// A name looked up beforehand; what was found holds for one policy set, the name for all.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub kind: u32,
    /// Or `NONE`.
    pub number: u32,
}

/// The name itself.
#[derive(Clone, Debug)]
pub struct Name {
    pub kind: Box<str>,
    pub id: Box<str>,
}

impl Found {
    pub fn of(party: &Party<'_>, entities: &Entities) -> (Self, Name) {
        let (kind, id) = party.name(entities);
        let found = Self { kind: party.kind.unwrap_or(NONE), number: party.number().unwrap_or(NONE) };
        (found, Name { kind: kind.into(), id: id.into() })
    }

    /// The party in this version; `same` where it was looked up for the set that serves.
    #[inline]
    pub fn party<'a>(&self, same: bool, name: impl FnOnce() -> Option<&'a Name>, entities: &'a Entities) -> Party<'a> {
        if same && let Some(known) = entities.party(self.number) {
            return known;
        }
        let (kind_name, id) = name().map_or(("", ""), |name| (&*name.kind, &*name.id));
        let spelled = if same && self.kind != NONE {
            Spelled { kind: Some(self.kind), kind_name, id }
        } else {
            Spelled::new(kind_name, id, entities)
        };
        entities.found(&entities.seek(spelled))
    }
}
