//! A property of every set of policies: who leaves out or falsifies a circumstance is never let through for it.
//!
//! In Cedar a forbid whose condition errs is passed over, so without the gate an agent could switch it off by leaving out what it asks about.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use creto_authz::{Engine, Sources};
use creto_enablement_common::ports::{AuditSink, Clock, Ticket};
use creto_enablement_common::{ErrorKind, RecordRef, Result, Timestamp, Value};
use creto_gate::{Act, Gate};
use creto_metering::QuotaEnforcer;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SCHEMA: &str = r#"
entity Agent; entity Tool;
action "tool:call" appliesTo { principal: Agent, resource: Tool, context: {
    amount: Long, purpose: String, urgent: Bool, to: Set<String>, from: ipaddr, place: { zone: String, floor: Long }, note?: String,
} };
"#;

/// Conditions over the circumstances, some of which can err where the schema is right.
const CONDITIONS: [&str; 11] = [
    "context.amount > 500",
    "context.amount * 9223372036854775807 > 0",
    "context.purpose == \"test\"",
    "context.purpose like \"t*\"",
    "context.urgent",
    "context.to.containsAll([\"a\", \"b\"])",
    "context.to.isEmpty()",
    "context.from.isInRange(ip(\"10.0.0.0/8\"))",
    "context.place.zone == \"eu\"",
    "context.place.floor < 3",
    "context has note && context.note == \"please\"",
];

struct Nowhere;

impl AuditSink for Nowhere {
    fn enqueue(&self, _: &RecordRef<'_>) -> Result<Ticket> {
        Ok(Ticket(0))
    }

    fn wait_durable(&self, _: Ticket) -> Result<()> {
        Ok(())
    }
}

struct Steps(AtomicU64);

