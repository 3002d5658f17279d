//! The section `[oversight]`.

use creto_enablement_common::{ConfigError, EnablementConfig};
use serde::Deserialize;

/// How long a human has, and how they are told.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct OversightConfig {
    /// How long a request waits for an answer.
    pub default_timeout_seconds: f64,
    /// The SMTP server that sends announcements.
    pub email_smtp_host: Option<String>,
    /// Who they are from.
    pub email_from: Option<String>,
}

impl Default for OversightConfig {
    fn default() -> Self {
        Self { default_timeout_seconds: 3600.0, email_smtp_host: None, email_from: None }
    }
}

impl EnablementConfig for OversightConfig {
    const SECTION: &'static str = "oversight";

    fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |setting: &str, problem: String| Err(ConfigError { setting: format!("oversight.{setting}"), problem });
        if !(self.default_timeout_seconds > 0.0 && self.default_timeout_seconds.is_finite()) {
            return wrong("default_timeout_seconds", format!("{} is no length of time", self.default_timeout_seconds));
        }
        if self.email_smtp_host.is_some() && self.email_from.is_none() {
            return wrong("email_from", "`oversight.email_smtp_host` is set, so a sender's address is needed too".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_specifications_and_a_wrong_setting_is_named() {
        assert_eq!(OversightConfig::default().validate(), Ok(()));
        let wrong = OversightConfig { default_timeout_seconds: 0.0, ..OversightConfig::default() };
        assert_eq!(wrong.validate().unwrap_err().to_string(), "`oversight.default_timeout_seconds`: 0 is no length of time");
        let wrong = OversightConfig { email_smtp_host: Some("mail".into()), ..OversightConfig::default() };
        assert_eq!(wrong.validate().unwrap_err().setting, "oversight.email_from");
    }
}
