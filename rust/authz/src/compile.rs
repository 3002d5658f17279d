//! Conditions of cedar-policy into a program. What stands twice is kept once, so that policies of one shape share their steps.

use crate::extension::{Call, Ext};
use crate::pattern::Pattern;
use crate::program::{Kids, Node, NodeId, Program, Text};
use crate::value::{Stored, fold_extension};
use cedar_policy_core::ast::{self, BinaryOp, ExprKind, Literal, UnaryOp, Var};
use creto_enablement_common::{Error, Result};
use foldhash::quality::RandomState;
use hashbrown::HashMap;

/// Where entities and types of policies get their numbers.
pub trait Numbers {
    /// The entity as a stored value.
    fn entity(&mut self, uid: &ast::EntityUID) -> Stored;
    /// The number of a type; none where it has none and gets none.
    fn kind(&mut self, name: &str) -> Option<u32>;
}

/// How deep one condition may be, chains of `&&` and of `||` counted once.
const DEEPEST: usize = 256;

type Known<K> = HashMap<K, u32, RandomState>;

/// A program that grows.
#[derive(Default)]
struct Draft {
    nodes: Vec<Node>,
    kids: Vec<u32>,
    texts: String,
    constants: Vec<Stored>,
    patterns: Vec<Pattern>,
}

/// Takes conditions in, one after the other.
#[derive(Default)]
pub struct Compiler {
    draft: Draft,
    nodes: Known<Node>,
    runs: Known<Vec<u32>>,
    constants: Known<Stored>,
    texts: Known<String>,
    patterns: Known<Pattern>,
}

impl Compiler {
    /// What was taken in.
    pub fn finish(self) -> Program {
        let Draft { nodes, kids, texts, constants, patterns } = self.draft;
        Program { nodes: nodes.into(), kids: kids.into(), texts: texts.into(), constants: constants.into(), patterns: patterns.into() }
    }

    /// Takes in a condition.
    ///
    /// # Errors
    /// `InvalidInput` where it is too deep or holds what no finished policy holds.
    pub fn compile(&mut self, expr: &ast::Expr, numbers: &mut dyn Numbers) -> Result<NodeId> {
        self.expr(expr, numbers, 0)
    }

    fn push(&mut self, node: Node) -> NodeId {
        *self.nodes.entry(node).or_insert_with(|| added(&mut self.draft.nodes, node))
    }

    fn run(&mut self, children: &[u32]) -> Kids {
        let kids = &mut self.draft.kids;
        let start = *self.runs.entry_ref(children).or_insert_with(|| {
            kids.extend_from_slice(children);
            (kids.len() - children.len()) as u32
        });
        Kids { start, len: children.len() as u32 }
    }

    fn constant_node(&mut self, value: Stored) -> Result<NodeId> {
        let short = match &value {
            Stored::Bool(b) => Some(Node::Bool(*b)),
            Stored::Long(n) => Some(Node::Long(*n)),
            Stored::Str(text) => Some(Node::Text(self.text(text)?)),
            Stored::Known(number) => Some(Node::Known(*number)),
            _ => None,
        };
        if let Some(node) = short {
            return Ok(self.push(node));
        }
        let constant = match self.constants.get(&value) {
            Some(constant) => *constant,
            None => {
                self.constants.insert(value.clone(), self.draft.constants.len() as u32);
                added(&mut self.draft.constants, value)
            }
        };
        Ok(self.push(Node::Constant(constant)))
    }

    fn text(&mut self, text: &str) -> Result<Text> {
        let start = match self.texts.get(text) {
            Some(start) => *start,
            None => {
                let start = u32::try_from(self.draft.texts.len())
                    .ok()
                    .filter(|start| start.checked_add(u32::try_from(text.len()).unwrap_or(u32::MAX)).is_some())
                    .ok_or_else(|| Error::invalid("the names and texts of the conditions take more than 4 GiB"))?;
                self.draft.texts.push_str(text);
                self.texts.insert(text.to_owned(), start);
                start
            }
        };
        Ok(Text { start, len: text.len() as u32 })
    }

    fn node(&self, id: NodeId) -> Option<Node> {
        self.draft.nodes.get(id as usize).copied()
    }

