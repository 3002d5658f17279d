//! Cedar policies compiled to a decision engine.
//!
//! The language, its parser and its validator are the crate cedar-policy's; the answers are its answers. What is ours: two annotations
//! (`@oversight` on a forbid, `@audit("after")`), bounds on what is parsed, and the engine that decides.

mod analyze;
mod annotation;
mod answer;
mod engine;
mod entities;
mod eval;
mod explain;
mod extension;
mod finding;
mod index;
mod limits;
mod lint;
mod name;
mod pattern;
mod program;
mod reference;
mod roster;
mod set;
mod shape;
mod source;
mod value;

pub use analyze::{Analysis, Change, analyze};
pub use answer::{Answer, Ruling};
pub use engine::{Attenuation, Engine, EntityChange, Outcome, Prepared, View};
pub use explain::{Condition, Explained};
pub use finding::{Finding, Severity};
pub use limits::{Limits, check_json, check_text};
pub use lint::lint;
pub use name::{EntityName, parse_entity};
pub use roster::{Role, Roster, code};
pub use source::{Parsed, Sources, parse};
