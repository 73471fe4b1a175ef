//! The registrar service: core and driver.
