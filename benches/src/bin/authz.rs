//! Policy decisions: ours beside cedar-policy's over the same sets, entities and requests.
//!
//! 2,000 agents in 50 teams, 4,000 resources in 100 folders, 20 actions; policies of four kinds (one agent, one team, one folder, conditions
//! over three context fields), and 4,096 requests. Both sides compute decision, determining policies and erring policies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench that cannot be set up has nothing to measure"
)]

use cedar_policy::{Authorizer, Context, Entities, EntityUid, PolicySet, Request, RestrictedExpression};
use creto_authz::{Engine, EntityChange, Sources};
use creto_benches::{Distribution, Row, distribution, single_calls};
use creto_enablement_common::{CheckRef, Value};
use serde_json::json;
use std::hint::black_box;
use std::time::Instant;

const SCHEMA: &str = r#"
entity Team; entity Agent in [Team] = { level: Long };
entity Folder; entity Doc in [Folder] = { owner: Agent, secret: Bool };
"#;
const AGENTS: usize = 2_000;
const DOCS: usize = 4_000;
const ACTIONS: usize = 20;
const REQUESTS: usize = 4_096;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

fn schema() -> String {
    let actions: Vec<String> = (0..ACTIONS).map(|n| format!("\"act:{n}\"")).collect();
    format!(
        "{SCHEMA} action {} appliesTo {{ principal: Agent, resource: Doc, context: {{ amount: Long, purpose: String, urgent: Bool }} }};",
        actions.join(", ")
    )
}

fn policies(count: usize) -> String {
    let mut random = Random(88_172_645_463_325_252);
    let mut text = String::new();
    for n in 0..count {
        let action = random.below(ACTIONS);
        let (agent, team, folder) = (random.below(AGENTS), random.below(50), random.below(100));
        text += &match n % 5 {
            0 => format!(
                "permit (principal == Agent::\"spiffe://creto.local/agent/agent-{agent}\", action == Action::\"act:{action}\", resource);\n"
            ),
            1 => format!(
                "permit (principal in Team::\"team-{team}\", action == Action::\"act:{action}\", resource in Folder::\"folder-{folder}\") when {{ context.amount < 900 }};\n"
            ),
            2 => format!(
                "permit (principal == Agent::\"spiffe://creto.local/agent/agent-{agent}\", action, resource in Folder::\"folder-{folder}\") when {{ resource.owner == principal || principal.level > 3 }};\n"
            ),
            3 => format!(
                "forbid (principal in Team::\"team-{team}\", action == Action::\"act:{action}\", resource in Folder::\"folder-{folder}\") when {{ context.amount > 500 && context.purpose == \"test\" && !context.urgent }};\n"
            ),
            _ => format!(
                "permit (principal == Agent::\"spiffe://creto.local/agent/agent-{agent}\", action in [Action::\"act:{action}\", Action::\"act:0\"], resource) unless {{ resource.secret }};\n"
            ),
        };
    }
    text
}

fn entities(agents: usize) -> String {
    let mut list = Vec::new();
    for n in 0..agents {
        list.push(json!({"uid": {"type": "Agent", "id": format!("spiffe://creto.local/agent/agent-{n}")}, "attrs": {"level": n % 6}, "parents": [{"type": "Team", "id": format!("team-{}", n % 50)}]}));
    }
    for n in 0..DOCS {
        list.push(json!({"uid": {"type": "Doc", "id": format!("doc-{n}")},
            "attrs": {"owner": {"__entity": {"type": "Agent", "id": format!("spiffe://creto.local/agent/agent-{}", n % AGENTS)}}, "secret": n % 7 == 0},
            "parents": [{"type": "Folder", "id": format!("folder-{}", n % 100)}]}));
    }
    serde_json::Value::Array(list).to_string()
}

struct Ask {
    agent: String,
    action: String,
    resource: String,
    amount: i64,
    purpose: &'static str,
    urgent: bool,
}

impl Ask {
    fn check<'a>(&'a self, context: &'a [(&'a str, Value<'a>)]) -> CheckRef<'a> {
        CheckRef { agent: &self.agent, action: &self.action, resource: &self.resource, context }
    }
}

fn requests() -> Vec<Ask> {
    let mut random = Random(362_436_069);
    (0..REQUESTS)
        .map(|_| Ask {
            agent: format!("spiffe://creto.local/agent/agent-{}", random.below(AGENTS)),
            action: format!("act:{}", random.below(ACTIONS)),
            resource: format!("doc-{}", random.below(DOCS)),
            amount: random.below(1_000) as i64,
            purpose: if random.below(2) == 0 { "test" } else { "work" },
            urgent: random.below(4) == 0,
        })
        .collect()
}

