//! What limitador takes for one check and update of four limits at once, in memory: organisation, team, agent and delegator, each limit
//! keyed by a name of its own, 1,000 agents. Prints one line of JSON with nanoseconds a check.

use limitador::RateLimiter;
use limitador::limit::{Context, Expression, Limit, Namespace, Predicate};
use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

const KEYS: usize = 1_000;
const LEVELS: [&str; 4] = ["organisation", "team", "agent", "lead"];

fn context(key: usize) -> Context<'static> {
    let names = ["acme".to_owned(), format!("t{}", key / 100), format!("a{key}"), "lead".to_owned()];
    let values: HashMap<String, String> = LEVELS.map(str::to_owned).into_iter().zip(names).collect();
    values.into()
}

fn main() {
    let limiter = RateLimiter::new(4 * KEYS as u64);
    for level in LEVELS {
        let variable = Expression::try_from(level.to_owned()).expect("a name is an expression");
        limiter.add_limit(Limit::new("acme", 9_000_000_000_000_000_000, 3_600, Vec::<Predicate>::new(), [variable]));
    }
    let namespace = Namespace::from("acme");
    let contexts: Vec<Context<'_>> = (0..KEYS).map(context).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut check = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let context = &contexts[(state % KEYS as u64) as usize];
        let answer = limiter.check_rate_limited_and_update(&namespace, context, 1).expect("memory does not fail");
        assert!(!answer.limited && answer.counters.len() == LEVELS.len());
        black_box(answer);
    };
    (0..100_000).for_each(|_| check());
    let mut means: Vec<f64> = (0..301)
        .map(|_| {
            let start = Instant::now();
            (0..1_000).for_each(|_| check());
            start.elapsed().as_nanos() as f64 / 1_000.0
        })
        .collect();
    means.sort_by(f64::total_cmp);
    println!(r#"{{"version": "0.14", "value": {}}}"#, means[means.len() / 2]);
}
