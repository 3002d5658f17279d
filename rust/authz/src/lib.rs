//! Cedar policies compiled to a decision engine.
//!
//! The language, its parser and its validator are the crate cedar-policy's; the answers are its answers. What is ours: two annotations
//! (`@oversight` on a forbid, `@audit("after")`), bounds on what is parsed, and the engine that decides.

mod ancestry;
mod annotation;
mod answer;
mod canonical;
mod changes;
mod compile;
mod engine;
mod entities;
mod eval;
mod explain;
mod extension;
mod few;
mod finding;
mod hidden;
mod hierarchy;
mod hop;
mod id;
mod index;
mod intake;
mod limits;
mod lint;
mod name;
mod names;
mod parts;
mod party;
mod pattern;
mod prepared;
mod program;
mod readable;
mod reads;
mod reference;
mod roster;
mod ruling;
mod scopes;
mod seen;
mod set;
mod shape;
mod snapshot;
mod source;
mod standing;
mod tally;
mod tree;
mod value;
mod view;
mod writer;

pub use annotation::lifted_by;
pub use answer::{Answer, Ruling, Told};
pub use engine::{Engine, EntityChange, Size};
pub use explain::{Condition, Explained};
pub use finding::{Finding, Lines, Severity};
pub use hidden::hidden;
pub use hop::Attenuation;
pub use limits::{Limits, check_json, check_text};
pub use lint::lint;
pub use name::{EntityName, parse_entity};
pub use prepared::{Actor, Prepared};
pub use roster::{Role, Roster, code};
pub use source::{Parsed, Sources, parse};
pub use tally::Outcome;
pub use view::{Agreed, Begun, Question, QuestionBuffers, View};
