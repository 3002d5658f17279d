//! Which policies' scopes hold all of another's: looked up, so that a large set is not gone through for each of its policies.

use cedar_policy::pst::{ActionConstraint, PrincipalConstraint, ResourceConstraint, Template};
use std::collections::HashMap;
use std::fmt::Debug;

/// A policy's id, where it is in the text, and what it says.
pub(crate) type Read = (String, Option<(usize, usize)>, Template);

/// A policy, with its place in the set.
type Placed<'a> = (usize, &'a Read);

/// Policies by the principal and the resource of their scopes.
pub(crate) struct Scopes<'a> {
    places: HashMap<String, HashMap<String, Vec<Placed<'a>>>>,
}

impl<'a> Scopes<'a> {
    /// These policies, each with its place in the set.
    pub(crate) fn of(policies: impl Iterator<Item = Placed<'a>>) -> Self {
        let mut places: HashMap<_, HashMap<_, Vec<_>>> = HashMap::new();
        for (at, policy) in policies {
            let (_, _, body) = policy;
            places.entry(key(&body.principal)).or_default().entry(key(&body.resource)).or_default().push((at, policy));
        }
        Self { places }
    }

    /// Those whose scope holds all of this policy's, in their order; it is among them where it is one of these.
    pub(crate) fn covering(&self, narrower: &Template) -> impl Iterator<Item = &'a Read> {
        let resources = resources_above(&narrower.resource);
        let mut found: Vec<Placed<'a>> = principals_above(&narrower.principal)
            .iter()
            .filter_map(|principal| self.places.get(principal))
            .flat_map(|within| resources.iter().filter_map(|resource| within.get(resource)))
            .flatten()
            .filter(|(_, (_, _, wider))| acts_within(&wider.action, &narrower.action))
            .copied()
            .collect();
        found.sort_unstable_by_key(|(at, _)| *at);
        found.into_iter().map(|(_, policy)| policy)
    }
}

fn key(constraint: &impl Debug) -> String {
    format!("{constraint:?}")
}

fn principals_above(narrower: &PrincipalConstraint) -> Vec<String> {
    let mut above = vec![PrincipalConstraint::Any];
    match narrower {
        PrincipalConstraint::Any => {}
        PrincipalConstraint::IsIn(kind, entity) => {
            above.extend([PrincipalConstraint::Is(kind.clone()), PrincipalConstraint::In(entity.clone()), narrower.clone()]);
        }
        PrincipalConstraint::Eq(entity) => above.extend([PrincipalConstraint::In(entity.clone()), narrower.clone()]),
        _ => above.push(narrower.clone()),
    }
    above.iter().map(key).collect()
}

fn resources_above(narrower: &ResourceConstraint) -> Vec<String> {
    let mut above = vec![ResourceConstraint::Any];
    match narrower {
        ResourceConstraint::Any => {}
        ResourceConstraint::IsIn(kind, entity) => {
            above.extend([ResourceConstraint::Is(kind.clone()), ResourceConstraint::In(entity.clone()), narrower.clone()]);
        }
        ResourceConstraint::Eq(entity) => above.extend([ResourceConstraint::In(entity.clone()), narrower.clone()]),
        _ => above.push(narrower.clone()),
    }
    above.iter().map(key).collect()
}

fn acts_within(wider: &ActionConstraint, narrower: &ActionConstraint) -> bool {
    match (wider, narrower) {
        (ActionConstraint::Any, _) => true,
        (ActionConstraint::In(many), ActionConstraint::Eq(one)) => many.contains(one),
        (ActionConstraint::In(many), ActionConstraint::In(few)) => few.iter().all(|one| many.contains(one)),
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cedar_policy::PolicySet;

    /// What a scope holds of another, said for two of them.
    fn covers(wider: &Template, narrower: &Template) -> bool {
        let principal = match (&wider.principal, &narrower.principal) {
            (PrincipalConstraint::Any, _) => true,
            (PrincipalConstraint::Is(kind), PrincipalConstraint::IsIn(other, _)) => kind == other,
            (PrincipalConstraint::In(entity), PrincipalConstraint::IsIn(_, other) | PrincipalConstraint::Eq(other)) => entity == other,
            (a, b) => a == b,
        };
        let resource = match (&wider.resource, &narrower.resource) {
            (ResourceConstraint::Any, _) => true,
            (ResourceConstraint::Is(kind), ResourceConstraint::IsIn(other, _)) => kind == other,
            (ResourceConstraint::In(entity), ResourceConstraint::IsIn(_, other) | ResourceConstraint::Eq(other)) => entity == other,
            (a, b) => a == b,
        };
        principal && resource && acts_within(&wider.action, &narrower.action)
    }

    #[test]
    fn what_is_looked_up_is_what_each_pair_says() {
        let parties = |who: &str| {
            [
                who.to_owned(),
                format!("{who} == U::\"a\""),
                format!("{who} in U::\"a\""),
                format!("{who} in U::\"b\""),
                format!("{who} is U"),
                format!("{who} is U in U::\"a\""),
                format!("{who} is V in U::\"a\""),
            ]
        };
        let actions = ["action", "action == Action::\"x\"", "action in [Action::\"x\", Action::\"y\"]", "action in [Action::\"y\"]"];
        let mut text = String::new();
        for principal in parties("principal") {
            for resource in parties("resource") {
                for action in actions {
                    text.push_str(&format!("permit ({principal}, {action}, {resource});"));
                }
            }
        }
        let set: PolicySet = text.parse().unwrap();
        let read: Vec<Read> = set.policies().map(|p| (p.id().to_string(), None, p.to_pst().unwrap().body().clone())).collect();
        assert_eq!(read.len(), 7 * 7 * 4);
        let scopes = Scopes::of(read.iter().enumerate());
        for (id, _, narrower) in &read {
            let found: Vec<&String> = scopes.covering(narrower).map(|(other, _, _)| other).collect();
            let wanted: Vec<&String> = read.iter().filter(|(_, _, wider)| covers(wider, narrower)).map(|(other, _, _)| other).collect();
            assert_eq!(found, wanted, "above {id}");
        }
    }
}
