//! WSAM, algorithm 1 of arXiv 2305.15817: the loss at w plus gamma / (1 - gamma) times its sharpness,
//!
//! ```text
//! (1 - a) g + a h,    a = gamma / (1 - gamma)
//! ```
//!
//! or, decoupled, g alone, with w moved by -lr a (h - g) after the base optimizer's update.

use burn_sam_kernels::{Number, Vector};

use super::way::{Of, Way};
use crate::method::check;
use crate::method::keep::{How, Keep};

pub(super) struct Wsam {
    pub(super) gamma: f64,
    pub(super) decoupled: bool,
}

impl Wsam {
    fn a(&self) -> f64 {
        self.gamma / (1.0 - self.gamma)
    }
}

impl Way for Wsam {
    fn check(&self) -> Result<(), String> {
        check::part("descent.wsam.gamma", self.gamma)
    }

    fn keeps(&self) -> Option<Keep> {
        let how = How::Moves { times: self.a() };
        self.decoupled.then_some(Keep::new("sharpness", how))
    }

    fn of(&self) -> Of {
        let a = if self.decoupled { 0.0 } else { self.a() };
        Of::Both(Box::new(move |_| [a, 1.0 - a].map(Number::from)))
    }

    /// h - g, or nothing where one of them is not finite.
    fn report(&self, g: &Vector, h: &Vector) -> Option<Vector> {
        if !self.decoupled {
            return None;
        }
        let [gg, _, hh] = g.products(h)?;
        let refused = (gg + hh).is_not_finite();
        let [x, y] = [1.0, -1.0].map(|one| Number::from(one).or_if(&refused, 0.0));
        let of_both = h.clone().filtered(|place| g.get(place).is_some());
        Some(of_both.combine(x, &[(g, y)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::tests::{values, vector};

    #[test]
    fn a_gamma_of_two_thirds_counts_sharpness_twice() {
        let wsam = |decoupled| Wsam {
            gamma: 2.0 / 3.0,
            decoupled,
        };
        let Of::Both(of) = wsam(false).of() else {
            panic!("of both")
        };
        let [x, y] = of([1.0; 3].map(Number::from)).map(|number| number.read());
        assert!((x - 2.0).abs() < 1e-12 && (y + 1.0).abs() < 1e-12);

        let Of::Both(of) = wsam(true).of() else {
            panic!("of both")
        };
        assert_eq!(
            of([1.0; 3].map(Number::from)).map(|number| number.read()),
            [0.0, 1.0]
        );
        let (g, h) = (vector(&[1.0, 2.0]), vector(&[4.0, 1.0]));
        let moves = wsam(true).report(&g, &h).unwrap();
        assert_eq!(values(&moves), [3.0, -1.0]);
        let bad = wsam(true).report(&g, &vector(&[f64::NAN, 1.0])).unwrap();
        assert_eq!(values(&bad), [0.0, 0.0]);
    }
}