fn cedar_requests(asks: &[Ask]) -> Vec<Request> {
    asks.iter()
        .map(|ask| {
            let uid = |text: String| -> EntityUid { text.parse().expect("a uid") };
            let context = Context::from_pairs([
                ("amount".to_owned(), RestrictedExpression::new_long(ask.amount)),
                ("purpose".to_owned(), RestrictedExpression::new_string(ask.purpose.to_owned())),
                ("urgent".to_owned(), RestrictedExpression::new_bool(ask.urgent)),
            ])
            .expect("a context");
            Request::new(
                uid(format!("Agent::\"{}\"", ask.agent)),
                uid(format!("Action::\"{}\"", ask.action)),
                uid(format!("Doc::\"{}\"", ask.resource)),
                context,
                None,
            )
            .expect("a request")
        })
        .collect()
}

fn print(case: &str, unit: &str, ours: f64, peer: Option<f64>, samples: usize, note: &str) {
    Row { area: "authz", case, unit, ours, peer: peer.map(|value| ("cedar-policy", "4.14.1", value)), samples, spread: 0.0, note }.print();
}

fn main() {
    // `authz [decide|compile|entities|threads]`: one part only, for profiles.
    let only = std::env::args().nth(1);
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let (schema, entity_text) = (schema(), entities(AGENTS));
    if wanted("decide") {
        decide(&schema, &entity_text);
    }
    if wanted("compile") {
        compile(&schema, &entity_text);
    }
    if wanted("threads") {
        threads(&schema, &entity_text);
    }
    if wanted("entities") {
        entity_updates();
    }
}

fn tail(spread: &Distribution) -> String {
    format!("p99 {:.0} ns, p99.9 {:.0} ns", spread.p99, spread.p999)
}

fn decide(schema: &str, entity_text: &str) {
    let asks = requests();
    let cedar_asks = cedar_requests(&asks);
    // What a caller would have beside its call anyway: the context, borrowed.
    let contexts = contexts(&asks);
    for count in [10, 100, 1_000, 10_000] {
        let text = policies(count);
        let engine = installed(&text, schema, entity_text);
        let prepared: Vec<_> =
            asks.iter().map(|ask| engine.prepare(&ask.agent, &ask.action, Some(&ask.resource)).expect("a prepared request")).collect();

        let set: PolicySet = text.parse().expect("the set parses");
        let cedar_schema = schema.parse().expect("the schema parses");
        let cedar_entities = Entities::from_json_str(entity_text, Some(&cedar_schema)).expect("the entities parse");
        let authorizer = Authorizer::new();
        let cedar_samples = match count {
            10 => 20_000,
            100 => 5_000,
            1_000 => 1_000,
            _ => 60,
        };
        let (cedar, _) = single_calls(cedar_samples, |i| authorizer.is_authorized(&cedar_asks[i % REQUESTS], &set, &cedar_entities));

        let samples = 200_000;
        let ours = distribution(samples, |i| engine.view().outcome_prepared(&prepared[i % REQUESTS], &contexts[i % REQUESTS]));
        let note = format!("decision, reasons and errors; context of 3 fields; p50 of single calls; {}", tail(&ours));
        print(&format!("rust/prepared/{count}"), "ns", ours.p50, Some(cedar), samples, &note);
        let strings = distribution(samples, |i| engine.view().outcome(&asks[i % REQUESTS].check(&contexts[i % REQUESTS])));
        if count == 10 || count == 10_000 {
            let note = format!("three borrowed strings looked up in the call; {}", tail(&strings));
            print(&format!("rust/strings/{count}"), "ns", strings.p50, Some(cedar), samples, &note);
        }
        if count == 10_000 {
            print("rust/strings/p99/10000", "ns", strings.p99, None, samples, "p99 of single calls");
            let mut ballast = vec![1_u64; (48 << 20) / 8];
            let mut cold: Vec<u64> = (0..300)
                .map(|i| {
                    ballast.iter_mut().for_each(|word| *word = word.wrapping_mul(3));
                    black_box(&mut ballast);
                    let (request, context) = (&prepared[i * 13 % REQUESTS], &contexts[i * 13 % REQUESTS]);
                    let start = Instant::now();
                    black_box(engine.view().outcome_prepared(request, context));
                    start.elapsed().as_nanos() as u64
                })
                .collect();
            cold.sort_unstable();
            let note = "48 MiB swept between calls; timer cost included";
            print("rust/cold/10000", "ns", cold[cold.len() / 2] as f64, None, cold.len(), note);
        }
    }
}

