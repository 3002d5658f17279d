//! The port to memory.

use crate::Result;

/// A past decision that is like the one asked about.
#[derive(Clone, Debug, PartialEq)]
pub struct Precedent {
    /// The oversight request that was decided.
    pub request: String,
    /// How alike, from 0 to 1 (cosine).
    pub likeness: f32,
    /// True where it was approved.
    pub approved: bool,
}

/// Recalls what was decided about acts like this one.
pub trait Precedents: Send + Sync {
    /// At most `most` precedents, the most alike first.
    fn recall(&self, text: &str, most: usize) -> Result<Vec<Precedent>>;
}
