//! A reading of the clock that is old when it is used: a thread lost its core between the two, a virtual machine stood still. It counts
//! in the window that the others have reached, and never opens that window anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use creto_enablement_common::Timestamp;
use creto_enablement_common::ports::Clock;
use creto_metering::{Boost, QuotaEnforcer, QuotaRule, Scope};
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

const SECOND: u64 = 1_000_000;
/// 2026-11-24T12:00:00Z
const NOON: u64 = 1_795_521_600;

/// A clock that stands where it was put, in seconds.
#[derive(Debug, Default)]
struct Hand(AtomicU64);

impl Hand {
    fn at(second: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(second)))
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn put(&self, second: u64) {
        self.0.store(second, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        second(self.read())
    }

    fn observe(&self, _: Timestamp) {}
}

fn second(second: u64) -> Timestamp {
    Timestamp::from_micros((NOON + second) * SECOND)
}

fn enforcer(rules: &str, clock: &Arc<Hand>) -> QuotaEnforcer {
    let clock: Arc<dyn Clock> = Arc::<Hand>::clone(clock);
    QuotaEnforcer::with_clock(QuotaRule::parse_list(rules).unwrap(), Duration::from_secs(900), clock)
}

const PATH: [&str; 3] = ["acme", "research", "reader"];
const MINUTE: &str = r#"[{"scope": "team", "meter": "m", "limit": 10, "window": "1m"}]"#;

#[test]
fn a_refused_act_whose_reading_is_old_does_not_open_the_window_anew() {
    for kind in ["fixed", "sliding", "gcra"] {
        let clock = Hand::at(600);
        let quota = enforcer(&format!(r#"[{{"scope": "team", "meter": "m", "limit": 10, "window": "1m", "kind": "{kind}"}}]"#), &clock);
        quota.consume(&PATH, &[("m", 10)], second(600)).unwrap();
        assert!(quota.consume(&PATH, &[("m", 1)], second(10)).is_err(), "{kind}");
        assert!(quota.consume(&PATH, &[("m", 1)], second(600)).is_err(), "{kind}");
    }
}

#[test]
fn a_boost_that_is_over_before_the_window_began_does_not_move_the_window_back() {
    let clock = Hand::at(600);
    let quota = enforcer(MINUTE, &clock);
    quota.consume(&PATH, &[("m", 10)], second(600)).unwrap();
    let boost = Boost { scope: Scope::parse("team:research").unwrap(), meter: "m".into(), units: 5, until: second(20).micros() };
    quota.boost(boost, second(10)).unwrap();
    assert!(quota.consume(&PATH, &[("m", 1)], second(30)).is_err());
    assert!(quota.consume(&PATH, &[("m", 1)], second(601)).is_err());
}

#[test]
fn a_clock_that_was_far_ahead_and_is_right_again_does_not_close_a_window_for_ever_nor_forget_what_was_used() {
    let clock = Hand::at(400 * 86_400);
    let quota = enforcer(MINUTE, &clock);
    quota.consume(&PATH, &[("m", 10)], second(clock.read())).unwrap();
    clock.put(1);
    assert!(quota.consume(&PATH, &[("m", 1)], second(1)).is_err());
    clock.put(60);
    quota.consume(&PATH, &[("m", 10)], second(60)).unwrap();
}

#[test]
fn a_thread_whose_reading_is_old_is_answered_by_the_window_that_is_now() {
    let clock = Hand::at(600);
    let quota = enforcer(MINUTE, &clock);
    quota.consume(&PATH, &[("m", 10)], second(600)).unwrap();
    // Nobody else has acted in the window that began since.
    clock.put(661);
    quota.consume(&PATH, &[("m", 1)], second(10)).unwrap();
    quota.consume(&PATH, &[("m", 9)], second(662)).unwrap();
    assert!(quota.consume(&PATH, &[("m", 1)], second(662)).is_err());
}

#[test]
fn threads_that_stall_with_a_reading_in_hand_get_no_more_than_each_window_has() {
    const LIMIT: u64 = 1_000;
    const MINUTES: u64 = 40;
    let clock = Hand::at(0);
    let rules = format!(r#"[{{"scope": "organisation", "meter": "m", "limit": {LIMIT}, "window": "1m"}}]"#);
    let (quota, start) = (Arc::new(enforcer(&rules, &clock)), Arc::new(Barrier::new(4)));
    let threads: Vec<_> = (0..4_u64)
        .map(|thread| {
            let (quota, clock, start) = (Arc::clone(&quota), Arc::clone(&clock), Arc::clone(&start));
            std::thread::spawn(move || {
                let chain = quota.prepare(&PATH, &["m"]).unwrap();
                start.wait();
                let (mut taken, mut held) = (0_u64, 0);
                for turn in 0..MINUTES * 2_000 {
                    if thread == 0 {
                        clock.put(turn * 60 / 2_000);
                    } else if turn % 50 != 0 {
                        // The other threads stall now and then, and act on a reading of up to ten minutes ago.
                        held = clock.read();
                    }
                    let reading = match thread {
                        0 => clock.read(),
                        stalled => held.saturating_sub(if turn % 50 == 0 { stalled * 200 } else { 0 }),
                    };
                    taken += u64::from(chain.take(1, second(reading)));
                }
                taken
            })
        })
        .collect();
    let taken: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(taken <= MINUTES * LIMIT, "{taken} of {}", MINUTES * LIMIT);
}

proptest! {
    /// Whatever the readings: no window gives out more than its limit, where an act counts in the latest window that anyone had reached.
    #[test]
    fn no_history_with_old_readings_exceeds_a_windows_limit(
        steps in prop::collection::vec((0_u64..90, prop_oneof![Just(0_u64), 0_u64..600], 1_u64..9), 1..80),
        length in prop::sample::select(vec![1_u64, 20, 60]),
    ) {
        let clock = Hand::at(0);
        let rules = format!(r#"[{{"scope": "organisation", "meter": "m", "limit": 20, "window": "{length}s"}}, {{"scope": "team", "meter": "m", "limit": 15, "window": "{length}s"}}]"#);
        let quota = enforcer(&rules, &clock);
        let window = |second: u64| (NOON + second) / length;
        let (mut reached, mut given): (u64, Vec<(u64, u64, u64)>) = (0, Vec::new());
        for (wait, old, amount) in steps {
            clock.put(clock.read() + wait);
            let reading = clock.read().saturating_sub(old);
            reached = reached.max(window(reading));
            if quota.consume(&PATH, &[("m", amount)], second(reading)).is_ok() {
                given.push((reached, window(clock.read()), amount));
            }
        }
        // An act counts in some window from the latest that a reading had reached to the one that the clock is in.
        for (first, ..) in &given {
            for (_, last, _) in given.iter().filter(|(_, last, _)| last >= first) {
                let inside: u64 = given.iter().filter(|(from, to, _)| from >= first && to <= last).map(|(.., units)| units).sum();
                prop_assert!(inside <= 15 * (last - first + 1), "{inside} units in {} windows", last - first + 1);
            }
        }
    }
}
