//! What the base optimizer gets of a step's gradients.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

use super::Memory;
use super::pairs::{combine, copy, products};
use crate::config::{check_part, check_size};

/// What the base optimizer descends along: the gradients h at w + e(w), alone or combined with the
/// gradients g at w.
///
/// From [`SamConfig::with_descent`](crate::SamConfig::with_descent). In a file, it is `"climbed"`,
/// `{"gsam": {"alpha": 0.1}}` or `{"wsam": {"gamma": 0.6}}`.
///
/// GSAM and WSAM keep a copy of g, of the weights' size, until the second pass has ended, and nothing
/// from one step to the next. A parameter that misses its gradient at w descends along h alone. So does
/// a step whose gradients at w are not finite; that is decided on the device.
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
    /// GSAM: h, less alpha times the part of g that is orthogonal to h,
    ///
    /// ```text
    /// h - alpha (g - <g, h> / |h|² h)
    /// ```
    ///
    /// so that the loss at w, which that part would raise or lower without regard to sharpness, matters
    /// less than the gap between the two losses. Rho is constant here.
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

/// What the steps do that do not climb, if not every one does.
///
/// From [`SamConfig::with_between`](crate::SamConfig::with_between). In a file, it is `"plain"` or
/// `{"looksam": {"alpha": 0.5}}`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Between {
    /// They are the base optimizer's: one pass, at w.
    Plain,
    /// LookSAM: one pass, at w, whose gradients g get the direction in which the last climbing step's second
    /// gradients h differed from its first ones, g_0,
    ///
    /// ```text
    /// g + alpha |g| / |v| v,    v = h - <g_0, h> / |g_0|² g_0
    /// ```
    ///
    /// with the norms over the whole model. v is kept from step to step: one copy of the weights. Where a
    /// norm is zero or not finite, it is g.
    ///
    /// [Towards Efficient and Scalable Sharpness-Aware Minimization](https://arxiv.org/abs/2203.02714) (Liu
    /// et al.), algorithm 1.
    Looksam {
        /// How much of v, 0 or more, in units of |g|: 0 is [`Plain`](Self::Plain).
        alpha: f64,
    },
}

impl Between {
    pub(crate) fn validate(self) -> Result<(), String> {
        match self {
            Self::Looksam { alpha } => check_size("between.looksam.alpha", alpha),
            Self::Plain => Ok(()),
        }
    }

    /// What the base optimizer gets at a step between.
    pub(crate) fn combine<M: Module>(
        self,
        module: &M,
        memory: &Memory,
        grads: GradientsParams,
    ) -> GradientsParams {
        let Self::Looksam { alpha } = self else {
            return grads;
        };
        let directions = memory.vectors_of(module, &grads);
        let Some([gg, _, vv]) = products(module, &grads, &directions) else {
            return grads;
        };
        let scale = (gg / vv).sqrt() * alpha;
        let refused = scale.clone().is_finite().bool_not();
        let coefficients = [scale.ones_like(), scale.mask_fill(refused, 0.0)];
        combine(module, grads, &directions, &coefficients)
    }

    /// What a climbing step has to remember for the steps between: the part of its second gradients h that
    /// is orthogonal to its first ones g, or zero where that is not finite.
    pub(crate) fn report<M: Module>(
        module: &M,
        memory: &Memory,
        at_w: &GradientsParams,
        climbed: &mut GradientsParams,
    ) {
        let Some([gg, gh, _]) = products(module, at_w, climbed) else {
            return;
        };
        let along = gh / gg;
        let refused = along.clone().is_finite().bool_not();
        let coefficients = [along.ones_like(), along.neg()];
        let h = copy(module, climbed);
        report(module, memory, (h, at_w), coefficients, refused, climbed);
    }
}

/// Registers x h + y g of each parameter that has both, or zero where it is refused, beside the gradients.
fn report<M: Module>(
    module: &M,
    memory: &Memory,
    (h, g): (GradientsParams, &GradientsParams),
    coefficients: [Tensor<1>; 2],
    refused: Tensor<1, Bool>,
    grads: &mut GradientsParams,
) {
    let coefficients = coefficients.map(|c| c.mask_fill(refused.clone(), 0.0));
    module.visit(&mut Report {
        memory,
        at_w: g,
        vectors: combine(module, h, g, &coefficients),
        grads,
    });
}

struct Report<'a> {
    memory: &'a Memory,
    at_w: &'a GradientsParams,
    vectors: GradientsParams,
    grads: &'a mut GradientsParams,
}

impl ModuleVisitor for Report<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(vector) = self.vectors.remove::<D>(param.id)
            && self.at_w.get::<D>(param.id).is_some()
        {
            self.memory.report(self.grads, param.id, vector);
        }
    }
}

impl Descent {
    pub(crate) fn validate(self) -> Result<(), String> {
        match self {
            Self::Gsam { alpha } => check_size("descent.gsam.alpha", alpha),
            Self::Wsam { gamma, .. } => check_part("descent.wsam.gamma", gamma),
            Self::Climbed => Ok(()),
        }
    }

    /// The gradients that the base optimizer gets, if those at w were kept.
    pub(crate) fn combine<M: Module>(
        self,
        module: &M,
        at_w: Option<&GradientsParams>,
        climbed: GradientsParams,
    ) -> GradientsParams {
        let Some(at_w) = at_w else { return climbed };
        let Some([gg, gh, hh]) = products(module, at_w, &climbed) else {
            return climbed;
        };
        let coefficients = match self {
            Self::Climbed => return climbed,
            Self::Gsam { alpha } => {
                // Of an h of zero, nothing is to be taken away.
                let along = gh / hh;
                let along = along.clone().mask_fill(along.is_nan(), 0.0);
                [along * alpha + 1.0, gg.ones_like() * -alpha]
            }
            Self::Wsam {
                decoupled: true, ..
            } => [gg.zeros_like(), gg.ones_like()],
            Self::Wsam { gamma, .. } => {
                let a = gamma / (1.0 - gamma);
                [gg.ones_like() * a, gg.ones_like() * (1.0 - a)]
            }
        };
        let refused = gg.is_finite().bool_not();
        let [x, y] = coefficients;
        let coefficients = [x.mask_fill(refused.clone(), 1.0), y.mask_fill(refused, 0.0)];
        combine(module, climbed, at_w, &coefficients)
    }
}

/// What decoupled WSAM moves w along after the base optimizer's update: h - g, or nothing where g is not
/// finite.
pub(crate) fn report_sharpness<M: Module>(
    module: &M,
    memory: &Memory,
    at_w: &GradientsParams,
    climbed: GradientsParams,
    grads: &mut GradientsParams,
) {
    let Some([gg, _, _]) = products(module, at_w, &climbed) else {
        return;
    };
    let refused = gg.clone().is_finite().bool_not();
    let coefficients = [gg.ones_like(), gg.ones_like().neg()];
    report(
        module,
        memory,
        (climbed, at_w),
        coefficients,
        refused,
        grads,
    );
}
