//! What the gate promises, over small real parts: a quota that counts and a sink that keeps.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use creto_authz::{Engine, Sources};
use creto_enablement_common::ports::{AuditSink, Clock, QuotaEnforcer, QuotaPath, ReservationId, Ticket};
use creto_enablement_common::sync::Mutex;
use creto_enablement_common::{Error, ErrorKind, OutcomeRef, RecordKind, RecordRef, Result, Timestamp, Usage, Value};
use creto_gate::{Act, Gate, Grant, Refusal};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

const SCHEMA: &str = r#"
entity Team; entity Agent in [Team]; entity Tool;
action "tool:call" appliesTo { principal: [Agent], resource: Tool, context: { amount: Long, note?: String } };
@open action "tool:look" appliesTo { principal: [Agent], resource: Tool, context: { amount?: Long } };
"#;

const POLICIES: &str = r#"
@id("call") permit (principal, action == Action::"tool:call", resource);
@id("look") @audit("after") permit (principal, action == Action::"tool:look", resource);
@id("ask-large") @oversight("large") forbid (principal, action == Action::"tool:call", resource) when { context.amount > 100 };
@id("ask-strange") @oversight("strange") forbid (principal, action, resource == Tool::"strange");
@id("never-hammer") forbid (principal, action, resource == Tool::"hammer");
@id("no-notes-on-saw") forbid (principal, action == Action::"tool:call", resource == Tool::"saw") when { context.amount * 9223372036854775807 > 0 };
@id("not-mallory") forbid (principal == Agent::"spiffe://t/agent/mallory", action, resource);
"#;

/// Holds at most `limit` of each meter on each node.
struct Counting {
    limit: u64,
    used: Mutex<HashMap<String, u64>>,
    held: Mutex<HashMap<u64, Vec<(String, u64)>>>,
    next: AtomicU64,
    this: Weak<Self>,
}

impl Counting {
    fn new(limit: u64) -> Arc<Self> {
        let next = AtomicU64::new(1);
        Arc::new_cyclic(|this| Self { limit, used: Mutex::default(), held: Mutex::default(), next, this: this.clone() })
    }

    fn of(&self, key: &str) -> u64 {
        self.used.lock().get(key).copied().unwrap_or(0)
    }

    fn keys(path: &[&str], usage: Usage<'_>) -> Vec<(String, u64)> {
        path.iter().flat_map(|node| usage.iter().map(move |(meter, quantity)| (format!("{node}/{meter}"), *quantity))).collect()
    }
}

impl QuotaEnforcer for Counting {
    fn check_quota(&self, path: &[&str], usage: Usage<'_>, _: Timestamp) -> Result<()> {
        let used = self.used.lock();
        for (key, quantity) in Self::keys(path, usage) {
            let now = used.get(&key).copied().unwrap_or(0);
            if now + quantity > self.limit {
                return Err(Error::new(ErrorKind::QuotaExceeded { limit: self.limit, used: now }).with_context(key));
            }
        }
        Ok(())
    }

    fn reserve(&self, path: &[&str], usage: Usage<'_>, now: Timestamp) -> Result<ReservationId> {
        self.check_quota(path, usage, now)?;
        let keys = Self::keys(path, usage);
        let mut used = self.used.lock();
        for (key, quantity) in &keys {
            *used.entry(key.clone()).or_default() += quantity;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.held.lock().insert(id, keys);
        Ok(ReservationId(id))
    }

    fn commit(&self, id: ReservationId, actual: Usage<'_>, _: Timestamp) -> Result<()> {
        let Some(keys) = self.held.lock().remove(&id.0) else { return Ok(()) };
        let mut used = self.used.lock();
        for (key, quantity) in keys {
            let meter = key.rsplit('/').next().unwrap();
            let real = actual.iter().find(|(name, _)| *name == meter).map_or(0, |(_, quantity)| *quantity);
            let entry = used.get_mut(&key).unwrap();
            *entry = *entry - quantity + real;
        }
        Ok(())
    }

    fn release(&self, id: ReservationId, now: Timestamp) -> Result<()> {
        self.commit(id, &[], now)
    }

    fn path(&self, path: &[&str]) -> Result<Arc<dyn QuotaPath>> {
        Ok(Arc::new(Along { counting: self.this.upgrade().unwrap(), path: path.iter().map(|&node| node.to_owned()).collect() }))
    }
}

/// A path that `Counting` was asked for.
struct Along {
    counting: Arc<Counting>,
    path: Vec<String>,
}

impl QuotaPath for Along {
    fn reserve(&self, usage: Usage<'_>, now: Timestamp) -> Result<ReservationId> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        self.counting.reserve(&path, usage, now)
    }

