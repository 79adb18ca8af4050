//! How far to climb: a law a file.

mod constant;
mod law;
mod le_sam;
mod learning_rate;
mod raised;
mod rule;

use serde::{Deserialize, Serialize};

use law::Law;
pub(crate) use law::{At, Factor, Needs, Pace, Seen};

/// How far to climb: how rho changes from step to step. All groups' radii change in proportion.
///
/// From [`SamConfig::with_radius`](crate::SamConfig::with_radius). In a file, it is `"constant"`, `{"raised": {"steps": 200}}`,
/// `{"learning_rate": {"rho_min": 0.01, "lr_min": 0.0, "lr_max": 0.1}}`, `{"le_sam": {"sigma": 0.3}}` or
/// `{"rule": {"rise": 0.7}}`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Radius {
    /// SAM: rho stays as it is.
    Constant,
    /// Rho is raised linearly over the first steps that may climb,
    ///
    /// ```text
    /// rho_t = rho min(1, t / steps),    t = 1, 2, ..
    /// ```
    ///
    /// so that a radius that is too large for fresh weights does not drive them to where all outputs are the
    /// same. A twelfth of the training is a good length.
    Raised {
        /// Until rho is there, 1 or more.
        steps: usize,
    },
    /// GSAM's rule: rho follows the learning rate,
    ///
    /// ```text
    /// rho_t = rho_min + (rho - rho_min) (lr - lr_min) / (lr_max - lr_min)
    /// ```
    ///
    /// with the learning rate (of the base, where parameter groups have their own) of the update before: a step
    /// of Burn's `Learner` climbs before it knows its own. The first step climbs by rho_min. Learning rates
    /// beyond the two count as these.
    ///
    /// [Surrogate Gap Minimization](https://arxiv.org/abs/2203.08065) (Zhuang et al.), section 4.
    LearningRate {
        /// The smallest rho, 0 to rho.
        rho_min: f64,
        /// The learning rate at which rho is the smallest.
        lr_min: f64,
        /// The learning rate at which rho is [`SamConfig::rho`](crate::SamConfig::rho).
        lr_max: f64,
    },
    /// LE-SAM: how much the loss rises to first order is fixed, in the place of how far to climb,
    ///
    /// ```text
    /// rho_t = min(sigma / |g|, rho)
    /// ```
    ///
    /// with the norm of the way to climb, T g if adaptive. [`SamConfig::rho`](crate::SamConfig::rho) is the farthest, and
    /// what is shown as rho.
    ///
    /// [LE-SAM](https://arxiv.org/abs/2605.10183).
    LeSam {
        /// The rise, above 0, in the units of the loss.
        sigma: f64,
        /// The steps, counted from the first that may climb, from which and until which sigma goes to 0 by half a cosine,
        /// if it does: the authors' goes over the last epochs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        anneal: Option<[usize; 2]>,
    },
    /// Rho sets itself: each step climbs until the loss rises by so much of what there is to lose, or of what
    /// has been learned, whichever is less.
    ///
    /// ```text
    /// d   = min(L, max(L_0 - L, L_0 / 100))
    /// q   = max((L' - L) / (rise d), r / 3)
    /// rho <- rho exp(-0.1 clip(ln(q) / 2, -1, 1)),    from SamConfig::rho, between 1e-4 and 3
    /// ```
    ///
    /// L, L' and r are running means, with a decay of 0.9, of the losses at w and at w + e(w), and of |h| / |g|, the
    /// lengths of the gradients there; L_0 is the first step's loss. A loss at w that is not finite, or above 3 times the larger of L_0 and L, is left out, with that at
    /// w + e(w); each such outlier makes L and L' a quarter larger. A loss at w + e(w) that is not finite, or above 10
    /// times that larger one, counts as that; d is at least L_0 / 1,000,000. With steps that do not climb in between,
    /// which the rule does not see, the decay is 0.7 and the factor 0.3. If adaptive, rho is between 1e-3 and 30.
    ///
    /// It has to know the loss: in the `Learner` that of Burn's own outputs, or what
    #[cfg_attr(
        feature = "train",
        doc = "[`SamModel::with_loss`](crate::SamModel::with_loss)"
    )]
    #[cfg_attr(
        not(feature = "train"),
        doc = "`SamModel::with_loss` (feature `train`)"
    )]
    /// names; in a loop of your own with [`SamSteps::minimize`](crate::SamSteps::minimize). The loss must be one
    /// that is 0 at best, as cross-entropy and squared errors are: after a loss below 0, rho stays where it is.
    /// The rule does not depend on the loss's scale, but the scale must stay.
    ///
    /// Rho and the means are on the device, and nothing is read back. With gradient accumulation or several
    /// devices, the losses are means over them, and there is one rho; a micro-batch whose loss at w is not finite
    /// leaves the step out.
    ///
    /// With MSAM a step has no loss at w. Where the slope along the last update is about nothing at w, the loss has risen
    /// by half of what the slope at w + e(w) says, (1/2) <h, e>, which is taken for L' - L. Rho is then between 1e-4 and
    /// 20 (adaptive: 1e-3 and 200). The first 20 steps, and each 20th after, stay at w: they alone update running
    /// statistics, which are others at w + e(w).
    ///
    /// What is left of the loss counts as noise: where the loss stays up because the network has not got there yet, the
    /// rule holds it up.
    ///
    /// The rule is this library's own; [`LeSam`](Self::LeSam) is the nearest thing in print.
    Rule {
        /// How much of it, above 0: 0.7 for SAM, 0.45 for MSAM, 0.3 for LookSAM.
        rise: f64,
    },
}

impl Radius {
    /// What it is.
    pub(crate) fn law(self) -> Box<dyn Law> {
        match self {
            Self::Constant => Box::new(constant::Constant),
            Self::Raised { steps } => Box::new(raised::Raised { steps }),
            Self::LearningRate {
                rho_min,
                lr_min,
                lr_max,
            } => Box::new(learning_rate::LearningRate {
                rho_min,
                lr_min,
                lr_max,
            }),
            Self::LeSam { sigma, anneal } => Box::new(le_sam::LeSam { sigma, anneal }),
            Self::Rule { rise } => Box::new(rule::Rule { rise }),
        }
    }
}
