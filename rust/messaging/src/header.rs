//! The header fields of a message: one copy, under the authentication tag and under the signatures.

use crate::time;
use creto_crypto::Suite;
use creto_crypto::asn1::{self, Walk};
use creto_enablement_common::{AgentId, Error, Result};

/// Most recipients of one message.
pub const MAX_RECIPIENTS: usize = 64;
/// Most bytes of one field's value.
const MAX_VALUE: usize = 256;
const ENUMERATED: u8 = 0x0a;
const VISIBLE_STRING: u8 = 0x1a;

/// How soon a message wants to be read; RFC 2156's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// After the others.
    NonUrgent,
    /// In order.
    #[default]
    Normal,
    /// Before the others.
    Urgent,
}

impl Priority {
    const ALL: [Self; 3] = [Self::NonUrgent, Self::Normal, Self::Urgent];

    /// The word in the header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NonUrgent => "non-urgent",
            Self::Normal => "normal",
            Self::Urgent => "urgent",
        }
    }

    /// The priority of that name.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|priority| priority.name() == name)
            .ok_or_else(|| Error::invalid(format!("`{name}` is not a priority; write `non-urgent`, `normal` or `urgent`")))
    }
}

/// The header fields, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who wrote it.
    pub from: AgentId,
    /// Whom it is for.
    pub to: Vec<AgentId>,
    /// 16 random bytes.
    pub message_id: [u8; 16],
    /// When it was written, in seconds since the epoch.
    pub date: u64,
    /// When it stops to count, in seconds since the epoch.
    pub expires: u64,
    /// The media type of the content.
    pub content_type: String,
    /// The message that it answers.
    pub in_reply_to: Option<[u8; 16]>,
    /// How soon it wants to be read.
    pub priority: Priority,
    /// The suite that it was made with.
    pub suite: Suite,
    /// Digest of the delegation chain that its writer acts under.
    pub chain: Option<[u8; 32]>,
    /// What binds the content-encryption key, so that one ciphertext has one reading.
    pub commitment: [u8; 32],
}

/// Reads lower-case hexadecimal of an exact length.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    (base16ct::lower::decode(text, &mut out).ok()?.len() == N).then_some(out)
}

fn put_field(out: &mut Vec<u8>, name: &str, value: &str) -> Result<()> {
    if value.is_empty() || value.len() > MAX_VALUE || value.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "the header field `{name}` of a message must have 1 to {MAX_VALUE} bytes and no control characters, and has {} bytes",
            value.len()
        )));
    }
    let content = asn1::element_len(name.len()) + asn1::element_len(value.len());
    asn1::put_header(out, asn1::SEQUENCE, content);
    asn1::put(out, VISIBLE_STRING, name.as_bytes());
    asn1::put(out, asn1::UTF8_STRING, value.as_bytes());
    Ok(())
}

impl Header {
    /// The fields as DER: RFC 7508's SecureHeaderFields, canonicalized as `simple`.
    pub fn encode(&self) -> Result<Vec<u8>> {
        if self.to.is_empty() || self.to.len() > MAX_RECIPIENTS {
            return Err(Error::invalid(format!("a message has 1 to {MAX_RECIPIENTS} recipients, and this one {}", self.to.len())));
        }
        if self.expires <= self.date {
            return Err(Error::invalid("a message must expire after it is written"));
        }
        let mut fields = Vec::with_capacity(512 + 64 * self.to.len());
        put_field(&mut fields, "From", self.from.as_str())?;
        for to in &self.to {
            put_field(&mut fields, "To", to.as_str())?;
        }
        put_field(&mut fields, "Message-ID", &base16ct::lower::encode_string(&self.message_id))?;
        put_field(&mut fields, "Date", &time::format(self.date)?)?;
        put_field(&mut fields, "Expires", &time::format(self.expires)?)?;
        put_field(&mut fields, "Content-Type", &self.content_type)?;
        if let Some(id) = &self.in_reply_to {
            put_field(&mut fields, "In-Reply-To", &base16ct::lower::encode_string(id))?;
        }
        put_field(&mut fields, "Priority", self.priority.name())?;
        put_field(&mut fields, "Creto-Suite", self.suite.name())?;
        if let Some(chain) = &self.chain {
            put_field(&mut fields, "Creto-Chain", &base16ct::lower::encode_string(chain))?;
        }
        put_field(&mut fields, "Creto-CEK-Commitment", &base16ct::lower::encode_string(&self.commitment))?;
        let mut out = Vec::with_capacity(fields.len() + 16);
        asn1::put_header(&mut out, asn1::SET, 3 + asn1::element_len(fields.len()));
        asn1::put(&mut out, ENUMERATED, &[0]);
        asn1::put(&mut out, asn1::SEQUENCE, &fields);
        Ok(out)
    }

