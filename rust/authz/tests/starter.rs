//! The starter sets: they validate without a warning, and decide as their comments say.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use creto_authz::{Engine, Sources};
use creto_enablement_common::{CheckRef, Decision, Fields, Value};

const SCHEMA: &str = include_str!("../../../python/creto/authz/starter/schema.cedarschema");
const DEFAULT: &str = include_str!("../../../python/creto/authz/starter/default.cedar");
const AGENT: &str = "spiffe://creto.local/agent/researcher";

fn outcome(engine: &Engine, action: &str, resource: &str, context: Fields<'_>) -> String {
    match engine.rule(&CheckRef { agent: AGENT, action, resource, context }).decision {
        Decision::Allow => "allow".to_owned(),
        Decision::Deny { reason } => format!("deny: {reason}"),
        Decision::RequiresOversight { policy_id } => format!("ask: {policy_id}"),
    }
}

fn installed(policies: &str) -> Engine {
    let engine = Engine::new();
    let (_, warnings) = engine.install(&Sources { policies, schema: Some(SCHEMA), entities: "" }).unwrap();
    assert_eq!(warnings, []);
    engine
}

#[test]
fn the_default_set_reads_the_working_folder_asks_about_the_rest_and_never_gives_secrets() {
    let engine = installed(DEFAULT);
    let path = |action, path| outcome(&engine, action, path, &[("path", Value::Str(path))]);
    assert_eq!(path("fs:read", "."), "allow");
    assert_eq!(path("fs:read", "src/main.py"), "allow");
    assert_eq!(path("fs:write", "report.md"), "ask: changes");
    assert_eq!(path("fs:read", "/etc/passwd"), "deny: no policy permits it");
    assert_eq!(path("fs:read", "../other"), "deny: no policy permits it");
    assert_eq!(path("fs:read", ".env"), "deny: policy `secrets-never` forbids it");
    assert_eq!(path("fs:write", "deploy/id_rsa"), "deny: policy `secrets-never` forbids it");
    let connect = |host| outcome(&engine, "net:connect", host, &[("host", Value::Str(host)), ("port", Value::Long(443))]);
    assert_eq!(connect("example.org"), "ask: network");
    assert_eq!(connect("169.254.169.254"), "deny: policy `no-cloud-metadata` forbids it");
    assert_eq!(outcome(&engine, "http:get", "https://example.org/", &[("host", Value::Str("example.org"))]), "ask: network");
    assert_eq!(outcome(&engine, "process:exec", "python", &[]), "allow");
    assert_eq!(outcome(&engine, "tool:call", "send_money", &[("anything", Value::Long(1))]), "allow");
    assert_eq!(outcome(&engine, "message:send", "spiffe://creto.local/agent/reviewer", &[]), "allow");
    assert_eq!(outcome(&engine, "secret:use", "api-key", &[]), "allow", "what was kept for this agent by hand");
}
