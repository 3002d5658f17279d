//! The section `[messaging]`.

use creto_enablement_common::{ConfigError, EnablementConfig};
use serde::Deserialize;

/// The most that one plaintext may hold whatever is configured: a message is opened in memory.
const MOST: u64 = 1 << 30;

/// How long a delivery may take, and how much one message may hold.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct MessagingConfig {
    /// How long a sender waits for the recipient's receipt, where it asks for one.
    pub delivery_timeout_seconds: f64,
    /// The largest plaintext.
    pub max_message_size_bytes: u64,
}

impl Default for MessagingConfig {
    fn default() -> Self {
        Self { delivery_timeout_seconds: 30.0, max_message_size_bytes: 1 << 20 }
    }
}

impl EnablementConfig for MessagingConfig {
    const SECTION: &'static str = "messaging";

    fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |setting: &str, problem: String| Err(ConfigError { setting: format!("messaging.{setting}"), problem });
        if !(self.delivery_timeout_seconds > 0.0 && self.delivery_timeout_seconds.is_finite()) {
            return wrong("delivery_timeout_seconds", format!("{} is no length of time", self.delivery_timeout_seconds));
        }
        if !(1..=MOST).contains(&self.max_message_size_bytes) {
            return wrong("max_message_size_bytes", format!("{} is not between 1 and {MOST}", self.max_message_size_bytes));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_specifications_and_a_wrong_setting_is_named() {
        assert_eq!(MessagingConfig::default().validate(), Ok(()));
        let wrong = MessagingConfig { max_message_size_bytes: 0, ..MessagingConfig::default() };
        assert_eq!(wrong.validate().unwrap_err().to_string(), "`messaging.max_message_size_bytes`: 0 is not between 1 and 1073741824");
    }
}
