//! One version held still, for several questions to the same policies and entities.

use crate::answer::{Answer, Ruling, Told};
use crate::hop::Attenuation;
use crate::party::{Buffers, Party};
use crate::prepared::{Actor, Prepared};
use crate::readable::readable;
use crate::roster::{Roster, code};
use crate::ruling::{audit_when, code_of};
use crate::set::Policy;
use crate::shape::Fit;
use crate::snapshot::{Seeking, Snapshot};
use crate::tally::{Outcome, Tally};
use creto_enablement_common::ports::AuditWhen;
use creto_enablement_common::{CheckRef, Digest, Fields, Result, Value};
use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

pub(crate) const NOTHING_INSTALLED: &str = "no policy set is installed";

/// One version held still.
pub struct View(pub(crate) Option<Arc<Snapshot>>);

fn nothing() -> Ruling {
    Ruling::denied(NOTHING_INSTALLED.into(), [0; 32])
}

impl View {
    /// What is to be done about the act; every doubt is a denial.
    #[inline]
    pub fn rule(&self, check: &CheckRef<'_>) -> Ruling {
        self.0.as_ref().map_or_else(nothing, |snapshot| snapshot.rule(check))
    }

    /// What is to be done about a prepared act. `resource` names it where it was not prepared.
    pub fn rule_prepared(&self, prepared: &Prepared, resource: Option<&str>, context: Fields<'_>) -> Ruling {
        self.prepared(prepared, resource, context, |snapshot, parties| snapshot.decide(parties, context)).unwrap_or_else(|ruling| ruling)
    }

    /// Begins a check: `then` makes its circumstances ready while what is known of its agent and resource comes from memory.
    #[inline]
    pub fn begin<R>(&self, agent: &str, action: &str, resource: &str, then: impl FnOnce(&Begun<'_>) -> R) -> R {
        let (names, mut buffers) = (CheckRef { agent, action, resource, context: &[] }, Buffers::default());
        let seeking = self.0.as_deref().map(|snapshot| (snapshot, snapshot.seek(&names, &mut buffers)));
        if let Some((Snapshot { entities, .. }, Ok(seeking))) = &seeking {
            entities.prefetch(&seeking.principal);
            entities.prefetch(&seeking.resource);
        }
        then(&Begun { names: &names, seeking: &seeking })
    }

    /// `rule_prepared`, told shortly.
    #[inline]
    pub fn tell_prepared(&self, prepared: &Prepared, resource: Option<&str>, context: Fields<'_>) -> Told {
        self.prepared(prepared, resource, context, |snapshot, parties| snapshot.tell_of(parties, context))
            .unwrap_or_else(|ruling| Told::Own(Box::new(ruling)))
    }

    /// How many common rulings there are.
    pub fn commons(&self) -> usize {
        self.0.as_ref().map_or(0, |snapshot| snapshot.set.len() + 1)
    }

    /// A common ruling.
    pub fn common(&self, place: u32) -> Ruling {
        self.0.as_ref().map_or_else(nothing, |snapshot| snapshot.common(place))
    }

    /// What somebody keeps beside this version, as long as it lasts; the first to ask makes it.
    #[inline]
    pub fn beside<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        self.0.as_ref()?.beside.get_or_init(|| Box::new(make())).downcast_ref()
    }

