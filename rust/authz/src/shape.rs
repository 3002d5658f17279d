//! The schema, compiled for one purpose: does a request fit it?

use crate::entities::Entities;
use crate::extension::Call;
use crate::party::Party;
use crate::standing::NONE;
use cedar_policy::Schema;
use cedar_policy_core::ast::EntityUID;
use cedar_policy_core::validator::ValidatorEntityTypeKind;
use cedar_policy_core::validator::types::{BoolType, EntityKind, OpenTag, Type};
use creto_enablement_common::{Fields, Value as Asked};
use foldhash::quality::RandomState;
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

mod misfit;
pub use misfit::nearest;

/// The type of a value of the context.
#[derive(Debug)]
enum Shape {
    Never,
    Bool(Option<bool>),
    Long,
    Text,
    Entity(SmallVec<[u32; 2]>),
    AnyEntity,
    Set(Option<Box<Shape>>),
    Record(Record),
    Extension(&'static str),
}

#[derive(Debug, Default)]
struct Record {
    fields: Vec<Field>,
    required: u32,
    open: bool,
}

#[derive(Debug)]
struct Field {
    name: Box<str>,
    shape: Shape,
    required: bool,
}

/// How a context fits its action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    No,
    Whole,
    /// It holds more than the schema declares, and policies are not to see that.
    More,
}

/// What one action applies to.
#[derive(Debug)]
pub struct Action {
    principals: SmallVec<[u32; 4]>,
    resources: SmallVec<[u32; 4]>,
    context: Record,
}

impl Action {
    /// The one type of resource, where there is one only.
    pub fn sole_resource(&self) -> Option<u32> {
        if let [only] = *self.resources { Some(only) } else { None }
    }

    /// What the schema declares of a context.
    pub fn declared<'a>(&self, context: Fields<'a>) -> SmallVec<[(&'a str, Asked<'a>); 8]> {
        let known = |name: &str| self.context.fields.iter().any(|field| *field.name == *name);
        context.iter().filter(|(name, _)| known(name)).copied().collect()
    }
}

/// All actions of a schema, and the types whose ids are listed.
#[derive(Debug, Default)]
pub struct Shapes {
    actions: Vec<Action>,
    by_number: HashMap<u32, u32, RandomState>,
    choices: HashMap<u32, HashSet<Box<str>, RandomState>, RandomState>,
    action_kinds: SmallVec<[u32; 2]>,
}

impl Shapes {
    /// Compiles a schema; every type and action gets a number.
    pub fn new(schema: &Schema, open: &std::collections::HashSet<cedar_policy::EntityUid>, entities: &mut Entities) -> Self {
        let mut shapes = Self::default();
        let schema = schema.as_ref();
        for kind in schema.entity_types() {
            let number = entities.intern_type(&kind.name().to_string());
            if let ValidatorEntityTypeKind::Enum(choices) = &kind.kind {
                shapes.choices.insert(number, choices.iter().map(|id| Box::from(AsRef::<str>::as_ref(id))).collect());
            }
        }
        for action in schema.action_ids() {
            let uid: &EntityUID = action.name();
            let kind = uid.entity_type().to_string();
            let id: &str = uid.eid().as_ref();
            let kind_number = entities.intern_type(&kind);
            if !shapes.action_kinds.contains(&kind_number) {
                shapes.action_kinds.push(kind_number);
            }
            let number = entities.intern(&kind, id);
            let Some(Type::Record { attrs, open_attributes }) = action.context_type() else { continue };
            let mut context = record(
                attrs.iter().map(|(name, a)| (name.as_str(), &*a.attr_type, a.is_required)),
                *open_attributes == OpenTag::OpenAttributes,
                entities,
            );
            context.open |= open.iter().any(|marked| AsRef::<EntityUID>::as_ref(marked) == uid);
            let at = shapes.actions.len() as u32;
            shapes.actions.push(Action {
                principals: action.principals().map(|kind| entities.intern_type(&kind.to_string())).collect(),
                resources: action.resources().map(|kind| entities.intern_type(&kind.to_string())).collect(),
                context,
            });
            shapes.by_number.insert(number, at);
        }
        shapes
    }

    /// The place of an action of this number, or `NONE`.
    pub fn place_of(&self, number: u32) -> u32 {
        self.by_number.get(&number).copied().unwrap_or(NONE)
    }

    /// The action at a place.
    #[inline]
    pub fn action(&self, place: u32) -> Option<&Action> {
        self.actions.get(place as usize)
    }

    /// Whether a principal fits an action.
    #[inline]
    pub fn principal_fits(&self, action: &Action, principal: &Party<'_>, entities: &Entities) -> bool {
        principal.kind.is_some_and(|kind| action.principals.contains(&kind)) && self.party_listed(principal, entities)
    }

    /// Whether a resource fits an action.
    #[inline]
    pub fn resource_fits(&self, action: &Action, resource: &Party<'_>, entities: &Entities) -> bool {
        resource.kind.is_some_and(|kind| action.resources.contains(&kind)) && self.party_listed(resource, entities)
    }

    /// Whether a resource and a context fit an action.
    #[inline]
    pub fn rest_fits(&self, action: &Action, resource: &Party<'_>, context: Fields<'_>, entities: &Entities) -> Fit {
        if self.resource_fits(action, resource, entities) { self.record_fits(&action.context, context, entities) } else { Fit::No }
    }