fn contexts(asks: &[Ask]) -> Vec<[(&str, Value<'_>); 3]> {
    asks.iter()
        .map(|ask| [("amount", Value::Long(ask.amount)), ("purpose", Value::Str(ask.purpose)), ("urgent", Value::Bool(ask.urgent))])
        .collect()
}

fn installed(policies: &str, schema: &str, entities: &str) -> Engine {
    let engine = Engine::new();
    engine.install(&Sources { policies, schema: Some(schema), entities }).expect("the set installs");
    engine
}

fn compile(schema: &str, entity_text: &str) {
    let text = policies(10_000);
    let started = Instant::now();
    let engine = installed(&text, schema, entity_text);
    let install = started.elapsed();
    let started = Instant::now();
    black_box(text.parse::<PolicySet>().expect("the set parses"));
    let parse = started.elapsed();
    let mut took: Vec<f64> = (0..5).map(|_| engine.recompile().expect("the set compiles").as_secs_f64() * 1e3).collect();
    took.sort_by(f64::total_cmp);
    print(
        "compile/10000",
        "ms",
        took[2],
        None,
        took.len(),
        &format!(
            "parsed policies and 6,000 entities to a set that serves; cedar-policy's parser alone takes {:.0} ms, install with parsing and validation {:.0} ms",
            parse.as_secs_f64() * 1e3,
            install.as_secs_f64() * 1e3,
        ),
    );
    let size = engine.size();
    print(
        "bytes_per_policy/10000",
        "bytes",
        size.policy_bytes as f64 / size.policies as f64,
        None,
        1,
        "the compiled form: slices, conditions, scopes, ids apart",
    );
}

/// Both processors ask one engine, each in its own thread, while nothing changes.
fn threads(schema: &str, entity_text: &str) {
    let asks = requests();
    let contexts = contexts(&asks);
    let engine = installed(&policies(10_000), schema, entity_text);
    let (calls, rounds) = (200_000, 9);
    let rate = |threads: usize| {
        let mut rates: Vec<f64> = (0..rounds)
            .map(|_| {
                let started = Instant::now();
                std::thread::scope(|scope| {
                    for thread in 0..threads {
                        let (engine, asks, contexts) = (&engine, &asks, &contexts);
                        scope.spawn(move || {
                            for i in 0..calls {
                                let at = (i * 7 + thread * 2_048) % REQUESTS;
                                black_box(engine.view().outcome(&asks[at].check(&contexts[at])).is_ok());
                            }
                        });
                    }
                });
                (threads * calls) as f64 / started.elapsed().as_secs_f64()
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        rates[rounds / 2]
    };
    let (one, two) = (rate(1), rate(2));
    let note = format!("strings, 10,000 policies; one thread alone: {one:.3e}/s, so two are {:.2} times as fast", two / one);
    print("rust/2-threads/10000", "checks/s", two, None, 2 * calls * rounds, &note);
}

fn entity_updates() {
    let count = 100_000 - DOCS;
    let engine = installed(&policies(1_000), &schema(), &entities(count));
    let size = engine.size();
    print(
        "bytes_per_entity/100000",
        "bytes",
        size.entity_bytes as f64 / size.entities as f64,
        None,
        1,
        "record and its place among the names; id and attributes apart",
    );
    let changed: Vec<String> = (0..2_000)
        .map(|n| {
            json!([{"uid": {"type": "Agent", "id": format!("spiffe://creto.local/agent/agent-{}", n * 37 % count)}, "attrs": {"level": n % 5}, "parents": [{"type": "Team", "id": format!("team-{}", n % 49)}]}])
                .to_string()
        })
        .collect();
    let took =
        distribution(2_000, |i| engine.change_entities(EntityChange::Upsert(&changed[i % changed.len()])).expect("the entity is taken"));
    print(
        "entity_update/100000",
        "us",
        took.p50 / 1e3,
        None,
        2_000,
        &format!(
            "one agent given another team and level, from JSON text, validated; p99 {:.0} us, p99.9 {:.0} us",
            took.p99 / 1e3,
            took.p999 / 1e3
        ),
    );
}
