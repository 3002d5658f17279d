//! Carries a program's standard streams between the host's descriptors and pipes that are the sandbox's. The host's own descriptors (its
//! terminal above all) are never handed in.

use creto_enablement_common::Result;
use creto_enablement_common::sync::{Condvar, Mutex};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Captured output beyond this is dropped, and said so.
const MOST_CAPTURED: usize = 64 << 20;
/// How much output may still come once it is time to stop: what a pipe can hold. What a program left behind could write for ever, and over
/// what is said about it.
const MOST_TRAILING: usize = 1 << 20;
/// How long output may trail the program's end, when something it left behind holds the pipe open.
const TRAIL: Duration = Duration::from_millis(500);

/// Where input comes from.
pub enum Source {
    /// Nowhere.
    Null,
    /// These bytes.
    Bytes(Vec<u8>),
    /// A descriptor of the host.
    Descriptor(OwnedFd),
}

/// Where output goes.
pub enum Sink {
    /// Nowhere.
    Null,
    /// Into the result.
    Capture,
    /// To a descriptor of the host.
    Descriptor(OwnedFd),
}

/// What was captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// True where there were more.
    pub truncated: bool,
}

/// Keeps what programs write to the host's descriptors back, while a terminal among them shows something that must not be written over.
#[derive(Default)]
pub struct Hold {
    held: Mutex<bool>,
    changed: Condvar,
}

impl Hold {
    /// Holds or lets go; once this returns with `true` nothing is being written.
    pub fn set(&self, held: bool) {
        *self.held.lock() = held;
        self.changed.notify_all();
    }

    fn is_held(&self) -> bool {
        *self.held.lock()
    }

    /// Writes when it may.
    fn write<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut held = self.held.lock();
        while *held {
            self.changed.wait(&mut held);
        }
        work()
    }
}

/// One program's streams.
pub struct Streams {
    stop: Arc<OwnedFd>,
    finished: mpsc::Receiver<()>,
    outputs: usize,
    hold: Arc<Hold>,
    captured: [Arc<Mutex<Captured>>; 2],
}