    #[inline]
    fn prepared<T>(
        &self,
        prepared: &Prepared,
        resource: Option<&str>,
        context: Fields<'_>,
        then: impl FnOnce(&Snapshot, [&Party<'_>; 3]) -> T,
    ) -> Result<T, Ruling> {
        let Some(snapshot) = &self.0 else { return Err(nothing()) };
        let [principal, action, own] = parties(snapshot, prepared);
        let mut buffer = Cow::Borrowed("");
        let resource = match resource {
            Some(name) => {
                let check = CheckRef {
                    agent: principal.name(&snapshot.entities).1,
                    action: action.name(&snapshot.entities).1,
                    resource: name,
                    context,
                };
                snapshot.party(snapshot.resource(&check, &action, &mut buffer).map_err(|error| snapshot.denied(error.to_string()))?)
            }
            None if prepared.with_resource => own,
            None => return Err(snapshot.denied("no resource was named")),
        };
        Ok(then(snapshot, [&principal, &action, &resource]))
    }

    /// What the schema wants on record of this action's context; empty for nearly all.
    #[inline]
    pub fn recorded(&self, action: &str) -> &[Box<str>] {
        let Some(snapshot) = &self.0 else { return &[] };
        let recorded = &snapshot.set.parsed.recorded;
        if recorded.is_empty() {
            return &[];
        }
        let id = action.strip_prefix("Action::\"").and_then(|rest| rest.strip_suffix('"')).unwrap_or(action);
        recorded.get(id).map_or(&[], |names| &**names)
    }

    /// The same question for several principals: the act and its circumstances are read once. `None` where no principal could do it, and
    /// then `rule` says why.
    pub fn question<'a>(
        &'a self,
        action: &'a str,
        resource: &'a str,
        context: Fields<'a>,
        buffers: &'a mut QuestionBuffers<'a>,
    ) -> Option<Question<'a>> {
        let snapshot = self.0.as_ref()?;
        let QuestionBuffers { names: Buffers { action: action_buffer, resource: resource_buffer, .. }, declared } = buffers;
        let check = CheckRef { agent: "", action, resource, context };
        let action = snapshot.party(snapshot.action(check.action, action_buffer).ok()?);
        let resource = snapshot.party(snapshot.resource(&check, &action, resource_buffer).ok()?);
        let seen = match snapshot.act_fits(&action, &resource, context) {
            Fit::No => return None,
            Fit::Whole => context,
            Fit::More => {
                *declared = snapshot.declared(&action, context).into_vec();
                declared
            }
        };
        Some(Question { snapshot, action, resource, context, seen })
    }

    /// Cedar's answer, with nothing of ours added.
    ///
    /// # Errors
    /// `InvalidInput` where the request cannot be read.
    pub fn answer(&self, check: &CheckRef<'_>) -> Result<Answer> {
        let Some(snapshot) = &self.0 else {
            return Ok(Answer { allowed: false, determining: Vec::new(), erring: Vec::new() });
        };
        readable(check.context)?;
        let outcome = self.outcome(check)?;
        let names = |numbers: &[u32]| {
            let mut names: Vec<Arc<str>> =
                numbers.iter().filter_map(|n| snapshot.set.policy(*n)).map(|policy| Arc::clone(&policy.id)).collect();
            names.sort_unstable();
            names
        };
        Ok(Answer { allowed: outcome.allowed, determining: names(&outcome.determining), erring: names(&outcome.erring) })
    }

    /// Cedar's answer to borrowed strings, by numbers.
    ///
    /// # Errors
    /// `InvalidInput` where the request cannot be read.
    #[inline]
    pub fn outcome(&self, check: &CheckRef<'_>) -> Result<Outcome> {
        let Some(snapshot) = &self.0 else { return Ok(Tally::default().into()) };
        let mut buffers = Buffers::default();
        let seeking = snapshot.seek(check, &mut buffers)?;
        Ok(snapshot.found(&seeking, |parties| snapshot.tally(parties, check.context)).into())
    }

    /// Cedar's answer to a prepared request, by numbers; none where it was prepared without a resource.
    #[inline]
    pub fn outcome_prepared(&self, prepared: &Prepared, context: Fields<'_>) -> Option<Outcome> {
        let snapshot = self.0.as_ref()?;
        prepared.with_resource.then(|| snapshot.tally(parties(snapshot, prepared).each_ref(), context).into())
    }

    /// Decides many acts without circumstances, each given by the places of its parts in the rosters; answers by `code`, in order. A place
    /// outside of its roster is a denial.
    pub fn codes(&self, rosters: [&Roster; 3], places: impl Iterator<Item = [u32; 3]>, mut answer: impl FnMut(u8)) {
        let Some(snapshot) = &self.0 else { return places.for_each(|_| answer(code::DENY)) };
        let [principals, actions, resources] = rosters;
        for [principal, action, resource] in places {
            let said = (|| {
                let parties =
                    [principals.party(principal, snapshot)?, actions.party(action, snapshot)?, resources.party(resource, snapshot)?];
                let [principal, action, resource] = &parties;
                let fits = snapshot.principal_fits(principal, action) && snapshot.act_fits(action, resource, &[]) != Fit::No;
                fits.then(|| code_of(&snapshot.tally(parties.each_ref(), &[]), |number| snapshot.set.policy(number)))
            })();
            answer(said.unwrap_or(code::DENY));
        }
    }

    /// SHA-256 of the policy set, all zeros with none.
    #[inline]
    pub fn digest(&self) -> Digest {
        self.0.as_ref().map_or([0; 32], |snapshot| snapshot.set.digest)
    }

    /// The id of a policy.
    pub fn policy_id(&self, number: u32) -> Option<&str> {
        Some(&self.0.as_ref()?.set.policy(number)?.id)
    }
}

