//! The request state machine, the digest of an act, the grant.
