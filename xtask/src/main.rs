//! Checks that must not rot.
fn main() {}
