//! Times of an envelope: whole seconds, UTC, as RFC 3339 in header fields and as RFC 5652 has them in signed attributes.

use creto_crypto::asn1;
use creto_enablement_common::{Error, Result};
use der::DateTime;
use std::time::Duration;

/// UTCTime ends with 2049 (RFC 5652, 11.3).
const YEAR_2050: u64 = 2_524_608_000;

fn civil(seconds: u64) -> Result<DateTime> {
    DateTime::from_unix_duration(Duration::from_secs(seconds)).map_err(|_| Error::invalid("a time of a message is out of range"))
}

/// Appends a number of two digits, and what stands before it.
fn put_two(out: &mut String, before: &str, number: u8) {
    out.push_str(before);
    out.push(char::from(b'0' + number / 10 % 10));
    out.push(char::from(b'0' + number % 10));
}

/// Digit by digit: every message has five times in it, and `format!` takes longer than all else of its header.
fn put_date_time(out: &mut String, at: &DateTime, [day, hour, minute]: [&str; 3]) {
    put_two(out, "", at.month());
    put_two(out, day, at.day());
    put_two(out, hour, at.hour());
    put_two(out, minute, at.minutes());
    put_two(out, minute, at.seconds());
    out.push('Z');
}

fn put_year(out: &mut String, at: &DateTime) {
    put_two(out, "", (at.year() / 100) as u8);
    put_two(out, "", (at.year() % 100) as u8);
}

/// As `2026-11-24T23:15:00Z`.
pub fn format(seconds: u64) -> Result<String> {
    let at = civil(seconds)?;
    let mut out = String::with_capacity(20);
    put_year(&mut out, &at);
    out.push('-');
    put_date_time(&mut out, &at, ["-", "T", ":"]);
    Ok(out)
}

/// Reads exactly what `format` writes.
pub fn parse(text: &str) -> Result<u64> {
    let refused = || Error::invalid(format!("`{text}` is not a time of a message; it is written as `2026-11-24T23:15:00Z`"));
    let number = |from: usize, to: usize| text.get(from..to).and_then(|digits| digits.parse::<u16>().ok()).ok_or_else(refused);
    let byte = |from: usize| number(from, from + 2).and_then(|value| u8::try_from(value).map_err(|_| refused()));
    let at = DateTime::new(number(0, 4)?, byte(5)?, byte(8)?, byte(11)?, byte(14)?, byte(17)?).map_err(|_| refused())?;
    let seconds = at.unix_duration().as_secs();
    if format(seconds)? == text { Ok(seconds) } else { Err(refused()) }
}

/// As the value of the attribute signingTime.
pub fn put_signing_time(out: &mut Vec<u8>, seconds: u64) -> Result<()> {
    let at = civil(seconds)?;
    let mut text = String::with_capacity(15);
    put_year(&mut text, &at);
    put_date_time(&mut text, &at, [""; 3]);
    if seconds < YEAR_2050 {
        asn1::put(out, asn1::UTC_TIME, text.get(2..).unwrap_or_default().as_bytes());
    } else {
        asn1::put(out, asn1::GENERALIZED_TIME, text.as_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_and_have_one_spelling() {
        for seconds in [0, 951_782_400, 1_790_000_000, YEAR_2050 - 1, YEAR_2050, 253_402_300_799] {
            assert_eq!(parse(&format(seconds).unwrap()).unwrap(), seconds);
        }
        for bad in
            ["2026-11-24T23:15:00", "2026-11-24 23:15:00Z", "2026-02-30T00:00:00Z", "+026-11-24T23:15:00Z", "2026-11-24T23:15:60Z", ""]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
