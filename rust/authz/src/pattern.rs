//! Patterns of `like`: texts between stars, found from left to right.

use cedar_policy_core::ast::PatternElem;

/// What stands after the first star: texts between stars, and the text after the last.
type Rest = (Box<[Box<str>]>, Box<str>);

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    first: Box<str>,
    /// Texts between stars; none where the pattern has no star.
    rest: Option<Rest>,
}

impl Pattern {
    pub fn new(elements: &[PatternElem]) -> Self {
        let mut parts = vec![String::new()];
        for element in elements {
            match (element, parts.last_mut()) {
                (PatternElem::Char(c), Some(part)) => part.push(*c),
                _ => parts.push(String::new()),
            }
        }
        let mut parts = parts.into_iter().map(String::into_boxed_str);
        let first = parts.next().unwrap_or_default();
        let mut middle: Vec<Box<str>> = parts.collect();
        let rest = middle.pop().map(|last| {
            middle.retain(|part| !part.is_empty());
            (middle.into_boxed_slice(), last)
        });
        Self { first, rest }
    }

    pub fn matches(&self, text: &str) -> bool {
        let Some((middle, last)) = &self.rest else { return *text == *self.first };
        let Some(text) = text.strip_prefix(&*self.first) else { return false };
        let Some(mut text) = text.strip_suffix(&**last) else { return false };
        for part in middle {
            let Some(at) = text.find(&**part) else { return false };
            text = text.get(at + part.len()..).unwrap_or("");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn elements(pattern: &str) -> Vec<PatternElem> {
        pattern.chars().map(|c| if c == '*' { PatternElem::Wildcard } else { PatternElem::Char(c) }).collect()
    }

    proptest! {
        #[test]
        fn equal_to_cedars_own_matching(pattern in "[ab*é]{0,8}", text in "[abé]{0,10}") {
            let cedar = cedar_policy_core::ast::Pattern::from(elements(&pattern));
            prop_assert_eq!(Pattern::new(&elements(&pattern)).matches(&text), cedar.wildcard_match(&text));
        }
    }
}
