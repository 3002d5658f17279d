//! What is refused before any parser sees it: text too long, or nested too deep.
//!
//! Cedar's parser and serde_json recurse; nested text ends the process on a small stack. The scans here do not recurse, look at every byte
//! once, and may refuse more than they must (a bracket in a comment counts), never less.

use creto_enablement_common::{Error, Result};

/// Bounds on one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a policy set or a schema.
    pub policy_bytes: usize,
    /// Bytes of an entities file.
    pub entity_bytes: usize,
    /// Bytes of an attenuation, which is text from another agent.
    pub attenuation_bytes: usize,
    /// Bytes of one context, names and values together.
    pub context_bytes: usize,
    /// Open brackets, braces and parentheses at one place.
    pub nesting: usize,
}

impl Limits {
    /// The bounds that hold unless set otherwise.
    pub const DEFAULT: Self =
        Self { policy_bytes: 32 << 20, entity_bytes: 512 << 20, attenuation_bytes: 64 << 10, context_bytes: 1 << 20, nesting: 64 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Operators and accesses (`&&`, `+`, `.`, `[`, a further `when`) in one expression. Each nests what stands before it one level deeper without a
/// bracket, and dropping a tree of some thousands of levels overflows a thread's stack.
const MOST_LINKS: usize = 512;

/// Refuses Cedar text (policies or a schema) that is longer than `bytes` or nested deeper than `nesting`.
///
/// # Errors
/// `InvalidInput`, with the line where the bound was passed.
pub fn check_text(what: &str, text: &str, bytes: usize, nesting: usize) -> Result<()> {
    size(what, text, bytes)?;
    // Links since the last comma, for each open bracket; what a closed one held counts for the one around it.
    let mut links = vec![0_usize];
    // Unary operators and `if` nest without brackets.
    let mut prefix = 0_usize;
    let mut conditionals = 0_usize;
    let mut line = 1_usize;
    let mut within = Within::Code;
    let mut word = 0_usize;
    let source = text.as_bytes();
    for (at, &byte) in source.iter().enumerate() {
        if byte == b'\n' {
            line += 1;
        }
        match within {
            Within::Comment => {
                // For Cedar a carriage return ends a comment too.
                if byte == b'\n' || byte == b'\r' {
                    within = Within::Code;
                }
                continue;
            }
            Within::Text => {
                within = match byte {
                    b'\\' => Within::Escape,
                    b'"' => Within::Code,
                    _ => Within::Text,
                };
                continue;
            }
            Within::Escape => {
                within = Within::Text;
                continue;
            }
            Within::Code => {}
        }
        if !byte.is_ascii_alphanumeric() && byte != b'_' {
            if source.get(word..at) == Some(b"if") {
                conditionals += 1;
            }
            word = at + 1;
        }
        let mut linked = false;
        match byte {
            b'"' => within = Within::Text,
            b'/' if source.get(at + 1) == Some(&b'/') => within = Within::Comment,
            b'(' => links.push(0),
            b'[' | b'{' => {
                linked = true;
                links.push(0);
            }
            b')' | b']' | b'}' => {
                let inner = if links.len() > 1 { links.pop().unwrap_or(0) } else { 0 };
                if let Some(around) = links.last_mut() {
                    *around += inner;
                }
            }
            b'&' | b'|' => linked = source.get(at + 1) == Some(&byte),
            b'.' | b'+' | b'-' | b'*' => linked = true,
            b',' => {
                if let Some(here) = links.last_mut() {
                    *here = 0;
                }
            }
            b';' => {
                conditionals = 0;
                links = vec![0];
            }
            _ => {}
        }
        prefix = match byte {
            b'!' | b'-' => prefix + 1,
            // Whatever Cedar may take for a space changes nothing.
            _ if byte.is_ascii_whitespace() || byte == 0x0b || !byte.is_ascii() => prefix,
            _ => 0,
        };
        if links.len() - 1 + prefix + conditionals > nesting {
            return Err(too_deep(what, line, nesting));
        }
        if linked && let Some(here) = links.last_mut() {
            *here += 1;
            if links.iter().sum::<usize>() > MOST_LINKS {
                return Err(Error::invalid(format!(
                    "{what}, line {line}: an expression of more than {MOST_LINKS} operators; write a set (`[a, b].contains(x)`) or several policies"
                )));
            }
        }
    }
    Ok(())
}

/// Refuses JSON that is longer than `bytes` or nested deeper than `nesting`.
///
/// # Errors
/// `InvalidInput`, with the line where the bound was passed.
pub fn check_json(what: &str, text: &str, bytes: usize, nesting: usize) -> Result<()> {
    size(what, text, bytes)?;
    let mut depth = 0_usize;
    let mut line = 1_usize;
    let mut within = Within::Code;
    for byte in text.bytes() {
        if byte == b'\n' {
            line += 1;
        }
        within = match (within, byte) {
            (Within::Escape, _) => Within::Text,
            (Within::Text, b'\\') => Within::Escape,
            (Within::Text, b'"') => Within::Code,
            (Within::Text, _) => Within::Text,
            (_, b'"') => Within::Text,
            (_, b'[' | b'{') => {
                depth += 1;
                Within::Code
            }
            (_, b']' | b'}') => {
                depth = depth.saturating_sub(1);
                Within::Code
            }
            _ => Within::Code,
        };
        if depth > nesting {
            return Err(too_deep(what, line, nesting));
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Within {
    Code,
    Text,
    Escape,
    Comment,
}

fn size(what: &str, text: &str, bytes: usize) -> Result<()> {
    if text.len() > bytes {
        return Err(Error::invalid(format!("{what}: {} bytes, and at most {bytes} are read; split it", text.len())));
    }
    Ok(())
}

fn too_deep(what: &str, line: usize, nesting: usize) -> Error {
    Error::invalid(format!("{what}, line {line}: nested deeper than {nesting}; write it flatter"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(text: &str) -> bool {
        check_text("policies", text, 1 << 20, 64).is_ok()
    }

    #[test]
    fn brackets_are_counted_wherever_they_open() {
        assert!(depth(&format!("{}1{}", "(".repeat(64), ")".repeat(64))));
        assert!(!depth(&format!("{}1{}", "(".repeat(65), ")".repeat(65))));
        assert!(!depth(&"[{(".repeat(30)));
        assert!(depth(&"(), [], {}, ".repeat(1000)));
    }

    #[test]
    fn what_stands_in_text_or_a_comment_does_not_count_and_cannot_hide_what_follows() {
        assert!(depth(&format!("\"{}\"", "(".repeat(100))));
        assert!(depth(&format!("// {}\n", "(".repeat(100))));
        assert!(!depth(&format!("\"\\\"\" {}", "(".repeat(100))));
        assert!(!depth(&format!("// \"\n{}", "(".repeat(100))));
    }

    #[test]
    fn operators_that_nest_without_brackets_count() {
        assert!(!depth(&"!".repeat(100)));
        assert!(!depth(&"if a then b else ".repeat(100)));
        assert!(depth(&"permit(principal, action, resource) when { if a then b else c };\n".repeat(100)));
    }

    #[test]
    fn a_carriage_return_ends_a_comment_as_it_does_for_cedar() {
        assert!(!depth(&format!("// \r{}", "(".repeat(100))));
    }

    #[test]
    fn what_nests_by_standing_in_a_row_counts_and_what_commas_part_does_not() {
        for (first, more) in [
            ("true", "&&true"),
            ("true", "||true"),
            ("1", "+1"),
            ("1", "*1"),
            ("context", ".a"),
            ("context", "[\"a\"]"),
            ("context", ".contains(1, 2)"),
            ("(true", "&&true)&&(true"),
            ("context.a", "} when { context.a"),
        ] {
            assert!(depth(&format!("permit(principal, action, resource) when {{ {first}{} }};\n", more.repeat(100)).repeat(10)), "{more}");
            assert!(!depth(&format!("{first}{}", more.repeat(600))), "{more}");
        }
        assert!(depth(&format!("[{}]", "context.a, ".repeat(5000))));
    }

    #[test]
    fn what_the_scan_lets_through_is_handled_on_a_small_stack() {
        let most = MOST_LINKS - 4;
        let texts: Vec<String> = ["&& context.a == 1", "|| true", "+ 1", ".a", "[\"a\"]", ".b(1)"]
            .iter()
            .map(|more| {
                format!(
                    "permit(principal, action, resource) when {{ context.a == 1 {} }};",
                    more.repeat(most / more.matches(['.', '&', '|', '+', '[']).count().max(1))
                )
            })
            .collect();
        std::thread::Builder::new()
            .stack_size(1 << 20)
            .spawn(move || {
                for text in texts {
                    let engine = crate::Engine::new();
                    assert!(depth(&text));
                    match crate::parse(&crate::Sources { policies: &text, ..Default::default() }, &Limits::DEFAULT) {
                        Ok(parsed) => drop(crate::lint(&parsed.policies)),
                        Err(findings) => assert!(!findings.is_empty()),
                    }
                    let _ = engine.attenuation(&text);
                    if engine.install(&crate::Sources { policies: &text, ..Default::default() }).is_ok() {
                        let check = creto_enablement_common::CheckRef {
                            agent: "spiffe://x/agent/a",
                            action: "a:b",
                            resource: "T::\"x\"",
                            context: &[],
                        };
                        let _ = (engine.answer(&check), engine.errors_in_words(&check), engine.rule(&check));
                        let _ = engine.explain(&check).unwrap();
                    }
                }
            })
            .unwrap()
            .join()
            .unwrap();
    }

    #[test]
    fn the_error_names_the_line() {
        let text = format!("\n\n{}", "(".repeat(70));
        let error = check_text("policies", &text, 1 << 20, 64).unwrap_err();
        assert_eq!(error.to_string(), "invalid input: policies, line 3: nested deeper than 64; write it flatter");
    }

    #[test]
    fn json_is_scanned_too() {
        assert!(check_json("entities", &"[".repeat(65), 1 << 20, 64).is_err());
        assert!(check_json("entities", &format!("\"{}\"", "[".repeat(65)), 1 << 20, 64).is_ok());
        assert!(check_json("entities", "[1,2]", 3, 64).unwrap_err().to_string().contains("5 bytes, and at most 3"));
    }
}
