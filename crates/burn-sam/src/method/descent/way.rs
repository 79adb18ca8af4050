//! What a descent is made of.

use burn_sam_kernels::{Number, Vector};

use crate::method::keep::Keep;

/// What a descent is.
pub(crate) trait Way {
    /// What is out of range.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// What is kept from step to step.
    fn keeps(&self) -> Option<Keep> {
        None
    }

    /// What is made of h and g.
    fn of(&self) -> Of;

    /// What is made of h where there is no g, if it can do without.
    fn alone(&self) -> Option<Alone> {
        None
    }

    /// What a step with the gradients g at w and h at w + e(w) finds out for the update.
    fn report(&self, _g: &Vector, _h: &Vector) -> Option<Vector> {
        None
    }
}

/// What is made of gradients h of which there are none at w: a share, given what is kept of those before.
#[derive(Clone, Copy)]
pub(crate) struct Alone {
    /// Of what is kept, NaN at first, and |h|.
    pub(crate) share: fn(kept: &Number, h: &Number) -> Number,
    /// What is reported of |h|, so that a mean can be taken over micro-batches and devices.
    pub(crate) report: fn(kept: &Number, h: &Number) -> Number,
    /// What is kept after a step, of what was and that mean.
    pub(crate) next: fn(kept: Number, mean: Number) -> Number,
}

/// What is made of the gradients g at w and h at w + e(w).
pub(crate) enum Of {
    /// h.
    Climbed,
    /// A share of h, which is the least where h is long: of |g|² and |h|². Of g, no more need be known.
    Lengths(fn(gg: &Number, hh: &Number) -> Number),
    /// x h + y g, with x and y made of <g, g>, <g, h> and <h, h>.
    Both(Box<dyn Fn([Number; 3]) -> [Number; 2]>),
}
