//! Running statistics of their own for the climbed module.
//!
//! Batch normalization keeps its running statistics in a cell that all clones of a module share,
//! so a second pass through a clone would count the batch twice. Going through validation and
//! back is Burn's one way to a module with cells of its own; all else that this changes
//! (checkpointing strategies, the state of frozen or validating parts) is put back.

use std::any::Any;
use std::collections::HashMap;

use burn::module::{Flag, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bool, Int, Tensor};

/// The same module, parameter for parameter, with running statistics of its own.
pub(crate) fn with_own_statistics<M: Module>(module: &M) -> M {
    let mut statistics = MayHaveStatistics(false);
    module.visit(&mut statistics);
    if !statistics.0 {
        return module.clone();
    }
    let own = module.valid().train();
    let mut params = Params::default();
    module.visit(&mut params);
    own.map(&mut params)
}

/// Whether there is any floating-point tensor that requires no gradient, as running statistics do not.
/// Where there is none, the detour, which takes longer than a small model's perturbation, is saved.
struct MayHaveStatistics(bool);

impl ModuleVisitor for MayHaveStatistics {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 |= !param.is_require_grad();
    }
}

/// The parameters of one module, to be put into another of the same structure.
#[derive(Default)]
struct Params(HashMap<ParamId, Box<dyn Any>>);

impl Params {
    fn take_in<P: Clone + 'static>(&mut self, id: ParamId, param: &P) {
        self.0.insert(id, Box::new(param.clone()));
    }

    /// A parameter that the module holds twice is given out twice, hence no removal.
    fn give_out<P: Clone + 'static>(&self, id: ParamId, param: P) -> P {
        let kept = self.0.get(&id).and_then(|kept| kept.downcast_ref::<P>());
        kept.cloned().unwrap_or(param)
    }
}

impl ModuleVisitor for Params {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.take_in(param.id, param);
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.take_in(param.id, param);
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.take_in(param.id, param);
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.take_in(flag.id, flag);
    }
}

impl ModuleMapper for Params {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.give_out(param.id, param)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        self.give_out(param.id, param)
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        self.give_out(param.id, param)
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.give_out(flag.id, flag)
    }
}
