//! What passes from the writer to the publisher: frames that are on disk, and never a reason for the writer to wait.
//!
//! Only so many bytes of frames are held in memory. Where the publisher falls further behind, it reads the rest from the segments.

use creto_enablement_common::sync::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::Duration;

/// The most bytes of frames that are held for the publisher.
const MOST: usize = 32 << 20;
/// Emptied buffers that are kept for the writer.
const SPARE: usize = 4;

/// Frames of one write, all of which are on disk.
pub struct Frames {
    /// The first record.
    pub first: u64,
    /// The record after the last.
    pub next: u64,
    /// Nothing but frames.
    pub bytes: Vec<u8>,
}

/// What the publisher is to do next.
pub enum Work {
    /// Take these.
    Frames(Frames),
    /// Read from the segments up to this record, which is not among them.
    Behind(u64),
    /// Publish all that came before, now.
    Publish,
    /// Publish, make durable, end.
    Close,
    /// Nothing has come for as long as it was waited.
    Idle,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Frames>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
    /// Records that are on disk.
    durable: u64,
    segments_ended: bool,
    publish: bool,
    close: bool,
}

/// The place between the two.
#[derive(Default)]
pub struct Handover {
    state: Mutex<State>,
    come: Condvar,
}

impl Handover {
    /// Begins with so many records on disk.
    pub fn new(durable: u64) -> Self {
        Self { state: Mutex::new(State { durable, ..State::default() }), come: Condvar::new() }
    }

    /// Hands frames over and returns an empty buffer for the next ones.
    pub fn offer(&self, mut frames: Frames) -> Vec<u8> {
        let mut state = self.state.lock();
        state.durable = frames.next;
        let mut empty = if state.bytes + frames.bytes.len() <= MOST {
            state.bytes += frames.bytes.len();
            state.frames.push_back(frames);
            state.spare.pop().unwrap_or_default()
        } else {
            std::mem::take(&mut frames.bytes)
        };
        drop(state);
        self.come.notify_one();
        empty.clear();
        empty
    }

    /// An emptied buffer comes back.
    pub fn give_back(&self, bytes: Vec<u8>) {
        let mut state = self.state.lock();
        if state.spare.len() < SPARE {
            state.spare.push(bytes);
        }
    }

    /// A segment before the present one is complete.
    pub fn segment_ended(&self) {
        self.state.lock().segments_ended = true;
    }

    /// True where a segment has ended since last asked.
    pub fn take_segments_ended(&self) -> bool {
        std::mem::take(&mut self.state.lock().segments_ended)
    }

    /// Asks for a checkpoint over all that was offered.
    pub fn publish(&self) {
        self.state.lock().publish = true;
        self.come.notify_one();
    }

    /// Asks for the end.
    pub fn close(&self) {
        self.state.lock().close = true;
        self.come.notify_one();
    }

    /// What is next for a publisher that has taken `taken` records; waits at most so long for it.
    pub fn next(&self, taken: u64, most: Duration) -> Work {
        let mut state = self.state.lock();
        for waited in [false, true] {
            while let Some(frames) = state.frames.pop_front() {
                state.bytes -= frames.bytes.len();
                if frames.first == taken {
                    return Work::Frames(frames);
                }
                if frames.first > taken {
                    // What lies between was not held.
                    let until = frames.first;
                    state.bytes += frames.bytes.len();
                    state.frames.push_front(frames);
                    return Work::Behind(until);
                }
            }
            if state.durable > taken {
                return Work::Behind(state.durable);
            }
            if std::mem::take(&mut state.publish) {
                return Work::Publish;
            }
            if state.close {
                return Work::Close;
            }
            if !waited {
                self.come.wait_for(&mut state, most);
            }
        }
        Work::Idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(handover: &Handover, first: u64, length: usize) {
        handover.offer(Frames { first, next: first + 1, bytes: vec![0; length] });
    }

    #[test]
    fn frames_come_in_order_and_those_that_were_not_held_are_read_from_the_segments() {
        let handover = Handover::new(0);
        for first in 0..4 {
            // The third does not fit any more, the fourth does.
            offer(&handover, first, if first == 3 { 10 } else { MOST / 2 - 100 });
        }
        let now = Duration::ZERO;
        assert!(matches!(handover.next(0, now), Work::Frames(Frames { first: 0, .. })));
        assert!(matches!(handover.next(1, now), Work::Frames(Frames { first: 1, .. })));
        assert!(matches!(handover.next(2, now), Work::Behind(3)));
        handover.publish();
        assert!(matches!(handover.next(3, now), Work::Frames(Frames { first: 3, .. })));
        assert!(matches!(handover.next(4, now), Work::Publish));
        assert!(matches!(handover.next(4, now), Work::Idle));
        handover.close();
        assert!(matches!(handover.next(4, now), Work::Close));
    }

    #[test]
    fn frames_that_were_read_from_the_segments_are_not_taken_twice() {
        let handover = Handover::new(0);
        offer(&handover, 0, MOST + 1);
        offer(&handover, 1, 10);
        assert!(matches!(handover.next(0, Duration::ZERO), Work::Behind(1)));
        assert!(matches!(handover.next(2, Duration::ZERO), Work::Idle));
    }
}
