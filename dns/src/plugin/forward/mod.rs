//! `forward`: asks other servers what this one does not know.

pub mod upstream;
