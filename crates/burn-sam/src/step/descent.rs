//! What the base optimizer gets of a step's gradients.

use std::collections::HashSet;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Bool, Tensor};
use burn_sam_kernels::portable::{combine, inner_product, total};
use serde::{Deserialize, Serialize};

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
/// let wsam = SamConfig::new().with_rho(0.1).with_descent(Descent::Wsam { gamma: 0.6 });
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
    /// WSAM, coupled: the loss at w plus gamma / (1 - gamma) times its sharpness,
    ///
    /// ```text
    /// (1 - a) g + a h,    a = gamma / (1 - gamma)
    /// ```
    ///
    /// [Sharpness-Aware Minimization Revisited](https://arxiv.org/abs/2305.15817) (Yue et al.),
    /// algorithm 1.
    Wsam {
        /// How much sharpness counts, from 0 to below 1: 0.5 is SAM, 0 is the base optimizer alone, and
        /// 0.8 to 0.95 are the authors'.
        gamma: f64,
    },
}

impl Descent {
    pub(crate) fn validate(self) -> Result<(), String> {
        match self {
            Self::Gsam { alpha } if !(alpha.is_finite() && alpha >= 0.0) => Err(format!(
                "SamConfig: descent.gsam.alpha is {alpha}, but must be a finite number of at least 0"
            )),
            Self::Wsam { gamma } if !(0.0..1.0).contains(&gamma) => Err(format!(
                "SamConfig: descent.wsam.gamma is {gamma}, but must be a number from 0 to below 1"
            )),
            _ => Ok(()),
        }
    }

    /// A copy of the gradients at w, if they are combined with those at w + e(w): the ascent writes into
    /// the gradients that nobody else holds.
    pub(crate) fn keep<M: Module>(
        self,
        module: &M,
        grads: &GradientsParams,
    ) -> Option<GradientsParams> {
        match self {
            Self::Climbed => None,
            Self::Gsam { .. } | Self::Wsam { .. } => Some(copy(module, grads)),
        }
    }

    /// The gradients that the base optimizer gets.
    pub(crate) fn combine<M: Module>(
        self,
        module: &M,
        at_w: Option<&GradientsParams>,
        climbed: GradientsParams,
    ) -> GradientsParams {
        let Some(at_w) = at_w else { return climbed };
        let mut products = Products {
            seen: HashSet::new(),
            at_w,
            climbed: &climbed,
            gg: Vec::new(),
            gh: Vec::new(),
            hh: Vec::new(),
        };
        module.visit(&mut products);
        let Products { gg, gh, hh, .. } = products;
        let [Some(gg), Some(gh), Some(hh)] = [gg, gh, hh].map(total) else {
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
            Self::Wsam { gamma } => {
                let a = gamma / (1.0 - gamma);
                [gg.ones_like() * a, gg.ones_like() * (1.0 - a)]
            }
        };
        let mut combined = Combine {
            at_w,
            climbed,
            coefficients,
            refused: gg.is_finite().bool_not(),
            combined: GradientsParams::new(),
        };
        module.visit(&mut combined);
        combined.combined
    }
}

/// Other handles on the same tensors.
pub(crate) fn copy<M: Module>(module: &M, grads: &GradientsParams) -> GradientsParams {
    struct Copy<'a> {
        grads: &'a GradientsParams,
        copy: GradientsParams,
    }

    impl ModuleVisitor for Copy<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.grads.get::<D>(param.id) {
                self.copy.register(param.id, grad);
            }
        }
    }

    let mut copy = Copy {
        grads,
        copy: GradientsParams::new(),
    };
    module.visit(&mut copy);
    copy.copy
}

/// The inner products of the gradients g at w and h at w + e(w), of each parameter that has both.
struct Products<'a> {
    /// A parameter that the module holds twice counts once.
    seen: HashSet<ParamId>,
    at_w: &'a GradientsParams,
    climbed: &'a GradientsParams,
    gg: Vec<Tensor<1>>,
    gh: Vec<Tensor<1>>,
    hh: Vec<Tensor<1>>,
}

impl ModuleVisitor for Products<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (g, h) = (
            self.at_w.get::<D>(param.id),
            self.climbed.get::<D>(param.id),
        );
        if let (Some(g), Some(h)) = (g, h)
            && self.seen.insert(param.id)
        {
            let g = g.to_device(&h.device());
            self.gg.push(inner_product(g.clone(), g.clone()));
            self.gh.push(inner_product(g, h.clone()));
            self.hh.push(inner_product(h.clone(), h));
        }
    }
}

/// x h + y g, of each parameter that has both, and h of each that has it alone.
struct Combine<'a> {
    at_w: &'a GradientsParams,
    climbed: GradientsParams,
    coefficients: [Tensor<1>; 2],
    refused: Tensor<1, Bool>,
    combined: GradientsParams,
}

impl ModuleVisitor for Combine<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(h) = self.climbed.remove::<D>(param.id) else {
            return;
        };
        let combined = match self.at_w.get::<D>(param.id) {
            Some(g) => {
                let g = g.to_device(&h.device());
                combine(h, g, &self.coefficients, &self.refused)
            }
            None => h,
        };
        self.combined.register(param.id, combined);
    }
}
