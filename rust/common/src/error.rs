//! One error for every part: a kind, what was being tried, and the cause; one machine word wide.

use core::fmt;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::time::Duration;

/// The result of anything that can fail.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such thing.
    NotFound,
    /// There is one already.
    AlreadyExists,
    /// The input has no valid reading; the text says what, where and what to do.
    InvalidInput(String),
    /// Policy, or the lack of one, forbids it.
    Unauthorized,
    /// A quota has no room for it.
    QuotaExceeded {
        /// What the quota allows in its window, in units of its meter.
        limit: u64,
        /// What is used or held already.
        used: u64,
    },
    /// A human has to agree first.
    OversightRequired {
        /// The first policy that asks, in sorted order.
        policy_id: String,
    },
    /// A sandbox did not start.
    SandboxSpawnFailed,
    /// An attestation does not hold.
    AttestationFailed,
    /// A connection out of a sandbox was refused.
    EgressDenied {
        /// Where it wanted to go, `host:port`.
        destination: String,
    },
    /// Sealing or opening failed.
    EncryptionFailed,
    /// A signature is missing, added or not valid.
    SignatureVerificationFailed,
    /// A message may not be sent or received.
    DeliveryDenied,
    /// A deadline passed.
    Timeout,
    /// A peer or server could not be reached.
    ConnectionFailed,
    /// A fault of ours, or of the machine.
    Internal,
    /// Stored data contradicts its own proof.
    Integrity,
    /// The process was forked since this handle was made.
    Forked,
    /// The ledger cannot take more: the disk or the queue is full.
    LedgerFull,
}

/// How a caller should treat an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// May pass if tried again.
    Transient,
    /// Refused by policy, quota, egress or delivery rules.
    Authorization,
    /// Waits for a human.
    Oversight,
    /// Trying again changes nothing.
    Permanent,
}

impl ErrorKind {
    /// The name, as in the specification; Python's exception classes are named `<name>Error`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::InvalidInput(_) => "InvalidInput",
            Self::Unauthorized => "Unauthorized",
            Self::QuotaExceeded { .. } => "QuotaExceeded",
            Self::OversightRequired { .. } => "OversightRequired",
            Self::SandboxSpawnFailed => "SandboxSpawnFailed",
            Self::AttestationFailed => "AttestationFailed",
            Self::EgressDenied { .. } => "EgressDenied",
            Self::EncryptionFailed => "EncryptionFailed",
            Self::SignatureVerificationFailed => "SignatureVerificationFailed",
            Self::DeliveryDenied => "DeliveryDenied",
            Self::Timeout => "Timeout",
            Self::ConnectionFailed => "ConnectionFailed",
            Self::Internal => "Internal",
            Self::Integrity => "Integrity",
            Self::Forked => "Forked",
            Self::LedgerFull => "LedgerFull",
        }
    }

    /// How to treat it.
    pub const fn category(&self) -> Category {
        match self {
            Self::Timeout | Self::ConnectionFailed | Self::SandboxSpawnFailed => Category::Transient,
            Self::Unauthorized | Self::QuotaExceeded { .. } | Self::EgressDenied { .. } | Self::DeliveryDenied => Category::Authorization,
            Self::OversightRequired { .. } => Category::Oversight,
            _ => Category::Permanent,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::AlreadyExists => f.write_str("already exists"),
            Self::InvalidInput(what) => write!(f, "invalid input: {what}"),
            Self::Unauthorized => f.write_str("not authorized"),
            Self::QuotaExceeded { limit, used } => write!(f, "quota exceeded: {used} of {limit} used"),
            Self::OversightRequired { policy_id } => write!(f, "a human has to agree first (policy `{policy_id}`)"),
            Self::SandboxSpawnFailed => f.write_str("the sandbox did not start"),
            Self::AttestationFailed => f.write_str("the attestation does not hold"),
            Self::EgressDenied { destination } => write!(f, "connection to `{destination}` denied"),
            Self::EncryptionFailed => f.write_str("sealing or opening failed"),
            Self::SignatureVerificationFailed => f.write_str("the signature is not valid"),
            Self::DeliveryDenied => f.write_str("the message may not be delivered"),
            Self::Timeout => f.write_str("the deadline passed"),
            Self::ConnectionFailed => f.write_str("the connection failed"),
            Self::Internal => f.write_str("internal fault"),
            Self::Integrity => f.write_str("stored data contradicts its proof"),
            Self::Forked => f.write_str("the process was forked since this was opened; open it again in the child"),
            Self::LedgerFull => f.write_str("the ledger cannot take more"),
        }
    }
}

