//! Tests of digest.
