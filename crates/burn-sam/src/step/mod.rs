//! One step of any method: its passes, in their sequence.

mod climb;
mod descent;
mod memory;
mod record;
mod statistics;
mod survey;
mod walk;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Gradients;
use burn_sam_kernels::Vector;

use crate::method::{Direction, From, Method};
pub(crate) use climb::{Ascended, climb};
pub(crate) use descent::{AtW, descend};
pub(crate) use memory::{ByParameter, Memory};
pub(crate) use statistics::with_own_statistics;
pub(crate) use survey::{Survey, check_groups};
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

/// The passes of a step, what they returned, and the gradients that are the base optimizer's, with what
/// is to be remembered beside them.
///
/// The pass `counted` updates the running statistics of `module`, unless it is the only one; all others
/// have their own.
pub(crate) fn passes<M: Module, T>(
    method: &Method,
    memory: &Memory,
    module: &M,
    counted: Pass,
    mut pass: impl FnMut(M, Pass) -> (T, Vector),
) -> (Passes<T>, GradientsParams) {
    let survey = Survey::of(method, module);
    let noise = || {
        let mut noise = Vector::new();
        each_parameter(module, |leaf| {
            noise.push(leaf.weight().noise(leaf.filter_dim()))
        });
        noise
    };
    let (passes, h, found) = if !method.takes_gradient() {
        let from = From {
            gradient: Vector::new(),
            kept: memory.vector(&survey, &survey.weights),
            noise: &noise,
        };
        let direction = method.ascent.way().direction(from);
        let factor = memory.factor(method);
        let climbed = climb(method, &survey, &factor, module.clone(), direction).module;
        let (value, h) = pass(climbed, Pass::Climbed);
        (Passes::of(None, Some(value)), h, None)
    } else if !climbs_at(method, memory.count()) {
        let (value, g) = pass(module.clone(), Pass::Plain);
        let found = method.ascent.way().report(&g);
        let descent = match memory.count() < method.start {
            true => g,
            false => {
                let kept = memory.vector(&survey, &g);
                let is_limited = method.descent == crate::Descent::Limited;
                method.between.way().descent(g, kept, is_limited)
            }
        };
        (Passes::of(Some(value), None), descent, found)
    } else {
        twice(
            method,
            memory,
            (module, &survey, &noise),
            counted,
            &mut pass,
        )
    };
    let mut grads = register(module, h);
    if let Some(found) = found {
        memory.report(&mut grads, found);
    }
    (passes, grads)
}

/// A step that takes the gradients at w, climbs, and takes those at w + e(w).
fn twice<M: Module, T>(
    method: &Method,
    memory: &Memory,
    (module, survey, noise): (&M, &Survey, &dyn Fn() -> Vector),
    counted: Pass,
    pass: &mut impl FnMut(M, Pass) -> (T, Vector),
) -> (Passes<T>, Vector, Option<Vector>) {
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
    let from = From {
        kept: memory.vector(survey, &g),
        gradient: g,
        noise,
    };
    let direction = method.ascent.way().direction(from);
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
    let descent = descend(method, survey, &at_w, Some(&climbed), h);
    (Passes::of(Some(first), Some(last)), descent, found)
}

/// Whether the step after so many climbs.
fn climbs_at(method: &Method, count: usize) -> bool {
    let since_start = count.checked_sub(method.start);
    since_start.is_some_and(|steps| steps.is_multiple_of(method.every))
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