    fn commit_held(&self, id: ReservationId, _: Timestamp) -> Result<()> {
        self.counting.held.lock().remove(&id.0);
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    kind: RecordKind,
    why: String,
    failure: Option<String>,
    act: [u8; 16],
    id: [u8; 16],
    usage: Vec<(String, u64)>,
    chain: Vec<String>,
}

#[derive(Default)]
struct Keeping {
    records: Mutex<Vec<Kept>>,
}

impl AuditSink for Keeping {
    fn enqueue(&self, record: &RecordRef<'_>) -> Result<Ticket> {
        assert_ne!(record.why, "panic, please");
        let mut records = self.records.lock();
        records.push(Kept {
            kind: record.kind,
            why: record.why.to_owned(),
            failure: match record.outcome {
                Some(OutcomeRef::Failure(text)) => Some(text.to_owned()),
                _ => None,
            },
            act: record.act,
            id: record.id,
            usage: record.usage.iter().map(|(meter, quantity)| ((*meter).to_owned(), *quantity)).collect(),
            chain: record.delegation_chain.iter().map(|link| (*link).to_owned()).collect(),
        });
        Ok(Ticket(records.len() as u64))
    }

    fn wait_durable(&self, _: Ticket) -> Result<()> {
        Ok(())
    }
}

struct Counter(AtomicU64);

impl Clock for Counter {
    fn now(&self) -> Timestamp {
        Timestamp::from_word(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn observe(&self, _: Timestamp) {}
}

struct House {
    gate: Gate,
    quota: Arc<Counting>,
    sink: Arc<Keeping>,
    engine: Arc<Engine>,
}

fn house() -> House {
    let engine = Arc::new(Engine::new());
    engine.install(&Sources { policies: POLICIES, schema: Some(SCHEMA), entities: "" }).unwrap();
    let quota = Counting::new(10);
    let sink = Arc::new(Keeping::default());
    let gate = Gate::new(Arc::clone(&engine), quota.clone(), sink.clone(), Arc::new(Counter(AtomicU64::new(1))));
    House { gate, quota, sink, engine }
}

const ANN: &str = "spiffe://t/agent/ann";
const BOB: &str = "spiffe://t/agent/bob";
const MALLORY: &str = "spiffe://t/agent/mallory";

impl House {
    fn enter(
        &self,
        agent: &str,
        chain: &[(&str, Option<&str>)],
        action: &str,
        resource: &str,
        amount: Value<'_>,
    ) -> Result<Box<creto_gate::Permit>, Refusal> {
        let principal = self.gate.principal(agent, &["org", "team", agent], chain).unwrap();
        let act = Act { action, resource, context: &[("amount", amount)], usage: &[("calls", 1)] };
        self.gate.enter(&principal, &act, None)
    }

    fn records(&self) -> Vec<Kept> {
        self.sink.records.lock().clone()
    }
}

fn reason(refusal: Refusal) -> String {
    assert_eq!(refusal.error.kind(), &ErrorKind::Unauthorized);
    refusal.error.to_string()
}

#[test]
fn an_allowed_act_is_reserved_recorded_and_charged_once() {
    let house = house();
    let permit = house.enter(ANN, &[], "tool:call", "hand", Value::Long(5)).unwrap();
    assert!(permit.wants_intent());
    assert_eq!(house.quota.of("org/calls"), 1);
    assert_eq!(permit.intent().unwrap(), permit.intent().unwrap());
    permit.settle(OutcomeRef::Success, Some(&[("calls", 3)])).unwrap();
    assert!(permit.settle(OutcomeRef::Success, None).unwrap_err().to_string().contains("settled already"));
    drop(permit);
    for node in ["org", "team", ANN] {
        assert_eq!(house.quota.of(&format!("{node}/calls")), 3);
    }
    let records = house.records();
    assert_eq!(records.iter().map(|r| r.kind).collect::<Vec<_>>(), [RecordKind::Intent, RecordKind::Outcome]);
    assert_eq!(records[0].act, records[1].act);
    assert_ne!(records[0].id, records[1].id);
    assert_eq!(records[0].why, "call");
    assert_eq!(records[1].usage, [("calls".to_owned(), 3)]);
}

#[test]
fn a_permit_that_is_dropped_gives_back_what_it_holds_and_says_so() {
    let house = house();
    drop(house.enter(ANN, &[], "tool:call", "hand", Value::Long(5)).unwrap());
    assert_eq!(house.quota.of("org/calls"), 0);
    assert_eq!(house.records()[0].failure.as_deref(), Some("abandoned before it was settled"));
}

#[test]
fn a_failed_act_costs_nothing_unless_it_says_what_it_used() {
    let house = house();
    house.enter(ANN, &[], "tool:call", "hand", Value::Long(5)).unwrap().settle(OutcomeRef::Failure("no"), None).unwrap();
    assert_eq!(house.quota.of("org/calls"), 0);
    house.enter(ANN, &[], "tool:call", "hand", Value::Long(5)).unwrap().settle(OutcomeRef::Failure("no"), Some(&[("calls", 1)])).unwrap();
    assert_eq!(house.quota.of("org/calls"), 1);
}

#[test]
fn reads_marked_after_need_no_intent() {
    assert!(!house().enter(ANN, &[], "tool:look", "hand", Value::Long(5)).unwrap().wants_intent());
}

#[test]
fn a_refusal_names_the_policy_and_is_on_record() {
    let house = house();
    let refusal = house.enter(ANN, &[], "tool:call", "hammer", Value::Long(1)).unwrap_err();
    assert_eq!(refusal.ticket, Some(Ticket(1)));
    assert_eq!(reason(refusal), "`tool:call` on `hammer` by `spiffe://t/agent/ann`: policy `never-hammer` forbids it: not authorized");
    assert_eq!(house.records()[0].kind, RecordKind::Refusal);
    assert_eq!(house.quota.of("org/calls"), 0);
}

#[test]
fn a_plain_forbid_stands_over_oversight_and_oversight_over_every_permit() {
    let house = house();
    let refusal = house.enter(ANN, &[], "tool:call", "strange", Value::Long(500)).unwrap_err();
    assert_eq!(refusal.error.kind(), &ErrorKind::OversightRequired { policy_id: "large".to_owned() });
    assert_eq!(refusal.oversight.iter().map(|p| &**p).collect::<Vec<_>>(), ["large", "strange"]);
    assert!(reason(house.enter(ANN, &[], "tool:call", "hammer", Value::Long(500)).unwrap_err()).contains("never-hammer"));
    // No permit applies: a grant could not help, so nobody is asked.
    let nothing = house.enter(ANN, &[], "Action::\"tool:look\"", "Agent::\"x\"", Value::Long(5)).unwrap_err();
    assert_eq!(nothing.error.kind(), &ErrorKind::Unauthorized);
}

#[test]
fn a_grant_lets_in_only_what_its_policies_asked_for() {
    let house = house();
    let principal = house.gate.principal(ANN, &["org"], &[]).unwrap();
    let act = Act { action: "tool:call", resource: "strange", context: &[("amount", Value::Long(500))], usage: &[("calls", 1)] };
    let grant = |policies: &[&str]| Grant { digest: [7; 32], policies: policies.iter().map(|&p| Arc::from(p)).collect() };
    assert!(house.gate.enter(&principal, &act, Some(&grant(&["large"]))).is_err());
    let permit = house.gate.enter(&principal, &act, Some(&grant(&["strange", "large"]))).unwrap();
    permit.settle(OutcomeRef::Success, None).unwrap();
    let hammer = Act { resource: "hammer", ..act };
    assert!(house.gate.enter(&principal, &hammer, Some(&grant(&["strange", "large"]))).is_err());
}

#[test]
fn while_a_human_is_asked_quota_is_checked_and_not_held() {
    let house = house();
    let principal = house.gate.principal(ANN, &["org"], &[]).unwrap();
    let act = |calls| Act {
        action: "tool:call",
        resource: "x",
        context: &[("amount", Value::Long(500))],
        usage: if calls { &[("calls", 11)] } else { &[("calls", 1)] },
    };
    assert!(matches!(
        house.gate.enter(&principal, &act(true), None).unwrap_err().error.kind(),
        ErrorKind::QuotaExceeded { limit: 10, used: 0 }
    ));
    assert!(matches!(house.gate.enter(&principal, &act(false), None).unwrap_err().error.kind(), ErrorKind::OversightRequired { .. }));
    assert_eq!(house.quota.of("org/calls"), 0);
}

#[test]
fn a_forbid_that_errs_denies_and_is_named() {
    let text = reason(house().enter(ANN, &[], "tool:call", "saw", Value::Long(2)).unwrap_err());
    assert!(text.contains("`no-notes-on-saw`") && text.contains("erred"), "{text}");
}

#[test]
fn leaving_out_or_retyping_what_the_schema_requires_never_lets_an_act_in() {
    let house = house();
    let principal = house.gate.principal(ANN, &["org"], &[]).unwrap();
    let contexts: [&[(&str, Value<'_>)]; 4] =
        [&[], &[("amount", Value::Str("5"))], &[("amount", Value::Bool(true))], &[("amount", Value::Long(5)), ("extra", Value::Long(1))]];
    for context in contexts {
        let act = Act { action: "tool:call", resource: "saw", context, usage: &[] };
        assert!(reason(house.gate.enter(&principal, &act, None).unwrap_err()).contains("does not fit the schema"));
    }
    let open = Act { action: "tool:look", resource: "saw", context: &[("extra", Value::Long(1))], usage: &[] };
    assert!(house.gate.enter(&principal, &open, None).is_ok());
    let retyped = Act { context: &[("amount", Value::Str("5"))], ..open };
    assert!(house.gate.enter(&principal, &retyped, None).is_err());
}

#[test]
fn every_link_of_the_chain_is_asked() {
    let house = house();
    let refusal = house.enter(ANN, &[(BOB, None), (MALLORY, None)], "tool:call", "hand", Value::Long(5)).unwrap_err();
    let text = reason(refusal);
    assert!(text.contains("`spiffe://t/agent/mallory`, for whom the agent acts, may not: policy `not-mallory` forbids it"), "{text}");
    assert_eq!(house.records()[0].chain, [BOB, MALLORY]);
}

#[test]
fn who_consults_hears_what_policy_says_to_the_whole_chain_and_leaves_nothing_behind() {
    let house = house();
    let consult = |chain: &[(&str, Option<&str>)], resource: &str, amount: i64| {
        let principal = house.gate.principal(ANN, &["org"], chain).unwrap();
        house.gate.consult(&principal, &Act { action: "tool:call", resource, context: &[("amount", Value::Long(amount))], usage: &[] })
    };
    let only_five = "permit (principal, action, resource) when { context.amount <= 5 };";
    assert!(consult(&[(BOB, Some(only_five))], "hand", 5).unwrap().is_empty());
    assert!(reason(consult(&[(BOB, Some(only_five))], "hand", 6).unwrap_err()).contains("does not cover it"));
    assert!(reason(consult(&[(MALLORY, None)], "hand", 5).unwrap_err()).contains("not-mallory"));
    assert_eq!(consult(&[], "strange", 500).unwrap().iter().map(|p| &**p).collect::<Vec<_>>(), ["large", "strange"]);
    assert!(house.records().is_empty());
}

#[test]
fn a_delegation_narrows_and_never_widens() {
    let house = house();
    let only_five = "permit (principal, action, resource) when { context.amount <= 5 };";
    assert!(house.enter(ANN, &[(BOB, Some(only_five))], "tool:call", "hand", Value::Long(5)).is_ok());
    let text = reason(house.enter(ANN, &[(BOB, Some(only_five))], "tool:call", "hand", Value::Long(6)).unwrap_err());
    assert!(text.contains("the delegation to `spiffe://t/agent/bob` does not cover it"), "{text}");
    assert!(house.enter(ANN, &[(BOB, Some("permit (principal, action, resource);"))], "tool:call", "hammer", Value::Long(1)).is_err());
    let bomb = format!("permit (principal, action, resource) when {{ {}true{} }};", "(".repeat(500), ")".repeat(500));
    let error = house.gate.principal(ANN, &[], &[(BOB, Some(&bomb))]).unwrap_err();
    assert!(error.to_string().contains("nested deeper than 64"), "{error}");
}

#[test]
fn a_panic_inside_is_a_denial() {
    struct Exploding;
    impl QuotaEnforcer for Exploding {
        fn check_quota(&self, _: &[&str], _: Usage<'_>, _: Timestamp) -> Result<()> {
            panic!("quota")
        }
        fn reserve(&self, _: &[&str], _: Usage<'_>, _: Timestamp) -> Result<ReservationId> {
            panic!("quota")
        }
        fn commit(&self, _: ReservationId, _: Usage<'_>, _: Timestamp) -> Result<()> {
            Ok(())
        }
        fn release(&self, _: ReservationId, _: Timestamp) -> Result<()> {
            Ok(())
        }
        fn path(&self, _: &[&str]) -> Result<Arc<dyn QuotaPath>> {
            panic!("quota")
        }
    }
    let house = house();
    let gate = Gate::new(house.engine.clone(), Arc::new(Exploding), house.sink.clone(), Arc::new(Counter(AtomicU64::new(1))));
    let principal = gate.principal(ANN, &["org"], &[]).unwrap();
    let act = Act { action: "tool:call", resource: "hand", context: &[("amount", Value::Long(1))], usage: &[("calls", 1)] };
    assert!(reason(gate.enter(&principal, &act, None).unwrap_err()).contains("internal fault while deciding, so it is denied"));
}

#[test]
fn a_principal_of_another_gate_is_not_let_in() {
    let (house, other) = (house(), house());
    let stranger = other.gate.principal(ANN, &["org"], &[]).unwrap();
    let act = Act { action: "tool:call", resource: "hand", context: &[("amount", Value::Long(1))], usage: &[("calls", 1)] };
    let text = house.gate.enter(&stranger, &act, None).unwrap_err().error.to_string();
    assert!(text.contains("the principal was prepared by another gate; prepare it by the one that it goes through"), "{text}");
    assert_eq!((house.quota.of("org/calls"), other.quota.of("org/calls")), (0, 0));
    let principal = house.gate.principal(ANN, &["org"], &[]).unwrap();
    let _permit = house.gate.clone().enter(&principal, &act, None).unwrap();
    assert_eq!((house.quota.of("org/calls"), other.quota.of("org/calls")), (1, 0));
}

#[test]
fn a_set_that_does_not_validate_is_not_installed_and_the_old_one_serves() {
    let house = house();
    for bad in [
        "permit (",
        "permit (principal, action, resource) when { context.nothing };",
        "@oversight(\"x\") permit (principal, action, resource);",
    ] {
        assert!(house.engine.install(&Sources { policies: bad, schema: Some(SCHEMA), entities: "" }).is_err(), "{bad}");
    }
    assert!(house.enter(ANN, &[], "tool:call", "hand", Value::Long(5)).is_ok());
}