    fn stored(&self, id: NodeId) -> Option<Stored> {
        Some(match self.node(id)? {
            Node::Bool(b) => Stored::Bool(b),
            Node::Long(n) => Stored::Long(n),
            Node::Text(text) => Stored::Str(self.draft.texts.get(text.start as usize..)?.get(..text.len as usize)?.into()),
            Node::Known(number) => Stored::Known(number),
            Node::Constant(constant) => self.draft.constants.get(constant as usize)?.clone(),
            _ => return None,
        })
    }

    fn all_stored(&self, ids: &[u32]) -> Option<Vec<Stored>> {
        ids.iter().map(|id| self.stored(*id)).collect()
    }

    fn expr(&mut self, expr: &ast::Expr, numbers: &mut dyn Numbers, depth: usize) -> Result<NodeId> {
        if depth > DEEPEST {
            return Err(Error::invalid(format!("a condition is nested deeper than {DEEPEST}; split it into several policies")));
        }
        let deeper = depth + 1;
        let node = match expr.expr_kind() {
            ExprKind::Lit(literal) => {
                let value = match literal {
                    Literal::Bool(b) => Stored::Bool(*b),
                    Literal::Long(n) => Stored::Long(*n),
                    Literal::String(text) => Stored::Str(text.as_str().into()),
                    Literal::EntityUID(uid) => numbers.entity(uid),
                };
                return self.constant_node(value);
            }
            ExprKind::Var(Var::Principal) => Node::Principal,
            ExprKind::Var(Var::Action) => Node::Action,
            ExprKind::Var(Var::Resource) => Node::Resource,
            ExprKind::Var(Var::Context) => Node::Context,
            ExprKind::If { test_expr, then_expr, else_expr } => Node::If(
                self.expr(test_expr, numbers, deeper)?,
                self.expr(then_expr, numbers, deeper)?,
                self.expr(else_expr, numbers, deeper)?,
            ),
            ExprKind::And { .. } | ExprKind::Or { .. } => return self.chain(expr, numbers, deeper),
            ExprKind::UnaryApp { op, arg } => {
                let arg = self.expr(arg, numbers, deeper)?;
                match op {
                    UnaryOp::Not => Node::Not(arg),
                    UnaryOp::Neg => Node::Neg(arg),
                    UnaryOp::IsEmpty => Node::IsEmpty(arg),
                }
            }
            ExprKind::BinaryApp { op, arg1, arg2 } => {
                let a = self.expr(arg1, numbers, deeper)?;
                let b = self.expr(arg2, numbers, deeper)?;
                match op {
                    BinaryOp::Eq => Node::Equal(a, b),
                    BinaryOp::Less => Node::Less(a, b),
                    BinaryOp::LessEq => Node::LessEqual(a, b),
                    BinaryOp::Add => Node::Add(a, b),
                    BinaryOp::Sub => Node::Sub(a, b),
                    BinaryOp::Mul => Node::Mul(a, b),
                    BinaryOp::In => Node::In(a, b),
                    BinaryOp::Contains => Node::Contains(a, b),
                    BinaryOp::ContainsAll => Node::ContainsAll(a, b),
                    BinaryOp::ContainsAny => Node::ContainsAny(a, b),
                    BinaryOp::GetTag => Node::GetTag(a, b),
                    BinaryOp::HasTag => Node::HasTag(a, b),
                }
            }
            ExprKind::ExtensionFunctionApp { fn_name, args } => return self.call(expr, &fn_name.to_string(), args, numbers, deeper),
            ExprKind::GetAttr { expr, attr } => {
                let of = self.expr(expr, numbers, deeper)?;
                let name = self.text(attr)?;
                if matches!(self.node(of), Some(Node::Context)) { Node::ContextField(name) } else { Node::Field(of, name) }
            }
            ExprKind::HasAttr { expr, attr } => {
                let of = self.expr(expr, numbers, deeper)?;
                let name = self.text(attr)?;
                if matches!(self.node(of), Some(Node::Context)) { Node::ContextHas(name) } else { Node::HasField(of, name) }
            }
            ExprKind::ExtHasAttr { expr, attrs } => {
                let of = self.expr(expr, numbers, deeper)?;
                let mut names = Vec::with_capacity(attrs.len() * 2);
                for attr in attrs {
                    let Text { start, len } = self.text(attr)?;
                    names.extend([start, len]);
                }
                Node::HasPath(of, self.run(&names))
            }
            ExprKind::Like { expr, pattern } => {
                let of = self.expr(expr, numbers, deeper)?;
                let pattern = Pattern::new(pattern.get_elems());
                let known = &mut self.draft.patterns;
                Node::Like(of, *self.patterns.entry(pattern.clone()).or_insert_with(|| added(known, pattern)))
            }
            ExprKind::Is { expr, entity_type } => {
                let of = self.expr(expr, numbers, deeper)?;
                let name = entity_type.to_string();
                match numbers.kind(&name) {
                    Some(kind) => Node::Is(of, kind),
                    None => Node::IsNamed(of, self.text(&name)?),
                }
            }
            ExprKind::Set(items) => {
                let ids = items.iter().map(|item| self.expr(item, numbers, deeper)).collect::<Result<Vec<_>>>()?;
                if let Some(members) = self.all_stored(&ids) {
                    return self.constant_node(Stored::set(members));
                }
                Node::Set(self.run(&ids))
            }
            ExprKind::Record(fields) => {
                let mut triples = Vec::with_capacity(fields.len() * 3);
                let mut ids = Vec::with_capacity(fields.len());
                for (name, value) in fields.iter() {
                    let id = self.expr(value, numbers, deeper)?;
                    let Text { start, len } = self.text(name)?;
                    triples.extend([start, len, id]);
                    ids.push(id);
                }
                if let Some(values) = self.all_stored(&ids) {
                    // The map gives its names in order, as stored records keep them.
                    let fields = fields.keys().map(|name| Box::from(name.as_str())).zip(values).collect();
                    return self.constant_node(Stored::Record(fields));
                }
                Node::Record(self.run(&triples))
            }
            ExprKind::Slot(_) | ExprKind::Unknown(_) => {
                return Err(Error::invalid("a condition holds a slot or an unknown, which no finished policy does"));
            }
        };
        Ok(self.push(node))
    }

