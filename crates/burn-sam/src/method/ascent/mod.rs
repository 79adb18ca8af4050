//! Which way to climb: a way a file.

mod friendly;
mod gradient;
mod momentum;
mod random;
mod smoothed;
mod way;

use serde::{Deserialize, Serialize};

use way::Way;
pub(crate) use way::{Direction, From, OnePass};

/// Which way to climb.
///
/// From [`SamConfig::with_ascent`](crate::SamConfig::with_ascent). In a file, it is `"gradient"`, `"msam"`, `"random"`,
/// `{"friendly": {"sigma": 1.0, "lambda": 0.9}}` or `{"vasso": {"theta": 0.9}}`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Ascent {
    /// SAM: along the gradient at w.
    Gradient,
    /// F-SAM: along the gradient at w, less sigma times the average m of the gradients of the steps
    /// before,
    ///
    /// ```text
    /// e(w) = rho d / (|d| + eps),    d = g - sigma m,    m <- lambda m + (1 - lambda) g
    /// ```
    ///
    /// so that what all batches have in common, the slope of the whole loss, is not climbed. m begins with
    /// the first step's g, and that step climbs along g. m is kept from step to step: one copy of the
    /// weights. Gradients that are not finite do not enter it.
    ///
    /// [Friendly Sharpness-Aware Minimization](https://arxiv.org/abs/2403.12350) (Li et al.), algorithm 1.
    Friendly {
        /// How much of the average is left out, 0 or more.
        sigma: f64,
        /// How much of the average stays at each step, from 0 to below 1.
        lambda: f64,
    },
    /// MSAM: along the last update, which needs no pass,
    ///
    /// ```text
    /// e(w) = rho u / (|u| + eps),    u = w - the w before the last update
    /// ```
    ///
    /// whatever the base optimizer and its weight decay. The one pass of a step is at w + e(w), and its
    /// gradient updates w. The first step, before any update, is the base optimizer's. The weights before the
    /// update are kept from step to step: one copy of the weights. w is what is validated, saved and returned.
    ///
    /// u goes to the w that a step is given, whatever has become of it since the update: e(w) is rho long, from there.
    /// Where u is not finite, e(w) is 0.
    ///
    /// [Momentum-SAM](https://arxiv.org/abs/2401.12033) (Becker et al.), equation 4, in their code's sign.
    Msam,
    /// VaSSO: along a running mean d of the gradients at w, which has less of each batch's noise,
    ///
    /// ```text
    /// e(w) = rho d / (|d| + eps),    d <- (1 - theta) d + theta g
    /// ```
    ///
    /// d begins with the first step's g. It is kept from step to step: one copy of the weights. Gradients that are not
    /// finite do not enter it.
    ///
    /// [Variance Suppression](https://arxiv.org/abs/2309.15639) (Li and Giannakis), and its authors' code.
    Vasso {
        /// How much of a step's gradient enters, above 0 and up to 1, which is SAM. Their code has 0.9.
        theta: f64,
    },
    /// Random weight perturbation: along noise that is drawn anew for each step, normal, each weight's in proportion to
    /// the norm of its filter (of its parameter, where that has none, as biases). One pass a step, and nothing is kept.
    ///
    /// It is what flatness costs without any direction: a baseline. Burn draws the noise on the device, after its seed,
    /// as it draws dropout's masks. The authors' e(w) is gamma times that noise; here it is rho long, as all of ours.
    ///
    /// [Random Weight Perturbation](https://arxiv.org/abs/2211.11489) (Li et al.), and its authors' code.
    Random,
}

impl Ascent {
    /// What it is.
    pub(crate) fn way(self) -> Box<dyn Way> {
        match self {
            Self::Gradient => Box::new(gradient::Gradient),
            Self::Friendly { sigma, lambda } => Box::new(friendly::Friendly { sigma, lambda }),
            Self::Msam => Box::new(momentum::Momentum),
            Self::Vasso { theta } => Box::new(smoothed::Smoothed { theta }),
            Self::Random => Box::new(random::Random),
        }
    }
}
