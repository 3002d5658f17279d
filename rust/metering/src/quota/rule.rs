//! A quota as it is written down: on whom, of what, how much, over what time.

use super::span::Span;
use creto_enablement_common::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

/// A floor of the path from an organisation down to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// The first name of a path.
    Organisation,
    /// The names between the organisation and the first agent.
    Team,
    /// The acting agent and everyone that it acts for.
    Agent,
}

impl Level {
    /// Of the name at `position` of a path: SPIFFE ids are agents wherever they stand, and so is what comes third or later.
    pub fn of(position: usize, name: &str) -> Self {
        match position {
            _ if name.starts_with("spiffe://") => Self::Agent,
            0 => Self::Organisation,
            1 => Self::Team,
            _ => Self::Agent,
        }
    }

    /// As in settings and refusals.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Organisation => "organisation",
            Self::Team => "team",
            Self::Agent => "agent",
        }
    }
}

/// On whom a quota lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Which floor.
    pub level: Level,
    /// That one only; none is every one of that floor, each with a count of its own.
    pub name: Option<String>,
}

impl Scope {
    /// Parses `team`, `team:*` (each team) or `team:research` (that one).
    ///
    /// # Errors
    /// `InvalidInput` for any other floor.
    pub fn parse(text: &str) -> Result<Self> {
        let (floor, name) = text.split_once(':').map_or((text, "*"), |(floor, name)| (floor, name));
        let level = match floor {
            "organisation" => Level::Organisation,
            "team" => Level::Team,
            "agent" => Level::Agent,
            _ => {
                return Err(Error::invalid(format!(
                    "quota scope `{text}`: write `organisation`, `team` or `agent`, for one of them as `team:NAME`"
                )));
            }
        };
        if name.is_empty() {
            return Err(Error::invalid(format!("quota scope `{text}`: the name after `:` is empty")));
        }
        Ok(Self { level, name: (name != "*").then(|| name.to_owned()) })
    }

    /// True where a quota of this scope lies on `name`.
    pub fn covers(&self, level: Level, name: &str) -> bool {
        self.level == level && self.name.as_deref().is_none_or(|own| own == name)
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.level.name(), self.name.as_deref().unwrap_or("*"))
    }
}

/// What happens to an act that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overage {
    /// It is refused.
    #[default]
    Deny,
    /// It goes on, and is announced.
    Warn,
}

/// Who shares the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    /// This process alone.
    #[default]
    Process,
    /// Every process that leases from the same authority.
    Store,
}

/// A quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRule {
    /// On whom.
    pub scope: Scope,
    /// Of what.
    pub meter: String,
    /// How much, in the meter's smallest unit.
    pub limit: u64,
    /// Over what time.
    pub span: Span,
    /// How much may come at once, for rates.
    pub burst: u64,
    /// At which percentages of the limit a notice is given, ascending.
    pub soft: Vec<u8>,
    /// What happens beyond it.
    pub overage: Overage,
    /// Who shares the count.
    pub share: Share,
    /// The window as it was written, for texts.
    pub window: String,
}

/// A rule as settings hold it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    scope: String,
    meter: String,
    limit: Value,
    #[serde(default)]
    window: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    time_zone: Option<String>,
    #[serde(default)]
    burst: Option<Value>,
    #[serde(default)]
    soft: Option<Vec<Value>>,
    #[serde(default)]
    overage: Overage,
    #[serde(default)]
    share: Share,
}

impl QuotaRule {
    /// Reads a JSON list of rules, as the settings hold them.
    ///
    /// # Errors
    /// `InvalidInput`, naming the rule by its place in the list.
    pub fn parse_list(json: &str) -> Result<Vec<Self>> {
        let written: Vec<Value> = serde_json::from_str(json).map_err(|e| Error::invalid(format!("quota rules: {e}")))?;
        let read = |value| serde_json::from_value(value).map_err(|e| Error::invalid(e.to_string())).and_then(Self::from_written);
        let rules: Vec<Self> = written
            .into_iter()
            .enumerate()
            .map(|(i, value)| read(value).map_err(|e| e.with_context(format!("quota rule {}", i + 1))))
            .collect::<Result<_>>()?;
        for (i, rule) in rules.iter().enumerate() {
            if rules.iter().take(i).any(|other| rule.same_count(other)) {
                return Err(Error::invalid(format!(
                    "quota rule {}: there are two for `{}`, `{}`, `{}`",
                    i + 1,
                    rule.scope,
                    rule.meter,
                    rule.window
                )));
            }
        }
        Ok(rules)
    }

    /// True where the two count the same thing over the same time, so that a count survives when one replaces the other.
    pub fn same_count(&self, other: &Self) -> bool {
        self.scope == other.scope && self.meter == other.meter && self.span == other.span
    }

