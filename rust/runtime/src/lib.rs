//! Sandbox launch, supervisor, egress proxy, attestation.