/// When to try again, for whoever does the trying.
pub trait RetryPolicy {
    /// True where trying again may help.
    fn should_retry(&self) -> bool;
    /// How long to wait at least, where that is known.
    fn retry_after(&self) -> Option<Duration>;
}

/// An error: its kind, what was being tried (innermost first), and its cause.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    context: Vec<Cow<'static, str>>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind, with no context yet.
    pub fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Inner { kind, context: Vec::new(), retry_after: None, source: None }))
    }

    /// Input with no valid reading: say what, where and what to do.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput(what.into()))
    }

    /// A fault of ours or of the machine.
    pub fn internal(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Internal).with_context(what)
    }

    /// Adds what was being tried, as `opening the ledger in `/x``.
    #[must_use]
    pub fn with_context(mut self, what: impl Into<Cow<'static, str>>) -> Self {
        self.0.context.push(what.into());
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Sets how long to wait before another try can succeed.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// How to treat it.
    pub fn category(&self) -> Category {
        self.0.kind.category()
    }

    /// What was being tried, innermost first.
    pub fn context(&self) -> impl Iterator<Item = &str> {
        self.0.context.iter().map(AsRef::as_ref)
    }

    /// This error's text and those of its causes, outermost first.
    pub fn chain(&self) -> impl Iterator<Item = String> + '_ {
        let mut next: Option<&(dyn StdError + 'static)> = Some(self);
        core::iter::from_fn(move || {
            let current = next?;
            next = current.source();
            Some(current.to_string())
        })
    }
}

impl RetryPolicy for Error {
    fn should_retry(&self) -> bool {
        self.category() == Category::Transient
    }

    fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for what in self.0.context.iter().rev() {
            write!(f, "{what}: ")?;
        }
        self.0.kind.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error").field("kind", &self.0.kind).field("context", &self.0.context).field("source", &self.0.source).finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|s| &**s as &(dyn StdError + 'static))
    }
}

impl From<creto_crypto::Error> for Error {
    fn from(error: creto_crypto::Error) -> Self {
        let kind = match &error {
            creto_crypto::Error::Signature => ErrorKind::SignatureVerificationFailed,
            creto_crypto::Error::Decryption => ErrorKind::EncryptionFailed,
            creto_crypto::Error::Malformed(what) => ErrorKind::InvalidInput(what.clone()),
            _ => ErrorKind::Internal,
        };
        Self::new(kind).with_source(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::AlreadyExists => ErrorKind::AlreadyExists,
            Io::TimedOut => ErrorKind::Timeout,
            Io::ConnectionRefused | Io::ConnectionReset | Io::ConnectionAborted | Io::NotConnected | Io::BrokenPipe => {
                ErrorKind::ConnectionFailed
            }
            _ => ErrorKind::Internal,
        };
        Self::new(kind).with_context(error.to_string()).with_source(error)
    }
}

/// Adds context to the error of a result.
pub trait ResultExt<T> {
    /// Says what was being tried, if it failed.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for core::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.into().with_context(what()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_word_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }

    #[test]
    fn the_text_reads_from_the_outside_in_and_the_chain_names_the_cause() {
        let io = std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer");
        let error = Error::from(io).with_context("asking `authz`").with_context("performing `http:get`");
        assert_eq!(error.to_string(), "performing `http:get`: asking `authz`: no answer: the deadline passed");
        assert_eq!(error.chain().last().as_deref(), Some("no answer"));
        assert!(error.should_retry());
    }
}
