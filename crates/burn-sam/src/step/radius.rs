//! How far to climb, where rho does not stay as it is.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::SamConfig;
use crate::config::check_size;

/// How far to climb: how rho changes from step to step. All groups' radii change in proportion.
///
/// From [`SamConfig::with_radius`]. In a file, it is `"constant"`, `{"raised": {"steps": 200}}`,
/// `{"learning_rate": {"rho_min": 0.01, "lr_min": 0.0, "lr_max": 0.1}}` or `{"rule": {"rise": 0.7}}`.
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
        /// The learning rate at which rho is [`SamConfig::rho`].
        lr_max: f64,
    },
    /// Rho sets itself: each step climbs until the loss rises by so much of what there is to lose, or of what
    /// has been learned, whichever is less.
    ///
    /// ```text
    /// h   = min(L, max(L_0 - L, L_0 / 100))
    /// q   = (L' - L) / (rise h)
    /// rho <- rho exp(-0.1 clip(ln(q) / 2, -1, 1)),    from SamConfig::rho, between 1e-4 and 3
    /// ```
    ///
    /// L and L' are running means, with a decay of 0.9, of the losses at w and at w + e(w), and L_0 is the first
    /// step's loss. An L' that is not finite, or above 10 times the larger of L_0 and this step's L, counts as that; h
    /// is at least L_0 / 1,000,000. With steps that do not climb in
    /// between, which the rule does not see, the decay is 0.7 and the factor 0.3. If adaptive, rho is between
    /// 1e-3 and 30.
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
    /// that is 0 at best, as cross-entropy and squared errors are; a first loss of 0 or below leaves rho where it is.
    /// The rule does not depend on the loss's scale, but the scale must stay.
    ///
    /// Rho and the means are on the device, and nothing is read back. With gradient accumulation or several
    /// devices, the losses are means over them, and there is one rho.
    ///
    /// What is left of the loss counts as noise: a training that is far from done, on data without noise, is held up
    /// by it.
    ///
    /// The rule is this library's own.
    Rule {
        /// How much of it, above 0: 0.7 for SAM, 0.3 for LookSAM.
        rise: f64,
    },
}

impl Radius {
    pub(crate) fn validate(self, rho: f64) -> Result<(), String> {
        match self {
            Self::Constant => Ok(()),
            Self::Raised { steps: 0 } => {
                Err("SamConfig: radius.raised.steps is 0, but must be at least 1".to_string())
            }
            Self::Raised { .. } => Ok(()),
            Self::LearningRate {
                rho_min,
                lr_min,
                lr_max,
            } => {
                check_size("radius.learning_rate.rho_min", rho_min)?;
                check_size("radius.learning_rate.lr_min", lr_min)?;
                check_size("radius.learning_rate.lr_max", lr_max)?;
                if lr_min >= lr_max {
                    return Err(format!(
                        "SamConfig: radius.learning_rate.lr_min is {lr_min}, but must be below lr_max, \
                         which is {lr_max}"
                    ));
                }
                match rho_min <= rho {
                    true => Ok(()),
                    false => Err(format!(
                        "SamConfig: radius.learning_rate.rho_min is {rho_min}, but must be at most rho, \
                         which is {rho}"
                    )),
                }
            }
            Self::Rule { rise } if !(rise.is_finite() && rise > 0.0) => Err(format!(
                "SamConfig: radius.rule.rise is {rise}, but must be a finite number above 0"
            )),
            Self::Rule { .. } if rho == 0.0 => Err(
                "SamConfig: rho is 0, but radius rule starts from it: it must be above 0"
                    .to_string(),
            ),
            Self::Rule { .. } => Ok(()),
        }
    }

    pub(crate) fn is_rule(self) -> bool {
        matches!(self, Self::Rule { .. })
    }
}

/// What all radii are multiplied by at a step: a number and, if there is one, a tensor of shape `[1]`.
#[derive(Clone, Debug)]
pub(crate) struct Factor {
    pub(crate) host: f64,
    pub(crate) device: Option<Tensor<1>>,
}

impl Factor {
    /// Of a method that keeps nothing.
    pub(crate) const ONE: Self = Self::host(1.0);

    pub(crate) const fn host(host: f64) -> Self {
        Self { host, device: None }
    }
}

