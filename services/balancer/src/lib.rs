//! The balancer service: core and driver.
