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

/// As `2026-11-24T23:15:00Z`.
pub fn format(seconds: u64) -> Result<String> {
    let at = civil(seconds)?;
    Ok(format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", at.year(), at.month(), at.day(), at.hour(), at.minutes(), at.seconds()))
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
    let rest = format!("{:02}{:02}{:02}{:02}{:02}Z", at.month(), at.day(), at.hour(), at.minutes(), at.seconds());
    if seconds < YEAR_2050 {
        asn1::put(out, asn1::UTC_TIME, format!("{:02}{rest}", at.year() % 100).as_bytes());
    } else {
        asn1::put(out, asn1::GENERALIZED_TIME, format!("{:04}{rest}", at.year()).as_bytes());
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
