//! The section `[runtime]` of the configuration, and the limits of one sandbox.

use creto_enablement_common::{ConfigError, EnablementConfig};
use serde::{Deserialize, Serialize};

/// What one sandbox may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes that may be written to the working folder.
    pub disk: u64,
    /// Bytes of `/tmp`, and of the home, each.
    pub scratch: u64,
    /// Bytes of memory: of each process, and of the whole sandbox where the machine has control groups.
    pub memory: u64,
    /// Processes and threads inside.
    pub processes: u32,
    /// Open files of one process.
    pub files: u32,
    /// Processors, in thousandths; 0 is no limit.
    pub cpu_milli: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { disk: 1 << 30, scratch: 256 << 20, memory: 4 << 30, processes: 512, files: 4096, cpu_milli: 0 }
    }
}

/// The section `[runtime]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// `gvisor` or `process`.
    pub default_backend: String,
    /// Sandboxes that wait started.
    pub warm_pool_min_size: u32,
    /// Sandboxes at all, claimed ones included.
    pub warm_pool_max_size: u32,
    /// Of each sandbox.
    pub limits: Limits,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self { default_backend: "gvisor".into(), warm_pool_min_size: 10, warm_pool_max_size: 100, limits: Limits::default() }
    }
}

impl EnablementConfig for RuntimeConfig {
    const SECTION: &'static str = "runtime";

    fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |setting: &str, problem: String| Err(ConfigError { setting: format!("runtime.{setting}"), problem });
        if !crate::backend::NAMES.contains(&self.default_backend.as_str()) {
            return wrong("default_backend", format!("`{}` is no backend; known are {}", self.default_backend, crate::backend::NAMES.join(", ")));
        }
        if self.warm_pool_max_size == 0 || self.warm_pool_min_size > self.warm_pool_max_size {
            return wrong(
                "warm_pool_min_size",
                format!("{} is more than `runtime.warm_pool_max_size`, {}", self.warm_pool_min_size, self.warm_pool_max_size),
            );
        }
        if self.limits.disk < 1 << 20 || self.limits.scratch < 1 << 20 {
            return wrong("limits", "`disk` and `scratch` have to be 1 MiB at least".into());
        }
        if self.limits.memory < 64 << 20 {
            return wrong("limits.memory", "has to be 64 MiB at least, or nothing starts".into());
        }
        if self.limits.processes < 8 || self.limits.files < 32 {
            return wrong("limits", "`processes` has to be 8 at least and `files` 32, or nothing starts".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_a_wrong_setting_is_named() {
        assert_eq!(RuntimeConfig::default().validate(), Ok(()));
        let wrong = RuntimeConfig { default_backend: "docker".into(), ..RuntimeConfig::default() };
        assert_eq!(
            wrong.validate().unwrap_err().to_string(),
            "`runtime.default_backend`: `docker` is no backend; known are gvisor, process"
        );
        let wrong = RuntimeConfig { warm_pool_min_size: 5, warm_pool_max_size: 4, ..RuntimeConfig::default() };
        assert_eq!(wrong.validate().unwrap_err().setting, "runtime.warm_pool_min_size");
    }
}