    fn from_written(written: Written) -> Result<Self> {
        let Written { scope, meter, limit, window, kind, time_zone, burst, soft, overage, share } = written;
        let scope = Scope::parse(&scope)?;
        if meter.is_empty() || meter.len() > 128 {
            return Err(Error::invalid(format!("meter `{meter}`: write a name of 1 to 128 bytes")));
        }
        let limit = whole(&limit)
            .ok_or_else(|| Error::invalid(format!("limit {limit}: write a whole number below 2^63; for no limit leave the rule out")))?;
        let burst =
            burst.map(|burst| whole(&burst).ok_or_else(|| Error::invalid(format!("burst {burst}: write a whole number below 2^63"))));
        let burst = burst.transpose()?;
        let zone = time_zone.as_deref().unwrap_or("UTC");
        let calendar = |text: &str| matches!(text, "minute" | "hour" | "day" | "week" | "month" | "year");
        let named = window.as_deref();
        let kind = kind.unwrap_or_else(|| match named {
            None => "cumulative".into(),
            Some(text) if calendar(text) => "calendar".into(),
            Some(_) => "fixed".into(),
        });
        let need = || named.ok_or_else(|| Error::invalid(format!("a quota of kind `{kind}` needs a `window`")));
        let span = match kind.as_str() {
            "fixed" => Span::Fixed(Span::length(need()?)?),
            "sliding" => Span::Sliding(Span::length(need()?)?),
            "gcra" => Span::Rate(Span::length(need()?)?),
            "calendar" => Span::calendar(need()?, zone)?,
            "concurrent" => Span::Held,
            "cumulative" => Span::Forever,
            // Money is counted in billionths of its currency; its meter names it (`cost:USD`).
            "money" => match named {
                None => Span::Forever,
                Some(text) if calendar(text) => Span::calendar(text, zone)?,
                Some(text) => Span::Fixed(Span::length(text)?),
            },
            _ => {
                return Err(Error::invalid(format!(
                    "quota kind `{kind}`: write `fixed`, `sliding`, `gcra`, `calendar`, `concurrent`, `cumulative` or `money`"
                )));
            }
        };
        if named.is_some() && matches!(span, Span::Held | Span::Forever) {
            return Err(Error::invalid(format!("a quota of kind `{kind}` has no `window`")));
        }
        if share == Share::Store && matches!(span, Span::Sliding(_) | Span::Rate(_)) {
            return Err(Error::invalid(format!("a quota of kind `{kind}` counts per process: leave out `share`, or use a fixed window")));
        }
        let share_of = |value: &Value| whole(value).and_then(|share| u8::try_from(share).ok()).filter(|share| *share <= 100);
        let soft = soft.map_or_else(|| Some(vec![50, 80, 100]), |soft| soft.iter().map(share_of).collect::<Option<Vec<u8>>>());
        let soft = soft
            .filter(|soft| soft.is_sorted())
            .ok_or_else(|| Error::invalid("`soft` must hold ascending percentages of at most 100".to_owned()))?;
        let window = match (&span, named) {
            (Span::Calendar(unit, _), _) if zone != "UTC" => format!("{} in {zone}", unit.name()),
            (Span::Held, _) => "at once".into(),
            (_, Some(text)) => text.to_owned(),
            (_, None) => "in all".into(),
        };
        Ok(Self { scope, meter, limit, span, burst: burst.unwrap_or(limit), soft, overage, share, window })
    }
}

/// A whole number from 0 to 2^63-1, as rules write it.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().filter(|number| *number <= i64::MAX as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_follows_from_the_window_where_it_is_not_given() {
        let rules = QuotaRule::parse_list(
            r#"[{"scope": "agent", "meter": "requests", "limit": 10, "window": "1m"},
                {"scope": "team:research", "meter": "requests", "limit": 100, "window": "day", "time_zone": "Europe/Zurich"},
                {"scope": "organisation", "meter": "cost:USD", "limit": 5, "kind": "money"}]"#,
        )
        .unwrap();
        assert_eq!(rules[0].span, Span::Fixed(60_000_000));
        assert!(matches!(rules[1].span, Span::Calendar(..)));
        assert_eq!(rules[1].window, "day in Europe/Zurich");
        assert_eq!(rules[2].span, Span::Forever);
    }

    #[test]
    fn a_bad_rule_is_named_with_what_to_write() {
        for (json, text) in [
            (r#"[{"scope": "x", "meter": "m", "limit": 1}]"#, "quota rule 1: invalid input: quota scope `x`"),
            (r#"[{"scope": "team", "meter": "m", "limit": 1, "kind": "gcra"}]"#, "needs a `window`"),
            (r#"[{"scope": "team", "meter": "m", "limit": 1, "kind": "concurrent", "window": "1m"}]"#, "has no `window`"),
            (
                r#"[{"scope": "team", "meter": "m", "limit": 1, "window": "1m", "time_zone": "Mars/X", "kind": "calendar"}]"#,
                "calendar window `1m`",
            ),
            (r#"[{"scope": "team", "meter": "m", "limit": -1}]"#, "quota rule 1: invalid input: limit -1: write a whole number below 2^63"),
            (r#"[{"scope": "team", "meter": "m", "limit": 1.5}]"#, "limit 1.5: write a whole number"),
            (r#"[{"scope": "team", "meter": "m", "limit": 9223372036854775808}]"#, "limit 9223372036854775808: write a whole number"),
            (r#"[{"scope": "team", "meter": "m", "limit": 1, "burst": -1}]"#, "burst -1: write a whole number"),
            (r#"[{"scope": "team", "meter": "m", "limit": 1, "soft": [50, 101]}]"#, "percentages of at most 100"),
            (r#"[{"scope": "team", "meter": "m"}]"#, "quota rule 1: invalid input: missing field `limit`"),
            (r#"[{"scope": "team", "meter": "m", "limit": 1, "colour": 2}]"#, "unknown field `colour`"),
            (
                r#"[{"scope": "team", "meter": "m", "limit": 1}, {"scope": "team:*", "meter": "m", "limit": 2}]"#,
                "there are two for `team:*`",
            ),
            (r#"[{"scope": "team", "meter": "m", "limit": 1, "kind": "gcra", "window": "1m", "share": "store"}]"#, "counts per process"),
        ] {
            let error = QuotaRule::parse_list(json).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
