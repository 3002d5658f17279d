//! The expressions that an expression is made of: one walk for whoever looks through conditions.

use cedar_policy::pst::Expr;

/// Calls `look` with each expression directly inside `expr`, in the order of the text.
pub(crate) fn each_part(expr: &Expr, mut look: impl FnMut(&Expr)) {
    match expr {
        Expr::UnaryOp { expr, .. } | Expr::GetAttr { expr, .. } | Expr::HasAttr { expr, .. } | Expr::Like { expr, .. } => look(expr),
        Expr::BinaryOp { left, right, .. } => {
            look(left);
            look(right);
        }
        Expr::Is { expr, in_expr, .. } => {
            look(expr);
            if let Some(inner) = in_expr {
                look(inner);
            }
        }
        Expr::IfThenElse { cond, then_expr, else_expr } => {
            look(cond);
            look(then_expr);
            look(else_expr);
        }
        Expr::Set(items) => items.iter().for_each(|item| look(item)),
        Expr::Record(fields) => fields.values().for_each(|field| look(field)),
        _ => {}
    }
}
