//! Entities of cedar-policy taken in: numbered, their attributes and tags stored.

use crate::entities::{Entities, Values};
use crate::hierarchy::Numbers;
use crate::value::Stored;
use cedar_policy_core::ast::{self, EntityType, EntityUID};
use creto_enablement_common::{Error, Result};
use foldhash::quality::RandomState;
use hashbrown::HashMap;

/// Gives entities their numbers; remembers types by cedar-policy's own names, so that they are spelled out once.
pub struct Numbering<'a> {
    pub entities: &'a mut Entities,
    kinds: HashMap<EntityType, u32, RandomState>,
}

impl<'a> Numbering<'a> {
    pub fn new(entities: &'a mut Entities) -> Self {
        Self { entities, kinds: HashMap::default() }
    }

    pub fn type_number(&mut self, kind: &EntityType) -> u32 {
        if let Some(number) = self.kinds.get(kind) {
            return *number;
        }
        let number = self.entities.intern_type(&kind.to_string());
        self.kinds.insert(kind.clone(), number);
        number
    }

    pub fn number(&mut self, uid: &EntityUID) -> u32 {
        let kind = self.type_number(uid.entity_type());
        self.entities.intern_id(kind, uid.eid().as_ref())
    }
}

/// An entity as it was taken in.
pub struct Taken {
    pub number: u32,
    pub parents: Numbers,
    pub attributes: Values,
    pub tags: Values,
}

/// Numbers an entity and its parents, and stores its values; its record is not changed.
///
/// # Errors
/// `InvalidInput` where a value is not known.
pub fn take_in(entity: &ast::Entity, numbering: &mut Numbering<'_>) -> Result<Taken> {
    let number = numbering.number(entity.uid());
    let parents = entity.parents().map(|parent| numbering.number(parent)).collect();
    let mut values = |pairs: &mut dyn Iterator<Item = (&str, &ast::PartialValue)>| -> Result<Values> {
        let mut fields = pairs
            .map(|(name, value)| {
                let ast::PartialValue::Value(value) = value else { return None };
                let stored = Stored::from_cedar(value, &mut |uid| Stored::Known(numbering.number(uid)))?;
                Some((numbering.entities.word(name), stored))
            })
            .collect::<Option<Values>>()
            .ok_or_else(|| Error::invalid(format!("entity `{}` holds a value that is not known", entity.uid())))?;
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(fields)
    };
    let attributes = values(&mut entity.attrs().map(|(name, value)| (name.as_str(), value)))?;
    let tags = values(&mut entity.tags().map(|(name, value)| (name.as_str(), value)))?;
    Ok(Taken { number, parents, attributes, tags })
}
