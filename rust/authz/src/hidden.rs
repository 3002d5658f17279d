//! Characters that a reader of a policy does not see, and that make it read otherwise than it says.
//!
//! Source: Boucher and Anderson, "Trojan Source: Invisible Vulnerabilities" (2021). In names and strings cedar-policy's validator looks for them
//! as well; in comments nobody does, and a comment can seem to end where it goes on.

use crate::finding::{Finding, Severity};

/// The most findings of one text: who has more has seen enough.
const MOST: usize = 16;

/// Warnings about a text, one a line.
pub fn hidden(text: &str) -> Vec<Finding> {
    let mut start = 0;
    let mut found = Vec::new();
    for line in text.split_inclusive('\n') {
        if let Some((at, c)) = line.char_indices().find(|(_, c)| is_hidden(*c)) {
            found.push(Finding {
                severity: Severity::Warning,
                rule: "hidden-character",
                policy: None,
                message: format!("the character U+{:04X} is not seen here, and the text may read otherwise than it says", u32::from(c)),
                help: Some(format!("delete it; in a string, write it as `\\u{{{:x}}}`", u32::from(c))),
                span: Some((start + at, c.len_utf8())),
            });
        }
        start += line.len();
        if found.len() == MOST {
            break;
        }
    }
    found
}

/// Controls, directions, joiners and spaces without width, and tags.
fn is_hidden(c: char) -> bool {
    let control = c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    control
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}')
        || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e01ef}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Lines;

    #[test]
    fn what_is_not_seen_is_named_with_its_line_and_what_is_seen_is_not() {
        assert_eq!(hidden("permit (principal, action, resource); // déjà vu \u{4f60}\u{597d} \u{1f600}\r\n\t"), []);
        for c in ['\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}', '\u{0}', '\u{1b}', '\u{e0041}', '\u{2028}', '\u{85}'] {
            let text = format!("// fine\n// wrong {c} {c}\n");
            let found = hidden(&text);
            assert_eq!(found.len(), 1, "{:x}", u32::from(c));
            assert_eq!(found[0].position(&Lines::of(&text)), Some((2, 10)));
            assert!(found[0].message.contains(&format!("U+{:04X}", u32::from(c))));
        }
    }

    #[test]
    fn a_text_full_of_them_is_told_of_a_few_times() {
        assert_eq!(hidden(&"\u{200b}\n".repeat(100_000)).len(), MOST);
    }
}
