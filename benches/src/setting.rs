//! The gate with everything behind it real: 1,000 policies, two meters at four levels, a ledger.

use creto_audit::{Ledger, Options};
use creto_authz::{Engine, Sources};
use creto_crypto::{SigningKey, Suite};
use creto_enablement_common::ports::Clock;
use creto_enablement_common::{Result, Value};
use creto_gate::{Act, Gate, Principal};
use creto_metering::{QuotaEnforcer, QuotaRule};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const SCHEMA: &str = r#"
entity Team; entity Agent in [Team]; entity Doc;
action "doc:read" appliesTo { principal: Agent, resource: Doc, context: {} };
action "doc:note" appliesTo { principal: Agent, resource: Doc, context: { amount: Long, purpose: String, urgent: Bool } };
"#;

/// The agent that acts.
pub const AGENT: &str = "spiffe://creto.local/agent/reader";

/// Where it stands: organisation, team, project, agent.
pub const PATH: [&str; 4] = ["org", "team", "project", "agent"];

/// What an act uses.
pub const USAGE: &[(&str, u64)] = &[("calls", 1), ("tokens", 700)];

const CONTEXT: &[(&str, Value<'_>)] = &[("amount", Value::Long(5)), ("purpose", Value::Str("survey")), ("urgent", Value::Bool(false))];

/// An act without a context.
pub const BARE: Act<'_> = Act { action: "doc:read", resource: "doc-1", context: &[], usage: USAGE };

/// An act with a context of three fields.
pub const FULL: Act<'_> = Act { action: "doc:note", resource: "doc-1", context: CONTEXT, usage: USAGE };

/// The parts and the gate over them, in a folder that goes when it is closed.
pub struct Setting {
    /// The policies.
    pub policy: Arc<Engine>,
    /// The quotas.
    pub quota: Arc<QuotaEnforcer>,
    /// The gate.
    pub gate: Gate,
    ledger: Arc<Ledger>,
    folder: PathBuf,
}

impl Setting {
    /// Sets it up in `folder`, by a clock.
    ///
    /// # Errors
    /// Whatever keeps a part from starting.
    pub fn open(folder: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let ledger = Ledger::open(&folder.join("ledger"), &*clock, SigningKey::generate(Suite::Standard)?, Options::default())?;
        let quota = Arc::new(QuotaEnforcer::new(QuotaRule::parse_list(&rules())?, Duration::from_secs(60)));
        let policy = Arc::new(Engine::new());
        policy.install(&Sources { policies: &policies(), schema: Some(SCHEMA), entities: "" })?;
        let gate = Gate::new(policy.clone(), quota.clone(), ledger.clone(), clock);
        Ok(Self { policy, quota, gate, ledger, folder: folder.to_owned() })
    }

    /// The agent, acting for nobody.
    ///
    /// # Errors
    /// What the gate says against it.
    pub fn alone(&self) -> Result<Arc<Principal>> {
        self.gate.principal(AGENT, &PATH, &[])
    }

    /// The agent at the end of a chain of four links, each narrowed by a compiled attenuation.
    ///
    /// # Errors
    /// What the gate says against it.
    pub fn chained(&self) -> Result<Arc<Principal>> {
        let links: Vec<String> = (0..4).map(|n| format!("spiffe://creto.local/agent/link-{n}")).collect();
        let four: Vec<_> = links.iter().map(|link| (link.as_str(), Some("permit (principal, action, resource);"))).collect();
        self.gate.principal(AGENT, &PATH, &four)
    }

    /// Ends it and removes its folder.
    ///
    /// # Errors
    /// What the ledger says when it is closed, or the disk.
    pub fn close(self) -> Result<()> {
        self.ledger.close()?;
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }
}

fn rules() -> String {
    let scopes = ["organisation:org", "team:team", "agent:project", "agent:agent"];
    let rule =
        |scope: &str, meter: &str| serde_json::json!({"scope": scope, "meter": meter, "limit": 1_000_000_000_000_000_u64, "window": "30d"});
    serde_json::Value::from_iter(scopes.iter().flat_map(|scope| ["calls", "tokens"].map(|meter| rule(scope, meter)))).to_string()
}

fn policies() -> String {
    let mut text = String::new();
    for n in 0..1_000 {
        let agent = if n % 250 == 0 { AGENT.to_owned() } else { format!("spiffe://creto.local/agent/other-{n}") };
        text += &format!(
            "@id(\"p{n}\") @audit(\"after\") permit (principal == Agent::\"{agent}\", action in [Action::\"doc:read\", Action::\"doc:note\"], resource);\n"
        );
    }
    for n in 0..4 {
        text += &format!(
            "@id(\"link{n}\") @audit(\"after\") permit (principal == Agent::\"spiffe://creto.local/agent/link-{n}\", action, resource);\n"
        );
    }
    text
}
