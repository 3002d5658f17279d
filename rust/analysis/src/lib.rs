//! What policies can do, proved: every request that the schema allows is looked at, by cedar-policy-symcc and the solver cvc5.
//!
//! Nothing here decides an act. The solver is a program beside this one, asked over its standard input; what it finds is asked of
//! cedar-policy again before it is shown, so that a counterexample is a request that really is answered so.

mod assertion;
mod compare;
mod counterexample;
mod examine;
mod rules;
mod solver;

pub use assertion::{Assertion, Claim, Verdict, prove};
pub use compare::{Change, Comparison, compare};
pub use counterexample::{Answer, Counterexample};
pub use examine::examine;
pub use rules::Undecided;
pub use solver::SolverCommand;

use creto_authz::{Limits, Parsed, Sources, parse};
use creto_enablement_common::{Error, Result, ResultExt};
use std::thread;

/// Stack of the thread that compiles terms: they are as deep as conditions are.
const STACK: usize = 256 << 20;

/// Parses and validates one set; its warnings are no concern of this crate.
fn read(what: &str, policies: &str, schema: &str) -> Result<Parsed> {
    let sources = Sources { policies, schema: Some(schema), entities: "" };
    parse(&sources, &Limits::DEFAULT).map_err(|found| {
        let first = found.first().map(ToString::to_string).unwrap_or_default();
        Error::invalid(format!("{what}: {first}; `creto policy check` shows where"))
    })
}

fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("creto-policy-proof".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .context(|| "starting the thread that compiles policies".to_owned())?
            .join()
            .map_err(|_| Error::internal("the compiler of policies panicked"))?
    })
}
