//! One step of any method: its passes, in their sequence.

mod climb;
mod descent;
mod memory;
mod record;
mod statistics;
mod survey;
mod update;
mod walk;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Gradients, Tensor};
use burn_sam_kernels::{Number, Vector};

use crate::method::{Direction, From, Method, Of, OnePass, Seen};
pub(crate) use climb::{Ascended, climb};
pub(crate) use descent::{AtW, descend};
pub(crate) use memory::Memory;
pub(crate) use statistics::with_own_statistics;
pub(crate) use survey::{Survey, check_groups};
#[cfg(feature = "train")]
pub(crate) use update::ByParameter;
use walk::each;
pub(crate) use walk::{Leaf, each_parameter, each_with_path, register, replace, take};

/// What the passes of a step returned.
///
/// A step of SAM has both; one of MSAM has none at w, and a step that does not climb has none at w + e(w).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passes<T> {
    /// What the pass at w returned.
    pub at_w: Option<T>,
    /// What the last pass, at w + e(w), returned.
    pub climbed: Option<T>,
}

/// A pass of a step.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Pass {
    /// The only one of a step that does not climb, at w.
    Plain,
    /// At w.
    AtW,
    /// On the way up, if there are several ascents.
    Between,
    /// At w + e(w).
    Climbed,
}

/// What else is wanted of a step.
#[derive(Clone, Copy)]
pub(crate) struct Want {
    /// The pass that updates running statistics, unless it is the only one.
    pub(crate) counted: Pass,
    /// How much the loss has risen to the only pass of a step that has one, whether or not the method needs it.
    pub(crate) rise: bool,
}

/// The passes of a step, what they returned, and the gradients that are the base optimizer's, with what
/// is to be remembered beside them.
///
/// The pass that is counted updates the running statistics of `module`; all others have their own. What is kept may be
/// lent, for the climb to be written into it.
pub(crate) fn passes<M: Module, T>(
    method: &Method,
    memory: &Memory,
    (module, survey, lent): (&M, Survey, Option<Vector>),
    Want { counted, rise }: Want,
    mut pass: impl FnMut(M, Pass) -> (T, Vector),
) -> Taken<T> {
    let noise = || {
        let mut noise = Vector::new();
        each_parameter(module, |leaf| {
            noise.push(leaf.weight().noise(leaf.filter_dim()))
        });
        noise
    };
    let at = (module, &survey, &noise as &dyn Fn() -> Vector);
    if !method.climbs_at(memory.count()) {
        return plain(method, memory, (module, &survey), &mut pass);
    }
    match method.ascent.way().one_pass() {
        Some(OnePass { starts_level, .. }) => {
            let wants_rise = starts_level && (rise || method.needs().losses);
            once(method, memory, at, lent, wants_rise, &mut pass)
        }
        None => twice(method, memory, at, counted, &mut pass),
    }
}

/// What a step's passes came to.
pub(crate) struct Taken<T> {
    pub(crate) passes: Passes<T>,
    /// What is the base optimizer's, and what is to be remembered.
    pub(crate) grads: GradientsParams,
    /// How much the loss has risen from w to the only pass, estimated.
    rise: Option<Number>,
    /// |h| / |g|, if it is known.
    ratio: Option<Number>,
}

impl<T> Taken<T> {
    /// What there is for the law that sets rho to see.
    pub(crate) fn seen(&self, loss: impl Fn(&T) -> Option<Tensor<1>>) -> Option<Seen> {
        let mean = |value: &T| {
            let losses = loss(value)?;
            Some(Number::from(match losses.dims() {
                [1] => losses,
                _ => losses.mean(),
            }))
        };
        let climbed = mean(self.passes.climbed.as_ref()?)?;
        let at_w = match &self.passes.at_w {
            Some(at_w) => mean(at_w)?,
            None => &climbed - self.rise.clone()?,
        };
        Some(Seen {
            losses: [at_w, climbed],
            ratio: self.ratio.clone(),
        })
    }
}

/// What a step hands to the update: the gradients that are the base optimizer's, what it found out, and the gradients'
/// length.
fn handed<M: Module>(
    module: &M,
    memory: &Memory,
    descent: Vector,
    found: Option<Vector>,
    length: Option<Number>,
) -> GradientsParams {
    let mut grads = register(module, descent);
    if let Some(found) = found {
        memory.report(&mut grads, found);
    }
    if let Some(length) = length {
        memory.report_length(&mut grads, length);
    }
    grads
}

/// A step whose only pass is at w.
fn plain<M: Module, T>(
    method: &Method,
    memory: &Memory,
    (module, survey): (&M, &Survey),
    pass: &mut impl FnMut(M, Pass) -> (T, Vector),
) -> Taken<T> {
    let (value, g) = pass(module.clone(), Pass::Plain);
    let found = method.ascent.way().report(&g);
    let descent = match memory.count() < method.start {
        true => g,
        false => {
            let between = method.between.way();
            let kept = between.keeps().and_then(|_| memory.vector(survey, &g));
            let is_limited = matches!(method.descent.way().of(), Of::Lengths(_));
            between.descent(g, kept, is_limited)
        }
    };
    let (descent, length) = memory.limited(method, descent, None);
    Taken {
        passes: Passes::of(Some(value), None),
        grads: handed(module, memory, descent, found, length),
        rise: None,
        ratio: None,
    }
}

