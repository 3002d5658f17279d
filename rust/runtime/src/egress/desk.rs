//! Where connections wait for a decision. The desk decides nothing: it hands out questions, takes answers by id, and remembers a question
//! whose connection gave up waiting, so that the next attempt attaches to it instead of asking a human twice.

use creto_enablement_common::sync::{Condvar, Mutex};
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// How long an answer that came too late waits for the next attempt.
const KEEP: Duration = Duration::from_secs(300);
/// Notices beyond this are dropped, oldest first; questions never are, connections being limited.
const MOST_NOTICES: usize = 4096;

/// A plain HTTP request, as it is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// `GET`
    pub method: String,
    /// Path and query.
    pub target: String,
}

/// Where a program wants to go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Name, in its normal form.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// `http` or `https` where the first bytes say so.
    pub scheme: Option<&'static str>,
    /// On a connection that was agreed to already: what it is to carry next.
    pub request: Option<Request>,
}

/// What the holder of the sandbox gets to know, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// May this connection be made? Answer by id.
    Ask {
        /// Names the question.
        id: u64,
        /// Where to.
        destination: Destination,
        /// The question that let the connection through, where this one is about what it carries.
        on: Option<u64>,
    },
    /// Refused here, whatever policy says, since the topology has no such way.
    Refused {
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
        /// Why.
        reason: String,
    },
    /// An agreed connection ended.
    Closed {
        /// The question that let it through.
        id: u64,
        /// Bytes to the server.
        sent: u64,
        /// Bytes from the server.
        received: u64,
        /// What went wrong, if anything did.
        error: Option<String>,
    },
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go ahead, once, under this id.
    Allowed(u64),
    /// No.
    Denied,
    /// No answer yet: the question stays open.
    Pending,
}

type Listener = Box<dyn FnOnce(Option<Event>) + Send>;

struct Answer {
    to: Destination,
    allowed: bool,
    at: Instant,
    /// Whether a connection waits for it, and is about to wake up.
    waited: bool,
}

#[derive(Default)]
struct State {
    next: u64,
    events: VecDeque<Event>,
    listener: Option<Listener>,
    /// Open questions, and whether a connection waits at each.
    open: HashMap<u64, (Destination, bool)>,
    /// Answers that nobody has taken yet.
    answers: HashMap<u64, Answer>,
    /// Connections that are to end.
    withdrawn: HashSet<u64>,
    closed: bool,
}

/// The questions of one sandbox.
#[derive(Default)]
pub struct Desk {
    state: Mutex<State>,
    changed: Condvar,
}

