//! F-SAM, algorithm 1 of arXiv 2403.12350: along what a batch's gradient has of its own,
//!
//! ```text
//! d = g - sigma m,    m <- lambda m + (1 - lambda) g
//! ```

use burn_sam_kernels::Vector;

use super::way::{Direction, From, Way};
use crate::method::check;
use crate::method::keep::{How, Keep};

pub(super) struct Friendly {
    pub(super) sigma: f64,
    pub(super) lambda: f64,
}

impl Way for Friendly {
    fn check(&self) -> Result<(), String> {
        check::size("ascent.friendly.sigma", self.sigma)?;
        check::part("ascent.friendly.lambda", self.lambda)
    }

    fn keeps(&self) -> Option<Keep> {
        Some(Keep::new("average", How::Mean { decay: self.lambda }))
    }

    fn direction(&self, from: From<'_>) -> Direction {
        let g = from.gradient;
        match from.kept {
            None => Direction::Gradient(g),
            Some(m) => Direction::Along(g.combine(1.0, &[(&m, -self.sigma)])),
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
    fn what_the_average_has_is_left_out() {
        let friendly = Friendly {
            sigma: 0.5,
            lambda: 0.9,
        };
        let from = |kept| From {
            gradient: vector(&[3.0, -1.0]),
            kept,
            noise: &Vector::new,
        };
        let Direction::Along(d) = friendly.direction(from(Some(vector(&[2.0, 4.0])))) else {
            panic!("no gradient any more")
        };
        assert_eq!(values(&d), [2.0, -3.0]);
        // The first step has no average yet.
        assert!(matches!(
            friendly.direction(from(None)),
            Direction::Gradient(_)
        ));
    }
}
