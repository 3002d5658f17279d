//! The gate: schema check, decision by 1,000 policies, two meters reserved at four levels, permit, settlement, one record enqueued.
//!
//! Quota, ledger and clock are the real ones; the policies permit with `@audit("after")`, so an act writes one record, which nobody waits for.

#![allow(clippy::indexing_slicing, reason = "places in a list of known length")]

use creto_audit::{Ledger, Options};
use creto_authz::{Engine, Sources};
use creto_benches::{Row, batches};
use creto_consensus::HybridLogicalClock;
use creto_crypto::{SigningKey, Suite};
use creto_enablement_common::{OutcomeRef, Value};
use creto_gate::{Act, Gate};
use creto_metering::{QuotaEnforcer, QuotaRule};
use std::sync::Arc;
use std::time::Duration;

const SCHEMA: &str = r#"
entity Team; entity Agent in [Team]; entity Doc;
action "doc:read" appliesTo { principal: Agent, resource: Doc, context: {} };
action "doc:note" appliesTo { principal: Agent, resource: Doc, context: { amount: Long, purpose: String, urgent: Bool } };
"#;
const AGENT: &str = "spiffe://creto.local/agent/reader";

fn policies() -> String {
    let mut text = String::new();
    for n in 0..1_000 {
        let agent = if n % 250 == 0 { AGENT.to_owned() } else { format!("spiffe://creto.local/agent/other-{n}") };
        text += &format!(
            "@id(\"p{n}\") @audit(\"after\") permit (principal == Agent::\"{agent}\", action in [Action::\"doc:read\", Action::\"doc:note\"], resource);\n"
        );
    }
    for n in 0..4 {
        text += &format!(
            "@id(\"link{n}\") @audit(\"after\") permit (principal == Agent::\"spiffe://creto.local/agent/link-{n}\", action, resource);\n"
        );
    }
    text
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("creto-bench-gate-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let clock = Arc::new(HybridLogicalClock::open(&folder.join("clock"))?);
    let ledger = Ledger::open(&folder.join("ledger"), &*clock, SigningKey::generate(Suite::Standard)?, Options::default())?;
    let rules: Vec<serde_json::Value> = ["organisation:org", "team:team", "agent:project", "agent:agent"]
        .iter()
        .flat_map(|scope| {
            ["calls", "tokens"]
                .map(|meter| serde_json::json!({"scope": scope, "meter": meter, "limit": 1_000_000_000_000_000_u64, "window": "30d"}))
        })
        .collect();
    let rules = QuotaRule::parse_list(&serde_json::Value::Array(rules).to_string())?;
    let quota = Arc::new(QuotaEnforcer::new(rules, Duration::from_secs(60)));
    let engine = Arc::new(Engine::new());
    engine.install(&Sources { policies: &policies(), schema: Some(SCHEMA), entities: "" })?;
    let gate = Gate::new(engine, quota, ledger.clone(), clock);

    let narrowed = "permit (principal, action, resource);";
    let links: Vec<String> = (0..4).map(|n| format!("spiffe://creto.local/agent/link-{n}")).collect();
    let four: Vec<(&str, Option<&str>)> = links.iter().map(|link| (link.as_str(), Some(narrowed))).collect();
    let path = ["org", "team", "project", "agent"];
    let alone = gate.principal(AGENT, &path, &[])?;
    let chained = gate.principal(AGENT, &path, &four)?;
    let usage = [("calls", 1), ("tokens", 700)];
    let context = [("amount", Value::Long(5)), ("purpose", Value::Str("survey")), ("urgent", Value::Bool(false))];

    let bare = Act { action: "doc:read", resource: "doc-1", context: &[], usage: &usage };
    let full = Act { action: "doc:note", resource: "doc-1", context: &context, usage: &usage };
    for (case, principal, act, note) in [
        ("rust/enter_settle", &alone, &bare, "no chain, no context; 1,000 policies, 2 meters x 4 levels, one relaxed record"),
        ("rust/enter_settle/context", &alone, &full, "the same with a context of 3 fields"),
        ("rust/enter_settle/4-links", &chained, &full, "the same with a chain of 4 links, each narrowed by a compiled attenuation"),
    ] {
        // Short runs with pauses between them: what is measured is the gate, not how fast the disk takes records.
        let (calls, repeats) = (2_000, 41);
        let mut means = Vec::new();
        for _ in 0..repeats {
            let (mean, _) = batches(1, calls, |_| {
                let permit = gate.enter(principal, act, None);
                permit.map(|permit| permit.settle(OutcomeRef::Success, None).is_ok())
            });
            means.push(mean);
            std::thread::sleep(Duration::from_millis(20));
        }
        means.sort_by(f64::total_cmp);
        let middle = means[repeats / 2];
        let spread = (means[repeats * 3 / 4] - means[repeats / 4]) / middle;
        Row { area: "gate", case, unit: "ns", ours: middle, peer: None, samples: calls * repeats, spread, note }.print();
    }
    ledger.close()?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
