//! Cedar's extension types: decimal, ipaddr, datetime, duration.
//!
//! Source: the Cedar reference, "Extension types"; equality with cedar-policy on texts and operations is held by the differential tests.

use std::net::IpAddr;

/// One value of an extension type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ext {
    /// Ten-thousandths.
    Decimal(i64),
    /// An address and the length of its prefix.
    Ip(IpAddr, u8),
    /// Milliseconds since the Unix epoch.
    Datetime(i64),
    /// Milliseconds.
    Duration(i64),
}

/// A function or method of the extension types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    Decimal,
    Ip,
    Datetime,
    Duration,
    LessThan,
    LessThanOrEqual,
    GreaterThan,
    GreaterThanOrEqual,
    IsIpv4,
    IsIpv6,
    IsLoopback,
    IsMulticast,
    IsInRange,
    Offset,
    DurationSince,
    ToDate,
    ToTime,
    ToMilliseconds,
    ToSeconds,
    ToMinutes,
    ToHours,
    ToDays,
}

/// What a call on extension values gives.
pub enum Given {
    Ext(Ext),
    Bool(bool),
    Long(i64),
}

impl Call {
    /// The function of this name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "decimal" => Self::Decimal,
            "ip" => Self::Ip,
            "datetime" => Self::Datetime,
            "duration" => Self::Duration,
            "lessThan" => Self::LessThan,
            "lessThanOrEqual" => Self::LessThanOrEqual,
            "greaterThan" => Self::GreaterThan,
            "greaterThanOrEqual" => Self::GreaterThanOrEqual,
            "isIpv4" => Self::IsIpv4,
            "isIpv6" => Self::IsIpv6,
            "isLoopback" => Self::IsLoopback,
            "isMulticast" => Self::IsMulticast,
            "isInRange" => Self::IsInRange,
            "offset" => Self::Offset,
            "durationSince" => Self::DurationSince,
            "toDate" => Self::ToDate,
            "toTime" => Self::ToTime,
            "toMilliseconds" => Self::ToMilliseconds,
            "toSeconds" => Self::ToSeconds,
            "toMinutes" => Self::ToMinutes,
            "toHours" => Self::ToHours,
            "toDays" => Self::ToDays,
            _ => return None,
        })
    }

    /// True for those that make a value from text.
    pub const fn is_constructor(self) -> bool {
        matches!(self, Self::Decimal | Self::Ip | Self::Datetime | Self::Duration)
    }

    /// How many arguments it takes, the receiver among them.
    pub const fn arity(self) -> usize {
        match self {
            Self::LessThan
            | Self::LessThanOrEqual
            | Self::GreaterThan
            | Self::GreaterThanOrEqual
            | Self::IsInRange
            | Self::Offset
            | Self::DurationSince => 2,
            _ => 1,
        }
    }

    /// Makes a value; none where the text is not of the type's form.
    pub fn construct(self, text: &str) -> Option<Ext> {
        match self {
            Self::Decimal => decimal(text).map(Ext::Decimal),
            Self::Ip => ip(text),
            Self::Datetime => datetime(text).map(Ext::Datetime),
            Self::Duration => duration(text).map(Ext::Duration),
            _ => None,
        }
    }

    /// Applies a method; none where it errs.
    pub fn apply(self, receiver: Ext, argument: Option<Ext>) -> Option<Given> {
        use Ext::{Datetime, Decimal, Duration, Ip};
        const DAY: i64 = 86_400_000;
        Some(match (self, receiver, argument) {
            (Self::LessThan, Decimal(a), Some(Decimal(b))) => Given::Bool(a < b),
            (Self::LessThanOrEqual, Decimal(a), Some(Decimal(b))) => Given::Bool(a <= b),
            (Self::GreaterThan, Decimal(a), Some(Decimal(b))) => Given::Bool(a > b),
            (Self::GreaterThanOrEqual, Decimal(a), Some(Decimal(b))) => Given::Bool(a >= b),
            (Self::IsIpv4, Ip(address, _), None) => Given::Bool(address.is_ipv4()),
            (Self::IsIpv6, Ip(address, _), None) => Given::Bool(address.is_ipv6()),
            (Self::IsLoopback, Ip(address, prefix), None) => {
                Given::Bool(address.is_loopback() && prefix >= if address.is_ipv4() { 8 } else { 128 })
            }
            (Self::IsMulticast, Ip(address, prefix), None) => {
                Given::Bool(address.is_multicast() && prefix >= if address.is_ipv4() { 4 } else { 8 })
            }
            (Self::IsInRange, Ip(a, a_prefix), Some(Ip(b, b_prefix))) => Given::Bool(in_range(a, a_prefix, b, b_prefix)),
            (Self::Offset, Datetime(at), Some(Duration(by))) => Given::Ext(Datetime(at.checked_add(by)?)),
            (Self::DurationSince, Datetime(a), Some(Datetime(b))) => Given::Ext(Duration(a.checked_sub(b)?)),
            (Self::ToDate, Datetime(at), None) => Given::Ext(Datetime(at.checked_sub(at.rem_euclid(DAY))?)),
            (Self::ToTime, Datetime(at), None) => Given::Ext(Duration(at.rem_euclid(DAY))),
            (Self::ToMilliseconds, Duration(ms), None) => Given::Long(ms),
            (Self::ToSeconds, Duration(ms), None) => Given::Long(ms / 1_000),
            (Self::ToMinutes, Duration(ms), None) => Given::Long(ms / 60_000),
            (Self::ToHours, Duration(ms), None) => Given::Long(ms / 3_600_000),
            (Self::ToDays, Duration(ms), None) => Given::Long(ms / DAY),
            _ => return None,
        })
    }
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn decimal(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.')?;
    let negative = whole.starts_with('-');
    if !digits(whole.strip_prefix('-').unwrap_or(whole)) || !digits(part) || part.len() > 4 {
        return None;
    }
    let whole = whole.parse::<i64>().ok()?.checked_mul(10_000)?;
    let part = part.parse::<i64>().ok()? * 10_i64.pow(4 - part.len() as u32);
    if negative { whole.checked_sub(part) } else { whole.checked_add(part) }
}

