//! Vectors of the weights' size: directions, gradients, products with the Hessian.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_sam_kernels::portable::{sum_of_squares, total};
use rand::RngExt;
use rand::rngs::StdRng;
use rand_distr::StandardNormal;

use crate::ascent::in_place_of;

/// A part for each trainable parameter: its elements in their order, in f64 or f32.
pub(super) struct Vector(Vec<Tensor<1>>);

impl Vector {
    pub(super) fn dot(&self, other: &Self) -> f64 {
        let products = self.0.iter().zip(&other.0);
        let sums = products.map(|(a, b)| (a.clone() * b.clone()).sum());
        read(total(sums.collect()))
    }

    pub(super) fn norm(&self) -> f64 {
        self.dot(self).sqrt()
    }

    /// This vector and `factor` times the other.
    pub(super) fn plus(self, other: &Self, factor: f64) -> Self {
        let pairs = self.0.into_iter().zip(&other.0);
        Self(pairs.map(|(a, b)| a + b.clone() * factor).collect())
    }

    pub(super) fn scaled(self, factor: f64) -> Self {
        Self(self.0.into_iter().map(|part| part * factor).collect())
    }
}

/// The parameters that require gradients, in the module's order. One that the module holds twice is
/// one.
pub(super) struct Trainable {
    indices: HashMap<ParamId, usize>,
    weights: usize,
    step: f64,
}

impl Trainable {
    pub(super) fn of<M: Module>(module: &M) -> Self {
        struct Find {
            indices: HashMap<ParamId, usize>,
            weights: usize,
            squares: Vec<Tensor<1>>,
            exact: bool,
        }

        impl ModuleVisitor for Find {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if !param.is_require_grad() || self.indices.contains_key(&param.id) {
                    return;
                }
                self.indices.insert(param.id, self.indices.len());
                let weight = param.val().inner();
                self.weights += weight.shape().num_elements();
                self.exact &= weight.dtype() == DType::F64;
                self.squares
                    .push(sum_of_squares(&weight, weight.clone(), None));
            }
        }

