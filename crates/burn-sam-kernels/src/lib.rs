//! The two tensor operations under [SAM](https://arxiv.org/abs/2010.01412), on any Burn backend.
//!
//! A sharpness-aware step needs one number of all gradients together, and one update of each
//! parameter:
//!
//! 1. the squared norm of the gradients, [`portable::sum_of_squares`] for each parameter and
//!    [`portable::total`] over them;
//! 2. the perturbation w + rho T² g / (norm + eps), with the shared factor in a
//!    [`portable::Scale`] and [`portable::perturb`] for each parameter.
//!
//! T is 1 for plain SAM and |w| + eta, elementwise, for adaptive SAM
//! ([ASAM](https://arxiv.org/abs/2102.11600)).
//!
//! Nothing here reads a value back to the host: whether the norm is finite is decided on the
//! device. Users of SAM want the `burn-sam` crate; this one is its lower half.

pub mod portable;