fn ip(text: &str) -> Option<Ext> {
    let twice = |c: char| text.matches(c).nth(1).is_some();
    if text.len() > 43 || (twice(':') && twice('.')) {
        return None;
    }
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address.parse::<IpAddr>().ok()?, Some(prefix)),
        None => (text.parse::<IpAddr>().ok()?, None),
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => most,
        Some(prefix) => {
            let longest = if address.is_ipv4() { 2 } else { 3 };
            if prefix.len() > longest || !digits(prefix) || (prefix.starts_with('0') && prefix != "0") {
                return None;
            }
            prefix.parse::<u8>().ok().filter(|prefix| *prefix <= most)?
        }
    };
    Some(Ext::Ip(address, prefix))
}

fn in_range(a: IpAddr, a_prefix: u8, b: IpAddr, b_prefix: u8) -> bool {
    let (a, b, width) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(u32::from(a)), u128::from(u32::from(b)), 32_u32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
        _ => return false,
    };
    let host = |prefix: u8| {
        let bits = width.saturating_sub(u32::from(prefix));
        1_u128.checked_shl(bits).map_or(u128::MAX, |one| one - 1)
    };
    let (a_low, a_high) = (a & !host(a_prefix), a | host(a_prefix));
    let (b_low, b_high) = (b & !host(b_prefix), b | host(b_prefix));
    b_low <= a_low && a_high <= b_high
}

