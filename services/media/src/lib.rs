//! The media service: core and driver.
