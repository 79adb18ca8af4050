//! What the base optimizer gets: a descent a file.

mod climbed;
mod gsam;
mod limited;
mod way;
mod wsam;

use serde::{Deserialize, Serialize};

use way::Way;
pub(crate) use way::{Alone, Of};

/// What the base optimizer descends along: the gradients h at w + e(w), alone or combined with the
/// gradients g at w.
///
/// From [`SamConfig::with_descent`](crate::SamConfig::with_descent). In a file, it is `"climbed"`, `"limited"`,
/// `{"gsam": {"alpha": 0.1}}` or `{"wsam": {"gamma": 0.6}}`.
///
/// GSAM and WSAM keep a copy of g, of the weights' size, until the second pass has ended, and nothing
/// from one step to the next. A parameter that misses its gradient at w descends along h alone. So does
/// a step whose gradients at w are not finite.
///
/// # Over an edge
///
/// Where the norm of h is not finite although that of g is, the climb went over an edge, and the step descends
/// along g: as the base optimizer would have. That is decided on the device. A method that keeps g has it; where
/// the climbed weights were written over it, as in plain SAM, it is read off w + e(w), to the rounding of the
/// weights. MSAM has no g, and ASAM and several ascents have lost theirs, unless the descent or something else
/// keeps it; so has a training over several processes (`DistributedDataParallel`), whose workers would read
/// different ones. They hand h on as it is; and so does
/// [`Climbed::second_gradients`](crate::Climbed::second_gradients), whose caller may want to see that a loss was
/// scaled too far, as none but [`second_step`](crate::Climbed::second_step) need see it.
///
/// ```
/// use burn_sam::{Descent, SamConfig};
///
/// let gsam = SamConfig::new().with_rho(0.1).with_descent(Descent::Gsam { alpha: 0.1 });
/// let descent = Descent::Wsam { gamma: 0.6, decoupled: false };
/// let wsam = SamConfig::new().with_rho(0.1).with_descent(descent);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Descent {
    /// SAM: h.
    Climbed,
    /// h, but no longer than g: h min(1, |g| / |h|), with the norms over all parameters; h where g is 0.
    ///
    /// A radius that is too large for where the training is makes h long; limited, it no longer throws the
    /// weights to where all outputs are the same. Keeps nothing. With ASAM, a copy of g until the second pass has
    /// ended.
    ///
    /// With MSAM, which has no g, h is no longer than half of what it usually is: h min(1, m / (2 |h|)), with a running
    /// mean m <- 0.9 m + 0.1 min(|h|, 1.5 m) of its length, kept from step to step, that begins with the first |h|.
    ///
    /// A one-sided form of [Li et al.](https://arxiv.org/abs/2401.07250), who set the length.
    Limited,
    /// GSAM: h, less alpha times the part of g that is orthogonal to h,
    ///
    /// ```text
    /// h - alpha (g - <g, h> / |h|² h)
    /// ```
    ///
    /// so that the loss at w, which that part would raise or lower without regard to sharpness, matters
    /// less than the gap between the two losses. The authors' rho follows the learning rate:
    /// [`Radius::LearningRate`](crate::Radius::LearningRate).
    ///
    /// [Surrogate Gap Minimization](https://arxiv.org/abs/2203.08065) (Zhuang et al.), algorithm 1.
    Gsam {
        /// How much of the orthogonal part, 0 or more: 0.1 to 0.4 is usual, and 0 is SAM.
        alpha: f64,
    },
    /// WSAM: the loss at w plus gamma / (1 - gamma) times its sharpness,
    ///
    /// ```text
    /// (1 - a) g + a h,    a = gamma / (1 - gamma)
    /// ```
    ///
    /// or decoupled: the base optimizer gets g alone, and w then moves by -lr a (h - g), past the base's
    /// momentum and its adaptive learning rates, as its decay does in AdamW.
    ///
    /// [Sharpness-Aware Minimization Revisited](https://arxiv.org/abs/2305.15817) (Yue et al.),
    /// algorithm 1.
    Wsam {
        /// How much sharpness counts, from 0 to below 1: 0.5 is SAM, 0 is the base optimizer alone, and
        /// 0.8 to 0.95 are the authors'.
        gamma: f64,
        /// Whether the base optimizer sees nothing of sharpness.
        #[serde(default)]
        decoupled: bool,
    },
}

impl Descent {
    /// What it is.
    pub(crate) fn way(self) -> Box<dyn Way> {
        match self {
            Self::Climbed => Box::new(climbed::Climbed),
            Self::Limited => Box::new(limited::Limited),
            Self::Gsam { alpha } => Box::new(gsam::Gsam { alpha }),
            Self::Wsam { gamma, decoupled } => Box::new(wsam::Wsam { gamma, decoupled }),
        }
    }
}
