//! What every section of the configuration can do.

use core::fmt;

/// A setting that cannot be used, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Dotted name, `runtime.warm_pool_min_size`.
    pub setting: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.setting, self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// A section of the configuration.
pub trait EnablementConfig: serde::de::DeserializeOwned + Default {
    /// The section's name in files.
    const SECTION: &'static str;
    /// Refuses values that cannot work together, naming the setting.
    fn validate(&self) -> Result<(), ConfigError>;
}
