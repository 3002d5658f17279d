//! Over what time a quota counts.

use creto_enablement_common::{Error, Result};
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// The end of a window that never ends.
pub const NEVER: u64 = u64::MAX;

const SECOND: u64 = 1_000_000;

/// A calendar's units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Sixty seconds.
    Minute,
    /// Sixty minutes, by the zone's own clock.
    Hour,
    /// From midnight to midnight: 23 to 25 hours where the clocks change.
    Day,
    /// From Monday.
    Week,
    /// From the first of the month.
    Month,
    /// From the first of January.
    Year,
}

impl Unit {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "minute" => Self::Minute,
            "hour" => Self::Hour,
            "day" => Self::Day,
            "week" => Self::Week,
            "month" => Self::Month,
            "year" => Self::Year,
            _ => return None,
        })
    }

    /// As in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }
}

/// Over what time a quota counts; lengths in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// Windows of one length, aligned to the Unix epoch.
    Fixed(u64),
    /// Any stretch of that length, to a sixtieth of it.
    Sliding(u64),
    /// A limit's worth spread evenly over that length, with a burst (the generic cell rate algorithm).
    Rate(u64),
    /// A unit of the calendar, in a time zone.
    Calendar(Unit, TimeZone),
    /// Never starts again.
    Forever,
    /// Counts what is held now, not what was used.
    Held,
}

impl Span {
    /// A length such as `90s`, `1m`, `12h`, `7d`, in microseconds.
    ///
    /// # Errors
    /// `InvalidInput`, saying what can be written.
    pub fn length(text: &str) -> Result<u64> {
        let refuse = || Error::invalid(format!("window `{text}`: write a length such as `90s`, `1m`, `12h` or `7d`"));
        let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?;
        let (number, unit) = text.split_at(split);
        let scale = match unit {
            "ms" => 1_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3_600 * SECOND,
            "d" => 86_400 * SECOND,
            _ => return Err(refuse()),
        };
        let length = number.parse::<u64>().ok().and_then(|n| n.checked_mul(scale)).ok_or_else(refuse)?;
        if length == 0 || length > 366 * 86_400 * SECOND {
            return Err(Error::invalid(format!("window `{text}`: it must be longer than nothing and no longer than 366 days")));
        }
        Ok(length)
    }

    /// A calendar unit in a zone of the IANA database.
    ///
    /// # Errors
    /// `InvalidInput` where there is no such unit or zone.
    pub fn calendar(unit: &str, zone: &str) -> Result<Self> {
        let unit = Unit::parse(unit)
            .ok_or_else(|| Error::invalid(format!("calendar window `{unit}`: write `minute`, `hour`, `day`, `week`, `month` or `year`")))?;
        let zone = TimeZone::get(zone)
            .map_err(|_| Error::invalid(format!("time zone `{zone}`: write a name such as `Europe/Zurich` or `UTC`")))?;
        Ok(Self::Calendar(unit, zone))
    }

    /// True where a clock of a few milliseconds is too coarse.
    pub fn fine(&self) -> bool {
        match self {
            Self::Fixed(length) | Self::Sliding(length) => *length < SECOND,
            Self::Rate(_) => true,
            Self::Calendar(..) | Self::Held | Self::Forever => false,
        }
    }

    /// The window that holds `now`, as microseconds since the epoch: `start <= now < end`.
    pub fn window(&self, now: u64) -> (u64, u64) {
        match self {
            Self::Fixed(length) | Self::Sliding(length) | Self::Rate(length) => {
                let start = now - now % length;
                (start, start.saturating_add(*length))
            }
            // A time that the calendar cannot hold counts in one window that never ends: it refuses more, never less.
            Self::Calendar(unit, zone) => calendar_window(*unit, zone, now).unwrap_or((0, NEVER)),
            Self::Forever | Self::Held => (0, NEVER),
        }
    }
}

