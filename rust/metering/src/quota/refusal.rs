//! Why an act did not fit, and what is announced before it comes to that.

use super::rule::Level;
use creto_enablement_common::{Error, ErrorKind};
use std::time::Duration;

/// Why an act did not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The floor of the quota that has no room.
    pub level: Level,
    /// Whose.
    pub name: String,
    /// Of what.
    pub meter: String,
    /// Over what time, as it was written.
    pub window: String,
    /// What it allows.
    pub limit: u64,
    /// What is used or held.
    pub used: u64,
    /// What was asked for.
    pub asked: u64,
    /// When there can be room, in microseconds since the epoch; none where that is not a matter of time.
    pub resets_at: Option<u64>,
    /// How long until then, in microseconds.
    pub wait: Option<u64>,
    /// True where the limit may have room, but this process has leased none of it.
    pub lease_short: bool,
}

impl Refusal {
    /// The context line that marks a lack of leased units rather than of room.
    pub const LEASE: &'static str = "no units leased to this process yet, try again";
    /// How long it takes to lease some, about.
    const LEASING: Duration = Duration::from_millis(50);
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let Refusal { level, name, meter, window, limit, used, asked, resets_at, wait, lease_short } = refusal;
        let when = resets_at
            .filter(|_| !lease_short)
            .and_then(|at| jiff::Timestamp::from_microsecond(i64::try_from(at).ok()?).ok())
            .map(|at| format!(", resets at {}", at.round(jiff::Unit::Second).unwrap_or(at)))
            .unwrap_or_default();
        let mut error = Self::new(ErrorKind::QuotaExceeded { limit, used });
        if lease_short {
            error = error.with_context(Refusal::LEASE);
        }
        let (more, so_far) = match currency(&meter) {
            Some(currency) => {
                (format!("{} {currency}", money(asked)), format!(", of {} {currency} {} are used", money(limit), money(used)))
            }
            None => (asked.to_string(), String::new()),
        };
        error = error.with_context(format!("{more} more of `{meter}` ({window}) by {} `{name}`{so_far}{when}", level.name()));
        match wait {
            _ if lease_short => error.with_retry_after(Refusal::LEASING),
            Some(wait) => error.with_retry_after(Duration::from_micros(wait)),
            None => error,
        }
    }
}

/// The currency of a meter that counts money in billionths, as `cost:USD` does.
fn currency(meter: &str) -> Option<&str> {
    meter.strip_prefix("spent:").or_else(|| meter.strip_prefix("cost:")).filter(|currency| !currency.is_empty())
}

/// Billionths as people write money.
fn money(units: u64) -> String {
    let (whole, rest) = (units / 1_000_000_000, format!("{:09}", units % 1_000_000_000));
    format!("{whole}.{:0<2}", rest.trim_end_matches('0'))
}

/// What is announced: a share of a limit was reached, or went beyond it where the rule allows that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The floor.
    pub level: Level,
    /// Whose.
    pub name: String,
    /// Of what.
    pub meter: String,
    /// Over what time.
    pub window: String,
    /// What it allows.
    pub limit: u64,
    /// What is used.
    pub used: u64,
    /// The percentage that was reached.
    pub percent: u8,
    /// When, in microseconds since the epoch.
    pub at: u64,
}
