//! What a walk over a module finds at the start of a step.

use burn::module::{Module, ParamId};
use burn_sam_kernels::Vector;

use super::walk::{each, each_with_path};
use crate::method::Method;

/// A module's parameters, by their places in its order.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    /// Their values, without autodiff.
    pub(crate) weights: Vector,
    parameters: Vec<Parameter>,
    /// Whether other workers have them too.
    pub(crate) is_distributed: bool,
    /// Whether any requires no gradient, as running statistics do not.
    pub(crate) has_constants: bool,
}

#[derive(Clone, Debug)]
struct Parameter {
    id: ParamId,
    is_trainable: bool,
    rho: f64,
    is_bias: bool,
}

impl Survey {
    /// Of a module that is to climb.
    ///
    /// # Panics
    ///
    /// If a group with a rho of its own matches no parameter.
    pub(crate) fn of<M: Module>(method: &Method, module: &M) -> Self {
        if let Err(message) = check_groups(method, module) {
            panic!("{message}");
        }
        let mut survey = Self {
            weights: Vector::new(),
            parameters: Vec::new(),
            is_distributed: false,
            has_constants: false,
        };
        let with_paths = method.needs_paths();
        let visit = |leaf: super::walk::Leaf<'_>| {
            let (rho, is_bias) = match with_paths {
                false => (method.rho, false),
                true => {
                    let path = leaf.path();
                    let name = path.rsplit('.').next();
                    let is_bias = matches!(name, Some("bias" | "beta"));
                    (method.rho_of(leaf.id(), &path), is_bias)
                }
            };
            let is_trainable = leaf.is_trainable();
            survey.weights.push(leaf.weight());
            survey.is_distributed |= leaf.is_distributed();
            survey.has_constants |= !is_trainable;
            survey.parameters.push(Parameter {
                id: leaf.id(),
                is_trainable,
                rho,
                is_bias,
            });
        };
        match with_paths {
            true => each_with_path(module, visit),
            false => each(module, visit),
        }
        survey
    }

    /// The radius of the parameter at a place.
    pub(crate) fn rho(&self, place: usize) -> f64 {
        self.parameters[place].rho
    }

    /// Whether it is a bias, or the beta of a normalization layer. Of a method that needs paths.
    pub(crate) fn is_bias(&self, place: usize) -> bool {
        self.parameters[place].is_bias
    }

    /// The places and the ids of those that require gradients.
    pub(crate) fn trainable_ids(&self) -> impl Iterator<Item = (usize, ParamId)> {
        (self.parameters.iter().enumerate())
            .filter(|(_, parameter)| parameter.is_trainable)
            .map(|(place, parameter)| (place, parameter.id))
    }
}

/// Whether every group with a rho of its own matches a parameter of the module; if not, the rho would
/// silently go nowhere, and the message says what there is to match.
pub(crate) fn check_groups<M: Module>(method: &Method, module: &M) -> Result<(), String> {
    if method.groups.is_empty() {
        return Ok(());
    }
    let mut all = Vec::new();
    each_with_path(module, |leaf| all.push((leaf.id(), leaf.path())));
    // What is under an adapter does not move: a rho for it would go nowhere too.
    let is_adapted = |path: &str| {
        let adapters = format!("{path}.lora.");
        all.iter().any(|(_, other)| other.starts_with(&adapters))
    };
    let mut groups = method.groups.iter();
    let unmatched = groups.find(|entry| {
        let mut all = all.iter();
        !all.any(|(id, path)| entry.group.matches(id, Some(path)) && !is_adapted(path))
    });
    let Some(entry) = unmatched else {
        return Ok(());
    };
    let paths: Vec<&str> = (all.iter().map(|(_, path)| path.as_str()))
        .filter(|path| !is_adapted(path))
        .collect();
    Err(format!(
        "SamConfig: the group with a rho of {} matches no parameter of the module, so this rho would go \
         nowhere: {:?}. The parameters are: {}",
        entry.rho,
        entry.group,
        if paths.is_empty() {
            "none".to_string()
        } else {
            paths.join(", ")
        }
    ))
}