    /// A chain of `&&` or `||` as one node, so that long chains are not deep.
    fn chain(&mut self, expr: &ast::Expr, numbers: &mut dyn Numbers, depth: usize) -> Result<NodeId> {
        let conjunction = matches!(expr.expr_kind(), ExprKind::And { .. });
        let mut open = vec![expr];
        let mut ids = Vec::new();
        while let Some(next) = open.pop() {
            match next.expr_kind() {
                ExprKind::And { left, right } if conjunction => open.extend([&**right, &**left]),
                ExprKind::Or { left, right } if !conjunction => open.extend([&**right, &**left]),
                _ => ids.push(self.expr(next, numbers, depth)?),
            }
        }
        let kids = self.run(&ids);
        Ok(self.push(if conjunction { Node::And(kids) } else { Node::Or(kids) }))
    }

    fn call(&mut self, expr: &ast::Expr, name: &str, args: &[ast::Expr], numbers: &mut dyn Numbers, depth: usize) -> Result<NodeId> {
        let Some(call) = Call::named(name) else {
            return Err(Error::invalid(format!("the function `{name}` is not one that this engine knows")));
        };
        if let [text] = args
            && call.is_constructor()
            && matches!(text.expr_kind(), ExprKind::Lit(Literal::String(_)))
        {
            let folded: Option<Ext> = fold_extension(expr);
            return match folded {
                Some(ext) => self.constant_node(Stored::Ext(ext)),
                None => Ok(self.push(Node::Erring)),
            };
        }
        let node = match args {
            [only] if call.arity() == 1 => Node::Call1(call, self.expr(only, numbers, depth)?),
            [receiver, argument] if call.arity() == 2 => {
                Node::Call2(call, self.expr(receiver, numbers, depth)?, self.expr(argument, numbers, depth)?)
            }
            // A wrong number of arguments errs whenever it is reached.
            _ => Node::Erring,
        };
        Ok(self.push(node))
    }
}

fn added<T>(list: &mut Vec<T>, item: T) -> u32 {
    list.push(item);
    list.len() as u32 - 1
}
