//! Windows of the calendar as the enforcer counts them: days on which the clocks change, ends of months, leap seconds, stepped clocks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use creto_enablement_common::{RetryPolicy, Timestamp};
use creto_metering::{QuotaEnforcer, QuotaRule};
use jiff::Timestamp as Instant;
use proptest::prelude::*;
use std::time::Duration;

const PATH: [&str; 3] = ["acme", "research", "reader"];
const SECOND: u64 = 1_000_000;

fn at(text: &str) -> Timestamp {
    Timestamp::from_micros(text.parse::<Instant>().unwrap().as_microsecond() as u64)
}

fn enforcer(window: &str, zone: &str, limit: u64) -> QuotaEnforcer {
    let rule = format!(r#"[{{"scope": "team", "meter": "m", "limit": {limit}, "window": "{window}", "time_zone": "{zone}"}}]"#);
    QuotaEnforcer::new(QuotaRule::parse_list(&rule).unwrap(), Duration::from_secs(900))
}

/// Each instant, and whether one more unit fits there.
fn story(quota: &QuotaEnforcer, steps: &[(&str, bool)]) {
    for (instant, fits) in steps {
        assert_eq!(quota.consume(&PATH, &[("m", 1)], at(instant)).is_ok(), *fits, "{instant}");
    }
}

#[test]
fn a_day_of_25_hours_gives_out_its_limit_once() {
    let quota = enforcer("day", "Europe/Zurich", 2);
    // Midnight is at 22:00Z before the clocks go back, and at 23:00Z after.
    story(
        &quota,
        &[
            ("2026-10-24T22:00:00Z", true),
            ("2026-10-25T00:30:00Z", true),
            ("2026-10-25T01:30:00Z", false), // the hour from two to three, for the second time
            ("2026-10-25T22:59:59Z", false),
            ("2026-10-25T23:00:00Z", true),
        ],
    );
}

#[test]
fn a_day_of_23_hours_ends_an_hour_sooner() {
    let quota = enforcer("day", "Europe/Zurich", 1);
    story(&quota, &[("2026-03-28T23:00:00Z", true), ("2026-03-29T21:59:59Z", false), ("2026-03-29T22:00:00Z", true)]);
}

#[test]
fn a_day_that_begins_at_one_in_the_morning_begins_there() {
    // In Beirut the clocks go from midnight to one: there is no midnight on 29 March.
    let quota = enforcer("day", "Asia/Beirut", 1);
    story(&quota, &[("2026-03-28T12:00:00Z", true), ("2026-03-28T21:59:59Z", false), ("2026-03-28T22:00:00Z", true)]);
}

#[test]
fn an_hour_that_the_clocks_repeat_has_its_limit_twice_and_one_that_they_skip_has_none() {
    let quota = enforcer("hour", "Europe/Zurich", 1);
    story(
        &quota,
        &[
            ("2026-10-25T00:59:59Z", true), // 02:59:59, summer
            ("2026-10-25T01:00:00Z", true), // 02:00:00, winter
            ("2026-10-25T01:59:59Z", false),
            ("2026-10-25T02:00:00Z", true),
        ],
    );
    let quota = enforcer("hour", "Europe/Zurich", 1);
    story(&quota, &[("2026-03-29T00:59:59Z", true), ("2026-03-29T01:00:00Z", true), ("2026-03-29T01:59:59Z", false)]);
}

#[test]
fn months_end_where_they_end() {
    for (last, first) in [
        ("2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z"),
        ("2026-02-28T23:59:59Z", "2026-03-01T00:00:00Z"),
        ("2028-02-29T23:59:59Z", "2028-03-01T00:00:00Z"),
        ("2100-02-28T23:59:59Z", "2100-03-01T00:00:00Z"),
        ("2026-04-30T23:59:59Z", "2026-05-01T00:00:00Z"),
        ("2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
    ] {
        let quota = enforcer("month", "UTC", 1);
        story(&quota, &[(last, true), (last, false), (first, true), (first, false)]);
    }
}

#[test]
fn a_refusal_says_when_the_local_day_ends() {
    let quota = enforcer("day", "Europe/Zurich", 1);
    quota.consume(&PATH, &[("m", 1)], at("2026-10-25T00:30:00Z")).unwrap();
    let error = quota.consume(&PATH, &[("m", 1)], at("2026-10-25T01:30:00Z")).unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(21 * 3_600 + 1_800)));
    assert!(error.to_string().contains("(day in Europe/Zurich) by team `research`, resets at 2026-10-25T23:00:00Z"), "{error}");
}

#[test]
fn a_leap_second_that_the_clock_repeats_does_not_open_the_old_day_anew() {
    // Unix time has no 23:59:60: the clock shows the first second of the day, and then steps back by one.
    let quota = enforcer("day", "UTC", 1);
    story(
        &quota,
        &[
            ("2016-12-31T23:59:59Z", true),
            ("2017-01-01T00:00:00Z", true),
            ("2016-12-31T23:59:59.5Z", false),
            ("2017-01-01T00:00:00.2Z", false),
        ],
    );
}

#[test]
fn a_clock_that_steps_forward_and_back_again_gives_no_window_twice() {
    let quota = enforcer("hour", "UTC", 1);
    story(
        &quota,
        &[
            ("2026-11-24T12:30:00Z", true),
            ("2026-11-24T13:10:00Z", true), // forty minutes ahead
            ("2026-11-24T12:31:00Z", false),
            ("2026-11-24T12:59:59Z", false),
            ("2026-11-24T13:20:00Z", false),
            ("2026-11-24T14:00:00Z", true),
        ],
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Around a change of the clocks, in every zone: each calendar window gives out its limit, no more and no less, whoever asks how often.
    #[test]
    fn every_window_gives_out_exactly_its_limit(
        zone in prop::sample::select(vec!["UTC", "Europe/Zurich", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns"]),
        window in prop::sample::select(vec!["hour", "day", "week", "month"]),
        start in prop::sample::select(vec!["2026-03-07T00:00:00Z", "2026-03-28T00:00:00Z", "2026-04-04T00:00:00Z", "2026-10-03T00:00:00Z", "2026-10-24T00:00:00Z", "2026-10-31T00:00:00Z"]),
        steps in prop::collection::vec(1_u64..7_200, 20..200),
    ) {
        let quota = enforcer(window, zone, 3);
        let zoned = jiff::tz::TimeZone::get(zone).unwrap();
        let (mut now, mut given) = (at(start).micros(), std::collections::HashMap::<String, (u64, u64)>::new());
        for step in steps {
            now += step * SECOND;
            let local = Instant::from_microsecond(now as i64).unwrap().to_zoned_datetime(zoned.clone());
            let name = match window {
                "hour" => local.strftime("%F %H %z").to_string(),
                "day" => local.strftime("%F").to_string(),
                "week" => local.strftime("%G %V").to_string(),
                _ => local.strftime("%Y %m").to_string(),
            };
            let fits = quota.consume(&PATH, &[("m", 1)], Timestamp::from_micros(now)).is_ok();
            let (asked, got) = given.entry(name.clone()).or_default();
            *asked += 1;
            *got += u64::from(fits);
            prop_assert_eq!(*got, (*asked).min(3), "{} in {} at {}", name, zone, local);
        }
    }
}
