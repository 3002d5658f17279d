//! Data that changes while checks go on: no check waits, no answer is torn, and what does not fit changes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use creto_authz::{Engine, EntityChange, Role, Sources, Told, code};
use creto_enablement_common::{CheckRef, Decision};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const SCHEMA: &str = r#"
entity Team in [Team]; entity Agent in [Team] = { version: Long, revoked?: Bool }; entity Tool;
action "tool:call" appliesTo { principal: Agent, resource: Tool };
"#;

fn entities(version: i64) -> String {
    format!(
        r#"[{{"uid": {{"type": "Agent", "id": "a"}}, "attrs": {{"version": {version}}}, "parents": [{{"type": "Team", "id": "t{version}"}}]}}]"#
    )
}

fn policies(version: i64) -> String {
    format!("permit (principal in Team::\"t{version}\", action, resource) when {{ principal.version == {version} }};")
}

fn allowed(engine: &Engine, agent: &str) -> bool {
    let check = CheckRef { agent, action: "tool:call", resource: "hammer", context: &[] };
    engine.rule(&check).decision == Decision::Allow
}

const A: &str = "Agent::\"a\"";

#[test]
fn a_set_reloaded_while_two_threads_check_never_tears_an_answer() {
    let engine = Engine::new();
    engine.install(&Sources { policies: &policies(0), schema: Some(SCHEMA), entities: &entities(0) }).unwrap();
    let (done, checks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let prepared = engine.prepare(A, "tool:call", Some("hammer")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // Policies of one version with entities of another would deny.
                    assert!(allowed(&engine, A));
                    assert_eq!(engine.rule_prepared(&prepared, None, &[]).decision, Decision::Allow);
                    checks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for version in 1..40 {
            engine.install(&Sources { policies: &policies(version), schema: Some(SCHEMA), entities: &entities(version) }).unwrap();
            assert!(engine.install(&Sources { policies: "permit (", schema: Some(SCHEMA), entities: "" }).is_err());
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(checks.load(Ordering::Relaxed) > 100);
}

#[test]
fn a_group_that_moves_takes_its_members_along_and_a_removed_entity_is_gone_at_once() {
    let engine = Engine::new();
    let policies = "permit (principal in Team::\"top\", action, resource) unless { principal has revoked && principal.revoked };";
    engine.install(&Sources { policies, schema: Some(SCHEMA), entities: &entities(1) }).unwrap();
    assert!(!allowed(&engine, A));
    let change = |json: &str| engine.change_entities(EntityChange::Upsert(json));
    change(r#"[{"uid": {"type": "Team", "id": "t1"}, "attrs": {}, "parents": [{"type": "Team", "id": "top"}]}]"#).unwrap();
    assert!(allowed(&engine, A));
    let revoked = entities(1).replace("\"version\": 1", "\"version\": 1, \"revoked\": true");
    change(&revoked).unwrap();
    assert!(!allowed(&engine, A));
    change(&entities(1)).unwrap();
    assert!(allowed(&engine, A));
    engine.change_entities(EntityChange::Remove(&[("Team", "t1")])).unwrap();
    assert!(!allowed(&engine, A));
}

#[test]
fn a_change_that_does_not_fit_changes_nothing() {
    let engine = Engine::new();
    engine.install(&Sources { policies: &policies(1), schema: Some(SCHEMA), entities: &entities(1) }).unwrap();
    let cycle = r#"[{"uid": {"type": "Team", "id": "x"}, "attrs": {}, "parents": [{"type": "Team", "id": "y"}]},
                    {"uid": {"type": "Team", "id": "y"}, "attrs": {}, "parents": [{"type": "Team", "id": "x"}]}]"#;
    let refused = |json: &str| engine.change_entities(EntityChange::Upsert(json)).unwrap_err().to_string();
    assert!(refused(cycle).contains("would descend from itself"));
    assert!(refused(&entities(1).replace("\"version\": 1", "\"version\": \"1\"")).contains("version"));
    assert!(refused("{}").contains("not a JSON array"));
    assert!(refused(&"[".repeat(100)).contains("nested deeper than 64"));
    assert!(allowed(&engine, A));
}

#[test]
fn an_action_of_a_new_kind_is_sliced_in() {
    let engine = Engine::new();
    let policies = "permit (principal, action in Action::\"all\", resource);";
    engine.install(&Sources { policies, schema: None, entities: "" }).unwrap();
    let check = CheckRef { agent: A, action: "fresh", resource: "Tool::\"x\"", context: &[] };
    assert!(!engine.answer(&check).unwrap().allowed);
    let action = r#"[{"uid": {"type": "Action", "id": "fresh"}, "attrs": {}, "parents": [{"type": "Action", "id": "all"}]}]"#;
    engine.change_entities(EntityChange::Upsert(action)).unwrap();
    assert!(engine.answer(&check).unwrap().allowed);
}

#[test]
fn many_checks_at_once_answer_as_one_by_one() {
    let engine = Engine::new();
    engine.install(&Sources { policies: &policies(1), schema: Some(SCHEMA), entities: &entities(1) }).unwrap();
    let principals = engine.roster(Role::Principal, &[A, "Agent::\"b\"", "spiffe://t/agent/c"]).unwrap();
    let actions = engine.roster(Role::Action, &["tool:call", "tool:unknown"]).unwrap();
    let resources = engine.roster(Role::Resource("Tool"), &["hammer", "saw"]).unwrap();
    let mut codes = Vec::new();
    let places = [[0, 0, 0], [0, 0, 1], [1, 0, 0], [2, 0, 0], [0, 1, 0], [9, 0, 0]];
    engine.codes([&principals, &actions, &resources], places.into_iter(), |code| codes.push(code));
    assert_eq!(codes, [code::ALLOW, code::ALLOW, code::DENY, code::DENY, code::DENY, code::DENY]);
}

#[test]
fn text_that_would_end_the_process_is_refused_with_a_line() {
    let engine = Engine::new();
    let deep = |open: &str, close: &str| {
        format!("permit (principal, action, resource) when {{ {}true{} }};", open.repeat(5_000), close.repeat(5_000))
    };
    let install = |policies: &str, schema: Option<&str>, entities: &str| {
        engine.install(&Sources { policies, schema, entities }).unwrap_err().to_string()
    };
    for bomb in [deep("(", ")"), deep("!", ""), deep("if true then true else ", ""), deep("[", "]"), deep("{a: ", "}")] {
        assert!(install(&bomb, None, "").contains("nested deeper than 64"), "{}", &bomb[..60]);
    }
    let json = format!("{}{}", "{\"a\":".repeat(5_000), "}".repeat(5_000));
    assert!(install(&json, None, "").contains("nested deeper than 64"));
    assert!(install("", Some(&json), "").contains("nested deeper than 64"));
    assert!(install("", Some(&format!("type T = {};", "Set<".repeat(5_000))), "").contains("schema"));
    assert!(install("", None, &"[".repeat(5_000)).contains("nested deeper than 64"));
    // Long chains are not deep, and are decided; but Cedar's own tools walk them by recursion, so there is an end to them.
    let chain = vec!["context.a == 1"; 250].join(" || ");
    engine
        .install(&Sources { policies: &format!("permit (principal, action, resource) when {{ {chain} }};"), schema: None, entities: "" })
        .unwrap();
    let long = vec!["context.a == 1"; 3_000].join(" || ");
    let told = install(&format!("permit (principal, action, resource) when {{ {long} }};"), None, "");
    assert!(told.contains("line 1: an expression of more than 512 operators; write a set"), "{told}");
    let sum = vec!["1"; 300].join(" + ");
    assert!(install(&format!("permit (principal, action, resource) when {{ {sum} == 1 }};"), None, "").contains("nested deeper than 256"));
}

#[test]
fn no_context_and_no_text_keeps_a_check_busy() {
    use creto_enablement_common::Value;
    let engine = Engine::new();
    let policies = r#"
        @id("equal") permit (principal, action, resource) when { context.a == context.b };
        @id("contains") permit (principal, action, resource) when { [context.a].contains(context.b) };
        @id("all") permit (principal, action, resource) when { context.a.containsAll(context.b) };
        @id("any") permit (principal, action, resource) when { context.a.containsAny(context.b) };"#;
    engine.install(&Sources { policies, schema: None, entities: "" }).unwrap();
    let answers = |a: Value<'_>, b: Value<'_>| {
        let check = CheckRef { agent: A, action: "act", resource: "Tool::\"x\"", context: &[("a", a), ("b", b)] };
        engine.answer(&check).unwrap().determining.iter().map(|id| id.to_string()).collect::<Vec<_>>()
    };
    // A set in a set in a set: compared member by member both ways, each level would double the work.
    fn nested(depth: usize, inner: i64) -> Value<'static> {
        let mut value = Value::Long(inner);
        for _ in 0..depth {
            value = Value::Set(Box::leak(Box::new([value, Value::Long(7)])));
        }
        value
    }
    assert_eq!(answers(nested(60, 1), nested(60, 1)), ["all", "any", "contains", "equal"]);
    assert_eq!(answers(nested(60, 1), nested(60, 2)), ["any"]);
    let text = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let policies = format!("permit (principal, action, resource) when {{ {} == {} }};", text(60), text(60));
    let constant = Engine::new();
    constant.install(&Sources { policies: &policies, schema: None, entities: "" }).unwrap();
    assert!(constant.answer(&CheckRef { agent: A, action: "act", resource: "Tool::\"x\"", context: &[] }).unwrap().allowed);
    // As long as a context may be, in another order, and records as wide.
    let up: Vec<Value<'_>> = (0..30_000).map(Value::Long).collect();
    let down: Vec<Value<'_>> = (0..30_000).rev().map(Value::Long).collect();
    assert_eq!(answers(Value::Set(&up), Value::Set(&down)), ["all", "any", "contains", "equal"]);
    let names: Vec<String> = (0..20_000).map(|n| format!("name{n}")).collect();
    let wide: Vec<(&str, Value<'_>)> = names.iter().map(|name| (name.as_str(), Value::Long(1))).collect();
    let back: Vec<(&str, Value<'_>)> = wide.iter().rev().copied().collect();
    assert_eq!(answers(Value::Record(&wide), Value::Record(&back)), ["contains", "equal"]);
}

#[test]
fn a_context_that_is_too_large_is_denied_and_says_so() {
    use creto_enablement_common::Value;
    let text = "x".repeat((1 << 20) + 1);
    let open = SCHEMA.replace("action ", "@open action ");
    for schema in [Some(SCHEMA), Some(open.as_str()), None] {
        let engine = Engine::new();
        engine.install(&Sources { policies: "permit (principal, action, resource);", schema, entities: "" }).unwrap();
        let check = CheckRef { agent: A, action: "tool:call", resource: "Tool::\"x\"", context: &[("a", Value::Str(&text))] };
        let Decision::Deny { reason } = engine.rule(&check).decision else { panic!("it was allowed") };
        assert_eq!(&*reason, "the context is larger than 1048576 bytes");
    }
}

#[test]
fn a_type_that_cedar_cannot_read_names_nobody() {
    use creto_enablement_common::Value;
    let engine = Engine::new();
    engine.install(&Sources { policies: "permit (principal, action, resource);", schema: None, entities: "" }).unwrap();
    let denied = |agent: &str, action: &str, resource: &str, context: &[(&str, Value<'_>)]| {
        let ruling = engine.rule(&CheckRef { agent, action, resource, context });
        assert!(matches!(&ruling.decision, Decision::Deny { reason } if reason.contains("is not an entity type")), "{:?}", ruling.decision);
    };
    let good = "Tool::\"x\"";
    denied("in::\"a\"", "act", good, &[]);
    denied(A, "A::if::\"act\"", good, &[]);
    denied(A, "act", "true::\"x\"", &[]);
    denied(A, "act", good, &[("e", Value::Entity("is", "x"))]);
    assert_eq!(engine.rule(&CheckRef { agent: A, action: "act", resource: good, context: &[] }).decision, Decision::Allow);
}

#[test]
fn an_action_of_the_schema_stays_in_its_groups_whatever_is_removed() {
    let engine = Engine::new();
    let schema =
        r#"entity Agent; entity Tool; action "risky"; action "tool:call" in ["risky"] appliesTo { principal: Agent, resource: Tool };"#;
    let policies = r#"permit (principal, action, resource); forbid (principal, action in Action::"risky", resource);"#;
    engine.install(&Sources { policies, schema: Some(schema), entities: "" }).unwrap();
    assert!(!allowed(&engine, A));
    engine.change_entities(EntityChange::Remove(&[("Action", "tool:call"), ("Action", "risky"), ("Agent", "nobody")])).unwrap();
    assert!(!allowed(&engine, A));
    let check = CheckRef { agent: A, action: "tool:call", resource: "hammer", context: &[] };
    assert!(engine.explain(&check).unwrap().iter().any(|policy| policy.forbid && policy.holds == Some(true)));
}

#[test]
fn what_the_schema_does_not_declare_of_an_open_context_is_seen_by_no_policy() {
    use creto_enablement_common::Value;
    let schema =
        r#"entity Agent; entity Tool; @open action "tool:call" appliesTo { principal: Agent, resource: Tool, context: { n?: Long } };"#;
    let policies = r#"permit (principal, action, resource); forbid (principal, action, resource) unless { context has approved };"#;
    let engine = Engine::new();
    // The validator knows that nobody can have it, and lets such a policy pass.
    engine.install(&Sources { policies, schema: Some(schema), entities: "" }).unwrap();
    let prepared = engine.prepare(A, "tool:call", Some("hammer")).unwrap();
    let extra = [("approved", Value::Bool(true))];
    let check = CheckRef { agent: A, action: "tool:call", resource: "hammer", context: &extra };
    assert!(matches!(engine.rule(&check).decision, Decision::Deny { .. }));
    assert!(matches!(engine.rule_prepared(&prepared, None, &extra).decision, Decision::Deny { .. }));
    let mut buffers = creto_authz::QuestionBuffers::default();
    let (view, actor) = (engine.view(), engine.actor(A).unwrap());
    let question = view.question("tool:call", "hammer", &extra, &mut buffers).unwrap();
    assert!(matches!(question.rule(&actor).decision, Decision::Deny { .. }));
    let explained = engine.explain(&check).unwrap();
    assert!(explained.iter().filter(|policy| policy.forbid).all(|policy| policy.holds == Some(true)), "{explained:?}");
}

#[test]
fn many_entities_are_taken_in_at_once() {
    let engine = Engine::new();
    engine.install(&Sources { policies: &policies(1), schema: Some(SCHEMA), entities: "" }).unwrap();
    let of = |n: usize| {
        format!(
            r#"{{"uid": {{"type": "Agent", "id": "{n}"}}, "attrs": {{"version": 1}}, "parents": [{{"type": "Team", "id": "t{}"}}]}}"#,
            n % 50
        )
    };
    let many: Vec<String> = (0..60_000).map(of).collect();
    engine.change_entities(EntityChange::Upsert(&format!("[{}]", many.join(",")))).unwrap();
    assert!(allowed(&engine, "Agent::\"1\"") && !allowed(&engine, "Agent::\"2\""));
    let twice = engine.change_entities(EntityChange::Upsert(&format!("[{},{}]", of(1), of(1)))).unwrap_err();
    assert!(twice.to_string().contains("`Agent::\"1\"` stands twice"));
}

#[test]
fn every_decision_says_which_policies_made_it_and_how_old_what_it_knew_was() {
    let engine = Engine::new();
    let policies = r#"permit (principal in Team::"t1", action, resource);
        @oversight("humans") forbid (principal, action, resource == Tool::"saw");
        forbid (principal, action, resource == Tool::"axe");"#;
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
    let before = now();
    let (digest, _) = engine.install(&Sources { policies, schema: Some(SCHEMA), entities: &entities(1) }).unwrap();
    let installed = now();
    let said = |resource: &str, context: &[(&str, creto_enablement_common::Value<'_>)]| {
        let check = CheckRef { agent: A, action: "tool:call", resource, context };
        let prepared = engine.prepare(A, "tool:call", None).unwrap();
        let view = engine.view();
        let told = match view.begin(A, "tool:call", resource, |begun| begun.tell(context)) {
            Told::Common(place) => view.common(place),
            Told::Own(ruling) => *ruling,
        };
        let ruled = engine.rule(&check);
        assert_eq!((&told.decision, &told.permit, &told.oversight), (&ruled.decision, &ruled.permit, &ruled.oversight));
        [ruled, told, engine.rule_prepared(&prepared, Some(resource), context)]
    };
    let all = || {
        let unknown = engine.rule(&CheckRef { agent: A, action: "tool:none", resource: "hammer", context: &[] });
        let strange = ("strange", creto_enablement_common::Value::Bool(true));
        [said("hammer", &[]), said("saw", &[]), said("axe", &[]), said("hammer", &[strange]), said(r#"Tool::"\q""#, &[])]
            .into_iter()
            .flatten()
            .chain([unknown])
    };
    let mut seen = Vec::new();
    for ruling in all() {
        assert_eq!(ruling.policy_set, digest, "{:?}", ruling.decision);
        assert!((before..=installed).contains(&ruling.made), "{:?}", ruling.decision);
        seen.push(std::mem::discriminant(&ruling.decision));
    }
    seen.dedup();
    assert_eq!(seen.len(), 3, "allowed, asked and denied");
    // A changed entity is a new version of the same policies.
    engine.change_entities(EntityChange::Upsert(&entities(1).replace("\"version\": 1", "\"version\": 2"))).unwrap();
    for ruling in all() {
        assert_eq!(ruling.policy_set, digest);
        assert!(ruling.made >= installed, "{:?}", ruling.decision);
    }
}
