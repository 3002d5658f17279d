//! The section `[runtime]` of the configuration, and the limits of one sandbox.

use creto_enablement_common::{ConfigError, EnablementConfig};
use serde::{Deserialize, Serialize};

/// What one sandbox may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Bytes that may be written to the working folder.
    pub disk: u64,
    /// Bytes of `/tmp`.
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

/// The section `[runtime]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeConfig {
    /// `gvisor` or `process`.
    pub default_backend: String,
    /// Sandboxes that wait started.
    pub warm_pool_min_size: u32,
    /// Sandboxes at all, claimed ones included.
    pub warm_pool_max_size: u32,
    /// `Limits::memory`
    pub memory_limit_bytes: u64,
    /// `Limits::disk`
    pub disk_limit_bytes: u64,
    /// `Limits::scratch`
    pub scratch_limit_bytes: u64,
    /// `Limits::processes`
    pub max_processes: u32,
    /// `Limits::files`
    pub max_open_files: u32,
    /// `Limits::cpu_milli`
    pub cpu_limit_milli: u32,
}

impl RuntimeConfig {
    /// What each sandbox may use.
    pub fn limits(&self) -> Limits {
        Limits {
            disk: self.disk_limit_bytes,
            scratch: self.scratch_limit_bytes,
            memory: self.memory_limit_bytes,
            processes: self.max_processes,
            files: self.max_open_files,
            cpu_milli: self.cpu_limit_milli,
        }
    }
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            default_backend: "gvisor".into(),
            warm_pool_min_size: 10,
            warm_pool_max_size: 100,
            memory_limit_bytes: 4 << 30,
            disk_limit_bytes: 1 << 30,
            scratch_limit_bytes: 256 << 20,
            max_processes: 512,
            max_open_files: 4096,
            cpu_limit_milli: 0,
        }
    }
}

impl EnablementConfig for RuntimeConfig {
    const SECTION: &'static str = "runtime";

    fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |setting: &str, problem: String| Err(ConfigError { setting: format!("runtime.{setting}"), problem });
        if !crate::backend::NAMES.contains(&self.default_backend.as_str()) {
            return wrong(
                "default_backend",
                format!("`{}` is no backend; known are {}", self.default_backend, crate::backend::NAMES.join(", ")),
            );
        }
        if self.warm_pool_max_size == 0 || self.warm_pool_min_size > self.warm_pool_max_size {
            return wrong(
                "warm_pool_min_size",
                format!("{} is more than `runtime.warm_pool_max_size`, {}", self.warm_pool_min_size, self.warm_pool_max_size),
            );
        }
        for (name, value, least) in [
            ("disk_limit_bytes", self.disk_limit_bytes, 1 << 20),
            ("scratch_limit_bytes", self.scratch_limit_bytes, 1 << 20),
            ("memory_limit_bytes", self.memory_limit_bytes, 64 << 20),
            ("max_processes", self.max_processes.into(), 8),
            ("max_open_files", self.max_open_files.into(), 32),
        ] {
            if value < least {
                return wrong(name, format!("{value} is too little for anything to start; {least} is the least"));
            }
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
