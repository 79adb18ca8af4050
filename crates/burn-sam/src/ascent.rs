//! SAM's first step: from the gradients g at w to the module at w + e(w), with
//!
//! ```text
//! e(w) = rho * T² g / (|T g| + eps),    T = 1, or |w| + eta for ASAM
//! ```
//!
//! (equation 2 of SAM, arXiv 2010.01412; T of ASAM, arXiv 2102.11600). The norm is one over all
//! parameters that have a gradient; rho is the parameter's group's.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsParams, LearningRate, ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Tensor};
use burn_sam_kernels::{Climbed, Parameter, perturb, squared_norm};

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
    let count = grads.len();
    let mut collect = Collect {
        sam,
        path: Vec::new(),
        grads,
        ids: Vec::new(),
        parameters: Vec::new(),
    };
    module.visit(&mut collect);
    let Collect {
        ids, parameters, ..
    } = collect;

    let eta = sam.adaptive_eta();
    let Some(norm) = squared_norm(&parameters, eta) else {
        panic!(
            "SAM's first step got {count} gradients, but none belongs to a parameter of the module: \
             take them with GradientsParams::from_grads(loss.backward(), &model), of the same model"
        );
    };
    let climbed = perturb(parameters, norm, sam.eps(), eta);

    let mut register = Register {
        climbed: ids.into_iter().zip(climbed).collect(),
        values: GradientsParams::new(),
    };
    module.visit(&mut register);
    ModuleOptimizer::from(Assign).step(LearningRate::default(), module, register.values)
}

/// Collects the parameters that have a gradient. Taking each gradient out of the lot makes a
/// parameter that the module holds twice count once.
struct Collect<'a> {
    sam: &'a SamConfig,
    path: Vec<String>,
    grads: GradientsParams,
    ids: Vec<ParamId>,
    parameters: Vec<Parameter>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            let weight = param.val().inner().to_device(&grad.device());
            let rho = self.sam.rho(&param.id, &self.path.join("."));
            self.ids.push(param.id);
            self.parameters.push(Parameter::new(weight, grad, rho));
        }
    }
}

/// Gives the climbed values their ranks back.
struct Register {
    climbed: HashMap<ParamId, Climbed>,
    values: GradientsParams,
}

impl ModuleVisitor for Register {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(climbed) = self.climbed.remove(&param.id) {
            self.values.register(param.id, climbed.into_tensor::<D>());
        }
    }
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
