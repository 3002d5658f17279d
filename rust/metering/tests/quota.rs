//! What the enforcer promises, seen from outside.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use creto_enablement_common::ports::QuotaEnforcer as _;
use creto_enablement_common::{ErrorKind, RetryPolicy, Timestamp};
use creto_metering::{Boost, LeaseGrant, QuotaEnforcer, QuotaRule, ReplayRecord, Scope};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SECOND: u64 = 1_000_000;
/// 2026-11-24T12:00:00Z
const NOON: u64 = 1_795_521_600 * SECOND;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(NOON + seconds * SECOND)
}

fn enforcer(rules: &str) -> QuotaEnforcer {
    QuotaEnforcer::new(QuotaRule::parse_list(rules).unwrap(), Duration::from_secs(900))
}

const PATH: [&str; 3] = ["acme", "research", "spiffe://acme.test/agent/reader"];

#[test]
fn a_refusal_names_the_level_the_limit_what_is_used_and_when_there_is_room_again() {
    let quota = enforcer(r#"[{"scope": "team", "meter": "requests", "limit": 10, "window": "1m"}]"#);
    quota.consume(&PATH, &[("requests", 9)], at(5)).unwrap();
    let error = quota.reserve(&PATH, &[("requests", 2)], at(5)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::QuotaExceeded { limit: 10, used: 9 });
    assert_eq!(error.retry_after(), Some(Duration::from_secs(55)));
    assert_eq!(
        error.to_string(),
        "2 more of `requests` (1m) by team `research`, resets at 2026-11-24T12:01:00Z: quota exceeded: 9 of 10 used"
    );
    quota.consume(&PATH, &[("requests", 10)], at(60)).unwrap();
}

#[test]
fn what_does_not_fit_on_one_level_takes_nothing_on_any() {
    let quota = enforcer(
        r#"[{"scope": "organisation", "meter": "m", "limit": 100}, {"scope": "team", "meter": "m", "limit": 50},
            {"scope": "agent", "meter": "m", "limit": 10}, {"scope": "agent:lead", "meter": "n", "limit": 1}]"#,
    );
    let path = ["acme", "research", "reader", "lead"];
    assert!(quota.consume(&path, &[("m", 5), ("n", 2)], at(0)).is_err());
    assert!(quota.consume(&path, &[("m", 11)], at(0)).is_err());
    assert!(quota.counters(at(0)).iter().all(|counter| counter.used == 0));
    quota.consume(&path, &[("m", 5), ("n", 1)], at(0)).unwrap();
    // The delegator's count is the same one whether it acts itself or another acts for it.
    quota.consume(&["acme", "research", "lead"], &[("m", 5)], at(0)).unwrap();
    assert!(quota.consume(&path, &[("m", 1)], at(0)).is_err());
    let used = |name: &str| quota.counters(at(0)).into_iter().find(|c| c.name == name && c.meter == "m").unwrap().used;
    assert_eq!((used("acme"), used("research"), used("reader"), used("lead")), (10, 10, 5, 10));
}

