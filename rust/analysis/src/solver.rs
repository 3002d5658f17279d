//! The solver: a program that reads SMT-LIB from its standard input, cvc5's executable or ours over cvc5's library.

use cedar_policy_symcc::solver::{Decision, DecisionWithModel, Solver, SolverError};
use creto_enablement_common::{Error, Result, ResultExt};
use std::io::{BufRead, BufReader, Read, Write};
use std::pin::pin;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::task::{Context, Poll, Waker};
use tokio::io::AsyncWrite;

/// How the solver is started.
#[derive(Clone, Debug)]
pub struct SolverCommand<'a> {
    /// The program and its arguments.
    pub argv: &'a [String],
    /// The longest that one question may take, in milliseconds.
    pub limit: u32,
}

/// A running solver, ended when it is dropped.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    errors: ChildStderr,
    script: Vec<u8>,
    /// How many questions it was asked.
    pub(crate) asked: usize,
}

impl Process {
    pub(crate) fn start(command: &SolverCommand<'_>) -> Result<Self> {
        let (program, arguments) = command.argv.split_first().ok_or_else(|| Error::invalid("the solver's command is empty"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .args(["--lang=smt2", &format!("--tlimit-per={}", command.limit)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context(|| format!("starting the solver `{program}`"))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors)) = pipes else {
            return Err(Error::internal("a child without the pipes that it was started with"));
        };
        Ok(Self { child, input, output: BufReader::new(output), errors, script: Vec::new(), asked: 0 })
    }

    fn line(&mut self) -> std::result::Result<String, SolverError> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            let mut said = String::new();
            self.errors.read_to_string(&mut said)?;
            let last = said.trim().lines().last().unwrap_or("nothing").to_owned();
            return Err(SolverError::Solver(format!("it ended; its last words: {last}")));
        }
        Ok(line)
    }

    fn decide(&mut self) -> std::result::Result<Decision, SolverError> {
        self.asked += 1;
        self.script.extend_from_slice(b"(check-sat)\n");
        self.input.write_all(&self.script)?;
        self.input.flush()?;
        self.script.clear();
        match self.line()?.trim() {
            "sat" => Ok(Decision::Sat),
            "unsat" => Ok(Decision::Unsat),
            "unknown" => Ok(Decision::Unknown),
            other => Err(SolverError::UnrecognizedSolverOutput(other.to_owned())),
        }
    }

    fn model(&mut self) -> std::result::Result<String, SolverError> {
        self.input.write_all(b"(get-model)\n")?;
        self.input.flush()?;
        let mut model = self.line()?;
        if model.trim() != "(" {
            return Err(SolverError::UnrecognizedSolverOutput(model));
        }
        loop {
            let line = self.line()?;
            model.push_str(&line);
            if line.trim() == ")" {
                return Ok(model);
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It holds nothing worth keeping; a child that is gone already is no fault.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Solver for Process {
    fn smtlib_input(&mut self) -> &mut (dyn AsyncWrite + Unpin + Send) {
        &mut self.script
    }

    async fn enable_models(&mut self) -> std::result::Result<(), SolverError> {
        self.script.extend_from_slice(b"(set-option :produce-models true)\n");
        Ok(())
    }

    async fn check_sat(&mut self) -> std::result::Result<Decision, SolverError> {
        self.decide()
    }

    async fn check_sat_with_model(&mut self) -> std::result::Result<DecisionWithModel, SolverError> {
        Ok(match self.decide()? {
            Decision::Sat => DecisionWithModel::Sat { model: self.model()? },
            Decision::Unsat => DecisionWithModel::Unsat,
            Decision::Unknown => DecisionWithModel::Unknown,
        })
    }
}

/// Runs what cedar-policy-symcc writes as async and, over a solver that writes to memory, never waits.
pub(crate) fn finish<T>(future: impl Future<Output = T>) -> Result<T> {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Ok(value),
        Poll::Pending => Err(Error::internal("a question to the solver was left waiting")),
    }
}