    #[inline]
    fn party_listed(&self, party: &Party<'_>, entities: &Entities) -> bool {
        self.choices.is_empty() || party.kind.is_none_or(|kind| self.listed((kind, party.name(entities).1)))
    }

    #[inline]
    fn listed(&self, (kind, id): (u32, &str)) -> bool {
        self.choices.is_empty() || self.choices.get(&kind).is_none_or(|choices| choices.contains(id))
    }

    fn record_fits(&self, record: &Record, given: Fields<'_>, entities: &Entities) -> Fit {
        let mut fit = Fit::Whole;
        let mut required = 0;
        let mut seen = 0_u64;
        for (name, value) in given {
            let Some((at, field)) = record.fields.iter().enumerate().find(|(_, field)| *field.name == **name) else {
                if record.open {
                    fit = Fit::More;
                    continue;
                }
                return Fit::No;
            };
            // A name that stands twice has no one value; beyond 64 fields the slow look is taken.
            let twice = if at < 64 { seen & (1 << at) != 0 } else { given.iter().filter(|(other, _)| other == name).count() > 1 };
            seen |= 1_u64.checked_shl(at as u32).unwrap_or(0);
            if twice || !self.value_fits(&field.shape, value, entities) {
                return Fit::No;
            }
            required += u32::from(field.required);
        }
        if required == record.required { fit } else { Fit::No }
    }

    #[inline]
    fn value_fits(&self, shape: &Shape, value: &Asked<'_>, entities: &Entities) -> bool {
        match value {
            Asked::Long(_) => matches!(shape, Shape::Long),
            Asked::Str(_) => matches!(shape, Shape::Text),
            Asked::Bool(b) => matches!(shape, Shape::Bool(wanted) if wanted.is_none_or(|wanted| wanted == *b)),
            _ => self.other_fits(shape, value, entities),
        }
    }

    /// The same of what is neither text, a number nor a boolean; apart, since nearly all values are.
    fn other_fits(&self, shape: &Shape, value: &Asked<'_>, entities: &Entities) -> bool {
        match (shape, value) {
            (Shape::Entity(kinds), Asked::Entity(kind, id)) => {
                entities.types().number(kind).is_some_and(|kind| kinds.contains(&kind) && self.reference_fits(kind, id, entities))
            }
            (Shape::AnyEntity, Asked::Entity(kind, id)) => {
                entities.types().number(kind).is_none_or(|kind| self.reference_fits(kind, id, entities))
            }
            (Shape::Set(None), Asked::Set(_)) => true,
            (Shape::Set(Some(member)), Asked::Set(items)) => items.iter().all(|item| self.value_fits(member, item, entities)),
            (Shape::Record(record), Asked::Record(fields)) => self.record_fits(record, fields, entities) != Fit::No,
            (Shape::Extension(constructor), Asked::Extension(name, text)) => {
                constructor == name && Call::named(name).is_some_and(|call| call.construct(text).is_some())
            }
            _ => false,
        }
    }

    fn reference_fits(&self, kind: u32, id: &str, entities: &Entities) -> bool {
        self.listed((kind, id))
            && (!self.action_kinds.contains(&kind) || entities.find(kind, id).is_some_and(|number| self.by_number.contains_key(&number)))
    }
}

fn record<'a>(fields: impl Iterator<Item = (&'a str, &'a Type, bool)>, open: bool, entities: &mut Entities) -> Record {
    let fields: Vec<Field> =
        fields.map(|(name, kind, required)| Field { name: name.into(), shape: shape(kind, entities), required }).collect();
    let required = fields.iter().filter(|field| field.required).count() as u32;
    Record { fields, required, open }
}

fn shape(kind: &Type, entities: &mut Entities) -> Shape {
    match kind {
        Type::Never => Shape::Never,
        Type::Bool(BoolType::AnyBool) => Shape::Bool(None),
        Type::Bool(BoolType::True) => Shape::Bool(Some(true)),
        Type::Bool(BoolType::False) => Shape::Bool(Some(false)),
        Type::Long => Shape::Long,
        Type::String => Shape::Text,
        Type::Entity(EntityKind::AnyEntity) => Shape::AnyEntity,
        Type::Entity(EntityKind::Entity(kinds)) => match kinds.get_single_entity() {
            Some(kind) => Shape::Entity(std::iter::once(entities.intern_type(&kind.to_string())).collect()),
            // A schema names one type; a bound of several only arises inside the validator.
            None => Shape::Never,
        },
        Type::Set { element_type } => Shape::Set(element_type.as_ref().map(|member| Box::new(shape(member, entities)))),
        Type::Record { attrs, open_attributes } => Shape::Record(record(
            attrs.iter().map(|(name, a)| (name.as_str(), &*a.attr_type, a.is_required)),
            *open_attributes == OpenTag::OpenAttributes,
            entities,
        )),
        Type::ExtensionType { name } => match name.to_string().as_str() {
            "decimal" => Shape::Extension("decimal"),
            "ipaddr" => Shape::Extension("ip"),
            "datetime" => Shape::Extension("datetime"),
            "duration" => Shape::Extension("duration"),
            _ => Shape::Never,
        },
    }
}