impl Clock for Steps {
    fn now(&self) -> Timestamp {
        Timestamp::from_word(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn observe(&self, _: Timestamp) {}
}

fn policies() -> impl Strategy<Value = String> {
    let term = (any::<bool>(), 0..CONDITIONS.len()).prop_map(|(not, n)| format!("{}({})", if not { "!" } else { "" }, CONDITIONS[n]));
    let condition =
        (proptest::collection::vec(term, 1..4), any::<bool>()).prop_map(|(terms, all)| terms.join(if all { " && " } else { " || " }));
    let policy = (0..4_u8, any::<bool>(), proptest::option::of(condition)).prop_map(|(kind, when, condition)| {
        let head = ["permit", "permit", "forbid", "@oversight(\"humans\") forbid"][kind as usize];
        let condition = condition.map(|c| format!("{} {{ {c} }}", if when { "when" } else { "unless" })).unwrap_or_default();
        format!("{head} (principal, action, resource) {condition};")
    });
    proptest::collection::vec(policy, 1..5).prop_map(|policies| policies.join("\n"))
}

/// Right circumstances, by name.
#[derive(Clone, Debug)]
struct Told {
    amount: i64,
    purpose: &'static str,
    urgent: bool,
    to: Vec<&'static str>,
    from: &'static str,
    zone: &'static str,
    floor: i64,
    note: Option<&'static str>,
}

fn told() -> impl Strategy<Value = Told> {
    (
        0_i64..1_000,
        prop_oneof![Just("test"), Just("work")],
        any::<bool>(),
        proptest::sample::subsequence(vec!["a", "b", "c"], 0..=3),
        prop_oneof![Just("10.1.2.3"), Just("192.0.2.1"), Just("::1")],
        prop_oneof![Just("eu"), Just("us")],
        0_i64..6,
        proptest::option::of(prop_oneof![Just("please"), Just("now")]),
    )
        .prop_map(|(amount, purpose, urgent, to, from, zone, floor, note)| Told {
            amount,
            purpose,
            urgent,
            to,
            from,
            zone,
            floor,
            note,
        })
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Said {
    Allowed,
    Asked,
    Denied,
}

fn say(gate: &Gate, context: &[(&str, Value<'_>)]) -> Said {
    let principal = gate.principal("spiffe://t/agent/a", &["org"], &[]).unwrap();
    match gate.enter(&principal, &Act { action: "tool:call", resource: "hammer", context, usage: &[] }, None) {
        Ok(_) => Said::Allowed,
        Err(refusal) if *refusal.error.kind() == ErrorKind::Unauthorized => Said::Denied,
        Err(refusal) => {
            assert!(matches!(refusal.error.kind(), ErrorKind::OversightRequired { .. }), "{}", refusal.error);
            Said::Asked
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn leaving_out_or_falsifying_a_required_circumstance_never_opens_the_gate(policies in policies(), told in told()) {
        let engine = Arc::new(Engine::new());
        // What the strict validator refuses is never installed.
        prop_assume!(engine.install(&Sources { policies: &policies, schema: Some(SCHEMA), entities: "" }).is_ok());
        let quota = Arc::new(QuotaEnforcer::new(Vec::new(), Duration::from_secs(60)));
        let gate = Gate::new(engine, quota, Arc::new(Nowhere), Arc::new(Steps(AtomicU64::new(1))));

        let to: Vec<Value<'_>> = told.to.iter().map(|name| Value::Str(name)).collect();
        let place = [("zone", Value::Str(told.zone)), ("floor", Value::Long(told.floor))];
        let mut context = vec![
            ("amount", Value::Long(told.amount)),
            ("purpose", Value::Str(told.purpose)),
            ("urgent", Value::Bool(told.urgent)),
            ("to", Value::Set(&to)),
            ("from", Value::Extension("ip", told.from)),
            ("place", Value::Record(&place)),
        ];
        context.extend(told.note.map(|note| ("note", Value::Str(note))));
        let wrong = [
            Value::Bool(true), Value::Long(0), Value::Str("test"), Value::Set(&[]), Value::Set(&[Value::Long(1)]), Value::Record(&[]),
            Value::Record(&place[..1]), Value::Extension("ip", "10.0.0.300"), Value::Extension("decimal", "1.0"),
            Value::Extension("exec", "x"), Value::Entity("Tool", "hammer"), Value::Entity("Nothing", ""),
        ];
        for at in 0..6 {
            let mut less = context.clone();
            let (name, right) = less.remove(at);
            prop_assert_eq!(say(&gate, &less), Said::Denied, "without `{}`", name);
            let mut twice = context.clone();
            twice.push((name, right));
            prop_assert_eq!(say(&gate, &twice), Said::Denied, "`{}` twice", name);
            for value in wrong {
                if std::mem::discriminant(&value) == std::mem::discriminant(&right) && !matches!(right, Value::Extension(..) | Value::Record(_)) {
                    continue;
                }
                let mut other = context.clone();
                other[at].1 = value;
                prop_assert_eq!(say(&gate, &other), Said::Denied, "`{}` as {:?}", name, value);
            }
        }
        // And what the schema does not know is refused, whatever was said before.
        context.push(("amount ", Value::Long(0)));
        prop_assert_eq!(say(&gate, &context), Said::Denied);
    }

    #[test]
    fn a_forbid_that_errs_is_never_passed_over(policies in policies(), told in told()) {
        // With one more that errs on every request that is read, nothing is allowed and nobody is asked.
        let erring = format!("{policies}\nforbid (principal, action, resource) when {{ context.amount * 0 + 9223372036854775807 + 1 > 0 }};");
        let engine = Arc::new(Engine::new());
        prop_assume!(engine.install(&Sources { policies: &erring, schema: Some(SCHEMA), entities: "" }).is_ok());
        let quota = Arc::new(QuotaEnforcer::new(Vec::new(), Duration::from_secs(60)));
        let gate = Gate::new(engine, quota, Arc::new(Nowhere), Arc::new(Steps(AtomicU64::new(1))));
        let place = [("zone", Value::Str(told.zone)), ("floor", Value::Long(told.floor))];
        let context = [
            ("amount", Value::Long(told.amount)), ("purpose", Value::Str(told.purpose)), ("urgent", Value::Bool(told.urgent)),
            ("to", Value::Set(&[])), ("from", Value::Extension("ip", told.from)), ("place", Value::Record(&place)),
        ];
        prop_assert_eq!(say(&gate, &context), Said::Denied);
    }
}