        let mut found = Find {
            indices: HashMap::new(),
            weights: 0,
            squares: Vec::new(),
            exact: true,
        };
        module.visit(&mut found);
        // Halfway, in digits, between the rounding of the gradients and the curve between them.
        let precision = match found.exact {
            true => f64::EPSILON,
            false => f64::from(f32::EPSILON),
        };
        let norm = read(total(found.squares)).sqrt();
        Self {
            indices: found.indices,
            weights: found.weights,
            step: precision.cbrt() * (1.0 + norm),
        }
    }

    /// The number of weights.
    pub(super) fn len(&self) -> usize {
        self.weights
    }

    /// How far to go for a difference of gradients.
    pub(super) fn step(&self) -> f64 {
        self.step
    }

    /// A direction of independent normal values times `sign`, divided by ASAM's T if there is an eta,
    /// as the gradients of the parameters.
    pub(super) fn normal<M: Module>(
        &self,
        module: &M,
        rng: &mut StdRng,
        eta: Option<f64>,
        sign: f64,
    ) -> GradientsParams {
        struct Draw<'a> {
            trainable: &'a Trainable,
            rng: &'a mut StdRng,
            eta: Option<f64>,
            sign: f64,
            direction: GradientsParams,
        }

        impl ModuleVisitor for Draw<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let known = self.direction.get::<D>(param.id).is_some();
                if known || !self.trainable.indices.contains_key(&param.id) {
                    return;
                }
                let weight = param.val().inner();
                let mut value = || self.sign * self.rng.sample::<f64, _>(StandardNormal);
                let values = draw(weight.dims(), &mut value, &weight.device(), weight.dtype());
                let values = match self.eta {
                    None => values,
                    Some(eta) => {
                        // Where T is 0, nothing moves.
                        let t = weight.abs().add_scalar(eta);
                        let still = t.clone().equal_elem(0.0);
                        (values / t).mask_fill(still, 0.0)
                    }
                };
                self.direction.register(param.id, values);
            }
        }

        let mut draw = Draw {
            trainable: self,
            rng,
            eta,
            sign,
            direction: GradientsParams::new(),
        };
        module.visit(&mut draw);
        draw.direction
    }

    /// A vector of 1 and -1, each as likely.
    pub(super) fn signs<M: Module>(&self, module: &M, rng: &mut StdRng) -> Vector {
        self.vector(module, |dims, device, dtype| {
            let mut sign = || if rng.random::<bool>() { 1.0 } else { -1.0 };
            Some(draw([dims], &mut sign, device, dtype))
        })
    }

    /// The gradients as a vector: 0 where there is none.
    pub(super) fn flatten<M: Module>(&self, module: &M, grads: GradientsParams) -> Vector {
        struct Flatten<'a> {
            trainable: &'a Trainable,
            grads: GradientsParams,
            parts: Vec<Option<Tensor<1>>>,
        }

        impl ModuleVisitor for Flatten<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(&index) = self.trainable.indices.get(&param.id)
                    && let Some(grad) = self.grads.remove::<D>(param.id)
                {
                    let len = grad.shape().num_elements();
                    self.parts[index] = Some(grad.reshape([len]));
                }
            }
        }

        let mut flatten = Flatten {
            trainable: self,
            grads,
            parts: vec![None; self.indices.len()],
        };
        module.visit(&mut flatten);
        let mut parts = flatten.parts.into_iter();
        self.vector(module, |_, _, dtype| {
            let part = parts.next().expect("a part for each");
            part.map(|part| part.cast(dtype))
        })
    }

    /// The module at w + factor v.
    pub(super) fn displace<M: Module>(&self, module: M, vector: &Vector, factor: f64) -> M {
        struct Displace<'a>(&'a Trainable, &'a Vector, f64);

        impl ModuleMapper for Displace<'_> {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let Some(&index) = self.0.indices.get(&param.id) else {
                    return param;
                };
                let id = param.id;
                param.map(|parameter| {
                    let weight = parameter.clone().inner();
                    let part = self.1.0[index].clone() * self.2;
                    let moved = weight.clone().cast(part.dtype()) + part.reshape(weight.dims());
                    in_place_of(parameter, moved.cast(weight.dtype()), id)
                })
            }
        }

        module.map(&mut Displace(self, vector, factor))
    }

    /// A part of each parameter, given its length, its device and the type to compute in; zeros for
    /// `None`.
    fn vector<M: Module>(
        &self,
        module: &M,
        part: impl FnMut(usize, &Device, DType) -> Option<Tensor<1>>,
    ) -> Vector {
        struct Parts<'a, F> {
            trainable: &'a Trainable,
            parts: Vec<Tensor<1>>,
            part: F,
        }

        impl<F: FnMut(usize, &Device, DType) -> Option<Tensor<1>>> ModuleVisitor for Parts<'_, F> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                // In the order of the indices, each the first time.
                if self.trainable.indices.get(&param.id) != Some(&self.parts.len()) {
                    return;
                }
                let weight = param.val().inner();
                let (len, device) = (weight.shape().num_elements(), weight.device());
                let dtype = match weight.dtype() {
                    DType::F64 => DType::F64,
                    _ => DType::F32,
                };
                let part = (self.part)(len, &device, dtype);
                let zeros = || Tensor::zeros([len], (&device, dtype));
                self.parts.push(part.unwrap_or_else(zeros));
            }
        }

        let mut parts = Parts {
            trainable: self,
            parts: Vec::new(),
            part,
        };
        module.visit(&mut parts);
        Vector(parts.parts)
    }
}

/// Whether all gradients are finite.
pub(super) fn are_finite<M: Module>(module: &M, grads: &GradientsParams) -> bool {
    struct Squares<'a>(&'a GradientsParams, Vec<Tensor<1>>);

    impl ModuleVisitor for Squares<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.0.get::<D>(param.id) {
                self.1.push(sum_of_squares(&grad, grad.clone(), None));
            }
        }
    }

    let mut squares = Squares(grads, Vec::new());
    module.visit(&mut squares);
    read(total(squares.1)).is_finite()
}

fn draw<const D: usize>(
    dims: [usize; D],
    value: &mut impl FnMut() -> f64,
    device: &Device,
    dtype: DType,
) -> Tensor<D> {
    let values: Vec<f64> = (0..dims.iter().product()).map(|_| value()).collect();
    Tensor::from_data(TensorData::new(values, dims), (device, dtype))
}

/// The value of a sum, which is 0 of nothing.
fn read(sum: Option<Tensor<1>>) -> f64 {
    let value = sum.and_then(|sum| sum.into_data().iter::<f64>().next());
    value.unwrap_or_default()
}