#[inline]
fn parties<'a>(snapshot: &'a Snapshot, prepared: &'a Prepared) -> [Party<'a>; 3] {
    let same = prepared.epoch == snapshot.set.epoch;
    let [principal, action, resource] = &prepared.found;
    let entities = &snapshot.entities;
    [
        principal.party(same, || prepared.names.first(), entities),
        action.party(same, || prepared.names.get(1), entities),
        resource.party(same, || prepared.names.get(2), entities),
    ]
}

/// A check whose circumstances are yet to come.
pub struct Begun<'a> {
    names: &'a CheckRef<'a>,
    /// None where nothing is installed.
    seeking: &'a Option<(&'a Snapshot, Result<Seeking<'a>>)>,
}

impl Begun<'_> {
    /// What is to be done about the act, told shortly; every doubt is a denial.
    #[inline]
    pub fn tell(&self, context: Fields<'_>) -> Told {
        match self.seeking {
            Some((snapshot, Ok(seeking))) => snapshot.found(seeking, |parties| snapshot.tell_of(parties, context)),
            Some((snapshot, Err(_))) => Told::Own(Box::new(snapshot.misfit(&CheckRef { context, ..*self.names }))),
            None => Told::Own(Box::new(nothing())),
        }
    }
}

/// Room for names of a question whose escapes had to be resolved, and for the declared part of its context.
#[derive(Default)]
pub struct QuestionBuffers<'a> {
    names: Buffers<'a>,
    declared: Vec<(&'a str, Value<'a>)>,
}

/// That an act is permitted, with nothing said against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The first permit, in the order of the ids; `View::policy_id` names it.
    pub permit: u32,
    /// When the act is to be recorded.
    pub audit: AuditWhen,
}

/// An act that was read once and fits the schema, to be asked about for several principals.
pub struct Question<'a> {
    snapshot: &'a Snapshot,
    action: Party<'a>,
    resource: Party<'a>,
    /// All of it, for delegation hops: their policies are not held against the schema.
    context: Fields<'a>,
    /// What the schema declares of it, for the set that serves.
    seen: Fields<'a>,
}

impl Question<'_> {
    /// What is to be done about the act of this principal.
    #[inline]
    pub fn rule(&self, actor: &Actor) -> Ruling {
        let principal = self.principal(actor);
        if !self.snapshot.principal_fits(&principal, &self.action) {
            return self.snapshot.decide([&principal, &self.action, &self.resource], self.context);
        }
        let tally = self.snapshot.tally([&principal, &self.action, &self.resource], self.seen);
        self.snapshot.ruling(&tally, |number| self.snapshot.set.policy(number))
    }

    /// What permits the act of this principal, where nothing is said against it; else what is to be done about it.
    ///
    /// # Errors
    /// The ruling, which need not be a denial.
    pub fn agrees(&self, actor: &Actor) -> Result<Agreed, Ruling> {
        let principal = self.principal(actor);
        if !self.snapshot.principal_fits(&principal, &self.action) {
            return Err(self.rule(actor));
        }
        let tally = self.snapshot.tally([&principal, &self.action, &self.resource], self.seen);
        self.shortly(&tally, |number| self.snapshot.set.policy(number))
    }

    /// The same of a delegation hop, about the act of this principal; the main set is asked apart.
    ///
    /// # Errors
    /// As `agrees`.
    pub fn covered(&self, attenuation: &Attenuation, actor: &Actor) -> Result<AuditWhen, Ruling> {
        let hop = match attenuation.hop(self.snapshot.set.epoch, &self.snapshot.entities) {
            Ok(hop) => hop,
            Err(error) => return Err(self.snapshot.denied(error.to_string())),
        };
        let tally = hop.tally(&self.snapshot.entities, [&self.principal(actor), &self.action, &self.resource], self.context);
        self.shortly(&tally, |number| hop.policy(number)).map(|agreed| agreed.audit)
    }

    /// A ruling names what permits at the cost of a reference counted; who only wants to know whether all agree is spared that.
    #[inline]
    fn shortly<'p>(&self, tally: &Tally, policy: impl Fn(u32) -> Option<&'p Policy>) -> Result<Agreed, Ruling> {
        match tally.plain_permit() {
            Some(permit) => Ok(Agreed { permit, audit: audit_when(tally, &policy) }),
            None => Err(self.snapshot.ruling(tally, policy)),
        }
    }

    #[inline]
    fn principal<'b>(&'b self, actor: &'b Actor) -> Party<'b> {
        actor.found.party(actor.epoch == self.snapshot.set.epoch, || Some(&actor.name), &self.snapshot.entities)
    }
}