/// `YYYY-MM-DD`, or with `THH:MM:SS`, `.SSS` and `Z` or an offset, to milliseconds.
fn datetime(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let fixed = |text: &str, range: std::ops::Range<usize>| text.get(range).filter(|t| digits(t)).and_then(|t| t.parse::<i64>().ok());
    let sign = |at: usize, expected: &str| text.get(at..=at) == Some(expected);
    let (year, month, day) = (fixed(date, 0..4)?, fixed(date, 5..7)?, fixed(date, 8..10)?);
    if !sign(4, "-") || !sign(7, "-") || !(1..=12).contains(&month) || day < 1 || day > month_days(year, month) {
        return None;
    }
    let date = days_from_civil(year, month, day) * 86_400_000;
    if rest.is_empty() {
        return Some(date);
    }
    let (hour, minute, second) = (fixed(rest, 1..3)?, fixed(rest, 4..6)?, fixed(rest, 7..9)?);
    if !sign(10, "T") || !sign(13, ":") || !sign(16, ":") || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut zone = rest.get(9..)?;
    let mut millis = 0;
    if zone.starts_with('.') {
        millis = fixed(zone, 1..4)?;
        zone = zone.get(4..)?;
    }
    let offset = match zone.as_bytes() {
        b"Z" => 0,
        [plus @ (b'+' | b'-'), _, _, _, _] => {
            let (hours, minutes) = (fixed(zone, 1..3)?, fixed(zone, 3..5)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = (hours * 60 + minutes) * 60_000;
            if *plus == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    Some(date + ((hour * 60 + minute) * 60 + second) * 1_000 + millis - offset)
}

const fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + leap(year) as i64,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, for years from 0.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let before = |year: i64| year * 365 + (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
    let months: i64 = (1..month).map(|m| month_days(year, m)).sum();
    before(year) - before(1970) + months + day - 1
}

/// `-` and then, each at most once and in this order, days, hours, minutes, seconds, milliseconds.
fn duration(text: &str) -> Option<i64> {
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix('-').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_i64;
    // Small units first, so that a sum which only overflows on the way is no error.
    let mut parts = [0_i64; 5];
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    for ((unit, _), part) in units.iter().zip(&mut parts) {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at_checked(end)?;
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (found, after) = tail.split_at_checked(unit_end)?;
        if found == *unit && !number.is_empty() {
            let number = i128::from(number.parse::<u64>().ok()?);
            *part = i64::try_from(if negative { -number } else { number }).ok()?;
            rest = after;
        }
    }
    if !rest.is_empty() {
        return None;
    }
    for ((_, scale), part) in units.iter().zip(parts).rev() {
        total = total.checked_add(part.checked_mul(*scale)?)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cedar_policy::{Entities, Expression, Request, eval_expression};
    use proptest::prelude::*;
    use std::str::FromStr;

    /// What cedar-policy makes of the same text, seen through a comparison with our value.
    fn cedar_accepts(constructor: &str, text: &str) -> bool {
        let request = Request::new(
            "U::\"u\"".parse().unwrap(),
            "Action::\"a\"".parse().unwrap(),
            "U::\"u\"".parse().unwrap(),
            cedar_policy::Context::empty(),
            None,
        )
        .unwrap();
        let expression = Expression::from_str(&format!("{constructor}({text:?}) == {constructor}({text:?})"));
        expression.is_ok_and(|e| eval_expression(&request, &Entities::empty(), &e).is_ok())
    }

    fn cedar_true(expression: &str) -> bool {
        let request = Request::new(
            "U::\"u\"".parse().unwrap(),
            "Action::\"a\"".parse().unwrap(),
            "U::\"u\"".parse().unwrap(),
            cedar_policy::Context::empty(),
            None,
        )
        .unwrap();
        let expression = Expression::from_str(expression).unwrap();
        eval_expression(&request, &Entities::empty(), &expression).unwrap() == cedar_policy::EvalResult::Bool(true)
    }

    #[test]
    fn known_moments() {
        assert_eq!(datetime("1970-01-01"), Some(0));
        assert_eq!(datetime("2000-03-01T00:00:00Z"), Some(951_868_800_000));
        assert_eq!(datetime("0000-01-01"), Some(-62_167_219_200_000));
        assert_eq!(datetime("2023-02-29"), None);
        assert_eq!(duration("-1d2h3m4s5ms"), Some(-93_784_005));
        assert_eq!(decimal("-0.5"), Some(-5_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

        #[test]
        fn texts_are_accepted_as_cedar_accepts_them(
            decimal_text in "-?[0-9]{0,17}\\.?[0-9]{0,6}",
            ip_text in "([0-9]{1,3}\\.){3}[0-9]{1,3}(/[0-9]{1,3})?|[0-9a-f:]{2,12}(/[0-9]{0,4})?|::ffff:1\\.2\\.3\\.4",
            date_text in "[0-9]{4}-[01][0-9]-[0-3][0-9](T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{2,4})?(Z|[+-][0-2][0-9][0-6][0-9])?)?",
            duration_text in "-?([0-9]{1,4}d)?([0-9]{1,20}h)?([0-9]{1,4}m)?([0-9]{0,4}s)?([0-9]{1,20}ms)?",
        ) {
            for (call, name, text) in [
                (Call::Decimal, "decimal", &decimal_text),
                (Call::Ip, "ip", &ip_text),
                (Call::Datetime, "datetime", &date_text),
                (Call::Duration, "duration", &duration_text),
            ] {
                let ours = call.construct(text);
                prop_assert_eq!(ours.is_some(), cedar_accepts(name, text), "{}({:?})", name, text);
                match ours {
                    Some(Ext::Datetime(at)) => {
                        let same = format!("datetime({text:?}) == datetime(\"1970-01-01\").offset(duration(\"{at}ms\"))");
                        prop_assert!(cedar_true(&same), "{}", same);
                    }
                    Some(Ext::Duration(ms)) => {
                        let same = format!("duration({text:?}) == duration(\"{ms}ms\")");
                        prop_assert!(cedar_true(&same), "{}", same);
                    }
                    _ => {}
                }
            }
        }
    }
}
