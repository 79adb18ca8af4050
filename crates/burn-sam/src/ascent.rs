//! SAM's first step: from the gradients g at w to the module at w + e(w), with
//!
//! ```text
//! e(w) = rho * T² g / (|T g| + eps),    T = 1, or |w| + eta for ASAM
//! ```
//!
//! (equation 2 of SAM, arXiv 2010.01412; T of ASAM, arXiv 2102.11600). The norm is one over all
//! parameters that have a gradient; rho is the parameter's group's.

use std::collections::HashSet;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsParams, LearningRate, ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Tensor};
use burn_sam_kernels::portable::{Scale, perturb, sum_of_squares, total};

use crate::SamConfig;

/// The module at w + e(w), given the module at w and its gradients there.
///
/// Parameters without a gradient, and those whose rho is 0, stay at w.
///
/// # Panics
///
/// If there are gradients, but none of a parameter of this module.
pub(crate) fn climb<M: Module>(sam: &SamConfig, module: M, grads: GradientsParams) -> M {
    if grads.is_empty() {
        return module;
    }
    let mut norm = SquaredNorm {
        eta: sam.adaptive_eta(),
        grads: &grads,
        seen: HashSet::new(),
        sums: Vec::new(),
    };
    module.visit(&mut norm);
    let Some(squared_norm) = total(norm.sums) else {
        panic!(
            "SAM's first step got {} gradients, but none belongs to a parameter of the module: \
             take them with GradientsParams::from_grads(loss.backward(), &model), of the same model",
            grads.len()
        );
    };

    let mut ascent = Ascent {
        sam,
        scale: Scale::new(squared_norm, sam.eps()),
        path: Vec::new(),
        grads,
        climbed: GradientsParams::new(),
    };
    module.visit(&mut ascent);
    ModuleOptimizer::from(Assign).step(LearningRate::default(), module, ascent.climbed)
}

/// Adds up |T g|² over the parameters that have a gradient.
struct SquaredNorm<'a> {
    eta: Option<f64>,
    grads: &'a GradientsParams,
    /// A parameter that a module holds twice has one gradient, which counts once.
    seen: HashSet<ParamId>,
    sums: Vec<Tensor<1>>,
}

impl ModuleVisitor for SquaredNorm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id)
            && self.seen.insert(param.id)
        {
            let weight = value_on(param, &grad.device());
            self.sums.push(sum_of_squares(&weight, grad, self.eta));
        }
    }
}

/// Replaces each gradient by its parameter's value at w + e(w).
struct Ascent<'a> {
    sam: &'a SamConfig,
    scale: Scale,
    path: Vec<String>,
    grads: GradientsParams,
    climbed: GradientsParams,
}

impl ModuleVisitor for Ascent<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(grad) = self.grads.remove::<D>(param.id) else {
            return;
        };
        let rho = self.sam.rho(&param.id, &self.path.join("."));
        if rho == 0.0 {
            return;
        }
        let weight = value_on(param, &grad.device());
        let climbed = perturb(weight, grad, &self.scale, rho, self.sam.adaptive_eta());
        self.climbed.register(param.id, climbed);
    }
}

/// A parameter's value, outside the autodiff graph, on the device of its gradient.
fn value_on<const D: usize>(param: &Param<Tensor<D>>, device: &Device) -> Tensor<D> {
    param.val().inner().to_device(device)
}

/// The optimizer whose update is the gradient itself. Through it, values enter a module with all
/// that [`ModuleOptimizer`] keeps of a parameter: whether it requires gradients, its checkpointing
/// strategy, its distribution over devices, its adapters.
#[derive(Clone)]
struct Assign;

impl Optimizer for Assign {
    type State<const D: usize> = ();

    fn step<const D: usize>(
        &self,
        _lr: LearningRate,
        _tensor: Tensor<D>,
        grad: Tensor<D>,
        _state: Option<()>,
    ) -> (Tensor<D>, Option<()>) {
        (grad, None)
    }

    fn to_device<const D: usize>(_state: (), _device: &Device) {}
}
