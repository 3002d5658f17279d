//! Names looked up beforehand, for repeated questions.

use crate::party::{Found, Name};

/// A principal, an action and a resource looked up beforehand; good as long as it is wanted, whatever is installed.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(crate) epoch: u64,
    pub(crate) found: [Found; 3],
    pub(crate) with_resource: bool,
    pub(crate) names: Box<[Name; 3]>,
}

/// A principal looked up beforehand; good whatever is installed later.
#[derive(Clone, Debug)]
pub struct Actor {
    pub(crate) epoch: u64,
    pub(crate) found: Found,
    pub(crate) name: Name,
}
