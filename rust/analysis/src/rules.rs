//! A policy set sorted by what each policy does, and the sets of policies that questions about it are put with.
//!
//! With permits P, plain forbids F and oversight forbids O, an act is allowed by P and not F and not O, asked about by P and not F and O, and
//! denied otherwise. The solver compares two ordinary policy sets, so `P and O` is written as one permit for each pair: it is satisfied where
//! both are, errors included.

use crate::solver::{Process, finish};
use cedar_policy::{ActionConstraint, Effect, Entities, Policy, PolicyId, PolicySet, RequestEnv, Schema};
use cedar_policy_core::ast;
use cedar_policy_symcc::{CedarSymCompiler, CompiledPolicySet, Env, implies_asserts};
use creto_authz::Parsed;
use creto_enablement_common::{Error, Result};
use std::collections::BTreeSet;

/// A kind of request about which nothing could be proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// The kind of request: principal type, action and resource type.
    pub environment: String,
    /// Why not.
    pub why: String,
}

/// The policies of a set that may apply to one kind of request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    pub(crate) permits: Vec<Policy>,
    pub(crate) plain: Vec<Policy>,
    pub(crate) oversight: Vec<Policy>,
}

/// More pairs than this for one kind of request are not built.
const PAIRS: usize = 50_000;

impl Side {
    /// Those of the set whose action fits.
    pub(crate) fn of(parsed: &Parsed, env: &RequestEnv, actions: &Entities) -> Self {
        let mut side = Self::default();
        for policy in parsed.policies.policies().filter(|policy| applies(policy, env, actions)) {
            let list = match (policy.effect(), policy.annotation("oversight")) {
                (Effect::Permit, _) => &mut side.permits,
                (Effect::Forbid, None) => &mut side.plain,
                (Effect::Forbid, Some(_)) => &mut side.oversight,
            };
            list.push(policy.clone());
        }
        side
    }

    /// Satisfied where the act is allowed.
    pub(crate) fn allowed(&self) -> Result<PolicySet> {
        set(&[&self.permits, &self.plain, &self.oversight])
    }

    /// Satisfied where the act is allowed or asked about.
    pub(crate) fn not_denied(&self) -> Result<PolicySet> {
        set(&[&self.permits, &self.plain])
    }

    /// Satisfied where a permit and an oversight forbid apply, and none of `forbids`: none where there is no such pair.
    pub(crate) fn asked(&self, forbids: &[&[Policy]]) -> Result<Option<PolicySet>> {
        self.asked_by(&self.oversight, forbids)
    }

    /// The same of these oversight forbids only.
    pub(crate) fn asked_by(&self, oversight: &[Policy], forbids: &[&[Policy]]) -> Result<Option<PolicySet>> {
        let both = self.pairs(Effect::Permit, oversight)?;
        if both.is_empty() {
            return Ok(None);
        }
        let mut lists: Vec<&[Policy]> = vec![&both];
        lists.extend_from_slice(forbids);
        set(&lists).map(Some)
    }

    /// Denied where a permit and an oversight forbid apply, and permitted otherwise.
    pub(crate) fn unasked(&self) -> Result<PolicySet> {
        let mut flipped = self.pairs(Effect::Forbid, &self.oversight)?;
        flipped.push(written(Effect::Permit, "true")?);
        set(&[&flipped])
    }

    /// One policy for each pair of a permit and one of these, satisfied where both are.
    fn pairs(&self, effect: Effect, oversight: &[Policy]) -> Result<Vec<Policy>> {
        let pairs = self.permits.len() * oversight.len();
        if pairs > PAIRS {
            return Err(Error::invalid(format!("{pairs} pairs of a permit and an oversight policy are too many to look at")));
        }
        let mut both = Vec::with_capacity(pairs);
        for permit in &self.permits {
            for forbid in oversight {
                both.push(written(effect, &format!("({}) && ({})", condition(permit), condition(forbid)))?);
            }
        }
        Ok(both)
    }

    /// The names by which oversight is asked, sorted.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.oversight.iter().filter_map(|policy| policy.annotation("oversight")).collect()
    }

    /// The oversight forbids of one name.
    pub(crate) fn named(&self, name: &str) -> Vec<Policy> {
        self.oversight.iter().filter(|policy| policy.annotation("oversight") == Some(name)).cloned().collect()
    }

    /// Denied where a permit applies, and permitted otherwise.
    pub(crate) fn unpermitted(&self) -> Result<PolicySet> {
        let mut flipped = vec![written(Effect::Permit, "true")?];
        for permit in &self.permits {
            flipped.push(written(Effect::Forbid, &condition(permit))?);
        }
        set(&[&flipped])
    }

    /// True where both hold the same policies and ask by the same names, whatever the policies' own ids.
    pub(crate) fn same(&self, other: &Self) -> bool {
        [(&self.permits, &other.permits), (&self.plain, &other.plain), (&self.oversight, &other.oversight)]
            .iter()
            .all(|(one, other)| alike(one, other))
    }
}

