//! Two gradients of each parameter: their inner products, and what is made of both.

use std::collections::{HashMap, HashSet};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Bool, Tensor};
use burn_sam_kernels::{Combined, Pair, Parameter, inner_products, squared_norm};

use super::descent::Way;
use crate::SamConfig;

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

/// |g|² over the parameters that have a gradient, or `None` if there is none. A parameter that the module holds
/// twice counts once.
pub(crate) fn squared_norm_of<M: Module>(module: &M, grads: &GradientsParams) -> Option<Tensor<1>> {
    struct Collect<'a> {
        seen: HashSet<ParamId>,
        grads: &'a GradientsParams,
        parameters: Vec<Parameter>,
    }

    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.grads.get::<D>(param.id)
                && self.seen.insert(param.id)
            {
                // Without T, nothing but the gradient is read.
                self.parameters
                    .push(Parameter::new(grad.clone(), grad, 0.0));
            }
        }
    }

    let mut collect = Collect {
        seen: HashSet::new(),
        grads,
        parameters: Vec::with_capacity(grads.len()),
    };
    module.visit(&mut collect);
    squared_norm(&collect.parameters, None)
}

/// x h + y g of each parameter that has an h, with g read off the way from w to w + e(w): what was climbed is
/// rho g / (|g| + eps).
pub(crate) fn restore<M: Module>(
    sam: &SamConfig,
    [at_w, climbed]: [&M; 2],
    grads: GradientsParams,
    way: &Way,
    [x, y]: [Tensor<1>; 2],
) -> GradientsParams {
    /// The climbed weights.
    #[derive(Default)]
    struct Weights(GradientsParams);

    impl ModuleVisitor for Weights {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.register(param.id, param.val().inner());
        }
    }

    /// By radius, for each has a factor of its own.
    struct Threes<'a> {
        sam: &'a SamConfig,
        factor: f64,
        path: Vec<String>,
        grads: GradientsParams,
        climbed: GradientsParams,
        unmoved: &'a GradientsParams,
        threes: Vec<(f64, Vec<ParamId>, Vec<Pair>)>,
    }

    impl ModuleVisitor for Threes<'_> {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_string());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let Some(h) = self.grads.remove::<D>(param.id) else {
                return;
            };
            let w = param.val().inner();
            let rho = self.sam.rho_of(&param.id, &self.path.join(".")) * self.factor;
            let (b, c) = match (self.unmoved.get::<D>(param.id), rho == 0.0) {
                (Some(g), _) => (g.clone(), g),
                // Neither moved, nor had a gradient.
                (None, true) => (h.zeros_like(), w),
                (None, false) => (self.climbed.remove::<D>(param.id).expect("once"), w),
            };
            let three = Pair::new(h, b).and(c);
            match self.threes.iter_mut().find(|(of, ..)| *of == rho) {
                Some((_, ids, threes)) => {
                    ids.push(param.id);
                    threes.push(three);
                }
                None => self.threes.push((rho, vec![param.id], vec![three])),
            }
        }
    }

    let mut weights = Weights::default();
    climbed.visit(&mut weights);
    let mut threes = Threes {
        sam,
        factor: way.factor,
        path: Vec::new(),
        grads,
        climbed: weights.0,
        unmoved: &way.unmoved,
        threes: Vec::new(),
    };
    at_w.visit(&mut threes);
    let unread = y.clone().equal_elem(0.0);
    let mut register = Register(HashMap::new(), GradientsParams::new());
    for (rho, ids, threes) in threes.threes {
        let [y, z] = match rho == 0.0 {
            true => [y.clone(), y.zeros_like()],
            false => {
                let scale = way.norm.clone().to_device(&y.device()).cast(y.dtype()) / rho;
                let scale = scale.mask_fill(unread.clone(), 0.0);
                [scale.clone(), scale.neg()]
            }
        };
        let coefficients = [x.clone(), y, z];
        let restored = burn_sam_kernels::combine(threes, &coefficients);
        register.0.extend(ids.into_iter().zip(restored));
    }
    at_w.visit(&mut register);
    register.1
}

/// The coefficients, or others where a flag of shape `[1]` is true.
pub(crate) fn set_where(
    [x, y]: [Tensor<1>; 2],
    flag: &Tensor<1, Bool>,
    [other_x, other_y]: [f64; 2],
) -> [Tensor<1>; 2] {
    [
        x.mask_fill(flag.clone(), other_x),
        y.mask_fill(flag.clone(), other_y),
    ]
}

/// What is made of a gradient a without a b.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Lone {
    /// a.
    Alone,
    /// x a, as if b were zero.
    Zero,
}

/// x a + y b of each parameter that has both. What has a coefficient of 0 may hold anything.
pub(crate) fn combine<M: Module>(
    module: &M,
    a: GradientsParams,
    b: &GradientsParams,
    lone: Lone,
    coefficients: &[Tensor<1>; 2],
) -> GradientsParams {
    struct Pairs<'a> {
        a: GradientsParams,
        b: &'a GradientsParams,
        lone: Lone,
        ids: Vec<ParamId>,
        pairs: Vec<Pair>,
        alone: GradientsParams,
    }

    impl ModuleVisitor for Pairs<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let Some(a) = self.a.remove::<D>(param.id) else {
                return;
            };
            let b = match (self.b.get::<D>(param.id), self.lone) {
                (Some(b), _) => b,
                (None, Lone::Zero) => a.zeros_like(),
                (None, Lone::Alone) => return self.alone.register(param.id, a),
            };
            self.ids.push(param.id);
            self.pairs.push(Pair::new(a, b));
        }
    }

    let mut pairs = Pairs {
        a,
        b,
        lone,
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

/// Registers what was made of the pairs, each with its parameter's rank.
struct Register(HashMap<ParamId, Combined>, GradientsParams);

impl ModuleVisitor for Register {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(combined) = self.0.remove(&param.id) {
            self.1.register(param.id, combined.into_tensor::<D>());
        }
    }
}

/// Drops gradients in the module's order, rather than in that of a hash map, which is another each time: Burn's
/// fusion knows a step again by its operations, drops among them, and looks for what to fuse anew where it does not.
/// On a small perceptron, that takes four times the rest of the step.
pub(crate) fn release<M: Module>(module: &M, grads: GradientsParams) {
    struct Release(GradientsParams);

    impl ModuleVisitor for Release {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            drop(self.0.remove::<D>(param.id));
        }
    }

    module.visit(&mut Release(grads));
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
