//! The router service: core and driver.
