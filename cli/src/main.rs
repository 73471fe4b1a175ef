//! The `kubepbx` command.
fn main() {}
