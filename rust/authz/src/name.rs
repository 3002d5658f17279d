//! Entities as text: `Type::"id"`, or a bare id whose type the action's schema settles.

use creto_enablement_common::{Error, Result};
use std::borrow::Cow;

/// An entity's type and id, borrowed where the text allows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntityName<'a> {
    /// The type, such as `Url` or `Files::Path`.
    pub kind: &'a str,
    /// The id, with Cedar's escapes resolved.
    pub id: Cow<'a, str>,
}

/// Splits `Type::"id"`; none where the text is a bare id.
///
/// Only text that is wholly of that form counts: a type of identifiers, `::`, and one quoted string to the end.
///
/// # Errors
/// `InvalidInput` where the form is right but an escape in the id is not.
#[inline]
pub fn parse_entity(text: &str) -> Result<Option<EntityName<'_>>> {
    // A bare id seldom ends in a quote, and is settled by one look.
    if text.ends_with('"') { parse_quoted(text) } else { Ok(None) }
}

fn parse_quoted(text: &str) -> Result<Option<EntityName<'_>>> {
    let Some(quote) = text.find('"') else { return Ok(None) };
    let Some((head, tail)) = text.split_at_checked(quote) else { return Ok(None) };
    let Some(kind) = head.strip_suffix("::") else { return Ok(None) };
    if !is_type(kind) {
        return Ok(None);
    }
    let Some(inner) = tail.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else { return Ok(None) };
    if !inner.contains(['\\', '"']) {
        return Ok(Some(EntityName { kind, id: Cow::Borrowed(inner) }));
    }
    let mut id = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => return Ok(None),
            '\\' => id.push(escape(&mut rest).ok_or_else(|| {
                Error::invalid(format!(
                    "`{text}`: an escape in the id is not one of Cedar's (\\n \\r \\t \\\\ \\0 \\' \\\" \\xNN \\u{{N}})"
                ))
            })?),
            other => id.push(other),
        }
    }
    Ok(Some(EntityName { kind, id: Cow::Owned(id) }))
}

fn escape(rest: &mut std::str::Chars<'_>) -> Option<char> {
    match rest.next()? {
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        '0' => Some('\0'),
        c @ ('\\' | '\'' | '"') => Some(c),
        'x' => {
            let code = rest.next()?.to_digit(16)? * 16 + rest.next()?.to_digit(16)?;
            if code < 0x80 { char::from_u32(code) } else { None }
        }
        'u' => {
            if rest.next()? != '{' {
                return None;
            }
            let mut code = 0_u32;
            for count in 0.. {
                match rest.next()? {
                    '}' if count > 0 => break,
                    digit if count < 6 => code = code * 16 + digit.to_digit(16)?,
                    _ => return None,
                }
            }
            char::from_u32(code)
        }
        _ => None,
    }
}

/// Whether a text is identifiers with `::` between them; some of these are words that Cedar keeps for itself.
pub fn is_type(text: &str) -> bool {
    text.split("::").all(is_identifier)
}

fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_') && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_form_is_an_entity() {
        let name = parse_entity(r#"Files::Path::"/etc/passwd""#).unwrap().unwrap();
        assert_eq!((name.kind, &*name.id), ("Files::Path", "/etc/passwd"));
        for bare in ["/etc/passwd", "https://example.org/?a=\"b\"", "send_money", "Tool::x", "1T::\"x\"", "T::\"a\"b\"", "T::\"a\" "] {
            assert_eq!(parse_entity(bare).unwrap(), None, "{bare}");
        }
    }

    #[test]
    fn escapes_are_cedars() {
        assert_eq!(parse_entity(r#"T::"a\"\n\u{1F600}\x41""#).unwrap().unwrap().id, "a\"\n\u{1F600}A");
        assert!(parse_entity(r#"T::"\q""#).is_err());
        assert!(parse_entity(r#"T::"\xff""#).is_err());
    }
}
