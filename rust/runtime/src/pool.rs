//! Sandboxes that wait started, so that a claim takes milliseconds. Each is used once; a thread starts the next ones.

use crate::cgroup::Group;
use crate::sandbox::{Claim, Mould, Sandbox};
use creto_enablement_common::sync::{Condvar, Mutex};
use creto_enablement_common::{Error, ErrorKind, Result, ResultExt};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A pause after a failed start, so that a machine in trouble is not hammered.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How full a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Started and unclaimed.
    pub idle: usize,
    /// Being started.
    pub starting: usize,
    /// Claimed and not closed.
    pub claimed: usize,
}

#[derive(Default)]
struct State {
    idle: VecDeque<Sandbox>,
    starting: usize,
    claimed: usize,
    waiting: usize,
    made: u64,
    failures: u64,
    failure: Option<String>,
    closed: bool,
}

struct Shared {
    mould: Arc<Mould>,
    /// When this process started, so that a later one of the same number is not taken for it.
    born: u64,
    least: usize,
    most: usize,
    state: Mutex<State>,
    changed: Condvar,
}

/// A pool of one kind of sandbox.
pub struct Pool {
    shared: Arc<Shared>,
}

/// A claimed sandbox; frees its place when dropped.
pub struct Lease {
    sandbox: Sandbox,
    shared: Arc<Shared>,
}

impl Pool {
    /// Keeps `least` sandboxes waiting and never has more than `most`.
    pub fn new(mut mould: Mould, least: usize, most: usize) -> Result<Self> {
        let most = most.max(1);
        let born = born()?;
        crate::cgroup::clean(owner_lives);
        mould.groups = Group::works(&format!("creto-{}-{born}-0", std::process::id()), &mould.limits);
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { mould: Arc::new(mould), born, least: least.min(most), most, state, changed: Condvar::new() });
        // Two at a time: starting is bound by processors, and the program that waits for the first wants them too.
        for _ in 0..2 {
            let shared = shared.clone();
            std::thread::Builder::new().name("creto-refill".into()).spawn(move || shared.refill())?;
        }
        Ok(Self { shared })
    }

    /// What its sandboxes are made from.
    pub fn mould(&self) -> &Arc<Mould> {
        &self.shared.mould
    }

    /// How full it is.
    pub fn fill(&self) -> Fill {
        let state = self.shared.state.lock();
        Fill { idle: state.idle.len(), starting: state.starting, claimed: state.claimed }
    }

    /// Takes a waiting sandbox, or the next one to be started, and binds it to the claim.
    pub fn claim(&self, claim: Claim, patience: Duration) -> Result<Lease> {
        let deadline = Instant::now() + patience;
        loop {
            let sandbox = self.take(deadline)?;
            // Made now, so that whatever happens to the claim the place is given back.
            let lease = Lease { sandbox, shared: self.shared.clone() };
            if !lease.sandbox.is_alive() {
                continue;
            }
            lease.sandbox.claim(claim)?;
            return Ok(lease);
        }
    }

    fn take(&self, deadline: Instant) -> Result<Sandbox> {
        let mut state = self.shared.state.lock();
        let failures = state.failures;
        state.waiting += 1;
        self.shared.changed.notify_all();
        let taken = loop {
            if state.closed {
                break Err(Error::new(ErrorKind::SandboxSpawnFailed).with_context("the pool is closed"));
            }
            if let Some(sandbox) = state.idle.pop_front() {
                state.claimed += 1;
                break Ok(sandbox);
            }
            if state.failures > failures {
                let why = state.failure.clone().unwrap_or_default();
                break Err(Error::new(ErrorKind::SandboxSpawnFailed).with_context(why));
            }
            if self.shared.changed.wait_until(&mut state, deadline).timed_out() {
                let all = format!("all {} sandboxes of the pool are in use (`runtime.warm_pool_max_size`)", self.shared.most);
                let text = if state.claimed >= self.shared.most { all } else { "waiting for a sandbox".into() };
                break Err(Error::new(ErrorKind::Timeout).with_context(text));
            }
        };
        state.waiting -= 1;
        self.shared.changed.notify_all();
        taken
    }

    /// Waits until `count` sandboxes are waiting.
    pub fn warm(&self, count: usize, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.state.lock();
        let failures = state.failures;
        while state.idle.len() < count.min(self.shared.least) && !state.closed {
            if state.failures > failures {
                return Err(Error::new(ErrorKind::SandboxSpawnFailed).with_context(state.failure.clone().unwrap_or_default()));
            }
            if self.shared.changed.wait_until(&mut state, deadline).timed_out() {
                return Err(Error::new(ErrorKind::Timeout)).context(|| "warming the pool".into());
            }
        }
        Ok(())
    }

    /// Ends all that wait. Claimed ones live on until they are dropped.
    pub fn close(&self) {
        let idle = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            self.shared.changed.notify_all();
            std::mem::take(&mut state.idle)
        };
        drop(idle);
        let mut state = self.shared.state.lock();
        while state.starting > 0 {
            if self.shared.changed.wait_for(&mut state, Duration::from_secs(60)).timed_out() {
                return;
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn refill(&self) {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return;
            }
            let total = state.idle.len() + state.starting + state.claimed;
            let wanted = self.least.max(state.waiting);
            if state.idle.len() + state.starting >= wanted || total >= self.most {
                self.changed.wait(&mut state);
                continue;
            }
            state.starting += 1;
            state.made += 1;
            let id = format!("creto-{}-{}-{}", std::process::id(), self.born, state.made);
            drop(state);
            let started = Sandbox::start(&self.mould, &id);
            state = self.state.lock();
            state.starting -= 1;
            match started {
                Ok(sandbox) if !state.closed => state.idle.push_back(sandbox),
                Ok(unwanted) => {
                    drop(state);
                    drop(unwanted);
                    state = self.state.lock();
                }
                Err(error) => {
                    state.failures += 1;
                    state.failure = Some(error.to_string());
                    self.changed.notify_all();
                    if !state.closed {
                        // Woken early only by somebody who wants a sandbox, who then gets the next try's result.
                        self.changed.wait_for(&mut state, AFTER_FAILURE);
                    }
                }
            }
            self.changed.notify_all();
        }
    }
}

/// When a process started, in ticks since boot: field 22 of its `stat`, the twentieth after the name in parentheses.
fn started(process: &str) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{process}/stat")).ok()?;
    // The name in it may end within a letter.
    let stat = String::from_utf8_lossy(&stat);
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn born() -> Result<u64> {
    started("self").ok_or_else(|| Error::internal("`/proc/self/stat` cannot be read"))
}

/// True where the process that a sandbox's name tells of is still there.
fn owner_lives(name: &str) -> bool {
    let mut parts = name.split('-').skip(1);
    let (Some(process), Some(born)) = (parts.next(), parts.next()) else { return false };
    started(process).is_some_and(|now| born.parse() == Ok(now))
}

impl Lease {
    /// The sandbox.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.sandbox.close();
        self.shared.state.lock().claimed -= 1;
        self.shared.changed.notify_all();
    }
}
