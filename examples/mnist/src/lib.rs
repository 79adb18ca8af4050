//! MNIST, and a network for it.

pub mod data;
pub mod model;