/// Rho over [`SamConfig::rho`] at a step, `since_start` steps after the first one that may climb, after an update
/// with this learning rate. The rule's is in its state.
pub(crate) fn factor(sam: &SamConfig, since_start: usize, lr: Option<f64>) -> f64 {
    match sam.radius() {
        Radius::Constant | Radius::Rule { .. } => 1.0,
        Radius::Raised { steps } => ((since_start + 1) as f64 / steps as f64).min(1.0),
        Radius::LearningRate {
            rho_min,
            lr_min,
            lr_max,
        } => {
            let least = match sam.rho() == 0.0 {
                true => 0.0,
                false => rho_min / sam.rho(),
            };
            let part = lr.map_or(0.0, |lr| {
                ((lr - lr_min) / (lr_max - lr_min)).clamp(0.0, 1.0)
            });
            least + (1.0 - least) * part
        }
    }
}

/// What the rule keeps: rho, the running means of the losses at w and at w + e(w), and the first loss. What is
/// not known yet is NaN.
pub(crate) const STATE: usize = 4;

/// A step's losses for the rule, so that they add up over micro-batches and devices: the sums of those at w and at
/// w + e(w), and their number, or nothing where the loss at w is not finite or the first one not above 0.
pub(crate) fn report(state: &Tensor<1>, losses: [Tensor<1>; 2]) -> Tensor<1> {
    let [at_w, climbed] =
        losses.map(|loss| (loss.to_device(&state.device()).cast(state.dtype())).mean());
    let first = known_or(state.clone().narrow(0, 3, 1), &at_w);
    // Never less than the loss at w, whatever batch this is.
    let most = first.clone().max_pair(at_w.clone()) * 10.0;
    let climbed = (climbed.clone())
        .mask_where(climbed.is_finite().bool_not(), most.clone())
        .min_pair(most);
    // Without a first loss above 0 there is nothing to measure by.
    let unknown = (at_w.clone().is_finite().bool_not()).bool_or(first.lower_equal_elem(0.0));
    let report = Tensor::cat(vec![at_w.clone(), climbed, at_w.ones_like()], 0);
    report.mask_fill(unknown.expand([3]), 0.0)
}

/// The rule: its state after a step.
pub(crate) fn next(sam: &SamConfig, state: Tensor<1>, report: Tensor<1>) -> Tensor<1> {
    let Radius::Rule { rise } = sam.radius() else {
        return state;
    };
    let (decay, speed) = match sam.every() {
        1 => (0.9, 0.1),
        _ => (0.7, 0.3),
    };
    let (least, most) = match sam.adaptive() {
        false => (1e-4, 3.0),
        true => (1e-3, 30.0),
    };
    let report = report.to_device(&state.device()).cast(state.dtype());
    let of_state = |index| state.clone().narrow(0, index, 1);
    let of_report = |index| report.clone().narrow(0, index, 1);

    let count = of_report(2);
    let [at_w, climbed] = [0, 1].map(|index| of_report(index) / count.clone());
    let first = known_or(of_state(3), &at_w);
    let mean = |index, new: &Tensor<1>| {
        let old = known_or(of_state(index), new);
        old * decay + new.clone() * (1.0 - decay)
    };
    let (at_w, climbed) = (mean(1, &at_w), mean(2, &climbed));

    let scale = first.clone().abs();
    let learned = (first.clone() - at_w.clone()).max_pair(scale.clone() * 0.01);
    let h = (at_w.clone().min_pair(learned)).max_pair((scale * 1e-6).clamp_min(1e-30));
    let q = ((climbed.clone() - at_w.clone()) / (h * rise)).clamp(1e-3, 1e3);
    let rho = of_state(0) * (((q.log() * 0.5).clamp(-1.0, 1.0)) * -speed).exp();
    let rho = rho.clamp(least, most);

    let next = Tensor::cat(vec![rho, at_w, climbed, first], 0);
    next.mask_where(count.equal_elem(0.0).expand([STATE]), state)
}

fn known_or(value: Tensor<1>, other: &Tensor<1>) -> Tensor<1> {
    let unknown = value.clone().is_nan();
    value.mask_where(unknown, other.clone())
}
