//! The section `[common]`.

use crate::config::{ConfigError, EnablementConfig};
use serde::Deserialize;

/// What every part shares.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CommonConfig {
    /// The SPIFFE trust domain that agents and approvers are named in.
    pub trust_domain: String,
    /// Where decisions are made: `embedded:`, or a server.
    pub authz_endpoint: String,
    /// Where the ledger is: `embedded:`, or a server.
    pub audit_endpoint: String,
}

impl Default for CommonConfig {
    fn default() -> Self {
        Self { trust_domain: "creto.local".into(), authz_endpoint: "embedded:".into(), audit_endpoint: "embedded:".into() }
    }
}

impl EnablementConfig for CommonConfig {
    const SECTION: &'static str = "common";

    fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |setting: &str, problem: String| Err(ConfigError { setting: format!("common.{setting}"), problem });
        for (name, endpoint) in [("authz_endpoint", &self.authz_endpoint), ("audit_endpoint", &self.audit_endpoint)] {
            if endpoint != "embedded:" {
                return wrong(name, format!("only `embedded:` works in this version; `{endpoint}` needs the server's client"));
            }
        }
        if crate::AgentId::agent(&self.trust_domain, "a").is_err() {
            return wrong(
                "trust_domain",
                format!("`{}` is no SPIFFE trust domain: lower-case letters, digits, `.`, `-` and `_`", self.trust_domain),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_refused_until_there_is_a_client_for_it() {
        assert_eq!(CommonConfig::default().validate(), Ok(()));
        let wrong = CommonConfig { authz_endpoint: "grpc://host:1".into(), ..CommonConfig::default() };
        assert_eq!(
            wrong.validate().unwrap_err().to_string(),
            "`common.authz_endpoint`: only `embedded:` works in this version; `grpc://host:1` needs the server's client"
        );
        let wrong = CommonConfig { trust_domain: "Not A Domain".into(), ..CommonConfig::default() };
        assert_eq!(wrong.validate().unwrap_err().setting, "common.trust_domain");
    }
}
