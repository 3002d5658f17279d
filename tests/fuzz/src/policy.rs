//! Policies, schemas, entities and quota rules: an attenuation is text of another agent.

use crate::text;
use creto_authz::{Engine, Limits, Sources, check_text, lint, parse, parse_entity};
use creto_metering::QuotaRule;

/// Less than any thread of ours has: what the scan lets through must be handled on it.
const STACK: usize = 1 << 20;

fn on_a_small_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let made = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work).expect("a thread");
        if let Err(panic) = made.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn install(sources: &Sources<'_>) {
    on_a_small_stack(|| {
        if let Ok(parsed) = parse(sources, &Limits::DEFAULT) {
            let _ = lint(&parsed.policies);
        }
        let engine = Engine::new();
        if engine.install(sources).is_ok() {
            let context = [];
            let check = creto_enablement_common::CheckRef {
                agent: "spiffe://creto.test/agent/a1",
                action: "tool:call",
                resource: "x",
                context: &context,
            };
            if let (Ok(answer), Ok(errors)) = (engine.answer(&check), engine.errors_in_words(&check)) {
                let mut theirs: Vec<&str> = errors.iter().map(|(policy, _)| policy.as_str()).collect();
                theirs.sort_unstable();
                let ours: Vec<&str> = answer.erring.iter().map(|policy| &**policy).collect();
                assert_eq!(ours, theirs, "the engine errs where cedar-policy does");
            }
        }
    });
}

pub fn cedar(bytes: &[u8]) {
    let Some(policies) = text(bytes) else { return };
    if check_text("policies", policies, 64 << 10, 64).is_err() {
        return;
    }
    install(&Sources { policies, schema: None, entities: "" });
    on_a_small_stack(|| {
        let _ = Engine::new().attenuation(policies);
    });
}

/// The first byte says what the rest is.
pub fn cedar_json(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let Some(rest) = text(rest) else { return };
    let policies = "permit(principal, action, resource);";
    install(&match kind % 3 {
        0 => Sources { policies: rest, schema: None, entities: "" },
        1 => Sources { policies, schema: Some(rest), entities: "" },
        _ => Sources { policies, schema: None, entities: rest },
    });
}

pub fn entity(bytes: &[u8]) {
    if let Some(text) = text(bytes) {
        let _ = parse_entity(text);
    }
}

pub fn quotas(bytes: &[u8]) {
    if let Some(json) = text(bytes) {
        let _ = QuotaRule::parse_list(json);
    }
}
