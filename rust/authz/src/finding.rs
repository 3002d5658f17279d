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
    pub fn from_diagnostic(severity: Severity, rule: &'static str, policy: Option<String>, found: &dyn Diagnostic) -> Self {
        let label = found.labels().and_then(|mut labels| labels.next());
        let mut message = with_causes_of(found);
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

fn with_causes_of(found: &dyn Diagnostic) -> String {
    let mut text = found.to_string();
    let mut next = std::error::Error::source(found);
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// An error's text with those of its causes, which cedar-policy keeps apart.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
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
