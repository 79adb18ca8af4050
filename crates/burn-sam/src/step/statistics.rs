//! Running statistics of their own for the climbed module.
//!
//! Batch normalization keeps its running statistics in a cell that all clones of a module share,
//! so a second pass through a clone would count the batch twice. Going through validation and
//! back is Burn's one way to a module with cells of its own; all else that this changes
//! (checkpointing strategies, the state of frozen or validating parts) is put back.

use std::any::Any;
use std::collections::VecDeque;

use burn::module::{Flag, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bool, Int, Tensor};

use super::survey::Survey;

/// The same module, parameter for parameter, with running statistics of its own.
///
/// Where every parameter requires gradients, as running statistics do not, the detour, which takes longer than a small
/// model's perturbation, is saved.
pub(crate) fn with_own_statistics<M: Module>(module: &M, survey: &Survey) -> M {
    if !survey.has_constants {
        return module.clone();
    }
    let own = module.valid().train();
    let mut params = Params::default();
    module.visit(&mut params);
    own.map(&mut params)
}

/// The parameters of one module, to be put into another of the same structure: by their order, for a clone beside its
/// origin has the same ids.
#[derive(Default)]
struct Params(VecDeque<(ParamId, Box<dyn Any>)>);

impl Params {
    fn take_in<P: Clone + 'static>(&mut self, id: ParamId, param: &P) {
        self.0.push_back((id, Box::new(param.clone())));
    }

    fn give_out<P: Clone + 'static>(&mut self, id: ParamId, param: P) -> P {
        // The next one, but for a module written by hand that maps in another order than it visits.
        let is_it = |(of, kept): &(ParamId, Box<dyn Any>)| *of == id && kept.is::<P>();
        let index = self.0.iter().position(is_it);
        let kept = index.and_then(|index| self.0.remove(index));
        let kept = kept.and_then(|(_, kept)| kept.downcast::<P>().ok());
        kept.map_or(param, |kept| *kept)
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
