//! SAM's first step: from the module at w to the module at w + e(w), with
//!
//! ```text
//! e(w) = rho * T² d / (|T d| + eps),    T = 1, or |w| + eta for ASAM
//! ```
//!
//! (equation 2 of SAM, arXiv 2010.01412; T of ASAM, arXiv 2102.11600), along a direction d. The norm is one over all
//! parameters that d has a part of; rho is the parameter's group's. T may be 1 for biases alone.

use burn::module::Module;
use burn_sam_kernels::{Along, Length, Number, Path, Vector};

use super::survey::Survey;
use super::walk::replace;
use crate::method::{Direction, Factor, Method};

/// An ascent's end, and what is known of its way.
pub(crate) struct Ascended<M> {
    /// At w + e(w).
    pub(crate) module: M,
    /// Of a climb along the gradient itself.
    pub(crate) way: Option<Way>,
}

/// The way from w to w + e(w), along the gradient g.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// |g|², if that is what the climb was measured by.
    pub(crate) squared_norm: Number,
    /// |g| + eps, over the factor of all radii: how many times the way g is, for a rho of 1.
    pub(crate) per_rho: Number,
    /// The same factor for radii on the host.
    pub(crate) factor: f64,
    /// The gradients of parameters whose rho is 0, which nothing was written over.
    pub(crate) unmoved: Vector,
}

/// From the module at w, with all radii multiplied by a factor.
///
/// Parameters that the direction has no part of, and those whose rho is 0, stay at w.
pub(crate) fn climb<M: Module>(
    method: &Method,
    survey: &Survey,
    factor: &Factor,
    module: M,
    direction: Direction,
) -> Ascended<M> {
    let weights = &survey.weights;
    let is_gradient = matches!(direction, Direction::Gradient(_)) && !method.adaptive;
    let (vector, is_before) = match direction {
        Direction::Gradient(vector) | Direction::Along(vector) => (vector, false),
        // T is of an update that somebody has to write down.
        Direction::UpdateFrom(before) if method.adaptive => {
            (before.combine(-1.0, &[(weights, 1.0)]), false)
        }
        Direction::UpdateFrom(before) => (before, true),
    };
    let rho = |place| survey.rho(place) * factor.host;
    let unmoved: Vector = match is_gradient {
        true => (vector.iter())
            .filter(|part| rho(part.place()) == 0.0)
            .cloned()
            .collect(),
        false => Vector::new(),
    };
    let path = |vector: Vector, eta| {
        let along = match is_before {
            true => Along::Update,
            false => Along::Gradient { eta },
        };
        vector.path(weights, along)
    };
    // Each with its T.
    let paths = match method.spares_biases() {
        true => {
            let spared = vector.clone().filtered(|place| survey.is_bias(place));
            let scaled = vector.filtered(|place| !survey.is_bias(place));
            vec![path(scaled, method.adaptive_eta()), path(spared, None)]
        }
        false => vec![path(vector, method.adaptive_eta())],
    };

    let squared_norms = paths.iter().filter_map(Path::squared_length);
    let Some(squared_norm) = squared_norms.reduce(|sum, other| sum + other) else {
        return Ascended {
            module: replace(module, Vector::new()),
            way: None,
        };
    };
    let by_length = factor.of(&squared_norm);
    let length = Length::new(squared_norm.clone(), method.eps, by_length);
    let climbed = (paths.into_iter())
        .map(|path| path.end(rho, &length))
        .reduce(Vector::merged);
    Ascended {
        module: replace(module, climbed.unwrap_or_default()),
        way: is_gradient.then(|| Way {
            squared_norm,
            per_rho: length.per_rho(),
            factor: factor.host,
            unmoved,
        }),
    }
}
