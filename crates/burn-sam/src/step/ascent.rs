//! SAM's first step: from the gradients g at w to the module at w + e(w), with
//!
//! ```text
//! e(w) = rho * T² g / (|T g| + eps),    T = 1, or |w| + eta for ASAM
//! ```
//!
//! (equation 2 of SAM, arXiv 2010.01412; T of ASAM, arXiv 2102.11600). The norm is one over all
//! parameters that have a gradient; rho is the parameter's group's. T may be 1 for biases alone.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn_sam_kernels::{Climbed, Parameter, perturb, portable::total, squared_norm};

use serde::{Deserialize, Serialize};

use super::Memory;
use super::pairs::{Lone, combine, release};
use super::radius::Factor;
use crate::SamConfig;
use crate::config::{check_part, check_size};

/// An ascent's end, and what is known of its way.
pub(crate) struct Ascended<M> {
    /// At w + e(w).
    pub(crate) module: M,
    /// |T g|²; of no gradients, nothing.
    pub(crate) squared_norm: Option<Tensor<1>>,
    /// The gradients of parameters whose rho is 0, which nothing was written over.
    pub(crate) unmoved: GradientsParams,
}

/// From the module at w along its gradients there, with all radii multiplied by a factor.
///
/// Parameters without a gradient, and those whose rho is 0, stay at w.
///
/// # Panics
///
/// If there are gradients, but none of a parameter of this module.
pub(crate) fn climb<M: Module>(
    sam: &SamConfig,
    factor: &Factor,
    module: M,
    grads: GradientsParams,
) -> Ascended<M> {
    climb_along(sam, factor, module, grads, false)
}

/// As [`climb`] along the last update, given the weights before.
pub(crate) fn climb_along_update<M: Module>(
    sam: &SamConfig,
    factor: &Factor,
    module: M,
    before: GradientsParams,
) -> M {
    climb_along(sam, factor, module, before, true).module
}

/// Along gradients, or along the update from the weights that stand in their place.
fn climb_along<M: Module>(
    sam: &SamConfig,
    factor: &Factor,
    module: M,
    grads: GradientsParams,
    are_before: bool,
) -> Ascended<M> {
    if grads.is_empty() {
        return Ascended {
            module: module.map(&mut Assign(HashMap::new())),
            squared_norm: None,
            unmoved: grads,
        };
    }
    let count = grads.len();
    let mut collect = Collect {
        sam,
        factor: factor.host,
        path: Vec::new(),
        grads,
        are_before,
        scaled: List {
            ids: Vec::with_capacity(count),
            parameters: Vec::with_capacity(count),
        },
        spared: List::default(),
        unmoved: GradientsParams::new(),
    };
    module.visit(&mut collect);
    let Collect {
        scaled,
        spared,
        unmoved,
        ..
    } = collect;
    // Each list with its T.
    let lists = [(scaled, sam.adaptive_eta()), (spared, None)];

    let norms = (lists.iter()).filter_map(|(list, eta)| squared_norm(&list.parameters, *eta));
    let Some(norm) = total(norms.collect()) else {
        panic!(
            "SAM's first step got {count} gradients, but none belongs to a parameter of the module: \
             take them with GradientsParams::from_grads(loss.backward(), &model), of the same model"
        );
    };
    let mut assign = Assign(HashMap::with_capacity(count));
    for (List { ids, parameters }, eta) in lists {
        if !ids.is_empty() {
            let climbed = perturb(
                parameters,
                norm.clone(),
                sam.eps(),
                eta,
                factor.device.clone(),
            );
            assign.0.extend(ids.into_iter().zip(climbed));
        }
    }
    Ascended {
        module: module.map(&mut assign),
        squared_norm: Some(norm),
        unmoved,
    }
}

/// Which way to climb.
///
/// From [`SamConfig::with_ascent`]. In a file, it is `"gradient"`, `"msam"` or
/// `{"friendly": {"sigma": 1.0, "lambda": 0.9}}`.
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
    /// gradient updates w. The first step, before any update, is the base optimizer's. The climbed weights
    /// are kept from step to step: one copy of the weights. w is what is validated, saved and returned.
    ///
    /// [Momentum-SAM](https://arxiv.org/abs/2401.12033) (Becker et al.), equation 4, in their code's sign.
    Msam,
}

impl Ascent {
    pub(crate) fn validate(self) -> Result<(), String> {
        match self {
            Self::Friendly { sigma, lambda } => {
                check_size("ascent.friendly.sigma", sigma)?;
                check_part("ascent.friendly.lambda", lambda)
            }
            Self::Gradient | Self::Msam => Ok(()),
        }
    }

    /// The gradients g as the direction to climb in.
    pub(crate) fn direction<M: Module>(
        self,
        module: &M,
        memory: &Memory,
        grads: GradientsParams,
    ) -> GradientsParams {
        match self {
            Self::Friendly { sigma, .. } if memory.count() > 0 => {
                let average = memory.vectors_of(module, &grads);
                let one = memory.one();
                let direction = combine(
                    module,
                    grads,
                    &average,
                    Lone::Alone,
                    &[one.clone(), one * -sigma],
                );
                release(module, average);
                direction
            }
            _ => grads,
        }
    }
}

