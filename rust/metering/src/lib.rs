//! Quota, usage aggregation, rating.
