//! The resources of kubepbx.io and the compiler that turns them into configuration.
