//! The ports: all that products see of each other.

mod approver;
mod audit;
mod authorizer;
mod clock;
mod precedents;
mod quota;
mod transport;

pub use approver::Approver;
pub use audit::{AuditSink, Durability, Ticket};
pub use authorizer::{AuditWhen, Authorizer, Verdict};
pub use clock::Clock;
pub use precedents::{Precedent, Precedents};
pub use quota::{QuotaEnforcer, QuotaPath, ReservationId};
pub use transport::Transport;