impl Streams {
    /// Starts to carry; gives back the sandbox's ends.
    pub fn start(stdin: Source, stdout: Sink, stderr: Sink, hold: &Arc<Hold>) -> Result<(Self, [OwnedFd; 3])> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(std::io::Error::from)?);
        let (done, finished) = mpsc::channel();
        let captured = [Arc::default(), Arc::default()];
        let (theirs_in, ours_in) = pipe_with(PipeFlags::CLOEXEC).map_err(std::io::Error::from)?;
        if !matches!(stdin, Source::Null) {
            let stop = stop.clone();
            spawn(move || feed(stdin, &ours_in, &stop))?;
        }
        let [out, err] = &captured;
        let theirs_out = Self::output(stdout, out, (&stop, hold), &done)?;
        let theirs_err = Self::output(stderr, err, (&stop, hold), &done)?;
        Ok((Self { stop, finished, outputs: 2, hold: hold.clone(), captured }, [theirs_in, theirs_out, theirs_err]))
    }

    fn output(
        sink: Sink,
        into: &Arc<Mutex<Captured>>,
        (stop, hold): (&Arc<OwnedFd>, &Arc<Hold>),
        done: &mpsc::Sender<()>,
    ) -> Result<OwnedFd> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(std::io::Error::from)?;
        let (into, stop, hold, done) = (into.clone(), stop.clone(), hold.clone(), done.clone());
        spawn(move || {
            drain(&ours, &sink, &into, &stop, &hold);
            // Nobody listens any more where the run was given up.
            let _ = done.send(());
        })?;
        Ok(theirs)
    }

    /// Called when the program has ended: waits a little for its last output, and gives back what was captured.
    pub fn finish(mut self) -> [Captured; 2] {
        // What is held back is written when it is let go, also after this: the program's end must not wait for a human.
        let deadline = Instant::now() + TRAIL;
        while self.outputs > 0 && self.finished.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {
            self.outputs -= 1;
        }
        self.end();
        // However long the reader takes: nothing of a program is written once its end is told, or it could write what is said about it.
        while self.outputs > 0 && !self.hold.is_held() {
            match self.finished.recv_timeout(TRAIL) {
                Ok(()) => self.outputs -= 1,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        self.captured.each_ref().map(|one| std::mem::take(&mut *one.lock()))
    }

    fn end(&self) {
        // A full counter means that it was signalled already.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name("creto-stdio".into()).stack_size(256 * 1024).spawn(work)?;
    Ok(())
}

/// What waiting for a descriptor came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ready {
    /// It is ready.
    Yes,
    /// It is ready, and it is time to stop.
    Trailing,
    /// It is time to stop.
    No,
}

/// Waits until `fd` is ready, or it is time to stop.
fn ready(fd: &impl AsFd, flags: PollFlags, stop: &OwnedFd) -> Ready {
    loop {
        let mut both = [PollFd::new(fd, flags), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut both, None) {
            Err(Errno::INTR) => {}
            Err(_) => return Ready::No,
            Ok(_) => {
                let [fd, stop] = both;
                match (fd.revents().is_empty(), stop.revents().is_empty()) {
                    (false, true) => return Ready::Yes,
                    (false, false) => return Ready::Trailing,
                    (true, false) => return Ready::No,
                    (true, true) => {}
                }
            }
        }
    }
}

fn feed(source: Source, pipe: &OwnedFd, stop: &OwnedFd) {
    match source {
        Source::Null => {}
        Source::Bytes(bytes) => drop(pass_on(&bytes, pipe, stop)),
        Source::Descriptor(from) => {
            let mut buffer = vec![0; 65_536];
            while ready(&from, PollFlags::IN, stop) == Ready::Yes {
                match rustix::io::read(&from, &mut buffer) {
                    Ok(0) => return,
                    Ok(got) if pass_on(buffer.get(..got).unwrap_or_default(), pipe, stop) => {}
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Ok(_) | Err(_) => return,
                }
            }
        }
    }
}

/// Writes in pieces that a pipe takes whole, so that a program which does not read cannot hold the thread.
fn pass_on(bytes: &[u8], pipe: &OwnedFd, stop: &OwnedFd) -> bool {
    for piece in bytes.chunks(4096) {
        if ready(pipe, PollFlags::OUT, stop) != Ready::Yes || rustix::io::retry_on_intr(|| rustix::io::write(pipe, piece)).is_err() {
            return false;
        }
    }
    true
}

fn drain(pipe: &OwnedFd, sink: &Sink, into: &Mutex<Captured>, stop: &OwnedFd, hold: &Hold) {
    let mut buffer = vec![0; 65_536];
    let mut trailing = 0;
    loop {
        match ready(pipe, PollFlags::IN, stop) {
            Ready::Yes => {}
            Ready::Trailing if trailing < MOST_TRAILING => trailing += buffer.len(),
            Ready::Trailing | Ready::No => return,
        }
        let got = match rustix::io::read(pipe, &mut buffer) {
            Ok(0) => return,
            Ok(got) => buffer.get(..got).unwrap_or_default(),
            Err(Errno::INTR) => continue,
            Err(_) => return,
        };
        match sink {
            Sink::Null => {}
            Sink::Capture => {
                let mut captured = into.lock();
                let room = MOST_CAPTURED.saturating_sub(captured.bytes.len()).min(got.len());
                captured.truncated |= room < got.len();
                captured.bytes.extend_from_slice(got.get(..room).unwrap_or_default());
            }
            // Where nobody reads any more, the program gets its broken pipe.
            Sink::Descriptor(to) => {
                if !hold.write(|| write_all(to, got)) {
                    return;
                }
            }
        }
    }
}

fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(to, PollFlags::OUT)], None)),
            Err(_) => return false,
        }
    }
    true
}
