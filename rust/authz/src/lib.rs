//! Cedar policies compiled to a decision engine.
