//! One version: policies and entities that belong together, and how a request is read by them.

use crate::answer::{Ruling, Told};
use crate::entities::{Entities, Sought};
use crate::name::parse_entity;
use crate::party::{Buffers, Party, Spelled};
use crate::readable::{fits_bounds, readable};
use crate::reference::{self, MISFIT};
use crate::set::{Policy, Set};
use crate::shape::Fit;
use crate::tally::Tally;
use creto_enablement_common::{CheckRef, Error, ErrorKind, Fields, Result, Value};
use smallvec::SmallVec;
use std::any::Any;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

/// One version.
pub struct Snapshot {
    pub set: Arc<Set>,
    pub entities: Entities,
    /// Microseconds since the Unix epoch.
    pub made: u64,
    /// What somebody keeps beside this version.
    pub beside: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// The names of a check, those of the principal and the resource being looked for.
pub struct Seeking<'a> {
    pub principal: Sought<'a>,
    pub action: Party<'a>,
    pub resource: Sought<'a>,
}

impl Snapshot {
    /// The principal of a check.
    #[inline]
    pub fn principal<'a>(&self, agent: &'a str, buffer: &'a mut Cow<'a, str>) -> Result<Spelled<'a>> {
        if let Some(name) = parse_entity(agent)? {
            return self.typed(name.kind, name.id, buffer);
        }
        let kind_name = reference::principal_type(agent);
        let kind = if kind_name == "Agent" { self.set.agent_kind } else { self.set.approver_kind };
        Ok(Spelled { kind: Some(kind), kind_name, id: agent })
    }

    /// The action of a check.
    #[inline]
    pub fn action<'a>(&self, action: &'a str, buffer: &'a mut Cow<'a, str>) -> Result<Spelled<'a>> {
        match parse_entity(action)? {
            Some(name) => self.typed(name.kind, name.id, buffer),
            None => Ok(Spelled { kind: Some(self.set.action_kind), kind_name: "Action", id: action }),
        }
    }

    /// The resource of a check.
    #[inline]
    pub fn resource<'a>(&'a self, check: &CheckRef<'a>, action: &Party<'_>, buffer: &'a mut Cow<'a, str>) -> Result<Spelled<'a>> {
        if let Some(name) = parse_entity(check.resource)? {
            return self.typed(name.kind, name.id, buffer);
        }
        let Some(kind) = self.set.shape_of(action).and_then(|action| action.sole_resource()) else {
            // Cold: cedar-policy's side says why.
            return match reference::request(check, &self.set.parsed, false) {
                Err(error) => Err(error),
                Ok(_) => Err(Error::invalid(format!("`{}` has no type; write `Type::\"{}\"`", check.resource, check.resource))),
            };
        };
        Ok(Spelled { kind: Some(kind), kind_name: self.entities.types().name(kind).unwrap_or(""), id: check.resource })
    }

    fn typed<'a>(&self, kind_name: &'a str, id: Cow<'a, str>, buffer: &'a mut Cow<'a, str>) -> Result<Spelled<'a>> {
        *buffer = id;
        let spelled = Spelled::new(kind_name, buffer, &self.entities);
        if spelled.kind.is_none() {
            // A word that Cedar keeps for itself is no type, so no request can name it.
            reference::entity_type(kind_name)?;
        }
        Ok(spelled)
    }

    /// Who or what a name stands for.
    #[inline]
    pub fn party<'a>(&'a self, spelled: Spelled<'a>) -> Party<'a> {
        self.entities.found(&self.entities.seek(spelled))
    }

    /// Reads the names of a check and begins to look for them.
    #[inline]
    pub fn seek<'a>(&'a self, check: &CheckRef<'a>, buffers: &'a mut Buffers<'a>) -> Result<Seeking<'a>> {
        let Buffers { principal, action, resource } = buffers;
        // The action first: it tells of what type the resource is.
        let action = self.party(self.action(check.action, action)?);
        let principal = self.entities.seek(self.principal(check.agent, principal)?);
        let resource = self.entities.seek(self.resource(check, &action, resource)?);
        Ok(Seeking { principal, action, resource })
    }

    /// Ends that, and gives them to `then`.
    #[inline]
    pub fn found<R>(&self, seeking: &Seeking<'_>, then: impl FnOnce([&Party<'_>; 3]) -> R) -> R {
        let (principal, resource) = (self.entities.found(&seeking.principal), self.entities.found(&seeking.resource));
        then([&principal, &seeking.action, &resource])
    }

    /// Whether a resource and a context fit the action.
    #[inline]
    pub fn act_fits(&self, action: &Party<'_>, resource: &Party<'_>, context: Fields<'_>) -> Fit {
        let Some(shapes) = &self.set.shapes else { return if readable(context).is_ok() { Fit::Whole } else { Fit::No } };
        match self.set.shape_of(action) {
            Some(shape) if fits_bounds(context) => shapes.rest_fits(shape, resource, context, &self.entities),
            _ => Fit::No,
        }
    }

    /// What policies are to see of a context that holds more than the schema declares.
    pub fn declared<'a>(&self, action: &Party<'_>, context: Fields<'a>) -> SmallVec<[(&'a str, Value<'a>); 8]> {
        self.set.shape_of(action).map(|shape| shape.declared(context)).unwrap_or_default()
    }

    /// What the policies say to a request; none where it does not fit the schema.
    #[inline]
    fn fitting(&self, parties: [&Party<'_>; 3], context: Fields<'_>) -> Option<Tally> {
        let [principal, action, resource] = parties;
        if !self.principal_fits(principal, action) {
            return None;
        }
        match self.act_fits(action, resource, context) {
            Fit::No => None,
            Fit::Whole => Some(self.tally(parties, context)),
            Fit::More => Some(self.tally(parties, &self.declared(action, context))),
        }
    }

    /// Whether a principal fits the action.
    #[inline]
    pub fn principal_fits(&self, principal: &Party<'_>, action: &Party<'_>) -> bool {
        let Some(shapes) = &self.set.shapes else { return true };
        self.set.shape_of(action).is_some_and(|shape| shapes.principal_fits(shape, principal, &self.entities))
    }

    #[inline]
    pub fn tally(&self, parties: [&Party<'_>; 3], context: Fields<'_>) -> Tally {
        self.set.tally(&self.entities, parties, context)
    }

    /// What is to be done about a request that was read.
    #[inline]
    pub fn decide(&self, parties: [&Party<'_>; 3], context: Fields<'_>) -> Ruling {
        match self.fitting(parties, context) {
            Some(tally) => self.ruling(&tally, |number| self.set.policy(number)),
            None => self.misfit_of(parties, context),
        }
    }

    /// The same, told shortly.
    #[inline]
    pub fn tell_of(&self, parties: [&Party<'_>; 3], context: Fields<'_>) -> Told {
        let Some(tally) = self.fitting(parties, context) else {
            return Told::Own(Box::new(self.misfit_of(parties, context)));
        };
        if tally.forbids.is_empty() && tally.erring.is_empty() {
            match *tally.permits {
                [] => return Told::Common(0),
                [only] => return Told::Common(only + 1),
                [..] => {}
            }
        }
        Told::Own(Box::new(self.ruling(&tally, |number| self.set.policy(number))))
    }

    /// A common ruling: 0 is that no policy permits an act, the others that this one policy does and nothing else applies.
    pub fn common(&self, place: u32) -> Ruling {
        let tally = Tally { permits: place.checked_sub(1).into_iter().collect(), ..Tally::default() };
        self.ruling(&tally, |number| self.set.policy(number))
    }

    /// The denial of a request that does not fit, with what does not: in our words where it is the context, else in cedar-policy's.
    #[cold]
    pub fn misfit(&self, check: &CheckRef<'_>) -> Ruling {
        // What is too large or too deep is not given to anybody to be looked at.
        let error = readable(check.context).and_then(|()| reference::request(check, &self.set.parsed, true)).err();
        let words = if fits_bounds(check.context) { self.context_misfit(check) } else { None };
        let why = match (words, &error) {
            (Some(words), _) => format!("{MISFIT}: {words}"),
            (None, None) => MISFIT.to_owned(),
            (None, Some(error)) => match error.kind() {
                ErrorKind::InvalidInput(what) => what.clone(),
                _ => error.to_string(),
            },
        };
        self.denied(why)
    }

    fn context_misfit(&self, check: &CheckRef<'_>) -> Option<String> {
        let (shapes, mut buffers) = (self.set.shapes.as_ref()?, Buffers::default());
        let seeking = self.seek(check, &mut buffers).ok()?;
        self.found(&seeking, |[principal, action, resource]| {
            let shape = self.set.shape_of(action)?;
            let fits = shapes.principal_fits(shape, principal, &self.entities) && shapes.resource_fits(shape, resource, &self.entities);
            if fits { shapes.misfit(shape, check.context, &self.entities) } else { None }
        })
    }

    #[cold]
    fn misfit_of(&self, parties: [&Party<'_>; 3], context: Fields<'_>) -> Ruling {
        let [agent, action, resource] = &parties.map(|party| party.text(&self.entities));
        self.misfit(&CheckRef { agent, action, resource, context })
    }

    /// A denial by this version.
    #[cold]
    pub fn denied(&self, reason: impl Into<Arc<str>>) -> Ruling {
        Ruling { made: self.made, ..Ruling::denied(reason.into(), self.set.digest) }
    }

    /// What is to be done about a request given as text.
    #[inline]
    pub fn rule(&self, check: &CheckRef<'_>) -> Ruling {
        let mut buffers = Buffers::default();
        match self.seek(check, &mut buffers) {
            Ok(seeking) => self.found(&seeking, |parties| self.decide(parties, check.context)),
            Err(_) => self.misfit(check),
        }
    }

    /// What the policies said, as a ruling.
    #[inline]
    pub fn ruling<'a>(&self, tally: &Tally, policy: impl Fn(u32) -> Option<&'a Policy>) -> Ruling {
        Ruling::of(tally, policy, &self.set, self.made)
    }
}
