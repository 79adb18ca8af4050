//! What a way between climbs is made of.

use burn_sam_kernels::Vector;

use crate::method::keep::Keep;

/// What a way between climbs is.
pub(crate) trait Way {
    /// What is out of range.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// What is kept from step to step.
    fn keeps(&self) -> Option<Keep> {
        None
    }

    /// What the base optimizer gets, of the gradients g at w and of what is kept of the same parameters.
    ///
    /// If limited, it is no longer than g.
    fn descent(&self, g: Vector, kept: Option<Vector>, is_limited: bool) -> Vector;

    /// What a step that climbs, with the gradients g at w and h at w + e(w), finds out for the steps after.
    fn report(&self, _g: &Vector, _h: &Vector) -> Option<Vector> {
        None
    }
}
