//! The host's end of the socket to a sandbox's first process: messages out with descriptors beside them, events in.
//!
//! What comes from the other end is untrusted: it is read within limits, and can say no more than that a program ended.

use creto_enablement_common::sync::{Condvar, Mutex};
use creto_enablement_common::{Error, ErrorKind, Result, ResultExt};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use std::collections::HashMap;
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MOST_EVENT: usize = 65_536;

/// What the first process says.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// It serves.
    Ready {
        /// Its Python's version.
        python: String,
    },
    /// The claim is in force.
    Claimed,
    /// The claim is not.
    Failed {
        /// Why.
        reason: String,
    },
    /// A program ended.
    Exit {
        /// The run.
        id: u64,
        /// Exit status; negative for a signal.
        status: i32,
    },
}

/// Called when a run has ended, with its status: negative for a signal, none where the sandbox died first.
pub type Ended = Box<dyn FnOnce(Option<i32>) + Send>;

#[derive(Default)]
struct State {
    ready: Option<String>,
    claimed: Option<std::result::Result<(), String>>,
    runs: HashMap<u64, Ended>,
    gone: bool,
}

/// One sandbox's socket.
pub struct Guest {
    socket: UnixStream,
    sending: Mutex<()>,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Guest {
    /// Starts to listen.
    pub fn new(socket: UnixStream) -> Result<Self> {
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let (from, into) = (socket.try_clone()?, state.clone());
        socket.set_write_timeout(Some(Duration::from_secs(10)))?;
        std::thread::Builder::new().name("creto-guest".into()).stack_size(256 * 1024).spawn(move || listen(from, &into))?;
        Ok(Self { socket, sending: Mutex::new(()), state })
    }

    fn wait<T>(&self, patience: Duration, what: &str, mut look: impl FnMut(&mut State) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + patience;
        let (state, changed) = &*self.state;
        let mut state = state.lock();
        loop {
            if let Some(found) = look(&mut state) {
                return Ok(found);
            }
            if state.gone {
                return Err(Error::new(ErrorKind::SandboxSpawnFailed).with_context(format!("the sandbox ended while it was {what}")));
            }
            if changed.wait_until(&mut state, deadline).timed_out() {
                return Err(Error::new(ErrorKind::Timeout).with_context(format!("{what} took more than {} s", patience.as_secs())));
            }
        }
    }

    /// Waits until the first process serves; gives back its Python version.
    pub fn ready(&self, patience: Duration) -> Result<String> {
        self.wait(patience, "starting", |state| state.ready.clone())
    }

    /// Sends the claim and waits until it is in force.
    pub fn claim(&self, message: &serde_json::Value, patience: Duration) -> Result<()> {
        self.send(message, &[])?;
        let answer = self.wait(patience, "being claimed", |state| state.claimed.take())?;
        answer.map_err(|reason| Error::new(ErrorKind::SandboxSpawnFailed).with_context(reason))
    }

    /// Starts a program; `ended` is called once, whatever happens.
    pub fn run(&self, id: u64, message: &serde_json::Value, stdio: [BorrowedFd<'_>; 3], ended: Ended) -> Result<()> {
        {
            let mut state = self.state.0.lock();
            if state.gone {
                return Err(Error::new(ErrorKind::SandboxSpawnFailed).with_context("the sandbox has ended; claim another"));
            }
            state.runs.insert(id, ended);
        }
        self.send(message, &stdio).inspect_err(|_| drop(self.state.0.lock().runs.remove(&id)))
    }

    /// Sends a message with descriptors beside it.
    pub fn send(&self, message: &serde_json::Value, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let body = message.to_string().into_bytes();
        let length = u32::try_from(body.len()).map_err(|_| Error::invalid("a message of more than 4 GiB"))?;
        let mut frame = length.to_be_bytes().to_vec();
        frame.extend_from_slice(&body);
        let _one_at_a_time = self.sending.lock();
        let mut sent = 0;
        while let Some(rest) = frame.get(sent..).filter(|rest| !rest.is_empty()) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if sent == 0 && !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(Error::internal("more than three descriptors in one message"));
            }
            match sendmsg(&self.socket, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL) {
                Ok(more) => sent += more,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::from(io::Error::from(e))).context(|| "talking to the sandbox".into()),
            }
        }
        Ok(())
    }

    /// Hangs up: the first process kills everything inside and ends.
    pub fn hang_up(&self) {
        // An error means that the other end has gone already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// True once the other end has gone.
    pub fn is_gone(&self) -> bool {
        self.state.0.lock().gone
    }
}

fn listen(mut socket: UnixStream, shared: &(Mutex<State>, Condvar)) {
    let (state, changed) = shared;
    while let Ok(Some(event)) = read_event(&mut socket) {
        let mut state = state.lock();
        let ended = match event {
            Event::Ready { python } => {
                state.ready = Some(python);
                None
            }
            Event::Claimed => {
                state.claimed = Some(Ok(()));
                None
            }
            Event::Failed { reason } => {
                state.claimed = Some(Err(reason));
                None
            }
            Event::Exit { id, status } => state.runs.remove(&id).map(|ended| (ended, status)),
        };
        changed.notify_all();
        drop(state);
        if let Some((ended, status)) = ended {
            ended(Some(status));
        }
    }
    let left = {
        let mut state = state.lock();
        state.gone = true;
        changed.notify_all();
        std::mem::take(&mut state.runs)
    };
    for ended in left.into_values() {
        ended(None);
    }
}

/// Reads the next event; an error is the end of the conversation.
///
/// # Errors
/// The reader's, or `InvalidData` for what is no event.
pub fn read_event(from: &mut impl Read) -> io::Result<Option<Event>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MOST_EVENT {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    serde_json::from_slice(&body).map(Some).map_err(io::Error::from)
}
