//! Where an entity stands: which policies can concern it, as a principal, as an action and as a resource.

use crate::few::Few;

/// No number.
pub const NONE: u32 = u32::MAX;

/// A run of heads in the index, or, where it is long, the number of a divided one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    pub start: u32,
    pub len: u32,
}

/// Which policies can concern an entity.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Standing {
    /// The row of the policies that it selects as an action.
    pub row: u32,
    /// Its place among the schema's actions, or `NONE`.
    pub shape: u32,
    /// One bit for each slice of resources that it belongs to, folded to 64.
    pub resource_bits: u64,
    /// Runs of policies that name it, or what it belongs to, as the principal; what is for everybody is not among them.
    pub as_principal: Few<Run, 2>,
    /// Slices that it belongs to as a resource.
    pub as_resource: Few<u32, 3>,
}

impl Default for Standing {
    fn default() -> Self {
        Self { row: 0, shape: NONE, resource_bits: 0, as_principal: Few::default(), as_resource: Few::default() }
    }
}
