//! GSAM, algorithm 1 of arXiv 2203.08065: h, less alpha times the part of g that is orthogonal to h,
//!
//! ```text
//! h - alpha (g - <g, h> / |h|² h)
//! ```

use burn_sam_kernels::Number;

use super::way::{Of, Way};
use crate::method::check;

pub(super) struct Gsam {
    pub(super) alpha: f64,
}

impl Way for Gsam {
    fn check(&self) -> Result<(), String> {
        check::size("descent.gsam.alpha", self.alpha)
    }

    fn of(&self) -> Of {
        let alpha = self.alpha;
        Of::Both(Box::new(move |[_, gh, hh]| {
            // Of an h of zero, nothing is to be taken away.
            let along = (gh / hh).or(0.0);
            [along * alpha + 1.0, Number::from(-alpha)]
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::tests::PLACES;

    #[test]
    fn the_orthogonal_part_of_g_is_taken_away() {
        // g = (1, 2), h = (2, 0): <g, h> / |h|² = 1 / 2, and g - h / 2 = (0, 2).
        let Of::Both(of) = Gsam { alpha: 0.1 }.of() else {
            panic!("of both")
        };
        for number in PLACES {
            let [x, y] = of([5.0, 2.0, 4.0].map(number)).map(|number| number.read());
            let along = |g: f64, h: f64| x * h + y * g;
            assert!((along(1.0, 2.0) - 2.0).abs() < 1e-12);
            assert!((along(2.0, 0.0) + 0.2).abs() < 1e-12);
            let [x, _] = of([5.0, 0.0, 0.0].map(number)).map(|number| number.read());
            assert_eq!(x, 1.0);
        }
    }
}