/// Whether every group with a rho of its own matches a parameter of the module; if not, the rho would
/// silently go nowhere, and the message says what there is to match.
pub(crate) fn check_groups<M: Module>(sam: &SamConfig, module: &M) -> Result<(), String> {
    if !sam.has_groups() {
        return Ok(());
    }
    let mut paths = Paths {
        path: Vec::new(),
        paths: Vec::new(),
    };
    module.visit(&mut paths);
    let all = paths.paths;
    // What is under an adapter does not move: a rho for it would go nowhere too.
    let is_adapted = |path: &str| {
        let adapters = format!("{path}.lora.");
        all.iter().any(|(_, other)| other.starts_with(&adapters))
    };
    let is_unmatched = |group: &ParamGroup| {
        let mut all = all.iter();
        !all.any(|(id, path)| group.matches(id, Some(path)) && !is_adapted(path))
    };
    match sam.groups().find(|(group, _)| is_unmatched(group)) {
        None => Ok(()),
        Some((group, rho)) => {
            let paths: Vec<&str> = (all.iter().map(|(_, path)| path.as_str()))
                .filter(|path| !is_adapted(path))
                .collect();
            Err(format!(
                "SamConfig: the group with a rho of {rho} matches no parameter of the module, so this \
                 rho would go nowhere: {group:?}. The parameters are: {}",
                if paths.is_empty() {
                    "none".to_string()
                } else {
                    paths.join(", ")
                }
            ))
        }
    }
}

/// The floating-point parameters' ids and paths.
struct Paths {
    path: Vec<String>,
    paths: Vec<(ParamId, String)>,
}

impl ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.paths.push((param.id, self.path.join(".")));
    }
}

/// Collects the parameters that have a gradient. Taking each gradient out of the lot makes a
/// parameter that the module holds twice count once.
struct Collect<'a> {
    sam: &'a SamConfig,
    factor: f64,
    path: Vec<String>,
    grads: GradientsParams,
    are_before: bool,
    scaled: List,
    /// The biases, if they are spared ASAM's T.
    spared: List,
    unmoved: GradientsParams,
}

/// Parameters that have one T.
#[derive(Default)]
struct List {
    ids: Vec<ParamId>,
    parameters: Vec<Parameter>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        if self.sam.has_groups() || self.sam.spares_biases() {
            self.path.push(name.to_string());
        }
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            let mut weight = param.val().inner();
            let device = grad.device();
            if weight.device() != device {
                weight = weight.to_device(&device);
            }
            let rho = self.sam.rho_of(&param.id, &self.path.join(".")) * self.factor;
            if rho == 0.0 {
                self.unmoved.register(param.id, grad.clone());
            }
            let is_bias = matches!(self.path.last().map(String::as_str), Some("bias" | "beta"));
            let list = match self.sam.spares_biases() && is_bias {
                true => &mut self.spared,
                false => &mut self.scaled,
            };
            let parameter = match (self.are_before, self.sam.adaptive()) {
                (false, _) => Parameter::new(weight, grad, rho),
                (true, false) => Parameter::of_update(weight, grad, rho),
                (true, true) => Parameter::new(weight.clone(), weight - grad, rho),
            };
            list.ids.push(param.id);
            list.parameters.push(parameter);
        }
    }
}

/// Puts the climbed values in the place of the parameters, each with what a parameter has besides
/// its value: whether it requires gradients, its checkpointing strategy, its distribution over
/// devices. Burn's optimizers do the same, but on a small model they take twice as long for it.
struct Assign(HashMap<ParamId, Climbed>);

impl ModuleMapper for Assign {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let id = param.id;
        match self.0.remove(&id) {
            Some(climbed) => param.map(|weight| in_place_of(weight, climbed.into_tensor(), id)),
            // At w, but another leaf of the graph: the gradients of a loss at w are not its own.
            None if param.is_require_grad() => param.map(|weight| {
                let same = weight.clone().inner();
                in_place_of(weight, same, id)
            }),
            None => param,
        }
    }
}

/// A value in the place of a parameter.
pub(crate) fn in_place_of<const D: usize>(
    parameter: Tensor<D>,
    value: Tensor<D>,
    id: ParamId,
) -> Tensor<D> {
    let mut value = Tensor::from_inner(value);
    let strategy = parameter.gradient_checkpointing_strategy();
    if let Some(strategy) = strategy
        && value.gradient_checkpointing_strategy() != Some(strategy)
    {
        value = value.with_gradient_checkpointing_strategy(strategy);
    }
    if parameter.is_require_grad() {
        value = value.require_grad();
    }
    match parameter.is_distributed() {
        true => value.set_distributed(id),
        false => value,
    }
}
