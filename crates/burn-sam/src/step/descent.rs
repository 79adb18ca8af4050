//! What the base optimizer gets of a step's gradients.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Bool, Tensor};
use burn_sam_kernels::known;
use serde::{Deserialize, Serialize};

use super::ascent::Ascended;
use super::pairs::{Lone, combine, copy, products, release, restore, set_where, squared_norm_of};
use super::radius::Factor;
use super::{Ascent, Memory};
use crate::SamConfig;
use crate::config::{check_part, check_size};

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
        descent: Descent,
        module: &M,
        memory: &Memory,
        grads: GradientsParams,
    ) -> GradientsParams {
        let Self::Looksam { alpha } = self else {
            return grads;
        };
        let directions = memory.vectors_of(module, &grads);
        let Some([gg, gv, vv]) = products(module, &grads, &directions) else {
            return grads;
        };
        let scale = (gg.clone() / vv.clone()).sqrt() * alpha;
        let refused = scale.clone().is_finite().bool_not();
        let scale = scale.mask_fill(refused, 0.0);
        let share = match descent {
            Descent::Limited => {
                let changed = gg.clone() + (gv * 2.0 + vv * scale.clone()) * scale.clone();
                length_limit(&gg, &changed)
            }
            _ => scale.ones_like(),
        };
        let coefficients = [share.clone(), share * scale];
        let grads = combine(module, grads, &directions, Lone::Alone, &coefficients);
        release(module, directions);
        grads
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
    let coefficients = set_where(coefficients, &refused, [0.0, 0.0]);
    module.visit(&mut Report {
        memory,
        at_w: g,
        vectors: combine(module, h, g, Lone::Alone, &coefficients),
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

/// What the descent knows of the gradients g at w.
#[derive(Debug)]
pub(crate) struct AtW {
    /// g itself, if it was kept.
    pub(crate) grads: Option<GradientsParams>,
    /// |g|², if it is known without g.
    squared_norm: Option<Tensor<1>>,
    /// How g can be read off the climbed module, if it can.
    pub(crate) way: Option<Way>,
}

/// The way from w to w + e(w), along g.
#[derive(Debug)]
pub(crate) struct Way {
    /// |g| + eps, over the factor of all radii.
    pub(crate) norm: Tensor<1>,
    /// The same for radii on the host.
    pub(crate) factor: f64,
    /// The gradients of parameters whose rho is 0.
    pub(crate) unmoved: GradientsParams,
}

impl AtW {
    pub(crate) fn new<M>(
        sam: &SamConfig,
        grads: Option<GradientsParams>,
        factor: &Factor,
        ascended: &mut Ascended<M>,
    ) -> Self {
        let along_gradient = sam.ascent() == Ascent::Gradient && !sam.adaptive();
        let squared_norm = (ascended.squared_norm.clone()).filter(|_| along_gradient);
        let unmoved = core::mem::replace(&mut ascended.unmoved, GradientsParams::new());
        let is_on_the_way = grads.is_none() && sam.ascents() == 1;
        let way = (squared_norm.clone())
            .filter(|_| is_on_the_way)
            .map(|squared_norm| {
                let norm = squared_norm.sqrt() + sam.eps();
                Way {
                    norm: match factor.device.clone() {
                        Some(factor) => {
                            let factor = factor.to_device(&norm.device()).cast(norm.dtype());
                            norm / factor
                        }
                        None => norm,
                    },
                    factor: factor.host,
                    unmoved,
                }
            });
        Self {
            grads,
            squared_norm,
            way,
        }
    }

    /// Drops g in the module's order.
    pub(crate) fn release<M: Module>(self, module: &M) {
        let unmoved = self.way.map(|way| way.unmoved);
        for grads in [self.grads, unmoved].into_iter().flatten() {
            release(module, grads);
        }
    }

    pub(crate) fn copy<M: Module>(&self, module: &M) -> Self {
        let copied = |grads| copy(module, grads);
        Self {
            grads: self.grads.as_ref().map(copied),
            squared_norm: self.squared_norm.clone(),
            way: self.way.as_ref().map(|way| Way {
                norm: way.norm.clone(),
                factor: way.factor,
                unmoved: copied(&way.unmoved),
            }),
        }
    }
}

/// The share of gradients h that is as long as g: min(1, |g| / |h|), of their squared norms; all of h where g is 0.
fn length_limit(gg: &Tensor<1>, hh: &Tensor<1>) -> Tensor<1> {
    let share = (gg.clone() / hh.clone()).sqrt().clamp_max(1.0);
    let nothing_to_compare = share.clone().is_nan().bool_or(gg.clone().equal_elem(0.0));
    share.mask_fill(nothing_to_compare, 1.0)
}

impl Descent {
    pub(crate) fn validate(self) -> Result<(), String> {
        match self {
            Self::Gsam { alpha } => check_size("descent.gsam.alpha", alpha),
            Self::Wsam { gamma, .. } => check_part("descent.wsam.gamma", gamma),
            Self::Climbed | Self::Limited => Ok(()),
        }
    }

    /// The gradients that the base optimizer gets, of those at w + e(w).
    ///
    /// # Arguments
    ///
    /// * `module` - at w.
    /// * `at_w` - what is known of the gradients there.
    /// * `climbed` - at w + e(w), for a step over an edge to be one at w; otherwise what is not finite is seen.
    pub(crate) fn combine<M: Module>(
        self,
        sam: &SamConfig,
        module: &M,
        at_w: &AtW,
        climbed: Option<&M>,
        grads: GradientsParams,
    ) -> GradientsParams {
        let is_rescued = climbed.is_some();
        match self {
            Self::Climbed | Self::Limited => self.limit(sam, module, at_w, climbed, grads),
            Self::Gsam { alpha } => weigh(module, at_w, is_rescued, grads, |[gg, gh, hh]| {
                // Of an h of zero, nothing is to be taken away.
                let along = gh / hh;
                let along = along.clone().mask_fill(along.is_nan(), 0.0);
                [along * alpha + 1.0, gg.ones_like() * -alpha]
            }),
            Self::Wsam { gamma, decoupled } => {
                let a = if decoupled {
                    0.0
                } else {
                    gamma / (1.0 - gamma)
                };
                weigh(module, at_w, is_rescued, grads, |[gg, ..]| {
                    [gg.ones_like() * a, gg.ones_like() * (1.0 - a)]
                })
            }
        }
    }

    /// h, perhaps shortened; g where the climb went over an edge.
    fn limit<M: Module>(
        self,
        sam: &SamConfig,
        module: &M,
        at_w: &AtW,
        climbed: Option<&M>,
        grads: GradientsParams,
    ) -> GradientsParams {
        if self == Self::Climbed && climbed.is_none() {
            return grads;
        }
        let kept = at_w.grads.as_ref();
        let known_at_w = at_w.squared_norm.clone();
        let norms = match known_at_w {
            Some(gg) => squared_norm_of(module, &grads).map(|hh| (gg, hh)),
            None => kept
                .and_then(|kept| products(module, kept, &grads))
                .map(|[gg, _, hh]| (gg, hh)),
        };
        let Some((gg, hh)) = norms else {
            return grads;
        };
        let gg = gg.to_device(&hh.device()).cast(hh.dtype());
        // Where reading waits for nothing, most steps are done here.
        if let (Some(gg), Some(hh)) = (known(&gg), known(&hh))
            && hh.is_finite()
            && (self == Self::Climbed || hh <= gg)
        {
            return grads;
        }
        let over_the_edge = over_the_edge(&gg, &hh, climbed.is_some());
        let share = match self {
            Self::Limited => length_limit(&gg, &hh),
            _ => hh.ones_like(),
        };
        let as_it_is = hh.clone().is_finite().bool_not();
        let share = share.mask_fill(as_it_is, 1.0);
        let coefficients = [share.clone(), share.zeros_like()];
        let coefficients = set_where(coefficients, &over_the_edge, [0.0, 1.0]);
        let way = (at_w.way.as_ref().zip(climbed)).filter(|_| !is_distributed(module));
        match (kept, way) {
            (Some(kept), _) => combine(module, grads, kept, Lone::Zero, &coefficients),
            (None, Some((way, climbed))) => {
                restore(sam, [module, climbed], grads, way, coefficients)
            }
            (None, None) => combine(
                module,
                copy(module, &grads),
                &grads,
                Lone::Zero,
                &[share.clone(), share.zeros_like()],
            ),
        }
    }
}

/// x h + y g, with coefficients made of the inner products of g and h; h where g is not finite, and g where the climb
/// went over an edge.
fn weigh<M: Module>(
    module: &M,
    at_w: &AtW,
    is_rescued: bool,
    grads: GradientsParams,
    coefficients: impl FnOnce([Tensor<1>; 3]) -> [Tensor<1>; 2],
) -> GradientsParams {
    let both = (at_w.grads.as_ref()).and_then(|g| Some((g, products(module, g, &grads)?)));
    let Some((g, [gg, gh, hh])) = both else {
        return grads;
    };
    let over_the_edge = over_the_edge(&gg, &hh, is_rescued);
    let refused = gg.clone().is_finite().bool_not();
    let coefficients = coefficients([gg, gh, hh]);
    let coefficients = set_where(coefficients, &refused, [1.0, 0.0]);
    let coefficients = set_where(coefficients, &over_the_edge, [0.0, 1.0]);
    combine(module, grads, g, Lone::Alone, &coefficients)
}

/// Whether there are other workers, which would read off another g.
fn is_distributed<M: Module>(module: &M) -> bool {
    struct Distributed(bool);

    impl ModuleVisitor for Distributed {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= param.val().is_distributed();
        }
    }

    let mut distributed = Distributed(false);
    module.visit(&mut distributed);
    distributed.0
}

/// Whether the climb went over an edge, of the squared norms of g and h.
fn over_the_edge(gg: &Tensor<1>, hh: &Tensor<1>, may_be: bool) -> Tensor<1, Bool> {
    let climbed = hh.clone().is_finite();
    match may_be {
        true => gg.clone().is_finite().bool_and(climbed.bool_not()),
        false => hh.zeros_like().bool(),
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
    let Some([gg, _, hh]) = products(module, at_w, &climbed) else {
        return;
    };
    let refused = (gg.clone() + hh).is_finite().bool_not();
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
