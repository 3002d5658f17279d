//! The section `[metering]`.

use creto_enablement_common::{ConfigError, EnablementConfig};
use serde::Deserialize;

/// How long units are lent, and how often usage is aggregated.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct MeteringConfig {
    /// The life of a lease of quota units.
    pub quota_cache_ttl_seconds: f64,
    /// How often usage is aggregated.
    pub aggregation_interval_seconds: f64,
    /// Where calendar windows and billing periods begin.
    pub time_zone: String,
}

impl Default for MeteringConfig {
    fn default() -> Self {
        Self { quota_cache_ttl_seconds: 60.0, aggregation_interval_seconds: 300.0, time_zone: "UTC".into() }
    }
}

impl EnablementConfig for MeteringConfig {
    const SECTION: &'static str = "metering";

    fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |setting: &str, problem: String| Err(ConfigError { setting: format!("metering.{setting}"), problem });
        for (name, value) in
            [("quota_cache_ttl_seconds", self.quota_cache_ttl_seconds), ("aggregation_interval_seconds", self.aggregation_interval_seconds)]
        {
            if !(value > 0.0 && value.is_finite()) {
                return wrong(name, format!("{value} is no length of time"));
            }
        }
        // The quota engine's own list of time zones is what counts, not that of whoever reads the file.
        if let Err(error) = jiff::tz::TimeZone::get(&self.time_zone) {
            return wrong("time_zone", format!("`{}` is no time zone: {error}", self.time_zone));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_specifications_and_a_wrong_setting_is_named() {
        assert_eq!(MeteringConfig::default().validate(), Ok(()));
        let wrong = MeteringConfig { quota_cache_ttl_seconds: f64::NAN, ..MeteringConfig::default() };
        assert_eq!(wrong.validate().unwrap_err().to_string(), "`metering.quota_cache_ttl_seconds`: NaN is no length of time");
        let wrong = MeteringConfig { time_zone: "Mars/Base".into(), ..MeteringConfig::default() };
        assert_eq!(wrong.validate().unwrap_err().setting, "metering.time_zone");
    }
}
