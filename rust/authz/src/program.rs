//! Conditions as a compact program: nodes in one array, children by number, constants beside them.

use crate::extension::Call;
use crate::pattern::Pattern;
use crate::value::Stored;

/// A node's number.
pub type NodeId = u32;

/// A run of children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kids {
    pub start: u32,
    pub len: u32,
}

/// One step of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
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
    /// A field of the context, the most frequent of all.
    ContextField(u32),
    Field(NodeId, u32),
    HasField(NodeId, u32),
    HasPath(NodeId, Kids),
    Like(NodeId, u32),
    Is(NodeId, u32),
    IsNamed(NodeId, u32),
    Set(Kids),
    /// Children are pairs: a text's number, and a node.
    Record(Kids),
    Call1(Call, NodeId),
    Call2(Call, NodeId, NodeId),
    /// Errs whatever is asked.
    Erring,
}

/// The conditions of a policy set.
#[derive(Debug, Default)]
pub struct Program {
    pub(crate) nodes: Vec<Node>,
    pub(crate) kids: Vec<u32>,
    pub(crate) constants: Vec<Stored>,
    pub(crate) texts: Vec<Box<str>>,
    pub(crate) patterns: Vec<Pattern>,
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
    pub fn text(&self, id: u32) -> &str {
        self.texts.get(id as usize).map_or("", |text| text)
    }

    #[inline]
    pub fn pattern(&self, id: u32) -> Option<&Pattern> {
        self.patterns.get(id as usize)
    }

    /// How many bytes it takes, for reports.
    pub fn bytes(&self) -> usize {
        self.nodes.len() * size_of::<Node>() + self.kids.len() * 4 + self.constants.len() * size_of::<Stored>()
    }
}
