//! What the tests of Switchyard stand on.

pub mod apiserver;
