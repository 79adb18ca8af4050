//! Sharpness-aware minimization ([SAM](https://arxiv.org/abs/2010.01412)) for
//! [Burn](https://burn.dev).
//!
//! Networks that end in a flat minimum, where the loss stays low all around the weights,
//! generalize better than those that end in a sharp one. SAM looks for flat minima: each step
//! takes the gradient g at the weights w, climbs to the worst place nearby,
//!
//! ```text
//! w + e(w),  e(w) = rho * g / (|g| + eps),
//! ```
//!
//! takes the gradient there, and lets an optimizer (SGD, Adam, any of Burn's) apply it to w. That
//! costs a second forward and backward pass.
//!
//! There are two ways to use it, on every backend of Burn's:
//!
#![cfg_attr(
    feature = "train",
    doc = "* in Burn's `Learner`, with the feature `train`: [`SamConfig::init`] wraps the model;"
)]
#![cfg_attr(
    not(feature = "train"),
    doc = "* in Burn's `Learner`, with the feature `train`: `SamConfig::init` wraps the model;"
)]
//! * in a loop of your own: [`SamConfig::first_step`] and [`Climbed::second_step`], around any of
//!   Burn's optimizers.
//!
//! # What happens when
//!
//! | case | what happens |
//! | --- | --- |
//! | the norm \|g\| | is over every parameter that has a gradient, all groups and devices together; in f64 for f64 gradients, in f32 for all others; it is never read back to the host |
//! | a parameter has no gradient in the first pass | it is not perturbed |
//! | a parameter has no gradient in the second pass | the base optimizer leaves it at w |
//! | all gradients are zero | nothing is perturbed |
//! | a loss of another module, or of another state of it | a panic in the step that gets its gradients, which says what to do |
//! | a group with a rho of its own that matches no parameter | a panic at the first step, with the parameters' paths |
//! | the norm is not finite | nothing is perturbed; what the base optimizer then gets is the second pass's gradients, as they are |
//! | batch normalization | its running statistics are updated once a step, by the first pass; by the second one, which sees the whole batch, with an ascent fraction below 1; with [`auto`](SamConfig::auto) by the steps whose one pass is at w, the first 20 and each 20th |
//! | dropout | each pass draws its own masks |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod climbed;
mod config;
mod diagnostics;
mod flatness;
#[cfg(feature = "train")]
mod learner;
mod method;
mod optimizer;
mod part;
mod step;
mod steps;

pub use climbed::Climbed;
pub use config::SamConfig;
pub use flatness::{
    Axis, Direction, Eigenvalue, Estimate, Flatness, FlatnessError, LossCurve, LossSurface,
};
#[cfg(feature = "plot")]
pub use flatness::{Picture, PictureError};
#[cfg(feature = "train")]
pub use learner::{LossAtWMetric, RhoMetric, SamModel, SharpnessMetric};
pub use method::{Ascent, Between, Descent, Radius};
pub use optimizer::SamOptimizer;
pub use part::AscentPart;
pub use step::Passes;
pub use steps::{Loss, SamSteps};
