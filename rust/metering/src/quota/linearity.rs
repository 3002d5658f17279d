//! Histories of racing threads, each held against a plain counter: there must be an order of the calls that explains every answer and
//! that no two calls contradict of which one ended before the other began (Wing and Gong, 1993). Depth first, each set of calls once.

use super::{QuotaEnforcer, QuotaRule};
use creto_enablement_common::Timestamp;
use std::collections::HashSet;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

/// One call and its answer.
#[derive(Clone, Copy, Debug)]
struct Call {
    began: Instant,
    ended: Instant,
    team: usize,
    amount: u64,
    fitted: bool,
}

/// What there is: one organisation of two teams.
#[derive(Clone, Copy, Debug)]
struct Limits {
    organisation: u64,
    team: u64,
}

fn explained(history: &[Call], limits: Limits) -> bool {
    let all = (1_u64 << history.len()) - 1;
    let (mut seen, mut open) = (HashSet::from([0_u64]), vec![0_u64]);
    while let Some(done) = open.pop() {
        if done == all {
            return true;
        }
        let (mut used, mut first_end) = ([0_u64; 2], None::<Instant>);
        for (place, call) in history.iter().enumerate() {
            if done & (1 << place) == 0 {
                first_end = Some(first_end.map_or(call.ended, |end| end.min(call.ended)));
            } else if call.fitted {
                used[call.team] += call.amount;
            }
        }
        for (place, call) in history.iter().enumerate() {
            let next = done | (1 << place);
            if next == done || first_end.is_some_and(|end| call.began > end) {
                continue;
            }
            let fits = used[0] + used[1] + call.amount <= limits.organisation && used[call.team] + call.amount <= limits.team;
            if fits == call.fitted && seen.insert(next) {
                open.push(next);
            }
        }
    }
    false
}

fn history(limits: Limits, seed: u64) -> Vec<Call> {
    let rules = format!(
        r#"[{{"scope": "organisation", "meter": "m", "limit": {}}}, {{"scope": "team", "meter": "m", "limit": {}}}]"#,
        limits.organisation, limits.team
    );
    let quota = Arc::new(QuotaEnforcer::new(QuotaRule::parse_list(&rules).unwrap(), Duration::from_secs(60)));
    let guarded = quota.organisation("acme").unwrap();
    (0..100).for_each(|_| guarded.stripes.meet());
    let start = Arc::new(Barrier::new(3));
    let threads: Vec<_> = (0..3_u64)
        .map(|thread| {
            let (quota, start) = (Arc::clone(&quota), Arc::clone(&start));
            std::thread::spawn(move || {
                let chains = ["t", "u"].map(|team| quota.prepare(&["acme", team, "a"], &["m"]).unwrap());
                let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (thread + 1);
                start.wait();
                (0..8)
                    .map(|_| {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        let (team, amount) = ((random >> 60) as usize % 2, 1 + (random >> 33) % (limits.team / 6 + 1));
                        let began = Instant::now();
                        let fitted = chains[team].take(amount, Timestamp::from_micros(1_800_000_000_000_000));
                        Call { began, ended: Instant::now(), team, amount, fitted }
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn every_history_of_three_threads_on_stripes_is_that_of_one_counter() {
    for seed in 0..300 {
        let limits = Limits { organisation: 40 + seed * 53 % 4_000, team: 30 + seed * 37 % 3_000 };
        let history = history(limits, seed);
        assert!(explained(&history, limits), "seed {seed}, {limits:?}: {history:#?}");
    }
}

#[test]
fn the_search_finds_out_an_answer_that_no_order_explains() {
    let began = Instant::now();
    let call = |at: u64, team, amount, fitted| {
        let at = began + Duration::from_micros(at);
        Call { began: at, ended: at + Duration::from_micros(5), team, amount, fitted }
    };
    let limits = Limits { organisation: 10, team: 10 };
    assert!(explained(&[call(0, 0, 6, true), call(3, 1, 5, false)], limits));
    assert!(explained(&[call(3, 0, 6, true), call(0, 1, 5, false), call(0, 1, 3, true)], limits));
    // One unit too many, and a refusal before there was any need for it.
    assert!(!explained(&[call(0, 0, 6, true), call(3, 1, 5, true)], limits));
    assert!(!explained(&[call(0, 1, 5, false), call(10, 0, 6, true)], limits));
}
