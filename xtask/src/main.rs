//! Set-up, demo, test and build commands.
fn main() {}
