//! The states of a request, and the one place that says which step may follow which.

use core::fmt;
use creto_enablement_common::{Error, ErrorKind, Result};

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Written down, not yet shown to anyone.
    Requested,
    /// Waits for an answer.
    Pending,
    /// Every policy that asks has a grant.
    Approved,
    /// An approver said no.
    Denied,
    /// Nobody answered in time, or the grant was not used in time.
    Expired,
    /// Whoever asked no longer wants it.
    Cancelled,
    /// The grant is used up; the act is being done.
    Executing,
    /// It was done.
    Executed,
    /// It was not done, or not wholly.
    Failed,
    /// It started, and nobody knows how it ended; never run again by itself.
    Unknown,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// It is shown to the approvers.
    Announce,
    /// The last grant that was missing was given.
    Approve,
    /// An approver said no.
    Deny,
    /// Its time is over.
    Expire,
    /// Whoever asked takes it back.
    Cancel,
    /// The grant is consumed.
    Execute,
    /// The act was done.
    Succeed,
    /// The act was not done.
    Fail,
    /// The process that did it is gone, and left an intent without an outcome.
    Lose,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 10] = [
        Self::Requested,
        Self::Pending,
        Self::Approved,
        Self::Denied,
        Self::Expired,
        Self::Cancelled,
        Self::Executing,
        Self::Executed,
        Self::Failed,
        Self::Unknown,
    ];

    /// The state after `event`.
    ///
    /// # Errors
    /// `InvalidInput` where that may not happen in this state.
    pub fn after(self, event: Event) -> Result<Self> {
        Ok(match (self, event) {
            (Self::Requested, Event::Announce) => Self::Pending,
            (Self::Pending, Event::Approve) => Self::Approved,
            (Self::Pending, Event::Deny) => Self::Denied,
            (Self::Requested | Self::Pending | Self::Approved, Event::Expire) => Self::Expired,
            (Self::Requested | Self::Pending | Self::Approved, Event::Cancel) => Self::Cancelled,
            (Self::Approved, Event::Execute) => Self::Executing,
            (Self::Executing, Event::Succeed) => Self::Executed,
            (Self::Executing, Event::Fail) => Self::Failed,
            (Self::Executing, Event::Lose) => Self::Unknown,
            _ => return Err(Error::new(ErrorKind::InvalidInput(format!("a request that is {self} cannot {event}")))),
        })
    }

    /// True where nothing can happen any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Denied | Self::Expired | Self::Cancelled | Self::Executed | Self::Failed | Self::Unknown)
    }

    /// The name, as stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Executing => "executing",
            Self::Executed => "executed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    /// The state of that name.
    ///
    /// # Errors
    /// `InvalidInput` where there is none.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|state| state.name() == name)
            .ok_or_else(|| Error::invalid(format!("`{name}` is not a state of a request")))
    }
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 9] =
        [Self::Announce, Self::Approve, Self::Deny, Self::Expire, Self::Cancel, Self::Execute, Self::Succeed, Self::Fail, Self::Lose];

    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Approve => "approve",
            Self::Deny => "deny",
            Self::Expire => "expire",
            Self::Cancel => "cancel",
            Self::Execute => "execute",
            Self::Succeed => "succeed",
            Self::Fail => "fail",
            Self::Lose => "lose",
        }
    }

    /// The event of that name.
    ///
    /// # Errors
    /// `InvalidInput` where there is none.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|event| event.name() == name)
            .ok_or_else(|| Error::invalid(format!("`{name}` cannot happen to a request")))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Announce => "be announced",
            Self::Approve => "be approved",
            Self::Deny => "be denied",
            Self::Expire => "expire",
            Self::Cancel => "be cancelled",
            Self::Execute => "be executed",
            Self::Succeed => "succeed",
            Self::Fail => "fail",
            Self::Lose => "be lost",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_a_final_state() {
        for state in State::ALL.into_iter().filter(|state| state.is_final()) {
            for event in Event::ALL {
                assert!(state.after(event).is_err(), "{state} {event}");
            }
        }
    }

    #[test]
    fn every_other_state_leads_to_a_final_one() {
        for state in State::ALL.into_iter().filter(|state| !state.is_final()) {
            let mut reached = vec![state];
            while let Some(next) = reached.iter().flat_map(|s| Event::ALL.map(|e| s.after(e))).flatten().find(|s| !reached.contains(s)) {
                reached.push(next);
            }
            assert!(reached.iter().any(|s| s.is_final()), "{state}");
        }
    }

    #[test]
    fn an_act_starts_only_from_an_approved_request() {
        for state in State::ALL {
            assert_eq!(state.after(Event::Execute).is_ok(), state == State::Approved, "{state}");
        }
    }

    #[test]
    fn a_refused_step_says_what_cannot_be() {
        let error = State::Executed.after(Event::Approve).unwrap_err();
        assert_eq!(error.to_string(), "invalid input: a request that is executed cannot be approved");
    }
}
