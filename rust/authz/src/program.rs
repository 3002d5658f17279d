//! Conditions as a compact program: nodes in one array, children by number, constants beside them.

use crate::extension::Call;
use crate::pattern::Pattern;
use crate::value::Stored;
use std::sync::Arc;

/// A node's number.
pub type NodeId = u32;

/// A run of children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kids {
    pub start: u32,
    pub len: u32,
}

/// A name, as a part of the text that holds all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Text {
    pub start: u32,
    pub len: u32,
}

/// One step of a condition: a quarter of a cache line, short constants and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    Bool(bool),
    Long(i64),
    Text(Text),
    Known(u32),
    /// Any other constant.
    Constant(u32),
    Principal,
    Action,
    Resource,
    Context,
    Not(NodeId),
    Neg(NodeId),
    IsEmpty(NodeId),
    And(Kids),
    Or(Kids),
    If(NodeId, NodeId, NodeId),
    Equal(NodeId, NodeId),
    Less(NodeId, NodeId),
    LessEqual(NodeId, NodeId),
    Add(NodeId, NodeId),
    Sub(NodeId, NodeId),
    Mul(NodeId, NodeId),
    In(NodeId, NodeId),
    Contains(NodeId, NodeId),
    ContainsAll(NodeId, NodeId),
    ContainsAny(NodeId, NodeId),
    GetTag(NodeId, NodeId),
    HasTag(NodeId, NodeId),
    /// A field of the context, the most frequent of all, and whether there is one.
    ContextField(Text),
    ContextHas(Text),
    Field(NodeId, Text),
    HasField(NodeId, Text),
    /// Children are pairs: where each name starts, and its length.
    HasPath(NodeId, Kids),
    Like(NodeId, u32),
    Is(NodeId, u32),
    IsNamed(NodeId, Text),
    Set(Kids),
    /// Children come by three: where a name starts, its length, and a node.
    Record(Kids),
    Call1(Call, NodeId),
    Call2(Call, NodeId, NodeId),
    /// Errs whatever is asked.
    Erring,
}

/// The conditions of a policy set; cheap to clone.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) nodes: Arc<[Node]>,
    pub(crate) kids: Arc<[u32]>,
    pub(crate) texts: Arc<str>,
    pub(crate) constants: Arc<[Stored]>,
    pub(crate) patterns: Arc<[Pattern]>,
}

impl Program {
    #[inline]
    pub fn node(&self, id: NodeId) -> Node {
        self.nodes.get(id as usize).copied().unwrap_or(Node::Erring)
    }

    #[inline]
    pub fn kids(&self, kids: Kids) -> &[u32] {
        self.kids.get(kids.start as usize..(kids.start + kids.len) as usize).unwrap_or(&[])
    }

    #[inline]
    pub fn constant(&self, id: u32) -> Option<&Stored> {
        self.constants.get(id as usize)
    }

    #[inline]
    pub fn text(&self, text: Text) -> &str {
        self.texts.get(text.start as usize..(text.start + text.len) as usize).unwrap_or_default()
    }

    #[inline]
    pub fn pattern(&self, id: u32) -> Option<&Pattern> {
        self.patterns.get(id as usize)
    }

    /// How many bytes it takes, for reports.
    pub fn bytes(&self) -> usize {
        self.nodes.len() * size_of::<Node>() + self.kids.len() * 4 + self.texts.len() + self.constants.len() * size_of::<Stored>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_nodes_fill_a_cache_line() {
        assert_eq!(size_of::<Node>(), 16);
    }
}
