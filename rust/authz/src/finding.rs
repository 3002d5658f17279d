//! What is wrong with a text, and where.

use core::fmt;
use miette::Diagnostic;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The set is not installed.
    Error,
    /// It is, but probably does not mean what it says.
    Warning,
}

/// One thing found in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A short name of the rule, `parse`, `type`, `shadowed`.
    pub rule: &'static str,
    /// The policy it is about, where there is one.
    pub policy: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// Byte offset and length in the text, where known.
    pub span: Option<(usize, usize)>,
}

impl Finding {
    /// A finding from one of cedar-policy's diagnostics.
    pub fn from_diagnostic(severity: Severity, rule: &'static str, policy: Option<String>, found: &(impl Diagnostic + ?Sized)) -> Self {
        let label = found.labels().and_then(|mut labels| labels.next());
        let mut message = found.to_string();
        if let Some(text) = label.as_ref().and_then(|label| label.label()) {
            message = format!("{message} ({text})");
        }
        Self {
            severity,
            rule,
            policy,
            message,
            help: found.help().map(|help| help.to_string()),
            span: label.map(|label| (label.offset(), label.len())),
        }
    }

    /// Line and column, from one, of the finding in `text`.
    pub fn position(&self, text: &str) -> Option<(usize, usize)> {
        let (offset, _) = self.span?;
        let before = text.get(..offset)?;
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Some((before.matches('\n').count() + 1, before.get(line_start..)?.chars().count() + 1))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, "; {help}")?;
        }
        Ok(())
    }
}
