//! The allow path allocates nothing: counted by the allocator itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unsafe_code, reason = "an allocator that counts has to be one")]

use creto_authz::{Engine, Sources};
use creto_enablement_common::{CheckRef, Decision, Value};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the counter is a thread-local cell that allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SCHEMA: &str = r#"
entity Team; entity Agent in [Team] = { level: Long }; entity Doc = { owner: Agent };
action "read" appliesTo { principal: Agent, resource: Doc, context: { amount: Long, purpose: String, ip?: ipaddr } };
"#;
const POLICIES: &str = r#"
permit (principal in Team::"t", action == Action::"read", resource)
when { context.amount < 900 && ["work", "test"].contains(context.purpose) && (resource.owner == principal || principal.level > 3) };
@oversight("never") forbid (principal, action, resource) when { context.amount > 1000 || context.purpose like "evil*" };
forbid (principal, action, resource) when { context has ip && !context.ip.isInRange(ip("10.0.0.0/8")) };
"#;
const ENTITIES: &str = r#"[
    {"uid": {"type": "Agent", "id": "spiffe://t/agent/a"}, "attrs": {"level": 5}, "parents": [{"type": "Team", "id": "t"}]},
    {"uid": {"type": "Doc", "id": "d"}, "attrs": {"owner": {"__entity": {"type": "Agent", "id": "b"}}}, "parents": []}
]"#;

#[test]
fn an_allowed_check_allocates_nothing() {
    let engine = Engine::new();
    engine.install(&Sources { policies: POLICIES, schema: Some(SCHEMA), entities: ENTITIES }).unwrap();
    let context = [("amount", Value::Long(5)), ("purpose", Value::Str("work")), ("ip", Value::Extension("ip", "10.1.2.3"))];
    let check = CheckRef { agent: "spiffe://t/agent/a", action: "read", resource: "d", context: &context };
    let prepared = engine.prepare(check.agent, check.action, Some(check.resource)).unwrap();
    let counted = |what: &dyn Fn() -> bool| {
        assert!(what());
        let before = ALLOCATIONS.with(Cell::get);
        for _ in 0..100 {
            assert!(what());
        }
        ALLOCATIONS.with(Cell::get) - before
    };
    assert_eq!(counted(&|| engine.rule(&check).decision == Decision::Allow), 0);
    assert_eq!(counted(&|| engine.rule_prepared(&prepared, None, &context).decision == Decision::Allow), 0);
    assert_eq!(counted(&|| engine.view().outcome(&check).unwrap().allowed), 0);
    assert_eq!(counted(&|| engine.view().outcome_prepared(&prepared, &context).unwrap().allowed), 0);
}