#[test]
fn one_act_counts_once_on_an_agent_that_stands_twice_in_its_own_chain() {
    let quota = enforcer(r#"[{"scope": "agent", "meter": "m", "limit": 10}]"#);
    quota.consume(&["acme", "t", "a", "b", "a"], &[("m", 1)], at(0)).unwrap();
    assert!(quota.counters(at(0)).iter().all(|c| c.used == 1));
}

#[test]
fn many_quotas_on_one_chain_all_count() {
    let rules: Vec<String> =
        (1..=9).map(|h| format!(r#"{{"scope": "agent", "meter": "m", "limit": {}, "window": "{h}h"}}"#, h * 10)).collect();
    let quota = enforcer(&format!("[{}]", rules.join(",")));
    let path = ["acme", "t", "a", "b", "c"];
    quota.consume(&path, &[("m", 7)], at(0)).unwrap();
    let counters = quota.counters(at(0));
    assert_eq!(counters.len(), 27);
    assert!(counters.iter().all(|c| c.used == 7));
    assert!(quota.consume(&path, &[("m", 4)], at(0)).is_err());
}

#[test]
fn a_second_settlement_changes_nothing() {
    let quota = enforcer(r#"[{"scope": "agent", "meter": "m", "limit": 10, "window": "1h"}]"#);
    let used = || quota.counters(at(0)).first().unwrap().used;
    let id = quota.reserve(&PATH, &[("m", 8)], at(0)).unwrap();
    assert_eq!(used(), 8);
    quota.commit(id, &[("m", 3)], at(1)).unwrap();
    quota.commit(id, &[("m", 3)], at(1)).unwrap();
    quota.release(id, at(1)).unwrap();
    assert_eq!(used(), 3);
    // More than was reserved is charged all the same: it was used.
    let id = quota.reserve(&PATH, &[("m", 1)], at(2)).unwrap();
    quota.commit(id, &[("m", 9)], at(2)).unwrap();
    assert_eq!(used(), 12);
    assert!(quota.reserve(&PATH, &[("m", 1)], at(3)).is_err());
    assert_eq!(quota.open_reservations(), 0);
}

#[test]
fn an_overdue_reservation_gives_back_what_it_holds_and_a_late_commit_is_charged_in_full() {
    let quota = enforcer(r#"[{"scope": "agent", "meter": "m", "limit": 10}]"#);
    let id = quota.reserve(&PATH, &[("m", 10)], at(0)).unwrap();
    assert!(quota.reserve(&PATH, &[("m", 1)], at(899)).is_err());
    let other = quota.reserve(&PATH, &[("m", 1)], at(901)).unwrap();
    quota.commit(id, &[("m", 4)], at(902)).unwrap();
    quota.release(other, at(902)).unwrap();
    assert_eq!(quota.counters(at(902)).first().unwrap().used, 4);
}

#[test]
fn what_is_given_back_after_its_window_ended_does_not_widen_the_next() {
    let quota = enforcer(r#"[{"scope": "agent", "meter": "m", "limit": 10, "window": "1m"}]"#);
    let id = quota.reserve(&PATH, &[("m", 10)], at(59)).unwrap();
    quota.consume(&PATH, &[("m", 10)], at(60)).unwrap();
    quota.release(id, at(61)).unwrap();
    assert!(quota.consume(&PATH, &[("m", 1)], at(62)).is_err());
}

#[test]
fn a_rate_lets_the_burst_through_and_then_one_unit_per_interval() {
    let quota = enforcer(r#"[{"scope": "agent", "meter": "m", "limit": 3, "burst": 2, "window": "1s", "kind": "gcra"}]"#);
    let take = |micros: u64| quota.consume(&PATH, &[("m", 1)], Timestamp::from_micros(NOON + micros));
    assert!(take(0).is_ok() && take(0).is_ok());
    let error = take(0).unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_micros(333_334)));
    assert!(take(333_333).is_err());
    assert!(take(333_334).is_ok());
}

#[test]
fn given_back_units_of_a_rate_do_not_come_back_once_they_have_drained() {
    let quota = enforcer(r#"[{"scope": "agent", "meter": "m", "limit": 10, "window": "10s", "kind": "gcra"}]"#);
    let id = quota.reserve(&PATH, &[("m", 10)], at(0)).unwrap();
    quota.consume(&PATH, &[("m", 1)], at(20)).unwrap();
    quota.release(id, at(20)).unwrap();
    assert!(quota.consume(&PATH, &[("m", 10)], at(20)).is_err());
    quota.consume(&PATH, &[("m", 9)], at(20)).unwrap();
}

#[test]
fn what_is_held_at_once_is_free_again_when_the_act_ends() {
    let quota = enforcer(r#"[{"scope": "agent", "meter": "m", "limit": 2, "kind": "concurrent"}]"#);
    let first = quota.reserve(&PATH, &[("m", 1)], at(0)).unwrap();
    let _second = quota.reserve(&PATH, &[("m", 1)], at(0)).unwrap();
    assert!(quota.reserve(&PATH, &[("m", 1)], at(0)).unwrap_err().retry_after().is_none());
    quota.commit(first, &[("m", 1)], at(1)).unwrap();
    quota.reserve(&PATH, &[("m", 1)], at(1)).unwrap();
}

#[test]
fn notices_come_once_a_window_at_each_share_of_the_limit() {
    let quota = enforcer(r#"[{"scope": "team", "meter": "m", "limit": 100, "window": "1m", "soft": [50, 80, 100]}]"#);
    let percents = || quota.notices().iter().map(|n| n.percent).collect::<Vec<_>>();
    (0..49).for_each(|_| quota.consume(&PATH, &[("m", 1)], at(0)).unwrap());
    assert!(percents().is_empty());
    quota.consume(&PATH, &[("m", 1)], at(0)).unwrap();
    assert_eq!(percents(), [50]);
    quota.consume(&PATH, &[("m", 50)], at(1)).unwrap();
    assert_eq!(percents(), [80, 100]);
    quota.consume(&PATH, &[("m", 60)], at(60)).unwrap();
    assert_eq!(percents(), [50]);
}

#[test]
fn an_overage_that_only_warns_lets_the_act_go_on() {
    let quota = enforcer(r#"[{"scope": "team", "meter": "m", "limit": 2, "overage": "warn", "soft": [100]}]"#);
    (0..5).for_each(|_| quota.consume(&PATH, &[("m", 1)], at(0)).unwrap());
    assert_eq!(quota.notices().len(), 1);
    assert_eq!(quota.counters(at(0)).first().unwrap().used, 5);
}

#[test]
fn a_boost_widens_one_name_until_it_ends() {
    let quota = enforcer(r#"[{"scope": "team", "meter": "m", "limit": 10, "window": "1h"}]"#);
    quota.consume(&PATH, &[("m", 10)], at(0)).unwrap();
    let boost = Boost { scope: Scope::parse("team:research").unwrap(), meter: "m".into(), units: 5, until: at(60).micros() };
    assert_eq!(quota.boost(boost.clone(), at(1)).unwrap(), 1);
    quota.consume(&PATH, &[("m", 4)], at(2)).unwrap();
    assert!(quota.consume(&PATH, &[("m", 1)], at(61)).is_err());
    quota.consume(&PATH, &[("m", 10)], at(3_600)).unwrap();
    assert!(quota.boost(Boost { until: 1, ..boost.clone() }, at(1)).is_err());
    assert!(quota.boost(Boost { meter: "other".into(), ..boost }, at(1)).is_err());
}

#[test]
fn a_boost_of_a_calendar_window_ends_no_later_than_it_says_where_the_name_has_not_acted_yet() {
    let quota = enforcer(r#"[{"scope": "team", "meter": "m", "limit": 2, "window": "day", "time_zone": "Europe/Zurich"}]"#);
    let boost = Boost { scope: Scope::parse("team:research").unwrap(), meter: "m".into(), units: 1, until: at(60).micros() };
    quota.boost(boost, at(0)).unwrap();
    assert_eq!((0..9).filter(|_| quota.consume(&PATH, &[("m", 1)], at(1)).is_ok()).count(), 3);
    assert_eq!(quota.counters(at(1)).first().unwrap().resets_at, Some(NOON + 11 * 3_600 * SECOND));
    assert_eq!((0..9).filter(|_| quota.consume(&PATH, &[("m", 1)], at(86_400)).is_ok()).count(), 2);
}

#[test]
fn a_quota_that_names_one_stands_in_place_of_the_one_for_each() {
    let rules = |named: u64| {
        enforcer(&format!(
            r#"[{{"scope": "team", "meter": "m", "limit": 4, "window": "1h"}}, {{"scope": "team", "meter": "m", "limit": 90, "window": "day"}},
                {{"scope": "team:research", "meter": "m", "limit": {named}, "window": "1h"}}]"#
        ))
    };
    for named in [2, 9] {
        let quota = rules(named);
        let fits = |path: &[&str]| (0..20).take_while(|_| quota.consume(path, &[("m", 1)], at(0)).is_ok()).count() as u64;
        assert_eq!((fits(&PATH), fits(&["acme", "sales"])), (named, 4));
        // One of another window goes on beside it.
        let used = |window: &str| quota.counters(at(0)).into_iter().find(|c| c.name == "research" && c.window == window).unwrap().used;
        assert_eq!((used("1h"), used("day")), (named, named));
        let boost = Boost { scope: Scope::parse("team:research").unwrap(), meter: "m".into(), units: 3, until: at(60).micros() };
        assert_eq!((quota.boost(boost, at(1)).unwrap(), fits(&PATH)), (2, 3));
    }
}

#[test]
fn leases_of_a_name_go_to_the_quota_that_names_it() {
    let quota = enforcer(
        r#"[{"scope": "team", "meter": "m", "limit": 640, "window": "1m", "share": "store"},
            {"scope": "team:research", "meter": "m", "limit": 64, "window": "1m", "share": "store"}]"#,
    );
    assert!(quota.consume(&PATH, &[("m", 1)], at(0)).is_err());
    let needs = quota.lease_needs(at(0));
    assert_eq!(needs.iter().map(|need| need.limit).collect::<Vec<_>>(), [64]);
    let need = needs.first().unwrap();
    let (name, meter, window) = (&*need.name, &*need.meter, &*need.window);
    let (organisation, level, end, until) = (&*need.organisation, need.level, need.end, at(30).micros());
    let grant = LeaseGrant { organisation, level, name, meter, window, end, held: 3, until, total: Some(3) };
    assert!(quota.grant(&grant, at(0)).unwrap());
    (0..3).for_each(|_| quota.consume(&PATH, &[("m", 1)], at(1)).unwrap());
}

#[test]
fn new_rules_keep_the_counts_of_those_that_only_changed_their_limit() {
    let quota =
        enforcer(r#"[{"scope": "team", "meter": "m", "limit": 10, "window": "1h"}, {"scope": "agent", "meter": "m", "limit": 10}]"#);
    let prepared = quota.prepare(&PATH, &["m"]).unwrap();
    assert!(prepared.take(8, at(0)));
    let rules = r#"[{"scope": "team", "meter": "m", "limit": 9, "window": "1h"}, {"scope": "organisation", "meter": "m", "limit": 3}]"#;
    quota.install(QuotaRule::parse_list(rules).unwrap(), at(1));
    assert!(!prepared.take(2, at(1)));
    assert!(prepared.take(1, at(1)));
    let counters = quota.counters(at(1));
    assert_eq!(counters.iter().map(|c| (c.level.name(), c.used)).collect::<std::collections::BTreeSet<_>>().len(), counters.len());
    assert!(counters.iter().any(|c| c.level.name() == "organisation" && c.used == 1));
    assert!(counters.iter().any(|c| c.level.name() == "team" && c.used == 9));
}

#[test]
fn replay_counts_each_act_once_and_only_in_its_own_window() {
    let quota = enforcer(
        r#"[{"scope": "team", "meter": "m", "limit": 100, "window": "1m"}, {"scope": "organisation", "meter": "m", "limit": 100}]"#,
    );
    let record = |second: u64, act: u8| ReplayRecord { path: &PATH, usage: &[("m", 5)], at: at(second).micros(), act: [act; 16] };
    assert_eq!(quota.replay([record(0, 1), record(61, 2), record(62, 2), record(63, 3)]).unwrap(), 3);
    let used = |level: &str| quota.counters(at(64)).into_iter().find(|c| c.level.name() == level).unwrap().used;
    assert_eq!((used("team"), used("organisation")), (10, 15));
}

#[test]
fn a_shared_quota_spends_only_what_was_leased() {
    let quota = enforcer(r#"[{"scope": "team", "meter": "m", "limit": 64, "window": "1m", "share": "store"}]"#);
    let error = quota.consume(&PATH, &[("m", 1)], at(0)).unwrap_err();
    assert!(error.context().any(|c| c == creto_metering::Refusal::LEASE));
    let need = quota.lease_needs(at(0)).pop().unwrap();
    assert_eq!((need.limit, need.want, need.leased), (64, 2, 0));
    let grant = |held, total| LeaseGrant {
        organisation: &need.organisation,
        level: need.level,
        name: &need.name,
        meter: &need.meter,
        window: &need.window,
        end: need.end,
        held,
        until: at(30).micros(),
        total: Some(total),
    };
    assert!(quota.grant(&grant(10, 40), at(0)).unwrap());
    (0..10).for_each(|_| quota.consume(&PATH, &[("m", 1)], at(1)).unwrap());
    assert!(!quota.lease_needs(at(1)).is_empty(), "more was asked for before the last was gone");
    let error = quota.consume(&PATH, &[("m", 1)], at(1)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::QuotaExceeded { limit: 64, used: 40 });
    assert!(quota.grant(&grant(20, 50), at(2)).unwrap());
    quota.consume(&PATH, &[("m", 1)], at(2)).unwrap();
    // What the authority's books say counts: a holder that was taken for dead lost what it had not spent.
    assert!(quota.grant(&grant(11, 41), at(2)).unwrap());
    assert!(quota.consume(&PATH, &[("m", 1)], at(2)).is_err());
    assert!(quota.grant(&grant(20, 50), at(2)).unwrap());
    // Its word that there is no more makes a refusal one of room, for a moment.
    assert!(quota.grant(&grant(11, 64), at(3)).unwrap());
    let short = |now| quota.consume(&PATH, &[("m", 1)], now).unwrap_err().context().any(|c| c == creto_metering::Refusal::LEASE);
    assert!(!short(at(3)));
    assert!(quota.lease_needs(at(3)).is_empty());
    assert!(short(at(4)));
    assert_eq!(quota.lease_needs(at(4)).len(), 1);
    assert!(quota.grant(&grant(20, 50), at(4)).unwrap());
    // An expired lease is not spent, and what is left of it can be given up.
    assert!(quota.consume(&PATH, &[("m", 1)], at(31)).is_err());
    assert_eq!(quota.surrender(&need, at(31)).unwrap(), 9);
    // Units of a window that is over are refused.
    assert!(!quota.grant(&grant(10, 50), at(61)).unwrap());
}

#[test]
fn units_that_were_on_their_way_when_an_act_was_refused_are_not_asked_for_again() {
    let quota = enforcer(r#"[{"scope": "team", "meter": "m", "limit": 320, "share": "store"}]"#);
    assert!(quota.consume(&PATH, &[("m", 1)], at(0)).is_err());
    let need = quota.lease_needs(at(0)).pop().unwrap();
    // Another act is refused before the answer is there.
    assert!(quota.consume(&PATH, &[("m", 2)], at(0)).is_err());
    let grant = LeaseGrant {
        organisation: &need.organisation,
        level: need.level,
        name: &need.name,
        meter: &need.meter,
        window: &need.window,
        end: need.end,
        held: need.want,
        until: at(30).micros(),
        total: Some(need.want),
    };
    assert!(quota.grant(&grant, at(0)).unwrap());
    assert!(quota.lease_needs(at(0)).is_empty());
    // An act that needs more than came is still heard.
    assert!(quota.consume(&PATH, &[("m", 40)], at(0)).is_err());
    assert!(quota.consume(&PATH, &[("m", 60)], at(0)).is_err());
    let more = LeaseGrant { held: 30, total: Some(30), ..grant };
    assert!(quota.grant(&more, at(0)).unwrap());
    assert_eq!(quota.lease_needs(at(0)).pop().unwrap().want, 30);
}

#[test]
fn racing_threads_get_exactly_the_limit() {
    let quota = Arc::new(enforcer(
        r#"[{"scope": "organisation", "meter": "m", "limit": 5000}, {"scope": "agent", "meter": "m", "limit": 100000}]"#,
    ));
    let taken = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (quota, taken) = (Arc::clone(&quota), Arc::clone(&taken));
            std::thread::spawn(move || {
                let name = format!("agent-{thread}");
                for i in 0..4_000_u64 {
                    let Ok(id) = quota.reserve(&["acme", "t", &name], &[("m", 2)], at(0)) else { continue };
                    match i % 3 {
                        0 => quota.release(id, at(0)).unwrap(),
                        1 => quota.commit(id, &[("m", 1)], at(0)).map(|()| taken.fetch_add(1, Ordering::Relaxed)).map(drop).unwrap(),
                        _ => quota.commit_held(id, at(0)).map(|()| taken.fetch_add(2, Ordering::Relaxed)).map(drop).unwrap(),
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    while quota.consume(&["acme", "t", "last"], &[("m", 1)], at(0)).is_ok() {
        taken.fetch_add(1, Ordering::Relaxed);
    }
    assert_eq!(taken.load(Ordering::Relaxed), 5_000);
}

#[derive(Clone, Debug)]
enum Step {
    Consume(usize, u64),
    Reserve(usize, u64),
    Commit(usize, u64),
    Release(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..3_usize, 0..8_u64).prop_map(|(a, n)| Step::Consume(a, n)),
        (0..3_usize, 0..8_u64).prop_map(|(a, n)| Step::Reserve(a, n)),
        (0..8_usize, 0..8_u64).prop_map(|(r, n)| Step::Commit(r, n)),
        (0..8_usize).prop_map(Step::Release),
        (0..40_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..120)
}

/// A plain model: what was used, by whom and when, in a list; windows are added up from it each time.
#[derive(Default)]
struct Model {
    used: Vec<(u64, usize, u64)>,
}

impl Model {
    fn sum(&self, from: u64, to: u64, agent: Option<usize>) -> u64 {
        self.used.iter().filter(|(t, a, _)| (from..to).contains(t) && agent.is_none_or(|only| only == *a)).map(|(_, _, n)| n).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Fixed windows on two levels behave as a list of all uses says, with reservations committed for no more than was held.
    #[test]
    fn fixed_windows_equal_a_list_of_all_uses(steps in steps()) {
        let quota = enforcer(r#"[{"scope": "team", "meter": "m", "limit": 30, "window": "60s"}, {"scope": "agent", "meter": "m", "limit": 15, "window": "20s"}]"#);
        let agents = ["a", "b", "c"];
        let mut model = Model::default();
        let mut open: Vec<(creto_enablement_common::ports::ReservationId, usize)> = Vec::new();
        let mut now = 0;
        for step in steps {
            let fits = |model: &Model, agent: usize, n: u64| {
                model.sum(now / 60 * 60, now / 60 * 60 + 60, None) + n <= 30 && model.sum(now / 20 * 20, now / 20 * 20 + 20, Some(agent)) + n <= 15
            };
            match step {
                Step::Consume(agent, n) => {
                    let taken = quota.consume(&["o", "t", agents[agent]], &[("m", n)], at(now)).is_ok();
                    prop_assert_eq!(taken, fits(&model, agent, n));
                    if taken { model.used.push((now, agent, n)); }
                }
                Step::Reserve(agent, n) => {
                    let held = quota.reserve(&["o", "t", agents[agent]], &[("m", n)], at(now));
                    prop_assert_eq!(held.is_ok(), fits(&model, agent, n));
                    if let Ok(id) = held { model.used.push((now, agent, n)); open.push((id, model.used.len() - 1)); }
                }
                Step::Commit(which, n) if which < open.len() => {
                    let (id, entry) = open.swap_remove(which);
                    let actual = n.min(model.used[entry].2);
                    quota.commit(id, &[("m", actual)], at(now)).unwrap();
                    model.used[entry].2 = actual;
                }
                Step::Release(which) if which < open.len() => {
                    let (id, entry) = open.swap_remove(which);
                    quota.release(id, at(now)).unwrap();
                    model.used[entry].2 = 0;
                }
                Step::Wait(seconds) => now += seconds,
                _ => {}
            }
        }
    }

    /// No stretch of the window's length ever holds more than the limit, however uses, returns and pauses fall.
    #[test]
    fn a_sliding_window_never_holds_more_than_its_limit(steps in steps()) {
        let quota = enforcer(r#"[{"scope": "team", "meter": "m", "limit": 12, "window": "60s", "kind": "sliding"}]"#);
        let mut model = Model::default();
        let mut open = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Consume(agent, n) | Step::Reserve(agent, n) => {
                    match quota.reserve(&["o", "t", "a"], &[("m", n)], at(now)) {
                        Ok(id) => { model.used.push((now, agent, n)); open.push((id, model.used.len() - 1)); }
                        // With a sixtieth more of time than the window has, a refusal is never early.
                        Err(_) => prop_assert!(model.sum(now.saturating_sub(60), now + 1, None) + n > 12),
                    }
                }
                Step::Commit(which, n) if which < open.len() => {
                    let (id, entry): (_, usize) = open.swap_remove(which);
                    let actual = n.min(model.used[entry].2);
                    quota.commit(id, &[("m", actual)], at(now)).unwrap();
                    model.used[entry].2 = actual;
                }
                Step::Release(which) if which < open.len() => {
                    let (id, entry) = open.swap_remove(which);
                    quota.release(id, at(now)).unwrap();
                    model.used[entry].2 = 0;
                }
                Step::Wait(seconds) => now += seconds,
                _ => {}
            }
            prop_assert!(model.sum((now + 1).saturating_sub(60), now + 1, None) <= 12);
        }
    }

    /// A rate never lets more through, from any instant on, than its burst and what time has added.
    #[test]
    fn a_rate_never_exceeds_burst_plus_flow(steps in steps()) {
        let quota = enforcer(r#"[{"scope": "team", "meter": "m", "limit": 7, "burst": 9, "window": "60s", "kind": "gcra"}]"#);
        let mut model = Model::default();
        let mut open = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Consume(agent, n) | Step::Reserve(agent, n) => {
                    if let Ok(id) = quota.reserve(&["o", "t", "a"], &[("m", n)], at(now)) {
                        model.used.push((now, agent, n));
                        open.push((id, model.used.len() - 1));
                    }
                }
                Step::Commit(which, _) | Step::Release(which) if which < open.len() => {
                    let (id, entry) = open.swap_remove(which);
                    quota.release(id, at(now)).unwrap();
                    model.used[entry].2 = 0;
                }
                Step::Wait(seconds) => now += seconds,
                _ => {}
            }
            for start in 0..=now {
                prop_assert!(model.sum(start, now + 1, None) <= 9 + (now - start) * 7 / 60 + 1);
            }
        }
    }
}
