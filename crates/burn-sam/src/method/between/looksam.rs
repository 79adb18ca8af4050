//! LookSAM, algorithm 1 of arXiv 2203.02714, over the whole model: g with the direction v in which the last climbing
//! step's second gradients h differed from its first ones, g_0,
//!
//! ```text
//! g + alpha |g| / |v| v,    v = h - <g_0, h> / |g_0|² g_0
//! ```

use burn_sam_kernels::{Number, Vector};

use super::way::Way;
use crate::method::check;
use crate::method::keep::{How, Keep};
use crate::method::number::length_limit;

pub(super) struct Looksam {
    pub(super) alpha: f64,
}

impl Way for Looksam {
    fn check(&self) -> Result<(), String> {
        check::size("between.looksam.alpha", self.alpha)
    }

    fn keeps(&self) -> Option<Keep> {
        Some(Keep::new("orthogonal", How::Last))
    }

    fn descent(&self, g: Vector, kept: Option<Vector>, is_limited: bool) -> Vector {
        // A parameter that is new has no part in v, but in |g|.
        let Some(v) = kept.map(|v| v.padded(&g)) else {
            return g;
        };
        let Some([gg, gv, vv]) = g.products(&v) else {
            return g;
        };
        let scale = (&gg / &vv).sqrt() * self.alpha;
        let scale = scale.or_if(&scale.is_not_finite(), 0.0);
        let share = match is_limited {
            true => {
                let changed = &gg + (gv * 2.0 + vv * &scale) * &scale;
                length_limit(&gg, &changed)
            }
            false => Number::from(1.0),
        };
        g.combine(share.clone(), &[(&v, share * scale)])
    }

    /// v, or zero where it is not finite.
    fn report(&self, g: &Vector, h: &Vector) -> Option<Vector> {
        let [gg, gh, _] = g.products(h)?;
        let along = gh / gg;
        let refused = along.is_not_finite();
        let [x, y] = [Number::from(1.0), -along].map(|number| number.or_if(&refused, 0.0));
        let of_both = h.clone().filtered(|place| g.get(place).is_some());
        Some(of_both.combine(x, &[(g, y)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::tests::{values, vector};

    #[test]
    fn g_gets_a_part_of_v() {
        let looksam = Looksam { alpha: 0.5 };
        // <g, h> / |g|² = 2: v = (1, 2) - 2 (0, 1).
        let v = looksam
            .report(&vector(&[0.0, 1.0]), &vector(&[1.0, 2.0]))
            .unwrap();
        assert_eq!(values(&v), [1.0, 0.0]);
        // |g| / |v| = 2.
        let d = looksam.descent(vector(&[0.0, 2.0]), Some(v.clone()), false);
        assert_eq!(values(&d), [1.0, 2.0]);
        // sqrt(5) long, and no longer than 2.
        let d = looksam.descent(vector(&[0.0, 2.0]), Some(v), true);
        let length = values(&d).iter().map(|d| d * d).sum::<f64>().sqrt();
        assert!((length - 2.0).abs() < 1e-12);
        let nothing = looksam.descent(vector(&[0.0, 2.0]), Some(vector(&[0.0, 0.0])), false);
        assert_eq!(values(&nothing), [0.0, 2.0]);
    }
}