impl Desk {
    /// Asks and waits up to `patience`. `on` is the question that let the connection through, where this one is about what it carries.
    pub fn ask(&self, destination: &Destination, on: Option<u64>, patience: Duration) -> Verdict {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock();
        if state.closed {
            return Verdict::Denied;
        }
        state.answers.retain(|_, answer| answer.at.elapsed() < KEEP);
        let late = state.answers.iter().find(|(_, answer)| answer.to == *destination && !answer.waited).map(|(id, _)| *id);
        if let Some((id, answer)) = late.and_then(|id| state.answers.remove_entry(&id)) {
            return if answer.allowed { Verdict::Allowed(id) } else { Verdict::Denied };
        }
        let orphan = state.open.iter().find(|(_, (to, waited))| to == destination && !waited).map(|(id, _)| *id);
        let id = orphan.unwrap_or_else(|| {
            state.next += 1;
            let id = state.next;
            self.post(&mut state, Event::Ask { id, destination: destination.clone(), on });
            id
        });
        state.open.insert(id, (destination.clone(), true));
        loop {
            if let Some(answer) = state.answers.remove(&id) {
                return if answer.allowed { Verdict::Allowed(id) } else { Verdict::Denied };
            }
            if state.closed {
                return Verdict::Denied;
            }
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                if let Some((_, waited)) = state.open.get_mut(&id) {
                    *waited = false;
                    return Verdict::Pending;
                }
                return match state.answers.remove(&id) {
                    Some(answer) if answer.allowed => Verdict::Allowed(id),
                    _ => Verdict::Denied,
                };
            }
        }
    }

    /// Answers a question; false where there is no such open question.
    pub fn answer(&self, id: u64, allowed: bool) -> bool {
        let mut state = self.state.lock();
        let Some((to, waited)) = state.open.remove(&id) else { return false };
        state.answers.insert(id, Answer { to, allowed, at: Instant::now(), waited });
        self.changed.notify_all();
        true
    }

    /// Takes a yes back: it lets nothing through any more, and what it let through ends.
    pub fn withdraw(&self, id: u64) {
        let mut state = self.state.lock();
        if state.answers.remove(&id).is_none() {
            state.withdrawn.insert(id);
        }
    }

    /// Whether the yes that let a connection through was taken back.
    pub fn is_withdrawn(&self, id: u64) -> bool {
        self.state.lock().withdrawn.contains(&id)
    }

    /// Tells the holder something.
    pub fn tell(&self, event: Event) {
        let mut state = self.state.lock();
        if let Event::Closed { id, .. } = event {
            state.withdrawn.remove(&id);
        }
        self.post(&mut state, event);
    }

    fn post(&self, state: &mut State, event: Event) {
        if let Some(listener) = state.listener.take() {
            listener(Some(event));
            return;
        }
        if state.events.len() >= MOST_NOTICES
            && let Some(at) = state.events.iter().position(|e| !matches!(e, Event::Ask { .. }))
        {
            state.events.remove(at);
        }
        state.events.push_back(event);
    }

    /// Calls `listener` with the next event, at once if there is one, or with none when the sandbox has ended. One listener at a time.
    pub fn next(&self, listener: Listener) {
        let mut state = self.state.lock();
        if let Some(event) = state.events.pop_front() {
            return listener(Some(event));
        }
        if state.closed {
            return listener(None);
        }
        if let Some(earlier) = state.listener.replace(listener) {
            earlier(None);
        }
    }

    /// Ends all waiting: every open question counts as denied.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.open.clear();
        if let Some(listener) = state.listener.take() {
            listener(None);
        }
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn to(host: &str) -> Destination {
        Destination { host: host.into(), port: 443, scheme: Some("https"), request: None }
    }

    #[test]
    fn the_next_attempt_attaches_to_the_question_that_was_given_up() {
        let desk = Arc::new(Desk::default());
        assert_eq!(desk.ask(&to("a.example"), None, Duration::from_millis(10)), Verdict::Pending);
        let again = std::thread::spawn({
            let desk = desk.clone();
            move || desk.ask(&to("a.example"), None, Duration::from_secs(5))
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(desk.answer(1, true));
        assert_eq!(again.join().unwrap(), Verdict::Allowed(1));
        let asked = desk.state.lock().events.iter().filter(|e| matches!(e, Event::Ask { .. })).count();
        assert_eq!(asked, 1);
    }

    #[test]
    fn an_answer_that_came_too_late_serves_one_attempt_and_no_more() {
        let desk = Desk::default();
        assert_eq!(desk.ask(&to("a.example"), None, Duration::ZERO), Verdict::Pending);
        assert!(desk.answer(1, true));
        assert!(!desk.answer(1, true));
        assert_eq!(desk.ask(&to("a.example"), None, Duration::ZERO), Verdict::Allowed(1));
        assert_eq!(desk.ask(&to("a.example"), None, Duration::ZERO), Verdict::Pending);
        assert_eq!(desk.ask(&to("b.example"), None, Duration::ZERO), Verdict::Pending);
    }

    #[test]
    fn an_answer_that_is_waited_for_is_nobody_elses() {
        let desk = Desk::default();
        // As between an answer and the moment when the connection that waits for it runs again.
        desk.state.lock().next = 1;
        desk.state.lock().open.insert(1, (to("a.example"), true));
        assert!(desk.answer(1, true));
        assert_eq!(desk.ask(&to("a.example"), None, Duration::ZERO), Verdict::Pending);
        assert!(desk.state.lock().answers.contains_key(&1));
    }

    #[test]
    fn a_yes_that_is_taken_back_serves_no_attempt_and_ends_what_it_let_through() {
        let desk = Desk::default();
        assert_eq!(desk.ask(&to("a.example"), None, Duration::ZERO), Verdict::Pending);
        assert!(desk.answer(1, true));
        desk.withdraw(1);
        assert!(!desk.is_withdrawn(1), "there is no connection yet");
        assert_eq!(desk.ask(&to("a.example"), None, Duration::ZERO), Verdict::Pending);
        assert!(desk.answer(2, true));
        assert_eq!(desk.ask(&to("a.example"), None, Duration::ZERO), Verdict::Allowed(2));
        desk.withdraw(2);
        assert!(desk.is_withdrawn(2));
        desk.tell(Event::Closed { id: 2, sent: 0, received: 0, error: None });
        assert!(!desk.is_withdrawn(2));
    }

    #[test]
    fn closing_denies_whoever_waits() {
        let desk = Arc::new(Desk::default());
        let waiting = std::thread::spawn({
            let desk = desk.clone();
            move || desk.ask(&to("a.example"), None, Duration::from_secs(5))
        });
        std::thread::sleep(Duration::from_millis(50));
        desk.close();
        assert_eq!(waiting.join().unwrap(), Verdict::Denied);
    }
}
