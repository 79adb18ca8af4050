//! What a method keeps from step to step, in words that name no method.

use burn::tensor::Tensor;

/// A vector of the weights' size that is kept from step to step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    /// Its name in paths.
    pub(crate) name: &'static str,
    pub(crate) how: How,
    /// What records had in its place before.
    pub(crate) former: Option<Former>,
}

/// Where the vector comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum How {
    /// It is the weights before the last update.
    Before,
    /// It is a running mean of what steps report: so much of the old mean stays. It begins with the first report, or
    /// with 0 if that is not finite.
    Mean {
        /// From 0 to below 1.
        decay: f64,
    },
    /// It is the last report.
    Last,
    /// It is nothing, but a way for a report to the update, which then moves the weights by minus the learning rate
    /// times this times the report.
    Moves {
        /// How much.
        times: f64,
    },
}

/// Another vector that older records have, and what it is turned into, given the weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Former {
    pub(crate) name: &'static str,
    pub(crate) turn: fn(Tensor<1>, Tensor<1>) -> Tensor<1>,
}

impl Keep {
    pub(crate) const fn new(name: &'static str, how: How) -> Self {
        Self {
            name,
            how,
            former: None,
        }
    }
}
