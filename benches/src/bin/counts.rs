//! What a tool that counts instructions counts: `counts CASE` calls one operation `CALLS` times, inside `measured` and nowhere else.
//!
//! Times move with the machine; instructions do not. `make counts` runs this under callgrind and holds the counts against those on file.

use creto_benches::scratch;
use creto_benches::setting::{AGENT, BARE, FULL, PATH, Setting, USAGE};
use creto_enablement_common::ports::Clock;
use creto_enablement_common::{CheckRef, OutcomeRef, Timestamp};
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const CALLS: usize = 2_000;

/// A clock of which each reading is a microsecond later. The machine's own is read from a page that the tool does not show.
struct Steps(AtomicU64);

impl Clock for Steps {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn observe(&self, _seen: Timestamp) {}
}

/// The one function whose instructions are counted, with all that it calls.
#[inline(never)]
fn measured(call: &mut dyn FnMut() -> bool) -> bool {
    (0..CALLS).all(|_| black_box(call()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let case = std::env::args().nth(1).unwrap_or_default();
    let clock = Arc::new(Steps(AtomicU64::new(1_790_000_000_000_000)));
    let setting = Setting::open(&scratch("counts")?, clock.clone())?;
    let (alone, chained) = (setting.alone()?, setting.chained()?);
    let (engine, quota, gate) = (&setting.policy, &setting.quota, &setting.gate);
    let bare = CheckRef { agent: AGENT, action: BARE.action, resource: BARE.resource, context: BARE.context };
    let full = CheckRef { agent: AGENT, action: FULL.action, resource: FULL.resource, context: FULL.context };
    let prepared = engine.prepare(AGENT, FULL.action, Some(FULL.resource))?;
    let chain = quota.prepare(&PATH, &["calls", "tokens"])?;
    let act = |principal, act| gate.enter(principal, act, None).is_ok_and(|permit| permit.settle(OutcomeRef::Success, None).is_ok());
    let call: &mut dyn FnMut() -> bool = match case.as_str() {
        "policy/strings" => &mut || engine.view().outcome(&bare).is_ok_and(|outcome| outcome.allowed),
        "policy/strings/context" => &mut || engine.view().outcome(&full).is_ok_and(|outcome| outcome.allowed),
        "policy/prepared/context" => &mut || engine.view().outcome_prepared(&prepared, FULL.context).is_some_and(|outcome| outcome.allowed),
        "quota/take/prepared" => &mut || chain.take(1, clock.now()),
        "quota/consume/strings" => &mut || quota.consume(&PATH, USAGE, clock.now()).is_ok(),
        "quota/reserve_commit/prepared" => &mut || {
            let now = clock.now();
            chain.reserve(&[1, 700], now, Duration::from_secs(60)).is_ok_and(|id| chain.commit_held(id, now).is_ok())
        },
        "gate/enter_settle" => &mut || act(&alone, &BARE),
        "gate/enter_settle/context" => &mut || act(&alone, &FULL),
        "gate/enter_settle/4-links" => &mut || act(&chained, &FULL),
        other => return Err(format!("`{other}` is no case").into()),
    };
    // Once before, so that what is made at first use is not counted.
    let ready = call();
    if !(ready && measured(call)) {
        return Err(format!("`{case}` refused").into());
    }
    println!("{CALLS}");
    setting.close()?;
    Ok(())
}
