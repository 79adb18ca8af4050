//! What a backend is asked for.

#![cfg_attr(
    not(any(feature = "cube", feature = "flex", feature = "ndarray")),
    allow(dead_code, reason = "no backend is there to ask")
)]

/// What a vector is that a [`Path`](crate::Path) goes along.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Along {
    /// A gradient, or anything like it.
    Gradient {
        /// `None` for plain SAM, with a T of 1, or the eta of ASAM's T = |w| + eta.
        eta: Option<f64>,
    },
    /// The weights before an update: the way is from there to w.
    Update,
}

/// What is summed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reduction {
    /// As [`Path::squared_length`](crate::Path::squared_length), over gradients; the second list is the weights, or empty
    /// without `eta`.
    SquaredNorm { eta: Option<f64> },
    /// The sum of (b - a)².
    SquaredDistance,
    /// <a, a>, <a, b> and <b, b>, of shape `[3]`.
    InnerProducts,
    /// <a, a> and <a, b - c>, of shape `[2]`; the third list follows the second one.
    Slope,
}

/// What is written.
#[derive(Clone, Debug)]
pub(crate) enum Update {
    /// As [`Path::end`](crate::Path::end), over gradients from weights, with a rho for each parameter. The
    /// scalars are the squared norm and, if there is one, a factor of all rhos.
    Perturb {
        rhos: Vec<f64>,
        eps: f64,
        along: Along,
    },
    /// As [`Vector::combine`](crate::Vector::combine), over the first terms from the second ones, which the third ones follow
    /// in the list if there are any. The scalars are the coefficients.
    Combine,
}