fn calendar_window(unit: Unit, zone: &TimeZone, now: u64) -> Option<(u64, u64)> {
    let instant = Timestamp::from_microsecond(i64::try_from(now).ok()?).ok()?;
    let local = instant.to_zoned_datetime(zone.clone());
    let date = local.date();
    let (first, next) = match unit {
        Unit::Minute | Unit::Hour => {
            let length = if unit == Unit::Minute { 60 } else { 3_600 };
            // By the offset in force, so that an hour that the clocks repeat is two windows, not one.
            let offset = i64::from(local.offset().seconds());
            let seconds = instant.as_microsecond().div_euclid(SECOND as i64);
            let start = seconds - (seconds + offset).rem_euclid(length);
            return Some((since_epoch(start * SECOND as i64), since_epoch((start + length) * SECOND as i64)));
        }
        Unit::Day => (date, date.tomorrow().ok()?),
        Unit::Week => {
            let monday = date.checked_sub(i64::from(date.weekday().since(Weekday::Monday)).days()).ok()?;
            (monday, monday.checked_add(7.days()).ok()?)
        }
        Unit::Month => (date.first_of_month(), date.first_of_month().checked_add(1.month()).ok()?),
        Unit::Year => (date.first_of_year(), date.first_of_year().checked_add(1.year()).ok()?),
    };
    Some((midnight(first, zone)?, midnight(next, zone)?))
}

fn midnight(date: Date, zone: &TimeZone) -> Option<u64> {
    Some(since_epoch(date.to_zoned_datetime(zone.clone()).ok()?.timestamp().as_microsecond()))
}

/// A window that began before the epoch counts from there.
fn since_epoch(micros: i64) -> u64 {
    micros.max(0).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_microsecond() as u64
    }

    #[test]
    fn a_day_on_which_the_clocks_change_has_23_or_25_hours() {
        let day = Span::calendar("day", "Europe/Zurich").unwrap();
        for (noon, hours) in [("2026-03-29T10:00:00Z", 23), ("2026-10-25T10:00:00Z", 25), ("2026-11-24T10:00:00Z", 24)] {
            let (start, end) = day.window(at(noon));
            assert_eq!((end - start) / (3_600 * SECOND), hours, "{noon}");
        }
    }

    #[test]
    fn the_hour_that_the_clocks_repeat_is_two_windows() {
        let hour = Span::calendar("hour", "Europe/Zurich").unwrap();
        let first = hour.window(at("2026-10-25T00:30:00Z"));
        let second = hour.window(at("2026-10-25T01:30:00Z"));
        assert_eq!(first.1, second.0);
    }

    #[test]
    fn a_month_ends_where_the_next_begins_also_in_leap_years() {
        let month = Span::calendar("month", "America/New_York").unwrap();
        assert_eq!(month.window(at("2028-02-29T23:00:00Z")), (at("2028-02-01T05:00:00Z"), at("2028-03-01T05:00:00Z")));
    }

    #[test]
    fn what_is_no_length_is_refused_with_what_can_be_written() {
        for bad in ["", "10", "m", "0s", "1y", "-1s", "99999999999999999999s", "400d"] {
            assert!(Span::length(bad).unwrap_err().to_string().contains("window"), "{bad}");
        }
        assert_eq!(Span::length("12h").unwrap(), 12 * 3_600 * SECOND);
    }

    proptest! {
        #[test]
        fn windows_hold_their_instant_and_tile_time(now in prop_oneof![0_u64..400 * 86_400 * SECOND, 0_u64..4_000_000_000_000_000], zone in prop::sample::select(vec!["UTC", "Europe/Zurich", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"]), unit in prop::sample::select(vec!["minute", "hour", "day", "week", "month", "year"])) {
            let span = Span::calendar(unit, zone).unwrap();
            let (start, end) = span.window(now);
            prop_assert!(start <= now && now < end);
            prop_assert_eq!(span.window(end).0, end);
            prop_assert_eq!(span.window(start), (start, end));
        }
    }
}