    /// Reads them back: every field in its one place and at most once, and no other.
    pub fn decode(der: &[u8]) -> Result<Self> {
        let mut set = Walk::only(der, asn1::SET)?.walk()?;
        set.exactly(&[ENUMERATED, 1, 0])?;
        let fields = set.expect(asn1::SEQUENCE)?;
        set.finish()?;
        let mut fields = Fields { walk: fields.walk()?, next: None };
        let agent = |text: &str| AgentId::parse(text).map_err(Error::invalid);
        let from = agent(fields.required("From")?)?;
        let mut to = Vec::new();
        while let Some(text) = fields.optional("To")? {
            to.push(agent(text)?);
            if to.len() > MAX_RECIPIENTS {
                return Err(Error::invalid(format!("a message has at most {MAX_RECIPIENTS} recipients")));
            }
        }
        let header = Self {
            from,
            to,
            message_id: bytes("Message-ID", fields.required("Message-ID")?)?,
            date: time::parse(fields.required("Date")?)?,
            expires: time::parse(fields.required("Expires")?)?,
            content_type: fields.required("Content-Type")?.to_owned(),
            in_reply_to: fields.optional("In-Reply-To")?.map(|text| bytes("In-Reply-To", text)).transpose()?,
            priority: Priority::parse(fields.required("Priority")?)?,
            suite: Suite::parse(fields.required("Creto-Suite")?)?,
            chain: fields.optional("Creto-Chain")?.map(|text| bytes("Creto-Chain", text)).transpose()?,
            commitment: bytes("Creto-CEK-Commitment", fields.required("Creto-CEK-Commitment")?)?,
        };
        if fields.peek()?.is_some() {
            return Err(Error::invalid("the message has a header field too many, or one out of its place"));
        }
        if header.expires <= header.date {
            return Err(Error::invalid("the message expires before it is written"));
        }
        Ok(header)
    }
}

fn bytes<const N: usize>(name: &str, text: &str) -> Result<[u8; N]> {
    unhex(text).ok_or_else(|| Error::invalid(format!("the header field `{name}` is not {N} bytes in lower-case hexadecimal")))
}

struct Fields<'a> {
    walk: Walk<'a>,
    next: Option<(&'a [u8], &'a str)>,
}

impl<'a> Fields<'a> {
    fn peek(&mut self) -> Result<Option<(&'a [u8], &'a str)>> {
        if self.next.is_none() && !self.walk.is_finished() {
            let mut field = self.walk.expect(asn1::SEQUENCE)?.walk()?;
            let name = field.expect(VISIBLE_STRING)?.content;
            let value = field.expect(asn1::UTF8_STRING)?.content;
            field.finish()?;
            let value = core::str::from_utf8(value).map_err(|_| Error::invalid("a header field of the message is not UTF-8"))?;
            if value.is_empty() || value.len() > MAX_VALUE || value.chars().any(char::is_control) {
                return Err(Error::invalid("a header field of the message is empty, too long or holds control characters"));
            }
            self.next = Some((name, value));
        }
        Ok(self.next)
    }

    fn optional(&mut self, name: &str) -> Result<Option<&'a str>> {
        match self.peek()? {
            Some((found, value)) if found == name.as_bytes() => {
                self.next = None;
                Ok(Some(value))
            }
            _ => Ok(None),
        }
    }

    fn required(&mut self, name: &str) -> Result<&'a str> {
        self.optional(name)?.ok_or_else(|| Error::invalid(format!("the message has no header field `{name}` in its place")))
    }
}
