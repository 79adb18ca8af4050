//! SAM, equation 2 of arXiv 2010.01412: along the gradient at w.

use super::way::{Direction, From, Way};

pub(super) struct Gradient;

impl Way for Gradient {
    fn direction(&self, from: From<'_>) -> Direction {
        Direction::Gradient(from.gradient)
    }
}
