//! A request that the schema does not allow is told which part of it, what was given and what is declared.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use creto_authz::{Engine, Sources};
use creto_enablement_common::{CheckRef, Decision, Value};

const SCHEMA: &str = r#"
entity Agent, User, Tool;
entity Size enum ["small"];
action "pay" appliesTo { principal: Agent, resource: Tool, context: {
    amount: decimal, to?: User, tags?: Set<String>, items?: Set<{ price: Long }>, size?: Size, from?: { address?: ipaddr }
} };
action "look" appliesTo { principal: Agent, resource: [Tool, User] };
action "group";
"#;

fn engine(schema: Option<&str>) -> Engine {
    let engine = Engine::new();
    engine.install(&Sources { policies: "permit (principal, action, resource);", schema, entities: "" }).unwrap();
    engine
}

fn why(engine: &Engine, action: &str, resource: &str, context: &[(&str, Value<'_>)]) -> String {
    match engine.rule(&CheckRef { agent: "Agent::\"a\"", action, resource, context }).decision {
        Decision::Deny { reason } => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_part_of_a_context_that_does_not_fit_is_named_with_both_types() {
    let engine = engine(Some(SCHEMA));
    let amount = ("amount", Value::Extension("decimal", "1.50"));
    let (item, address) = ([("price", Value::Str("1"))], [("address", Value::Str("::1"))]);
    let items = [Value::Record(&item)];
    let cases: [(&[(&str, Value<'_>)], &str); 12] = [
        (&[("amount", Value::Long(100))], "`context.amount` is Long where the schema has decimal"),
        (&[], "`context.amount` (decimal) is missing"),
        (&[("amout", amount.1)], "the schema declares no `context.amout`; did you mean `amount`?"),
        (&[amount, ("anything", Value::Bool(true))], "the schema declares no `context.anything`"),
        (&[amount, ("to", Value::Str("ann"))], "`context.to` is String where the schema has User"),
        (&[amount, ("to", Value::Entity("Tool", "ann"))], "`context.to` is Tool where the schema has User"),
        (&[amount, ("tags", Value::Set(&[Value::Str("a"), Value::Long(1)]))], "`context.tags[]` is Long where the schema has String"),
        (&[amount, ("tags", Value::Record(&[]))], "`context.tags` is Record where the schema has Set"),
        (&[amount, ("items", Value::Set(&items))], "`context.items[].price` is String where the schema has Long"),
        (&[amount, ("from", Value::Record(&address))], "`context.from.address` is String where the schema has ipaddr"),
        (&[("amount", Value::Extension("decimal", "much"))], "`context.amount`: `much` is no decimal"),
        (&[amount, ("from", Value::Bool(false))], "`context.from` is Bool where the schema has Record"),
    ];
    for (context, wanted) in cases {
        assert_eq!(why(&engine, "pay", "Tool::\"shop\"", context), format!("the request does not fit the schema: {wanted}"));
        let prepared = engine.prepare("Agent::\"a\"", "pay", Some("Tool::\"shop\"")).unwrap();
        let Decision::Deny { reason } = engine.rule_prepared(&prepared, None, context).decision else { panic!("{context:?}") };
        assert!(reason.ends_with(wanted), "{reason}");
    }
    // Of the right type, and no value of it.
    assert!(why(&engine, "pay", "shop", &[amount, ("size", Value::Entity("Size", "tiny"))]).contains("tiny"));
}

#[test]
fn an_action_that_the_schema_does_not_know_is_told_with_the_nearest() {
    let engine = engine(Some(SCHEMA));
    assert_eq!(why(&engine, "pya", "shop", &[]), "the schema knows no action `pya`, so `shop` has no type; did you mean `pay`?");
    assert_eq!(why(&engine, "transfer", "shop", &[]), "the schema knows no action `transfer`, so `shop` has no type");
    assert!(why(&engine, "loook", "Tool::\"shop\"", &[]).ends_with("is not declared in the schema; did you mean `look`?"));
    assert_eq!(why(&engine, "group", "shop", &[]), "by the schema `group` acts on nothing, so `shop` has no type");
    assert!(why(&engine, "look", "shop", &[]).contains("more than one type of resource"));
    // A name of any length is told, and compared with none.
    let long = "pay".repeat(100_000);
    assert!(!why(&engine, &long, "shop", &[]).contains("did you mean"));
    assert!(!why(&engine, "pay", "User::\"ann\"", &[]).contains("did you mean"));
}

#[test]
fn without_a_schema_a_bare_resource_is_told_how_to_be_written() {
    assert_eq!(why(&engine(None), "pay", "shop", &[]), "there is no schema, so `shop` has no type; write `Type::\"shop\"`");
}