/// True where both lists say the same, in whatever order.
pub(crate) fn alike(one: &[Policy], other: &[Policy]) -> bool {
    let texts = |list: &[Policy]| {
        let mut texts: Vec<_> = list.iter().map(|policy| (condition(policy), policy.annotation("oversight").map(str::to_owned))).collect();
        texts.sort_unstable();
        texts
    };
    texts(one) == texts(other)
}

/// True where the policy's action scope holds the kind of request.
pub(crate) fn applies(policy: &Policy, env: &RequestEnv, actions: &Entities) -> bool {
    let action = env.action();
    let under = |group: &cedar_policy::EntityUid| group == action || actions.is_ancestor_of(group, action);
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(one) => one == *action,
        ActionConstraint::In(groups) => groups.iter().any(under),
    }
}

fn condition(policy: &Policy) -> String {
    let inner: &ast::Policy = policy.as_ref();
    inner.condition().to_string()
}

/// A policy without a scope, by its condition.
fn written(effect: Effect, condition: &str) -> Result<Policy> {
    let word = if effect == Effect::Permit { "permit" } else { "forbid" };
    Policy::parse(None, format!("{word} (principal, action, resource) when {{ {condition} }};"))
        .map_err(|error| Error::internal("reading back a condition that was written out").with_source(error))
}

fn set(lists: &[&[Policy]]) -> Result<PolicySet> {
    let renamed = lists.iter().flat_map(|list| list.iter()).enumerate();
    PolicySet::from_policies(renamed.map(|(number, policy)| policy.new_id(PolicyId::new(format!("p{number}")))))
        .map_err(|error| Error::internal("putting policies together").with_source(error))
}

/// The questions, with what they are put about.
pub(crate) struct Questions<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) actions: Entities,
    compiler: CedarSymCompiler<Process>,
}

impl<'a> Questions<'a> {
    pub(crate) fn new(parsed: &'a Parsed, solver: Process) -> Result<Self> {
        let schema = parsed.schema.as_ref().ok_or_else(|| Error::internal("a set that was read without its schema"))?;
        let actions = schema.action_entities().map_err(|error| Error::internal("the schema's actions").with_source(error))?;
        let compiler = CedarSymCompiler::new(solver).map_err(|error| Error::internal("the symbolic compiler").with_source(error))?;
        Ok(Self { schema, actions, compiler })
    }

    /// How many questions the solver was asked; those that need no solver are not counted.
    pub(crate) fn asked(&self) -> usize {
        self.compiler.solver().asked
    }

    /// The kinds of request that there are.
    pub(crate) fn environments(&self) -> Vec<RequestEnv> {
        let mut environments: Vec<_> = self.schema.request_envs().collect();
        environments.sort_by_key(name);
        environments
    }

    /// A request of this kind that `left` permits and `right` does not; none where there is none.
    ///
    /// # Errors
    /// The text says why nothing is known.
    pub(crate) fn apart(&mut self, left: &PolicySet, right: &PolicySet, env: &RequestEnv) -> core::result::Result<Option<Env>, String> {
        let words = |error: cedar_policy_symcc::err::Error| match error {
            cedar_policy_symcc::err::Error::SolverUnknown => "the solver could not decide it in its time".to_owned(),
            other => other.to_string(),
        };
        let left = CompiledPolicySet::compile(left, env, self.schema).map_err(words)?;
        let right = CompiledPolicySet::compile(right, env, self.schema).map_err(words)?;
        finish(self.compiler.check_sat(&implies_asserts(&left, &right))).map_err(|error| error.to_string())?.map_err(words)
    }

    /// The compiler itself, for questions about single policies.
    pub(crate) fn compiler(&mut self) -> (&mut CedarSymCompiler<Process>, &'a Schema) {
        (&mut self.compiler, self.schema)
    }
}

/// `Agent, tool:call, Tool`.
pub(crate) fn name(env: &RequestEnv) -> String {
    format!("{}, {}, {}", env.principal(), env.action().id().unescaped(), env.resource())
}
