//! The conference service: core and driver.
