//! SAM's first step: from the module at w to the module at w + e(w), with
//!
//! ```text
//! e(w) = rho * T² d / (|T d| + eps),    T = 1, or |w| + eta for ASAM
//! ```
//!
//! (equation 2 of SAM, arXiv 2010.01412; T of ASAM, arXiv 2102.11600), along a direction d. The norm is one over all
//! parameters that d has a part of; rho is the parameter's group's. T may be 1 for biases alone.

use burn::module::Module;
use burn::tensor::Tensor;
use burn_sam_kernels::{Along, Length, Vector, portable::total};

use super::survey::Survey;
use super::walk::replace;
use crate::method::{Direction, Factor, Method, beside};

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
    pub(crate) squared_norm: Tensor<1>,
    /// |g| + eps, over the factor of all radii.
    pub(crate) norm: Tensor<1>,
    /// The same for radii on the host.
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
            let [one, less] = [1.0, -1.0].map(|value| weights.number(value));
            (before.combine(less, &[(weights, one)]), false)
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
    // Each list with its T.
    let lists = match method.spares_biases() {
        true => {
            let spared = vector.clone().filtered(|place| survey.is_bias(place));
            let scaled = vector.filtered(|place| !survey.is_bias(place));
            vec![(scaled, method.adaptive_eta()), (spared, None)]
        }
        false => vec![(vector, method.adaptive_eta())],
    };
    let along = |eta| match is_before {
        true => Along::Update,
        false => Along::Gradient { eta },
    };

    let norms = (lists.iter()).filter_map(|(list, eta)| list.squared_length(weights, along(*eta)));
    let Some(squared_norm) = total(norms.collect()) else {
        return Ascended {
            module: replace(module, Vector::new()),
            way: None,
        };
    };
    let length = Length {
        eps: method.eps,
        factor: factor.of(&squared_norm),
        squared_norm,
    };
    let climbed = (lists.into_iter())
        .map(|(list, eta)| list.perturbed(weights, along(eta), rho, &length))
        .reduce(Vector::merged);
    Ascended {
        module: replace(module, climbed.unwrap_or_default()),
        way: is_gradient.then(|| Way::new(length, factor.host, unmoved)),
    }
}

impl Way {
    fn new(length: Length, factor: f64, unmoved: Vector) -> Self {
        let norm = length.squared_norm.clone().sqrt() + length.eps;
        Self {
            squared_norm: length.squared_norm,
            norm: match length.factor {
                Some(factor) => norm.clone() / beside(factor, &norm),
                None => norm,
            },
            factor,
            unmoved,
        }
    }
}
