//! MNIST, and a network for it.

pub mod corruptions;
pub mod data;
pub mod model;
