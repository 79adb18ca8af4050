//! What a way to climb is made of.

use burn_sam_kernels::Vector;

use crate::method::keep::Keep;

/// What a way to climb is.
pub(crate) trait Way {
    /// What is out of range.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// What is kept from step to step.
    fn keeps(&self) -> Option<Keep> {
        None
    }

    /// If it needs no gradient at w, and so no pass there: what it is.
    fn one_pass(&self) -> Option<OnePass> {
        None
    }

    /// What to climb along.
    fn direction(&self, from: From<'_>) -> Direction;

    /// What a step with the gradients g at w finds out for the steps after.
    fn report(&self, _g: &Vector) -> Option<Vector> {
        None
    }
}

/// A way to climb that takes no gradient at w.
pub(crate) struct OnePass {
    /// As a file has it.
    pub(crate) file: &'static str,
    pub(crate) name: &'static str,
    /// What it does in place of that.
    pub(crate) instead: &'static str,
    /// Whether the slope at w along its way is about nothing, so that the loss rises by half of what the slope at its
    /// end says.
    pub(crate) starts_level: bool,
}

/// What there is to make a direction of.
pub(crate) struct From<'a> {
    /// g at w, if it is taken.
    pub(crate) gradient: Vector,
    /// What is kept, of the parameters that have a gradient, or of all; of the first step, nothing.
    pub(crate) kept: Option<Vector>,
    /// Draws normal values for all parameters that require gradients, in proportion to the norms of their filters.
    pub(crate) noise: &'a dyn Fn() -> Vector,
}

/// What to climb along.
pub(crate) enum Direction {
    /// The gradient at w itself.
    Gradient(Vector),
    /// Another vector.
    Along(Vector),
    /// The update from these weights to w.
    UpdateFrom(Vector),
}
