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

    /// Line and column, from one, of the finding in the text of these lines.
    pub fn position(&self, lines: &Lines<'_>) -> Option<(usize, usize)> {
        lines.place(self.span?.0)
    }
}

/// Where the lines of a text begin, so that many findings in a long one are placed without reading it for each.
pub struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// The lines of a text.
    pub fn of(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    fn place(&self, offset: usize) -> Option<(usize, usize)> {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = *self.starts.get(line.checked_sub(1)?)?;
        Some((line, self.text.get(start..offset)?.chars().count() + 1))
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
