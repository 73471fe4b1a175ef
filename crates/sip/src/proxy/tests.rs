//! Tests of the proxy rules.
