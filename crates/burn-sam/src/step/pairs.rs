//! Two gradients of each parameter: their inner products, and what is made of both.

use std::collections::{HashMap, HashSet};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn_sam_kernels::{Combined, Pair, inner_products};

/// <a, a>, <a, b> and <b, b> over the parameters that have both, or `None` if there is none. A parameter
/// that the module holds twice counts once.
pub(crate) fn products<M: Module>(
    module: &M,
    a: &GradientsParams,
    b: &GradientsParams,
) -> Option<[Tensor<1>; 3]> {
    struct Pairs<'a> {
        seen: HashSet<ParamId>,
        a: &'a GradientsParams,
        b: &'a GradientsParams,
        pairs: Vec<Pair>,
    }

    impl ModuleVisitor for Pairs<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let (a, b) = (self.a.get::<D>(param.id), self.b.get::<D>(param.id));
            if let (Some(a), Some(b)) = (a, b)
                && self.seen.insert(param.id)
            {
                self.pairs.push(Pair::new(a, b));
            }
        }
    }

    let mut pairs = Pairs {
        seen: HashSet::new(),
        a,
        b,
        pairs: Vec::new(),
    };
    module.visit(&mut pairs);
    inner_products(&pairs.pairs)
}

/// x a + y b of each parameter that has both, and a of each that has it alone. What has a coefficient of 0 may
/// hold anything.
pub(crate) fn combine<M: Module>(
    module: &M,
    a: GradientsParams,
    b: &GradientsParams,
    coefficients: &[Tensor<1>; 2],
) -> GradientsParams {
    struct Pairs<'a> {
        a: GradientsParams,
        b: &'a GradientsParams,
        ids: Vec<ParamId>,
        pairs: Vec<Pair>,
        alone: GradientsParams,
    }

    impl ModuleVisitor for Pairs<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let Some(a) = self.a.remove::<D>(param.id) else {
                return;
            };
            match self.b.get::<D>(param.id) {
                Some(b) => {
                    self.ids.push(param.id);
                    self.pairs.push(Pair::new(a, b));
                }
                None => self.alone.register(param.id, a),
            }
        }
    }

    /// Registers what was made of the pairs, each with its parameter's rank.
    struct Register(HashMap<ParamId, Combined>, GradientsParams);

    impl ModuleVisitor for Register {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(combined) = self.0.remove(&param.id) {
                self.1.register(param.id, combined.into_tensor::<D>());
            }
        }
    }

    let mut pairs = Pairs {
        a,
        b,
        ids: Vec::new(),
        pairs: Vec::new(),
        alone: GradientsParams::new(),
    };
    module.visit(&mut pairs);
    let combined = burn_sam_kernels::combine(pairs.pairs, coefficients);
    let mut register = Register(pairs.ids.into_iter().zip(combined).collect(), pairs.alone);
    module.visit(&mut register);
    register.1
}

/// Other handles on the same tensors.
pub(crate) fn copy<M: Module>(module: &M, grads: &GradientsParams) -> GradientsParams {
    struct Copy<'a> {
        grads: &'a GradientsParams,
        copy: GradientsParams,
    }

    impl ModuleVisitor for Copy<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.grads.get::<D>(param.id) {
                self.copy.register(param.id, grad);
            }
        }
    }

    let mut copy = Copy {
        grads,
        copy: GradientsParams::new(),
    };
    module.visit(&mut copy);
    copy.copy
}
