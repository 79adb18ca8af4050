//! VaSSO, arXiv 2309.15639: along a running mean of the gradients, which has less of a batch's noise,
//!
//! ```text
//! d <- (1 - theta) d + theta g
//! ```

use burn_sam_kernels::Vector;

use super::way::{Direction, From, Way};
use crate::method::check;
use crate::method::keep::{How, Keep};

pub(super) struct Smoothed {
    pub(super) theta: f64,
}

impl Way for Smoothed {
    fn check(&self) -> Result<(), String> {
        check::fraction("ascent.vasso.theta", self.theta)
    }

    fn keeps(&self) -> Option<Keep> {
        let decay = 1.0 - self.theta;
        Some(Keep::new("direction", How::Mean { decay }))
    }

    fn direction(&self, from: From<'_>) -> Direction {
        let g = from.gradient;
        match from.kept {
            None => Direction::Gradient(g),
            Some(d) => Direction::Along(g.combine(self.theta, &[(&d, 1.0 - self.theta)])),
        }
    }

    fn report(&self, g: &Vector) -> Option<Vector> {
        Some(g.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::tests::{values, vector};

    #[test]
    fn a_quarter_of_the_new_gradient_enters() {
        let vasso = Smoothed { theta: 0.25 };
        let from = |kept| From {
            gradient: vector(&[4.0, -8.0]),
            kept,
            noise: &Vector::new,
        };
        let Direction::Along(d) = vasso.direction(from(Some(vector(&[8.0, 4.0])))) else {
            panic!("no gradient any more")
        };
        assert_eq!(values(&d), [7.0, 1.0]);
        // It begins with the first gradient.
        assert!(matches!(
            vasso.direction(from(None)),
            Direction::Gradient(_)
        ));
    }
}