/// A step whose only pass is at w + e(w).
fn once<M: Module, T>(
    method: &Method,
    memory: &Memory,
    (module, survey, noise): (&M, &Survey, &dyn Fn() -> Vector),
    lent: Option<Vector>,
    wants_rise: bool,
    pass: &mut impl FnMut(M, Pass) -> (T, Vector),
) -> Taken<T> {
    let ascent = method.ascent.way();
    let kept = lent.or_else(|| {
        let _ = ascent.keeps()?;
        memory.vector(survey, &survey.weights)
    });
    let direction = ascent.direction(From {
        gradient: Vector::new(),
        kept,
        noise,
    });
    let factor = memory.factor(method);
    // The steps that stay at w count running statistics, and the first, which is there too.
    let from = match method.may_look() && memory.count() > 0 {
        true => with_own_statistics(module, survey),
        false => module.clone(),
    };
    let climbed = climb(method, survey, &factor, from, direction).module;
    let there = wants_rise.then(|| walk::weights(&climbed));
    let (value, h) = pass(climbed, Pass::Climbed);
    // The slope at w along the way is about nothing, so that the loss has risen by 1/2 <h, e>.
    let rise = there.and_then(|there| h.slope(&survey.weights, &there));
    let rise = rise.map(|[hh, slope]| (hh, slope * 0.5));

    let hh = rise.as_ref().map(|(hh, _)| hh.clone());
    let (descent, length) = memory.limited(method, h, hh);
    Taken {
        passes: Passes::of(None, Some(value)),
        grads: handed(module, memory, descent, None, length),
        rise: rise.map(|(_, rise)| rise),
        ratio: None,
    }
}

/// A step that takes the gradients at w, climbs, and takes those at w + e(w).
fn twice<M: Module, T>(
    method: &Method,
    memory: &Memory,
    (module, survey, noise): (&M, &Survey, &dyn Fn() -> Vector),
    counted: Pass,
    pass: &mut impl FnMut(M, Pass) -> (T, Vector),
) -> Taken<T> {
    // Made before the first pass: the statistics of several workers are averaged once all of them
    // have passed, which a copy taken in between would disturb.
    let own_statistics = with_own_statistics(module, survey);
    let shared_statistics = module.clone();
    let (at_w, to_climb) = match counted {
        Pass::Climbed => (own_statistics, shared_statistics),
        _ => (shared_statistics, own_statistics),
    };
    let (first, g) = pass(at_w, Pass::AtW);
    let factor = memory.factor(method);
    let kept = method.keeps_first_gradients().then(|| g.clone());
    let ascent = method.ascent.way();
    let direction = ascent.direction(From {
        kept: ascent.keeps().and_then(|_| memory.vector(survey, &g)),
        gradient: g,
        noise,
    });
    let Ascended {
        module: climbed,
        way,
    } = climb(method, survey, &factor, to_climb, direction);
    let at_w = AtW::new(method, kept, way);
    let mut climbed = climbed;
    for _ in 1..method.ascents {
        let survey = Survey::of(method, &climbed);
        let (_, g) = pass(with_own_statistics(&climbed, &survey), Pass::Between);
        climbed = climb(method, &survey, &factor, climbed, Direction::Gradient(g)).module;
    }
    let (last, h) = pass(climbed.clone(), Pass::Climbed);
    let found = (at_w.grads.as_ref()).and_then(|g| method.report(g, &h));
    let (descent, ratio) = descend(method, survey, at_w, Some(climbed), h);
    Taken {
        passes: Passes::of(Some(first), Some(last)),
        grads: handed(module, memory, descent, found, None),
        rise: None,
        ratio,
    }
}

impl<T> Passes<T> {
    fn of(at_w: Option<T>, climbed: Option<T>) -> Self {
        Self { at_w, climbed }
    }
}

/// The gradients of a loss, or a panic if the loss was not of this module.
pub(crate) fn gradients_of<M: Module>(module: &M, grads: Gradients, at: Pass) -> Vector {
    let grads = walk::gradients(module, grads);
    if grads.is_empty() {
        let mut trainable = 0;
        each(module, |leaf| trainable += usize::from(leaf.is_trainable()));
        assert!(
            trainable == 0,
            "{} got gradients, but of the {trainable} parameters that require them, none has one: {}",
            match at {
                Pass::Plain => "a step without an ascent",
                Pass::AtW => "SAM's first step",
                Pass::Between => "SAM's next ascent",
                Pass::Climbed => "SAM's second step",
            },
            match at {
                Pass::Plain | Pass::AtW =>
                    "the loss was not taken with this module. Take it with the module that you \
                     then give to SamConfig::first_step, after its last update, or that the closure of \
                     SamSteps::minimize or optimize is given",
                Pass::Between | Pass::Climbed =>
                    "the loss was not taken with the climbed module, but perhaps with the one at \
                     w. Call the forward pass of what SamConfig::first_step returned \
                     (climbed.forward(..)), or in SamConfig::optimize, SamSteps::optimize and \
                     SamSteps::minimize that of the module that the closure is given",
            }
        );
    }
    grads
}
